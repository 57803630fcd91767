#include "tests/load/options.h"
#include "common/jwt.h"
#include <getopt.h>
#include <math.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const char HELP[] =
    "signalbox-swarm --url URL [--url URL...] [OPTION...]\n"
    "\n"
    "Fills a Signalbox with participants that speak the real protocol (TLS, WebSocket, protobuf), checks what they "
    "are\n"
    "promised and measures what it costs. Participants are dealt out to the URLs in turn, so rooms span gateways.\n"
    "Exit status: 0 all promises held, 1 one did not, 2 wrong usage.\n"
    "\n"
    "Where\n"
    "  --url wss://HOST:PORT    a gateway; up to 64\n"
    "  --key KEY --secret TEXT  API key to sign tokens with (default $SIGNALBOX_API_KEY, $SIGNALBOX_API_SECRET)\n"
    "  --ca FILE                certificate authority; without it loopback is not verified, other hosts by the "
    "system's\n"
    "  --yes-i-own-this-host    allow targets that are not loopback addresses\n"
    "How many\n"
    "  --participants N         1 to 250000 (default 100)\n"
    "  --processes N            worker processes (default: as few as hold 18000 each)\n"
    "  --room-size N|mean:M     N each, or 2 to 50 with the mean M (default mean:5)\n"
    "  --join-rate R            joins a second (default 200)\n"
    "  --seed N                 of room sizes and traffic (default 1)\n"
    "What they do\n"
    "  --idle S                 seconds of quiet after everybody has joined, before the traffic (default 0)\n"
    "  --hold S                 seconds to stay then, with the traffic (default 10)\n"
    "  --messages R             directed messages per participant and minute (default 0)\n"
    "  --mutes R                mute toggles per participant and minute (default 0)\n"
    "  --signals R              speaking signals per participant and minute (default 0)\n"
    "  --churn P                percent of the participants that leave and join anew, per minute (default 0)\n"
    "  --storm full|resumed|both\n"
    "                           after the hold, cut every connection and come back by resume token, with full or "
    "resumed\n"
    "                           TLS handshakes, or once with each\n"
    "  --storm-rate R           connections a second in the storm (default 0: all at once)\n"
    "  --steady                 the messages of each room at even intervals, room after room, instead of drawn ones\n"
    "  --driven                 tell each phase on standard output, and hold until standard input says what to do:\n"
    "                           'renew' gives every other participant of each room another network, 'go' ends the "
    "hold\n"
    "  --in-flight N            connections on their way per process, at most (default 64)\n"
    "  --bare                   TLS and upgrade alone, against signalbox-bare: the reference\n"
    "  --settle S               longest wait for rosters and messages at a checkpoint (default 30)\n"
    "What is reported\n"
    "  --json FILE              write the result there\n"
    "  --history DIR            write down what everybody sent, received and saw, for tests/faults/history.py\n"
    "  --html FILE              write a report with plots there\n"
    "  --quiet                  no progress line\n"
    "  --gateway-pids A,B,...   measure these processes' memory and CPU time, per connection\n"
    "  --shard-pids A,B,...     the same, per participant\n"
    "  --bus-pids A,B,...       the same, of nats-server\n";

const char *const tier_names[TIERS] = {
    [TIER_GATEWAYS] = "gateways", [TIER_SHARDS] = "shards", [TIER_BUS] = "bus", [TIER_SWARM] = "swarm"};

enum { OPTION_OWN = 1000, OPTION_HELP, OPTION_QUIET, OPTION_BARE, OPTION_STEADY, OPTION_DRIVEN, OPTION_HISTORY };

__attribute__((format(printf, 1, 2))) static enum options_result usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("signalbox-swarm: ", stderr);
    vfprintf(stderr, format, args);
    fputs("; --help says what it takes\n", stderr);
    va_end(args);
    return OPTIONS_USAGE;
}

static bool parse_number(const char *text, double min, double max, double *ret_value)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value) || value < min || value > max)
        return false;
    *ret_value = value;
    return true;
}

static bool parse_count(const char *text, double min, double max, unsigned *ret_value)
{
    double value;
    if (!parse_number(text, min, max, &value) || value != floor(value))
        return false;
    *ret_value = (unsigned)value;
    return true;
}

static bool parse_pids(const char *text, struct pids *ret_pids)
{
    ret_pids->count = 0;
    while (ret_pids->count < PIDS_MAX) {
        char *end;
        long pid = strtol(text, &end, 10);
        if (end == text || pid <= 0)
            return false;
        ret_pids->pids[ret_pids->count++] = (pid_t)pid;
        if (*end == '\0')
            return true;
        if (*end != ',')
            return false;
        text = end + 1;
    }
    return false;
}

