/*
 * config.c - what the host asks for: sizes of structs, bounds, defaults.
 */
#include <string.h>

#include "base/num.h"
#include "front/front.h"

#define MEMORY_DEFAULT (1ull << 30)
#define SCRUB_RATE_MAX (1ull << 36)
#define MEMORY_MIN (2ull << 20)
#define SESSIONS_MAX (1u << 20)
#define BLOCKS_MAX (1u << 28)
#define BLOCK_BYTES_GUESS \
    4096 /* a slot is not smaller; the table is lazy: unused places cost nothing */
#define BLOCKS_MIN 65536u
#define BLOCKS_DEFAULT_MAX (1u << 24)
#define RECLAIM_LOW_DEFAULT 2
#define RECLAIM_HIGH_DEFAULT 5
#define IO_DEPTH_DEFAULT 8

void abode_config_init_sized(struct abode_config *config, size_t struct_size)
{
    if (config == NULL || struct_size < sizeof(uint32_t)) {
        return;
    }
    memset(config, 0, struct_size);
    config->struct_size = (uint32_t)struct_size;
}

static int bad(const struct abode_config *config, const char *what)
{
    const struct ab_log log = {config->log, config->log_context};
    ab_log(&log, AB_LOG_ERROR, "config: %s", what);
    return -EINVAL;
}

/* Half a pointer, where the caller's size ends in the middle of one, is none. */
#define POINTER_KEEP(config, field, size)                                                       \
    ((config)->field = (size) >= offsetof(struct abode_config, field) + sizeof((config)->field) \
                           ? (config)->field                                                    \
                           : NULL)

static int config_copy(const struct abode_config *from, struct abode_config *ret)
{
    uint32_t size = from->struct_size;
    if (size < offsetof(struct abode_config, segment_bytes) || size > 1u << 16) {
        return -EINVAL;
    }
    *ret = (struct abode_config){.struct_size = sizeof(*ret)};
    memcpy(ret, from, AB_MIN(size, sizeof(*ret)));
    ret->struct_size = sizeof(*ret);
    POINTER_KEEP(ret, topology, size);
    POINTER_KEEP(ret, log, size);
    POINTER_KEEP(ret, log_context, size);
    const uint8_t *bytes = (const uint8_t *)from;
    for (size_t i = sizeof(*ret); i < size; i++) {
        if (bytes[i] != 0) {
            (void)bad(ret, "a field is set that this version of the library does not have: update "
                           "the library, or leave the field zero");
            return -E2BIG;
        }
    }
    return 0;
}

static int enums_check(const struct abode_config *config)
{
    const uint32_t flags = ABODE_READ_ONLY | ABODE_CREATE | ABODE_KEEP_KEYS;
    if ((config->flags & ~flags) != 0) {
        return bad(config, "unknown flags");
    }
    if (config->io > ABODE_IO_SYNC) {
        return bad(config, "io must be one of enum abode_io");
    }
    if (config->durability > ABODE_DURABLE) {
        return bad(config, "durability must be one of enum abode_durability");
    }
    if (config->huge > ABODE_HUGE_NONE) {
        return bad(config, "huge must be one of enum abode_huge");
    }
    if ((config->flags & ABODE_READ_ONLY) != 0 &&
        (config->store_path_count == 0 || (config->flags & ABODE_CREATE) != 0)) {
        return bad(config, "ABODE_READ_ONLY needs store_paths and goes without ABODE_CREATE");
    }
    return 0;
}

static int paths_check(const struct abode_config *config)
{
    if (config->store_path_count > AB_STORE_DEVICES_MAX) {
        return bad(config, "at most 16 store directories");
    }
    if (config->store_path_count > 0 && config->store_paths == NULL) {
        return bad(config, "store_path_count is set but store_paths is NULL");
    }
    for (uint32_t i = 0; i < config->store_path_count; i++) {
        if (config->store_paths[i] == NULL || config->store_paths[i][0] == '\0') {
            return bad(config, "a store path is empty");
        }
    }
    if (config->store_path_count == 0 && config->durability > ABODE_MEM) {
        return bad(config, "WRITTEN and DURABLE need a store: set store_paths, or durability MEM");
    }
    return 0;
}

