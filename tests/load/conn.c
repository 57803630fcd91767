#include "tests/load/conn.h"
#include "common/mem.h"
#include <errno.h>
#include <malloc.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    OP_TEXT = 1,
    OP_BINARY = 2,
    OP_CLOSE = 8,
    OP_PING = 9,
    OP_PONG = 10,
    RESPONSE_MAX = 8192,
    CONTROL_MAX = 125,
    TICKET_AGE_S = 60
};

/* The example of RFC 6455 section 1.3: the key need not be secret, and its answer is known. */
#define WEBSOCKET_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define WEBSOCKET_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define SUBPROTOCOL "signalbox.v1.protobuf"

static int session_index = -1;
static int64_t tls_bytes;

static void *count_alloc(size_t size, const char *file, int line)
{
    void *memory = malloc(size);
    tls_bytes += (int64_t)malloc_usable_size(memory);
    return memory;
}

static void *count_realloc(void *memory, size_t size, const char *file, int line)
{
    int64_t before = (int64_t)malloc_usable_size(memory);
    void *moved = realloc(memory, size);
    if (moved != NULL || size == 0)
        tls_bytes += (int64_t)malloc_usable_size(moved) - before;
    return moved;
}

static void count_free(void *memory, const char *file, int line)
{
    tls_bytes -= (int64_t)malloc_usable_size(memory);
    free(memory);
}

void conn_count_tls_memory(void)
{
    CRYPTO_set_mem_functions(count_alloc, count_realloc, count_free);
}

int64_t conn_tls_bytes(void)
{
    return tls_bytes;
}

/* A ticket is good for every connection of this worker, and one a minute is young enough. The copy stays resumable when
 * the connection that it came from is cut off. */
static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct conn_context *context = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), session_index);
    if (context->session == NULL ||
        SSL_SESSION_get_time(session) - SSL_SESSION_get_time(context->session) >= TICKET_AGE_S) {
        SSL_SESSION_free(context->session);
        context->session = SSL_SESSION_dup(session);
    }
    return 0;
}

/* Even SSL_VERIFY_NONE looks for the issuer among all the system's authorities, at each handshake. */
static int accept_any(X509_STORE_CTX *store, void *arg)
{
    return 1;
}