static bool parse_room_size(const char *text, struct swarm_options *options)
{
    options->room_size_fixed = 0;
    if (strncmp(text, "mean:", 5) == 0)
        return parse_number(text + 5, 2, 25, &options->room_size_mean);
    return parse_count(text, 1, ROOM_SIZE_MAX, &options->room_size_fixed);
}

static bool is_loopback(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

static enum options_result parse_url(const char *url, struct target *target)
{
    char port[8] = "443";
    const char *begin = url + strlen("wss://"), *end, *colon;
    if (strncmp(url, "wss://", strlen("wss://")) != 0)
        return usage("--url takes wss://HOST[:PORT], not '%s'", url);
    end = begin + strcspn(begin, "/");
    if (*end != '\0' && end[1] != '\0')
        return usage("--url takes no path; participants connect to /v1/connect: '%s'", url);
    colon = memrchr(begin, ':', (size_t)(end - begin));
    if (colon != NULL)
        snprintf(port, sizeof port, "%.*s", (int)(end - colon - 1), colon + 1);
    else
        colon = end;
    if (colon == begin || (size_t)(colon - begin) >= sizeof target->host)
        return usage("no host in '%s'", url);
    snprintf(target->host, sizeof target->host, "%.*s", (int)(colon - begin), begin);

    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
    /* On loopback IPv4 has 16 million source addresses, IPv6 one. */
    if (strcmp(target->host, "localhost") == 0)
        hints.ai_family = AF_INET;
    int status = getaddrinfo(target->host, port, &hints, &found);
    if (status != 0)
        return usage("'%s': %s", url, gai_strerror(status));
    memcpy(&target->address, found->ai_addr, found->ai_addrlen);
    target->address_size = found->ai_addrlen;
    target->loopback = is_loopback(&target->address);
    freeaddrinfo(found);
    return OPTIONS_OK;
}

/* One option with a value; the row's function or bounds say what is right. */
static enum options_result take(struct swarm_options *options, int option, const char *value)
{
    static const struct {
        size_t offset;
        double min, max;
        int option;
    } numbers[] = {
        {offsetof(struct swarm_options, join_rate), 0.1, JOIN_RATE_MAX, 'j'},
        {offsetof(struct swarm_options, idle_s), 0, 86400, 'i'},
        {offsetof(struct swarm_options, hold_s), 0, 7 * 86400, 'o'},
        {offsetof(struct swarm_options, settle_s), 1, 3600, 'e'},
        {offsetof(struct swarm_options, messages_per_min), 0, 6000, 'm'},
        {offsetof(struct swarm_options, mutes_per_min), 0, 600, 'M'},
        {offsetof(struct swarm_options, signals_per_min), 0, 6000, 'g'},
        {offsetof(struct swarm_options, churn_percent_per_min), 0, 1000, 'c'},
        {offsetof(struct swarm_options, storm_rate), 0, JOIN_RATE_MAX, 'S'},
    };
    bool good = true;
    unsigned seed = 0;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (numbers[i].option == option)
            return parse_number(value, numbers[i].min, numbers[i].max, (double *)((char *)options + numbers[i].offset))
                       ? OPTIONS_OK
                       : usage("expected a number from %g to %g, not '%s'", numbers[i].min, numbers[i].max, value);
    }
    switch (option) {
    case 'u':
        if (options->target_count == URLS_MAX)
            return usage("at most %d URLs", URLS_MAX);
        return parse_url(value, &options->targets[options->target_count++]);
    case 'k':
        options->key = value;
        break;
    case 's':
        options->secret = value;
        break;
    case 'a':
        options->ca_file = value;
        break;
    case 'L':
        options->html_file = value;
        break;
    case 'J':
        options->json_file = value;
        break;
    case OPTION_HISTORY:
        options->history_dir = value;
        break;
    case 'n':
        good = parse_count(value, 1, PARTICIPANTS_MAX, &options->participants);
        break;
    case 'p':
        good = parse_count(value, 1, PROCESSES_MAX, &options->processes);
        break;
    case 'r':
        good = parse_room_size(value, options);
        break;
    case 'd':
        good = parse_count(value, 0, 4e9, &seed);
        options->seed = seed;
        break;
    case 't':
        good = strcmp(value, "full") == 0 || strcmp(value, "resumed") == 0 || strcmp(value, "both") == 0;
        options->storms[STORM_FULL] = value[0] != 'r';
        options->storms[STORM_RESUMED] = value[0] != 'f';
        break;
    case 'f':
        good = parse_count(value, 1, IN_FLIGHT_MAX, &options->in_flight);
        break;
    case 'G':
        good = parse_pids(value, &options->tiers[TIER_GATEWAYS]);
        break;
    case 'H':
        good = parse_pids(value, &options->tiers[TIER_SHARDS]);
        break;
    case 'B':
        good = parse_pids(value, &options->tiers[TIER_BUS]);
        break;
    default:
        return OPTIONS_USAGE; /* getopt has said why */
    }
    return good ? OPTIONS_OK : usage("'%s' is out of range or of the wrong form", value);
}

