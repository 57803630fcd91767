#include "common/nats_conn.h"
#include "common/clock.h"
#include "common/list.h"
#include "common/mem.h"
#include "common/metrics.h"
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* TLS hands over one record (16 KiB) a read, and what is left of a record in OpenSSL is invisible to epoll: the buffer
 * must hold more than one. */
enum { IO_BUFFER_BYTES = 128 * 1024 };

/* What an echo carries. Only ever read by the process that wrote it. */
struct echo {
    int64_t sent_us;
    uint64_t number;
};

/* Consecutive messages to one subject that asked for the no-responders signal. */
struct asked {
    struct list link;
    uint64_t closing_echo; /* the number of the first echo sent after them; 0 while it is not sent */
    char subject[];
};

struct nats_conn {
    natsConnection *nc;
    natsSubscription *subs[BUS_SUBSCRIPTIONS_MAX + 1];
    size_t sub_count;
    const char *inbox;
    const struct nats_conn_handlers *handlers;
    void *ctx;
    struct list asked; /* oldest first; only the last may be unclosed */
    uint64_t echo_sent, echo_heard;
    unsigned echoes; /* atomic */
    size_t max_payload;
    char server_id[NATS_CONN_SERVER_ID_MAX];
    pthread_mutex_t fd_lock; /* keeps nats_conn_sever() off a descriptor that the library has closed */
    int fd;
};

static natsStatus on_attach(void **user_data, void *loop, natsConnection *nc, natsSock socket)
{
    struct nats_conn *conn = loop;

    pthread_mutex_lock(&conn->fd_lock);
    conn->fd = (int)socket;
    pthread_mutex_unlock(&conn->fd_lock);
    *user_data = conn;
    return NATS_OK;
}

/* "Remove" comes right before the library closes the socket; "add" never comes without library reconnect. */
static natsStatus on_read_interest(void *user_data, bool add)
{
    struct nats_conn *conn = user_data;

    if (!add) {
        pthread_mutex_lock(&conn->fd_lock);
        conn->fd = -1;
        pthread_mutex_unlock(&conn->fd_lock);
    }
    return NATS_OK;
}

/* Nothing to note: the bus thread flushes after every batch and asks how much is left. */
static natsStatus on_write_interest(void *user_data, bool add)
{
    return NATS_OK;
}

static natsStatus on_detach(void *user_data)
{
    return NATS_OK;
}

static void note_error(natsStatus s, char detail[NATS_DETAIL_MAX])
{
    const char *text = nats_GetLastError(NULL);

    snprintf(detail, NATS_DETAIL_MAX, "%s", text && *text ? text : natsStatus_GetText(s));
}

static int error_of(natsStatus s)
{
    return s == NATS_CONNECTION_AUTH_FAILED || s == NATS_NOT_PERMITTED ? NATS_CONN_REFUSED : NATS_CONN_LOST;
}

int nats_conn_open(struct nats_options *options, struct nats_conn **ret_conn, char ret_detail[NATS_DETAIL_MAX])
{
    struct nats_conn *conn = mem_new(struct nats_conn);

    conn->fd = -1;
    list_init(&conn->asked);
    pthread_mutex_init(&conn->fd_lock, NULL);
    natsStatus s = natsOptions_SetIOBufSize(options->library, IO_BUFFER_BYTES);
    if (s == NATS_OK)
        s = natsOptions_SetEventLoop(options->library, conn, on_attach, on_read_interest, on_write_interest, on_detach);
    if (s == NATS_OK)
        s = natsConnection_Connect(&conn->nc, options->library);
    if (s == NATS_OK)
        s = natsConnection_GetConnectedServerId(conn->nc, conn->server_id, sizeof(conn->server_id));
    if (s != NATS_OK) {
        note_error(s, ret_detail);
        nats_conn_free(&conn);
        return error_of(s);
    }
    conn->max_payload = (size_t)natsConnection_GetMaxPayload(conn->nc);
    *ret_conn = conn;
    return 0;
}

