/* signalbox-budget-cost: prints what it costs to ask a budget, in nanoseconds of CPU time: of a connection (one
 * bucket), and of a room (its class, its bytes, its delivery). */
#include "shard/budget.h"
#include <stdio.h>
#include <time.h>

enum { ROUNDS = 5000000, PER_MS = 10 };

static double cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

int main(void)
{
    const struct bucket_limit limit = {.rate_per_s = 20000, .burst = 100000};
    const struct shard_limits *limits = &shard_default_limits;
    const struct room_charge charge = {.kind = BUDGET_MEMBERSHIP, .bytes = 200, .delivery_bytes = 20000};
    enum room_budget_kind lacking;
    struct room_budget budget;
    struct bucket bucket;
    unsigned granted = 0;

    bucket_init(&bucket, &limit, 0);
    budget_init(&budget, limits, 0);
    budget_set_percent(&budget, BUDGET_PERCENT_MAX); /* so that all is granted, which costs more than to refuse */
    double began_ns = cpu_ns();
    for (int i = 0; i < ROUNDS; i++)
        granted += bucket_take(&bucket, &limit, 1, i / PER_MS);
    double connection_ns = (cpu_ns() - began_ns) / ROUNDS;
    began_ns = cpu_ns();
    for (int i = 0; i < ROUNDS; i++)
        granted += budget_take(&budget, limits, &charge, i / PER_MS, &lacking) == 0;
    double room_ns = (cpu_ns() - began_ns) / ROUNDS;
    printf("connection %.1f\nroom %.1f\ngranted %u\n", connection_ns, room_ns, granted);
    return 0;
}
