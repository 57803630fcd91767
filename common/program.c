#include "common/program.h"

#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const program_log_levels[] = {"error", "warn", "info", "debug", NULL};
const char *const program_log_formats[] = {"text", "json", NULL};

enum action { ACTION_RUN, ACTION_CHECK_CONFIG, ACTION_PRINT_CONFIG, ACTION_PRINT_METRICS, ACTION_VERSION, ACTION_HELP };

/* --- configuration ----------------------------------------------------------------------------------------------- */

static void drop_if_empty(char **text)
{
    if (*text != NULL && (*text)[0] == '\0') {
        free(*text);
        *text = NULL;
    }
}

/* The host's name up to its first dot, in lower case: what orchestrators make unique already. */
static char *host_node_id(void)
{
    char name[256] = "";

    gethostname(name, sizeof name - 1);
    name[strcspn(name, ".")] = '\0';
    for (char *p = name; *p != '\0'; p++)
        *p = (char)tolower((unsigned char)*p);
    return mem_strdup(name);
}

static void normalise(struct cluster_config *cluster)
{
    char **const optional[] = {&cluster->node_id,
                               &cluster->previous_secret,
                               &cluster->nats_user,
                               &cluster->nats_password,
                               &cluster->nats_nkey_seed_file,
                               &cluster->nats_tls_ca_file,
                               &cluster->nats_tls_cert_file,
                               &cluster->nats_tls_key_file};

    for (size_t i = 0; i < sizeof optional / sizeof optional[0]; i++)
        drop_if_empty(optional[i]);
    if (cluster->node_id == NULL)
        cluster->node_id = host_node_id();
}

static void check_nats(const struct cluster_config *cluster, const char *path, struct buf *problems)
{
    if (cluster->nats_servers.count == 0)
        config_problem(problems, path, "nats.servers", "names no server; for example [ \"nats://127.0.0.1:4222\" ]");
    for (size_t i = 0; i < cluster->nats_servers.count; i++) {
        const char *url = cluster->nats_servers.values[i];
        if (strncmp(url, "nats://", 7) != 0 && strncmp(url, "tls://", 6) != 0)
            config_problem(problems, path, "nats.servers", "number %zu does not begin with nats:// or tls://", i + 1);
    }
    if ((cluster->nats_user == NULL) != (cluster->nats_password == NULL))
        config_problem(problems, path, cluster->nats_user == NULL ? "nats.password" : "nats.user",
                       "user and password go together; give both or neither");
    if (cluster->nats_user != NULL && cluster->nats_nkey_seed_file != NULL)
        config_problem(problems, path, "nats.nkey_seed_file", "give either an nkey or user and password, not both");
    if ((cluster->nats_tls_cert_file == NULL) != (cluster->nats_tls_key_file == NULL))
        config_problem(problems, path, cluster->nats_tls_cert_file == NULL ? "nats.tls_key_file" : "nats.tls_cert_file",
                       "tls_cert_file and tls_key_file go together; give both or neither");
    const struct {
        const char *name, *file;
    } files[] = {{"nats.nkey_seed_file", cluster->nats_nkey_seed_file},
                 {"nats.tls_ca_file", cluster->nats_tls_ca_file},
                 {"nats.tls_cert_file", cluster->nats_tls_cert_file},
                 {"nats.tls_key_file", cluster->nats_tls_key_file}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (files[i].file != NULL && access(files[i].file, R_OK) != 0)
            config_problem(problems, path, files[i].name, "%s cannot be read: %s", files[i].file, strerror(errno));
    }
}

static void cluster_times(const struct cluster_config *cluster, struct membership_times *ret_times)
{
    *ret_times = membership_default_times;
    ret_times->heartbeat_ms = (uint32_t)cluster->times.heartbeat_ms;
    ret_times->listen_ms = (uint32_t)cluster->times.listen_ms;
    ret_times->abandoned_ms = (uint32_t)cluster->times.abandoned_ms;
    ret_times->detector = (struct detector_times){.silence_ms = (uint32_t)cluster->times.silence_ms,
                                                  .notice_ms = (uint32_t)cluster->times.notice_ms,
                                                  .gone_ms = (uint32_t)cluster->times.gone_ms,
                                                  .patience_ms = (uint32_t)cluster->times.patience_ms,
                                                  .fence_ms = (uint32_t)cluster->times.fence_ms,
                                                  .suspect_ms = (uint32_t)cluster->times.suspect_ms};
    ret_times->pace = (struct membership_pace){.steps = (uint32_t)cluster->times.weight_steps,
                                               .step_ms = (uint32_t)cluster->times.step_ms,
                                               .relief_ms = (uint32_t)cluster->times.relief_ms};
}