static int bounds_check(const struct abode_config *config)
{
    if (config->memory_bytes_max < MEMORY_MIN || config->memory_bytes_max > 1ull << 46) {
        return bad(config, "memory_bytes_max must be 2 MiB to 64 TiB");
    }
    if (config->segment_bytes % AB_SEGMENT_STEP != 0 ||
        config->segment_bytes > AB_SEGMENT_BYTES_MAX) {
        return bad(config, "segment_bytes must be a multiple of 1 MiB, at most 256 MiB");
    }
    if (config->session_count_max > SESSIONS_MAX) {
        return bad(config, "session_count_max must be at most 1,048,576");
    }
    if (config->block_count_max > BLOCKS_MAX) {
        return bad(config, "block_count_max must be at most 268,435,456");
    }
    if (config->scrub_bytes_per_second > SCRUB_RATE_MAX) {
        return bad(config, "scrub_bytes_per_second must be at most 64 GiB");
    }
    if (config->io_depth > AB_IO_DEPTH_MAX) {
        return bad(config, "io_depth must be at most 64");
    }
    if (config->reclaim_high_percent > 50 ||
        config->reclaim_low_percent > config->reclaim_high_percent) {
        return bad(config, "reclaim percents: low <= high <= 50");
    }
    return 0;
}

int ab_config_take(const struct abode_config *from, struct abode_config *ret)
{
    if (from == NULL) {
        return -EINVAL;
    }
    int status = config_copy(from, ret);
    if (status != 0) {
        return status;
    }
    if (ret->memory_bytes_max == 0) {
        ret->memory_bytes_max = MEMORY_DEFAULT;
    }
    if (ret->reclaim_low_percent == 0) {
        ret->reclaim_low_percent = RECLAIM_LOW_DEFAULT;
    }
    if (ret->reclaim_high_percent == 0) {
        ret->reclaim_high_percent = AB_MAX(RECLAIM_HIGH_DEFAULT, ret->reclaim_low_percent);
    }
    if (ret->io_depth == 0) {
        ret->io_depth = IO_DEPTH_DEFAULT;
    }
    status = enums_check(ret);
    if (status == 0) {
        status = paths_check(ret);
    }
    if (status == 0) {
        status = bounds_check(ret);
    }
    if (ret->durability == ABODE_DURABILITY_DEFAULT) {
        ret->durability = ret->store_path_count > 0 ? ABODE_DURABLE : ABODE_MEM;
    }
    return status;
}

int ab_config_fit(const struct ab_topology *topology, const struct ab_log *log,
                  struct abode_config *config)
{
    uint64_t allowed = ab_topology_allowed(topology);
    if (config->node_mask == 0) {
        config->node_mask = allowed;
    }
    if ((config->node_mask & ~allowed) != 0 || config->node_mask == 0) {
        ab_log(log, AB_LOG_ERROR,
               "config: node_mask 0x%llx names nodes that are not there or not allowed; allowed "
               "are 0x%llx",
               (unsigned long long)config->node_mask, (unsigned long long)allowed);
        return -EINVAL;
    }
    if (config->block_count_max == 0) {
        uint64_t bytes = config->memory_bytes_max;
        if (!ab_add_u64(bytes, config->store_bytes_max, &bytes)) {
            return -EINVAL;
        }
        uint64_t blocks = bytes / BLOCK_BYTES_GUESS;
        blocks = config->store_bytes_max == 0 ? 1u << 20 : blocks;
        config->block_count_max = (uint32_t)AB_MIN(AB_MAX(blocks, BLOCKS_MIN), BLOCKS_DEFAULT_MAX);
    }
    return 0;
}
