/* signalbox-shard: owns rooms. */
#include "common/log.h"
#include "common/mem.h"
#include "common/program.h"
#include "common/score.h"
#include "shard/process.h"
#include <stddef.h>
#include <stdlib.h>

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
     .help = "SIGTERM lets the shard hand its rooms over in steps and leave the cluster; a little before this time it "
             "leaves with what it still holds, and the rooms are rebuilt elsewhere."},
    {.name = "capacity.high_percent",
     .type = CONFIG_INT,
     .offset = offsetof(struct shard_config, high_percent),
     .def = "85",
     .min = 1,
     .max = 100,
     .unit = "percent",
     .help = "A shard that uses so much of limits.rooms, participants, queue_depth or loop_lag_ms lowers its weight by "
             "a step, at most every membership.relief_ms."},
    {.name = "capacity.low_percent",
     .type = CONFIG_INT,
     .offset = offsetof(struct shard_config, low_percent),
     .def = "70",
     .min = 0,
     .max = 99,
     .unit = "percent",
     .help = "Once it uses less of all of them, it raises its weight again, step by step."},
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

static void check(const void *loaded, const char *path, struct buf *problems)
{
    const struct shard_config *config = loaded;
    if (config->low_percent >= config->high_percent)
        config_problem(problems, path, "capacity.low_percent",
                       "must be below capacity.high_percent (%lld), or the weight would rise and fall in turn",
                       (long long)config->high_percent);
}

static const struct program program = {
    .name = "signalbox-shard",
    .summary = "A shard of a Signalbox cluster: owns rooms, their membership and the order of what happens in them.",
    .table = table,
    .cluster_offset = offsetof(struct shard_config, cluster),
    .check = check,
};

struct running {
    struct shard_process *process;
    const struct program_args *args;
    struct shard_config *config; /* in force; heap, because a reload replaces it */
};

static void config_free(struct shard_config **config)
{
    if (*config != NULL)
        config_done(table, *config);
    free(*config);
    *config = NULL;
}

static void on_stop(void *ctx, bool at_once)
{
    struct running *running = ctx;
    shard_process_stop(running->process, at_once);
}

static void on_reload(void *ctx)
{
    struct running *running = ctx;
    struct buf problems = {0};
    struct shard_config *fresh = mem_new(struct shard_config);
    if (program_load(&program, running->args, fresh, &problems) > 0) {
        program_log_problems(&problems);
        log_error("reload_failed", log_str("reason", "the configuration has problems; the old one stays in force"));
        config_free(&fresh);
    } else {
        shard_process_reload(running->process, fresh);
        config_free(&running->config);
        running->config = fresh;
    }
    buf_done(&problems);
}

static bool on_ready(void *ctx, char *reason, size_t size)
{
    struct running *running = ctx;
    return shard_process_ready(running->process, reason, size);
}

static enum program_exit run(struct running *running)
{
    enum program_exit exit = PROGRAM_EXIT_FAILED;
    struct loop *loop = loop_new();
    struct program_signals signals = {.stop = on_stop, .reload = on_reload, .ready = on_ready, .ctx = running};
    program_watch_signals(loop, &signals);
    running->process = shard_process_open(loop, running->config);
    if (running->process != NULL) {
        loop_run(loop);
        exit = shard_process_exit(running->process);
        shard_process_close(&running->process);
    }
    program_unwatch_signals(&signals);
    loop_free(&loop);
    log_info("shard_ended", log_int("exit_code", exit));
    return exit;
}

int main(int argc, char **argv)
{
    struct program_args args = {0};
    struct running running = {.args = &args, .config = mem_new(struct shard_config)};
    enum program_exit exit;

    if (program_start(&program, argc, argv, &args, running.config, &exit))
        exit = run(&running);
    config_free(&running.config);
    program_args_done(&args);
    return exit;
}
