#include "gateway/front-private.h"

#include "common/codec.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/protojson.h"
#include <assert.h>
#include <h2o/rand.h>
#include <stdlib.h>

enum {
    FLUSH_BYTES = 16384, /* one write goes out once it has this much; a TLS record holds as much */
    SCRATCH_KEEP_BYTES = 65536,
    INPUT_STEP_BYTES = 4096, /* after which it is looked whether the answers still fit */
    CLOSE_TIMEOUT_MS = 2000,
    LINGER_MS = 500,
    CROWD_PORTION = 32, /* connections; about half a millisecond */
    REST_MS = 20,
};

/* Pings and pongs of the client's: an honest one sends a few a minute. */
static const struct bucket_limit control_limit = {.rate_per_s = 10, .burst = 100};

static void on_read(h2o_socket_t *sock, const char *err);
static void take_input(struct conn *conn);
static void update_reading(struct conn *conn);

int64_t conn_now_ms(const struct conn *conn)
{
    return loop_now_ms(conn->front->loop);
}

void conn_mark_dirty(struct conn *conn)
{
    if (!list_linked(&conn->dirty) || conn->in_crowd) {
        list_remove(&conn->dirty);
        list_append(&conn->front->dirty, &conn->dirty);
        conn->in_crowd = false;
    }
    loop_defer(conn->front->loop, &conn->front->flush);
}

static void mark_crowded(struct conn *conn)
{
    if (!list_linked(&conn->dirty)) {
        list_append(&conn->front->crowded, &conn->dirty);
        conn->in_crowd = true;
    }
    loop_defer(conn->front->loop, &conn->front->flush);
}

void conn_account(struct conn *conn, size_t bytes_before, size_t count_before)
{
    conn->front->queued_bytes += conn->queue.bytes - bytes_before;
    conn->front->queued_messages += outqueue_count(&conn->queue) - count_before;
}

static void clear_queue(struct conn *conn)
{
    size_t bytes = conn->queue.bytes, count = outqueue_count(&conn->queue);
    outqueue_clear(&conn->queue);
    conn_account(conn, bytes, count);
}

/* --- The end of a connection */

static void tell_gone(struct conn *conn)
{
    if (conn->client != NULL)
        gateway_client_gone(conn->front->gateway, &conn->client, conn->clean, conn_now_ms(conn));
    conn->client = NULL;
}

/* The conn may be gone afterwards. */
static void shut(struct conn *conn)
{
    struct front *front = conn->front;
    assert(conn->client == NULL);
    clear_queue(conn);
    payload_unref(&conn->pong);
    payload_unref(&conn->close);
    ws_parser_done(&conn->parser);
    list_remove(&conn->dirty);
    list_remove(&conn->rest);
    front->websocket_count--;
    metric_set(M_WEBSOCKETS, (int64_t)front->websocket_count);
    conn->phase = CONN_SHUT;
    conn_set_timer(conn, CLOSE_TIMEOUT_MS);
    h2o_socket_read_stop(conn->sock);
    h2o_socket_close(conn->sock);
}

/* Queues the close frame behind what is queued. The gateway is told at the end of the turn, because it may be the one
 * that is closing. */
static void begin_close(struct conn *conn, struct payload *take_frame, enum close_cause cause)
{
    assert(conn->phase == CONN_OPEN);
    metric_add_at(M_WS_CLOSED, cause, 1);
    conn->phase = CONN_CLOSING;
    conn->close = take_frame;
    conn_set_timer(conn, CLOSE_TIMEOUT_MS);
    conn->paused = false;
    list_remove(&conn->rest);
    if (!h2o_socket_is_reading(conn->sock))
        h2o_socket_read_start(conn->sock, on_read);
    conn_mark_dirty(conn);
}

void conn_close_with(struct conn *conn, uint16_t code, const char *reason, enum close_cause cause)
{
    if (conn->phase == CONN_OPEN)
        begin_close(conn, ws_close_frame(code, reason), cause);
}

