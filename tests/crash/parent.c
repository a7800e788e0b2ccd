/* parent.c - see parent.h. */
#include "crash/parent.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_MS \
    240000u /* to open and verify, to end, to get on; README.md, "Machines that stall" */

struct worker_shared *parent_shared_new(void)
{
    struct worker_shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (shared == MAP_FAILED) {
        return NULL;
    }
    worker_reset(shared);
    return shared;
}

void parent_shared_free(struct worker_shared *shared)
{
    (void)munmap(shared, sizeof(*shared));
}

uint64_t parent_ms(void)
{
    return live_clock_ns() / 1000000;
}

void parent_sleep_us(uint32_t microseconds)
{
    const struct timespec pause = {.tv_sec = microseconds / 1000000,
                                   .tv_nsec = (long)(microseconds % 1000000) * 1000};

    (void)nanosleep(&pause, NULL);
}

void parent_die_with(void)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
}

bool life_start(struct worker_shared *shared, const struct worker_plan *plan, struct life *ret)
{
    for (uint32_t index = 0; index < WORKER_THREADS_MAX; index++) {
        oracle_compact(&shared->parts[index].oracle, 0);
    }
    atomic_store(&shared->phase, 0);
    (void)fflush(NULL);
    *ret = (struct life){.pid = fork()};
    if (ret->pid == 0) {
        parent_die_with();
        _exit(worker_run(shared, plan));
    }
    if (ret->pid < 0) {
        printf("FAIL fork: %s\n", strerror(errno));
    }
    return ret->pid > 0;
}

bool life_reaches(struct worker_shared *shared, struct life *life, uint32_t phase,
                  uint32_t limit_ms)
{
    uint64_t end = parent_ms() + limit_ms;

    while (parent_ms() < end) {
        if (waitpid(life->pid, &life->status, WNOHANG) == life->pid) {
            life->ended = true;
            return true;
        }
        if (atomic_load(&shared->phase) >= phase) {
            return true;
        }
        parent_sleep_us(300);
    }
    return false;
}

static void hang_end(struct worker_shared *shared, struct life *life, const char *what)
{
    printf("FAIL %s (phase %u)\n", what, atomic_load(&shared->phase));
    (void)kill(life->pid, SIGABRT);
    (void)kill(life->pid, SIGCONT);
    (void)waitpid(life->pid, &life->status, 0);
    life->ended = true;
}

bool life_wait(struct worker_shared *shared, struct life *life, uint32_t phase)
{
    if (!life_reaches(shared, life, phase, LIMIT_MS)) {
        hang_end(shared, life, "the host hung");
        return false;
    }
    return true;
}

/* What the host's threads have found; how many of them found something. */
static uint32_t wrong_tell(const struct worker_shared *shared)
{
    uint32_t count = 0;

    for (uint32_t index = 0; index < WORKER_THREADS_MAX; index++) {
        const struct worker_part *part = &shared->parts[index];

        if (part->why[0] != '\0') {
            count++;
            printf("FAIL thread %u of the host: %s\n", index, part->why);
            if (part->name_wrong < ORACLE_NAMES) {
                oracle_tell(&part->oracle, part->name_wrong);
            }
        }
    }
    return count;
}

static int end_judge(const struct worker_shared *shared, const struct life *life, bool is_expected)
{
    uint32_t wrong = wrong_tell(shared);

    if (!is_expected) {
        printf("FAIL the host %s %d\n", WIFSIGNALED(life->status) ? "died of signal" : "ended with",
               WIFSIGNALED(life->status) ? WTERMSIG(life->status) : WEXITSTATUS(life->status));
    }
    return is_expected && wrong == 0 ? 0 : 1;
}

int life_kill(struct worker_shared *shared, struct life *life)
{
    if (!life->ended) {
        (void)kill(life->pid, SIGKILL);
        (void)waitpid(life->pid, &life->status, 0);
        life->ended = true;
    }
    return end_judge(shared, life, WIFSIGNALED(life->status) && WTERMSIG(life->status) == SIGKILL);
}

int life_exit(struct worker_shared *shared, struct life *life, int expected)
{
    if (!life->ended && !life_wait(shared, life, WORKER_ENDED)) {
        return 1;
    }
    return end_judge(shared, life,
                     WIFEXITED(life->status) && WEXITSTATUS(life->status) == expected);
}

uint64_t life_progress(const struct worker_shared *shared)
{
    struct worker_counts counts = parent_counts(shared);

    return counts.promises + counts.attaches + counts.items_put;
}

bool life_goes_on(struct worker_shared *shared, struct life *life)
{
    uint64_t before = life_progress(shared), end = parent_ms() + LIMIT_MS;

    while (parent_ms() < end) {
        if (life->ended || waitpid(life->pid, &life->status, WNOHANG) == life->pid) {
            life->ended = true;
            return life_kill(shared, life) == 0; /* says what it ended with */
        }
        if (life_progress(shared) > before + 8) {
            return true;
        }
        parent_sleep_us(1000);
    }
    hang_end(shared, life, "the host gets nowhere");
    return false;
}

int life_last(struct worker_shared *shared, const struct worker_plan *plan)
{
    struct worker_plan last = *plan;
    struct life life;

    last.last = true;
    last.strike = last.rough = false;
    return life_start(shared, &last, &life) ? life_exit(shared, &life, 0) : 1;
}

struct worker_counts parent_counts(const struct worker_shared *shared)
{
    struct worker_counts sum = {0};

    for (uint32_t index = 0; index < WORKER_THREADS_MAX; index++) {
        const struct worker_counts *counts = &shared->parts[index].counts;

        sum.detaches += counts->detaches;
        sum.promises += counts->promises;
        sum.attaches += counts->attaches;
        sum.deletes += counts->deletes;
        sum.forks += counts->forks;
        sum.truncates += counts->truncates;
        sum.items_put += counts->items_put;
        sum.refusals += counts->refusals;
        sum.sessions_verified += counts->sessions_verified;
        sum.sessions_gone += counts->sessions_gone;
        sum.sessions_newer += counts->sessions_newer;
        sum.items_verified += counts->items_verified;
        sum.bytes_verified += counts->bytes_verified;
        sum.processes_forked += counts->processes_forked;
    }
    /* of the process: the first thread counts them */
    sum.blocks_evicted = shared->parts[0].counts.blocks_evicted;
    sum.bytes_written = shared->parts[0].counts.bytes_written;
    sum.live_max = shared->parts[0].counts.live_max;
    sum.store_bytes = shared->parts[0].counts.store_bytes;
    return sum;
}
