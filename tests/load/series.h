/* What a run looked like over time: a point about every second, and in runs longer than SERIES_POINTS_MAX seconds every
 * 2, 4, ... seconds, so that a run of any length is the same size in a report.
 *
 * Latencies are those of one interval alone, which is what shows a stall; the run's own percentiles are in the result.
 *
 * Ownership: embedded in the coordinator. Free of I/O. */
#ifndef SBX_LOAD_SERIES_H
#define SBX_LOAD_SERIES_H

#include "tests/load/options.h"
#include "tests/load/stats.h"
#include <stddef.h>

enum { SERIES_POINTS_MAX = 720 };

enum series_latency {
#define X(name, what) SERIES_##name,
    SWARM_HISTOGRAMS(X)
#undef X
        SERIES_LATENCIES
};

/* Of all processes of a tier. */
struct series_usage {
    double memory_mib; /* resident */
    double cpu_percent;
};

struct series_point {
    double at_s; /* since the run began; the interval's end */
    enum phase phase;
    double joined;
    double arrivals_per_s, messages_per_s, events_per_s, signals_per_s;
    double p50_ms[SERIES_LATENCIES], p99_ms[SERIES_LATENCIES]; /* 0: none in this interval */
    struct series_usage tiers[TIERS];
};

/* Totals, as they grow. */
struct series_input {
    int64_t at_us;
    enum phase phase;
    const struct worker_stats *total; /* with its histograms */
    struct {
        int64_t resident_bytes, cpu_us;
    } tiers[TIERS];
};

struct series {
    struct series_point points[SERIES_POINTS_MAX];
    size_t count;
    int64_t begun_us, interval_us, due_us;
    struct series_input last;
    struct worker_stats last_total;
};

void series_begin(struct series *series, const struct series_input *input);
/* To be called when series->due_us has come; adds a point. */
void series_add(struct series *series, const struct series_input *input);

#endif
