/* Gives memory back to the system after a crowd has left.
 *
 * What many connections or participants have left between the memory that is still in use is not given back by glibc on
 * its own, and is filled worse each time: ten storms of 2,500 connections took a gateway from 60 to 100 MB with 1 MB in
 * use. Half a second after the number of whatever costs the memory has fallen to half of its peak, the free pages go
 * back (malloc_trim(3)); the peak then starts anew.
 *
 * Ownership: embedded. Threading: loop thread.
 */
#ifndef SBX_COMMON_GIVE_BACK_H
#define SBX_COMMON_GIVE_BACK_H

#include "common/timer.h"
#include <stddef.h>

struct give_back {
    struct timer_wheel *wheel;
    struct timer timer;
    size_t count, peak;
};

void give_back_init(struct give_back *give_back, struct timer_wheel *wheel);
void give_back_done(struct give_back *give_back);
/* How many there are now. */
void give_back_count(struct give_back *give_back, size_t count);

#endif
