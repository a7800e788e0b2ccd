/*
 * frame.h - places for blocks in a space: frames of one stride, a free list per node.
 *
 * Frame f of node n: n = f / frames_per_node, address = base + f * stride. All nodes have the same
 * frames_per_node in the numbering; a node with a smaller part simply has fewer valid frames. A frame
 * never straddles a 1 GiB registration chunk. The caller holds the lock (rank KV): not thread-safe.
 */
#ifndef AB_MACHINE_FRAME_H
#define AB_MACHINE_FRAME_H

#include "machine/space.h"

struct ab_frames_desc {
    const struct ab_os *os;
    const struct ab_log *log;
    const struct ab_topology *topology;
    uint64_t stride;                     /* multiple of 4 KiB */
    uint32_t frame_count[AB_NODES_MAX];  /* wanted per dense node */
    enum ab_huge huge;
    uint32_t prefault_threads;
};
struct ab_frame_chunk { /* what a ring registers as one buffer, <= 1 GiB */
    unsigned char *base;
    uint64_t bytes;
    uint32_t node;
};

struct ab_frames;
int ab_frames_open(const struct ab_frames_desc *desc, struct ab_frames **ret) AB_MUST_CHECK;
void ab_frames_close(struct ab_frames *frames); /* NULL is fine */

/* A free frame on the node, AB_INDEX_NONE: none there. The last freed is given first (warm). */
uint32_t ab_frame_take(struct ab_frames *frames, uint32_t node);
void ab_frame_give(struct ab_frames *frames, uint32_t frame);
uint32_t ab_frames_free(const struct ab_frames *frames, uint32_t node);
uint32_t ab_frames_total(const struct ab_frames *frames, uint32_t node);

unsigned char *ab_frames_base(const struct ab_frames *frames);
uint64_t ab_frames_stride(const struct ab_frames *frames);
uint32_t ab_frames_per_node(const struct ab_frames *frames);
uint32_t ab_frames_capacity(const struct ab_frames *frames); /* node_count * frames_per_node */
const struct ab_space_facts *ab_frames_facts(const struct ab_frames *frames);
uint64_t ab_frames_metadata_bytes(const struct ab_frames *frames);
uint32_t ab_frames_chunk_count(const struct ab_frames *frames);
struct ab_frame_chunk ab_frames_chunk(const struct ab_frames *frames, uint32_t chunk);
/* whole-structure check, for AB_ASSERT_FULL and tests: every frame is free once or taken */
bool ab_frames_are_valid(const struct ab_frames *frames);

static inline uint32_t ab_frame_node(uint32_t frame, uint32_t frames_per_node)
{
    return frame / frames_per_node;
}

#endif
