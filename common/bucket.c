#include "common/bucket.h"

/* Debt beyond this would take longer to pay than any process lives; the bound keeps the arithmetic in range. */
#define DEBT_MAX_MILLI (INT64_MAX / 4)

/* What the bucket holds at `now_ms`, in thousandths. A rate in units a second is the same number of thousandths a
 * millisecond, so refilling is exact: nothing is rounded, however often it is asked. */
static int64_t milli_at(const struct bucket *bucket, const struct bucket_limit *limit, int64_t now_ms)
{
    int64_t full = (int64_t)limit->burst * 1000;
    int64_t elapsed_ms = now_ms - bucket->updated_ms;
    int64_t missing = full - bucket->milli;

    /* A burst that was lowered by a reload takes effect at once. */
    if (missing <= 0)
        return full;
    /* Compared by division first: elapsed * rate need not fit. */
    if (elapsed_ms > missing / (int64_t)limit->rate_per_s)
        return full;
    return elapsed_ms > 0 ? bucket->milli + elapsed_ms * limit->rate_per_s : bucket->milli;
}

static void refill(struct bucket *bucket, const struct bucket_limit *limit, int64_t now_ms)
{
    bucket->milli = milli_at(bucket, limit, now_ms);
    /* Time that seems to run backwards gives nothing now and must not give it twice later. */
    if (now_ms > bucket->updated_ms)
        bucket->updated_ms = now_ms;
}

void bucket_init(struct bucket *bucket, const struct bucket_limit *limit, int64_t now_ms)
{
    bucket->updated_ms = now_ms;
    bucket->milli = (int64_t)limit->burst * 1000;
}

bool bucket_take(struct bucket *bucket, const struct bucket_limit *limit, uint32_t cost, int64_t now_ms)
{
    if (limit->rate_per_s == 0)
        return true;
    refill(bucket, limit, now_ms);
    if (bucket->milli < (int64_t)cost * 1000)
        return false;
    bucket->milli -= (int64_t)cost * 1000;
    return true;
}

void bucket_force(struct bucket *bucket, const struct bucket_limit *limit, uint32_t cost, int64_t now_ms)
{
    if (limit->rate_per_s == 0)
        return;
    refill(bucket, limit, now_ms);
    bucket->milli -= (int64_t)cost * 1000;
    if (bucket->milli < -DEBT_MAX_MILLI)
        bucket->milli = -DEBT_MAX_MILLI;
}

int64_t bucket_level(const struct bucket *bucket, const struct bucket_limit *limit, int64_t now_ms)
{
    return limit->rate_per_s == 0 ? UINT32_MAX : milli_at(bucket, limit, now_ms) / 1000;
}

uint32_t bucket_wait_ms(const struct bucket *bucket, const struct bucket_limit *limit, uint32_t cost, int64_t now_ms)
{
    if (limit->rate_per_s == 0)
        return 0;

    int64_t full = (int64_t)limit->burst * 1000;
    int64_t wanted = (int64_t)cost * 1000;
    /* More than the burst is never there. Whoever waits must still be told to wait, or it would try in a busy loop. */
    int64_t missing = wanted <= full ? wanted - milli_at(bucket, limit, now_ms) : full;
    if (missing <= 0)
        return 0;
    int64_t wait_ms = (missing + limit->rate_per_s - 1) / limit->rate_per_s;
    return wait_ms < UINT32_MAX ? (uint32_t)wait_ms : UINT32_MAX;
}
