/* How much of a thread's time goes to work, waiting for a processor included: a thread that is held up by others is as
 * busy as one that has too much to do, and both gain by doing more at a time.
 *
 * Source: /proc/thread-self/schedstat, time run and time waited in nanoseconds; where there is none, nothing is known
 * and the answer is 0. Ownership: embedded. Threading: the thread that called cpu_use_init(), which is the one watched.
 */
#ifndef SBX_COMMON_CPU_USE_H
#define SBX_COMMON_CPU_USE_H

#include <stdint.h>

enum { CPU_USE_PERIOD_MS = 250, CPU_USE_ALL = 1000 };

struct cpu_use {
    int fd; /* -1: nothing is known */
    int64_t looked_ms;
    uint64_t busy_ns;
    uint32_t permille;
};

void cpu_use_init(struct cpu_use *use, int64_t now_ms);
void cpu_use_done(struct cpu_use *use);
/* Thousandths of the last period. Looks once a period, otherwise it costs nothing. */
uint32_t cpu_use_permille(struct cpu_use *use, int64_t now_ms);
/* The part without I/O: the thread has been busy for so long in all. */
void cpu_use_note(struct cpu_use *use, uint64_t busy_ns, int64_t now_ms);

#endif
