#include "tests/load/report.h"
#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { IDLE_CONNECTION_BAR_BYTES = 16384, BUSY_CONNECTION_BAR_BYTES = 18432, PARTICIPANT_BAR_BYTES = 1536 };

static json_t *add_figure(json_t *figures, const char *name, double value, const char *unit)
{
    json_t *figure = json_pack("{s:s, s:f, s:s}", "name", name, "value", value, "unit", unit);
    json_array_append_new(figures, figure);
    printf("figure %s %.6g %s", name, value, unit);
    return figure;
}

static void plain(json_t *figures, const char *name, double value, const char *unit)
{
    add_figure(figures, name, value, unit);
    putchar('\n');
}

/* `op`: "<=" or ">=". */
static bool barred(json_t *figures, const char *name, double value, const char *unit, const char *op, double bar)
{
    bool ok = op[0] == '<' ? value <= bar : value >= bar;
    json_t *figure = add_figure(figures, name, value, unit);
    printf(" bar %s %.6g %s\n", op, bar, ok ? "ok" : "short");
    json_object_set_new(figure, "bar", json_pack("{s:s, s:f}", "op", op, "value", bar));
    json_object_set_new(figure, "ok", json_boolean(ok));
    return ok;
}

static void latencies(json_t *figures, json_t *all, const char *name, const struct histogram *histogram)
{
    static const struct {
        const char *name;
        double percent;
    } points[] = {{"p50", 50}, {"p90", 90}, {"p95", 95}, {"p99", 99}, {"p99.9", 99.9}, {"max", 100}};
    if (histogram->count == 0)
        return;
    json_t *values =
        json_pack("{s:I, s:f}", "count", (json_int_t)histogram->count, "mean_us", histogram_mean_us(histogram));
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        char key[64];
        uint64_t value_us = histogram_percentile_us(histogram, points[i].percent);
        snprintf(key, sizeof key, "%s_us", points[i].name);
        json_object_set_new(values, key, json_integer((json_int_t)value_us));
        snprintf(key, sizeof key, "%s_%s", name, points[i].name);
        plain(figures, key, (double)value_us / 1000, "ms");
    }
    json_object_set_new(all, name, values);
}

/* --- cost --- */

static void cpu(json_t *figures, const char *tier, const struct report *report, const struct usage *before,
                const struct usage *joined, const struct usage *held)
{
    double participants = report->options->participants;
    double hold_us = (double)(report->samples[MOMENT_HELD].at_us - report->samples[MOMENT_JOINED].at_us);
    char name[64];
    snprintf(name, sizeof name, "%s_cpu_per_join", tier);
    plain(figures, name, (double)(joined->cpu_us - before->cpu_us) / participants, "us");
    snprintf(name, sizeof name, "%s_cpu_held", tier);
    plain(figures, name, 100 * (double)(held->cpu_us - joined->cpu_us) / hold_us, "percent");
}

static void cost(json_t *figures, const struct report *report)
{
    const struct swarm_options *options = report->options;
    const struct sample *before = &report->samples[MOMENT_BEFORE], *joined = &report->samples[MOMENT_JOINED],
                        *held = &report->samples[MOMENT_HELD];
    bool busy =
        options->messages_per_min + options->mutes_per_min + options->signals_per_min + options->churn_percent_per_min >
        0;
    if (!held->taken)
        return;
    if (options->gateways.count > 0) {
        double bytes = (double)(held->gateways.pss_bytes - before->gateways.pss_bytes) / options->participants;
        barred(figures, "gateway_bytes_per_connection", bytes, "bytes",
               "<=", busy ? BUSY_CONNECTION_BAR_BYTES : IDLE_CONNECTION_BAR_BYTES);
        cpu(figures, "gateways", report, &before->gateways, &joined->gateways, &held->gateways);
    }
    if (options->shards.count > 0) {
        double bytes = (double)(held->shards.pss_bytes - before->shards.pss_bytes) / options->participants;
        barred(figures, "shard_bytes_per_participant", bytes, "bytes", "<=", PARTICIPANT_BAR_BYTES);
        cpu(figures, "shards", report, &before->shards, &joined->shards, &held->shards);
    }
    if (before->kernel_bytes >= 0 && held->kernel_bytes >= 0)
        plain(figures, "kernel_bytes_per_connection_both_ends",
              (double)(held->kernel_bytes - before->kernel_bytes) / options->participants, "bytes");
}

