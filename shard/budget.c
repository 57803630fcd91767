#include "shard/budget.h"

static const char *const names[BUDGET_COUNT] = {
    "joins", "p1_negotiation", "p2_candidates", "p3_membership", "p4_ephemeral", "bytes", "delivery",
};

const char *budget_name(enum room_budget_kind kind)
{
    return names[kind];
}

static uint32_t clamp(uint64_t value)
{
    return value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
}

/* What is left unlimited by the configuration stays so; nothing else becomes it by being scaled. */
static struct bucket_limit limit_of(const struct room_budget *budget, const struct shard_limits *limits,
                                    enum room_budget_kind kind)
{
    const uint32_t rates[BUDGET_COUNT] = {
        limits->room_joins_per_s,          limits->room_negotiations_per_s, limits->room_candidates_per_s,
        limits->room_messages_per_s,       limits->room_signals_per_s,      limits->room_bytes_per_s,
        limits->room_delivery_bytes_per_s,
    };
    uint32_t rate = rates[kind];
    if (rate > 0 && budget->percent != BUDGET_PERCENT_DEFAULT) {
        rate = clamp((uint64_t)rate * budget->percent / 100);
        if (rate == 0)
            rate = 1;
    }
    return (struct bucket_limit){.rate_per_s = rate, .burst = clamp((uint64_t)rate * limits->room_burst_s)};
}

void budget_init(struct room_budget *budget, const struct shard_limits *limits, int64_t now_ms)
{
    budget->percent = BUDGET_PERCENT_DEFAULT;
    for (int i = 0; i < BUDGET_COUNT; i++) {
        struct bucket_limit limit = limit_of(budget, limits, i);
        bucket_init(&budget->buckets[i], &limit, now_ms);
    }
}

void budget_set_percent(struct room_budget *budget, uint32_t percent)
{
    if (percent > 0)
        budget->percent = percent < BUDGET_PERCENT_MAX ? percent : BUDGET_PERCENT_MAX;
}

uint32_t budget_take(struct room_budget *budget, const struct shard_limits *limits, const struct room_charge *charge,
                     int64_t now_ms, enum room_budget_kind *ret_short)
{
    const struct {
        enum room_budget_kind kind;
        uint64_t cost;
    } parts[] = {{charge->kind, 1}, {BUDGET_BYTES, charge->bytes}, {BUDGET_DELIVERY, charge->delivery_bytes}};
    enum { PARTS = sizeof parts / sizeof parts[0] };
    struct bucket_limit part_limits[PARTS];
    uint32_t costs[PARTS];

    for (unsigned i = 0; i < PARTS; i++) {
        part_limits[i] = limit_of(budget, limits, parts[i].kind);
        /* What costs more than the whole burst passes when the bucket is full: otherwise it never would. */
        costs[i] = parts[i].cost < part_limits[i].burst ? (uint32_t)parts[i].cost : part_limits[i].burst;
        if (costs[i] == 0)
            continue;
        uint32_t wait_ms = bucket_wait_ms(&budget->buckets[parts[i].kind], &part_limits[i], costs[i], now_ms);
        if (wait_ms > 0) {
            *ret_short = parts[i].kind;
            return wait_ms;
        }
    }
    for (unsigned i = 0; i < PARTS; i++)
        bucket_force(&budget->buckets[parts[i].kind], &part_limits[i], costs[i], now_ms);
    return 0;
}

uint64_t budget_spare_delivery(const struct room_budget *budget, const struct shard_limits *limits, int64_t now_ms)
{
    struct bucket_limit limit = limit_of(budget, limits, BUDGET_DELIVERY);
    if (limit.rate_per_s == 0)
        return UINT64_MAX;
    int64_t spare = bucket_level(&budget->buckets[BUDGET_DELIVERY], &limit, now_ms) - limit.burst / 2;
    return spare > 0 ? (uint64_t)spare : 0;
}

uint32_t budget_wait_delivery(const struct room_budget *budget, const struct shard_limits *limits, uint64_t bytes,
                              int64_t now_ms)
{
    struct bucket_limit limit = limit_of(budget, limits, BUDGET_DELIVERY);
    uint64_t wanted = limit.burst / 2 + (uint64_t)clamp(bytes);
    return bucket_wait_ms(&budget->buckets[BUDGET_DELIVERY], &limit,
                          wanted < limit.burst ? (uint32_t)wanted : limit.burst, now_ms);
}

void budget_pay_delivery(struct room_budget *budget, const struct shard_limits *limits, uint64_t bytes, int64_t now_ms)
{
    struct bucket_limit limit = limit_of(budget, limits, BUDGET_DELIVERY);
    bucket_force(&budget->buckets[BUDGET_DELIVERY], &limit, clamp(bytes), now_ms);
}
