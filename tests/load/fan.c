/* signalbox-fan: see fan.h. Joins its groups, lets them talk for a while, and prints what arrived as JSON.
 *
 *     signalbox-fan --url wss://HOST:PORT[,...] --group KEY=VALUE,... [OPTION...]
 *
 *   --url LIST        gateways that the clients are spread over; the n-th --url is cluster n - 1
 *   --group SPEC      name, rooms, size, senders, kind (message|signal), rate, outstanding, bytes, join_rate, cluster,
 *                     join_at (seconds after the others are there), unique_keys, stall (percent of the clients that
 *                     stop reading, with stall_at and stall_for in seconds); may be repeated
 *   --dialect D       signalbox (default), control, ws, socketio
 *   --seconds S       how long to measure, --warm-up S before that (default 1)
 *   --cpu NAME=PID,...  processes whose CPU time is measured together; may be repeated
 *
 * API key and secret come from SIGNALBOX_API_KEY and SIGNALBOX_API_SECRET. */
#include "tests/load/fan.h"

#include "common/mem.h"
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

enum { EVENTS = 256, JOINING_MAX = 64, JOIN_PATIENCE_S = 180, ADDRESSES = 8, PER_ADDRESS = 4000 };
enum { EXIT_USAGE = 2 };

struct cpu {
    char name[32];
    pid_t pids[64];
    size_t count;
    int64_t before_ticks, ticks;
};

struct options {
    struct target targets[FAN_TARGETS_MAX][FAN_TARGETS_MAX];
    size_t target_counts[FAN_TARGETS_MAX], cluster_count;
    struct cpu cpus[FAN_CPU_MAX];
    size_t cpu_count;
    double seconds, warm_up_s;
};

static void usage(const char *what, const char *value)
{
    fprintf(stderr, "signalbox-fan: %s: '%s'; see the head of tests/load/fan.c\n", what, value);
    exit(EXIT_USAGE);
}

/* --- options -------------------------------------------------------------------------------------------------------
 */

static void parse_urls(struct options *options, enum fan_dialect dialect, char *list)
{
    if (options->cluster_count == FAN_TARGETS_MAX)
        usage("too many clusters", list);
    size_t cluster = options->cluster_count++;
    for (char *url = strtok(list, ","); url != NULL; url = strtok(NULL, ",")) {
        unsigned port;
        char host[64];
        if (options->target_counts[cluster] == FAN_TARGETS_MAX || sscanf(url, "wss://%63[0-9.]:%u", host, &port) != 2)
            usage("expected wss://ADDRESS:PORT", url);
        struct target *target = &options->targets[cluster][options->target_counts[cluster]++];
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        inet_pton(AF_INET, host, &address.sin_addr);
        memcpy(&target->address, &address, sizeof address);
        target->address_size = sizeof address;
        target->loopback = true;
        target->path = dialect == FAN_SOCKETIO ? "/socket.io/?EIO=4&transport=websocket" : NULL;
        snprintf(target->host, sizeof target->host, "%s", host);
    }
}

static void parse_group(struct fan *fan, char *spec)
{
    if (fan->group_count == FAN_GROUPS_MAX)
        usage("too many groups", spec);
    struct fan_group *group = &fan->groups[fan->group_count++];
    *group = (struct fan_group){.name = "group", .rooms = 1, .size = 2, .bytes = 200, .join_rate = 1000};
    for (char *pair = strtok(spec, ","); pair != NULL; pair = strtok(NULL, ",")) {
        char *value = strchr(pair, '=');
        if (value == NULL)
            usage("expected KEY=VALUE", pair);
        *value++ = '\0';
        double number = strtod(value, NULL);
        if (strcmp(pair, "name") == 0)
            snprintf(group->name, sizeof group->name, "%s", value);
        else if (strcmp(pair, "kind") == 0)
            group->kind = strcmp(value, "signal") == 0 ? FAN_SIGNAL : FAN_MESSAGE;
        else if (strcmp(pair, "rate") == 0)
            group->rate = number;
        else if (strcmp(pair, "join_at") == 0)
            group->join_at_s = number;
        else if (strcmp(pair, "join_rate") == 0)
            group->join_rate = number;
        else if (strcmp(pair, "stall_at") == 0)
            group->stall_at_s = number;
        else if (strcmp(pair, "stall_for") == 0)
            group->stall_s = number;
        else if (strcmp(pair, "unique_keys") == 0)
            group->unique_keys = number != 0;
        else {
            const struct {
                const char *key;
                unsigned *value;
            } numbers[] = {{"rooms", &group->rooms},        {"size", &group->size},
                           {"senders", &group->senders},    {"outstanding", &group->outstanding},
                           {"bytes", &group->bytes},        {"cluster", &group->cluster},
                           {"stall", &group->stall_percent}};
            size_t i = 0;
            while (i < sizeof numbers / sizeof numbers[0] && strcmp(numbers[i].key, pair) != 0)
                i++;
            if (i == sizeof numbers / sizeof numbers[0])
                usage("no such key of a group", pair);
            *numbers[i].value = (unsigned)number;
        }
    }
    if (group->bytes < FAN_PAYLOAD_MIN || group->bytes > FAN_PAYLOAD_MAX || group->senders > group->size)
        usage("bytes or senders out of range", group->name);
}

