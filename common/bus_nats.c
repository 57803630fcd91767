#include "common/bus.h"
#include "common/clock.h"
#include "common/list.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/nats_conn.h"
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    ECHO_INTERVAL_MS = 200,
    WATCH_TICK_MS = 100,
    SILENT_TICKS_MAX = 10,
    RETRY_MIN_MS = 50,
    RETRY_MAX_MS = 2000,
    ATTEMPTS_SLOWEST = 7, /* RETRY_MIN_MS doubled this often less one exceeds RETRY_MAX_MS */
    CLOSE_FLUSH_MS = 500,
    LIMIT_DEFAULT_BYTES = 64 << 20,
    /* What a queued message costs beyond its payload; charged to the limits, so that they bound the count too. */
    MESSAGE_OVERHEAD_BYTES = 256,
    /* How much the library may hold: it moves what is unsent to the front of its buffer after every partial write. */
    LIBRARY_BACKLOG_BYTES = 256 * 1024,
    DELIVERY_BATCH = 256,
};

/* Indexes of M_BUS_LOSSES. */
enum loss_reason { LOSS_CLOSED, LOSS_ECHO_TIMEOUT, LOSS_OUTGOING_FULL, LOSS_ERROR };

struct outgoing {
    struct list link;
    struct payload *payload;
    int flags;
    char subject[];
};

struct incoming {
    struct list link;
    natsMsg *msg; /* or NULL: nobody subscribes to `unreachable` */
    size_t cost_bytes;
    char unreachable[];
};

struct state_change {
    struct list link;
    enum bus_state state;
    uint64_t generation;
    char server_id[NATS_CONN_SERVER_ID_MAX];
    char detail[NATS_DETAIL_MAX];
};

/* Posted to the loop; outlives the bus, then with bus == NULL. */
struct wake {
    struct loop_message message;
    struct bus *bus;
};

struct bus {
    /* Fixed after bus_open(). */
    struct loop *loop;
    struct bus_handlers handlers;
    void *ctx;
    char *subscriptions[BUS_SUBSCRIPTIONS_MAX];
    size_t subscription_count;
    char *echo_subject;
    size_t outgoing_limit_bytes, incoming_limit_bytes;
    int wake_fd;
    bool started;
    pthread_t bus_thread, connector_thread;

    /* The loop's. */
    enum bus_state state;
    uint64_t generation; /* of the connection that the loop was told of; 0 when it is not up */
    struct list ready;   /* messages taken over from `incoming` */
    bool delivering;

    /* Shared, under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* for the connector: conn gone, or closing */
    struct nats_conn *conn; /* set by the connector, cleared and destroyed by the bus thread */
    bool silent;            /* the connector severed `conn` */
    bool closing;
    unsigned attempts;      /* at connecting, since the bus was last up; decides the delay before the next */
    uint64_t up_generation; /* what bus_publish() is accepted for; 0 when down */
    size_t max_payload;
    struct list outgoing;  /* from the loop */
    size_t outgoing_bytes; /* in `outgoing` */
    size_t backlog_bytes;  /* taken from it and not yet written to the socket */
    bool outgoing_kicked;  /* the bus thread knows that `outgoing` is not empty */
    bool outgoing_full;
    struct list incoming;       /* to the loop */
    size_t incoming_bytes;      /* in `incoming` and `ready` */
    struct list changes;        /* to the loop */
    enum bus_state last_change; /* the newest ever put there */
    struct wake *wake;          /* posted and not yet run */

    /* The bus thread's. */
    struct nats_options options; /* the connector's */
    int epoll_fd;
    struct nats_conn *current; /* == conn once adopted */
    bool polling_write;
    bool proven;        /* an echo came back */
    bool said_farewell; /* closing: the echo behind the last message is sent */
    uint64_t last_generation;
    int64_t echo_due_ms;
    struct list sending; /* accepted and not yet handed to the library */
    size_t sending_bytes;
    struct list heard; /* to go into `incoming` at the end of the turn */
};

static void on_wake(struct loop_message *message);

static void post_wake_locked(struct bus *bus)
{
    if (bus->wake)
        return;
    bus->wake = mem_new(struct wake);
    bus->wake->message.cb = on_wake;
    bus->wake->bus = bus;
    loop_post(bus->loop, &bus->wake->message);
}

static void kick_bus_thread(struct bus *bus)
{
    uint64_t one = 1;
    ssize_t n = write(bus->wake_fd, &one, sizeof(one));

    assert(n == sizeof(one) || errno == EAGAIN);
}

