/* signalbox-gateway: the edge of a Signalbox cluster. */
#include "common/crypto_memory.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/program.h"
#include "gateway/forwarded.h"
#include "gateway/net_address.h"
#include "gateway/process.h"
#include "gateway/ws_handshake.h"
#include <stddef.h>
#include <stdlib.h>

#define AT(member) offsetof(struct gateway_config, member)

static const char *const proxy_headers[] = {"x-forwarded-for", "forwarded", NULL};
_Static_assert(FORWARDED_X_FORWARDED_FOR == 0 && FORWARDED_RFC7239 == 1, "choices are in the order of the enum");

static const struct config_key key_table[] = {
    {.name = "project",
     .type = CONFIG_STRING,
     .offset = offsetof(struct gateway_key, project),
     .def = "default",
     .help = "The project that the key belongs to; two projects' rooms never meet."},
    {.name = "key",
     .type = CONFIG_STRING,
     .offset = offsetof(struct gateway_key, key),
     .help = "The API key: claim iss of the tokens."},
    {.name = "secret",
     .type = CONFIG_STRING,
     .offset = offsetof(struct gateway_key, secret),
     .secret = true,
     .help = "What its tokens are signed with (HS256): 32 bytes or more, openssl rand -hex 32."},
    {.name = NULL},
};

static const struct config_key jwks_table[] = {
    {.name = "project",
     .type = CONFIG_STRING,
     .offset = offsetof(struct gateway_jwks, project),
     .def = "default",
     .help = "The project that the keys belong to."},
    {.name = "file",
     .type = CONFIG_STRING,
     .offset = offsetof(struct gateway_jwks, file),
     .help = "JSON Web Key Set (RFC 7517) with the public keys: RS256, ES256, EdDSA."},
    {.name = NULL},
};

