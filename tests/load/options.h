/* What the user asked for: signalbox-swarm's command line, checked, with the limits that keep a slip of the finger from
 * hurting a host.
 *
 * Ownership: strings are borrowed from the command line and the environment. */
#ifndef SBX_LOAD_OPTIONS_H
#define SBX_LOAD_OPTIONS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    URLS_MAX = 64,
    PIDS_MAX = 64,
    ROOM_SIZE_MAX = 64,
    PARTICIPANTS_MAX = 250000,
    PARTICIPANTS_PER_PROCESS = 18000,
    PROCESSES_MAX = 64,
    CONNECTIONS_PER_ADDRESS = 4000,
    JOIN_RATE_MAX = 20000,
    IN_FLIGHT_MAX = 18000,
};

/* Kinds of TLS handshakes with which everybody comes back; a run may have a storm of each. */
enum storm { STORM_FULL, STORM_RESUMED, STORMS };

/* Processes whose memory and CPU time are measured together. */
enum tier { TIER_GATEWAYS, TIER_SHARDS, TIER_BUS, TIER_SWARM, TIERS };

extern const char *const tier_names[TIERS];

struct target {
    struct sockaddr_storage address;
    socklen_t address_size;
    const char *path; /* NULL: /v1/connect */
    char host[256];   /* as given: the Host header and the name in the certificate */
    bool loopback;
};

struct pids {
    pid_t pids[PIDS_MAX];
    size_t count;
};

struct swarm_options {
    struct target targets[URLS_MAX];
    size_t target_count;
    const char *key, *secret, *ca_file, *json_file, *html_file, *history_dir;
    unsigned participants, processes;
    unsigned room_size_fixed; /* 0: drawn, with the mean below */
    double room_size_mean;
    double join_rate; /* per second */
    double idle_s, hold_s, settle_s;
    double messages_per_min, mutes_per_min, signals_per_min; /* per participant */
    double churn_percent_per_min;
    bool storms[STORMS];
    double storm_rate;  /* per second; 0: all at once */
    unsigned in_flight; /* connections on their way, per process, at most */
    bool bare;          /* TLS and the upgrade alone, against signalbox-bare */
    uint64_t seed;
    bool quiet, steady, driven;
    struct pids tiers[TIERS]; /* the swarm's own are known once it has begun */
};

enum options_result { OPTIONS_OK = 0, OPTIONS_HELP = -1, OPTIONS_USAGE = -2 };

/* Explains on standard error (or, for --help, on standard output) whatever is not OPTIONS_OK. */
enum options_result options_parse(struct swarm_options *ret_options, int argc, char **argv);

#endif
