/* signalbox-shard: owns rooms. */
#include "common/log.h"
#include "common/program.h"
#include "common/score.h"
#include "shard/process.h"
#include <stddef.h>

static const char *const duplicate_policies[] = {"replace", "refuse", NULL};
_Static_assert(DUPLICATE_REPLACE == 0 && DUPLICATE_REFUSE == 1, "choices are in the order of the enum");

static const struct config_key table[] = {
    CLUSTER_CONFIG_KEYS(struct shard_config, cluster, "127.0.0.1:9602"),
    {.name = "shard.weight",
     .type = CONFIG_INT,
     .offset = offsetof(struct shard_config, weight),
     .def = "100",
     .min = 1,
     .max = SCORE_WEIGHT_MAX,
     .help = "This shard's share of the rooms, in proportion to the weights of the others."},
    {.name = "shard.duplicate_identity",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct shard_config, duplicate),
     .def = "replace",
     .choices = duplicate_policies,
     .help = "When somebody joins a room in which the same identity is already: the newcomer takes the place of the "
             "earlier session, or is refused. The same in every shard of the cluster."},
    {.name = "shard.drain_deadline_ms",
     .type = CONFIG_INT,
     .offset = offsetof(struct shard_config, drain_deadline_ms),
     .def = "10000",
     .min = 0,
     .max = 3600 * 1000,
     .unit = "ms",
     .help = "SIGTERM lets the shard leave the cluster in order; after this time it ends in any case."},
#define LIMIT(member, def_, min_, max_, unit_, help_)                                                                  \
    {.name = "limits." #member,                                                                                        \
     .type = CONFIG_INT,                                                                                               \
     .offset = offsetof(struct shard_config, limits.member),                                                           \
     .def = #def_,                                                                                                     \
     .min = min_,                                                                                                      \
     .max = max_,                                                                                                      \
     .unit = unit_,                                                                                                    \
     .help = help_},
#include "shard/limits_table.h"
#undef LIMIT
    {.name = NULL},
};

static const struct program program = {
    .name = "signalbox-shard",
    .summary = "A shard of a Signalbox cluster: owns rooms, their membership and the order of what happens in them.",
    .table = table,
    .cluster_offset = offsetof(struct shard_config, cluster),
};

static void on_stop(void *ctx, bool at_once)
{
    shard_process_stop(ctx, at_once);
}

static enum program_exit run(const struct shard_config *config)
{
    enum program_exit exit = PROGRAM_EXIT_FAILED;
    struct loop *loop = loop_new();
    struct program_signals signals = {.stop = on_stop};
    program_watch_signals(loop, &signals);
    struct shard_process *process = shard_process_open(loop, config);
    if (process != NULL) {
        signals.ctx = process;
        loop_run(loop);
        exit = shard_process_exit(process);
        shard_process_close(&process);
    }
    loop_free(&loop);
    log_info("shard_ended", log_int("exit_code", exit));
    return exit;
}

int main(int argc, char **argv)
{
    struct shard_config config = {0};
    struct program_args args = {0};
    enum program_exit exit;

    if (program_start(&program, argc, argv, &args, &config, &exit))
        exit = run(&config);
    config_done(table, &config);
    program_args_done(&args);
    return exit;
}
