/* Token bucket: `rate` units a second, `burst` units at most. Integer arithmetic on monotonic time: no drift, no
 * floating point, and a clock that stands still gives nothing.
 * Free of I/O; 16 bytes, so that every room and connection can hold several. */
#ifndef SBX_COMMON_BUCKET_H
#define SBX_COMMON_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

struct bucket_limit {
    uint32_t rate_per_s; /* 0 = unlimited */
    uint32_t burst;
};

struct bucket {
    int64_t updated_ms;
    int64_t milli; /* thousandths of a unit available; may be negative after bucket_force() */
};

void bucket_init(struct bucket *bucket, const struct bucket_limit *limit, int64_t now_ms);
/* Takes `cost` units if they are there. */
bool bucket_take(struct bucket *bucket, const struct bucket_limit *limit, uint32_t cost, int64_t now_ms);
/* Takes them in any case: for what must not be refused but must be paid for. */
void bucket_force(struct bucket *bucket, const struct bucket_limit *limit, uint32_t cost, int64_t now_ms);
/* Whole units that are there; negative in debt. UINT32_MAX if unlimited. */
int64_t bucket_level(const struct bucket *bucket, const struct bucket_limit *limit, int64_t now_ms);
/* Milliseconds until `cost` units will be there; 0 if they are. A cost beyond the burst never will be: the time in
 * which an empty bucket fills, so that the caller waits in any case. */
uint32_t bucket_wait_ms(const struct bucket *bucket, const struct bucket_limit *limit, uint32_t cost, int64_t now_ms);

#endif
