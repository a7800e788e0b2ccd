/*
 * frame.c - a free list per node, as one array of 4 bytes a frame.
 *
 *   head[node] -> 2 -> 0 -> 1 -> NONE        next[2] = 0, next[0] = 1, next[1] = NONE
 *                                            next[f] = TAKEN: not on a list
 *
 * Last in, first out: the frame that was freed last is the one most likely still in a cache. The
 * mark of a taken frame lies in the link itself, so that a double give is seen without other memory.
 * The array is mapped lazily: numbers of frames that do not exist cost nothing. One lock of the
 * caller's (rank KV) guards all of it, so there are no caches per thread: see the README.
 */
#include "machine/frame.h"

#include <errno.h>

#include "base/num.h"

#define CHUNK_BYTES_MAX (1u << 30)      /* io_uring: 1 GiB a registered buffer, more is EFAULT */
#define TAKEN (AB_INDEX_NONE - 1)       /* in next[] */
#define NUMBERS_MAX (AB_INDEX_NONE - 2) /* frame numbers; TAKEN and NONE are none */

struct ab_frames {
    const struct ab_os *os;
    struct ab_space *space;
    uint32_t *next;      /* by frame: the next free one, AB_INDEX_NONE, or TAKEN */
    uint64_t next_bytes; /* of the mapping */
    uint64_t stride;
    uint64_t chunk_bytes; /* the largest multiple of stride within 1 GiB */
    uint32_t node_count;
    uint32_t frames_per_node;
    uint32_t head[AB_NODES_MAX];
    uint32_t free[AB_NODES_MAX];
    uint32_t total[AB_NODES_MAX];
};

/* How many frames until a whole number of huge pages is reached: 512 for 4 KiB, 1 for 2 MiB. */
static uint32_t frames_per_huge(uint64_t stride)
{
    const uint64_t lowest_bit = stride & -stride; /* the power of two in stride */
    return (uint32_t)(AB_HUGE / AB_MIN(lowest_bit, (uint64_t)AB_HUGE));
}

static int numbering(const struct ab_frames_desc *desc, struct ab_frames *frames)
{
    uint64_t most = 0;
    if (desc->stride == 0 || desc->stride % AB_PAGE != 0 || desc->stride > CHUNK_BYTES_MAX) {
        return -EINVAL;
    }
    frames->stride = desc->stride;
    frames->chunk_bytes = CHUNK_BYTES_MAX / desc->stride * desc->stride;
    frames->node_count = ab_topology_node_count(desc->topology);
    for (uint32_t n = 0; n < AB_NODES_MAX; n++) {
        if (desc->frame_count[n] != 0 && n >= frames->node_count) {
            return -EINVAL;
        }
        frames->total[n] = desc->frame_count[n];
        most = AB_MAX(most, (uint64_t)desc->frame_count[n]);
    }
    const uint64_t per_node = ab_align_up(most, frames_per_huge(desc->stride));
    if (most == 0 || per_node * frames->node_count > NUMBERS_MAX) {
        return -EINVAL;
    }
    frames->frames_per_node = (uint32_t)per_node;
    return 0;
}

static void lists_fill(struct ab_frames *frames)
{
    for (uint32_t n = 0; n < frames->node_count; n++) {
        const uint32_t first = n * frames->frames_per_node;
        const uint32_t count = frames->total[n];
        for (uint32_t i = 0; i < count; i++) {
            frames->next[first + i] = i + 1 < count ? first + i + 1 : AB_INDEX_NONE;
        }
        frames->head[n] = count > 0 ? first : AB_INDEX_NONE;
        frames->free[n] = count;
    }
}

static int frames_make(const struct ab_frames_desc *desc, struct ab_frames *frames)
{
    int result = numbering(desc, frames);
    if (result < 0) {
        return result;
    }
    struct ab_space_desc space = {
        .os = desc->os,
        .log = desc->log,
        .topology = desc->topology,
        .node_span_bytes = frames->frames_per_node * frames->stride,
        .huge = desc->huge,
        .prefault_threads = desc->prefault_threads,
    };
    for (uint32_t n = 0; n < frames->node_count; n++) {
        space.node_bytes[n] = ab_align_up(frames->total[n] * frames->stride, AB_HUGE);
    }
    void *next;
    const uint64_t next_bytes = (uint64_t)ab_frames_capacity(frames) * sizeof(*frames->next);
    result = ab_os_map_lazy(desc->os, next_bytes, &next);
    if (result < 0) {
        return result;
    }
    frames->next = next;
    frames->next_bytes = next_bytes;
    result = ab_space_open(&space, &frames->space);
    if (result < 0) {
        return result;
    }
    lists_fill(frames);
    return 0;
}

int ab_frames_open(const struct ab_frames_desc *desc, struct ab_frames **ret)
{
    const struct ab_os *os = desc->os;
    struct ab_frames *frames = os->alloc(os, sizeof(*frames), _Alignof(struct ab_frames));
    if (frames == NULL) {
        return -ENOMEM;
    }
    frames->os = os;
    const int result = frames_make(desc, frames);
    if (result < 0) {
        ab_frames_close(frames);
        return result;
    }
    *ret = frames;
    return 0;
}