/* The client broke the protocol: nothing that it sends is looked at any more. */
static void fail(struct conn *conn, uint16_t code, const char *reason)
{
    static const uint16_t codes[] = {WS_CLOSE_PROTOCOL_ERROR, WS_CLOSE_UNSUPPORTED, WS_CLOSE_INVALID_DATA,
                                     WS_CLOSE_TOO_BIG};
    conn->failed = true;
    if (conn->phase != CONN_OPEN)
        return;
    for (unsigned i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i] == code)
            metric_add_at(M_WS_ERRORS, i, 1);
    clear_queue(conn);
    conn_close_with(conn, code, reason, CAUSE_PROTOCOL_ERROR);
}

static void lost(struct conn *conn)
{
    if (conn->phase == CONN_OPEN) {
        metric_add_at(M_WS_CLOSED, CAUSE_LOST, 1);
        conn->phase = CONN_CLOSING;
    }
    tell_gone(conn);
    shut(conn);
}

void conn_close_slow(struct conn *conn)
{
    clear_queue(conn);
    conn_close_with(conn, CLOSE_SLOW, "too slow: what must not be dropped no longer fits the queue", CAUSE_SLOW);
}

void front_close_client(void *transport, uint16_t code, const char *reason)
{
    conn_close_with(transport, code, reason, CAUSE_GATEWAY);
}

void conn_cut(struct conn *conn)
{
    switch (conn->phase) {
    case CONN_OPEN:
    case CONN_CLOSING:
    case CONN_LINGERING:
        conn_break(conn);
        lost(conn);
        return;
    case CONN_TLS:
        SSL_CTX_free(conn->tls);
        conn->tls = NULL;
        /* fallthrough */
    case CONN_PROXY_HEADER:
        conn->phase = CONN_SHUT;
        h2o_socket_close(conn->sock);
        return;
    default:
        conn_break(conn);
    }
}

void conn_shutdown(struct conn *conn)
{
    if (conn->phase < CONN_OPEN)
        conn_cut(conn);
    else
        conn_close_with(conn, WS_CLOSE_GOING_AWAY, "the gateway is going away", CAUSE_SHUTDOWN);
}

/* --- Sending */

void front_send(void *transport, struct outmsg *message, enum message_class class)
{
    struct conn *conn = transport;
    struct outqueue_drops drops = {0};
    size_t bytes = conn->queue.bytes, count = outqueue_count(&conn->queue);

    if (conn->phase != CONN_OPEN || outmsg_frame(message, conn->encoding) == NULL)
        return;
    enum outqueue_result result =
        outqueue_push(&conn->queue, &conn->front->queue_limits, conn->encoding, message, class, &drops);
    conn_account(conn, bytes, count);
    count_dropped(CLASS_MEMBERSHIP, DROP_CLIENT_QUEUE, drops.membership);
    count_dropped(CLASS_EPHEMERAL, DROP_CLIENT_QUEUE, drops.ephemeral);
    conn->drops.membership += drops.membership;
    conn->drops.ephemeral += drops.ephemeral;
    if (result == OUTQUEUE_SLOW)
        conn_close_slow(conn);
    if (outmsg_is_crowd(message) && conn->phase == CONN_OPEN)
        mark_crowded(conn);
    else
        conn_mark_dirty(conn);
}

static bool too_much_waits(const struct conn *conn)
{
    return conn->phase == CONN_OPEN && conn->queue.bytes > conn->front->queue_limits.total_bytes / 2;
}

/* A client that does not read is not read from, so that its requests do not make it worse; one that was over its budget
 * rests. */
static void update_reading(struct conn *conn)
{
    if (conn->phase != CONN_OPEN)
        return;
    if (!conn->paused && too_much_waits(conn)) {
        conn->paused = true;
        metric_add(M_WS_READ_PAUSES, 1);
    } else if (conn->paused && conn->queue.bytes < conn->front->queue_limits.total_bytes / 4) {
        conn->paused = false;
    }
    bool reads = !conn->paused && !list_linked(&conn->rest);
    if (reads == h2o_socket_is_reading(conn->sock))
        return;
    if (!reads) {
        h2o_socket_read_stop(conn->sock);
        return;
    }
    h2o_socket_read_start(conn->sock, on_read);
    if (conn->sock->input->size > 0)
        take_input(conn);
}

