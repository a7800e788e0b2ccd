/*
 * test_trace.c - goal: what a trace says is what is replayed, and nothing that is not a trace is
 * ever replayed in part or crashes the reader. Method: small traces written by hand in all four
 * formats; the samples in bench/traces with figures counted by other means; each field out of its
 * bounds on both sides; a sample cut at many places and with random bytes changed.
 */
#include "cli/trace.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define PATH_BYTES 512
#define CUTS 200
#define CHANGES 300

struct fixture {
    char folder[PATH_BYTES / 2];
    char path[PATH_BYTES];
    struct trace trace;
    struct trace_error error;
};

static int set_up(void **state)
{
    struct fixture *const fixture = calloc(1, sizeof(*fixture));
    const char *const base = getenv("TMPDIR");

    (void)snprintf(fixture->folder, sizeof(fixture->folder), "%.200s/abode-trace-XXXXXX",
                   base == NULL ? "/tmp" : base);
    *state = fixture;
    return mkdtemp(fixture->folder) == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
    struct fixture *const fixture = *state;
    char command[PATH_BYTES];

    (void)snprintf(command, sizeof(command), "rm -rf '%s'", fixture->folder);
    const int rc = system(command);
    free(fixture);
    return rc;
}

static void write_bytes(struct fixture *fixture, const char *name, const char *bytes, size_t size)
{
    (void)snprintf(fixture->path, sizeof(fixture->path), "%s/%s", fixture->folder, name);
    FILE *const file = fopen(fixture->path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void write_text(struct fixture *fixture, const char *name, const char *text)
{
    write_bytes(fixture, name, text, strlen(text));
}

static int load(struct fixture *fixture)
{
    return trace_load(fixture->path, &fixture->trace, &fixture->error);
}

/* The text is refused, and the message has all of `wanted` (separated by '|'). */
static void refused(struct fixture *fixture, const char *text, const char *wanted)
{
    char words[256];
    char *rest = words;

    write_text(fixture, "bad.jsonl", text);
    const int rc = load(fixture);
    if (rc >= 0) {
        trace_free(&fixture->trace);
        fail_msg("accepted: %s", text);
    }
    (void)snprintf(words, sizeof(words), "%s", wanted);
    for (char *word; (word = strsep(&rest, "|")) != NULL;) {
        if (strstr(fixture->error.text, word) == NULL) {
            fail_msg("no \"%s\" in: %s", word, fixture->error.text);
        }
    }
}

static void test_conversation(void **state)
{
    struct fixture *const f = *state;

    write_text(
        f, "c.jsonl",
        "{\"timestamp\":2000,\"input_length\":1500,\"output_length\":7,\"hash_ids\":[0,1,2]}\n"
        "{\"timestamp\":1000,\"input_length\":1024,\"output_length\":0,\"hash_ids\":[0,9]}\n"
        "\n"
        "{\"timestamp\":3000,\"input_length\":2048,\"output_length\":1,"
        "\"hash_ids\":[0,1,5,6]}");
    assert_int_equal(load(f), 0);
    assert_int_equal(f->trace.format, TRACE_CONVERSATION);
    assert_int_equal(f->trace.block_tokens, 512);
    assert_int_equal(f->trace.request_count, 3);
    const struct trace_request *const r = f->trace.requests;
    assert_int_equal(r[0].line, 2); /* by time, not by line */
    assert_int_equal(r[1].line, 1);
    assert_int_equal(r[2].line, 4);
    assert_true(r[0].start_s == 0 && r[1].start_s == 1 && r[2].start_s == 2);
    assert_int_equal(r[1].block_count, 3);
    assert_int_equal(r[1].whole_count, 2);
    assert_int_equal(trace_prefix(&f->trace, 0, 1), 1); /* ids are global: other branches share */
    assert_int_equal(trace_prefix(&f->trace, 1, 2), 2);
    assert_int_equal(r[2].previous, 1); /* all whole blocks of line 1 lead line 4 */
    assert_int_equal(r[1].next, 2);
    assert_int_equal(r[0].next, TRACE_NONE);
    assert_int_equal(trace_identity(&f->trace, 1, 0), trace_identity(&f->trace, 0, 0));
    assert_int_not_equal(trace_identity(&f->trace, 1, 1), trace_identity(&f->trace, 1, 2));
    trace_free(&f->trace);
}

static void test_agentic_with_and_without_starts(void **state)
{
    struct fixture *const f = *state;
    static const char requests[] =
        "{\"s\":5,\"sub\":\"\",\"t\":0,\"in\":640,\"out\":10,\"api\":2.5,\"stop\":\"tool_use\","
        "\"h\":[[1,11]]}\n"
        "{\"s\":5,\"sub\":\"\",\"t\":30,\"in\":700,\"out\":10,\"stop\":\"end_turn\","
        "\"h\":[[1,9],[20,22]]}\n"
        "{\"s\":5,\"sub\":\"0\",\"t\":1,\"in\":640,\"out\":1,\"h\":[[1,11]]}\n"
        "{\"s\":6,\"sub\":\"\",\"t\":0,\"in\":640,\"out\":1,\"h\":[[1,11]]}\n";

    write_text(f, "x_meta.jsonl",
               "{\"s\":5,\"sub\":[{\"t\":100.5}],\"start_s\":50}\n{\"s\":6,\"start_s\":10}\n"
               "{\"s\":7,\"start_s\":1}\n");
    write_text(f, "x_sessions.jsonl", requests);
    assert_int_equal(load(f), 0);
    assert_false(f->trace.starts_drawn);
    assert_int_equal(f->trace.block_tokens, 64);
    assert_int_equal(f->trace.branch_count, 3);
    assert_int_equal(f->trace.session_count, 2);
    const struct trace_request *const r = f->trace.requests;
    assert_int_equal(r[0].line, 4); /* starts at 10 */
    assert_int_equal(r[1].line, 1); /* 50 */
    assert_int_equal(r[2].line, 2); /* 80 */
    assert_int_equal(r[3].line, 3); /* 50 + 100.5 + 1 */
    assert_true(r[3].start_s == 141.5);
    assert_true(r[1].busy_s == 2.5 && r[2].busy_s == 0);
    assert_int_equal(r[1].stop, TRACE_STOP_TOOL);
    assert_int_equal(r[2].stop, TRACE_STOP_TURN);
    assert_int_equal(r[3].stop, TRACE_STOP_UNKNOWN);
    assert_int_equal(r[1].next, 2);
    assert_int_equal(trace_prefix(&f->trace, 1, 2), 8);
    assert_int_equal(trace_prefix(&f->trace, 1, 3), 10); /* a sub-agent shares with its session */
    assert_int_equal(trace_prefix(&f->trace, 0, 1), 0);  /* another session never */
    trace_free(&f->trace);

    write_text(f, "alone.jsonl", requests);
    assert_int_equal(load(f), 0);
    assert_true(f->trace.starts_drawn);
    assert_true(f->trace.requests[3].start_s < TRACE_DAY_S + 31);
    trace_free(&f->trace);
}

static const char session_text[] =
    "{\"id\":\"a\",\"block_size\":32,\"requests\":["
    "{\"t\":0,\"in\":100,\"out\":5,\"hash_ids\":[1,2,3],\"stop\":\"tool_use\",\"api_time\":1.5},\n"
    "{\"type\":\"subagent\",\"t\":4,\"requests\":[{\"t\":1,\"in\":64,\"out\":5,\"hash_ids\":[1,7]}]"
    "},\n"
    "{\"t\":9,\"in\":132,\"out\":5,\"hash_ids\":[1,2,3,4],\"stop\":\"end_turn\"}]}";

static void test_published_sessions(void **state)
{
    struct fixture *const f = *state;

    write_text(f, "a.json", session_text);
    assert_int_equal(load(f), 0);
    assert_int_equal(f->trace.format, TRACE_AGENTIC_SESSION);
    assert_int_equal(f->trace.block_tokens, 32);
    assert_int_equal(f->trace.request_count, 3);
    assert_int_equal(f->trace.branch_count, 2);
    assert_true(f->trace.starts_drawn);
    assert_true(f->trace.requests[1].start_s > 4.99 && f->trace.requests[1].start_s < 5.01);
    assert_int_equal(trace_prefix(&f->trace, 0, 1), 1);
    assert_int_equal(trace_prefix(&f->trace, 0, 2), 3);
    trace_free(&f->trace);

    write_text(f, "b.json", session_text);
    write_text(f, "note.txt", "not looked at");
    (void)snprintf(f->path, sizeof(f->path), "%s", f->folder);
    assert_int_equal(load(f), 0);
    assert_int_equal(f->trace.request_count, 6);
    assert_int_equal(f->trace.session_count, 2);
    trace_free(&f->trace);
}

#define CONVERSATION_OF(fields) "{\"timestamp\":0,\"input_length\":600," fields "}\n"
#define AGENTIC_OF(fields) "{\"s\":1,\"t\":0,\"in\":128," fields "}\n"

static void test_what_is_no_trace(void **state)
{
    struct fixture *const f = *state;

    refused(f, "", "empty|bench/traces");
    refused(f, " \n\n", "empty");
    refused(f, "hello\n", ":1: not a trace");
    refused(f, "[1,2]\n", "not a trace");
    refused(f, "{}\n", "no trace that is known");
    refused(f, "{\"a\":1}\n", "no trace that is known");
    refused(f, "TIMESTAMP,ContextTokens,GeneratedTokens\n", "without block ids");
    refused(f, "{\"s\":1,\"start_s\":5}\n", "list of sessions");
    refused(f, "{\"block_size\":64,\"requests\":[]}", "no request");
    refused(f, "{\"block_size\":64,\"requests\":5}", "\"requests\" is not a list");
    refused(f, "{\"block_size\":0,\"requests\":[]}", "block_size");
    refused(f, "{\n\"block_size\":64,\n\"requests\":[", "cut");
    (void)snprintf(f->path, sizeof(f->path), "%s/missing", f->folder);
    assert_int_equal(load(f), -ENOENT);
    assert_non_null(strstr(f->error.text, "missing"));
    (void)snprintf(f->path, sizeof(f->path), "%s", f->folder);
    (void)remove("bad.jsonl");
    assert_int_equal(load(f), -EINVAL);
    assert_non_null(strstr(f->error.text, "no .json file"));
}

static void test_hostile_fields(void **state)
{
    struct fixture *const f = *state;

    refused(f, CONVERSATION_OF("\"output_length\":1,\"hash_ids\":[1,2,3]"), ":1: |do not agree");
    refused(f, CONVERSATION_OF("\"output_length\":-1,\"hash_ids\":[1]"), "output_length");
    refused(f, CONVERSATION_OF("\"output_length\":1.5,\"hash_ids\":[1]"), "whole number");
    refused(f, CONVERSATION_OF("\"output_length\":\"1\",\"hash_ids\":[1]"), "not a number");
    refused(f, CONVERSATION_OF("\"output_length\":1e300,\"hash_ids\":[1]"), "output_length");
    refused(f, CONVERSATION_OF("\"output_length\":16777217,\"hash_ids\":[1]"), "output_length");
    refused(f, CONVERSATION_OF("\"hash_ids\":[1]"), "\"output_length\" is missing");
    refused(f, CONVERSATION_OF("\"output_length\":1,\"hash_ids\":[-1]"), "block id");
    refused(f, CONVERSATION_OF("\"output_length\":1,\"hash_ids\":[281474976710657]"), "block id");
    refused(f, CONVERSATION_OF("\"output_length\":1,\"hash_ids\":[1.5]"), "block id");
    refused(f, CONVERSATION_OF("\"output_length\":1,\"hash_ids\":[[1]]"), "block id");
    refused(f, CONVERSATION_OF("\"output_length\":1,\"hash_ids\":7"), "hash_ids");
    refused(f, CONVERSATION_OF("\"output_length\":1,\"output_length\":2,\"hash_ids\":[1]"), "JSON");
    refused(f, "{\"timestamp\":-5,\"input_length\":1,\"output_length\":1,\"hash_ids\":[]}\n",
            "timestamp");
    refused(f, "{\"timestamp\":0,\"input_length\":0,\"output_length\":1,\"hash_ids\":[]}\n",
            "input_length");
    refused(f, CONVERSATION_OF("\"output_length\":1,\"hash_ids\":[1]") "[]\n",
            ":2: not a JSON object");
    refused(f, CONVERSATION_OF("\"output_length\":1,\"hash_ids\":[1]") "{\"s\":1,\"h\":[]}\n",
            ":2: ");
    refused(f, CONVERSATION_OF("\"output_length\":1,\"hash_ids\":[1]") "{\"timesta", ":2: |cut");
    refused(f, CONVERSATION_OF("\"output_length\":1,\"hash_ids\":[1]") "{\"t\n{}", ":2: not JSON");
    refused(f, AGENTIC_OF("\"out\":1,\"h\":[[1,4]]"), "do not agree");
    refused(f, AGENTIC_OF("\"out\":1,\"h\":[[4,4]]"), "empty range");
    refused(f, AGENTIC_OF("\"out\":1,\"h\":[[4,1]]"), "empty range");
    refused(f, AGENTIC_OF("\"out\":1,\"h\":[[0,281474976710656]]"), "more than");
    refused(f, AGENTIC_OF("\"out\":1,\"h\":[[1]]"), "range 0");
    refused(f, AGENTIC_OF("\"out\":1,\"h\":[5]"), "range 0");
    refused(f, AGENTIC_OF("\"out\":1,\"h\":5"), "\"h\"");
    refused(f, AGENTIC_OF("\"out\":1,\"sub\":\"x\",\"h\":[[1,2]]"), "\"sub\"");
    refused(f, AGENTIC_OF("\"out\":1,\"sub\":-1,\"h\":[[1,2]]"), "\"sub\"");
    refused(f, AGENTIC_OF("\"out\":1,\"sub\":1048576,\"h\":[[1,2]]"), "\"sub\"");
    refused(f, AGENTIC_OF("\"out\":1,\"api\":-1,\"h\":[[1,2]]"), "\"api\"");
    refused(f, "{\"s\":-1,\"t\":0,\"in\":64,\"out\":1,\"h\":[]}\n", "\"s\"");
    refused(f, "{\"s\":1,\"t\":1e10,\"in\":64,\"out\":1,\"h\":[]}\n", "\"t\"");
}

static void test_damaged_meta(void **state)
{
    struct fixture *const f = *state;

    write_text(f, "y_meta.jsonl", "{\"s\":1,\"start_s\":-1}\n");
    write_text(f, "y_sessions.jsonl", AGENTIC_OF("\"out\":1,\"h\":[[1,3]]"));
    assert_int_equal(load(f), -EINVAL);
    assert_non_null(strstr(f->error.text, "y_meta.jsonl:1"));
}

/* bench/traces lies beside the sources, wherever the test is run from. */
static bool sample_path(struct fixture *fixture, const char *name)
{
    const char *const tree = getenv("ABODE_TREE");
    (void)snprintf(fixture->path, sizeof(fixture->path), "%.300s/bench/traces/%s",
                   tree == NULL ? "." : tree, name);
    return access(fixture->path, R_OK) == 0;
}

static void test_samples(void **state)
{
    struct fixture *const f = *state;

    if (!sample_path(f, "agentic_sessions.jsonl")) {
        print_message("SKIP: %s is not there: run from the source tree or set ABODE_TREE\n",
                      f->path);
        skip();
    }
    assert_int_equal(load(f), 0);
    assert_int_equal(f->trace.request_count, 1056);
    assert_int_equal(f->trace.session_count, 24);
    assert_int_equal(f->trace.branch_count, 30);
    assert_false(f->trace.starts_drawn);
    trace_free(&f->trace);
    assert_true(sample_path(f, "conversation.jsonl"));
    assert_int_equal(load(f), 0);
    assert_int_equal(f->trace.request_count, 2500);
    for (uint32_t i = 0; i < f->trace.request_count; i++) {
        const struct trace_request *const request = &f->trace.requests[i];
        const uint32_t before = request->previous;
        assert_true(i == 0 || f->trace.requests[i - 1].start_s <= request->start_s);
        if (before != TRACE_NONE) {
            assert_true(before < i && f->trace.requests[before].next == i);
            assert_true(trace_prefix(&f->trace, before, i) >=
                        f->trace.requests[before].whole_count);
        }
    }
    trace_free(&f->trace);
}

static char *file_bytes(const char *path, size_t *ret_size)
{
    FILE *const file = fopen(path, "rb");
    char *const bytes = malloc(1u << 20);

    assert_non_null(file);
    assert_non_null(bytes);
    *ret_size = fread(bytes, 1, 1u << 20, file);
    assert_int_equal(fclose(file), 0);
    return bytes;
}

/* Cut anywhere but at a line's end: refused, with the word "cut" and the right line. */
static void test_cut_and_changed_samples(void **state)
{
    struct fixture *const f = *state;
    const char *const given = getenv("ABODE_TEST_SEED");
    const unsigned int seed =
        given == NULL ? (unsigned int)time(NULL) : (unsigned int)strtoul(given, NULL, 10);
    size_t size = 0;

    if (!sample_path(f, "agentic_sessions.jsonl")) {
        print_message("SKIP: %s is not there: run from the source tree or set ABODE_TREE\n",
                      f->path);
        skip();
    }
    print_message("seed %u (ABODE_TEST_SEED)\n", seed);
    srand(seed);
    char *const bytes = file_bytes(f->path, &size);
    size = size < 20000 ? size : 20000;
    for (int i = 0; i < CUTS; i++) {
        const size_t cut = 1 + (size_t)rand() % (size - 1);
        write_bytes(f, "cut.jsonl", bytes, cut);
        const int rc = load(f);
        const bool between_lines = bytes[cut - 1] == '\n' || bytes[cut] == '\n';
        assert_int_equal(rc, between_lines ? 0 : -EINVAL);
        if (rc == 0) {
            trace_free(&f->trace);
        } else {
            assert_non_null(strstr(f->error.text, "cut"));
        }
    }
    for (int i = 0; i < CHANGES; i++) {
        const size_t at = (size_t)rand() % size;
        const char before = bytes[at];
        bytes[at] = (char)rand();
        write_bytes(f, "changed.jsonl", bytes, size);
        const int rc = load(f); /* may still be a trace; must not crash, leak or say nothing */
        if (rc == 0) {
            trace_free(&f->trace);
        } else {
            assert_int_not_equal(f->error.text[0], '\0');
        }
        bytes[at] = before;
    }
    free(bytes);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_conversation),
        WITH_FOLDER(test_agentic_with_and_without_starts),
        WITH_FOLDER(test_published_sessions),
        WITH_FOLDER(test_what_is_no_trace),
        WITH_FOLDER(test_hostile_fields),
        WITH_FOLDER(test_damaged_meta),
        WITH_FOLDER(test_samples),
        WITH_FOLDER(test_cut_and_changed_samples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
