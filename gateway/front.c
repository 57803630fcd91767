#include "gateway/front-private.h"

#include "common/clock.h"
#include "common/listener.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "gateway/tls.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum {
    BACKLOG = 4096,
    SOCKET_BUFFER_BYTES = 65536, /* each way; what one client can make the kernel hold */
    SPARE_DESCRIPTORS = 64,      /* for the bus, files, logs and the operator's listener */
    ACCEPT_BATCH = 16,
    ACCEPT_BURST_DIVISOR = 10, /* of the rate: how many may come at once */
    ACCEPT_PAUSE_MS = 100,
    BODY_MAX_BYTES = 16384, /* a token */
    REQUEST_TIMEOUT_MS = 10000,
    ARENA_FACTOR = 16, /* of a message's size: what its decoded form may take */
    CLOSE_TURN_MS = 10,
    CLOSE_PATIENCE_MS = 1000,
};

enum { PAUSE_FULL, PAUSE_NO_DESCRIPTORS, PAUSE_PACED };

static void pause_accepting(struct front *front, unsigned reason, const char *text)
{
    log_warn("accept_paused", log_str("reason", text), log_uint("connections", front->socket_count));
    metric_add_at(M_ACCEPT_PAUSES, reason, 1);
    h2o_socket_read_stop(front->listener);
    timer_set(loop_timers(front->loop), &front->resume_accept, loop_now_ms(front->loop) + ACCEPT_PAUSE_MS);
}

static struct bucket_limit accept_limit(const struct front *front)
{
    uint32_t rate = (uint32_t)front->options.handshakes_per_s;
    return (struct bucket_limit){.rate_per_s = rate, .burst = rate / ACCEPT_BURST_DIVISOR + ACCEPT_BATCH};
}

/* A storm waits in the kernel's queue, where a connection costs nothing, instead of in handshakes that all time out. */
static bool within_pace(struct front *front)
{
    struct bucket_limit limit = accept_limit(front);
    int64_t now_ms = loop_now_ms(front->loop);
    uint32_t wait_ms = limit.rate_per_s > 0 ? bucket_wait_ms(&front->accept_rate, &limit, 1, now_ms) : 0;
    if (wait_ms == 0)
        return true;
    metric_add_at(M_ACCEPT_PAUSES, PAUSE_PACED, 1);
    h2o_socket_read_stop(front->listener);
    timer_set(loop_timers(front->loop), &front->resume_accept, now_ms + wait_ms);
    return false;
}

static void on_connection(h2o_socket_t *listener, const char *err)
{
    struct front *front = listener->data;

    for (int i = 0; i < ACCEPT_BATCH; i++) {
        if (front->socket_count >= front->sockets_max) {
            pause_accepting(front, PAUSE_FULL, "as many connections as allowed");
            return;
        }
        if (!within_pace(front))
            return;
        h2o_socket_t *sock = h2o_evloop_socket_accept(listener);
        if (sock != NULL) {
            struct bucket_limit limit = accept_limit(front);
            if (limit.rate_per_s > 0)
                bucket_force(&front->accept_rate, &limit, 1, loop_now_ms(front->loop));
            conn_accept(front, sock);
            continue;
        }
        /* Out of descriptors or memory: the listener stays readable, and the loop would spin on it. */
        if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
            pause_accepting(front, PAUSE_NO_DESCRIPTORS, strerror(errno));
        return;
    }
}

static void resume_accept(struct timer *timer, int64_t now_ms)
{
    struct front *front = container_of(timer, struct front, resume_accept);
    h2o_socket_read_start(front->listener, on_connection);
}

static void count_sockets(struct front *front)
{
    metric_set(M_CLIENT_SOCKETS, (int64_t)front->socket_count);
    give_back_count(&front->give_back, front->socket_count);
}

void front_socket_opened(struct front *front)
{
    front->socket_count++;
    count_sockets(front);
}

void front_socket_gone(struct front *front)
{
    front->socket_count--;
    count_sockets(front);
}

