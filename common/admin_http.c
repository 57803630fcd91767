#include "common/admin_http.h"

#include "common/listener.h"
#include "common/log.h"
#include "common/mem.h"
#include <assert.h>
#include <errno.h>
#include <h2o.h>
#include <h2o/http1.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    CONNECTIONS_MAX = 64, /* probes and scrapers; more is somebody else */
    REQUEST_TIMEOUT_MS = 5000,
    BODY_MAX_BYTES = 1024,
    ACCEPT_PAUSE_MS = 500,
    REASON_MAX_BYTES = 256,
    CLOSE_TURNS_MAX = 100,
    CLOSE_TURN_MS = 10,
};

struct admin_http {
    struct loop *loop;
    enum metric_tier tier;
    struct admin_http_handlers handlers;
    void *ctx;
    unsigned port;
    h2o_socket_t *listener;
    struct timer resume_accept;
    h2o_globalconf_t config;
    h2o_context_t context;
    h2o_accept_ctx_t accept;
};

struct admin_handler {
    h2o_handler_t super;
    struct admin_http *admin;
};

static void respond(h2o_req_t *req, int status, const char *reason, const char *type, const char *body, size_t size)
{
    req->res.status = status;
    req->res.reason = reason;
    req->res.content_length = size;
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL, type, strlen(type));
    h2o_send_inline(req, body, size); /* copies; without the body for HEAD */
}

static void respond_text(h2o_req_t *req, int status, const char *reason, const char *text)
{
    respond(req, status, reason, "text/plain; charset=utf-8", text, strlen(text));
}

static void respond_ready(const struct admin_http *admin, h2o_req_t *req)
{
    char reason[REASON_MAX_BYTES] = "", text[REASON_MAX_BYTES + 1];
    if (admin->handlers.ready == NULL || admin->handlers.ready(admin->ctx, reason, sizeof(reason))) {
        respond_text(req, 200, "OK", "ready\n");
        return;
    }
    snprintf(text, sizeof(text), "%s\n", reason);
    respond_text(req, 503, "Service Unavailable", text);
}

static void respond_metrics(const struct admin_http *admin, h2o_req_t *req)
{
    if (admin->handlers.collect != NULL)
        admin->handlers.collect(admin->ctx);
    struct buf page = {0};
    metrics_render(&page, admin->tier);
    respond(req, 200, "OK", "text/plain; version=0.0.4; charset=utf-8", (const char *)page.data, page.size);
    buf_done(&page);
}

static bool iovec_is(h2o_iovec_t iovec, const char *str)
{
    return h2o_memis(iovec.base, iovec.len, str, strlen(str));
}

static int on_request(h2o_handler_t *handler, h2o_req_t *req)
{
    const struct admin_http *admin = ((struct admin_handler *)handler)->admin;
    if (!iovec_is(req->method, "GET") && !iovec_is(req->method, "HEAD")) {
        h2o_add_header_by_str(&req->pool, &req->res.headers, H2O_STRLIT("allow"), 0, NULL, H2O_STRLIT("GET, HEAD"));
        respond_text(req, 405, "Method Not Allowed", "only GET and HEAD are served here\n");
    } else if (iovec_is(req->path_normalized, "/healthz")) {
        respond_text(req, 200, "OK", "ok\n");
    } else if (iovec_is(req->path_normalized, "/readyz")) {
        respond_ready(admin, req);
    } else if (iovec_is(req->path_normalized, "/metrics")) {
        respond_metrics(admin, req);
    } else {
        respond_text(req, 404, "Not Found", "served here: /healthz, /readyz, /metrics\n");
    }
    return 0;
}

static int count_connection(h2o_req_t *req, void *count)
{
    ++*(int *)count;
    return 0;
}

static int count_connections(struct admin_http *admin)
{
    int count = 0;
    admin->config.http1.callbacks.foreach_request(&admin->context, count_connection, &count);
    return count;
}