void conn_end_rests(struct timer *timer, int64_t now_ms)
{
    struct front *front = container_of(timer, struct front, rest_timer);
    struct list rested;
    list_init(&rested);
    list_splice(&rested, &front->resting);
    while (!list_empty(&rested)) {
        struct conn *conn = list_first(&rested, struct conn, rest);
        list_remove(&conn->rest);
        update_reading(conn);
    }
}

/* What a client over its budget goes on sending waits in the kernel's buffers, and is then taken at once: it costs one
 * turn of the loop in a while instead of one for each message, and nobody else has to wait for those. */
static void rest(struct conn *conn)
{
    struct front *front = conn->front;
    if (conn->phase != CONN_OPEN || list_linked(&conn->rest))
        return;
    metric_add(M_WS_READ_RESTS, 1);
    list_append(&front->resting, &conn->rest);
    if (!timer_pending(&front->rest_timer))
        timer_set(loop_timers(front->loop), &front->rest_timer, conn_now_ms(conn) + REST_MS);
}

static void append_frame(struct buf *out, struct payload **frame)
{
    buf_append(out, (*frame)->data, (*frame)->size);
    payload_unref(frame);
}

static void gather(struct conn *conn, struct buf *out)
{
    size_t bytes = conn->queue.bytes, count = outqueue_count(&conn->queue);
    struct outmsg *message;

    if (conn->pong != NULL)
        append_frame(out, &conn->pong);
    if (conn->ping_due) {
        uint8_t header[WS_HEADER_MAX];
        buf_append(out, header, ws_write_header(header, WS_PING, 0));
        conn->ping_due = false;
    }
    while (out->size < FLUSH_BYTES && (message = outqueue_pop(&conn->queue, conn->encoding)) != NULL) {
        const struct payload *frame = outmsg_frame(message, conn->encoding);
        buf_append(out, frame->data, frame->size);
        outmsg_unref(&message);
    }
    conn_account(conn, bytes, count);
    metric_add_at(M_WS_MESSAGES_SENT, conn->encoding, count - outqueue_count(&conn->queue));
    if (conn->close != NULL && outqueue_empty(&conn->queue)) {
        append_frame(out, &conn->close);
        conn->close_sent = true;
    }
}

static void on_close_written(struct conn *conn)
{
    if (conn->peer_closed) {
        shut(conn);
    } else if (conn->failed) {
        /* Closing with unread input would reset the connection, and the client might never see the close frame. */
        conn->phase = CONN_LINGERING;
        conn_set_timer(conn, LINGER_MS);
    }
}

/* When a write that was started outside of H2O's callbacks completes at once, while the one before it was still polled
 * for, H2O 2.2.5 goes on polling, and asserts when the socket becomes writable. Touching the read side makes it look
 * again. */
static void refresh_polling(h2o_socket_t *sock)
{
    if (h2o_socket_is_reading(sock))
        h2o_socket_read_start(sock, on_read);
    else
        h2o_socket_read_stop(sock);
}

static void on_written(h2o_socket_t *sock, const char *err)
{
    struct conn *conn = sock->data;

    refresh_polling(sock);
    free(conn->writing);
    conn->writing = NULL;
    if (err != NULL) {
        lost(conn);
        return;
    }
    if (conn->paused)
        conn->alive_ms = conn_now_ms(conn);
    if (conn->close_sent)
        on_close_written(conn);
    else if (conn->pong != NULL || conn->ping_due || conn->close != NULL || !outqueue_empty(&conn->queue))
        conn_mark_dirty(conn);
    else
        update_reading(conn);
}

/* H2O encrypts into memory of its own before h2o_socket_write() returns, so all TLS connections can share one buffer;
 * in plain mode it writes from ours. */
