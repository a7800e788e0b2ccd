/*
 * session.h - sessions: create, find, fork, truncate, delete, notes, restore points.
 *
 * Lock KV held unless a function says otherwise. Handles: generation << 32 | index + 1.
 */
#ifndef AB_KV_SESSION_H
#define AB_KV_SESSION_H

#include "kv/kv.h"

struct ab_record;

/* block numbers of a component's rows; frames of them while attached */
uint32_t *ab_session_rows(struct ab_kv *kv, const struct ab_session *session, uint32_t component);
uint32_t *ab_session_frames(struct ab_kv *kv, const struct ab_session *session, uint32_t component);

/* No lock needed: the session of a handle, or NULL: stale. */
struct ab_session *ab_session_get(struct ab_kv *kv, struct abode_session handle);
struct abode_session ab_session_handle(const struct ab_kv *kv, const struct ab_session *session);
static inline uint32_t ab_session_index(const struct ab_kv *kv, const struct ab_session *session)
{
    return (uint32_t)(session - kv->sessions);
}

/* What these do is in abode.h; lock KV is taken inside. */
int ab_session_create(struct ab_kv *kv, const struct abode_session_opts *opts,
                      struct abode_session *ret) AB_MUST_CHECK;
int ab_session_create_locked(struct ab_kv *kv, const struct abode_session_opts *opts,
                             struct abode_session *ret) AB_MUST_CHECK; /* lock held */
int ab_session_find(struct ab_kv *kv, const struct abode_key *name,
                    struct abode_session *ret) AB_MUST_CHECK;
int ab_session_fork(struct ab_kv *kv, struct abode_session parent, uint64_t token_count,
                    const struct abode_key *name, struct abode_session *ret) AB_MUST_CHECK;
int ab_session_truncate(struct ab_kv *kv, struct abode_session handle,
                        uint64_t token_count) AB_MUST_CHECK;
int ab_session_delete(struct ab_kv *kv, struct abode_session handle) AB_MUST_CHECK;
int ab_session_stat(struct ab_kv *kv, struct abode_session handle,
                    struct abode_session_info *ret) AB_MUST_CHECK;
int ab_session_note_set(struct ab_kv *kv, struct abode_session handle, const void *bytes,
                        size_t size) AB_MUST_CHECK;
int ab_session_note_get(struct ab_kv *kv, struct abode_session handle, void *ret_bytes,
                        size_t capacity) AB_MUST_CHECK;
void ab_session_advise(struct ab_kv *kv, struct abode_session handle, enum abode_advice advice,
                       int64_t value);

/* ---- for the other files of kv ---- */
uint32_t ab_rows_of(const struct ab_model *model, uint64_t token_count); /* ceil */
/* first row of a WINDOW component that position token_count needs; 0 for PAGED */
uint32_t ab_window_first(const struct ab_model *model, uint32_t component, uint64_t token_count);
/* Is the row (of a WINDOW component) part of the committed record, of a restore point's window or of
 * the window at the present end? */
bool ab_window_row_needed(const struct ab_model *model, const struct ab_session *session,
                          uint32_t component, uint32_t row);
/* newest position <= limit at which all components are whole as far as the tables tell; 0: none */
uint64_t ab_session_restore_point(struct ab_kv *kv, const struct ab_session *session,
                                  uint64_t limit);
/* The newest position that was one, damaged or not: what the host counts on, or the journal names. */
uint64_t ab_session_position(struct ab_kv *kv, const struct ab_session *session);
/* the restore point at exactly token_count, NULL: none (or the model has no explicit ones) */
struct ab_restore_point *ab_session_point(struct ab_session *session, uint64_t token_count);
/* Attached: all that the position needs is in memory and pinned. 0; -EAGAIN it is on its way, ask
 * again; -ABODE_EFULL no frames; -EIO, -ABODE_ECORRUPT it cannot be had. */
int ab_session_recall(struct ab_kv *kv, struct ab_session *session,
                      uint64_t token_count) AB_MUST_CHECK;
bool ab_session_is_dirty(struct ab_kv *kv, const struct ab_session *session);
/* Cut to token_count: rows and points behind it go; blocks that nobody names any more are dropped
 * through `record`. A cut inside a row leaves the row as it is. */
void ab_session_cut(struct ab_kv *kv, struct ab_session *session, uint64_t token_count,
                    struct ab_record *record);
void ab_session_point_remove(struct ab_kv *kv, struct ab_session *session, uint32_t at,
                             struct ab_record *record);
