#include "gateway/front-private.h"

#include "common/mem.h"
#include "common/metrics.h"
#include "gateway/proxy_protocol.h"
#include <assert.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    PROXY_TIMEOUT_MS = 5000,
    TLS_TIMEOUT_MS = 10000,
};

enum { PROXY_OK, PROXY_BAD, PROXY_UNTRUSTED, PROXY_TIMEOUT, PROXY_LOST };
enum { TLS_FULL, TLS_RESUMED, TLS_FAILED, TLS_TIMEOUT };

void conn_set_timer(struct conn *conn, int64_t after_ms)
{
    timer_set(loop_timers(conn->front->loop), &conn->timer, loop_now_ms(conn->front->loop) + after_ms);
}

void conn_break(const struct conn *conn)
{
    shutdown(h2o_socket_get_fd(conn->sock), SHUT_RDWR);
}

/* Before it is HTTP. */
static void shut(struct conn *conn)
{
    conn->phase = CONN_SHUT;
    h2o_socket_close(conn->sock);
}

static void release_tls(struct conn *conn)
{
    SSL_CTX_free(conn->tls);
    conn->tls = NULL;
}

void conn_on_socket_close(void *data)
{
    struct conn *conn = data;
    struct front *front = conn->front;

    assert(conn->phase != CONN_OPEN && conn->phase != CONN_CLOSING && conn->phase != CONN_LINGERING);
    if (conn->phase == CONN_UPGRADING)
        http_api_abandon(conn->upgrade);
    /* H2O answers by itself what it cannot parse. */
    if (conn->phase == CONN_HTTP && !conn->requested)
        metric_add_at(M_HTTP_REQUESTS, ROUTE_MALFORMED, 1);
    timer_cancel(loop_timers(front->loop), &conn->timer);
    peers_leave(front->peers, &conn->peer);
    free(conn->writing);
    list_remove(&conn->link);
    front_socket_gone(front);
    free(conn);
}

bool conn_enter(struct conn *conn, const struct net_address *address)
{
    const struct front_options *options = &conn->front->options;
    const struct peer_limits limits = {.connections = (uint32_t)options->connections_per_address,
                                       .arrivals_per_s = (uint32_t)options->handshakes_per_address_per_s};
    if (conn->peer != NULL)
        return true;
    switch (peers_enter(conn->front->peers, address, &limits, loop_now_ms(conn->front->loop), &conn->peer)) {
    case PEER_OK:
        return true;
    case PEER_TOO_MANY:
        metric_add_at(M_ACCEPTS, ACCEPT_ADDRESS_CONNECTIONS, 1);
        return false;
    case PEER_TOO_FAST:
        metric_add_at(M_ACCEPTS, ACCEPT_ADDRESS_RATE, 1);
        return false;
    }
    return false;
}

static void start_http(struct conn *conn)
{
    conn->phase = CONN_HTTP;
    conn_set_timer(conn, CONN_HTTP_SILENCE_MAX_MS);
    h2o_http1_accept(&conn->front->accept, conn->sock, *h2o_get_timestamp(&conn->front->context, NULL, NULL));
}

static void on_handshake(h2o_socket_t *sock, const char *err)
{
    struct conn *conn = sock->data;
    release_tls(conn);
    if (err != NULL) {
        metric_add_at(M_TLS_HANDSHAKES, TLS_FAILED, 1);
        shut(conn);
        return;
    }
    metric_add_at(M_TLS_HANDSHAKES, h2o_socket_get_ssl_session_reused(sock) ? TLS_RESUMED : TLS_FULL, 1);
    start_http(conn);
}

/* TLS, or HTTP at once where TLS is terminated in front. */
static void start(struct conn *conn)
{
    if (conn->front->tls == NULL) {
        start_http(conn);
        return;
    }
    conn->phase = CONN_TLS;
    conn_set_timer(conn, TLS_TIMEOUT_MS);
    conn->tls = conn->front->tls;
    SSL_CTX_up_ref(conn->tls);
    h2o_socket_ssl_handshake(conn->sock, conn->tls, NULL, on_handshake);
}

