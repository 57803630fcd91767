/* What the main() of every server has in common: command line, configuration, log and signals.
 *
 * A program describes itself once:
 *
 *     struct gateway_config {
 *         struct cluster_config cluster;
 *         char *listen;
 *         ...
 *     };
 *     static const struct config_key table[] = {
 *         CLUSTER_CONFIG_KEYS(struct gateway_config, cluster, "127.0.0.1:9601"),
 *         {.name = "client.listen", .type = CONFIG_STRING, .offset = offsetof(struct gateway_config, listen), ...},
 *         {.name = NULL},
 *     };
 *     static const struct program program = {.name = "signalbox-gateway", .summary = "...", .table = table,
 *         .cluster_offset = offsetof(struct gateway_config, cluster), .check = check};
 *
 * and its main() is: program_start(), loop_new(), program_watch_signals(), open everything, loop_run(), close
 * everything in the opposite order, program_unwatch_signals(), config_done(table, &config), program_args_done().
 *
 * Threading: main thread. program_watch_signals() before any thread is started.
 */
#ifndef SBX_COMMON_PROGRAM_H
#define SBX_COMMON_PROGRAM_H

#include "common/config.h"
#include "common/loop.h"
#include "common/node.h"
#include "common/notify.h"
#include "common/score.h"
#include <stdbool.h>
#include <stddef.h>

enum program_exit {
    PROGRAM_EXIT_OK = 0,
    PROGRAM_EXIT_FAILED = 1, /* at run time; a supervisor should start it again */
    PROGRAM_EXIT_USAGE = 2,  /* command line or configuration; starting it again changes nothing */
};

enum { CLUSTER_SECRET_MIN = 32 };

/* Keys under `membership.`: TIME(name, default, min, max, unit, help, ...); the rest is handed on. */
#define MEMBERSHIP_TIMES(TIME, ...)                                                                                    \
    TIME(heartbeat_ms, 250, 20, 10000, "ms", "Every process says so often that it is there.", __VA_ARGS__)             \
    TIME(suspect_ms, 400, 20, 60000, "ms", "A process that is not heard for so long is asked whether it is there.",    \
         __VA_ARGS__)                                                                                                  \
    TIME(silence_ms, 1000, 60, 60000, "ms",                                                                            \
         "A process that is not heard for so long is accused; at least three heartbeats.", __VA_ARGS__)                \
    TIME(notice_ms, 1500, 60, 60000, "ms",                                                                             \
         "For so long it is accused before it may be removed; at least fence_ms and one heartbeat.", __VA_ARGS__)      \
    TIME(gone_ms, 500, 20, 60000, "ms",                                                                                \
         "Silence and notice together, if NATS says that nobody subscribes to the process's subject any more.",        \
         __VA_ARGS__)                                                                                                  \
    TIME(patience_ms, 5000, 60, 600000, "ms",                                                                          \
         "The silence that is borne where it may be the NATS server's: the process finds another one.", __VA_ARGS__)   \
    TIME(fence_ms, 1250, 60, 60000, "ms",                                                                              \
         "A shard that has not heard a majority for so long stops acting; at least three heartbeats.", __VA_ARGS__)    \
    TIME(listen_ms, 2000, 60, 600000, "ms", "A process listens for so long before it joins; at least notice_ms.",      \
         __VA_ARGS__)                                                                                                  \
    TIME(abandoned_ms, 15000, 1000, 600000, "ms",                                                                      \
         "If no shard of the last view is heard for so long, everything was stopped, and the log begins anew.",        \
         __VA_ARGS__)                                                                                                  \
    TIME(weight_steps, 8, 1, 64, "steps",                                                                              \
         "In so many steps a shard's weight rises when it joins and falls when it drains.", __VA_ARGS__)               \
    TIME(step_ms, 500, 0, 600000, "ms", "At least so long lies between two steps of one shard.", __VA_ARGS__)          \
    TIME(relief_ms, 10000, 100, 3600000, "ms", "The same between two steps that are made because of load.", __VA_ARGS__)

/* What every process of a cluster is told. Optional strings that are empty are NULL once loaded, but for `region`. */
struct cluster_config {
    char *node_id; /* never empty: the host's name if none is given */
    char *region;
    char *secret, *previous_secret;
    char *placement_seed;
    struct config_strings nats_servers;
    char *nats_user, *nats_password, *nats_nkey_seed_file;
    char *nats_tls_ca_file, *nats_tls_cert_file, *nats_tls_key_file;
    int64_t stream_replicas;
    struct {
#define TIME(name, def, min, max, unit, help, ...) int64_t name;
        MEMBERSHIP_TIMES(TIME, )
#undef TIME
    } times;
    char *admin_listen;
    int log_level, log_format; /* enum log_level, enum log_format */
};

