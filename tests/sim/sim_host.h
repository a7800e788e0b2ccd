/* sim_host.h - the tiny store in /sim/store that the tests of this folder open, and how. */
#ifndef SIM_HOST_H
#define SIM_HOST_H

#include "live.h"
#include "sim/sim_disk.h"

/* sync engine, one device, one made-up node: as little as possible runs at the same time */
void sim_config_init(struct abode_config *config);
/* The directory of the store, durable. */
int sim_store_mount(struct sim_disk *disk);

#endif
