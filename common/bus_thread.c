#include "common/bus_private.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/metrics.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    ECHO_INTERVAL_MS = 200,
    CLOSE_FLUSH_MS = 500,
    /* How much the library may hold: it moves what is unsent to the front of its buffer after every partial write. */
    LIBRARY_BACKLOG_BYTES = 256 * 1024,
};

/* Indexes of M_BUS_LOSSES. */
enum loss_reason { LOSS_CLOSED, LOSS_ECHO_TIMEOUT, LOSS_OUTGOING_FULL, LOSS_ERROR };

static void on_message(void *ctx, natsMsg *msg)
{
    struct bus *bus = ctx;
    struct bus_incoming *in = mem_new(struct bus_incoming);
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
    struct bus_incoming *in = mem_zalloc(sizeof(*in) + size);

    memcpy(in->unreachable, subject, size);
    in->cost_bytes = MESSAGE_OVERHEAD_BYTES + size;
    list_append(&bus->heard, &in->link);
    metric_add(M_BUS_UNREACHABLE, 1);
}

static const struct nats_conn_handlers conn_handlers = {.message = on_message, .unreachable = on_unreachable};

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
    bus_change_state_locked(bus, state, "", reason == LOSS_ECHO_TIMEOUT ? "no echo from the server" : detail);
    pthread_cond_signal(&bus->changed);
    pthread_mutex_unlock(&bus->lock);

    bus_outgoing_drop_all(&bus->sending);
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
    bus_poll_fd(bus, EPOLL_CTL_ADD, fd, EPOLLIN);
}

/* The first echo came back: the server took the subscriptions. */
static void prove_connection(struct bus *bus)
{
    pthread_mutex_lock(&bus->lock);
    bus->proven = true;
    bus->up_generation = ++bus->last_generation;
    bus->max_payload = nats_conn_max_payload(bus->current);
    bus->attempts = 1;
    bus_change_state_locked(bus, BUS_UP, nats_conn_server_id(bus->current), "connected");
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
        struct bus_outgoing *out = list_first(&bus->sending, struct bus_outgoing, link);
        struct payload *payload = out->payload;

        if (nats_conn_publish(bus->current, out->subject, payload->data, payload->size,
                              out->flags & BUS_WANT_UNREACHABLE) == 0) {
            metric_add(M_BUS_SENT, 1);
            metric_add(M_BUS_SENT_BYTES, payload->size);
        } else {
            metric_add_at(M_BUS_DROPPED, BUS_DROP_DOWN, 1);
        }
        bus->sending_bytes -= payload->size + MESSAGE_OVERHEAD_BYTES;
        bus_outgoing_free(out);
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
        bus_poll_fd(bus, EPOLL_CTL_MOD, fd, want_write ? EPOLLIN | EPOLLOUT : EPOLLIN);
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
            struct bus_incoming *in = container_of(link, struct bus_incoming, link);
            if (bus->incoming_bytes + in->cost_bytes > bus->incoming_limit_bytes)
                break;
            bus->incoming_bytes += in->cost_bytes;
            list_remove(link);
            list_append(&bus->incoming, link);
        }
        list_for_each(link, &bus->heard) {
            metric_add_at(M_BUS_DROPPED, BUS_DROP_INCOMING_FULL, 1);
        }
        bus_post_wake_locked(bus);
    }
    pthread_mutex_unlock(&bus->lock);
    bus_incoming_free_all(&bus->heard);
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

void *bus_thread_main(void *arg)
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
