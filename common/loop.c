#include "common/loop.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include <assert.h>
#include <errno.h>
#include <h2o.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <unistd.h>

/* Tasks deferred by deferred tasks still belong to this turn, but not without end: I/O must not starve. */
enum { DEFER_PASSES_MAX = 4, LAG_TURNS = 32 };

struct loop {
    h2o_evloop_t *h2o;
    h2o_socket_t *wake; /* an eventfd */
    struct timer_wheel timers;
    struct list deferred;
    struct list signal_watches;
    int64_t now_ms;
    bool now_known; /* now_ms was read in this turn */
    bool in_turn;
    int64_t lag_us; /* smoothed */
    uint32_t stop;  /* atomic */

    pthread_mutex_t posted_lock;
    struct list posted;
};

struct signal_watch {
    struct list link;
    h2o_socket_t *sock;
    int fd; /* owned by sock */
    void (*cb)(void *ctx, int signo);
    void *ctx;
};

static void on_wake(h2o_socket_t *sock, const char *err)
{
    /* What it is about is found by looking; the count only has to go. */
    uint64_t count;
    ssize_t got = read(h2o_socket_get_fd(sock), &count, sizeof(count));
    (void)got;
}

static void wake(struct loop *loop)
{
    uint64_t one = 1;
    ssize_t written = write(h2o_socket_get_fd(loop->wake), &one, sizeof(one));
    assert(written == sizeof(one) || errno == EAGAIN);
}

static h2o_socket_t *watch_fd(struct loop *loop, int fd, h2o_socket_cb cb, void *data)
{
    h2o_socket_t *sock = h2o_evloop_socket_create(loop->h2o, fd, H2O_SOCKET_FLAG_DONT_READ);
    sock->data = data;
    h2o_socket_read_start(sock, cb);
    return sock;
}

struct loop *loop_new(void)
{
    signal(SIGPIPE, SIG_IGN);
    /* H2O would move large socket buffers to mapped temporary files: file I/O on the loop. */
    h2o_socket_buffer_prototype.mmap_settings = NULL;

    struct loop *loop = mem_new(struct loop);
    loop->h2o = h2o_evloop_create();
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert(fd >= 0);
    loop->wake = watch_fd(loop, fd, on_wake, loop);
    timer_wheel_init(&loop->timers, clock_mono_ms());
    list_init(&loop->deferred);
    list_init(&loop->signal_watches);
    list_init(&loop->posted);
    pthread_mutex_init(&loop->posted_lock, NULL);
    return loop;
}

static bool run_posted(struct loop *loop)
{
    struct list batch = LIST_INIT(batch);
    pthread_mutex_lock(&loop->posted_lock);
    list_splice(&batch, &loop->posted);
    pthread_mutex_unlock(&loop->posted_lock);
    bool any = !list_empty(&batch);
    while (!list_empty(&batch)) {
        struct loop_message *message = list_first(&batch, struct loop_message, link);
        list_remove(&message->link);
        message->cb(message);
    }
    return any;
}

void loop_free(struct loop **loop_ptr)
{
    struct loop *loop = *loop_ptr;
    *loop_ptr = NULL;
    if (loop == NULL)
        return;
    while (run_posted(loop))
        ;
    list_for_each_safe(pos, &loop->signal_watches) {
        struct signal_watch *watch = container_of(pos, struct signal_watch, link);
        h2o_socket_close(watch->sock);
        free(watch);
    }
    h2o_socket_close(loop->wake);
    /* H2O 2.2.5 leaves its epoll descriptor open here; a process has one loop, at whose end it exits. */
    h2o_evloop_destroy(loop->h2o);
    pthread_mutex_destroy(&loop->posted_lock);
    free(loop);
}

static void run_timers(struct loop *loop)
{
    /* I/O and messages may have taken a while, and what has come due since is due now. */
    loop->now_known = false;
    int64_t late_ms = timer_wheel_advance(&loop->timers, loop_now_ms(loop));
    if (late_ms < 0)
        return;
    metric_observe_us(M_LOOP_LAG, late_ms * 1000);
    loop->lag_us += (late_ms * 1000 - loop->lag_us) / LAG_TURNS;
}

static void run_deferred(struct loop *loop)
{
    for (int pass = 0; pass < DEFER_PASSES_MAX && !list_empty(&loop->deferred); pass++) {
        struct list batch = LIST_INIT(batch);
        list_splice(&batch, &loop->deferred);
        while (!list_empty(&batch)) {
            struct loop_task *task = list_first(&batch, struct loop_task, link);
            list_remove(&task->link);
            task->cb(task);
        }
    }
}