static void change_state_locked(struct bus *bus, enum bus_state state, const char *server_id, const char *detail)
{
    if (state == bus->last_change)
        return;
    struct state_change *change = mem_new(struct state_change);
    change->state = state;
    change->generation = bus->up_generation;
    snprintf(change->server_id, sizeof(change->server_id), "%s", server_id);
    snprintf(change->detail, sizeof(change->detail), "%s", detail);
    list_append(&bus->changes, &change->link);
    bus->last_change = state;
    metric_set(M_BUS_UP, state == BUS_UP);
    post_wake_locked(bus);
}

static void outgoing_free(struct outgoing *out)
{
    list_remove(&out->link);
    payload_unref(&out->payload);
    free(out);
}

static void outgoing_drop_all(struct list *list)
{
    list_for_each_safe(link, list) {
        metric_add_at(M_BUS_DROPPED, BUS_DROP_DOWN, 1);
        outgoing_free(container_of(link, struct outgoing, link));
    }
}

static void incoming_free(struct incoming *in)
{
    list_remove(&in->link);
    natsMsg_Destroy(in->msg);
    free(in);
}

static void incoming_free_all(struct list *list)
{
    list_for_each_safe(link, list) {
        incoming_free(container_of(link, struct incoming, link));
    }
}

/* ---- the bus thread ---- */

static void on_message(void *ctx, natsMsg *msg)
{
    struct bus *bus = ctx;
    struct incoming *in = mem_new(struct incoming);
    size_t size = (size_t)natsMsg_GetDataLength(msg);

    in->msg = msg;
    in->cost_bytes = size + MESSAGE_OVERHEAD_BYTES;
    list_append(&bus->heard, &in->link);
    metric_add(M_BUS_RECEIVED, 1);
    metric_add(M_BUS_RECEIVED_BYTES, size);
}

static void on_unreachable(void *ctx, const char *subject)
{
    struct bus *bus = ctx;
    size_t size = strlen(subject) + 1;
    struct incoming *in = mem_zalloc(sizeof(*in) + size);

    memcpy(in->unreachable, subject, size);
    in->cost_bytes = MESSAGE_OVERHEAD_BYTES + size;
    list_append(&bus->heard, &in->link);
    metric_add(M_BUS_UNREACHABLE, 1);
}

static const struct nats_conn_handlers conn_handlers = {.message = on_message, .unreachable = on_unreachable};

static void poll_fd(struct bus *bus, int op, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    int rc = epoll_ctl(bus->epoll_fd, op, fd, &event);

    assert(rc == 0);
}

static void lose_connection(struct bus *bus, enum bus_state state, enum loss_reason reason, const char *detail)
{
    pthread_mutex_lock(&bus->lock);
    bus->conn = NULL; /* from here on the connector cannot sever it */
    if (bus->silent)
        reason = LOSS_ECHO_TIMEOUT;
    bus->up_generation = 0;
    list_splice(&bus->sending, &bus->outgoing);
    bus->outgoing_bytes = bus->backlog_bytes = 0;
    bus->outgoing_full = false;
    bool was_up = bus->last_change == BUS_UP;
    if (state == BUS_REFUSED)
        bus->attempts = ATTEMPTS_SLOWEST;
    else if (!was_up)
        state = bus->last_change;
    if (was_up && !bus->closing)
        metric_add_at(M_BUS_LOSSES, reason, 1);
    change_state_locked(bus, state, "", reason == LOSS_ECHO_TIMEOUT ? "no echo from the server" : detail);
    pthread_cond_signal(&bus->changed);
    pthread_mutex_unlock(&bus->lock);

    outgoing_drop_all(&bus->sending);
    bus->sending_bytes = 0;
    nats_conn_free(&bus->current);
}

static void adopt_connection(struct bus *bus, struct nats_conn *conn)
{
    int fd = nats_conn_fd(conn);

    bus->current = conn;
    bus->proven = bus->polling_write = false;
    bus->echo_due_ms = clock_mono_ms();
    if (fd < 0 || nats_conn_subscribe(conn, (const char *const *)bus->subscriptions, bus->subscription_count,
                                      bus->echo_subject, &conn_handlers, bus) != 0) {
        lose_connection(bus, BUS_LOST, LOSS_ERROR, "connection closed while subscribing");
        return;
    }
    poll_fd(bus, EPOLL_CTL_ADD, fd, EPOLLIN);
}