static enum options_result check(struct swarm_options *options, bool owned)
{
    struct rlimit files;
    unsigned per_process;
    if (options->target_count == 0)
        return usage("give at least one --url");
    for (size_t i = 0; i < options->target_count; i++)
        if (!options->targets[i].loopback && !owned)
            return usage("%s is not on this machine; add --yes-i-own-this-host if this load is welcome there",
                         options->targets[i].host);
    if (!options->bare && (options->key == NULL || options->key[0] == '\0' || strlen(options->key) > JWT_KEY_ID_MAX))
        return usage("give an API key of up to %d bytes by --key or $SIGNALBOX_API_KEY", JWT_KEY_ID_MAX);
    if (!options->bare && (options->secret == NULL || strlen(options->secret) < JWT_SECRET_MIN))
        return usage("give the key's secret, at least %d bytes, by --secret or $SIGNALBOX_API_SECRET", JWT_SECRET_MIN);
    if (options->processes == 0)
        options->processes = (options->participants + PARTICIPANTS_PER_PROCESS - 1) / PARTICIPANTS_PER_PROCESS;
    if (options->processes > options->participants)
        return usage("more processes than participants");
    per_process = (options->participants + options->processes - 1) / options->processes;
    if (per_process > PARTICIPANTS_PER_PROCESS)
        return usage("%u participants need at least %u processes", options->participants,
                     (options->participants + PARTICIPANTS_PER_PROCESS - 1) / PARTICIPANTS_PER_PROCESS);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur < per_process + 64)
        return usage("%u connections per process need a descriptor limit of %u (ulimit -n)", per_process,
                     per_process + 64);
    return OPTIONS_OK;
}

enum options_result options_parse(struct swarm_options *ret_options, int argc, char **argv)
{
    static const struct option table[] = {
        {"url", required_argument, NULL, 'u'},
        {"key", required_argument, NULL, 'k'},
        {"secret", required_argument, NULL, 's'},
        {"ca", required_argument, NULL, 'a'},
        {"participants", required_argument, NULL, 'n'},
        {"processes", required_argument, NULL, 'p'},
        {"room-size", required_argument, NULL, 'r'},
        {"join-rate", required_argument, NULL, 'j'},
        {"seed", required_argument, NULL, 'd'},
        {"idle", required_argument, NULL, 'i'},
        {"hold", required_argument, NULL, 'o'},
        {"messages", required_argument, NULL, 'm'},
        {"mutes", required_argument, NULL, 'M'},
        {"signals", required_argument, NULL, 'g'},
        {"churn", required_argument, NULL, 'c'},
        {"storm", required_argument, NULL, 't'},
        {"storm-rate", required_argument, NULL, 'S'},
        {"in-flight", required_argument, NULL, 'f'},
        {"settle", required_argument, NULL, 'e'},
        {"json", required_argument, NULL, 'J'},
        {"html", required_argument, NULL, 'L'},
        {"gateway-pids", required_argument, NULL, 'G'},
        {"shard-pids", required_argument, NULL, 'H'},
        {"bus-pids", required_argument, NULL, 'B'},
        {"history", required_argument, NULL, OPTION_HISTORY},
        {"steady", no_argument, NULL, OPTION_STEADY},
        {"driven", no_argument, NULL, OPTION_DRIVEN},
        {"yes-i-own-this-host", no_argument, NULL, OPTION_OWN},
        {"quiet", no_argument, NULL, OPTION_QUIET},
        {"bare", no_argument, NULL, OPTION_BARE},
        {"help", no_argument, NULL, OPTION_HELP},
        {NULL, 0, NULL, 0},
    };
    struct swarm_options options = {.participants = 100,
                                    .room_size_mean = 5,
                                    .join_rate = 200,
                                    .hold_s = 10,
                                    .settle_s = 30,
                                    .in_flight = 64,
                                    .seed = 1,
                                    .key = getenv("SIGNALBOX_API_KEY"),
                                    .secret = getenv("SIGNALBOX_API_SECRET")};
    bool owned = false;
    int option;
    enum options_result result;

    while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
        if (option == OPTION_HELP) {
            fputs(HELP, stdout);
            return OPTIONS_HELP;
        }
        if (option == OPTION_OWN)
            owned = true;
        else if (option == OPTION_QUIET)
            options.quiet = true;
        else if (option == OPTION_STEADY)
            options.steady = true;
        else if (option == OPTION_DRIVEN)
            options.driven = true;
        else if (option == OPTION_BARE)
            options.bare = true;
        else if ((result = take(&options, option, optarg)) != OPTIONS_OK)
            return result;
    }
    if (optind < argc)
        return usage("unexpected argument '%s'", argv[optind]);
    if ((result = check(&options, owned)) == OPTIONS_OK)
        *ret_options = options;
    return result;
}
