#include "tests/load/report.h"
#include "tests/load/html.h"
#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum {
    IDLE_CONNECTION_BAR_BYTES = 16384,
    BUSY_CONNECTION_BAR_BYTES = 18432,
    PARTICIPANT_BAR_BYTES = 1536,
    CLIENT_BAR_BYTES = 6144,
    SHORTEST_US = 500000
};

static const char *const storm_names[STORMS] = {[STORM_FULL] = "full", [STORM_RESUMED] = "resumed"};

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

/* In percent of a core, from the moment before. */
static void cpu_until(json_t *figures, const char *name, const struct report *report, enum tier tier,
                      enum moment moment)
{
    const struct sample *to = &report->samples[moment], *from = to - 1;
    double took_us = (double)(to->at_us - from->at_us);
    if (took_us > SHORTEST_US)
        plain(figures, name, 100 * (double)(to->tiers[tier].cpu_us - from->tiers[tier].cpu_us) / took_us, "percent");
}

static void cpu(json_t *figures, const struct report *report, enum tier tier)
{
    const struct sample *samples = report->samples;
    const char *tier_name = report->options->bare && tier == TIER_GATEWAYS ? "bare" : tier_names[tier];
    int64_t joins_us = samples[MOMENT_JOINED].tiers[tier].cpu_us - samples[MOMENT_BEFORE].tiers[tier].cpu_us;
    char name[64];
    if (report->options->tiers[tier].count == 0)
        return;
    snprintf(name, sizeof name, "%s_cpu_per_join", tier_name);
    plain(figures, name, (double)joins_us / report->options->participants, "us");
    snprintf(name, sizeof name, "%s_cpu_idle", tier_name);
    cpu_until(figures, name, report, tier, MOMENT_IDLE);
    snprintf(name, sizeof name, "%s_cpu_held", tier_name);
    cpu_until(figures, name, report, tier, MOMENT_HELD);
    for (enum storm kind = 0; kind < STORMS; kind++) {
        const struct storm_result *storm = &report->storms[kind];
        snprintf(name, sizeof name, "%s_cpu_per_return_%s", tier_name, storm_names[kind]);
        if (storm->took_us > 0)
            plain(figures, name, (double)storm->cpu_us[tier] / report->options->participants, "us");
    }
}

static double per_participant(const struct report *report, int64_t before_bytes, int64_t after_bytes)
{
    return (double)(after_bytes - before_bytes) / report->options->participants;
}

static void gateway_memory(json_t *figures, const struct report *report)
{
    const struct swarm_options *options = report->options;
    const struct sample *samples = report->samples;
    int64_t before_bytes = samples[MOMENT_BEFORE].tiers[TIER_GATEWAYS].pss_bytes;
    bool busy =
        options->messages_per_min + options->mutes_per_min + options->signals_per_min + options->churn_percent_per_min >
        0;
    if (options->bare) {
        plain(figures, "bare_bytes_per_connection",
              per_participant(report, before_bytes, samples[MOMENT_HELD].tiers[TIER_GATEWAYS].pss_bytes), "bytes");
        return;
    }
    barred(
        figures, "gateway_bytes_per_connection",
        per_participant(report, before_bytes, samples[busy ? MOMENT_IDLE : MOMENT_HELD].tiers[TIER_GATEWAYS].pss_bytes),
        "bytes", "<=", IDLE_CONNECTION_BAR_BYTES);
    if (busy)
        barred(figures, "gateway_bytes_per_connection_busy",
               per_participant(report, before_bytes, samples[MOMENT_HELD].tiers[TIER_GATEWAYS].pss_bytes), "bytes",
               "<=", BUSY_CONNECTION_BAR_BYTES);
}