/* The first echo came back: the server took the subscriptions. */
static void prove_connection(struct bus *bus)
{
    pthread_mutex_lock(&bus->lock);
    bus->proven = true;
    bus->up_generation = ++bus->last_generation;
    bus->max_payload = nats_conn_max_payload(bus->current);
    bus->attempts = 1;
    change_state_locked(bus, BUS_UP, nats_conn_server_id(bus->current), "connected");
    pthread_mutex_unlock(&bus->lock);
}

static void read_connection(struct bus *bus)
{
    char detail[NATS_DETAIL_MAX];
    int error = nats_conn_read(bus->current, detail);

    if (error)
        lose_connection(bus, error == NATS_CONN_REFUSED ? BUS_REFUSED : BUS_LOST, LOSS_CLOSED, detail);
    else if (!bus->proven && nats_conn_echoes(bus->current) > 0)
        prove_connection(bus);
}

/* A failure to publish needs no handling here: the socket's end-of-file follows. */
static void send_queued(struct bus *bus)
{
    while (!list_empty(&bus->sending) && nats_conn_unsent_bytes(bus->current) < LIBRARY_BACKLOG_BYTES) {
        struct outgoing *out = list_first(&bus->sending, struct outgoing, link);
        struct payload *payload = out->payload;

        if (nats_conn_publish(bus->current, out->subject, payload->data, payload->size,
                              out->flags & BUS_WANT_UNREACHABLE) == 0) {
            metric_add(M_BUS_SENT, 1);
            metric_add(M_BUS_SENT_BYTES, payload->size);
        } else {
            metric_add_at(M_BUS_DROPPED, BUS_DROP_DOWN, 1);
        }
        bus->sending_bytes -= payload->size + MESSAGE_OVERHEAD_BYTES;
        outgoing_free(out);
        if (nats_conn_unsent_bytes(bus->current) >= LIBRARY_BACKLOG_BYTES)
            nats_conn_flush(bus->current);
    }
    nats_conn_flush(bus->current);
}

static void drive_connection(struct bus *bus, int64_t now_ms, bool closing)
{
    send_queued(bus);
    bool farewell = closing && !bus->said_farewell && list_empty(&bus->sending);
    if (farewell || now_ms >= bus->echo_due_ms) {
        nats_conn_send_echo(bus->current);
        nats_conn_flush(bus->current);
        bus->echo_due_ms = now_ms + ECHO_INTERVAL_MS;
        bus->said_farewell |= farewell;
    }
    bool want_write = nats_conn_unsent_bytes(bus->current) > 0;
    int fd = nats_conn_fd(bus->current);
    if (fd < 0) {
        lose_connection(bus, BUS_LOST, LOSS_ERROR, "write failed");
    } else if (want_write != bus->polling_write) {
        poll_fd(bus, EPOLL_CTL_MOD, fd, want_write ? EPOLLIN | EPOLLOUT : EPOLLIN);
        bus->polling_write = want_write;
    }
}

/* Takes what the loop and the connector have for the bus thread. Returns whether the bus is closing. */
static bool take_orders(struct bus *bus)
{
    pthread_mutex_lock(&bus->lock);
    struct nats_conn *fresh = bus->conn != bus->current ? bus->conn : NULL;
    bool full = bus->outgoing_full, closing = bus->closing;
    list_splice(&bus->sending, &bus->outgoing);
    bus->sending_bytes += bus->outgoing_bytes;
    bus->backlog_bytes += bus->outgoing_bytes;
    bus->outgoing_bytes = 0;
    bus->outgoing_kicked = false;
    pthread_mutex_unlock(&bus->lock);

    if (fresh)
        adopt_connection(bus, fresh);
    else if (full && bus->current)
        lose_connection(bus, BUS_LOST, LOSS_OUTGOING_FULL, "outgoing buffer full");
    return closing;
}

/* Hands a turn's messages to the loop and tells it how much is still to be written. */
static void report(struct bus *bus)
{
    pthread_mutex_lock(&bus->lock);
    bus->backlog_bytes = bus->sending_bytes + (bus->current ? nats_conn_unsent_bytes(bus->current) : 0);
    if (!list_empty(&bus->heard)) {
        list_for_each_safe(link, &bus->heard) {
            struct incoming *in = container_of(link, struct incoming, link);
            if (bus->incoming_bytes + in->cost_bytes > bus->incoming_limit_bytes)
                break;
            bus->incoming_bytes += in->cost_bytes;
            list_remove(link);
            list_append(&bus->incoming, link);
        }
        list_for_each(link, &bus->heard) {
            metric_add_at(M_BUS_DROPPED, BUS_DROP_INCOMING_FULL, 1);
        }
        post_wake_locked(bus);
    }
    pthread_mutex_unlock(&bus->lock);
    incoming_free_all(&bus->heard);
}