static int32_t max_wait_ms(const struct loop *loop)
{
    if (!list_empty(&loop->deferred))
        return 0;
    /* H2O looks at the completions of writes made outside its callbacks only after it has waited. */
    if (loop->h2o->_pending_as_client != NULL || loop->h2o->_pending_as_server != NULL)
        return 0;
    int64_t wait_ms = timer_wheel_wait_ms(&loop->timers, clock_mono_ms());
    return wait_ms < 0 || wait_ms > INT32_MAX ? INT32_MAX : (int32_t)wait_ms;
}

static int64_t wall_us(void)
{
    struct timeval tv;
    gettimeofday(&tv, NULL);
    return (int64_t)tv.tv_sec * 1000000 + tv.tv_usec;
}

/* The wait happens somewhere inside h2o_evloop_run(), which then notes the wall clock in whole milliseconds: the turn's
 * start is known to half a millisecond, its part after H2O and the total exactly. */
static int64_t turn_us(struct loop *loop, int64_t before_us, int64_t after_io_us)
{
    int64_t end_us = clock_mono_us();
    int64_t estimate_us = wall_us() - ((int64_t)h2o_now(loop->h2o) * 1000 + 500);
    if (estimate_us < end_us - after_io_us)
        return end_us - after_io_us;
    return estimate_us < end_us - before_us ? estimate_us : end_us - before_us;
}

void loop_run(struct loop *loop)
{
    while (__atomic_exchange_n(&loop->stop, 0, __ATOMIC_ACQUIRE) == 0) {
        int32_t wait_ms = max_wait_ms(loop);
        int64_t before_us = clock_mono_us();
        loop->now_known = false;
        loop->in_turn = true;
        if (h2o_evloop_run(loop->h2o, wait_ms) != 0 && errno != EINTR) {
            log_error("event_loop_failed", log_str("error", strerror(errno)));
            abort();
        }
        int64_t after_io_us = clock_mono_us();
        run_posted(loop);
        run_timers(loop);
        run_deferred(loop);
        metric_observe_us(M_LOOP_TURN, turn_us(loop, before_us, after_io_us));
        loop->in_turn = loop->now_known = false;
    }
}

void loop_stop(struct loop *loop)
{
    __atomic_store_n(&loop->stop, 1, __ATOMIC_RELEASE);
    wake(loop);
}

int64_t loop_now_ms(struct loop *loop)
{
    if (!loop->now_known) {
        loop->now_ms = clock_mono_ms();
        loop->now_known = loop->in_turn;
    }
    return loop->now_ms;
}

struct timer_wheel *loop_timers(struct loop *loop)
{
    return &loop->timers;
}

void loop_task_init(struct loop_task *task, void (*cb)(struct loop_task *task))
{
    task->cb = cb;
    list_init(&task->link);
}

void loop_defer(struct loop *loop, struct loop_task *task)
{
    if (!list_linked(&task->link))
        list_append(&loop->deferred, &task->link);
}

uint32_t loop_lag_us(const struct loop *loop)
{
    return (uint32_t)loop->lag_us;
}

void loop_task_cancel(struct loop_task *task)
{
    list_remove(&task->link);
}

void loop_post(struct loop *loop, struct loop_message *message)
{
    pthread_mutex_lock(&loop->posted_lock);
    bool first = list_empty(&loop->posted);
    list_append(&loop->posted, &message->link);
    pthread_mutex_unlock(&loop->posted_lock);
    if (first)
        wake(loop);
}

static void on_signal(h2o_socket_t *sock, const char *err)
{
    struct signal_watch *watch = sock->data;
    struct signalfd_siginfo info;
    while (read(watch->fd, &info, sizeof(info)) == sizeof(info))
        watch->cb(watch->ctx, (int)info.ssi_signo);
}

int loop_on_signal(struct loop *loop, int signo, void (*cb)(void *ctx, int signo), void *ctx)
{
    sigset_t set;
    sigemptyset(&set);
    if (sigaddset(&set, signo) != 0)
        return -1;
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        return -1;
    struct signal_watch *watch = mem_new(struct signal_watch);
    watch->fd = fd;
    watch->cb = cb;
    watch->ctx = ctx;
    watch->sock = watch_fd(loop, fd, on_signal, watch);
    list_append(&loop->signal_watches, &watch->link);
    return 0;
}

struct st_h2o_evloop_t *loop_h2o(struct loop *loop)
{
    return loop->h2o;
}