static void check_cluster(const struct cluster_config *cluster, const char *path, struct buf *problems)
{
    struct score_seed seed;

    if (!node_id_valid(cluster->node_id))
        config_problem(problems, path, "node.id",
                       "\"%s\" is not 1 to 63 of a-z, 0-9 and - (an empty node.id takes the host's name)",
                       cluster->node_id);
    if (cluster->region[0] != '\0' && !region_valid(cluster->region))
        config_problem(problems, path, "node.region", "\"%s\" is not 1 to 31 of a-z, 0-9 and -", cluster->region);
    if (strlen(cluster->secret) < CLUSTER_SECRET_MIN)
        config_problem(problems, path, "cluster.secret", "has %zu bytes, at least %d are needed: openssl rand -hex 32",
                       strlen(cluster->secret), CLUSTER_SECRET_MIN);
    if (cluster->previous_secret != NULL && strlen(cluster->previous_secret) < CLUSTER_SECRET_MIN)
        config_problem(problems, path, "cluster.previous_secret", "has %zu bytes, at least %d are needed",
                       strlen(cluster->previous_secret), CLUSTER_SECRET_MIN);
    if (!cluster_parse_seed(cluster->placement_seed, &seed))
        config_problem(problems, path, "cluster.placement_seed", "is not 32 hex digits: openssl rand -hex 16");
    check_nats(cluster, path, problems);
    struct membership_times times;
    const char *key;
    cluster_times(cluster, &times);
    const char *problem = membership_times_problem(&times, &key);
    if (problem != NULL) {
        char name[64];
        snprintf(name, sizeof name, "membership.%s", key);
        config_problem(problems, path, name, "%s", problem);
    }
}

size_t program_load(const struct program *program, const struct program_args *args, void *config, struct buf *problems)
{
    struct cluster_config *cluster = (struct cluster_config *)((char *)config + program->cluster_offset);
    size_t before = problems->size;

    if (config_load(program->table, args->config_path, args->overrides, config, problems) == 0) {
        normalise(cluster);
        check_cluster(cluster, args->config_path, problems);
        if (program->check != NULL)
            program->check(config, args->config_path, problems);
    }
    size_t lines = 0;
    for (size_t i = before; i < problems->size; i++)
        lines += problems->data[i] == '\n';
    return lines;
}

void program_log_problems(struct buf *problems)
{
    char *line, *rest = (char *)buf_str(problems);

    while ((line = strsep(&rest, "\n")) != NULL) {
        if (line[0] != '\0')
            log_error("configuration_problem", log_str("problem", line));
    }
}

bool cluster_parse_seed(const char *text, struct score_seed *ret_seed)
{
    struct score_seed seed;
    size_t size;
    const char *end;

    if (strlen(text) != 2 * sizeof seed.bytes ||
        sodium_hex2bin(seed.bytes, sizeof seed.bytes, text, strlen(text), NULL, &size, &end) != 0 ||
        size != sizeof seed.bytes)
        return false;
    *ret_seed = seed;
    return true;
}

static const char *text_or_null(const char *text)
{
    return text != NULL && text[0] != '\0' ? text : NULL;
}

void cluster_bus_options(const struct cluster_config *cluster, struct bus_options *ret_options)
{
    *ret_options = (struct bus_options){
        .servers = (const char *const *)cluster->nats_servers.values,
        .server_count = cluster->nats_servers.count,
        .user = text_or_null(cluster->nats_user),
        .password = text_or_null(cluster->nats_password),
        .nkey_seed_file = text_or_null(cluster->nats_nkey_seed_file),
        .tls_ca_file = text_or_null(cluster->nats_tls_ca_file),
        .tls_cert_file = text_or_null(cluster->nats_tls_cert_file),
        .tls_key_file = text_or_null(cluster->nats_tls_key_file),
    };
}

void cluster_node_options(const struct cluster_config *cluster, enum node_kind kind, struct node_options *ret_options)
{
    *ret_options = (struct node_options){
        .self = {.kind = kind, .incarnation = incarnation_random()},
        .region = cluster->region,
        .stream_replicas = (unsigned)cluster->stream_replicas,
    };
    snprintf(ret_options->self.id, sizeof ret_options->self.id, "%s", cluster->node_id);
    cluster_times(cluster, &ret_options->times);
    cluster_bus_options(cluster, &ret_options->bus);
}

/* --- command line ------------------------------------------------------------------------------------------------ */

static void print_help(const struct program *program)
{
    printf(
        "Usage: %s --config FILE [--set NAME=VALUE]...\n\n%s\n\n"
        "  --config FILE      the configuration; without it every key has its default\n"
        "  --set NAME=VALUE   one value, in place of the file's; may be repeated\n"
        "  --check-config     report every problem of the configuration and end\n"
        "  --print-config     print a complete configuration with all defaults and their meaning\n"
        "  --print-metrics    print all metrics and their meaning, as Markdown\n"
        "  --version          print the version\n"
        "  --help             this text\n\n"
        "Signals: SIGTERM and SIGINT drain and end, a second one ends at once; SIGHUP reads the configuration\n"
        "again and puts certificates, keys, limits and the log level in force.\n\n"
        "Exit codes: 0 as asked; 1 it failed while running, start it again; 2 the command line or the configuration\n"
        "is wrong.\n",
        program->name, program->summary);
}

