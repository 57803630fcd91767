/* signalbox-fan: groups of clients that are cheap enough to be many, and send what the fanout's benchmarks ask for. It
 * speaks Signalbox's protocol, and just as much of others' as it takes to make them do the same work.
 *
 * Every payload carries the moment at which it was sent and by whom, in ASCII, so that a delivery is recognised in
 * whatever a server has wrapped around it, and a latency needs no state.
 *
 * Threading: one process, one loop. */
#ifndef SBX_LOAD_FAN_H
#define SBX_LOAD_FAN_H

#include "common/arena.h"
#include "common/ids.h"
#include "tests/load/conn.h"
#include "tests/load/histogram.h"
#include <stdbool.h>
#include <stdint.h>

enum { FAN_GROUPS_MAX = 8, FAN_TARGETS_MAX = 8, FAN_CPU_MAX = 8, FAN_PAYLOAD_MIN = 32, FAN_PAYLOAD_MAX = 16000 };

enum fan_dialect {
    FAN_SIGNALBOX,
    FAN_CONTROL,  /* Signalbox's messages, without rosters: signalbox-control */
    FAN_WS,       /* peers/ws.mjs */
    FAN_SOCKETIO, /* peers/socketio.mjs */
};

enum fan_kind { FAN_MESSAGE, FAN_SIGNAL };

struct fan_group {
    char name[32];
    unsigned rooms, size, senders; /* of each room, the first ones send */
    enum fan_kind kind;
    double rate;          /* of each sender, per second; 0: as `outstanding` says */
    unsigned outstanding; /* of a room, messages that not everybody has */
    double join_at_s, join_rate;
    unsigned bytes;
    unsigned cluster;       /* which of the targets' sets */
    unsigned stall_percent; /* of its clients stop reading at stall_at_s, for stall_s */
    double stall_at_s, stall_s;
    bool unique_keys; /* every signal under a key of its own: nothing is overtaken */

    uint64_t stalled, resumed, rosters_wrong; /* the last: at the end, of those that stalled */
    uint64_t joined, sent, deliveries, bytes_received, disconnects, throttled, dropped;
    struct histogram latency_us;
    struct histogram staleness_us; /* signals: since the first update that the receiver had not yet heard of */
};

struct fan_room {
    char name[64];
    uint64_t sent, delivered;
};

struct fan_client {
    struct conn conn;
    struct fan *fan;
    struct fan_group *group;
    struct fan_room *room;
    unsigned number; /* within the room */
    uint64_t seq;    /* of its messages to the room */
    double next_send_s;
    int64_t *heard_us; /* by sender: when what it heard last was sent */
    bool joined;
    bool stalls, stalled;
    char *resume_token; /* of those that stall */
    unsigned roster;    /* how many its last snapshot listed */
};

struct fan {
    struct conn_context *conns;
    struct arena arena;
    enum fan_dialect dialect;
    const char *key, *secret;
    char run[9]; /* in names, so that two runs never meet */
    struct fan_group groups[FAN_GROUPS_MAX];
    unsigned group_count, client_count, joining;
    struct fan_client *clients;
    struct fan_room *rooms;
    bool measuring;
    struct histogram turn_us; /* between two turns of the loop: what the clients themselves may add to a latency */
};

int64_t fan_now_us(void);
/* fan_client.c */
extern const struct conn_handlers fan_handlers;
void fan_client_send(struct fan_client *client);

#endif
