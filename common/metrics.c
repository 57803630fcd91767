#include "common/metrics.h"

#include "common/clock.h"
#include "common/memory.h"
#include <assert.h>
#include <dirent.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct metric {
    enum metric_tier tier;
    enum metric_type type;
    const char *name;
    const char *label;
    const char *values;
    const char *help;
};

static const struct metric metrics[METRIC_COUNT] = {
#define METRIC(id, tier, type, name, label, values, help) [id] = {tier, type, name, label, values, help},
#include "common/metrics_table.h"
#undef METRIC
};

static const struct {
    int64_t upper_us;
    const char *upper_s;
} buckets[] = {
    {500, "0.0005"}, {1000, "0.001"},  {2500, "0.0025"}, {5000, "0.005"},  {10000, "0.01"}, {25000, "0.025"},
    {50000, "0.05"}, {100000, "0.1"},  {250000, "0.25"}, {500000, "0.5"},  {1000000, "1"},  {2500000, "2.5"},
    {5000000, "5"},  {10000000, "10"}, {30000000, "30"}, {60000000, "60"},
};

/* A row per metric: a cell per label value, or a histogram's buckets (not cumulative), the bucket without an upper
 * bound and the sum in microseconds. */
enum {
    BUCKET_COUNT = sizeof(buckets) / sizeof(buckets[0]),
    CELL_INFINITY = BUCKET_COUNT,
    CELL_SUM_US,
    CELLS = METRIC_LABEL_VALUES_MAX,
};
_Static_assert(CELL_SUM_US < CELLS, "a histogram fits a row");

static uint64_t cells[METRIC_COUNT][CELLS];
static int64_t process_start_ms;

static void __attribute__((constructor)) note_process_start(void)
{
    process_start_ms = clock_wall_ms();
}

/* Steps through the comma-separated values of a label; `cursor` starts at the list. */
static bool next_value(const char **cursor, const char **ret_value, size_t *ret_size)
{
    if (*cursor == NULL)
        return false;
    const char *comma = strchr(*cursor, ',');
    *ret_value = *cursor;
    *ret_size = comma != NULL ? (size_t)(comma - *cursor) : strlen(*cursor);
    *cursor = comma != NULL ? comma + 1 : NULL;
    return true;
}

static unsigned count_values(const struct metric *metric)
{
    unsigned count = 1;
    for (const char *c = metric->values; c != NULL && *c != '\0'; c++)
        count += *c == ',';
    return count;
}

/* Counted once per metric; threads that race here store the same number. */
static uint64_t *cell_at(enum metric_id id, unsigned value)
{
    static uint8_t counts[METRIC_COUNT];
    unsigned count = __atomic_load_n(&counts[id], __ATOMIC_RELAXED);
    if (count == 0) {
        count = count_values(&metrics[id]);
        assert(count <= METRIC_LABEL_VALUES_MAX);
        __atomic_store_n(&counts[id], (uint8_t)count, __ATOMIC_RELAXED);
    }
    assert(value < count);
    return &cells[id][value];
}

static uint64_t *cell_unlabelled(enum metric_id id)
{
    assert(metrics[id].label == NULL);
    return &cells[id][0];
}

static uint64_t load(const uint64_t *cell)
{
    return __atomic_load_n(cell, __ATOMIC_RELAXED);
}

void metric_add(enum metric_id id, uint64_t n)
{
    assert(metrics[id].type != METRIC_HISTOGRAM);
    __atomic_fetch_add(cell_unlabelled(id), n, __ATOMIC_RELAXED);
}

void metric_add_at(enum metric_id id, unsigned value, uint64_t n)
{
    assert(metrics[id].type != METRIC_HISTOGRAM);
    __atomic_fetch_add(cell_at(id, value), n, __ATOMIC_RELAXED);
}

void metric_set(enum metric_id id, int64_t value)
{
    assert(metrics[id].type == METRIC_GAUGE);
    __atomic_store_n(cell_unlabelled(id), (uint64_t)value, __ATOMIC_RELAXED);
}

void metric_set_at(enum metric_id id, unsigned value, int64_t n)
{
    assert(metrics[id].type == METRIC_GAUGE);
    __atomic_store_n(cell_at(id, value), (uint64_t)n, __ATOMIC_RELAXED);
}

void metric_observe_us(enum metric_id id, int64_t us)
{
    assert(metrics[id].type == METRIC_HISTOGRAM);
    if (us < 0)
        us = 0;
    unsigned bucket = 0;
    while (bucket < BUCKET_COUNT && us > buckets[bucket].upper_us)
        bucket++;
    __atomic_fetch_add(&cells[id][bucket], 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&cells[id][CELL_SUM_US], (uint64_t)us, __ATOMIC_RELAXED);
}

uint64_t metric_value(enum metric_id id)
{
    if (metrics[id].type != METRIC_HISTOGRAM)
        return load(cell_unlabelled(id));
    uint64_t count = 0;
    for (unsigned bucket = 0; bucket <= CELL_INFINITY; bucket++)
        count += load(&cells[id][bucket]);
    return count;
}

uint64_t metric_value_at(enum metric_id id, unsigned value)
{
    return load(cell_at(id, value));
}

static const char *type_name(enum metric_type type)
{
    static const char *const names[] = {"counter", "gauge", "histogram"};
    return names[type];
}

static void render_head(struct buf *out, const char *name, enum metric_type type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type_name(type));
}

static void render_number(struct buf *out, enum metric_type type, uint64_t value)
{
    if (type == METRIC_GAUGE)
        buf_printf(out, " %" PRId64 "\n", (int64_t)value);
    else
        buf_printf(out, " %" PRIu64 "\n", value);
}