static void on_connection(h2o_socket_t *listener, const char *err)
{
    struct admin_http *admin = listener->data;
    h2o_socket_t *sock = h2o_evloop_socket_accept(listener);
    if (sock == NULL) {
        /* Out of descriptors or memory: the listener stays readable, and the loop would spin on it. */
        if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
            log_warn("admin_accept_paused", log_str("error", strerror(errno)));
            h2o_socket_read_stop(listener);
            timer_set(loop_timers(admin->loop), &admin->resume_accept, loop_now_ms(admin->loop) + ACCEPT_PAUSE_MS);
        }
        return;
    }
    if (count_connections(admin) < CONNECTIONS_MAX) {
        h2o_accept(&admin->accept, sock);
        return;
    }
    metric_add(M_ADMIN_REFUSED, 1);
    h2o_socket_close(sock);
}

static void resume_accept(struct timer *timer, int64_t now_ms)
{
    struct admin_http *admin = container_of(timer, struct admin_http, resume_accept);
    h2o_socket_read_start(admin->listener, on_connection);
}

struct admin_http *admin_http_open(struct loop *loop, const char *listen, enum metric_tier tier,
                                   const struct admin_http_handlers *handlers, void *ctx, char *error,
                                   size_t error_size)
{
    unsigned port;
    const struct listener_options options = {.key = "admin.listen", .listen = listen, .backlog = CONNECTIONS_MAX};
    int fd = listener_open(&options, &port, error, error_size);
    if (fd < 0)
        return NULL;
    struct admin_http *admin = mem_new(struct admin_http);
    admin->loop = loop;
    admin->tier = tier;
    admin->handlers = *handlers;
    admin->ctx = ctx;
    admin->port = port;
    timer_init(&admin->resume_accept, resume_accept);

    h2o_config_init(&admin->config);
    admin->config.server_name = h2o_iovec_init(NULL, 0);
    admin->config.http1.upgrade_to_http2 = 0;
    admin->config.http1.req_timeout = REQUEST_TIMEOUT_MS;
    admin->config.max_request_entity_size = BODY_MAX_BYTES;
    h2o_hostconf_t *host = h2o_config_register_host(&admin->config, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    h2o_pathconf_t *path = h2o_config_register_path(host, "/", 0);
    struct admin_handler *handler = (struct admin_handler *)h2o_create_handler(path, sizeof(*handler));
    handler->super.on_req = on_request;
    handler->admin = admin;
    h2o_context_init(&admin->context, loop_h2o(loop), &admin->config);
    admin->accept = (h2o_accept_ctx_t){.ctx = &admin->context, .hosts = admin->config.hosts};

    admin->listener = h2o_evloop_socket_create(loop_h2o(loop), fd, H2O_SOCKET_FLAG_DONT_READ);
    admin->listener->data = admin;
    h2o_socket_read_start(admin->listener, on_connection);
    return admin;
}

unsigned admin_http_port(const struct admin_http *admin)
{
    return admin->port;
}

static int shut_connection(h2o_req_t *req, void *unused)
{
    shutdown(h2o_socket_get_fd(req->conn->callbacks->get_socket(req->conn)), SHUT_RDWR);
    return 0;
}

void admin_http_close(struct admin_http **admin_ptr)
{
    struct admin_http *admin = *admin_ptr;
    *admin_ptr = NULL;
    if (admin == NULL)
        return;
    timer_cancel(loop_timers(admin->loop), &admin->resume_accept);
    h2o_socket_close(admin->listener);

    /* H2O 2.2 closes no HTTP/1 connection for us: end the sockets, then let it see that and clean up. */
    admin->context.shutdown_requested = 1;
    admin->config.http1.callbacks.foreach_request(&admin->context, shut_connection, NULL);
    for (int turn = 0; turn < CLOSE_TURNS_MAX && count_connections(admin) != 0; turn++)
        h2o_evloop_run(loop_h2o(admin->loop), CLOSE_TURN_MS);
    assert(count_connections(admin) == 0);

    h2o_multithread_queue_t *queue = admin->context.queue;
    h2o_context_dispose(&admin->context);
    free(queue); /* which h2o_context_dispose() takes apart but forgets to free */
    h2o_config_dispose(&admin->config);
    free(admin);
}
