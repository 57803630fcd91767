/* What a gateway gives up, and in which order, before its memory runs out and the kernel ends all of it.
 *
 *   80% of the ceiling   new joins are refused (503, or 4100 after the upgrade); who is here stays, and may resume
 *   88%                  ephemeral signals (P4) are no longer queued, and those that wait are dropped
 *   95%                  the connections with the most waiting for them are closed as slow, resumable
 *
 * Each includes those before it and ends 5% below where it began. Free of I/O: how much is used is an argument. */
#ifndef SBX_GATEWAY_SHED_H
#define SBX_GATEWAY_SHED_H

#include <stddef.h>
#include <stdint.h>

enum shed_level { SHED_NOTHING, SHED_JOINS, SHED_EPHEMERAL, SHED_SLOWEST };

/* Label values of M_SHED. */
enum { SHED_METRIC_JOIN, SHED_METRIC_SIGNAL, SHED_METRIC_CONNECTION };

/* A ceiling of 0 sheds nothing. */
enum shed_level shed_next_level(enum shed_level level, uint64_t used_bytes, uint64_t ceiling_bytes);

/* Which connections are the slowest: their queues, counted by size in powers of two. */
enum { SHED_SIZES = 32 };
struct shed_queues {
    uint64_t bytes[SHED_SIZES];
};

void shed_count_queue(struct shed_queues *queues, uint32_t queued_bytes);
/* What of the queues must go for the process to come back below the last level, as far as they reach: those of this
 * many bytes or more. UINT32_MAX: none. */
uint32_t shed_slowest_bytes(const struct shed_queues *queues, uint64_t used_bytes, uint64_t ceiling_bytes);

#endif
