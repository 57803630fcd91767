/* The live view: a few lines on a terminal, drawn over themselves while a run goes on. */
#ifndef SBX_LOAD_LIVE_H
#define SBX_LOAD_LIVE_H

#include "tests/load/options.h"
#include "tests/load/series.h"
#include <stdio.h>

struct live {
    FILE *to;  /* a terminal; NULL: nothing is shown */
    int lines; /* that are on the screen now */
};

void live_show(struct live *live, const struct swarm_options *options, const struct worker_stats *total,
               const struct series *series, const char *what, int64_t phase_us);
/* Takes it off the screen. */
void live_clear(struct live *live);

#endif
