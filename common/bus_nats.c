#include "common/bus_private.h"
#include "common/mem.h"
#include "common/metrics.h"
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { LIMIT_DEFAULT_BYTES = 64 << 20, DELIVERY_BATCH = 256 };

static void on_wake(struct loop_message *message);

void bus_post_wake_locked(struct bus *bus)
{
    if (bus->wake)
        return;
    bus->wake = mem_new(struct bus_wake);
    bus->wake->message.cb = on_wake;
    bus->wake->bus = bus;
    loop_post(bus->loop, &bus->wake->message);
}

void bus_kick_thread(struct bus *bus)
{
    uint64_t one = 1;
    ssize_t n = write(bus->wake_fd, &one, sizeof(one));

    assert(n == sizeof(one) || errno == EAGAIN);
}

void bus_change_state_locked(struct bus *bus, enum bus_state state, const char *server_id, const char *detail)
{
    if (state == bus->last_change)
        return;
    struct bus_state_change *change = mem_new(struct bus_state_change);
    change->state = state;
    change->generation = bus->up_generation;
    snprintf(change->server_id, sizeof(change->server_id), "%s", server_id);
    snprintf(change->detail, sizeof(change->detail), "%s", detail);
    list_append(&bus->changes, &change->link);
    bus->last_change = state;
    metric_set(M_BUS_UP, state == BUS_UP);
    bus_post_wake_locked(bus);
}

void bus_outgoing_free(struct bus_outgoing *out)
{
    list_remove(&out->link);
    payload_unref(&out->payload);
    free(out);
}

void bus_outgoing_drop_all(struct list *list)
{
    list_for_each_safe(link, list) {
        metric_add_at(M_BUS_DROPPED, BUS_DROP_DOWN, 1);
        bus_outgoing_free(container_of(link, struct bus_outgoing, link));
    }
}

void bus_incoming_free(struct bus_incoming *in)
{
    list_remove(&in->link);
    natsMsg_Destroy(in->msg);
    free(in);
}

void bus_incoming_free_all(struct list *list)
{
    list_for_each_safe(link, list) {
        bus_incoming_free(container_of(link, struct bus_incoming, link));
    }
}

void bus_poll_fd(struct bus *bus, int op, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    int rc = epoll_ctl(bus->epoll_fd, op, fd, &event);

    assert(rc == 0);
}

static void tell_changes(struct bus *bus, struct list *changes)
{
    list_for_each_safe(link, changes) {
        struct bus_state_change *change = container_of(link, struct bus_state_change, link);
        bus->state = change->state;
        bus->generation = change->generation;
        list_remove(link);
        if (bus->handlers.state)
            bus->handlers.state(bus->ctx, change->state, change->server_id, change->detail);
        free(change);
    }
}

/* The library leaves it to a thread of its own to free messages, and wakes that for the first: many at once wake it
 * once.
 */
static void free_spent(struct bus *bus)
{
    bus_incoming_free_all(&bus->spent);
    bus->spent_bytes = 0;
}

static void spend(struct bus *bus, struct bus_incoming *in)
{
    list_remove(&in->link);
    list_append(&bus->spent, &in->link);
    bus->spent_bytes += in->cost_bytes;
    if (bus->spent_bytes >= SPENT_MAX_BYTES)
        free_spent(bus);
}

static void deliver_batch(struct bus *bus)
{
    size_t done_bytes = 0;

    for (unsigned n = 0; n < DELIVERY_BATCH && !list_empty(&bus->ready); n++) {
        struct bus_incoming *in = list_first(&bus->ready, struct bus_incoming, link);
        if (in->msg)
            bus->handlers.message(bus->ctx, natsMsg_GetSubject(in->msg), (const uint8_t *)natsMsg_GetData(in->msg),
                                  (size_t)natsMsg_GetDataLength(in->msg));
        else if (bus->handlers.unreachable)
            bus->handlers.unreachable(bus->ctx, in->unreachable);
        done_bytes += in->cost_bytes;
        spend(bus, in);
    }
    pthread_mutex_lock(&bus->lock);
    bus->incoming_bytes -= done_bytes;
    if (!list_empty(&bus->ready))
        bus_post_wake_locked(bus); /* one batch a turn, so that a flood does not hold up the loop's timers */
    pthread_mutex_unlock(&bus->lock);
}

static void on_wake(struct loop_message *message)
{
    struct bus_wake *wake = container_of(message, struct bus_wake, message);
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
    list_init(&bus->spent);
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
    bus->rights = options->rights;
    bus->right_count = options->right_count;
    bus->has_user = options->user != NULL || options->nkey_seed_file != NULL || options->tls_cert_file != NULL;
    bus->outgoing_limit_bytes = options->outgoing_limit_bytes ? options->outgoing_limit_bytes : LIMIT_DEFAULT_BYTES;
    bus->incoming_limit_bytes = options->incoming_limit_bytes ? options->incoming_limit_bytes : LIMIT_DEFAULT_BYTES;
    init_lists_and_locks(bus);
    bus->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    bus->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    assert(bus->wake_fd >= 0 && bus->epoll_fd >= 0);
    bus_poll_fd(bus, EPOLL_CTL_ADD, bus->wake_fd, EPOLLIN);

    if (nats_options_init(&bus->options, options, detail) != 0) {
        pthread_mutex_lock(&bus->lock);
        bus_change_state_locked(bus, BUS_REFUSED, "", detail);
        pthread_mutex_unlock(&bus->lock);
        return bus;
    }
    start_thread(&bus->bus_thread, bus_thread_main, bus);
    start_thread(&bus->connector_thread, bus_connector_main, bus);
    bus->started = true;
    return bus;
}

static void stop_threads(struct bus *bus)
{
    pthread_mutex_lock(&bus->lock);
    bus->closing = true;
    pthread_cond_signal(&bus->changed);
    pthread_mutex_unlock(&bus->lock);
    bus_kick_thread(bus);
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
    bus_outgoing_drop_all(&bus->outgoing);
    bus_incoming_free_all(&bus->incoming);
    bus_incoming_free_all(&bus->ready);
    free_spent(bus);
    list_for_each_safe(link, &bus->changes) {
        free(container_of(link, struct bus_state_change, link));
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
        bus_kick_thread(bus);
        return false;
    }
    return true;
}

int bus_publish(struct bus *bus, const char *subject, struct payload *payload, int flags)
{
    size_t subject_size = strlen(subject) + 1, charge_bytes = payload->size + MESSAGE_OVERHEAD_BYTES;
    bool kick = false;

    assert(subject_size > 1 && subject_size <= BUS_SUBJECT_MAX + 1);
    struct bus_outgoing *out = mem_zalloc(sizeof(*out) + subject_size);
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
        bus_kick_thread(bus);
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
        bus_post_wake_locked(bus);
    pthread_mutex_unlock(&bus->lock);
}