static const struct config_key table[] = {
    CLUSTER_CONFIG_KEYS(struct gateway_config, cluster, "127.0.0.1:9601"),
    {.name = "client.listen",
     .type = CONFIG_STRING,
     .offset = AT(listen),
     .def = "127.0.0.1:8443",
     .help = "Address and port for clients. Several gateways of one host may share it (SO_REUSEPORT)."},
    {.name = "client.web_root",
     .type = CONFIG_STRING,
     .offset = AT(web_root),
     .def = "",
     .help = "Directory with the browser SDK (sdk/) and the demo page (demo/) to serve; empty: none."},
    {.name = "client.allowed_origins",
     .type = CONFIG_STRINGS,
     .offset = AT(allowed_origins),
     .def = "[]",
     .help = "Web origins whose pages may connect: \"https://app.example.com\", \"https://*.example.com\" or \"*\". "
             "Clients that are no browsers send none and are not affected. Empty: no browsers."},
    {.name = "client.max_connections",
     .type = CONFIG_INT,
     .offset = AT(max_connections),
     .def = "18000",
     .min = 1,
     .max = 1000000,
     .unit = "connections",
     .help = "Connections that this process holds at most; cut to what the descriptor limit allows."},
    {.name = "client.connections_per_address",
     .type = CONFIG_INT,
     .offset = AT(connections_per_address),
     .def = "0",
     .min = 0,
     .max = 1000000,
     .unit = "connections",
     .help = "Connections from one address (IPv6: one /64) at most; 0: unlimited."},
    {.name = "client.handshakes_per_s",
     .type = CONFIG_INT,
     .offset = AT(handshakes_per_s),
     .def = "2000",
     .min = 0,
     .max = 1000000,
     .unit = "connections",
     .help = "New connections a second that this process takes up at most; others wait to be accepted. 0: unlimited."},
    {.name = "client.reserved_percent",
     .type = CONFIG_INT,
     .offset = AT(reserved_percent),
     .def = "10",
     .min = 0,
     .max = 90,
     .unit = "percent",
     .help =
         "Of max_connections and handshakes_per_s, what new sessions may not take: it is kept for those who resume."},
    {.name = "client.handshakes_per_address_per_s",
     .type = CONFIG_INT,
     .offset = AT(handshakes_per_address_per_s),
     .def = "0",
     .min = 0,
     .max = 1000000,
     .unit = "connections",
     .help = "New connections a second from one address (IPv6: one /64) at most; 0: unlimited."},
    {.name = "client.queue_bytes",
     .type = CONFIG_INT,
     .offset = AT(queue_bytes),
     .def = "1048576",
     .min = 65536,
     .max = 67108864,
     .unit = "bytes",
     .help =
         "What may wait for a client that reads slowly, before the unimportant is dropped and then the connection."},
    {.name = "client.ping_interval_ms",
     .type = CONFIG_INT,
     .offset = AT(ping_interval_ms),
     .def = "8000",
     .min = 500,
     .max = 600000,
     .unit = "ms",
     .help =
         "A client that has been silent for so long is sent a WebSocket ping; where no proxy is declared, the kernel "
         "probes it shortly before (TCP keepalive) and, where it answers, the ping waits for three times as long."},
    {.name = "client.ping_timeout_ms",
     .type = CONFIG_INT,
     .offset = AT(ping_timeout_ms),
     .def = "2000",
     .min = 200,
     .max = 600000,
     .unit = "ms",
     .help =
         "A client that has not answered a ping for so long is taken for lost; one whose system has confirmed the "
         "ping, so that only its program is slow, gets another interval. Interval and timeout together are at most a "
         "third of limits.resume_window_ms."},
    {.name = "tls.enabled",
     .type = CONFIG_BOOL,
     .offset = AT(tls),
     .def = "true",
     .help = "False: a proxy in front ends TLS."},
    {.name = "tls.certificate_file",
     .type = CONFIG_STRING,
     .offset = AT(certificate_file),
     .def = "",
     .help = "Certificate chain (PEM); P-256 is the fastest. Read again at SIGHUP."},
    {.name = "tls.key_file",
     .type = CONFIG_STRING,
     .offset = AT(key_file),
     .def = "",
     .help = "The certificate's key (PEM). Read again at SIGHUP."},
    {.name = "proxy.protocol",
     .type = CONFIG_BOOL,
     .offset = AT(proxy_protocol),
     .def = "false",
     .help = "Every connection begins with a PROXY protocol header (version 2) that names the client."},
    {.name = "proxy.trusted",
     .type = CONFIG_STRINGS,
     .offset = AT(trusted_proxies),
     .def = "[]",
     .help = "Proxies (addresses or CIDR blocks) whose word on the client's address counts."},
    {.name = "proxy.header",
     .type = CONFIG_ENUM,
     .offset = AT(proxy_header),
     .def = "x-forwarded-for",
     .choices = proxy_headers,
     .help = "The header in which HTTP proxies name the client."},
    {.name = "keys",
     .type = CONFIG_LIST,
     .offset = AT(keys),
     .item = key_table,
     .item_size = sizeof(struct gateway_key),
     .help = "API keys. Several at a time: add the new one, move the minting services, remove the old one (SIGHUP)."},
    {.name = "jwks",
     .type = CONFIG_LIST,
     .offset = AT(jwks),
     .item = jwks_table,
     .item_size = sizeof(struct gateway_jwks),
     .help = "Public keys of identity providers that mint tokens."},
    {.name = "tokens.leeway_s",
     .type = CONFIG_INT,
     .offset = AT(leeway_s),
     .def = "10",
     .min = 0,
     .max = 300,
     .unit = "s",
     .help = "How far the clocks of token minters may be off."},
    {.name = "turn.urls",
     .type = CONFIG_STRINGS,
     .offset = AT(turn_urls),
     .def = "[]",
     .help = "STUN and TURN servers for clients, as in RTCIceServer: \"turn:turn.example.com:3478?transport=udp\"."},
    {.name = "turn.secret",
     .type = CONFIG_STRING,
     .offset = AT(turn_secret),
     .def = "",
     .secret = true,
     .help = "coturn's static-auth-secret, for time-limited credentials; empty: URLs alone."},
    {.name = "turn.ttl_s",
     .type = CONFIG_INT,
     .offset = AT(turn_ttl_s),
     .def = "3600",
     .min = 60,
     .max = 604800,
     .unit = "s",
     .help = "How long TURN credentials are good."},
    {.name = "demo.enabled",
     .type = CONFIG_BOOL,
     .offset = AT(demo),
     .def = "false",
     .help =
         "For development: serves the demo page at / and mints tokens for whoever shows an invite (POST /demo/token)."},
    {.name = "memory.ceiling_mb",
     .type = CONFIG_INT,
     .offset = AT(memory_ceiling_mb),
     .def = "0",
     .min = 0,
     .max = 16777216,
     .unit = "MiB",
     .help =
         "Resident memory that this process may take. At 80% of it new joins are refused, at 88% signals are no "
         "longer queued, at 95% the slowest connections are closed, to resume. 0: 85% of the control group's limit, "
         "or of the machine's memory."},
    {.name = "drain.spread_ms",
     .type = CONFIG_INT,
     .offset = AT(drain_spread_ms),
     .def = "5000",
     .min = 0,
     .max = 3600000,
     .unit = "ms",
     .help = "SIGTERM sends the clients to other gateways, evenly over this time."},
    {.name = "drain.alternates",
     .type = CONFIG_STRINGS,
     .offset = AT(drain_alternates),
     .def = "[]",
     .help = "Base URLs to send them to (\"https://rtc-2.example.com\"), where no load balancer stands before the "
             "gateways; empty: clients use the URLs that they have."},
    {.name = "drain.deadline_ms",
     .type = CONFIG_INT,
     .offset = AT(drain_deadline_ms),
     .def = "30000",
     .min = 0,
     .max = 3600000,
     .unit = "ms",
     .help = "Clients that have not gone by then are closed, to resume by themselves; the gateway ends at most 5 s "
             "later."},
#define LIMIT(member, def_, min_, max_, unit_, help_)                                                                  \
    {.name = "limits." #member,                                                                                        \
     .type = CONFIG_INT,                                                                                               \
     .offset = AT(limits.member),                                                                                      \
     .def = #def_,                                                                                                     \
     .min = min_,                                                                                                      \
     .max = max_,                                                                                                      \
     .unit = unit_,                                                                                                    \
     .help = help_},
#include "gateway/limits_table.h"
#undef LIMIT
    {.name = NULL},
};

