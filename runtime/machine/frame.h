/*
 * frame.h - places for blocks in a space: frames of one stride, a free list per node.
 *
 * Frame f of node n: n = f / frames_per_node, address = base + f * stride. All nodes have the same
 * frames_per_node in the numbering; a node with a smaller part simply has fewer valid frames:
 *
 *   node 0: wants 3        node 1: wants 5         frames_per_node = 512 (stride 4 KiB)
 *   |0|1|2|  not valid ... |512|513|514|515|516|  not valid ...
 *
 * frames_per_node is the largest count wanted, rounded up until frames_per_node * stride is a
 * multiple of 2 MiB, so that each node's part begins on a huge page. Numbers that are not valid have
 * address space but no memory. A frame never straddles a registration chunk: chunks are cut at the
 * last frame boundary within 1 GiB. The caller holds the lock (rank KV): not thread-safe.
 */
#ifndef AB_MACHINE_FRAME_H
#define AB_MACHINE_FRAME_H

#include "machine/space.h"

struct ab_frames_desc {
    const struct ab_os *os;
    const struct ab_log *log;
    const struct ab_topology *topology;
    uint64_t stride;                    /* multiple of 4 KiB, at most 1 GiB */
    uint32_t frame_count[AB_NODES_MAX]; /* wanted per dense node */
    enum ab_huge huge;
    uint32_t prefault_threads;
};
struct ab_frame_chunk { /* what a ring registers as one buffer, <= 1 GiB */
    unsigned char *base;
    uint64_t bytes;
    uint32_t node;
};

struct ab_frames;
/* -EINVAL: stride, no frame at all, or more than 2^32 - 1 frame numbers; else as ab_space_open. */
int ab_frames_open(const struct ab_frames_desc *desc, struct ab_frames **ret) AB_MUST_CHECK;
void ab_frames_close(struct ab_frames *frames); /* NULL is fine */

/* A free frame on the node, AB_INDEX_NONE: none there. The last freed is given first (warm). */
uint32_t ab_frame_take(struct ab_frames *frames, uint32_t node);
/* The frame must be taken: giving one twice is a broken promise (check.h), and changes nothing. */
void ab_frame_give(struct ab_frames *frames, uint32_t frame);
uint32_t ab_frames_free(const struct ab_frames *frames, uint32_t node);
uint32_t ab_frames_total(const struct ab_frames *frames, uint32_t node);

unsigned char *ab_frames_base(const struct ab_frames *frames);
uint64_t ab_frames_stride(const struct ab_frames *frames);
uint32_t ab_frames_per_node(const struct ab_frames *frames);
uint32_t ab_frames_capacity(const struct ab_frames *frames); /* node_count * frames_per_node */
const struct ab_space_facts *ab_frames_facts(const struct ab_frames *frames);
uint64_t ab_frames_metadata_bytes(const struct ab_frames *frames); /* 4 a frame, and a constant */
uint32_t ab_frames_chunk_count(const struct ab_frames *frames);
struct ab_frame_chunk ab_frames_chunk(const struct ab_frames *frames, uint32_t chunk);
/* whole-structure check, for AB_ASSERT_FULL and tests: every frame is free once or taken. Walks all
 * frames and writes nothing. */
bool ab_frames_are_valid(const struct ab_frames *frames);

static inline uint32_t ab_frame_node(uint32_t frame, uint32_t frames_per_node)
{
    return frame / frames_per_node;
}

#endif