static int wait_ms(const struct bus *bus, int64_t close_by_ms)
{
    int64_t now_ms = clock_mono_ms(), until_ms = bus->current ? bus->echo_due_ms : INT64_MAX;

    if (close_by_ms < until_ms)
        until_ms = close_by_ms;
    if (until_ms == INT64_MAX)
        return -1;
    return until_ms > now_ms ? (int)(until_ms - now_ms) : 0;
}

static void *bus_main(void *arg)
{
    struct bus *bus = arg;
    struct epoll_event events[2];
    int64_t close_by_ms = INT64_MAX;

    pthread_setname_np(pthread_self(), "sbx-bus");
    for (;;) {
        bool closing = take_orders(bus);
        if (closing && close_by_ms == INT64_MAX)
            close_by_ms = clock_mono_ms() + CLOSE_FLUSH_MS;
        if (bus->current)
            drive_connection(bus, clock_mono_ms(), closing);
        report(bus);
        /* The last echo came back: the server has everything that was sent before it. */
        if (closing && (!bus->current || (bus->said_farewell && nats_conn_is_quiet(bus->current))))
            break;
        if (clock_mono_ms() >= close_by_ms)
            break;

        int n = epoll_wait(bus->epoll_fd, events, 2, wait_ms(bus, close_by_ms));
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == bus->wake_fd) {
                uint64_t count;
                ssize_t got = read(bus->wake_fd, &count, sizeof(count));
                assert(got == sizeof(count) || errno == EAGAIN);
            } else if (bus->current && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
                read_connection(bus);
            }
        }
    }
    if (bus->current)
        lose_connection(bus, BUS_LOST, LOSS_CLOSED, "closed");
    return NULL;
}

/* ---- the connector thread ---- */

static int64_t retry_delay_ms(unsigned attempts)
{
    if (attempts == 0)
        return 0;
    uint32_t ceiling_ms = attempts >= ATTEMPTS_SLOWEST ? RETRY_MAX_MS : RETRY_MIN_MS << (attempts - 1);
    return ceiling_ms / 2 + arc4random_uniform(ceiling_ms / 2 + 1);
}

static void wait_locked(struct bus *bus, int64_t delay_ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += delay_ms / 1000;
    until.tv_nsec += delay_ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&bus->changed, &bus->lock, &until);
}

/* Watches the connection until the bus thread has destroyed it. Silence is counted in ticks of this thread and not in
 * time, so that a machine which did not let us run is not taken for a dead server. It is this thread that watches,
 * because the bus thread blocks inside the library while a TLS record is incomplete. */
static void watch_locked(struct bus *bus)
{
    unsigned heard = 0, silent_ticks = 0;

    while (bus->conn) {
        wait_locked(bus, WATCH_TICK_MS);
        if (!bus->conn)
            break;
        unsigned echoes = nats_conn_echoes(bus->conn);
        silent_ticks = echoes == heard ? silent_ticks + 1 : 0;
        heard = echoes;
        if (silent_ticks == SILENT_TICKS_MAX) {
            bus->silent = true;
            nats_conn_sever(bus->conn);
        }
    }
}

/* Called with the lock held; lets go of it while it blocks. */
static void connect_locked(struct bus *bus)
{
    struct nats_conn *conn = NULL;
    char detail[NATS_DETAIL_MAX];

    bus->attempts++;
    pthread_mutex_unlock(&bus->lock);
    const char *server = nats_options_next_server(&bus->options);
    int error = nats_conn_open(&bus->options, &conn, detail);
    if (error)
        log_warn("bus_connect_failed", log_str("server", server), log_str("error", detail));
    pthread_mutex_lock(&bus->lock);

    if (!error && bus->closing) {
        nats_conn_free(&conn); /* the bus thread may have ended */
    } else if (!error) {
        bus->conn = conn;
        bus->silent = false;
        kick_bus_thread(bus);
    } else if (error == NATS_CONN_REFUSED) {
        bus->attempts = ATTEMPTS_SLOWEST;
        change_state_locked(bus, BUS_REFUSED, "", detail);
    }
}