static void cost(json_t *figures, const struct report *report)
{
    const struct swarm_options *options = report->options;
    const struct sample *before = &report->samples[MOMENT_BEFORE], *held = &report->samples[MOMENT_HELD];
    if (!held->taken)
        return;
    if (options->tiers[TIER_GATEWAYS].count > 0)
        gateway_memory(figures, report);
    if (options->tiers[TIER_SHARDS].count > 0)
        barred(figures, "shard_bytes_per_participant",
               per_participant(report, before->tiers[TIER_SHARDS].pss_bytes, held->tiers[TIER_SHARDS].pss_bytes),
               "bytes", "<=", PARTICIPANT_BAR_BYTES);
    if (!options->bare)
        barred(figures, "swarm_bytes_per_client_beside_tls",
               per_participant(report, before->tiers[TIER_SWARM].pss_bytes - before->swarm_tls_bytes,
                               held->tiers[TIER_SWARM].pss_bytes - held->swarm_tls_bytes),
               "bytes", "<=", CLIENT_BAR_BYTES);
    plain(figures, "swarm_tls_bytes_per_client",
          per_participant(report, before->swarm_tls_bytes, held->swarm_tls_bytes), "bytes");
    for (enum tier tier = 0; tier < TIERS; tier++)
        cpu(figures, report, tier);
    if (before->kernel_bytes >= 0 && held->kernel_bytes >= 0)
        plain(figures, "kernel_bytes_per_connection_both_ends",
              per_participant(report, before->kernel_bytes, held->kernel_bytes), "bytes");
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
    good &= barred(figures, "sessions_lost", (double)total->sessions_lost, "count", "<=", 0);
    for (enum storm kind = 0; kind < STORMS; kind++) {
        const struct storm_result *storm = &report->storms[kind];
        char name[64];
        snprintf(name, sizeof name, "storm_%s_sessions_resumed", storm_names[kind]);
        if (storm->took_us > 0 && !report->options->bare)
            good &= barred(figures, name, 100.0 * (double)storm->resumes / (double)storm->cuts, "percent", ">=", 100);
    }
    return good;
}

static void rates(json_t *figures, const struct report *report)
{
    const struct swarm_options *options = report->options;
    if (report->join_took_us > 0) {
        plain(figures, "join_took", (double)report->join_took_us / 1e6, "s");
        plain(figures, "join_rate", options->participants * 1e6 / (double)report->join_took_us, "per_s");
    }
    for (enum storm kind = 0; kind < STORMS; kind++) {
        const struct storm_result *storm = &report->storms[kind];
        char name[64];
        if (storm->took_us == 0)
            continue;
        snprintf(name, sizeof name, "storm_%s_took", storm_names[kind]);
        plain(figures, name, (double)storm->took_us / 1e6, "s");
        snprintf(name, sizeof name, "storm_%s_rate", storm_names[kind]);
        plain(figures, name, options->participants * 1e6 / (double)storm->took_us, "per_s");
        snprintf(name, sizeof name, "storm_%s_handshakes_resumed", storm_names[kind]);
        plain(figures, name,
              100.0 * (double)storm->handshakes_resumed / (double)(storm->handshakes_full + storm->handshakes_resumed),
              "percent");
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

/* Close codes, or what there was in place of one, and how often. */
static json_t *ends(const struct worker_stats *total)
{
    static const char *const kinds[END_KINDS] = {"lost", "refused", "protocol", "other"};
    json_t *object = json_object();
    for (int i = 0; i < END_KINDS + END_CODES; i++) {
        char name[16];
        if (i < END_KINDS)
            snprintf(name, sizeof name, "%s", kinds[i]);
        else
            snprintf(name, sizeof name, "%d", END_CODE_FIRST + i - END_KINDS);
        if (total->ends[i] > 0)
            json_object_set_new(object, name, json_integer((json_int_t)total->ends[i]));
    }
    return object;
}

static json_t *settings(const struct swarm_options *options)
{
    return json_pack("{s:b, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:b, s:b, s:f, s:i, s:I}", "bare",
                     options->bare, "participants", (int)options->participants, "processes", (int)options->processes,
                     "room_size", (int)options->room_size_fixed, "room_size_mean", options->room_size_mean,
                     "join_rate_per_s", options->join_rate, "idle_s", options->idle_s, "hold_s", options->hold_s,
                     "messages_per_min", options->messages_per_min, "mutes_per_min", options->mutes_per_min,
                     "signals_per_min", options->signals_per_min, "churn_percent_per_min",
                     options->churn_percent_per_min, "storm_full", options->storms[STORM_FULL], "storm_resumed",
                     options->storms[STORM_RESUMED], "storm_rate_per_s", options->storm_rate, "in_flight",
                     (int)options->in_flight, "seed", (json_int_t)options->seed);
}

bool report_write(const struct report *report, const struct series *series)
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

    json_t *result = json_pack("{s:s, s:b, s:o, s:o, s:o, s:o, s:o}", "version", SBX_VERSION, "ok", good, "settings",
                               settings(report->options), "figures", figures, "latency", latency, "counters",
                               counters(report->total), "ends", ends(report->total));
    if (report->failure != NULL)
        json_object_set_new(result, "failure", json_string(report->failure));
    const char *path = report->options->json_file;
    if (path != NULL && json_dump_file(result, path, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) != 0) {
        fprintf(stderr, "signalbox-swarm: cannot write %s\n", path);
        good = false;
    }
    if (report->options->html_file != NULL)
        good &= html_write(report->options->html_file, report, series, figures, good);
    json_decref(result);
    return good;
}
