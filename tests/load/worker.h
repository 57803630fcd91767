/* One process of the swarm: its share of the participants, in whole rooms, on one epoll loop. */
#ifndef SBX_LOAD_WORKER_H
#define SBX_LOAD_WORKER_H

#include "tests/load/options.h"
#include "tests/load/stats.h"

/* Follows the coordinator's orders in `stats` until PHASE_LEAVE is done; the result is the process's exit status. */
int worker_run(const struct swarm_options *options, unsigned index, const char *run, struct worker_stats *stats);

#endif
