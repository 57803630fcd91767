#include "ctl/look.h"

#include "common/program.h"
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static bool parse_seconds(const char *text, uint32_t *ret_ms)
{
    char *end;
    unsigned long seconds = strtoul(text, &end, 10);
    if (*end != '\0' || seconds < 1 || seconds > 3600)
        return false;
    *ret_ms = (uint32_t)seconds * 1000;
    return true;
}

/* CTL_OK with look->help set: all is said. */
static enum ctl_exit parse(const struct ctl_command *command, int argc, char **argv, enum look_argument takes,
                           struct look_options *look)
{
    const struct option options[] = {
        {"nats", required_argument, NULL, 'n'},     {"config", required_argument, NULL, 'c'},
        {"project", required_argument, NULL, 'p'},  {"seed", required_argument, NULL, 's'},
        {"deadline", required_argument, NULL, 'd'}, {"json", no_argument, &look->json, 1},
        {"help", no_argument, &look->help, 1},      {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 0:
            break;
        case 'n':
            look->servers = optarg;
            break;
        case 'c':
            look->config_path = optarg;
            break;
        case 'p':
            look->project = optarg;
            break;
        case 's':
            look->seed = optarg;
            break;
        case 'd':
            if (!parse_seconds(optarg, &look->deadline_ms))
                return ctl_usage(command, "--deadline takes seconds, 1 to 3600");
            break;
        default:
            return ctl_usage(command, "unknown option");
        }
    }
    if (look->help) {
        ctl_print_help(command);
        return CTL_OK;
    }
    if (takes != LOOK_NOTHING && optind < argc)
        look->argument = argv[optind++];
    if (optind < argc)
        return ctl_usage(command, "'%s' is one argument too many", argv[optind]);
    if ((takes == LOOK_ROOM || takes == LOOK_PLACEMENT) &&
        (look->argument == NULL || !name_valid(look->argument, ROOM_NAME_MAX)))
        return ctl_usage(command, "give the room's name, 1 to %d bytes", ROOM_NAME_MAX);
    if (takes == LOOK_NODE && (look->argument == NULL || !node_id_valid(look->argument)))
        return ctl_usage(command, "give the node.id of a shard or gateway; signalboxctl view lists them");
    return CTL_OK;
}

struct seed_config {
    char *seed;
};

static const struct config_key seed_table[] = {
    {.name = "cluster.placement_seed",
     .type = CONFIG_STRING,
     .offset = offsetof(struct seed_config, seed),
     .secret = true},
    {.name = NULL},
};

/* The cluster's placement seed, from --seed or --config. */
static enum ctl_exit find_seed(const struct ctl_command *command, const struct look_options *look,
                               struct score_seed *ret_seed)
{
    struct seed_config config = {0};
    struct buf problems = {0};
    enum ctl_exit code = CTL_OK;

    if (look->seed != NULL) {
        if (!cluster_parse_seed(look->seed, ret_seed))
            code = ctl_usage(command, "--seed takes 32 hex digits");
    } else if (look->config_path == NULL) {
        code = ctl_usage(command, "give the cluster's seed by --seed, or --config with a gateway's or shard's file");
    } else if (config_load_some(seed_table, look->config_path, &config, &problems) > 0) {
        fputs(buf_str(&problems), stderr);
        code = CTL_USAGE;
    } else if (!cluster_parse_seed(config.seed, ret_seed)) {
        code = ctl_usage(command, "cluster.placement_seed in %s is not 32 hex digits", look->config_path);
    }
    config_done(seed_table, &config);
    buf_done(&problems);
    return code;
}

enum ctl_exit look_run(const struct ctl_command *command, int argc, char **argv, enum look_argument takes, look_cb show)
{
    struct look_options look = {.project = takes == LOOK_PLACEMENT ? "default" : NULL};
    enum ctl_exit code = parse(command, argc, argv, takes, &look);
    if (code == CTL_OK && !look.help && takes == LOOK_PLACEMENT)
        code = find_seed(command, &look, &look.placement_seed);
    if (code != CTL_OK || look.help)
        return code;
    struct ask *ask = ask_open(look.servers, look.config_path);
    struct view *view = ask != NULL ? ask_view(ask) : NULL;
    code = view != NULL ? show(&look, ask, view) : CTL_FAILED;
    view_unref(&view);
    ask_close(&ask);
    return code;
}

void look_print_json(json_t *take_json)
{
    json_dumpf(take_json, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(take_json);
}