static void parse_cpu(struct options *options, char *text)
{
    char *pids = strchr(text, '=');
    if (pids == NULL || options->cpu_count == FAN_CPU_MAX)
        usage("expected NAME=PID,...", text);
    struct cpu *cpu = &options->cpus[options->cpu_count++];
    *pids++ = '\0';
    snprintf(cpu->name, sizeof cpu->name, "%s", text);
    for (char *pid = strtok(pids, ","); pid != NULL && cpu->count < 64; pid = strtok(NULL, ","))
        cpu->pids[cpu->count++] = (pid_t)strtol(pid, NULL, 10);
}

static void parse(struct options *options, struct fan *fan, int argc, char **argv)
{
    static const char *const dialects[] = {"signalbox", "control", "ws", "socketio"};
    static const struct option long_options[] = {
        {"url", 1, NULL, 'u'},     {"group", 1, NULL, 'g'}, {"dialect", 1, NULL, 'd'}, {"seconds", 1, NULL, 's'},
        {"warm-up", 1, NULL, 'w'}, {"cpu", 1, NULL, 'c'},   {NULL, 0, NULL, 0}};
    int option;
    *options = (struct options){.seconds = 5, .warm_up_s = 1};
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        switch (option) {
        case 'u':
            parse_urls(options, fan->dialect, optarg);
            break;
        case 'g':
            parse_group(fan, optarg);
            break;
        case 'd':
            for (unsigned i = 0; i < 4; i++)
                if (strcmp(optarg, dialects[i]) == 0)
                    fan->dialect = (enum fan_dialect)i;
            break;
        case 's':
            options->seconds = strtod(optarg, NULL);
            break;
        case 'w':
            options->warm_up_s = strtod(optarg, NULL);
            break;
        case 'c':
            parse_cpu(options, optarg);
            break;
        default:
            exit(EXIT_USAGE);
        }
    }
    fan->key = getenv("SIGNALBOX_API_KEY");
    fan->secret = getenv("SIGNALBOX_API_SECRET");
    if (fan->group_count == 0 || options->cluster_count == 0 || fan->key == NULL || fan->secret == NULL)
        usage("wants --url (after --dialect), --group and an API key in the environment", "");
}

/* --- joining -------------------------------------------------------------------------------------------------------
 */

static void make_clients(struct fan *fan)
{
    unsigned rooms = 0, client = 0, room = 0;
    for (unsigned g = 0; g < fan->group_count; g++) {
        rooms += fan->groups[g].rooms;
        fan->client_count += fan->groups[g].rooms * fan->groups[g].size;
    }
    fan->clients = mem_zalloc(fan->client_count * sizeof *fan->clients);
    fan->rooms = mem_zalloc(rooms * sizeof *fan->rooms);
    for (unsigned g = 0; g < fan->group_count; g++) {
        struct fan_group *group = &fan->groups[g];
        for (unsigned r = 0; r < group->rooms; r++, room++) {
            snprintf(fan->rooms[room].name, sizeof fan->rooms[room].name, "fan-%s-%s-%u", fan->run, group->name, r);
            for (unsigned i = 0; i < group->size; i++)
                fan->clients[client++] = (struct fan_client){
                    .fan = fan,
                    .group = group,
                    .room = &fan->rooms[room],
                    .number = i,
                    .conn.fd = -1,
                    .stalls = i >= group->senders && i * 100 >= group->size * (100 - group->stall_percent),
                    .heard_us = group->kind == FAN_SIGNAL && group->senders > 1 && group->rate > 0
                                    ? mem_zalloc(group->senders * sizeof(int64_t))
                                    : NULL};
        }
    }
}

static void open_client(struct fan *fan, const struct options *options, struct fan_client *client)
{
    unsigned index = (unsigned)(client - fan->clients), cluster = client->group->cluster;
    const struct target *target = &options->targets[cluster][client->number % options->target_counts[cluster]];
    uint32_t source = 0x7f000001 + 1 + index / PER_ADDRESS % ADDRESSES;
    fan->joining++;
    if (!conn_open(&client->conn, fan->conns, target, source, false)) {
        fprintf(stderr, "signalbox-fan: cannot connect: %s\n", strerror(errno));
        exit(1);
    }
}

