/* What the measured processes cost, from /proc: memory as their proportional share (PSS), so that what processes share
 * counts once, and CPU time. */
#ifndef SBX_LOAD_OBSERVE_H
#define SBX_LOAD_OBSERVE_H

#include "tests/load/options.h"
#include <stdint.h>

struct usage {
    int64_t pss_bytes;
    int64_t cpu_us; /* user and system, since the process began */
};

/* Sums over the processes. -1 with a message on standard error if one cannot be read. */
int observe_tier(const struct pids *pids, struct usage *ret_usage);
/* Sums of resident memory and of CPU time so far: cheap enough for every second. A process that is gone counts 0. */
void observe_quickly(const struct pids *pids, int64_t *ret_resident_bytes, int64_t *ret_cpu_us);
/* What the machine could still give without swapping; -1 if unknown. */
int64_t observe_available_bytes(void);
/* The kernel's slab, of which sockets are a part: a figure for the machine, not for a process. -1 if unknown. */
int64_t observe_kernel_bytes(void);

#endif