/* all its state is in memory and pinned by the attached session */
bool ab_point_is_pinned(const struct ab_model *model, const struct ab_restore_point *point);
/* every component has its state at this position, as far as the tables tell */
bool ab_point_is_whole(struct ab_kv *kv, const struct ab_session *session,
                       const struct ab_restore_point *point);
uint32_t ab_points_kept(const struct ab_model *model); /* restore points with state kept */
/* Before a token is written into a row that is there already: the row's block becomes the session's
 * own, a copy if others share it. The shared one is held on to while the committed record names it. */
int ab_session_tail_own(struct ab_kv *kv, struct ab_session *session, uint32_t component,
                        uint32_t row) AB_MUST_CHECK;
/* The committed record has the note as it is now. */
void ab_session_note_committed(struct ab_kv *kv, struct ab_session *session);
/* The committed record does not name held blocks any more. */
void ab_session_let_go(struct ab_kv *kv, struct ab_session *session, struct ab_record *record);
/* Remove restore points that are neither of the newest nor in the committed record; all: a record has
 * just been committed, only what it names stays (and what is newer than it). */
void ab_session_points_prune(struct ab_kv *kv, struct ab_session *session, bool all,
                             struct ab_record *record);
/* Let go of WINDOW rows that no kept position needs: at the front, and between kept positions, where
 * they leave holes (AB_INDEX_NONE). Rows of the committed record stay; all: the caller has just
 * committed one, those in front of its first go too. */
void ab_session_slide(struct ab_kv *kv, struct ab_session *session, bool all,
                      struct ab_record *record);
/* One name less for the block; the last one drops it (through record; may be NULL if not stored),
 * unless it is keyed and worth keeping for others. */
void ab_block_unref(struct ab_kv *kv, uint32_t block, struct ab_record *record);
void ab_block_ref(struct ab_kv *kv, uint32_t block);
/* Nobody can ask for the block any more: it goes, by a commit of its own. */
void ab_block_forsake(struct ab_kv *kv, uint32_t block);
/* A move of it has ended, well or not: if its last session let go of it meanwhile, it goes now. */
void ab_block_moved(struct ab_kv *kv, uint32_t block);
void ab_session_release(struct ab_kv *kv, struct ab_session *session); /* the place is free again */
/* forget it: drops what nobody else names; no task or spill is in flight, nothing is pinned */
int ab_session_delete_now(struct ab_kv *kv, struct ab_session *session) AB_MUST_CHECK;
/* Give back pins of an attached session (frames stay). */
void ab_session_unpin(struct ab_kv *kv, struct ab_session *session);
/* The same from *row on, `count` rows at most, and *row moved on. true: that was all. */
bool ab_session_unpin_some(struct ab_kv *kv, struct ab_session *session, uint32_t *row,
                           uint32_t count);
void ab_session_detached(struct ab_kv *kv, struct ab_session *session); /* state, LRU */
void ab_event_add(struct ab_kv *kv, uint32_t block);
/* What the store has of it failed its checksum. */
void ab_block_found_bad(struct ab_kv *kv, uint32_t block);
/* replay: the session at this place, made if need be; NULL: out of bounds */
struct ab_session *ab_session_restore(struct ab_kv *kv, uint32_t index, uint32_t generation,
                                      uint32_t model);
void ab_session_name_add(struct ab_kv *kv, struct ab_session *session,
                         const struct abode_key *name);

/* ---- append.c, snapshot.c: the host's thread ---- */
int ab_append_reserve(struct ab_kv *kv, struct abode_session handle, uint32_t token_count,
                      struct abode_span *ret_spans, uint32_t span_capacity) AB_MUST_CHECK;
int ab_append_commit(struct ab_kv *kv, struct abode_session handle, uint32_t token_count,
                     const struct abode_key *keys, uint32_t key_count) AB_MUST_CHECK;
int ab_snapshot_reserve(struct ab_kv *kv, struct abode_session handle, uint32_t component,
                        size_t size, void **ret_bytes) AB_MUST_CHECK;
int ab_snapshot_commit(struct ab_kv *kv, struct abode_session handle,
                       uint32_t component) AB_MUST_CHECK;
int ab_snapshot_get(struct ab_kv *kv, struct abode_session handle, uint32_t component,
                    const void **ret_bytes, size_t *ret_size,
                    uint64_t *ret_token_count) AB_MUST_CHECK;
int ab_session_view(struct ab_kv *kv, struct abode_session handle, uint32_t component,
                    struct abode_view *ret) AB_MUST_CHECK;

#endif