static void write_pending(struct conn *conn)
{
    struct buf *out = &conn->front->scratch;

    buf_reset(out);
    gather(conn, out);
    if (out->size == 0)
        return;
    h2o_iovec_t bytes = {(char *)out->data, out->size};
    if (conn->sock->ssl == NULL)
        bytes.base = conn->writing = mem_dup(out->data, out->size);
    metric_add(M_WS_FLUSHES, 1);
    metric_add(M_WS_SENT_BYTES, out->size);
    h2o_socket_write(conn->sock, &bytes, 1, on_written);
    if (out->capacity > SCRATCH_KEEP_BYTES)
        buf_done(out);
}

static void tell_drops(struct conn *conn)
{
    struct outqueue_drops drops = conn->drops;
    conn->drops = (struct outqueue_drops){0};
    if (conn->client != NULL && drops.membership + drops.ephemeral > 0)
        gateway_client_overflow(conn->front->gateway, conn->client, drops.membership, drops.ephemeral,
                                conn_now_ms(conn));
}

static void flush_first(struct list *conns)
{
    struct conn *conn = list_first(conns, struct conn, dirty);
    list_remove(&conn->dirty);
    conn->in_crowd = false;
    if (conn->phase == CONN_OPEN)
        tell_drops(conn);
    else
        tell_gone(conn);
    if (!h2o_socket_is_writing(conn->sock))
        write_pending(conn);
    update_reading(conn);
}

/* A crowd is served in portions, between which others get their turn. */
void conn_flush_all(struct front *front)
{
    while (!list_empty(&front->dirty))
        flush_first(&front->dirty);
    for (int i = 0; i < CROWD_PORTION && !list_empty(&front->crowded); i++)
        flush_first(&front->crowded);
    if (!list_empty(&front->crowded))
        loop_defer(front->loop, &front->flush);
}

/* --- Receiving */

static const ProtobufCMessage *decode(struct conn *conn, const uint8_t *data, size_t size, char *error,
                                      size_t error_size)
{
    const ProtobufCMessageDescriptor *type = &signalbox__v1__client_message__descriptor;
    struct arena *arena = &conn->front->arena;
    if (conn->encoding == ENCODING_JSON)
        return protojson_read(type, (const char *)data, size, arena, error, error_size);
    return codec_unpack(type, data, size, arena, error, error_size);
}

static bool on_message(void *ctx, enum ws_opcode opcode, uint8_t *data, size_t size)
{
    struct conn *conn = ctx;
    struct front *front = conn->front;
    char error[128];

    if (conn->phase != CONN_OPEN)
        return true; /* only the client's close frame is still of interest */
    if (opcode != (conn->encoding == ENCODING_JSON ? WS_TEXT : WS_BINARY)) {
        fail(conn, WS_CLOSE_UNSUPPORTED,
             conn->encoding == ENCODING_JSON ? "signalbox.v1.json is text" : "signalbox.v1.protobuf is binary");
        return false;
    }
    metric_add_at(M_WS_MESSAGES_RECEIVED, conn->encoding, 1);
    const ProtobufCMessage *message = decode(conn, data, size, error, sizeof(error));
    if (message != NULL) {
        if (!gateway_client_message(front->gateway, conn->client, (const Signalbox__V1__ClientMessage *)message, size,
                                    conn_now_ms(conn)))
            rest(conn);
    } else {
        metric_add_at(M_WS_MESSAGES_UNDECODABLE, conn->encoding, 1);
        gateway_client_malformed(front->gateway, conn->client, error, conn_now_ms(conn));
    }
    arena_reset(&front->arena);
    return true;
}

static void on_peer_close(struct conn *conn, const uint8_t *data, size_t size)
{
    conn->peer_closed = true;
    if (conn->phase != CONN_OPEN)
        return;
    conn->clean = size >= 2 && (data[0] << 8 | data[1]) == WS_CLOSE_NORMAL;
    clear_queue(conn);
    begin_close(conn, ws_frame(WS_CLOSE, data, size >= 2 ? 2 : 0),
                conn->clean ? CAUSE_CLIENT_LEFT : CAUSE_CLIENT_CLOSED);
}

