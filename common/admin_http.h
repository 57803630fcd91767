/* The operator's listener of every process: plain HTTP on its own address, never the clients' one.
 *
 *   GET /healthz  200 while the loop turns; depends on nothing else
 *   GET /readyz   200 once the process may take work, 503 with the reason in the body otherwise
 *   GET /metrics  Prometheus text format
 *
 * At most 64 connections, bodies of 1 KB, 5 s for a request; more is closed.
 * Threading: loop thread. Wraps H2O.
 */
#ifndef SBX_COMMON_ADMIN_HTTP_H
#define SBX_COMMON_ADMIN_HTTP_H

#include "common/loop.h"
#include "common/metrics.h"
#include <stdbool.h>
#include <stddef.h>

struct admin_http;

struct admin_http_handlers {
    /* True when ready; otherwise fills `reason`. */
    bool (*ready)(void *ctx, char *reason, size_t size);
    /* Brings gauges up to date before they are rendered. */
    void (*collect)(void *ctx);
};

/* `listen` is "address:port" or "[v6]:port", numeric; port 0 takes any. Either handler may be NULL. NULL with a text in
 * `error` that says what, where and what to do. */
struct admin_http *admin_http_open(struct loop *loop, const char *listen, enum metric_tier tier,
                                   const struct admin_http_handlers *handlers, void *ctx, char *error,
                                   size_t error_size);
unsigned admin_http_port(const struct admin_http *admin);
/* After loop_run() has returned, because it turns H2O's loop itself to let connections end. */
void admin_http_close(struct admin_http **admin);

#endif
