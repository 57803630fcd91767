/* What the subcommands that look at a running cluster have in common. */
#ifndef SBX_CTL_LOOK_H
#define SBX_CTL_LOOK_H

#include "common/score.h"
#include "ctl/ask.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum look_argument { LOOK_NOTHING, LOOK_ROOM, LOOK_NODE };

struct look_options {
    const char *servers, *config_path, *project, *seed;
    const char *argument;
    uint32_t deadline_ms;
    int json;
    int help;
};

/* CTL_OK with look->help set: all is said. */
enum ctl_exit look_parse(const struct ctl_command *command, int argc, char **argv, enum look_argument takes,
                         struct look_options *look);
/* The cluster's placement seed, from --seed or --config. */
enum ctl_exit look_seed(const struct ctl_command *command, const struct look_options *look,
                        struct score_seed *ret_seed);
void look_print_json(json_t *take_json);

#endif
