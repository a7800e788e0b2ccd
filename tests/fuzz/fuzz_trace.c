/*
 * fuzz_trace.c - recorded workloads as `abode replay` reads them: four formats, a folder, a file of
 * starts beside. An input is one byte that says what is made of it, then text; where two files are
 * wanted the text is cut at its first zero byte. Laws: indexes inside their tables, requests in order
 * of time, two requests share at most what each has.
 */
#include "cli/trace.h"
#include "fuzz/fuzz_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"

#define TEXT_MAX 8192u
#define BLOCKS_WALKED 4096u
enum { MADE_FILE, MADE_PAIR, MADE_FOLDER, MADE_COUNT };

static void trace_check(const struct trace *trace)
{
    uint64_t *names = calloc(BLOCKS_WALKED, sizeof(*names));
    fuzz_expect(names != NULL && trace->request_count > 0);
    for (uint32_t i = 0; i < trace->request_count; i++) {
        const struct trace_request *request = &trace->requests[i];
        fuzz_expect(i == 0 || request->start_s >= trace->requests[i - 1].start_s);
        fuzz_expect(request->branch < trace->branch_count);
        fuzz_expect(request->run_first <= trace->run_count &&
                    request->run_count <= trace->run_count - request->run_first);
        fuzz_expect(request->whole_count <= request->block_count);
        fuzz_expect(request->previous == TRACE_NONE || request->previous < trace->request_count);
        fuzz_expect(request->next == TRACE_NONE || request->next < trace->request_count);
        if (request->previous != TRACE_NONE) {
            fuzz_expect(trace->requests[request->previous].next == i);
            fuzz_expect(trace_prefix(trace, request->previous, i) <= request->block_count);
        }
        if (request->block_count > 0 && request->block_count <= BLOCKS_WALKED) {
            trace_identities(trace, i, names);
            const uint32_t last = request->block_count - 1;
            fuzz_expect(trace_identity(trace, i, last) == names[last]);
        }
    }
    free(names);
}

/* The file or folder made of the input; its path. */
static const char *input_make(uint8_t made, const uint8_t *text, size_t size)
{
    static char folder[128], first[160], second[160];
    const uint8_t *zero = memchr(text, 0, size);
    const size_t cut = zero == NULL ? size : (size_t)(zero - text);
    const size_t rest = zero == NULL ? 0 : size - cut - 1;
    if (made == MADE_FILE) {
        return fuzz_memory_file(text, size);
    }
    (void)snprintf(folder, sizeof(folder), "%s/trace", fuzz_store_get()->api->directory);
    fuzz_expect(mkdir(folder, 0700) == 0 || access(folder, W_OK) == 0);
    const bool pair = made == MADE_PAIR;
    (void)snprintf(first, sizeof(first), "%s/%s", folder, pair ? "x_sessions.jsonl" : "a.json");
    (void)snprintf(second, sizeof(second), "%s/%s", folder, pair ? "x_meta.jsonl" : "b.json");
    fuzz_file_write(first, text, cut);
    if (zero == NULL) {
        (void)unlink(second);
    } else {
        fuzz_file_write(second, zero + 1, rest);
    }
    return pair ? first : folder;
}

static void trace_run(const uint8_t *bytes, size_t size)
{
    struct trace trace;
    struct trace_error error;
    if (size == 0) {
        return;
    }
    const int status =
        trace_load(input_make(bytes[0] % MADE_COUNT, bytes + 1, size - 1), &trace, &error);
    if (status == 0) {
        trace_check(&trace);
        trace_free(&trace);
    } else {
        fuzz_expect(status < 0 && error.text[0] != '\0');
    }
}

static const char *const words[] = {
    "\"timestamp\"",
    "\"input_length\"",
    "\"output_length\"",
    "\"hash_ids\"",
    "\"s\"",
    "\"sub\"",
    "\"t\"",
    "\"in\"",
    "\"out\"",
    "\"api\"",
    "\"stop\"",
    "\"h\"",
    "\"id\"",
    "\"type\"",
    "\"requests\"",
    "\"subagent\"",
    "\"block_size\"",
    "\"start_s\"",
    "\"subs\"",
    "\"tool_use\"",
    "null",
    "1e308",
    "-1",
    "281474976710656",
    "65536",
    "1048577",
    "[0,1]",
    "[[0,2],[5,6]]",
    "{}",
    "[]",
    "\n",
    ",",
    "0.5",
};

/* A word of the formats put in, or a number exchanged for another. */
static size_t trace_mutate(uint8_t *bytes, size_t size, size_t capacity, struct fuzz_random *random)
{
    const char *word = words[fuzz_below(random, AB_COUNT(words))];
    char number[16];
    size_t at = size == 0 ? 0 : fuzz_below(random, (uint32_t)size), gone = 0;
    if (fuzz_below(random, 2) == 0) {
        (void)snprintf(number, sizeof(number), "%u", fuzz_interesting(random));
        word = number;
        while (at < size && (bytes[at] < '0' || bytes[at] > '9')) {
            at++;
        }
        while (at + gone < size && bytes[at + gone] >= '0' && bytes[at + gone] <= '9') {
            gone++;
        }
    }
    const size_t length = strlen(word);
    if (size - gone + length > capacity) {
        return size;
    }
    memmove(bytes + at + length, bytes + at + gone, size - at - gone);
    memcpy(bytes + at, word, length);
    return size - gone + length;
}

static const char *const seeds[] = {
    "\x03{\"timestamp\":0,\"input_length\":1500,\"output_length\":7,\"hash_ids\":[0,1,2]}\n"
    "{\"timestamp\":1000,\"input_length\":1024,\"output_length\":0,\"hash_ids\":[0,9]}\n"
    "{\"timestamp\":3000,\"input_length\":2048,\"output_length\":1,\"hash_ids\":[0,1,5,6]}\n",
    "\x04{\"s\":0,\"sub\":null,\"t\":0.0,\"in\":150,\"out\":10,\"api\":1.5,\"stop\":\"tool_use\","
    "\"h\":[[0,3]]}\n{\"s\":0,\"sub\":0,\"t\":2.5,\"in\":200,\"out\":10,\"api\":1,\"stop\":\"\","
    "\"h\":[[0,2],[7,9]]}\n",
    "\x05{\"id\":\"x\",\"block_size\":64,\"requests\":[{\"t\":0,\"in\":130,\"out\":3,\"hash_ids\":"
    "[1,2,3]},{\"type\":\"subagent\",\"t\":1,\"requests\":[{\"t\":0,\"in\":64,\"out\":1,"
    "\"hash_ids\":[1]}]}]}",
};

static size_t trace_seed(uint32_t index, uint8_t *bytes, size_t capacity)
{
    if (index >= AB_COUNT(seeds) || strlen(seeds[index]) > capacity) {
        return 0;
    }
    memcpy(bytes, seeds[index], strlen(seeds[index]));
    return strlen(seeds[index]);
}

extern const struct fuzz_target fuzz_trace;
const struct fuzz_target fuzz_trace = {.name = "trace",
                                       .size_max = TEXT_MAX,
                                       .run = trace_run,
                                       .mutate = trace_mutate,
                                       .seed = trace_seed};
