/* The event loop: one per process, on the main thread, owner of all room and session state.
 *
 * Wraps H2O's evloop (epoll). One turn: I/O callbacks, posted messages, due timers, deferred tasks. Deferred tasks are
 * where a turn's work is gathered up: connections flush once, rooms publish once.
 *
 * Threading: everything but loop_post() and loop_stop() belongs to the loop's own thread.
 */
#ifndef SBX_COMMON_LOOP_H
#define SBX_COMMON_LOOP_H

#include "common/list.h"
#include "common/timer.h"
#include <stdbool.h>
#include <stdint.h>

struct loop;
struct st_h2o_evloop_t;

/* A task for the end of the current turn; embedded in its object; deferring it again before it has run changes nothing.
 * What a task defers runs in the same turn too, up to four times over; the rest in the next, which does not wait. */
struct loop_task {
    struct list link;
    void (*cb)(struct loop_task *task);
};

/* A message from another thread; embedded in a heap object whose ownership passes to `cb`, which runs on the loop. */
struct loop_message {
    struct list link;
    void (*cb)(struct loop_message *message);
};

struct loop *loop_new(void);
/* Messages that were posted and not yet run are run first, so that their objects are freed; whoever posts must have
 * ended. Timers and tasks are left to their owners. */
void loop_free(struct loop **loop);
/* Runs until loop_stop(), the turn in which it is called included. Records loop lag and turn length in metrics. */
void loop_run(struct loop *loop);
/* Any thread. Before loop_run(), makes it return at once. */
void loop_stop(struct loop *loop);

/* Monotonic time, read at its first use in a turn and once more before timers run: work of one kind sees one time. */
int64_t loop_now_ms(struct loop *loop);
/* How late timers ran, on average over the last some dozen turns that had any. */
uint32_t loop_lag_us(const struct loop *loop);
struct timer_wheel *loop_timers(struct loop *loop);
void loop_task_init(struct loop_task *task, void (*cb)(struct loop_task *task));
void loop_defer(struct loop *loop, struct loop_task *task);
void loop_task_cancel(struct loop_task *task);
/* Any thread. Messages posted by one thread run in the order posted. */
void loop_post(struct loop *loop, struct loop_message *message);
/* Runs `cb` on the loop for each arrival of `signo` (signalfd). Call before any thread is started. 0, or -1
 * with errno. */
int loop_on_signal(struct loop *loop, int signo, void (*cb)(void *ctx, int signo), void *ctx);
/* For the files that speak HTTP through H2O, and for no others. */
struct st_h2o_evloop_t *loop_h2o(struct loop *loop);

#endif