static bool on_control(void *ctx, enum ws_opcode opcode, const uint8_t *data, size_t size)
{
    struct conn *conn = ctx;

    if (opcode == WS_CLOSE) {
        on_peer_close(conn, data, size);
        return false;
    }
    if (conn->phase != CONN_OPEN)
        return true;
    if (!bucket_take(&conn->control_budget, &control_limit, 1, conn_now_ms(conn))) {
        conn_close_with(conn, CLOSE_ABUSE, "too many pings", CAUSE_ABUSE);
        return true;
    }
    if (opcode == WS_PING) {
        /* Only the latest is answered (RFC 6455 section 5.5.3), so a client that does not read costs one frame. */
        payload_unref(&conn->pong);
        conn->pong = ws_frame(WS_PONG, data, size);
        conn_mark_dirty(conn);
    }
    return true;
}

/* False once nothing that follows is of interest. */
static bool feed(struct conn *conn, size_t size)
{
    static const struct ws_handlers handlers = {.message = on_message, .control = on_control};
    const char *reason = NULL;

    if (conn->failed || conn->peer_closed)
        return false;
    int result = ws_parser_feed(&conn->parser, (uint8_t *)conn->sock->input->bytes, size, &handlers, conn, &reason);
    if (result > WS_STOPPED)
        fail(conn, (uint16_t)result, reason);
    return result == 0;
}

/* What is left, because too much waits for the client, is taken when reading goes on. */
static void take_input(struct conn *conn)
{
    h2o_socket_t *sock = conn->sock;

    while (sock->input->size > 0 && !too_much_waits(conn)) {
        size_t size = sock->input->size < INPUT_STEP_BYTES ? sock->input->size : INPUT_STEP_BYTES;
        if (!feed(conn, size))
            size = sock->input->size;
        h2o_buffer_consume(&sock->input, size);
    }
    update_reading(conn);
    if (conn->peer_closed && conn->close_sent && !h2o_socket_is_writing(sock))
        shut(conn);
}

static void on_read(h2o_socket_t *sock, const char *err)
{
    struct conn *conn = sock->data;

    if (err != NULL) {
        lost(conn);
    } else if (sock->bytes_read > 0) {
        metric_add(M_WS_RECEIVED_BYTES, sock->bytes_read);
        conn->alive_ms = conn_now_ms(conn);
        conn->ping_sent = false;
        take_input(conn);
    }
}

void conn_on_timer(struct conn *conn)
{
    switch (conn->phase) {
    case CONN_OPEN:
        conn_keep_alive(conn);
        return;
    case CONN_CLOSING:
        conn_cut(conn);
        return;
    default:
        shut(conn);
    }
}

void conn_open(struct conn *conn, enum encoding encoding, struct jwt_claims *take_claims)
{
    struct front *front = conn->front;
    uint32_t interval_ms = front->options.ping_interval_ms;

    conn->phase = CONN_OPEN;
    conn->encoding = encoding;
    conn->alive_ms = conn_now_ms(conn);
    conn->probed = conn_prepare_probes(conn);
    conn->client = NULL;
    ws_parser_init(&conn->parser, front->options.message_bytes);
    bucket_init(&conn->control_budget, &control_limit, conn_now_ms(conn));
    front->websocket_count++;
    metric_set(M_WEBSOCKETS, (int64_t)front->websocket_count);
    /* At a random phase: connections that were opened together must not ping together. */
    conn_set_timer(conn, interval_ms / 2 + (uint32_t)h2o_rand() % (interval_ms / 2 + 1));

    conn->sock->data = conn;
    /* H2O cuts the first 200 KB of a connection into records of one packet, which is meant for web pages. */
    conn->sock->_latency_optimization.state = H2O_SOCKET_LATENCY_OPTIMIZATION_STATE_NEEDS_UPDATE;
    conn->sock->_latency_optimization.suggested_tls_payload_size = FLUSH_BYTES;
    conn->client = gateway_client_open(front->gateway, conn, take_claims, conn_now_ms(conn));
    h2o_socket_read_start(conn->sock, on_read);
    if (conn->sock->input->size > 0)
        take_input(conn);
}