/* False if the command line is wrong; getopt has then said how. */
static bool parse_args(const struct program *program, int argc, char **argv, struct program_args *args,
                       enum action *ret_action)
{
    enum { OPTION_CONFIG = 'c', OPTION_SET = 's', OPTION_ACTION = 'a' };
    int action = ACTION_RUN, option;
    const struct option options[] = {
        {"config", required_argument, NULL, OPTION_CONFIG},
        {"set", required_argument, NULL, OPTION_SET},
        {"check-config", no_argument, &action, ACTION_CHECK_CONFIG},
        {"print-config", no_argument, &action, ACTION_PRINT_CONFIG},
        {"print-metrics", no_argument, &action, ACTION_PRINT_METRICS},
        {"version", no_argument, &action, ACTION_VERSION},
        {"help", no_argument, &action, ACTION_HELP},
        {NULL, 0, NULL, 0},
    };
    size_t count = 0;

    args->overrides = mem_zalloc(((size_t)argc + 1) * sizeof *args->overrides);
    optind = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == OPTION_CONFIG) {
            args->config_path = optarg;
        } else if (option == OPTION_SET) {
            args->overrides[count++] = optarg;
        } else if (option != 0) {
            fprintf(stderr, "%s --help lists the options\n", program->name);
            return false;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "%s: '%s' is not an option; %s --help lists them\n", program->name, argv[optind],
                program->name);
        return false;
    }
    *ret_action = (enum action)action;
    return true;
}

static void print_buf(void (*fill)(const struct program *program, struct buf *out), const struct program *program)
{
    struct buf out = {0};

    fill(program, &out);
    fwrite(out.data, 1, out.size, stdout);
    buf_done(&out);
}

static void fill_config(const struct program *program, struct buf *out)
{
    config_print(program->table, out);
}

static void fill_metrics(const struct program *program, struct buf *out)
{
    metrics_document(out);
}

/* True if the action was one that needs no configuration. */
static bool run_print_action(const struct program *program, enum action action)
{
    switch (action) {
    case ACTION_HELP:
        print_help(program);
        return true;
    case ACTION_VERSION:
        printf("%s %s\n", program->name, SBX_VERSION);
        return true;
    case ACTION_PRINT_CONFIG:
        print_buf(fill_config, program);
        return true;
    case ACTION_PRINT_METRICS:
        print_buf(fill_metrics, program);
        return true;
    case ACTION_RUN:
    case ACTION_CHECK_CONFIG:
        break;
    }
    return false;
}

bool program_start(const struct program *program, int argc, char **argv, struct program_args *args, void *config,
                   enum program_exit *ret_exit)
{
    const struct cluster_config *cluster =
        (const struct cluster_config *)((const char *)config + program->cluster_offset);
    struct buf problems = {0};
    enum action action;

    *ret_exit = PROGRAM_EXIT_USAGE;
    if (!parse_args(program, argc, argv, args, &action))
        return false;
    if (run_print_action(program, action)) {
        *ret_exit = PROGRAM_EXIT_OK;
        return false;
    }
    size_t count = program_load(program, args, config, &problems);
    if (count > 0)
        fprintf(stderr, "%s%s: the configuration has %zu problem%s; --print-config explains every key\n",
                buf_str(&problems), program->name, count, count == 1 ? "" : "s");
    buf_done(&problems);
    if (count > 0)
        return false;
    if (action == ACTION_CHECK_CONFIG) {
        printf("%s: no problem found\n", args->config_path != NULL ? args->config_path : "configuration");
        *ret_exit = PROGRAM_EXIT_OK;
        return false;
    }
    log_setup((enum log_level)cluster->log_level, (enum log_format)cluster->log_format);
    *ret_exit = PROGRAM_EXIT_OK;
    return true;
}

void program_args_done(struct program_args *args)
{
    free(args->overrides);
    *args = (struct program_args){0};
}

/* --- signals ----------------------------------------------------------------------------------------------------- */

static void on_stop_signal(void *ctx, int signo)
{
    struct program_signals *signals = ctx;
    bool at_once = signals->stopping;

    signals->stopping = true;
    log_info("signal", log_str("signal", signo == SIGTERM ? "SIGTERM" : "SIGINT"),
             log_str("action", at_once ? "end at once" : "drain"));
    notify_stopping(&signals->notify);
    signals->stop(signals->ctx, at_once);
}

static void on_reload_signal(void *ctx, int signo)
{
    struct program_signals *signals = ctx;

    log_info("signal", log_str("signal", "SIGHUP"), log_str("action", "reload"));
    notify_reloading(&signals->notify);
    signals->reload(signals->ctx);
    notify_reloaded(&signals->notify);
}

void program_watch_signals(struct loop *loop, struct program_signals *signals)
{
    if (loop_on_signal(loop, SIGTERM, on_stop_signal, signals) != 0 ||
        loop_on_signal(loop, SIGINT, on_stop_signal, signals) != 0 ||
        loop_on_signal(loop, SIGHUP, on_reload_signal, signals) != 0) {
        /* Only a process without descriptors or memory gets here. */
        log_error("signals_unavailable", log_str("error", strerror(errno)));
        abort();
    }
    notify_open(&signals->notify, loop, signals->ready, signals->ctx);
}

void program_unwatch_signals(struct program_signals *signals)
{
    notify_close(&signals->notify);
}
