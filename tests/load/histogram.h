/* A log-linear histogram of durations, in microseconds: exact below 128, then 64 steps for each power of two, so that a
 * percentile is at most 1.6% above the true one, from 1 us to 19 hours, in 16 KB. The largest value is kept exactly.
 *
 * Coordinated omission: whoever records measures from the moment at which an operation was due by the schedule, not
 * from when the client got round to it, so that a stall counts for everything that it held up.
 *
 * Ownership: plain memory, also shared between processes: one process records, any process may merge it into its own
 * meanwhile and sees each bucket whole. A zeroed struct is an empty histogram.
 * Model: HdrHistogram (Gil Tene), http://hdrhistogram.org */
#ifndef SBX_LOAD_HISTOGRAM_H
#define SBX_LOAD_HISTOGRAM_H

#include <stdint.h>

enum {
    HISTOGRAM_STEP_BITS = 6,
    HISTOGRAM_VALUE_BITS = 36,
    HISTOGRAM_BUCKETS = (HISTOGRAM_VALUE_BITS - HISTOGRAM_STEP_BITS + 1) << HISTOGRAM_STEP_BITS,
};

struct histogram {
    uint64_t count;
    uint64_t sum_us;
    uint64_t max_us;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

/* A negative value counts as 0, one beyond the range as the largest of the range. */
void histogram_record(struct histogram *histogram, int64_t value_us);
void histogram_merge(struct histogram *into, const struct histogram *from);
/* The smallest value that at least `percent` (0 to 100) of the recorded ones do not exceed, rounded up to its bucket's
 * end; 0 if nothing was recorded. */
uint64_t histogram_percentile_us(const struct histogram *histogram, double percent);
double histogram_mean_us(const struct histogram *histogram);

#endif