extern const char *const program_log_levels[];
extern const char *const program_log_formats[];

#define MEMBERSHIP_TIME_KEY(name_, def_, min_, max_, unit_, help_, record, member)                                     \
    {.name = "membership." #name_,                                                                                     \
     .type = CONFIG_INT,                                                                                               \
     .offset = offsetof(record, member.times.name_),                                                                   \
     .def = #def_,                                                                                                     \
     .min = min_,                                                                                                      \
     .max = max_,                                                                                                      \
     .unit = unit_,                                                                                                    \
     .help = help_},

/* The rows of struct cluster_config, `member` of the program's own `record`. */
#define CLUSTER_CONFIG_KEYS(record, member, admin_listen_default)                                                      \
    {.name = "node.id",                                                                                                \
     .type = CONFIG_STRING,                                                                                            \
     .offset = offsetof(record, member.node_id),                                                                       \
     .def = "",                                                                                                        \
     .help = "Name of this process, unique among those of its kind in the cluster: 1 to 63 of a-z, 0-9 and -. A "      \
             "process that starts takes the place of an earlier one of this name. Empty: the host's name."},           \
        {.name = "node.region",                                                                                        \
         .type = CONFIG_STRING,                                                                                        \
         .offset = offsetof(record, member.region),                                                                    \
         .def = "",                                                                                                    \
         .help = "Region of this process, for rooms that are pinned to one (eu/standup): 1 to 31 of a-z, 0-9 and -. "  \
                 "Empty: none."},                                                                                      \
        {.name = "cluster.secret",                                                                                     \
         .type = CONFIG_STRING,                                                                                        \
         .offset = offsetof(record, member.secret),                                                                    \
         .secret = true,                                                                                               \
         .help = "Seals resume tokens; the same in every process of the cluster. At least 32 bytes: "                  \
                 "openssl rand -hex 32."},                                                                             \
        {.name = "cluster.previous_secret",                                                                            \
         .type = CONFIG_STRING,                                                                                        \
         .offset = offsetof(record, member.previous_secret),                                                           \
         .def = "",                                                                                                    \
         .secret = true,                                                                                               \
         .help = "The secret before this one, while it is being changed: its resume tokens are still good."},          \
        {.name = "cluster.placement_seed",                                                                             \
         .type = CONFIG_STRING,                                                                                        \
         .offset = offsetof(record, member.placement_seed),                                                            \
         .secret = true,                                                                                               \
         .help = "Decides which shard owns a room; the same in every process of the cluster, and never changed while " \
                 "it runs. 32 hex digits: openssl rand -hex 16."},                                                     \
        MEMBERSHIP_TIMES(MEMBERSHIP_TIME_KEY, record, member) NATS_CONFIG_KEYS(record, member),                        \
        {.name = "nats.stream_replicas",                                                                               \
         .type = CONFIG_INT,                                                                                           \
         .offset = offsetof(record, member.stream_replicas),                                                           \
         .def = "0",                                                                                                   \
         .min = 0,                                                                                                     \
         .max = 5,                                                                                                     \
         .help = "Copies of the view log, when this process is the first and creates it. 0: three where the NATS "     \
                 "cluster has three servers, otherwise one."},                                                         \
        {.name = "admin.listen",                                                                                       \
         .type = CONFIG_STRING,                                                                                        \
         .offset = offsetof(record, member.admin_listen),                                                              \
         .def = admin_listen_default,                                                                                  \
         .help = "Address and port of /healthz, /readyz and /metrics; not for clients."},                              \
        {.name = "log.level",                                                                                          \
         .type = CONFIG_ENUM,                                                                                          \
         .offset = offsetof(record, member.log_level),                                                                 \
         .def = "info",                                                                                                \
         .choices = program_log_levels,                                                                                \
         .help = "The least important lines that are written to standard error."},                                     \
    {                                                                                                                  \
        .name = "log.format", .type = CONFIG_ENUM, .offset = offsetof(record, member.log_format), .def = "text",       \
        .choices = program_log_formats, .help = "Plain text for people, or one JSON object per line."                  \
    }

