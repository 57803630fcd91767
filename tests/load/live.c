#include "tests/load/live.h"

enum { BAR_WIDTH = 40, SPARKS = 60 };

#define CLEAR_LINE "\033[K"
#define UP_LINES "\033[%dA"
#define BOLD "\033[1m"
#define RED "\033[31m"
#define PLAIN "\033[0m"

static void bar(FILE *to, double share)
{
    int filled = (int)(share * BAR_WIDTH);
    for (int i = 0; i < BAR_WIDTH; i++)
        fputs(i < filled ? "█" : "░", to);
}

/* The last points of a series, each as high as its share of the largest. */
static void sparks(FILE *to, const struct series *series, size_t offset)
{
    static const char *const heights[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    size_t first = series->count > SPARKS ? series->count - SPARKS : 0;
    double largest = 0;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = first; i < series->count; i++) {
            double value = *(const double *)((const char *)&series->points[i] + offset);
            if (pass == 0)
                largest = value > largest ? value : largest;
            else
                fputs(heights[largest > 0 ? (int)(value / largest * 8) : 0], to);
        }
}

static void rate(FILE *to, const struct series *series, const char *name, size_t offset)
{
    double now = 0;
    if (series->count > 0)
        now = *(const double *)((const char *)&series->points[series->count - 1] + offset);
    fprintf(to, "  %-10s %9.0f /s  ", name, now);
    sparks(to, series, offset);
    fputs(CLEAR_LINE "\n", to);
}

static void latencies(FILE *to, const struct series_point *point)
{
    static const char *const names[SERIES_LATENCIES] = {
#define X(name, what) #name,
        SWARM_HISTOGRAMS(X)
#undef X
    };
    fputs("  p50 p99 ms", to);
    for (int i = 0; i < SERIES_LATENCIES; i++)
        if (point->p99_ms[i] > 0)
            fprintf(to, "  %s %.1f %.1f", names[i], point->p50_ms[i], point->p99_ms[i]);
    fputs(CLEAR_LINE "\n", to);
}

static void tier(FILE *to, const char *name, const struct series_usage *usage)
{
    if (usage->memory_mib > 0)
        fprintf(to, "  %s %.0f MiB %.0f%%", name, usage->memory_mib, usage->cpu_percent);
}

void live_show(struct live *live, const struct swarm_options *options, const struct worker_stats *total,
               const struct series *series, const char *what, int64_t phase_us)
{
    static const struct series_point nothing;
    const struct series_point *point = series->count > 0 ? &series->points[series->count - 1] : &nothing;
    FILE *to = live->to;
    uint64_t violations = total->violations_roster + total->violations_order + total->violations_protocol;
    bool bad = violations + total->disconnects_unexpected + total->sessions_lost > 0;
    if (to == NULL)
        return;
    if (live->lines > 0)
        fprintf(to, UP_LINES, live->lines);
    fprintf(to, BOLD "%s" PLAIN " for %d s" CLEAR_LINE "\n  ", what, (int)(phase_us / 1000000));
    bar(to, (double)total->joined / options->participants);
    fprintf(to, " %llu of %u joined" CLEAR_LINE "\n", (unsigned long long)total->joined, options->participants);
    rate(to, series, "arrivals", offsetof(struct series_point, arrivals_per_s));
    rate(to, series, "messages", offsetof(struct series_point, messages_per_s));
    rate(to, series, "events", offsetof(struct series_point, events_per_s));
    latencies(to, point);
    for (int i = 0; i < TIERS; i++)
        tier(to, tier_names[i], &point->tiers[i]);
    fprintf(to,
            CLEAR_LINE "\n  %sviolations %llu  unexpected disconnects %llu  sessions lost %llu" PLAIN
                       "  refused %llu  repeated %llu" CLEAR_LINE "\n",
            bad ? RED : "", (unsigned long long)violations, (unsigned long long)total->disconnects_unexpected,
            (unsigned long long)total->sessions_lost, (unsigned long long)total->upgrades_refused,
            (unsigned long long)total->directed_repeats);
    live->lines = 8;
    fflush(to);
}

void live_clear(struct live *live)
{
    if (live->lines > 0)
        fprintf(live->to, UP_LINES "\033[J", live->lines);
    live->lines = 0;
}
