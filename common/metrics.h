/* Metrics: declared once, in common/metrics_table.h, with type, name, label values and prose; counted from anywhere;
 * rendered in the Prometheus text format (version 0.0.4); documented by `--print-metrics`.
 *
 * A metric has at most one label, whose values are fixed in the table, so that no series grows with rooms or people.
 * Threading: any thread (relaxed atomics). The registry is one of the two globals of a process (the other is the log).
 */
#ifndef SBX_COMMON_METRICS_H
#define SBX_COMMON_METRICS_H

#include "common/buf.h"
#include <stdint.h>

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };
enum metric_tier { TIER_GATEWAY = 1, TIER_SHARD = 2, TIER_BOTH = 3 };

#define METRIC_LABEL_VALUES_MAX 24

enum metric_id {
#define METRIC(id, tier, type, name, label, values, help) id,
#include "common/metrics_table.h"
#undef METRIC
    METRIC_COUNT
};

/* Label values of metrics that programs of both tiers count. */
enum session_list_cut { SESSION_LIST_CUT_BY_OWNER, SESSION_LIST_CUT_BY_GATEWAY };

/* The functions without a label value are for metrics without a label. Gauges may count down: add the negative. */
void metric_add(enum metric_id id, uint64_t n);
/* `value` indexes the label's values in the table's order; asserts that it is in range. */
void metric_add_at(enum metric_id id, unsigned value, uint64_t n);
void metric_set(enum metric_id id, int64_t value);
void metric_set_at(enum metric_id id, unsigned value, int64_t n);
/* Histograms take microseconds and are rendered in seconds; buckets are in metrics.c. */
void metric_observe_us(enum metric_id id, int64_t us);
/* Of a histogram: how many observations it holds. */
uint64_t metric_value(enum metric_id id);
uint64_t metric_value_at(enum metric_id id, unsigned value);

/* Appends the exposition of all metrics of a tier, with process metrics (memory, descriptors, start time) and
 * build information. */
void metrics_render(struct buf *out, enum metric_tier tier);
/* Appends the Markdown table of docs/METRICS.md. */
void metrics_document(struct buf *out);

#endif