/* natsConnection_Close() waits 500 ms for a flush when bytes are unsent; a connection that it finds closed it frees at
 * once. A severed socket ends with end-of-file after what had arrived, so this loop ends. */
void nats_conn_free(struct nats_conn **conn_ptr)
{
    struct nats_conn *conn = *conn_ptr;

    if (!conn)
        return;
    *conn_ptr = NULL;
    if (conn->nc) {
        nats_conn_sever(conn);
        while (!natsConnection_IsClosed(conn->nc))
            natsConnection_ProcessReadEvent(conn->nc);
    }
    for (size_t i = 0; i < conn->sub_count; i++)
        natsSubscription_Destroy(conn->subs[i]);
    natsConnection_Destroy(conn->nc);
    list_for_each_safe(link, &conn->asked) {
        free(container_of(link, struct asked, link));
    }
    pthread_mutex_destroy(&conn->fd_lock);
    free(conn);
}

void nats_conn_sever(struct nats_conn *conn)
{
    pthread_mutex_lock(&conn->fd_lock);
    if (conn->fd >= 0)
        shutdown(conn->fd, SHUT_RDWR);
    pthread_mutex_unlock(&conn->fd_lock);
}

unsigned nats_conn_echoes(const struct nats_conn *conn)
{
    return __atomic_load_n(&conn->echoes, __ATOMIC_RELAXED);
}

/* NATS wildcards: "*" stands for one token, a final ">" for one or more. */
static bool subject_covers(const char *pattern, const char *subject)
{
    for (;;) {
        size_t pattern_size = strcspn(pattern, "."), subject_size = strcspn(subject, ".");

        if (strcmp(pattern, ">") == 0)
            return true;
        if (!(pattern_size == 1 && *pattern == '*') &&
            !(pattern_size == subject_size && memcmp(pattern, subject, subject_size) == 0))
            return false;
        pattern += pattern_size;
        subject += subject_size;
        if (!*pattern || !*subject)
            return *pattern == *subject;
        pattern++;
        subject++;
    }
}

int nats_conn_subscribe(struct nats_conn *conn, const char *const *subjects, size_t count, const char *inbox,
                        const struct nats_conn_handlers *handlers, void *ctx)
{
    natsStatus s = NATS_OK;
    bool covered = false;

    assert(count <= BUS_SUBSCRIPTIONS_MAX && conn->sub_count == 0);
    conn->inbox = inbox;
    conn->handlers = handlers;
    conn->ctx = ctx;
    for (size_t i = 0; i <= count && s == NATS_OK; i++) {
        const char *subject = i < count ? subjects[i] : inbox;

        if (i == count && covered)
            break;
        covered = covered || subject_covers(subject, inbox);
        s = natsConnection_SubscribeSync(&conn->subs[conn->sub_count], conn->nc, subject);
        if (s == NATS_OK)
            conn->sub_count++;
    }
    return s == NATS_OK ? 0 : error_of(s);
}

int nats_conn_send_echo(struct nats_conn *conn)
{
    struct echo echo = {.sent_us = clock_mono_us(), .number = ++conn->echo_sent};

    if (!list_empty(&conn->asked)) {
        struct asked *last = list_last(&conn->asked, struct asked, link);
        if (!last->closing_echo)
            last->closing_echo = echo.number;
    }
    natsStatus s = natsConnection_Publish(conn->nc, conn->inbox, &echo, sizeof(echo));
    return s == NATS_OK ? 0 : error_of(s);
}

static void hear_echo(struct nats_conn *conn, const natsMsg *msg)
{
    struct echo echo;

    /* Anybody with the permission may write to this inbox. */
    if (natsMsg_GetDataLength(msg) != sizeof(echo))
        return;
    memcpy(&echo, natsMsg_GetData(msg), sizeof(echo));
    if (echo.number <= conn->echo_heard || echo.number > conn->echo_sent)
        return;
    conn->echo_heard = echo.number;
    __atomic_add_fetch(&conn->echoes, 1, __ATOMIC_RELAXED);
    metric_observe_us(M_BUS_ECHO, clock_mono_us() - echo.sent_us);
    while (!list_empty(&conn->asked)) {
        struct asked *first = list_first(&conn->asked, struct asked, link);
        if (!first->closing_echo || first->closing_echo > echo.number)
            break;
        list_remove(&first->link);
        free(first);
    }
}

