/* What the subcommands that look at a running cluster have in common. */
#ifndef SBX_CTL_LOOK_H
#define SBX_CTL_LOOK_H

#include "common/score.h"
#include "ctl/ask.h"
#include <jansson.h>
#include <stdint.h>

enum look_argument {
    LOOK_NOTHING,
    LOOK_ROOM,
    LOOK_PLACEMENT, /* a room and the cluster's placement seed; the project is "default" if none is given */
    LOOK_NODE,
};

struct look_options {
    const char *servers, *config_path, *project, *seed;
    const char *argument;
    struct score_seed placement_seed; /* with LOOK_PLACEMENT */
    uint32_t deadline_ms;
    int json;
    int help;
};

/* What a subcommand does with the newest view; `ask` is connected where that came from. */
typedef enum ctl_exit (*look_cb)(const struct look_options *look, struct ask *ask, const struct view *view);

/* A whole subcommand: reads its command line, connects, reads the newest view and has `show` do the rest. Without any
 * of that where the help is asked for. */
enum ctl_exit look_run(const struct ctl_command *command, int argc, char **argv, enum look_argument takes,
                       look_cb show);
void look_print_json(json_t *take_json);

#endif