static void flush(struct loop_task *task)
{
    conn_flush_all(container_of(task, struct front, flush));
}

static size_t sockets_max(int64_t wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur >= (rlim_t)wanted + SPARE_DESCRIPTORS)
        return (size_t)wanted;
    size_t allowed = limit.rlim_cur > SPARE_DESCRIPTORS ? limit.rlim_cur - SPARE_DESCRIPTORS : 1;
    log_warn("connections_limited", log_int("wanted", wanted), log_uint("allowed", allowed),
             log_str("hint", "raise the limit of open files (ulimit -n, LimitNOFILE=)"));
    return allowed;
}

static int parse_blocks(const struct front_options *options, struct net_blocks *ret_blocks, char *error,
                        size_t error_size)
{
    const struct config_strings *texts = options->trusted_proxies;
    size_t count = texts != NULL ? texts->count : 0;
    struct net_blocks blocks = {.blocks = count > 0 ? mem_zalloc(count * sizeof(*blocks.blocks)) : NULL};

    if (options->proxy_protocol && count == 0) {
        snprintf(error, error_size,
                 "proxy.trusted is empty: with proxy.protocol it must name the proxies, such as "
                 "10.0.0.0/8, or anybody could claim any address");
        return -1;
    }
    for (; blocks.count < count; blocks.count++) {
        if (net_block_parse(texts->values[blocks.count], &blocks.blocks[blocks.count]))
            continue;
        snprintf(error, error_size,
                 "proxy.trusted: \"%s\" is not an address or block; write it as 10.0.0.0/8 or 2001:db8::/32",
                 texts->values[blocks.count]);
        free(blocks.blocks);
        return -1;
    }
    *ret_blocks = blocks;
    return 0;
}

/* What a reload may change. Nothing is changed on an error. */
static int set_up(struct front *front, const struct front_options *options, char *error, size_t error_size)
{
    struct net_blocks trusted;
    SSL_CTX *tls = NULL;

    if (parse_blocks(options, &trusted, error, error_size) != 0)
        return -1;
    if (options->tls) {
        const struct tls_options tls_options = {.certificate_file = options->certificate_file,
                                                .key_file = options->key_file,
                                                .ticket_secret = options->ticket_secret,
                                                .previous_ticket_secret = options->previous_ticket_secret};
        tls = tls_context_new(&tls_options, error, error_size);
        if (tls == NULL) {
            free(trusted.blocks);
            return -1;
        }
    }
    free(front->trusted.blocks);
    SSL_CTX_free(front->tls);
    front->trusted = trusted;
    front->tls = tls;
    front->options = *options;
    front->queue_limits = (struct outqueue_limits){.total_bytes = options->queue_bytes,
                                                   .membership_bytes = options->queue_bytes / 2,
                                                   .ephemeral_bytes = options->queue_bytes / 4};
    return 0;
}