static void take_events(struct fan *fan, int timeout_ms)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(fan->conns->epoll_fd, events, EVENTS, timeout_ms);
    for (int i = 0; i < count; i++)
        if (((struct conn *)events[i].data.ptr)->state != CONN_CLOSED)
            conn_ready(events[i].data.ptr);
}

/* Opens what is due of the groups that begin at or before `elapsed_s`; `next` is each group's first that is not open.
 */
static bool open_due(struct fan *fan, const struct options *options, unsigned next[FAN_GROUPS_MAX], bool at_start,
                     double elapsed_s)
{
    bool more = false;
    unsigned first = 0;
    for (unsigned g = 0; g < fan->group_count; g++) {
        struct fan_group *group = &fan->groups[g];
        unsigned count = group->rooms * group->size;
        double since_s = elapsed_s - group->join_at_s;
        if (at_start == (group->join_at_s == 0)) {
            while (next[g] < count && next[g] <= since_s * group->join_rate && fan->joining < JOINING_MAX)
                open_client(fan, options, &fan->clients[first + next[g]++]);
            more |= next[g] < count;
        }
        first += count;
    }
    return more;
}

static void join_all(struct fan *fan, const struct options *options, unsigned next[FAN_GROUPS_MAX])
{
    double began_s = (double)fan_now_us() / 1e6;
    while (open_due(fan, options, next, true, (double)fan_now_us() / 1e6 - began_s) || fan->joining > 0) {
        take_events(fan, 5);
        if ((double)fan_now_us() / 1e6 - began_s > JOIN_PATIENCE_S) {
            fprintf(stderr, "signalbox-fan: %u clients have not joined in %d s\n", fan->joining, JOIN_PATIENCE_S);
            exit(1);
        }
    }
}

/* --- talking -------------------------------------------------------------------------------------------------------
 */

static void send_due(struct fan *fan, double now_s)
{
    for (unsigned i = 0; i < fan->client_count; i++) {
        struct fan_client *client = &fan->clients[i];
        struct fan_group *group = client->group;
        if (client->number >= group->senders || client->conn.state != CONN_OPEN || !client->joined) {
            i += client->number >= group->senders ? group->size - client->number - 1 : 0;
            continue;
        }
        if (group->rate > 0) {
            if (client->next_send_s == 0)
                client->next_send_s = now_s + (double)(i % 97) / 97 / group->rate;
            for (; client->next_send_s <= now_s; client->next_send_s += 1 / group->rate)
                fan_client_send(client);
        } else {
            while (client->room->sent * group->size < client->room->delivered + group->outstanding * group->size)
                fan_client_send(client);
        }
    }
}

static void read_or_not(struct fan_client *client, bool reads)
{
    struct epoll_event event = {.events = reads ? EPOLLIN : 0, .data.ptr = &client->conn};
    if (client->conn.state != CONN_CLOSED)
        epoll_ctl(client->fan->conns->epoll_fd, EPOLL_CTL_MOD, client->conn.fd, &event);
}

/* Those that stall do so together, and come back together: to what is left of their connections, or by their tokens. */
static void stall(struct fan *fan, const struct options *options, double elapsed_s)
{
    for (unsigned i = 0; i < fan->client_count; i++) {
        struct fan_client *client = &fan->clients[i];
        struct fan_group *group = client->group;
        bool away = elapsed_s >= group->stall_at_s && elapsed_s < group->stall_at_s + group->stall_s;
        if (!client->stalls)
            continue;
        if (away != client->stalled) {
            client->stalled = away;
            group->stalled += away;
            read_or_not(client, !away);
        }
        if (!away && !client->joined && client->conn.state == CONN_CLOSED && fan->joining < JOINING_MAX) {
            group->resumed++;
            open_client(fan, options, client);
        }
    }
}

static int64_t cpu_ticks(const struct cpu *cpu)
{
    int64_t ticks = 0;
    for (size_t i = 0; i < cpu->count; i++) {
        char path[64], text[1024];
        unsigned long user, system;
        snprintf(path, sizeof path, "/proc/%d/stat", (int)cpu->pids[i]);
        FILE *file = fopen(path, "re");
        if (file == NULL)
            continue;
        size_t size = fread(text, 1, sizeof text - 1, file);
        fclose(file);
        text[size] = '\0';
        const char *after = strrchr(text, ')');
        if (after != NULL &&
            sscanf(after, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) == 2)
            ticks += (int64_t)(user + system);
    }
    return ticks;
}

