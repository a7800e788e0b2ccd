/*
 * api_fixture.h - a runtime over a temporary store, small, with content that can be checked.
 *
 * Models of the fixture: `hybrid` (PAGED of two planes, SNAPSHOT, BYTES: restore points are
 * explicit) and `paged` (PAGED only: every position is one). The bytes of a token are a function of
 * (salt, position, plane), those of a snapshot of (salt, position, component): a session is checked
 * against its salt alone. The log goes into a buffer that tests search. `fault` lies under all of
 * it. api_up and api_down are cmocka's set-up and tear-down; the fixture is the test's state.
 */
#ifndef AB_TESTS_UNIT_API_FIXTURE_H
#define AB_TESTS_UNIT_API_FIXTURE_H

#include <abode/abode.h>
#include <pthread.h>

#include "fault_os.h"

enum {
    API_BLOCK_TOKENS = 8,
    API_TOKEN_BYTES = 512, /* of each of the two planes */
    API_ROW_BYTES = 2 * API_BLOCK_TOKENS * API_TOKEN_BYTES,
    API_STATE_BYTES = 6000,
    API_BYTES_MAX = 32768,
    API_LOG_BYTES = 16384,
};
enum { API_KV, API_STATE, API_BYTES }; /* components of the hybrid model */

struct api {
    struct fault_os fault;
    struct abode_config config; /* of the next api_open; store_paths = paths */
    char directory[64];
    const char *paths[4];
    uint64_t hybrid_bytes, paged_bytes; /* memory of the models; 0: not declared */
    struct abode *runtime;              /* NULL: closed */
    struct abode_queue *queue;
    uint32_t hybrid, paged;
    pthread_mutex_t log_mutex;
    char log[API_LOG_BYTES];
    size_t log_size;
};

int api_up(void **state);
int api_down(void **state);

int api_try_open(struct api *api); /* abode_open alone, with the log emptied before */
void api_open(struct api *api);    /* with models and a queue of depth 64 */
void api_close(struct api *api);
void api_reopen(struct api *api);
bool api_logged(struct api *api, const char *text); /* is it in the log since the last open? */
void api_log_write(void *context, int level, const char *line);
/* rm -rf, and the same for what `directory` holds */
void api_remove_tree(const char *path);

struct abode_model_desc api_hybrid_desc(const struct api *api);
struct abode_model_desc api_paged_desc(const struct api *api);

struct abode_key api_name(uint32_t number);
/* name 0: anonymous */
struct abode_session api_create(struct api *api, uint32_t model, uint32_t name);
struct abode_session api_find(struct api *api, uint32_t name);
uint64_t api_tokens(struct api *api, struct abode_session session);
struct abode_session_info api_stat(struct api *api, struct abode_session session);

/* Append tokens; asks again while frames are being freed. 0 or the failure. */
int api_append(struct api *api, struct abode_session session, uint32_t salt, uint32_t count);
/* Asks again while state of that position is brought in. */
int api_truncate(struct api *api, struct abode_session session, uint64_t token_count);
/* State and bytes at the session's position. */
int api_snapshot(struct api *api, struct abode_session session, uint32_t salt);
/* Both; asserts that they succeed. */
void api_turn(struct api *api, struct abode_session session, uint32_t salt, uint32_t count);
/* Every byte of an attached session, which must be `tokens` long; asserts. */
void api_check(struct api *api, struct abode_session session, uint32_t salt, uint64_t tokens);

/* Wait for this op; its status. started: what the call that started it returned. */
int api_wait(struct api *api, struct abode_op *op, int started);
int api_attach(struct api *api, struct abode_session session, uint32_t flags);
int api_detach(struct api *api, struct abode_session session, uint32_t flags);

/* Damage as abode_verify tells it. */
struct api_damage {
    uint32_t count;
    struct abode_damage first;
};
uint64_t api_verify(struct api *api, struct api_damage *ret); /* blocks that are bad */
/* Flip a byte of the store's files: the first place in them that holds these bytes. Asserts that
 * there is one. The runtime should be closed, or the state not in memory. */
void api_corrupt(const struct api *api, const void *bytes, size_t size);
/* First bytes of what is stored for a position: to find them in a file. */
void api_token_bytes(uint32_t salt, uint64_t position, uint32_t plane, unsigned char *ret,
                     size_t size);
void api_state_bytes(uint32_t salt, uint64_t position, uint32_t component, unsigned char *ret,
                     size_t size);

#endif
