/* The result of a run: figures for people and programs.
 *
 * A figure is a line `figure NAME VALUE UNIT`, or `figure NAME VALUE UNIT bar OP VALUE ok|short` where there is a bar
 * that it is held against. */
#ifndef SBX_LOAD_REPORT_H
#define SBX_LOAD_REPORT_H

#include "tests/load/observe.h"
#include "tests/load/options.h"
#include "tests/load/series.h"
#include "tests/load/stats.h"
#include <stdbool.h>

/* Moments at which the measured processes were looked at. */
enum moment { MOMENT_BEFORE, MOMENT_JOINED, MOMENT_IDLE, MOMENT_HELD, MOMENTS };

struct sample {
    struct usage tiers[TIERS];
    int64_t swarm_tls_bytes; /* of the swarm's, what OpenSSL holds */
    int64_t kernel_bytes;
    int64_t at_us;
    bool taken;
};

struct storm_result {
    int64_t took_us; /* 0: there was none */
    int64_t cpu_us[TIERS];
    uint64_t cuts, resumes, handshakes_full, handshakes_resumed;
};

struct report {
    const struct swarm_options *options;
    const struct worker_stats *total;
    struct sample samples[MOMENTS];
    int64_t join_took_us;
    struct storm_result storms[STORMS];
    uint64_t unconverged; /* over all checkpoints */
    const char *failure;  /* why the run ended early; NULL if it did not */
};

/* Prints the figures and writes the JSON and HTML files that were asked for. True if every promise held. */
bool report_write(const struct report *report, const struct series *series);

#endif