static void *connector_main(void *arg)
{
    struct bus *bus = arg;

    pthread_setname_np(pthread_self(), "sbx-bus-connect");
    pthread_mutex_lock(&bus->lock);
    while (!bus->closing) {
        int64_t until_ms = clock_mono_ms() + retry_delay_ms(bus->attempts), now_ms;
        while (!bus->closing && (now_ms = clock_mono_ms()) < until_ms)
            wait_locked(bus, until_ms - now_ms);
        if (!bus->closing)
            connect_locked(bus);
        watch_locked(bus);
    }
    pthread_mutex_unlock(&bus->lock);
    return NULL;
}

/* ---- the loop's side ---- */

static void tell_changes(struct bus *bus, struct list *changes)
{
    list_for_each_safe(link, changes) {
        struct state_change *change = container_of(link, struct state_change, link);
        bus->state = change->state;
        bus->generation = change->generation;
        list_remove(link);
        if (bus->handlers.state)
            bus->handlers.state(bus->ctx, change->state, change->server_id, change->detail);
        free(change);
    }
}

static void deliver_batch(struct bus *bus)
{
    size_t done_bytes = 0;

    for (unsigned n = 0; n < DELIVERY_BATCH && !list_empty(&bus->ready); n++) {
        struct incoming *in = list_first(&bus->ready, struct incoming, link);
        if (in->msg)
            bus->handlers.message(bus->ctx, natsMsg_GetSubject(in->msg), (const uint8_t *)natsMsg_GetData(in->msg),
                                  (size_t)natsMsg_GetDataLength(in->msg));
        else if (bus->handlers.unreachable)
            bus->handlers.unreachable(bus->ctx, in->unreachable);
        done_bytes += in->cost_bytes;
        incoming_free(in);
    }
    pthread_mutex_lock(&bus->lock);
    bus->incoming_bytes -= done_bytes;
    if (!list_empty(&bus->ready))
        post_wake_locked(bus); /* one batch a turn, so that a flood does not hold up the loop's timers */
    pthread_mutex_unlock(&bus->lock);
}

static void on_wake(struct loop_message *message)
{
    struct wake *wake = container_of(message, struct wake, message);
    struct bus *bus = wake->bus;
    struct list changes = LIST_INIT(changes);

    free(wake);
    if (!bus)
        return;
    pthread_mutex_lock(&bus->lock);
    bus->wake = NULL;
    list_splice(&changes, &bus->changes);
    list_splice(&bus->ready, &bus->incoming);
    pthread_mutex_unlock(&bus->lock);

    bus->delivering = true;
    tell_changes(bus, &changes);
    if (!list_empty(&bus->ready) && (!bus->handlers.gate || bus->handlers.gate(bus->ctx)))
        deliver_batch(bus);
    bus->delivering = false;
}

static void start_thread(pthread_t *ret_thread, void *(*body)(void *), struct bus *bus)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(ret_thread, NULL, body, bus);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    assert(error == 0);
}

