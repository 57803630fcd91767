/* A running shard: the room decisions wired to the cluster, the operator's listener and the process's end.
 *
 * Threading: loop thread.
 */
#ifndef SBX_SHARD_PROCESS_H
#define SBX_SHARD_PROCESS_H

#include "common/program.h"
#include "shard/shard.h"
#include <stdbool.h>
#include <stdint.h>

struct shard_config {
    struct cluster_config cluster;
    int64_t weight;
    int duplicate; /* enum duplicate_policy */
    int64_t drain_deadline_ms;
    int64_t high_percent, low_percent; /* of the limits; shard/capacity.h */
#define LIMIT(name, def, min, max, unit, help) int64_t name;
    struct {
#include "shard/limits_table.h"
    } limits;
#undef LIMIT
};

struct shard_process;

/* NULL, with the reason logged, if it cannot start. The configuration is borrowed. */
struct shard_process *shard_process_open(struct loop *loop, const struct shard_config *config);
void shard_process_close(struct shard_process **process);
/* Hands its rooms over, leaves the view and stops the loop, within the configured time; `at_once`: stops the loop. */
void shard_process_stop(struct shard_process *process, bool at_once);
/* New limits, policy and log level. The configuration is borrowed from now on, the old one no longer used. */
void shard_process_reload(struct shard_process *process, const struct shard_config *config);
/* Whether it may take rooms; otherwise a reason. */
bool shard_process_ready(struct shard_process *process, char *reason, size_t size);
/* How it ended, once the loop has stopped. */
enum program_exit shard_process_exit(const struct shard_process *process);

#endif