void ab_frames_close(struct ab_frames *frames)
{
    if (frames == NULL) {
        return;
    }
    const struct ab_os *os = frames->os;
    ab_space_close(frames->space);
    if (frames->next != NULL) {
        (void)os->munmap(os, frames->next, ab_align_up(frames->next_bytes, AB_PAGE));
    }
    os->free(os, frames);
}

static bool frame_exists(const struct ab_frames *frames, uint32_t frame)
{
    const uint32_t node = frame / frames->frames_per_node;
    return node < frames->node_count && frame % frames->frames_per_node < frames->total[node];
}

uint32_t ab_frame_take(struct ab_frames *frames, uint32_t node)
{
    AB_ASSERT_DEBUG(node < frames->node_count);
    const uint32_t frame = frames->head[node];
    if (frame == AB_INDEX_NONE) {
        return AB_INDEX_NONE;
    }
    frames->head[node] = frames->next[frame];
    frames->next[frame] = TAKEN;
    frames->free[node]--;
    return frame;
}

void ab_frame_give(struct ab_frames *frames, uint32_t frame)
{
    const bool is_taken = frame_exists(frames, frame) && frames->next[frame] == TAKEN;
    AB_ASSERT(is_taken);
    if (!is_taken) {
        return;
    }
    const uint32_t node = ab_frame_node(frame, frames->frames_per_node);
    frames->next[frame] = frames->head[node];
    frames->head[node] = frame;
    frames->free[node]++;
}

uint32_t ab_frames_free(const struct ab_frames *frames, uint32_t node)
{
    return frames->free[node];
}

uint32_t ab_frames_total(const struct ab_frames *frames, uint32_t node)
{
    return frames->total[node];
}

unsigned char *ab_frames_base(const struct ab_frames *frames)
{
    return ab_space_base(frames->space);
}

uint64_t ab_frames_stride(const struct ab_frames *frames)
{
    return frames->stride;
}

uint32_t ab_frames_per_node(const struct ab_frames *frames)
{
    return frames->frames_per_node;
}

uint32_t ab_frames_capacity(const struct ab_frames *frames)
{
    return frames->node_count * frames->frames_per_node;
}

const struct ab_space_facts *ab_frames_facts(const struct ab_frames *frames)
{
    return ab_space_facts(frames->space);
}

uint64_t ab_frames_metadata_bytes(const struct ab_frames *frames)
{
    uint64_t bytes = sizeof(*frames);
    for (uint32_t n = 0; n < frames->node_count; n++) {
        bytes += frames->total[n] * sizeof(*frames->next);
    }
    return bytes;
}

/* ---- chunks ---- */

static uint32_t node_chunks(const struct ab_frames *frames, uint32_t node)
{
    return (uint32_t)ab_div_up(frames->total[node] * frames->stride, frames->chunk_bytes);
}

uint32_t ab_frames_chunk_count(const struct ab_frames *frames)
{
    uint32_t count = 0;
    for (uint32_t n = 0; n < frames->node_count; n++) {
        count += node_chunks(frames, n);
    }
    return count;
}

struct ab_frame_chunk ab_frames_chunk(const struct ab_frames *frames, uint32_t chunk)
{
    uint32_t node = 0;
    uint32_t left = chunk;
    while (node + 1 < frames->node_count && left >= node_chunks(frames, node)) {
        left -= node_chunks(frames, node);
        node++;
    }
    const uint64_t bytes = frames->total[node] * frames->stride;
    const uint64_t offset = left * frames->chunk_bytes;
    AB_ASSERT(offset < bytes);
    return (struct ab_frame_chunk){
        .base = ab_space_node_base(frames->space, node) + offset,
        .bytes = AB_MIN(frames->chunk_bytes, bytes - offset),
        .node = node,
    };
}

/* ---- whole-structure check ---- */

/* The list of a node: as long as its count says, within the node, and no frame of it taken. A frame
 * that is on it twice makes a circle, which the count ends. */
static bool list_is_valid(const struct ab_frames *frames, uint32_t node)
{
    uint32_t count = 0;
    uint32_t frame = frames->head[node];
    while (frame != AB_INDEX_NONE && count <= frames->free[node]) {
        if (!frame_exists(frames, frame) || ab_frame_node(frame, frames->frames_per_node) != node) {
            return false;
        }
        frame = frames->next[frame];
        count++;
    }
    return frame == AB_INDEX_NONE && count == frames->free[node];
}

bool ab_frames_are_valid(const struct ab_frames *frames)
{
    for (uint32_t n = 0; n < frames->node_count; n++) {
        const uint32_t first = n * frames->frames_per_node;
        uint32_t taken = 0;
        for (uint32_t i = 0; i < frames->total[n]; i++) {
            taken += frames->next[first + i] == TAKEN ? 1 : 0;
        }
        if (!list_is_valid(frames, n) || taken + frames->free[n] != frames->total[n]) {
            return false;
        }
    }
    return true;
}
