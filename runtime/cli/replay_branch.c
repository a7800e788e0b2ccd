/*
 * replay_branch.c - identities, row keys and restore points of the sessions that replay keeps.
 */
#include "replay_branch.h"

#include "content.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void replay_branch_free(struct replay_branch *branch)
{
    free(branch->identities);
    free(branch->row_keys);
    *branch = (struct replay_branch){0};
}

void replay_branch_cut(struct replay *replay, struct replay_branch *branch, uint64_t token_count)
{
    const uint32_t block = replay->trace.block_tokens;
    const uint64_t rows = token_count / replay->geometry.block_tokens;

    branch->tokens = token_count;
    branch->identity_count = (uint32_t)((token_count + block - 1) / block);
    branch->row_count = rows < branch->row_count ? (uint32_t)rows : branch->row_count;
    while (branch->point_count > 0 && branch->points[branch->point_count - 1] > token_count) {
        branch->point_count--;
    }
}

static int room_make(void **array, uint32_t *capacity, uint64_t count, size_t bytes)
{
    if (count <= *capacity) {
        return 0;
    }
    const uint64_t wanted = count + count / 4 + 16;
    void *const larger = realloc(*array, wanted * bytes);
    if (larger == NULL) {
        return -ENOMEM;
    }
    *array = larger;
    *capacity = (uint32_t)wanted;
    return 0;
}

int replay_branch_grow(struct replay *replay, struct replay_branch *branch, const uint64_t *wanted,
                       uint64_t token_count)
{
    const uint32_t block = replay->trace.block_tokens;
    const uint32_t count = (uint32_t)((token_count + block - 1) / block);
    const uint32_t kept = (uint32_t)(branch->tokens / block);
    const int rc = room_make((void **)&branch->identities, &branch->identity_capacity, count,
                             sizeof(*branch->identities));
    if (rc < 0) {
        return rc;
    }
    for (uint32_t i = kept; i < count; i++) {
        branch->identities[i] = wanted[i];
    }
    branch->identity_count = count;
    branch->tokens = token_count;
    return 0;
}

/* A row's key stands for its tokens: for each trace block in it, the identity and the range. */
static void row_key(const struct replay *replay, const struct abode_key *parent,
                    const uint64_t *identities, uint64_t row, struct abode_key *ret)
{
    const uint32_t block = replay->trace.block_tokens, length = replay->geometry.block_tokens;
    const uint64_t end = (row + 1) * length;
    struct abode_key key = *parent;

    for (uint64_t token = row * length; token < end;) {
        const uint64_t index = token / block;
        const uint64_t block_end = (index + 1) * block;
        const uint64_t stop = block_end < end ? block_end : end;
        const uint32_t words[4] = {(uint32_t)identities[index], (uint32_t)(identities[index] >> 32),
                                   (uint32_t)(token % block), (uint32_t)(stop - token)};
        struct abode_key next;
        abode_key_next(&key, words, 4, &next);
        key = next;
        token = stop;
    }
    *ret = key;
}

int replay_branch_keys(struct replay *replay, struct replay_branch *branch,
                       const uint64_t *identities, uint32_t row_count)
{
    const int rc = room_make((void **)&branch->row_keys, &branch->row_capacity, row_count,
                             sizeof(*branch->row_keys));
    if (rc < 0) {
        return rc;
    }
    for (; branch->row_count < row_count; branch->row_count++) {
        const uint32_t row = branch->row_count;
        row_key(replay, row == 0 ? &replay->root_key : &branch->row_keys[row - 1], identities, row,
                &branch->row_keys[row]);
    }
    return 0;
}

uint64_t replay_branch_common(const struct replay *replay, const struct replay_branch *branch,
                              const uint64_t *wanted, uint64_t token_max)
{
    const uint64_t most = branch->tokens < token_max ? branch->tokens : token_max;
    const uint32_t block = replay->trace.block_tokens;

    for (uint64_t index = 0; index * block < most; index++) {
        if (branch->identities[index] != wanted[index]) {
            return index * block;
        }
    }
    return most;
}

void replay_branch_point_add(struct replay_branch *branch, uint64_t token_count)
{
    if (branch->point_count > 0 && branch->points[branch->point_count - 1] == token_count) {
        return;
    }
    if (branch->point_count == PRESET_SNAPSHOTS_KEPT) {
        memmove(branch->points, branch->points + 1,
                (PRESET_SNAPSHOTS_KEPT - 1) * sizeof(branch->points[0]));
        branch->point_count--;
    }
    branch->points[branch->point_count++] = token_count;
}

uint64_t replay_branch_point_below(const struct replay *replay, const struct replay_branch *branch,
                                   uint64_t token_count)
{
    if (replay->geometry.fixed_bytes == 0) {
        return token_count == branch->tokens
                   ? token_count
                   : token_count - token_count % replay->geometry.block_tokens;
    }
    for (uint32_t i = branch->point_count; i > 0; i--) {
        if (branch->points[i - 1] <= token_count) {
            return branch->points[i - 1];
        }
    }
    return 0;
}
