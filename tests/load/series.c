#include "tests/load/series.h"

enum { FIRST_INTERVAL_US = 1000000 };

/* Into series->last, with the totals copied, so that they may go on growing. */
static void remember(struct series *series, const struct series_input *input)
{
    series->last = *input;
    series->last_total = *input->total;
    series->last.total = &series->last_total;
    series->due_us = input->at_us + series->interval_us;
}

void series_begin(struct series *series, const struct series_input *input)
{
    series->count = 0;
    series->begun_us = input->at_us;
    series->interval_us = FIRST_INTERVAL_US;
    remember(series, input);
}

static void add_latency(struct series_point *point, enum series_latency which, const struct histogram *before,
                        const struct histogram *now)
{
    struct histogram between = {.count = now->count - before->count, .max_us = now->max_us};
    if (between.count == 0)
        return;
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
        between.buckets[i] = now->buckets[i] - before->buckets[i];
    point->p50_ms[which] = (double)histogram_percentile_us(&between, 50) / 1000;
    point->p99_ms[which] = (double)histogram_percentile_us(&between, 99) / 1000;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* Two neighbours as one: rates are averaged, of latencies the worse is kept. */
static struct series_point merge(const struct series_point *a, const struct series_point *b)
{
    struct series_point both = *b;
    both.arrivals_per_s = (a->arrivals_per_s + b->arrivals_per_s) / 2;
    both.messages_per_s = (a->messages_per_s + b->messages_per_s) / 2;
    both.events_per_s = (a->events_per_s + b->events_per_s) / 2;
    both.signals_per_s = (a->signals_per_s + b->signals_per_s) / 2;
    for (int i = 0; i < SERIES_LATENCIES; i++) {
        both.p50_ms[i] = larger(a->p50_ms[i], b->p50_ms[i]);
        both.p99_ms[i] = larger(a->p99_ms[i], b->p99_ms[i]);
    }
    for (int i = 0; i < TIERS; i++)
        both.tiers[i].cpu_percent = (a->tiers[i].cpu_percent + b->tiers[i].cpu_percent) / 2;
    return both;
}

static void halve(struct series *series)
{
    for (size_t i = 0; i < series->count / 2; i++)
        series->points[i] = merge(&series->points[2 * i], &series->points[2 * i + 1]);
    series->count /= 2;
    series->interval_us *= 2;
}

void series_add(struct series *series, const struct series_input *input)
{
    const struct worker_stats *now = input->total, *before = &series->last_total;
    double took_us = (double)(input->at_us - series->last.at_us);
    if (took_us <= 0)
        return;
    if (series->count == SERIES_POINTS_MAX)
        halve(series);
    struct series_point *point = &series->points[series->count++];
    *point = (struct series_point){
        .at_s = (double)(input->at_us - series->begun_us) / 1e6,
        .phase = input->phase,
        .joined = (double)now->joined,
        .arrivals_per_s = 1e6 * (double)(now->handshake_us.count - before->handshake_us.count) / took_us,
        .messages_per_s = 1e6 * (double)(now->directed_delivered - before->directed_delivered) / took_us,
        .events_per_s = 1e6 * (double)(now->room_events - before->room_events) / took_us,
        .signals_per_s = 1e6 * (double)(now->signals_received - before->signals_received) / took_us,
    };
    for (int i = 0; i < TIERS; i++)
        point->tiers[i] = (struct series_usage){
            .memory_mib = (double)input->tiers[i].resident_bytes / (1 << 20),
            .cpu_percent = 100 * (double)(input->tiers[i].cpu_us - series->last.tiers[i].cpu_us) / took_us};
#define X(name, what) add_latency(point, SERIES_##name, &before->name##_us, &now->name##_us);
    SWARM_HISTOGRAMS(X)
#undef X
    remember(series, input);
}
