#include "tests/load/histogram.h"

enum { STEPS = 1 << HISTOGRAM_STEP_BITS };

static unsigned bucket_of(uint64_t value)
{
    if (value < 2 * STEPS)
        return (unsigned)value;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - HISTOGRAM_STEP_BITS;
    return (shift << HISTOGRAM_STEP_BITS) + (unsigned)(value >> shift);
}

/* The largest value that falls into the bucket. */
static uint64_t bucket_end(unsigned bucket)
{
    if (bucket < 2 * STEPS)
        return bucket;
    unsigned shift = (bucket >> HISTOGRAM_STEP_BITS) - 1;
    uint64_t begin = ((uint64_t)(bucket & (STEPS - 1)) + STEPS) << shift;
    return begin + (1ull << shift) - 1;
}

void histogram_record(struct histogram *histogram, int64_t value_us)
{
    uint64_t value = value_us < 0 ? 0 : (uint64_t)value_us;
    if (value >> HISTOGRAM_VALUE_BITS != 0)
        value = (1ull << HISTOGRAM_VALUE_BITS) - 1;
    histogram->buckets[bucket_of(value)]++;
    histogram->count++;
    histogram->sum_us += value;
    if (value > histogram->max_us)
        histogram->max_us = value;
}

static uint64_t load(const uint64_t *value)
{
    return __atomic_load_n(value, __ATOMIC_RELAXED);
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    uint64_t max_us = load(&from->max_us);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t count = load(&from->buckets[i]);
        into->buckets[i] += count;
        /* Not from->count: percentiles must see a total that agrees with the buckets, whatever is recorded meanwhile.
         */
        into->count += count;
    }
    into->sum_us += load(&from->sum_us);
    if (max_us > into->max_us)
        into->max_us = max_us;
}

uint64_t histogram_percentile_us(const struct histogram *histogram, double percent)
{
    uint64_t wanted = (uint64_t)((double)histogram->count * percent / 100 + 0.999999), seen = 0;
    if (wanted == 0)
        wanted = 1;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen >= wanted)
            return bucket_end(i) < histogram->max_us ? bucket_end(i) : histogram->max_us;
    }
    return histogram->max_us;
}

double histogram_mean_us(const struct histogram *histogram)
{
    return histogram->count == 0 ? 0 : (double)histogram->sum_us / (double)histogram->count;
}