/* Makes `subject` the one that a 503 is about. */
static int ask_about(struct nats_conn *conn, const char *subject)
{
    struct asked *last = list_empty(&conn->asked) ? NULL : list_last(&conn->asked, struct asked, link);

    if (last && !last->closing_echo) {
        if (strcmp(last->subject, subject) == 0)
            return 0;
        int error = nats_conn_send_echo(conn);
        if (error)
            return error;
    }
    size_t size = strlen(subject) + 1;
    struct asked *asked = mem_zalloc(sizeof(*asked) + size);
    memcpy(asked->subject, subject, size);
    list_append(&conn->asked, &asked->link);
    return 0;
}

int nats_conn_publish(struct nats_conn *conn, const char *subject, const void *data, size_t size, bool want_unreachable)
{
    natsStatus s;

    if (want_unreachable) {
        int error = ask_about(conn, subject);
        if (error)
            return error;
        s = natsConnection_PublishRequest(conn->nc, subject, conn->inbox, data, (int)size);
    } else {
        s = natsConnection_Publish(conn->nc, subject, data, (int)size);
    }
    return s == NATS_OK ? 0 : error_of(s);
}

static void take_message(struct nats_conn *conn, natsSubscription *sub)
{
    natsMsg *msg = NULL;
    natsStatus s = natsSubscription_NextMsg(&msg, sub, 0);

    if (s == NATS_OK && strcmp(natsMsg_GetSubject(msg), conn->inbox) == 0) {
        hear_echo(conn, msg);
        natsMsg_Destroy(msg);
    } else if (s == NATS_OK) {
        conn->handlers->message(conn->ctx, msg);
    } else if (s == NATS_NO_RESPONDERS && !list_empty(&conn->asked)) {
        conn->handlers->unreachable(conn->ctx, list_first(&conn->asked, struct asked, link)->subject);
    }
}

int nats_conn_read(struct nats_conn *conn, char ret_detail[NATS_DETAIL_MAX])
{
    const char *text = NULL;
    int pending;

    natsConnection_ProcessReadEvent(conn->nc);
    for (size_t i = 0; i < conn->sub_count; i++) {
        if (natsSubscription_GetPending(conn->subs[i], &pending, NULL) != NATS_OK)
            continue;
        while (pending-- > 0)
            take_message(conn, conn->subs[i]);
    }
    natsStatus s = natsConnection_GetLastError(conn->nc, &text);
    bool closed = natsConnection_IsClosed(conn->nc);
    if (!closed && s != NATS_NOT_PERMITTED && s != NATS_CONNECTION_AUTH_FAILED)
        return 0;
    snprintf(ret_detail, NATS_DETAIL_MAX, "%s", s != NATS_OK && text ? text : "connection closed");
    return error_of(s);
}

void nats_conn_flush(struct nats_conn *conn)
{
    if (natsConnection_Buffered(conn->nc) > 0)
        natsConnection_ProcessWriteEvent(conn->nc);
}

size_t nats_conn_unsent_bytes(struct nats_conn *conn)
{
    int buffered = natsConnection_Buffered(conn->nc);

    return buffered > 0 ? (size_t)buffered : 0;
}

bool nats_conn_is_quiet(const struct nats_conn *conn)
{
    return conn->echo_heard == conn->echo_sent;
}

int nats_conn_fd(struct nats_conn *conn)
{
    pthread_mutex_lock(&conn->fd_lock);
    int fd = conn->fd;
    pthread_mutex_unlock(&conn->fd_lock);
    return fd;
}

size_t nats_conn_max_payload(const struct nats_conn *conn)
{
    return conn->max_payload;
}

const char *nats_conn_server_id(const struct nats_conn *conn)
{
    return conn->server_id;
}
