#include "common/give_back.h"

#include "common/crypto_memory.h"
#include "common/list.h"
#include <malloc.h>

enum {
    WORTH_IT = 256, /* the memory of fewer is not */
    DELAY_MS = 500, /* for the last of a crowd, and for what is freed with them */
};

static void on_give_back(struct timer *timer, int64_t now_ms)
{
    struct give_back *give_back = container_of(timer, struct give_back, timer);
    crypto_memory_give_back();
    malloc_trim(0);
    give_back->peak = give_back->count;
}

void give_back_init(struct give_back *give_back, struct timer_wheel *wheel)
{
    *give_back = (struct give_back){.wheel = wheel};
    timer_init(&give_back->timer, on_give_back);
}

void give_back_done(struct give_back *give_back)
{
    timer_cancel(give_back->wheel, &give_back->timer);
}

void give_back_count(struct give_back *give_back, size_t count)
{
    give_back->count = count;
    if (count > give_back->peak)
        give_back->peak = count;
    if (give_back->peak >= WORTH_IT && count <= give_back->peak / 2 && !timer_pending(&give_back->timer))
        timer_set(give_back->wheel, &give_back->timer, give_back->wheel->now_ms + DELAY_MS);
}
