#include "tests/load/html.h"
#include "tests/load/plot.h"
#include <errno.h>
#include <math.h>
#include <string.h>

enum { CURVE_POINTS = 101, BANDS_MAX = 32 };

static const char STYLE[] =
    ":root{color-scheme:light dark;--ink:#1c2430;--dim:#667085;--page:#f6f7f9;--card:#fff;--grid:#e4e7ec;--b0:#f2f5fa;"
    "--b1:#e9eef6;--good:#067647;--bad:#b42318;--c0:#2563eb;--c1:#d97706;--c2:#059669;--c3:#9333ea;--c4:#dc2626;"
    "--c5:#0891b2}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--dim:#98a2b3;--page:#12161d;--card:#1b212b;--grid:#2c3440;"
    "--b0:#1f2631;--b1:#242d3a;--good:#47cd89;--bad:#f97066;--c0:#6ea8fe;--c1:#fdb022;--c2:#3ccb7f;--c3:#c084fc;"
    "--c4:#ff8a80;--c5:#4dd0e1}}"
    "body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:980px;margin:2rem auto;"
    "padding:0 1rem}h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}.dim{color:var(--dim)}"
    ".good{color:var(--good)}.bad{color:var(--bad)}"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:.75rem;margin:1.25rem 0}"
    ".tile,figure,table{background:var(--card);border:1px solid var(--grid);border-radius:8px}"
    ".tile{padding:.6rem .8rem}.tile "
    "b{display:block;font-size:1.3rem;white-space:nowrap;font-variant-numeric:tabular-nums}"
    "figure{margin:0 0 1rem;padding:.5rem}svg{width:100%;height:auto;display:block}"
    "svg text{font:11px system-ui,sans-serif;fill:var(--dim)}svg .title{font-size:14px;font-weight:600;fill:var(--ink)}"
    "svg .unit{font-weight:400;fill:var(--dim)}svg .y,svg .legend{text-anchor:end}svg .x{text-anchor:middle}"
    ".grid{stroke:var(--grid)}.band0{fill:var(--b0)}.band1{fill:var(--b1)}"
    ".line{fill:none;stroke-width:1.6;stroke-linejoin:round;stroke-linecap:round}.dashed{stroke-dasharray:3 3}"
    ".c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}.c4{stroke:var(--c4)}"
    ".c5{stroke:var(--c5)}svg text.legend{stroke:none}text.c0{fill:var(--c0)}text.c1{fill:var(--c1)}"
    "text.c2{fill:var(--c2)}text.c3{fill:var(--c3)}text.c4{fill:var(--c4)}text.c5{fill:var(--c5)}"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}"
    "td,th{padding:.25rem .8rem;text-align:left;border-top:1px solid var(--grid)}td.n{text-align:right}";

static const char *const latency_names[SERIES_LATENCIES] = {
#define X(name, what) #name,
    SWARM_HISTOGRAMS(X)
#undef X
};

static const char *phase_name(enum phase phase)
{
    static const char *const names[] = {
        [PHASE_WAIT] = "wait",   [PHASE_JOIN] = "join",        [PHASE_IDLE] = "idle",
        [PHASE_HOLD] = "hold",   [PHASE_STORM_FULL] = "storm", [PHASE_STORM_RESUMED] = "storm, resumed TLS",
        [PHASE_CHECK] = "check", [PHASE_LEAVE] = "leave"};
    return names[phase];
}

static size_t find_bands(const struct series *series, struct plot_band bands[BANDS_MAX])
{
    size_t count = 0;
    double from = 0;
    for (size_t i = 0; i < series->count; i++) {
        const struct series_point *point = &series->points[i];
        bool last = i + 1 == series->count || series->points[i + 1].phase != point->phase;
        if (!last)
            continue;
        if (count < BANDS_MAX)
            bands[count++] = (struct plot_band){.name = phase_name(point->phase), .from = from, .to = point->at_s};
        from = point->at_s;
    }
    return count;
}

/* --- over time --- */

static struct plot_line over_time(const struct series *series, const char *name, const double *y, int color)
{
    return (struct plot_line){.name = name,
                              .x = &series->points[0].at_s,
                              .y = y,
                              .count = series->count,
                              .stride = sizeof series->points[0],
                              .color = color};
}

