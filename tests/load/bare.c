/* The reference for handshakes: TLS and the WebSocket upgrade with the gateway's TLS settings and library, and nothing
 * after that. What Signalbox needs beyond it, measured with the same client in the same run, is what Signalbox costs.
 *
 *     signalbox-bare ADDRESS:PORT CERTIFICATE KEY
 *
 * Serves until it is killed. One process, one loop, as a gateway. It answers only clients that send the
 * Sec-WebSocket-Key of RFC 6455's example, as the swarm's do. */
#include "common/crypto_memory.h"
#include "common/listener.h"
#include "gateway/tls.h"
#include <errno.h>
#include <h2o.h>
#include <h2o/http1.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { BACKLOG = 4096, ACCEPT_BATCH = 16, SOCKET_BUFFER_BYTES = 65536, EXIT_WRONG_USAGE = 2, RUN_MS = 1000 };

#define WEBSOCKET_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define SUBPROTOCOL "signalbox.v1.protobuf"
/* The same in every process, so that a session resumes at any of them, as at gateways. */
#define TICKET_SECRET "signalbox-bare"

static h2o_globalconf_t config;
static h2o_context_t context;
static h2o_accept_ctx_t accepting;

static void on_bytes(h2o_socket_t *sock, const char *err)
{
    if (err != NULL)
        h2o_socket_close(sock);
    else
        h2o_buffer_consume(&sock->input, sock->input->size);
}

static void on_upgraded(void *data, h2o_socket_t *sock, size_t request_size)
{
    if (sock == NULL)
        return;
    h2o_buffer_consume(&sock->input, request_size);
    h2o_socket_read_start(sock, on_bytes);
}

static int on_request(h2o_handler_t *handler, h2o_req_t *req)
{
    req->res.status = 101;
    req->res.reason = "Switching Protocols";
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_UPGRADE, NULL, H2O_STRLIT("websocket"));
    h2o_add_header_by_str(&req->pool, &req->res.headers, H2O_STRLIT("sec-websocket-accept"), 0, NULL,
                          H2O_STRLIT(WEBSOCKET_ACCEPT));
    h2o_add_header_by_str(&req->pool, &req->res.headers, H2O_STRLIT("sec-websocket-protocol"), 0, NULL,
                          H2O_STRLIT(SUBPROTOCOL));
    h2o_http1_upgrade(req, NULL, 0, on_upgraded, NULL);
    return 0;
}

static void on_connection(h2o_socket_t *listener, const char *err)
{
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        h2o_socket_t *sock = h2o_evloop_socket_accept(listener);
        if (sock == NULL)
            return;
        h2o_accept(&accepting, sock);
    }
}

/* As many descriptors as the system allows; whoever loads it stays below. */
static void raise_descriptor_limit(void)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

int main(int argc, char **argv)
{
    char error[256];
    unsigned port;
    crypto_memory_begin();
    if (argc != 4) {
        fputs("signalbox-bare ADDRESS:PORT CERTIFICATE KEY\n", stderr);
        return EXIT_WRONG_USAGE;
    }
    const struct tls_options tls = {.certificate_file = argv[2], .key_file = argv[3], .ticket_secret = TICKET_SECRET};
    const struct listener_options listener = {
        .key = "address", .listen = argv[1], .backlog = BACKLOG, .socket_buffer_bytes = SOCKET_BUFFER_BYTES};
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    h2o_socket_buffer_prototype.mmap_settings = NULL;

    h2o_config_init(&config);
    config.http1.upgrade_to_http2 = 0;
    h2o_hostconf_t *host = h2o_config_register_host(&config, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    h2o_create_handler(h2o_config_register_path(host, "/", 0), sizeof(h2o_handler_t))->on_req = on_request;
    h2o_context_init(&context, h2o_evloop_create(), &config);
    accepting = (h2o_accept_ctx_t){.ctx = &context, .hosts = config.hosts};
    accepting.ssl_ctx = tls_context_new(&tls, error, sizeof error);
    int fd = accepting.ssl_ctx != NULL ? listener_open(&listener, &port, error, sizeof error) : -1;
    if (fd < 0) {
        fprintf(stderr, "signalbox-bare: %s\n", error);
        return EXIT_FAILURE;
    }
    h2o_socket_read_start(h2o_evloop_socket_create(context.loop, fd, H2O_SOCKET_FLAG_DONT_READ), on_connection);
    while (h2o_evloop_run(context.loop, RUN_MS) == 0 || errno == EINTR)
        ;
    return EXIT_FAILURE;
}