/* How to reach NATS: part of the above, and all that signalboxctl takes from a server's file. */
#define NATS_CONFIG_KEYS(record, member)                                                                               \
    {.name = "nats.servers",                                                                                           \
     .type = CONFIG_STRINGS,                                                                                           \
     .offset = offsetof(record, member.nats_servers),                                                                  \
     .def = "[ \"nats://127.0.0.1:4222\" ]",                                                                           \
     .help = "NATS servers, nats:// or tls://; name all of a cluster: a process has two connections, to two "          \
             "of them, so that its end can be told from a server's."},                                                 \
        {.name = "nats.user",                                                                                          \
         .type = CONFIG_STRING,                                                                                        \
         .offset = offsetof(record, member.nats_user),                                                                 \
         .def = "",                                                                                                    \
         .help = "User at the NATS servers; empty: none."},                                                            \
        {.name = "nats.password",                                                                                      \
         .type = CONFIG_STRING,                                                                                        \
         .offset = offsetof(record, member.nats_password),                                                             \
         .def = "",                                                                                                    \
         .secret = true,                                                                                               \
         .help = "The user's password."},                                                                              \
        {.name = "nats.nkey_seed_file",                                                                                \
         .type = CONFIG_STRING,                                                                                        \
         .offset = offsetof(record, member.nats_nkey_seed_file),                                                       \
         .def = "",                                                                                                    \
         .help = "File with the seed (SU...) of an nkey, in place of user and password; empty: none."},                \
        {.name = "nats.tls_ca_file",                                                                                   \
         .type = CONFIG_STRING,                                                                                        \
         .offset = offsetof(record, member.nats_tls_ca_file),                                                          \
         .def = "",                                                                                                    \
         .help = "Authorities (PEM) that the NATS servers' certificates are checked against; empty: the system's."},   \
        {.name = "nats.tls_cert_file",                                                                                 \
         .type = CONFIG_STRING,                                                                                        \
         .offset = offsetof(record, member.nats_tls_cert_file),                                                        \
         .def = "",                                                                                                    \
         .help = "Certificate (PEM) to show to the NATS servers; empty: none."},                                       \
    {                                                                                                                  \
        .name = "nats.tls_key_file", .type = CONFIG_STRING, .offset = offsetof(record, member.nats_tls_key_file),      \
        .def = "", .help = "Key (PEM) of that certificate."                                                            \
    }

struct program {
    const char *name;    /* "signalbox-shard" */
    const char *summary; /* one sentence for --help */
    const struct config_key *table;
    size_t cluster_offset; /* of struct cluster_config in the program's own */
    /* Checks values beyond their types, by config_problem(); may be NULL. Called only if everything else was right. */
    void (*check)(const void *config, const char *path, struct buf *problems);
};

/* The command line, kept for program_load(). Zeroed to begin with. */
struct program_args {
    const char *config_path; /* NULL: defaults alone; borrowed from argv */
    const char **overrides;  /* NULL-terminated; the strings are borrowed from argv */
};

/* Reads the command line and loads `config` (zeroed by the caller), with every problem on standard error; sets up the
 * log. True: go on. False: all is said and done (a mistake, or --help and the like), and *ret_exit is the exit code.
 * In either case config_done() and program_args_done() are right. */
bool program_start(const struct program *program, int argc, char **argv, struct program_args *args, void *config,
                   enum program_exit *ret_exit);
/* Loads the configuration again, into a zeroed `config`: for SIGHUP. Returns how many lines `problems` gained. */
size_t program_load(const struct program *program, const struct program_args *args, void *config, struct buf *problems);
/* Logs what program_load() found, a line for each problem. */
void program_log_problems(struct buf *problems);
void program_args_done(struct program_args *args);

struct program_signals {
    /* SIGTERM, SIGINT. `at_once`: it is not the first. */
    void (*stop)(void *ctx, bool at_once);
    void (*reload)(void *ctx); /* SIGHUP */
    /* Whether it may take work, as /readyz has it; called while the loop runs. */
    bool (*ready)(void *ctx, char *reason, size_t size);
    void *ctx;
    bool stopping;
    struct notify notify; /* systemd hears of all of this */
};

/* `signals` is the caller's, for as long as the loop lives. */
void program_watch_signals(struct loop *loop, struct program_signals *signals);
/* Before loop_free(). */
void program_unwatch_signals(struct program_signals *signals);

/* Everything but weight and times, which are the shard's default. Strings are borrowed from the configuration; the
 * incarnation is new with each call. */
void cluster_node_options(const struct cluster_config *cluster, enum node_kind kind, struct node_options *ret_options);
void cluster_bus_options(const struct cluster_config *cluster, struct bus_options *ret_options);
/* 32 hex digits; false for anything else. */
bool cluster_parse_seed(const char *text, struct score_seed *ret_seed);

#endif