static void plot_over_time(FILE *to, const struct series *series, const char *title, const char *unit, bool log_y,
                           const struct plot_line *lines, size_t count)
{
    struct plot_band bands[BANDS_MAX];
    const struct plot plot = {.title = title,
                              .unit = unit,
                              .x_unit = " s",
                              .log_y = log_y,
                              .lines = lines,
                              .line_count = count,
                              .bands = bands,
                              .band_count = find_bands(series, bands)};
    plot_write(to, &plot);
}

/* The latencies from `first` on, each with its median and, dashed, its 99th percentile. */
static void plot_latencies(FILE *to, const struct series *series, const char *title, int first, int count)
{
    struct plot_line lines[2 * SERIES_LATENCIES];
    for (int i = 0; i < count; i++) {
        lines[2 * i] = over_time(series, latency_names[first + i], &series->points[0].p50_ms[first + i], first + i);
        lines[2 * i + 1] = over_time(series, NULL, &series->points[0].p99_ms[first + i], first + i);
        lines[2 * i + 1].dashed = true;
    }
    plot_over_time(to, series, title, "ms: median and, dashed, 99th percentile of each interval", true, lines,
                   2 * (size_t)count);
}

static void plot_series(FILE *to, const struct series *series)
{
    const struct series_point *first = &series->points[0];
    const struct plot_line joined[] = {over_time(series, "joined", &first->joined, 0)};
    const struct plot_line traffic[] = {over_time(series, "handshakes", &first->arrivals_per_s, 0),
                                        over_time(series, "messages", &first->messages_per_s, 2),
                                        over_time(series, "room events", &first->events_per_s, 1),
                                        over_time(series, "signals", &first->signals_per_s, 3)};
    struct plot_line memory[TIERS], cpu[TIERS];
    for (int i = 0; i < TIERS; i++) {
        memory[i] = over_time(series, tier_names[i], &first->tiers[i].memory_mib, i);
        cpu[i] = over_time(series, tier_names[i], &first->tiers[i].cpu_percent, i);
    }
    if (series->count == 0)
        return;
    plot_over_time(to, series, "Participants", "joined", false, joined, 1);
    plot_latencies(to, series, "Arriving", SERIES_handshake, 3);
    plot_latencies(to, series, "Delivery", SERIES_message, 2);
    plot_over_time(to, series, "Throughput", "per second, as received", false, traffic, 4);
    plot_over_time(to, series, "Memory", "MiB resident, all processes of a tier", false, memory, TIERS);
    plot_over_time(to, series, "CPU", "percent of one core", false, cpu, TIERS);
}

/* --- percentiles --- */

static void plot_percentiles(FILE *to, const struct worker_stats *total)
{
    static double percents[CURVE_POINTS], values[SERIES_LATENCIES][CURVE_POINTS];
    const struct histogram *const histograms[SERIES_LATENCIES] = {
#define X(name, what) &total->name##_us,
        SWARM_HISTOGRAMS(X)
#undef X
    };
    struct plot_line lines[SERIES_LATENCIES];
    for (int i = 0; i < CURVE_POINTS; i++)
        percents[i] = 100 * (1 - pow(10, -i * 5.0 / (CURVE_POINTS - 1)));
    for (int l = 0; l < SERIES_LATENCIES; l++) {
        lines[l] = (struct plot_line){.name = latency_names[l],
                                      .x = percents,
                                      .y = values[l],
                                      .count = CURVE_POINTS,
                                      .stride = sizeof(double),
                                      .color = l};
        /* Beyond the last sample there is nothing to draw. */
        for (int i = 0; i < CURVE_POINTS; i++)
            values[l][i] = (double)histograms[l]->count * (1 - percents[i] / 100) >= 1 || i == 0
                               ? (double)histogram_percentile_us(histograms[l], percents[i]) / 1000
                               : 0;
    }
    const struct plot plot = {.title = "Percentiles",
                              .unit = "ms, whole run",
                              .x_unit = "%",
                              .log_y = true,
                              .nines = true,
                              .lines = lines,
                              .line_count = SERIES_LATENCIES};
    plot_write(to, &plot);
}

/* --- figures --- */

