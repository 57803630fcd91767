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

static struct series_usage usage(int64_t bytes, int64_t cpu_us, double took_us)
{
    return (struct series_usage){.memory_mib = (double)bytes / (1 << 20),
                                 .cpu_percent = 100 * (double)cpu_us / took_us};
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static struct series_usage usage_of_both(const struct series_usage *a, const struct series_usage *b)
{
    return (struct series_usage){.memory_mib = b->memory_mib, .cpu_percent = (a->cpu_percent + b->cpu_percent) / 2};
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
    both.gateways = usage_of_both(&a->gateways, &b->gateways);
    both.shards = usage_of_both(&a->shards, &b->shards);
    both.swarm = usage_of_both(&a->swarm, &b->swarm);
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
        .gateways = usage(input->gateways_bytes, input->gateways_cpu_us - series->last.gateways_cpu_us, took_us),
        .shards = usage(input->shards_bytes, input->shards_cpu_us - series->last.shards_cpu_us, took_us),
        .swarm = usage(input->swarm_bytes, input->swarm_cpu_us - series->last.swarm_cpu_us, took_us),
    };
#define X(name, what) add_latency(point, SERIES_##name, &before->name##_us, &now->name##_us);
    SWARM_HISTOGRAMS(X)
#undef X
    remember(series, input);
}