/* --- promises --- */

static bool promises(json_t *figures, const struct report *report)
{
    const struct worker_stats *total = report->total;
    bool good = report->failure == NULL;
    good &= barred(figures, "violations_of_rosters", (double)total->violations_roster, "count", "<=", 0);
    good &= barred(figures, "violations_of_order", (double)total->violations_order, "count", "<=", 0);
    good &= barred(figures, "violations_of_protocol", (double)total->violations_protocol, "count", "<=", 0);
    good &= barred(figures, "participants_unconverged", (double)report->unconverged, "count", "<=", 0);
    good &= barred(figures, "disconnects_unexpected", (double)total->disconnects_unexpected, "count", "<=", 0);
    if (report->options->storm != STORM_NONE && report->samples[MOMENT_STORMED].taken)
        good &= barred(figures, "sessions_resumed", 100.0 * (double)total->resumes / report->options->participants,
                       "percent", ">=", 100);
    return good;
}

static void rates(json_t *figures, const struct report *report)
{
    const struct swarm_options *options = report->options;
    if (report->join_took_us > 0) {
        plain(figures, "join_took", (double)report->join_took_us / 1e6, "s");
        plain(figures, "join_rate", options->participants * 1e6 / (double)report->join_took_us, "per_s");
    }
    if (report->storm_took_us > 0) {
        plain(figures, "storm_took", (double)report->storm_took_us / 1e6, "s");
        plain(figures, "storm_rate", options->participants * 1e6 / (double)report->storm_took_us, "per_s");
    }
}

static json_t *counters(const struct worker_stats *total)
{
    json_t *object = json_object();
#define X(name, what) json_object_set_new(object, #name, json_integer((json_int_t)total->name));
    SWARM_COUNTERS(X)
#undef X
    return object;
}

static json_t *settings(const struct swarm_options *options)
{
    static const char *const storms[] = {"none", "full", "resumed"};
    return json_pack("{s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:s, s:f, s:I}", "participants",
                     (int)options->participants, "processes", (int)options->processes, "room_size",
                     (int)options->room_size_fixed, "room_size_mean", options->room_size_mean, "join_rate_per_s",
                     options->join_rate, "hold_s", options->hold_s, "messages_per_min", options->messages_per_min,
                     "mutes_per_min", options->mutes_per_min, "signals_per_min", options->signals_per_min,
                     "churn_percent_per_min", options->churn_percent_per_min, "storm", storms[options->storm],
                     "storm_rate_per_s", options->storm_rate, "seed", (json_int_t)options->seed);
}

bool report_write(const struct report *report)
{
    json_t *figures = json_array(), *latency = json_object();
#define X(name, what) latencies(figures, latency, #name, &report->total->name##_us);
    SWARM_HISTOGRAMS(X)
#undef X
    rates(figures, report);
    cost(figures, report);
    bool good = promises(figures, report);
    if (report->failure != NULL)
        fprintf(stderr, "signalbox-swarm: %s\n", report->failure);

    json_t *result = json_pack("{s:s, s:b, s:o, s:o, s:o, s:o}", "version", SBX_VERSION, "ok", good, "settings",
                               settings(report->options), "figures", figures, "latency", latency, "counters",
                               counters(report->total));
    if (report->failure != NULL)
        json_object_set_new(result, "failure", json_string(report->failure));
    const char *path = report->options->json_file;
    if (path != NULL && json_dump_file(result, path, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) != 0) {
        fprintf(stderr, "signalbox-swarm: cannot write %s\n", path);
        good = false;
    }
    json_decref(result);
    return good;
}