static void refuse_proxy_header(struct conn *conn, unsigned outcome)
{
    metric_add_at(M_PROXY_HEADERS, outcome, 1);
    shut(conn);
}

static void on_proxy_header(h2o_socket_t *sock, const char *err)
{
    struct conn *conn = sock->data;
    struct proxy_header header;

    if (err != NULL) {
        refuse_proxy_header(conn, PROXY_LOST);
        return;
    }
    ssize_t size = proxy_protocol_parse((const uint8_t *)sock->input->bytes, sock->input->size, &header);
    if (size == PROXY_INCOMPLETE)
        return;
    if (size == PROXY_MALFORMED) {
        refuse_proxy_header(conn, PROXY_BAD);
        return;
    }
    metric_add_at(M_PROXY_HEADERS, PROXY_OK, 1);
    h2o_socket_read_stop(sock);
    h2o_buffer_consume(&sock->input, (size_t)size);
    if (header.has_source) {
        struct sockaddr_in6 peername = {.sin6_family = AF_INET6};
        memcpy(&peername.sin6_addr, header.source.bytes, sizeof(header.source.bytes));
        h2o_socket_setpeername(sock, (struct sockaddr *)&peername, sizeof(peername));
        conn->exempt = net_blocks_contain(&conn->front->trusted, &header.source);
        if (!conn->exempt && !conn_enter(conn, &header.source)) {
            shut(conn);
            return;
        }
    }
    start(conn);
}

static void on_timer(struct timer *timer, int64_t now_ms)
{
    struct conn *conn = container_of(timer, struct conn, timer);

    switch (conn->phase) {
    case CONN_PROXY_HEADER:
        refuse_proxy_header(conn, PROXY_TIMEOUT);
        return;
    case CONN_TLS:
        metric_add_at(M_TLS_HANDSHAKES, TLS_TIMEOUT, 1);
        release_tls(conn);
        shut(conn);
        return;
    case CONN_HTTP:
    case CONN_UPGRADING:
    case CONN_SHUT:
        conn_break(conn);
        return;
    default:
        conn_on_timer(conn);
    }
}

void conn_accept(struct front *front, h2o_socket_t *sock)
{
    struct sockaddr_storage peername;
    socklen_t size = sizeof(peername);
    struct net_address address;

    /* A connection that has already gone has no peer. */
    if (getpeername(h2o_socket_get_fd(sock), (struct sockaddr *)&peername, &size) != 0 ||
        !net_address_from_sockaddr((struct sockaddr *)&peername, &address)) {
        h2o_socket_close(sock);
        return;
    }
    struct conn *conn = mem_new(struct conn);
    conn->front = front;
    conn->sock = sock;
    list_init(&conn->dirty);
    list_init(&conn->rest);
    list_append(&front->conns, &conn->link);
    timer_init(&conn->timer, on_timer);
    front_socket_opened(front);
    sock->data = conn;
    sock->on_close.cb = conn_on_socket_close;
    sock->on_close.data = conn;

    conn->exempt = net_blocks_contain(&front->trusted, &address);
    if (front->options.proxy_protocol && !conn->exempt) {
        refuse_proxy_header(conn, PROXY_UNTRUSTED);
        return;
    }
    if (!conn->exempt && !conn_enter(conn, &address)) {
        shut(conn);
        return;
    }
    metric_add_at(M_ACCEPTS, ACCEPT_ACCEPTED, 1);
    if (front->options.proxy_protocol) {
        conn->phase = CONN_PROXY_HEADER;
        conn_set_timer(conn, PROXY_TIMEOUT_MS);
        h2o_socket_read_start(sock, on_proxy_header);
    } else {
        start(conn);
    }
}
