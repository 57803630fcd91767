/* A running gateway: the decisions wired to the cluster, to the clients' listener and to the operator's.
 *
 * Threading: loop thread.
 */
#ifndef SBX_GATEWAY_PROCESS_H
#define SBX_GATEWAY_PROCESS_H

#include "common/config.h"
#include "common/program.h"
#include "gateway/gateway.h"
#include <stdbool.h>
#include <stdint.h>

/* An entry of `keys`. */
struct gateway_key {
    char *project, *key, *secret;
};

/* An entry of `jwks`. */
struct gateway_jwks {
    char *project, *file;
};

struct gateway_config {
    struct cluster_config cluster;

    char *listen, *web_root;
    struct config_strings allowed_origins;
    int64_t max_connections, connections_per_address, handshakes_per_address_per_s;
    int64_t handshakes_per_s, reserved_percent;
    int64_t queue_bytes, ping_interval_ms, ping_timeout_ms;
    bool tls;
    char *certificate_file, *key_file;
    bool proxy_protocol;
    struct config_strings trusted_proxies;
    int proxy_header; /* enum forwarded_form */

    struct config_list keys; /* struct gateway_key */
    struct config_list jwks; /* struct gateway_jwks */
    int64_t leeway_s;
    struct config_strings turn_urls;
    char *turn_secret;
    int64_t turn_ttl_s;
    bool demo;
    int64_t memory_ceiling_mb;
    int64_t drain_spread_ms, drain_deadline_ms;
    struct config_strings drain_alternates;
#define LIMIT(name, def, min, max, unit, help) int64_t name;
    struct {
#include "gateway/limits_table.h"
    } limits;
#undef LIMIT
};

/* For the check of the configuration: whether the keys can be used; a text in `error` if not. */
bool gateway_config_keys_valid(const struct gateway_config *config, char *error, size_t error_size);

struct gateway_process;

/* NULL, with the reason logged, if it cannot start. The configuration is borrowed. */
struct gateway_process *gateway_process_open(struct loop *loop, const struct gateway_config *config);
void gateway_process_close(struct gateway_process **process);
/* Sends the clients away at a pace, leaves the view and stops the loop; `at_once`: stops the loop. */
void gateway_process_stop(struct gateway_process *process, bool at_once);
/* New certificate, keys and limits. The configuration is borrowed from now on, the old one no longer used. False, with
 * the reason logged and everything as it was, if it cannot be put in force. */
bool gateway_process_reload(struct gateway_process *process, const struct gateway_config *config);
/* Whether it may take clients; otherwise a reason. */
bool gateway_process_ready(struct gateway_process *process, char *reason, size_t size);
/* How it ended, once the loop has stopped. */
enum program_exit gateway_process_exit(const struct gateway_process *process);

#endif
