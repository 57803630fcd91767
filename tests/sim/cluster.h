/* The simulated cluster in which membership takes part: each process owns what a real one does (membership with its
 * detector, links, a shard or a gateway), wired as common/node.c and the process.c files wire it, on a simulated bus
 * and view log. Implements what model clients use of world.h; world.c is the smaller world, in which views are given.
 *
 * A process has a timer wheel of its own, so that one which is paused handles nothing until it wakes, and then all at
 * once. Ownership: cluster_free() frees everything. Threading: one thread. Everything that is drawn, ids included,
 * comes from the seed.
 */
#ifndef SBX_TESTS_SIM_CLUSTER_H
#define SBX_TESTS_SIM_CLUSTER_H

#include "common/epoch.h"
#include "common/membership.h"
#include "gateway/gateway.h"
#include "shard/shard.h"
#include "tests/sim/heap.h"
#include "tests/sim/world.h"

enum { CLUSTER_SERVERS = 2, CLUSTER_ROOMS = 6, CLUSTER_NO_ROOM = -1, CLUSTER_PROCESSES_MAX = 72 };

#define INJECTED_TABLE(X)                                                                                              \
    X(LOSS, "bus messages lost")                                                                                       \
    X(DUPLICATE, "bus messages duplicated")                                                                            \
    X(HELD_UP, "heartbeats that came again, held up for 1 to 6 s")                                                     \
    X(DELAY, "bus messages delayed")                                                                                   \
    X(CRASH, "crashes")                                                                                                \
    X(RESTART, "restarts under the same id")                                                                           \
    X(PAUSE, "pauses")                                                                                                 \
    X(PARTITION, "partitions of two processes")                                                                        \
    X(ONE_WAY, "one-way partitions of two processes")                                                                  \
    X(BUS_CUT, "partitions from the bus")                                                                              \
    X(SERVER_LOST, "NATS servers lost with all connections to them")                                                   \
    X(LEADERLESS, "leaderless periods of the log")                                                                     \
    X(LOG_FAILED, "log requests failed")                                                                               \
    X(LOG_UNKNOWN, "appends with an unknown outcome")                                                                  \
    X(LOG_SLOW, "log requests slow")                                                                                   \
    X(LOG_TRUNCATED, "losses of the log's last entries")                                                               \
    X(LOG_LOST, "losses of the whole log")                                                                             \
    X(LEAVE, "graceful leaves")                                                                                        \
    X(DRAIN, "shards drained")                                                                                         \
    X(LOADED, "shards under pressure, or relieved of it")                                                              \
    X(FULL, "shards that were full for a while")                                                                       \
    X(JOIN, "joins of a new process")                                                                                  \
    X(REMOVAL, "removals by others")                                                                                   \
    X(REJOIN, "rejoins as a new incarnation")                                                                          \
    X(WEIGHT, "starts with another weight")                                                                            \
    X(REGION, "starts in another region")                                                                              \
    X(RESCUE, "worlds in which the dead had to be started for the others to go on")                                    \
    X(CLIENT_LOST, "clients' networks lost")                                                                           \
    X(AMBUSH, "shards killed as the first of several rooms began to move to them")                                     \
    X(UNHEARD, "shards killed after they had taken rooms over and could not say so")                                   \
    X(CLIENT_LEFT, "clients who left")                                                                                 \
    X(CLIENT_RELOADED, "pages reloaded")

enum injected {
#define X(name, help) INJECTED_##name,
    INJECTED_TABLE(X)
#undef X
        INJECTED_COUNT
};

struct process {
    struct world *world;
    int index;
    struct node_address address;
    char subject[LINK_SUBJECT_MAX];
    struct timer_wheel wheel;
    struct membership *membership;
    struct links *links;
    char region[REGION_MAX + 1];
    uint32_t weight;
    enum membership_pressure pressure;
    int64_t full_until_ms;
    int64_t leave_by_ms;     /* a drain's deadline; 0: none */
    struct gateway *gateway; /* one of the two */
    struct shard *shard;
    bool alive, bus_up, acting, flush_wanted, release_wanted, rejoin_wanted, leave_wanted, ended, leaving;
    struct view_number marker; /* a shard's, as it was checked last */
    uint64_t life;             /* of the process; incarnations may change within it */
    uint64_t beat;
    int64_t paused_until_ms;
    int64_t cut_until_ms;  /* from the bus */
    int64_t mute_until_ms; /* nor does its second connection work */
    int64_t links_due_ms;  /* -1: nothing waits */
    int64_t last_arrival_ms[CLUSTER_PROCESSES_MAX];
    int64_t log_ms;                               /* requests to the log keep their order */
    int64_t deaf_until_ms[CLUSTER_PROCESSES_MAX]; /* to what these send */
    struct epoch epochs[CLUSTER_ROOMS]; /* gateways: the greatest seen; shards: of the room held at the last check */
};

struct world_conn {
    struct world *world;
    struct world_conn *next;
    struct process *process;
    uint64_t life; /* of the process, when it was dialled */
    struct client *client;
    struct conn_handlers handlers;
    void *ctx;
    bool listening;
    int64_t to_client_ms, to_gateway_ms;
};

enum event_kind {
    EVENT_LINK,
    EVENT_HEARTBEAT,
    EVENT_VIEW,
    EVENT_UNREACHABLE,
    EVENT_BUS_UP,
    EVENT_BUS_DOWN,
    EVENT_WAKE,
    EVENT_KILL,
    EVENT_LOG_READ,
    EVENT_LOG_ENTRY,
    EVENT_LOG_APPEND,
    EVENT_LOG_READ_DONE,
    EVENT_LOG_ENTRY_DONE,
    EVENT_LOG_APPEND_DONE,
    EVENT_OPEN,
    EVENT_TO_GATEWAY,
    EVENT_GONE,
    EVENT_TO_CLIENT,
    EVENT_CLOSED,
};