static void set_up_http(struct front *front)
{
    h2o_config_init(&front->config);
    front->config.server_name = h2o_iovec_init(NULL, 0);
    front->config.http1.upgrade_to_http2 = 0;
    front->config.http1.req_timeout = REQUEST_TIMEOUT_MS;
    front->config.max_request_entity_size = BODY_MAX_BYTES;
    h2o_hostconf_t *host = h2o_config_register_host(&front->config, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    http_api_register(front, host);
    h2o_context_init(&front->context, loop_h2o(front->loop), &front->config);
    front->accept = (h2o_accept_ctx_t){.ctx = &front->context, .hosts = front->config.hosts};
}

static void front_free(struct front *front)
{
    SSL_CTX_free(front->tls);
    free(front->trusted.blocks);
    free(front);
}

struct front *front_open(struct loop *loop, const struct front_options *options, struct gateway *gateway, char *error,
                         size_t error_size)
{
    const struct listener_options listener = {.key = "client.listen",
                                              .listen = options->listen,
                                              .backlog = BACKLOG,
                                              .reuse_port = true,
                                              .socket_buffer_bytes = SOCKET_BUFFER_BYTES};
    struct front *front = mem_new(struct front);
    int fd = -1;

    front->loop = loop;
    front->gateway = gateway;
    if (set_up(front, options, error, error_size) != 0 ||
        (fd = listener_open(&listener, &front->port, error, error_size)) < 0) {
        front_free(front);
        return NULL;
    }
    list_init(&front->conns);
    list_init(&front->dirty);
    list_init(&front->crowded);
    list_init(&front->resting);
    timer_init(&front->rest_timer, conn_end_rests);
    loop_task_init(&front->flush, flush);
    timer_init(&front->resume_accept, resume_accept);
    give_back_init(&front->give_back, loop_timers(loop));
    arena_init(&front->arena, ARENA_FACTOR * (size_t)options->message_bytes);
    front->sockets_max = sockets_max(options->max_connections);
    struct bucket_limit pace = accept_limit(front);
    bucket_init(&front->accept_rate, &pace, loop_now_ms(loop));
    front->peers = peers_new(front->sockets_max);
    set_up_http(front);

    front->listener = h2o_evloop_socket_create(loop_h2o(loop), fd, H2O_SOCKET_FLAG_DONT_READ);
    front->listener->data = front;
    h2o_socket_read_start(front->listener, on_connection);
    return front;
}

int front_reload(struct front *front, const struct front_options *options, char *error, size_t error_size)
{
    struct front_options changed = *options;
    changed.listen = front->options.listen;
    changed.web_root = front->options.web_root;
    changed.tls = front->options.tls;
    changed.demo = front->options.demo;
    changed.max_connections = front->options.max_connections;
    return set_up(front, &changed, error, error_size);
}

void front_stop_accepting(struct front *front)
{
    timer_cancel(loop_timers(front->loop), &front->resume_accept);
    if (front->listener != NULL)
        h2o_socket_close(front->listener);
    front->listener = NULL;
}

static void turn(struct front *front, int64_t until_ms)
{
    while (!list_empty(&front->conns) && clock_mono_ms() < until_ms) {
        conn_flush_all(front);
        h2o_evloop_run(loop_h2o(front->loop), CLOSE_TURN_MS);
    }
}

void front_close(struct front **front_ptr)
{
    struct front *front = *front_ptr;
    *front_ptr = NULL;
    if (front == NULL)
        return;
    front_stop_accepting(front);
    front->context.shutdown_requested = 1;
    list_for_each_safe(pos, &front->conns)
        conn_shutdown(container_of(pos, struct conn, link));
    turn(front, clock_mono_ms() + CLOSE_PATIENCE_MS);
    list_for_each_safe(pos, &front->conns)
        conn_cut(container_of(pos, struct conn, link));
    turn(front, clock_mono_ms() + CLOSE_PATIENCE_MS);
    assert(list_empty(&front->conns));

    timer_cancel(loop_timers(front->loop), &front->rest_timer);
    loop_task_cancel(&front->flush);
    give_back_done(&front->give_back);
    h2o_multithread_queue_t *queue = front->context.queue;
    h2o_context_dispose(&front->context);
    free(queue); /* which h2o_context_dispose() takes apart but forgets to free */
    h2o_config_dispose(&front->config);
    peers_free(&front->peers);
    arena_done(&front->arena);
    buf_done(&front->scratch);
    front_free(front);
}

unsigned front_port(const struct front *front)
{
    return front->port;
}

size_t front_connections_max(const struct front *front)
{
    return front->sockets_max;
}

size_t front_connections(const struct front *front)
{
    return front->websocket_count;
}

void front_shed(struct front *front, enum shed_level level, uint64_t used_bytes, uint64_t ceiling_bytes)
{
    conn_shed_all(front, level, used_bytes, ceiling_bytes);
}

size_t front_queued_bytes(const struct front *front)
{
    return front->queued_bytes;
}

size_t front_queued_messages(const struct front *front)
{
    return front->queued_messages;
}