struct conn_context *conn_context_new(int epoll_fd, const struct swarm_options *options,
                                      const struct conn_handlers *handlers)
{
    struct conn_context *context = mem_new(struct conn_context);
    bool verify = options->ca_file != NULL || !options->targets[0].loopback;
    context->epoll_fd = epoll_fd;
    context->handlers = handlers;
    context->mask_state = (uint32_t)(options->seed * 2654435761u) | 1;
    context->tls = SSL_CTX_new(TLS_client_method());
    if (session_index < 0)
        session_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    SSL_CTX_set_ex_data(context->tls, session_index, context);
    SSL_CTX_set_mode(context->tls,
                     SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(context->tls, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
    SSL_CTX_sess_set_new_cb(context->tls, keep_session);
    SSL_CTX_set_verify(context->tls, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (!verify) {
        SSL_CTX_set_cert_verify_callback(context->tls, accept_any, NULL);
    } else if (options->ca_file != NULL ? SSL_CTX_load_verify_locations(context->tls, options->ca_file, NULL) != 1
                                        : SSL_CTX_set_default_verify_paths(context->tls) != 1) {
        fprintf(stderr, "signalbox-swarm: cannot read certificate authorities from %s\n",
                options->ca_file != NULL ? options->ca_file : "the system's store");
        conn_context_free(&context);
    }
    return context;
}

void conn_context_free(struct conn_context **context_ptr)
{
    struct conn_context *context = *context_ptr;
    *context_ptr = NULL;
    if (context == NULL)
        return;
    SSL_SESSION_free(context->session);
    SSL_CTX_free(context->tls);
    free(context);
}

static void watch(struct conn *conn, bool write)
{
    struct epoll_event event = {.events = EPOLLIN | (write ? EPOLLOUT : 0), .data.ptr = conn};
    if (write != conn->wants_write)
        epoll_ctl(conn->context->epoll_fd, EPOLL_CTL_MOD, conn->fd, &event);
    conn->wants_write = write;
}

static void release(struct conn *conn)
{
    SSL_free(conn->ssl);
    if (conn->fd >= 0)
        close(conn->fd);
    buf_done(&conn->in);
    buf_done(&conn->out);
    conn->ssl = NULL;
    conn->fd = -1;
    conn->in = conn->out = (struct buf){0};
    conn->state = CONN_CLOSED;
}

static void end(struct conn *conn, int code)
{
    enum conn_state before = conn->state;
    release(conn);
    conn->context->handlers->ended(conn, before, code);
}

static bool start_tls(struct conn *conn, bool resume_tls)
{
    const char *host = conn->target->host;
    conn->ssl = SSL_new(conn->context->tls);
    if (conn->ssl == NULL || SSL_set_fd(conn->ssl, conn->fd) != 1)
        return false;
    SSL_set_connect_state(conn->ssl);
    SSL_set_tlsext_host_name(conn->ssl, host);
    if (SSL_get_verify_mode(conn->ssl) != SSL_VERIFY_NONE) {
        /* An address is matched against the certificate's addresses, a name against its names. */
        X509_VERIFY_PARAM *param = SSL_get0_param(conn->ssl);
        if (X509_VERIFY_PARAM_set1_ip_asc(param, host) != 1 && SSL_set1_host(conn->ssl, host) != 1)
            return false;
    }
    if (resume_tls && conn->context->session != NULL) {
        /* A copy each: OpenSSL takes a session that two connections share for used up. */
        SSL_SESSION *copy = SSL_SESSION_dup(conn->context->session);
        SSL_set_session(conn->ssl, copy);
        SSL_SESSION_free(copy);
    }
    return true;
}

bool conn_open(struct conn *conn, struct conn_context *context, const struct target *target, uint32_t source,
               bool resume_tls)
{
    int one = 1;
    *conn = (struct conn){.context = context, .target = target, .state = CONN_CONNECTING, .wants_write = true};
    conn->fd = socket(target->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (conn->fd < 0)
        goto fail;
    if (source != 0) {
        struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(source)};
        /* Leaves the port to connect(), which knows the destination: ports of one address are not used up by bind(). */
        setsockopt(conn->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(conn->fd, (struct sockaddr *)&from, sizeof from) != 0)
            goto fail;
    }
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(conn->fd, (const struct sockaddr *)&target->address, target->address_size) != 0 && errno != EINPROGRESS)
        goto fail;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = conn};
    if (epoll_ctl(context->epoll_fd, EPOLL_CTL_ADD, conn->fd, &event) != 0 || !start_tls(conn, resume_tls))
        goto fail;
    return true;
fail:;
    int reason = errno;
    release(conn);
    errno = reason;
    return false;
}

/* True to wait for the socket; false if the connection is lost. */
static bool would_block(struct conn *conn, int result)
{
    int error = SSL_get_error(conn->ssl, result);
    ERR_clear_error();
    if (error == SSL_ERROR_WANT_WRITE)
        watch(conn, true);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

/* False if the connection is lost. */
static bool flush(struct conn *conn)
{
    size_t done = 0;
    bool alive = true;
    while (done < conn->out.size) {
        int n = SSL_write(conn->ssl, conn->out.data + done, (int)(conn->out.size - done));
        if (n <= 0) {
            alive = would_block(conn, n);
            break;
        }
        done += (size_t)n;
    }
    if (done == conn->out.size) {
        buf_done(&conn->out);
        conn->out = (struct buf){0};
        watch(conn, false);
    } else if (done > 0) {
        memmove(conn->out.data, conn->out.data + done, conn->out.size - done);
        conn->out.size -= done;
    }
    return alive;
}

static void send_upgrade(struct conn *conn)
{
    buf_printf(&conn->out,
               "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " WEBSOCKET_KEY "\r\n"
               "Sec-WebSocket-Protocol: " SUBPROTOCOL "\r\n\r\n",
               conn->target->path != NULL ? conn->target->path : "/v1/connect", conn->target->host);
}

static void frame(struct conn *conn, int opcode, const void *data, size_t size)
{
    uint8_t header[14] = {(uint8_t)(0x80 | opcode)};
    size_t n = 2;
    uint32_t *state = &conn->context->mask_state;
    /* xorshift32 */
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    if (size < 126) {
        header[1] = (uint8_t)(0x80 | size);
    } else if (size < 65536) {
        header[1] = 0x80 | 126;
        header[2] = (uint8_t)(size >> 8);
        header[3] = (uint8_t)size;
        n = 4;
    } else {
        header[1] = 0x80 | 127;
        for (int i = 0; i < 8; i++)
            header[2 + i] = (uint8_t)((uint64_t)size >> (56 - 8 * i));
        n = 10;
    }
    const uint8_t *mask = memcpy(header + n, state, 4);
    buf_append(&conn->out, header, n + 4);
    uint8_t *to = buf_reserve(&conn->out, size);
    const uint8_t *from = data;
    for (size_t i = 0; i < size; i++)
        to[i] = from[i] ^ mask[i & 3];
    conn->out.size += size;
}

static void send_frame(struct conn *conn, int opcode, const void *data, size_t size)
{
    if (conn->state != CONN_OPEN || conn->out.size + size > CONN_OUT_MAX)
        return;
    bool waiting = conn->out.size > 0;
    frame(conn, opcode, data, size);
    if (!waiting)
        flush(conn);
}

void conn_send(struct conn *conn, const void *data, size_t size)
{
    send_frame(conn, OP_BINARY, data, size);
}

void conn_send_text(struct conn *conn, const void *data, size_t size)
{
    send_frame(conn, OP_TEXT, data, size);
}

bool conn_has_input(const struct conn *conn)
{
    uint8_t byte;
    return recv(conn->fd, &byte, sizeof byte, MSG_PEEK | MSG_DONTWAIT) > 0;
}

void conn_close(struct conn *conn)
{
    const struct linger at_once = {.l_onoff = 1};
    if (conn->fd >= 0)
        setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    release(conn);
}

/* Takes the head of the answer from `in`; false once the connection has ended or more bytes are needed. */
static bool take_response(struct conn *conn)
{
    const char *end_of_head = conn->in.size > 0 ? memmem(conn->in.data, conn->in.size, "\r\n\r\n", 4) : NULL;
    if (end_of_head == NULL) {
        if (conn->in.size > RESPONSE_MAX)
            end(conn, CONN_END_PROTOCOL);
        return false;
    }
    size_t size = (size_t)(end_of_head + 4 - (const char *)conn->in.data);
    if (conn->in.size < 12 || memcmp(conn->in.data, "HTTP/1.1 101", 12) != 0) {
        end(conn, CONN_END_REFUSED);
        return false;
    }
    if (memmem(conn->in.data, size, WEBSOCKET_ACCEPT, strlen(WEBSOCKET_ACCEPT)) == NULL ||
        memmem(conn->in.data, size, SUBPROTOCOL, strlen(SUBPROTOCOL)) == NULL) {
        end(conn, CONN_END_PROTOCOL);
        return false;
    }
    memmove(conn->in.data, conn->in.data + size, conn->in.size - size);
    conn->in.size -= size;
    conn->state = CONN_OPEN;
    conn->context->handlers->opened(conn, SSL_session_reused(conn->ssl));
    return conn->state == CONN_OPEN;
}

static void take_frame(struct conn *conn, int opcode, const uint8_t *data, size_t size)
{
    if (opcode == OP_BINARY || (opcode == OP_TEXT && conn->context->takes_text)) {
        conn->context->handlers->message(conn, data, size);
    } else if (opcode == OP_PING && size <= CONTROL_MAX) {
        bool waiting = conn->out.size > 0;
        frame(conn, OP_PONG, data, size);
        if (!waiting)
            flush(conn);
    } else if (opcode == OP_CLOSE) {
        end(conn, size >= 2 ? data[0] << 8 | data[1] : CONN_END_LOST);
    } else if (opcode != OP_PONG) {
        end(conn, CONN_END_PROTOCOL);
    }
}

/* How many bytes of `data` whole frames took; the connection may have ended. */
static size_t take_frames(struct conn *conn, const uint8_t *data, size_t size)
{
    size_t done = 0;
    while (conn->state == CONN_OPEN && size - done >= 2) {
        const uint8_t *at = data + done;
        size_t header = 2;
        uint64_t length = at[1] & 0x7f;
        if (length >= 126) {
            header = length == 126 ? 4 : 10;
            if (size - done < header)
                break;
            length = 0;
            for (size_t i = 2; i < header; i++)
                length = length << 8 | at[i];
        }
        if ((at[0] & 0xf0) != 0x80 || (at[1] & 0x80) != 0 || length > CONN_MESSAGE_MAX) {
            end(conn, CONN_END_PROTOCOL);
            break;
        }
        if (size - done - header < length)
            break;
        done += header + length;
        take_frame(conn, at[0] & 0x0f, at + header, length);
    }
    return done;
}

static void take_bytes(struct conn *conn, const uint8_t *data, size_t size)
{
    size_t done;
    if (conn->state == CONN_UPGRADING) {
        buf_append(&conn->in, data, size);
        if (!take_response(conn))
            return;
        size = 0;
    }
    /* Frames that came whole are read where they are. */
    if (conn->in.size > 0) {
        struct buf in = conn->in;
        conn->in = (struct buf){0};
        buf_append(&in, data, size);
        done = take_frames(conn, in.data, in.size);
        if (conn->state == CONN_OPEN && done < in.size)
            buf_append(&conn->in, in.data + done, in.size - done);
        buf_done(&in);
    } else if (size > 0) {
        done = take_frames(conn, data, size);
        if (conn->state == CONN_OPEN && done < size)
            buf_append(&conn->in, data + done, size - done);
    }
    if (conn->state == CONN_OPEN && conn->in.size == 0) {
        buf_done(&conn->in);
        conn->in = (struct buf){0};
    }
}

static void read_all(struct conn *conn)
{
    while (conn->state == CONN_UPGRADING || conn->state == CONN_OPEN) {
        int n = SSL_read(conn->ssl, conn->context->scratch, CONN_READ_SIZE);
        if (n > 0) {
            take_bytes(conn, conn->context->scratch, (size_t)n);
            continue;
        }
        if (!would_block(conn, n))
            end(conn, CONN_END_LOST);
        return;
    }
}

void conn_ready(struct conn *conn)
{
    if (conn->state == CONN_CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
            end(conn, CONN_END_LOST);
            return;
        }
        conn->state = CONN_HANDSHAKING;
        watch(conn, false);
    }
    if (conn->state == CONN_HANDSHAKING) {
        watch(conn, false);
        int result = SSL_do_handshake(conn->ssl);
        if (result != 1) {
            if (!would_block(conn, result))
                end(conn, CONN_END_LOST);
            return;
        }
        conn->state = CONN_UPGRADING;
        send_upgrade(conn);
    }
    if (conn->out.size > 0 && !flush(conn)) {
        end(conn, CONN_END_LOST);
        return;
    }
    read_all(conn);
}