static double talk(struct fan *fan, struct options *options, unsigned next[FAN_GROUPS_MAX])
{
    int64_t turned_us = fan_now_us();
    double began_s = (double)turned_us / 1e6, measure_s = began_s + options->warm_up_s;
    for (;;) {
        int64_t now_us = fan_now_us();
        double now_s = (double)now_us / 1e6;
        if (!fan->measuring && now_s >= measure_s) {
            fan->measuring = true;
            measure_s = now_s;
            for (size_t i = 0; i < options->cpu_count; i++)
                options->cpus[i].before_ticks = cpu_ticks(&options->cpus[i]);
        }
        if (fan->measuring && now_s >= measure_s + options->seconds)
            break;
        if (fan->measuring)
            histogram_record(&fan->turn_us, now_us - turned_us);
        turned_us = now_us;
        open_due(fan, options, next, false, now_s - began_s);
        send_due(fan, now_s);
        stall(fan, options, fan->measuring ? now_s - measure_s : -1);
        take_events(fan, 1);
    }
    for (unsigned i = 0; i < fan->client_count; i++) {
        struct fan_client *client = &fan->clients[i];
        client->group->rosters_wrong += client->stalls && (!client->joined || client->roster != client->group->size);
    }
    for (size_t i = 0; i < options->cpu_count; i++)
        options->cpus[i].ticks = cpu_ticks(&options->cpus[i]) - options->cpus[i].before_ticks;
    fan->measuring = false;
    return (double)fan_now_us() / 1e6 - measure_s;
}

/* --- what came of it -----------------------------------------------------------------------------------------------
 */

static void print_histogram(const char *name, const struct histogram *histogram)
{
    printf(", \"%s\": {\"count\": %" PRIu64 ", \"p50_us\": %" PRIu64 ", \"p95_us\": %" PRIu64 ", \"p99_us\": %" PRIu64
           ", \"max_us\": %" PRIu64 "}",
           name, histogram->count, histogram_percentile_us(histogram, 50), histogram_percentile_us(histogram, 95),
           histogram_percentile_us(histogram, 99), histogram->max_us);
}

static void print_result(const struct fan *fan, const struct options *options, double took_s)
{
    printf("{\"seconds\": %.3f, \"cpu_s\": {", took_s);
    for (size_t i = 0; i < options->cpu_count; i++)
        printf("%s\"%s\": %.2f", i > 0 ? ", " : "", options->cpus[i].name,
               (double)options->cpus[i].ticks / (double)sysconf(_SC_CLK_TCK));
    printf("}");
    print_histogram("client_turns", &fan->turn_us);
    printf(", \"groups\": {");
    for (unsigned g = 0; g < fan->group_count; g++) {
        const struct fan_group *group = &fan->groups[g];
        printf("%s\"%s\": {\"clients\": %u, \"joined\": %" PRIu64 ", \"sent\": %" PRIu64 ", \"deliveries\": %" PRIu64
               ", \"bytes_received\": %" PRIu64 ", \"disconnects\": %" PRIu64 ", \"throttled\": %" PRIu64
               ", \"dropped\": %" PRIu64 ", \"stalled\": %" PRIu64 ", \"resumed\": %" PRIu64
               ", \"rosters_wrong\": %" PRIu64,
               g > 0 ? ", " : "", group->name, group->rooms * group->size, group->joined, group->sent,
               group->deliveries, group->bytes_received, group->disconnects, group->throttled, group->dropped,
               group->stalled, group->resumed, group->rosters_wrong);
        print_histogram("latency", &group->latency_us);
        print_histogram("staleness", &group->staleness_us);
        printf("}");
    }
    printf("}}\n");
}

int main(int argc, char **argv)
{
    static struct options options;
    static struct fan fan;
    unsigned next[FAN_GROUPS_MAX] = {0};
    uint32_t run;
    struct rlimit files;
    parse(&options, &fan, argc, argv);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (getrandom(&run, sizeof run, 0) != sizeof run)
        return 1;
    snprintf(fan.run, sizeof fan.run, "%08x", run);
    arena_init(&fan.arena, 16 * 1024 * 1024);
    static struct swarm_options conn_options;
    conn_options.targets[0].loopback = true;
    conn_options.seed = run;
    fan.conns = conn_context_new(epoll_create1(EPOLL_CLOEXEC), &conn_options, &fan_handlers);
    if (fan.conns == NULL)
        return 1;
    fan.conns->takes_text = fan.dialect == FAN_WS || fan.dialect == FAN_SOCKETIO;
    make_clients(&fan);
    join_all(&fan, &options, next);
    double took_s = talk(&fan, &options, next);
    print_result(&fan, &options, took_s);
    for (unsigned i = 0; i < fan.client_count; i++) {
        if (fan.clients[i].conn.fd >= 0)
            conn_close(&fan.clients[i].conn);
        free(fan.clients[i].heard_us);
        free(fan.clients[i].resume_token);
    }
    free(fan.clients);
    free(fan.rooms);
    conn_context_free(&fan.conns);
    arena_done(&fan.arena);
    return 0;
}