static void check(const void *loaded, const char *path, struct buf *problems)
{
    const struct gateway_config *config = loaded;
    char error[512];
    if (config->tls && (config->certificate_file == NULL || config->certificate_file[0] == '\0' ||
                        config->key_file == NULL || config->key_file[0] == '\0'))
        config_problem(problems, path, "tls.certificate_file",
                       "tls.enabled needs tls.certificate_file and tls.key_file; for TLS that a proxy ends, set "
                       "tls.enabled = false");
    if (config->keys.count == 0 && config->jwks.count == 0)
        config_problem(problems, path, "keys",
                       "no API key: expected at least one entry in keys or jwks, or nobody "
                       "can join");
    else if (!gateway_config_keys_valid(config, error, sizeof error))
        config_problem(problems, path, "keys", "%s", error);
    for (size_t i = 0; i < config->allowed_origins.count; i++)
        if (!ws_origin_pattern_valid(config->allowed_origins.values[i]))
            config_problem(problems, path, "client.allowed_origins",
                           "\"%s\" is not an origin: expected \"https://host[:port]\", \"https://*.host\" or \"*\"",
                           config->allowed_origins.values[i]);
    if (3 * (config->ping_interval_ms + config->ping_timeout_ms) > config->limits.resume_window_ms)
        config_problem(problems, path, "client.ping_interval_ms",
                       "client.ping_interval_ms + client.ping_timeout_ms must be at most a third of "
                       "limits.resume_window_ms (%lld ms), so that a lost client is noticed long before its window "
                       "ends",
                       (long long)config->limits.resume_window_ms);
    if (config->drain_spread_ms > config->drain_deadline_ms)
        config_problem(problems, path, "drain.spread_ms",
                       "must be at most drain.deadline_ms (%lld ms), or clients would be closed before their turn",
                       (long long)config->drain_deadline_ms);
    if (config->limits.message_bytes < config->limits.send_bytes + 1024)
        config_problem(problems, path, "limits.send_bytes", "must be at least 1024 less than limits.message_bytes");
}

static const struct program program = {
    .name = "signalbox-gateway",
    .summary = "A gateway of a Signalbox cluster: ends TLS and WebSockets, authenticates, and carries messages between "
               "clients and shards.",
    .table = table,
    .cluster_offset = AT(cluster),
    .check = check,
};

struct running {
    struct gateway_process *process;
    const struct program_args *args;
    struct gateway_config *config; /* in force; heap, because a reload replaces it */
};

static void config_free(struct gateway_config **config)
{
    if (*config != NULL)
        config_done(table, *config);
    free(*config);
    *config = NULL;
}

static void on_stop(void *ctx, bool at_once)
{
    struct running *running = ctx;
    gateway_process_stop(running->process, at_once);
}

static void on_reload(void *ctx)
{
    struct running *running = ctx;
    struct buf problems = {0};
    struct gateway_config *fresh = mem_new(struct gateway_config);
    if (program_load(&program, running->args, fresh, &problems) > 0) {
        program_log_problems(&problems);
        log_error("reload_failed", log_str("reason", "the configuration has problems; the old one stays in force"));
        config_free(&fresh);
    } else if (!gateway_process_reload(running->process, fresh)) {
        config_free(&fresh);
    } else {
        config_free(&running->config);
        running->config = fresh;
    }
    buf_done(&problems);
}

static bool on_ready(void *ctx, char *reason, size_t size)
{
    struct running *running = ctx;
    return gateway_process_ready(running->process, reason, size);
}

static enum program_exit run(struct running *running)
{
    enum program_exit exit = PROGRAM_EXIT_FAILED;
    struct loop *loop = loop_new();
    struct program_signals signals = {.stop = on_stop, .reload = on_reload, .ready = on_ready, .ctx = running};
    program_watch_signals(loop, &signals);
    running->process = gateway_process_open(loop, running->config);
    if (running->process != NULL) {
        loop_run(loop);
        exit = gateway_process_exit(running->process);
        gateway_process_close(&running->process);
    }
    program_unwatch_signals(&signals);
    loop_free(&loop);
    log_info("gateway_ended", log_int("exit_code", exit));
    return exit;
}

int main(int argc, char **argv)
{
    struct program_args args = {0};
    struct running running = {.args = &args, .config = mem_new(struct gateway_config)};
    enum program_exit exit;

    crypto_memory_begin();
    if (program_start(&program, argc, argv, &args, running.config, &exit))
        exit = run(&running);
    config_free(&running.config);
    program_args_done(&args);
    return exit;
}