/* A tile is read at a glance: the table has the digits. */
static void write_tile(FILE *to, const json_t *figures, const char *name, const char *label)
{
    size_t i;
    const json_t *figure;
    json_array_foreach((json_t *)figures, i, figure)
    {
        const json_t *ok = json_object_get(figure, "ok");
        const char *unit = json_string_value(json_object_get(figure, "unit"));
        double value = json_number_value(json_object_get(figure, "value"));
        if (strcmp(json_string_value(json_object_get(figure, "name")), name) != 0)
            continue;
        fprintf(to,
                "<div class=\"tile\"><b class=\"%s\">%.*f <small>%s</small></b><span class=\"dim\">%s</span></div>\n",
                ok == NULL         ? ""
                : json_is_true(ok) ? "good"
                                   : "bad",
                value < 10 && value != floor(value) ? 2 : 0, value, strcmp(unit, "per_s") == 0 ? "/s" : unit, label);
    }
}

static void write_tiles(FILE *to, const json_t *figures)
{
    static const char *const tiles[][2] = {
        {"join_rate", "joins, as they went"},
        {"join_p95", "join, 95th percentile"},
        {"message_p99", "message, 99th percentile"},
        {"event_p99", "room event, 99th percentile"},
        {"gateway_bytes_per_connection", "gateways, per idle connection"},
        {"shard_bytes_per_participant", "shards, per participant"},
        {"storm_full_sessions_resumed", "sessions resumed in the storm"},
        {"disconnects_unexpected", "unexpected disconnects"},
    };
    fputs("<div class=\"tiles\">\n", to);
    for (size_t i = 0; i < sizeof tiles / sizeof tiles[0]; i++)
        write_tile(to, figures, tiles[i][0], tiles[i][1]);
    fputs("</div>\n", to);
}

static void write_table(FILE *to, const json_t *figures)
{
    size_t i;
    const json_t *figure;
    fputs("<h2>All figures</h2>\n<table><tr><th>figure<th>value<th>unit<th>bar<th></tr>\n", to);
    json_array_foreach((json_t *)figures, i, figure)
    {
        const json_t *bar = json_object_get(figure, "bar");
        bool ok = json_is_true(json_object_get(figure, "ok"));
        fprintf(to, "<tr><td>%s<td class=\"n\">%.6g<td>%s", json_string_value(json_object_get(figure, "name")),
                json_number_value(json_object_get(figure, "value")),
                json_string_value(json_object_get(figure, "unit")));
        if (bar != NULL)
            fprintf(to, "<td>%s %.6g<td class=\"%s\">%s</tr>\n",
                    json_string_value(json_object_get(bar, "op"))[0] == '<' ? "at most" : "at least",
                    json_number_value(json_object_get(bar, "value")), ok ? "good" : "bad", ok ? "ok" : "short");
        else
            fputs("<td><td></tr>\n", to);
    }
    fputs("</table>\n", to);
}

bool html_write(const char *path, const struct report *report, const struct series *series, const json_t *figures,
                bool good)
{
    const struct swarm_options *options = report->options;
    FILE *to = fopen(path, "we");
    if (to == NULL) {
        fprintf(stderr, "signalbox-swarm: cannot write %s: %s\n", path, strerror(errno));
        return false;
    }
    fprintf(
        to,
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" "
        "content=\"width=device-width\">\n<title>signalbox-swarm: %u participants</title>\n<style>%s</style>\n"
        "<h1>%u participants: <span class=\"%s\">%s</span></h1>\n<div class=\"dim\">signalbox-swarm %s, %u processes, "
        "%zu gateway addresses; per participant and minute %g messages, %g mute toggles, %g signals; "
        "%g%% churn a minute%s%s</div>\n",
        options->participants, STYLE, options->participants, good ? "good" : "bad",
        good ? "every promise was kept" : "short of what was promised", SBX_VERSION, options->processes,
        options->target_count, options->messages_per_min, options->mutes_per_min, options->signals_per_min,
        options->churn_percent_per_min, report->failure != NULL ? "; ended early: " : "",
        report->failure != NULL ? report->failure : "");
    write_tiles(to, figures);
    plot_series(to, series);
    plot_percentiles(to, report->total);
    write_table(to, figures);
    fputs("</html>\n", to);
    bool written = ferror(to) == 0;
    if (fclose(to) != 0 || !written) {
        fprintf(stderr, "signalbox-swarm: cannot write %s\n", path);
        return false;
    }
    return true;
}
