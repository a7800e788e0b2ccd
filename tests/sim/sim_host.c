/* sim_host.c - see sim_host.h. */
#include "sim/sim_host.h"

#include <fcntl.h>

#define STORE SIM_MOUNT "/store"

void sim_config_init(struct abode_config *config)
{
    static const char *const paths[] = {STORE};

    abode_config_init(config);
    config->log = live_log;
    config->flags = ABODE_CREATE | ABODE_KEEP_KEYS;
    config->memory_bytes_max = 2u << 20;
    config->store_bytes_max = 4u << 20; /* a few times the state: compaction */
    config->segment_bytes = 1u << 20;
    config->store_paths = paths;
    config->store_path_count = 1;
    config->session_count_max = 32;
    config->block_count_max = 4096;
    config->io = ABODE_IO_SYNC;
    config->huge = ABODE_HUGE_NONE;
    config->topology = "synthetic:NUMANode:1 core:1 pu:1";
}

int sim_store_mount(struct sim_disk *disk)
{
    const struct ab_os *os = &disk->os;
    int fd, rc = os->mkdirat(os, AT_FDCWD, STORE, 0700);

    fd = rc < 0 ? rc : os->openat(os, AT_FDCWD, SIM_MOUNT, O_RDONLY | O_DIRECTORY, 0);
    rc = fd < 0 ? fd : os->fsync(os, fd);
    return fd < 0 ? rc : os->close(os, fd);
}