static void render_histogram(struct buf *out, const struct metric *metric, const uint64_t *row)
{
    /* Count is the sum of what was read, so that the page agrees with itself while others observe. */
    uint64_t count = 0;
    for (unsigned bucket = 0; bucket < BUCKET_COUNT; bucket++) {
        count += load(&row[bucket]);
        buf_printf(out, "%s_bucket{le=\"%s\"} %" PRIu64 "\n", metric->name, buckets[bucket].upper_s, count);
    }
    count += load(&row[CELL_INFINITY]);
    uint64_t sum_us = load(&row[CELL_SUM_US]);
    buf_printf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", metric->name, count);
    buf_printf(out, "%s_sum %" PRIu64 ".%06" PRIu64 "\n", metric->name, sum_us / 1000000, sum_us % 1000000);
    buf_printf(out, "%s_count %" PRIu64 "\n", metric->name, count);
}

static void render_metric(struct buf *out, const struct metric *metric, const uint64_t *row)
{
    render_head(out, metric->name, metric->type, metric->help);
    if (metric->type == METRIC_HISTOGRAM) {
        render_histogram(out, metric, row);
        return;
    }
    if (metric->label == NULL) {
        buf_append_str(out, metric->name);
        render_number(out, metric->type, load(&row[0]));
        return;
    }
    const char *cursor = metric->values, *value;
    size_t size;
    while (next_value(&cursor, &value, &size)) {
        buf_printf(out, "%s{%s=\"%.*s\"}", metric->name, metric->label, (int)size, value);
        render_number(out, metric->type, load(row++));
    }
}

/* What the Prometheus client libraries tell of every process, under their names. */

static double read_resident_bytes(void)
{
    return (double)memory_resident_bytes();
}

static double read_open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL)
        return 0;
    int count = -1; /* the directory's own */
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir))
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static double read_max_fds(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? (double)limit.rlim_cur : 0;
}

static double read_start_time_s(void)
{
    return (double)process_start_ms / 1000;
}

static double read_cpu_s(void)
{
    struct timespec ts = {0};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double read_heap_used_bytes(void)
{
    struct mallinfo2 heap = mallinfo2();
    return (double)heap.uordblks + (double)heap.hblkhd;
}

static double read_heap_free_bytes(void)
{
    return (double)mallinfo2().fordblks;
}

static const struct {
    const char *name;
    enum metric_type type;
    double (*read)(void);
    const char *help;
} process_metrics[] = {
    {"process_resident_memory_bytes", METRIC_GAUGE, read_resident_bytes, "Resident memory"},
    {"signalbox_heap_used_bytes", METRIC_GAUGE, read_heap_used_bytes, "Memory that the program has allocated"},
    {"signalbox_heap_free_bytes", METRIC_GAUGE, read_heap_free_bytes,
     "Memory that was freed and that the allocator keeps, resident or not"},
    {"process_open_fds", METRIC_GAUGE, read_open_fds, "Open file descriptors"},
    {"process_max_fds", METRIC_GAUGE, read_max_fds, "Most file descriptors that may be open (the soft limit)"},
    {"process_start_time_seconds", METRIC_GAUGE, read_start_time_s, "Start of the process, in seconds since 1970"},
    {"process_cpu_seconds_total", METRIC_COUNTER, read_cpu_s, "CPU time used, user and system"},
};
enum { PROCESS_METRIC_COUNT = sizeof(process_metrics) / sizeof(process_metrics[0]) };

static const char build_info_name[] = "signalbox_build_info";
static const char build_info_help[] = "1, labelled with the version of Signalbox that runs";

void metrics_render(struct buf *out, enum metric_tier tier)
{
    for (int id = 0; id < METRIC_COUNT; id++)
        if ((metrics[id].tier & tier) != 0)
            render_metric(out, &metrics[id], cells[id]);
    render_head(out, build_info_name, METRIC_GAUGE, build_info_help);
    buf_printf(out, "%s{version=\"%s\"} 1\n", build_info_name, SBX_VERSION);
    for (int i = 0; i < PROCESS_METRIC_COUNT; i++) {
        render_head(out, process_metrics[i].name, process_metrics[i].type, process_metrics[i].help);
        buf_printf(out, "%s %.17g\n", process_metrics[i].name, process_metrics[i].read());
    }
}

static const char *tier_name(enum metric_tier tier)
{
    return tier == TIER_BOTH ? "both" : tier == TIER_GATEWAY ? "gateway" : "shard";
}

static void document_labels(struct buf *out, const struct metric *metric)
{
    if (metric->label == NULL)
        return;
    buf_printf(out, "`%s`: ", metric->label);
    const char *cursor = metric->values, *value;
    size_t size;
    for (const char *separator = ""; next_value(&cursor, &value, &size); separator = ", ")
        buf_printf(out, "%s`%.*s`", separator, (int)size, value);
}

void metrics_document(struct buf *out)
{
    buf_append_str(out, "| Name | Type | Label and values | Tier | Meaning |\n| --- | --- | --- | --- | --- |\n");
    for (int id = 0; id < METRIC_COUNT; id++) {
        const struct metric *metric = &metrics[id];
        buf_printf(out, "| `%s` | %s | ", metric->name, type_name(metric->type));
        document_labels(out, metric);
        buf_printf(out, " | %s | %s |\n", tier_name(metric->tier), metric->help);
    }
    buf_printf(out, "| `%s` | gauge | `version` | both | %s |\n", build_info_name, build_info_help);
    for (int i = 0; i < PROCESS_METRIC_COUNT; i++)
        buf_printf(out, "| `%s` | %s |  | both | %s |\n", process_metrics[i].name, type_name(process_metrics[i].type),
                   process_metrics[i].help);
}