struct event {
    int64_t at_ms;
    uint64_t order;
    enum event_kind kind;
    struct process *process; /* who handles it; NULL: a client or the log itself */
    uint64_t incarnation;    /* of that process; 0: any */
    struct process *from;    /* LOG_*: who asked */
    struct world_conn *conn;
    struct payload *bytes;
    uint64_t number;  /* expected sequence, sequence, incarnation */
    int64_t asked_ms; /* LOG_*: when */
    enum viewlog_result result;
    uint16_t code;
    bool clean;
};

struct log_entry {
    struct payload *bytes;
    struct view *view;
    bool taken;                             /* some process has had it */
    uint64_t had_by[CLUSTER_PROCESSES_MAX]; /* in which of its lives each has had it */
};

/* An epoch under which some shard has held a room. */
struct used_epoch {
    struct epoch epoch;
    int room;
};

/* Who owns each room in a view, computed once. */
struct owner_row {
    struct view_number view;
    uint64_t owners[CLUSTER_ROOMS]; /* incarnations; 0: nobody */
};

enum { CLUSTER_OWNER_ROWS = 64 };

struct story;

struct world {
    uint64_t seed, random;
    int64_t now_ms;
    struct story *story;
    bool restless, regions;
    bool narrow;              /* shards hand over one room at a time: the others wait in line */
    bool ambushes;            /* trouble of that kind may come */
    struct timer_wheel wheel; /* of the clients */
    int shards, gateways;     /* gateways first */
    struct process *processes;
    struct membership_times times;
    uint32_t loss, duplication, delay_max_ms, log_trouble; /* permille, permille, ms, permille */
    uint64_t lives;
    int64_t leaderless_until_ms;
    int64_t log_lost_ms; /* when its servers ended last: what was under way to them then is lost */
    struct log_entry *log;
    size_t log_count;
    struct log_entry *entries; /* all that were ever appended, in the order of appending */
    size_t entry_count;
    struct view *newest; /* of those, by number; borrowed from them */
    struct world_conn *conns;
    struct heap events;
    uint64_t digest; /* of every event handled so far */
    struct jwt_keyring *keyring;
    struct token_keys token_keys;
    struct room_key rooms[CLUSTER_ROOMS];
    struct owner_row owner_rows[CLUSTER_OWNER_ROWS];
    struct used_epoch *used_epochs;
    size_t used_epoch_count;
    struct epoch live_epochs[CLUSTER_ROOMS]; /* the greatest under which an owner that may act has held the room */
    uint64_t handoffs_taken;                 /* M_HANDOFFS at the last check */
    uint64_t injected[INJECTED_COUNT];
};

extern const char *const cluster_room_names[CLUSTER_ROOMS];

/* The story is borrowed. */
struct world *cluster_new(uint64_t seed, int shards, int gateways, struct story *story);
void cluster_free(struct world **world);
/* What befell the cluster, or what it has done, for the story. */
void cluster_tell(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* `invariant` names what does not hold; `room` indexes cluster_room_names, or CLUSTER_NO_ROOM. The first counts. */
void cluster_violated(struct world *world, const char *invariant, int room, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
bool cluster_broken(const struct world *world);

void process_start(struct process *process);
void process_crash(struct process *process);
void process_pause(struct process *process, int64_t ms);
void process_cut(struct process *process, int64_t ms);
/* A NATS server ends: its processes are off the bus for so long, and heard over their second connections meanwhile. */
void cluster_lose_server(struct world *world, int server, int64_t ms);
/* A shard hands its rooms over and leaves. */
void process_drain(struct process *process, uint32_t within_ms);
void process_leave(struct process *process);
bool process_runs(const struct process *process);
/* As the wiring sees it. */
bool process_may_act(struct process *process);

/* cluster_bus.c: events in their order, the bus, the log. */
bool cluster_chance(struct world *world, uint32_t permille);
void cluster_push(struct world *world, struct event event);
void cluster_drop_event(struct event *event);
int64_t cluster_later(struct world *world, int64_t *last_ms, uint32_t delay_max_ms);
/* Takes no reference; to NULL: every process that listens to this kind. */
void cluster_publish(struct process *from, enum event_kind kind, const char *subject, struct payload *bytes);
/* A heartbeat over the second connection. Draws nothing: it is as if it were not there for everything else. */
void cluster_publish_second(struct process *from, struct payload *bytes);
void cluster_probe(struct process *from, const struct node_address *node, struct payload *bytes);
void cluster_log_request(struct process *from, enum event_kind kind, struct payload *bytes, uint64_t expected_seq);
/* The log's servers end without having kept its last entries: so many, which may be all. */
void cluster_log_lose(struct world *world, size_t count);
void cluster_log_handle(struct world *world, struct event *event);
/* The newest that was appended, whatever has become of it since; NULL before the first. */
struct view *cluster_newest_view(const struct world *world);
/* The incarnation that owns the room in this view; 0: nobody. */
uint64_t cluster_owner(struct world *world, const struct view *view, int room);
int cluster_room_index(const struct world *world, const struct room_key *key);

/* cluster_check.c: what must hold after every step, and at the end. */
void cluster_check(struct world *world);
void cluster_check_view(struct process *process, const struct view *old, const struct view *view);
void cluster_check_item(struct process *process, const struct node_address *from);
/* True if every process is where it should be once nothing befalls them any more; else says what is not, as a violation
 * if `must`. */
bool cluster_check_calm(struct world *world, bool must);
bool cluster_lists(const struct view *view, const struct node_address *node);

#endif