static void init_lists_and_locks(struct bus *bus)
{
    pthread_condattr_t monotonic;

    list_init(&bus->ready);
    list_init(&bus->outgoing);
    list_init(&bus->incoming);
    list_init(&bus->changes);
    list_init(&bus->sending);
    list_init(&bus->heard);
    pthread_mutex_init(&bus->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&bus->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

struct bus *bus_open(struct loop *loop, const struct bus_options *options, const struct bus_handlers *handlers,
                     void *ctx)
{
    struct bus *bus = mem_new(struct bus);
    char detail[NATS_DETAIL_MAX];

    assert(options->subscription_count <= BUS_SUBSCRIPTIONS_MAX);
    bus->loop = loop;
    bus->handlers = *handlers;
    bus->ctx = ctx;
    for (size_t i = 0; i < options->subscription_count; i++)
        bus->subscriptions[i] = mem_strdup(options->subscriptions[i]);
    bus->subscription_count = options->subscription_count;
    bus->echo_subject = mem_strdup(options->echo_subject);
    bus->outgoing_limit_bytes = options->outgoing_limit_bytes ? options->outgoing_limit_bytes : LIMIT_DEFAULT_BYTES;
    bus->incoming_limit_bytes = options->incoming_limit_bytes ? options->incoming_limit_bytes : LIMIT_DEFAULT_BYTES;
    init_lists_and_locks(bus);
    bus->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    bus->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    assert(bus->wake_fd >= 0 && bus->epoll_fd >= 0);
    poll_fd(bus, EPOLL_CTL_ADD, bus->wake_fd, EPOLLIN);

    if (nats_options_init(&bus->options, options, detail) != 0) {
        pthread_mutex_lock(&bus->lock);
        change_state_locked(bus, BUS_REFUSED, "", detail);
        pthread_mutex_unlock(&bus->lock);
        return bus;
    }
    start_thread(&bus->bus_thread, bus_main, bus);
    start_thread(&bus->connector_thread, connector_main, bus);
    bus->started = true;
    return bus;
}

static void stop_threads(struct bus *bus)
{
    pthread_mutex_lock(&bus->lock);
    bus->closing = true;
    pthread_cond_signal(&bus->changed);
    pthread_mutex_unlock(&bus->lock);
    kick_bus_thread(bus);
    pthread_join(bus->connector_thread, NULL);
    pthread_join(bus->bus_thread, NULL);
}

void bus_close(struct bus **bus_ptr)
{
    struct bus *bus = *bus_ptr;

    if (!bus)
        return;
    assert(!bus->delivering);
    *bus_ptr = NULL;
    if (bus->started)
        stop_threads(bus);
    if (bus->wake)
        bus->wake->bus = NULL;
    metric_set(M_BUS_UP, 0);
    outgoing_drop_all(&bus->outgoing);
    incoming_free_all(&bus->incoming);
    incoming_free_all(&bus->ready);
    list_for_each_safe(link, &bus->changes) {
        free(container_of(link, struct state_change, link));
    }
    nats_options_done(&bus->options);
    close(bus->epoll_fd);
    close(bus->wake_fd);
    for (size_t i = 0; i < bus->subscription_count; i++)
        free(bus->subscriptions[i]);
    free(bus->echo_subject);
    pthread_cond_destroy(&bus->changed);
    pthread_mutex_destroy(&bus->lock);
    free(bus);
}

/* False when the message must be refused. `size` counts what the queue is charged for it. */
static bool accept_locked(struct bus *bus, size_t payload_size, size_t charge_bytes)
{
    /* A connection lost and replaced since the loop last looked is not the one that the caller means. */
    if (bus->generation == 0 || bus->generation != bus->up_generation || bus->outgoing_full) {
        metric_add_at(M_BUS_DROPPED, BUS_DROP_DOWN, 1);
        return false;
    }
    if (payload_size > bus->max_payload) {
        metric_add_at(M_BUS_DROPPED, BUS_DROP_TOO_LARGE, 1);
        return false;
    }
    if (bus->outgoing_bytes + bus->backlog_bytes + charge_bytes > bus->outgoing_limit_bytes) {
        metric_add_at(M_BUS_DROPPED, BUS_DROP_DOWN, 1);
        bus->outgoing_full = true;
        kick_bus_thread(bus);
        return false;
    }
    return true;
}

int bus_publish(struct bus *bus, const char *subject, struct payload *payload, int flags)
{
    size_t subject_size = strlen(subject) + 1, charge_bytes = payload->size + MESSAGE_OVERHEAD_BYTES;
    bool kick = false;

    assert(subject_size > 1 && subject_size <= BUS_SUBJECT_MAX + 1);
    struct outgoing *out = mem_zalloc(sizeof(*out) + subject_size);
    memcpy(out->subject, subject, subject_size);
    out->flags = flags;
    list_init(&out->link);

    pthread_mutex_lock(&bus->lock);
    bool accepted = accept_locked(bus, payload->size, charge_bytes);
    if (accepted) {
        out->payload = payload_ref(payload);
        list_append(&bus->outgoing, &out->link);
        bus->outgoing_bytes += charge_bytes;
        kick = !bus->outgoing_kicked;
        bus->outgoing_kicked = true;
    }
    pthread_mutex_unlock(&bus->lock);

    if (kick)
        kick_bus_thread(bus);
    if (!accepted)
        free(out);
    return accepted ? 0 : -1;
}

bool bus_is_up(const struct bus *bus)
{
    return bus->state == BUS_UP;
}

void bus_resume(struct bus *bus)
{
    pthread_mutex_lock(&bus->lock);
    if (!list_empty(&bus->ready))
        post_wake_locked(bus);
    pthread_mutex_unlock(&bus->lock);
}
