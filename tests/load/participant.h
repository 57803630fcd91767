/* One participant: a client of docs/PROTOCOL.md, and what it believes of its room.
 *
 * A room's members belong to one worker, so that the truth about a room is at hand: a roster is right when each member
 * that is joined is in it under its sid with its mute state, and nobody else. Directed messages carry their number and
 * the moment at which they were due in their text, so that exactly once in order is checked on what arrives, not on
 * what the protocol says arrived.
 *
 * Memory: a participant takes its struct, its resume token, and one `struct link` for each seat of its room.
 * Ownership: the worker owns the participants; each owns its connection, links and token.
 * Threading: the worker's loop. */
#ifndef SBX_LOAD_PARTICIPANT_H
#define SBX_LOAD_PARTICIPANT_H

#include "common/arena.h"
#include "common/epoch.h"
#include "common/ids.h"
#include "common/timer.h"
#include "proto/client.pb-c.h"
#include "tests/load/conn.h"
#include "tests/load/history.h"
#include "tests/load/options.h"
#include "tests/load/stats.h"
#include <stdbool.h>
#include <stdint.h>

/* Directed messages that one participant keeps unacknowledged for another; the protocol allows more. */
enum { LINK_WINDOW = 4 };

/* What a participant knows of another of its room (or of itself), and their messages. */
struct link {
    struct sid sid;
    uint64_t version;
    int64_t due_us[LINK_WINDOW]; /* of message n at n % LINK_WINDOW: enough to make it again */
    int64_t resend_ms;           /* 0: nothing unacknowledged */
    uint32_t sent, acked, received;
    uint8_t resends; /* in a row */
    bool overdue;    /* repeated in vain, and nothing heard since */
    bool present;    /* in the roster */
    bool known;      /* `sid` is valid; with !present it has left */
    bool muted;
    bool ended; /* declared undeliverable */
    bool owes_ack;
    bool listed; /* in the snapshot that is coming in */
};

struct room {
    struct participant *first; /* of `size` */
    uint32_t number;
    uint8_t size;
};

enum participant_state {
    PARTICIPANT_AWAY,    /* not begun, or left */
    PARTICIPANT_QUEUED,  /* in the worker's queue for a connection */
    PARTICIPANT_WAITING, /* for its timer, before another attempt */
    PARTICIPANT_CONNECTING,
    PARTICIPANT_SYNCING, /* hello_ok was there, the snapshot not yet */
    PARTICIPANT_JOINED,
};

struct participant {
    struct conn conn;
    struct timer timer; /* whatever is due next: acknowledgement, repetition, ping, time-out, another attempt */
    struct list queued;
    struct worker *worker;
    struct room *room;
    struct link *links; /* one for each seat of the room, its own included */
    char *resume_token; /* NULL: none */
    uint32_t resumes;   /* connections opened to resume this session */
    int64_t due_us;     /* when it was to come (back) */
    int64_t connect_us;
    int64_t heard_ms;
    int64_t muted_due_us;
    int64_t ack_ms;       /* 0: nothing to acknowledge */
    int64_t reconnect_ms; /* when to go to another gateway, having been asked to; 0: not */
    int64_t sync_ms;      /* a sync_state that is not answered by then is asked again; 0: none */
    uint64_t seq, snapshot_seq;
    uint64_t behind_seq; /* the server's position at the last pong, if this was not there yet */
    uint32_t retry_after_ms;
    struct sid sid;
    uint32_t number; /* within the worker */
    uint8_t seat;
    uint8_t state; /* enum participant_state */
    uint8_t attempts;
    bool muted;
    bool pulling; /* a snapshot in pages */
    bool pinged;
    bool in_flight;                 /* counted in the worker's connections on their way */
    bool leaving;                   /* has said so; the server closes */
    bool rejoin;                    /* joins anew when it has left */
    bool fresh;                     /* the session is new, not resumed */
    bool moved;                     /* connects from its other address */
    char epoch[EPOCH_TEXT_MAX + 1]; /* "": no position */
};

/* What participants share. */
struct worker {
    const struct swarm_options *options;
    struct worker_stats *stats;
    struct history *history; /* NULL: none is kept */
    struct conn_context *conns;
    struct timer_wheel wheel;
    struct arena arena;
    struct list queue;   /* to be connected, at the worker's pace */
    struct list retries; /* to be connected as soon as there is room among those on their way */
    struct participant *participants;
    struct room *rooms;
    uint32_t participant_count, room_count, in_flight;
    uint32_t next_room; /* whose turn it is in steady traffic */
    unsigned index;
    uint64_t random_state;
    char run[9];                                           /* in room names, so that two runs never meet */
    int64_t ping_interval_ms, retransmit_ms, ack_delay_ms; /* of the newest hello_ok */
    uint32_t retry_base_ms, retry_max_ms;
    bool resume_tls;
};

extern const struct conn_handlers participant_handlers;

/* Uniform in 0 .. bound - 1. */
uint32_t worker_random(struct worker *worker, uint32_t bound);

/* `due_us`: what latencies count from. */
void participant_connect(struct participant *participant, int64_t due_us);
/* Cuts the connection without a word; the session can be resumed. */
void participant_cut(struct participant *participant);
/* Its network is back, or another: it connects anew at once, whatever it had, and from another address. */
void participant_renew(struct participant *participant);
/* Departs for good. */
void participant_leave(struct participant *participant);
void participant_toggle_mute(struct participant *participant, int64_t due_us);
/* Says its mute state again if its roster shows another: a request that was lost with its connection. */
void participant_repeat_mute(struct participant *participant);
void participant_signal(struct participant *participant);
void participant_init(struct participant *participant, struct worker *worker, struct room *room, uint32_t number);
void participant_done(struct participant *participant);

/* directed.c */
void directed_send(struct participant *participant, unsigned seat, int64_t due_us);
void directed_receive(struct participant *participant, const Signalbox__V1__ServerMessage *message);
/* Sends again whatever is unacknowledged, to everybody. */
void directed_repeat_all(struct participant *participant);
/* The same, and acknowledges to everybody what has arrived, be it nothing: whoever waits for it hears that it is back.
 */
void directed_return(struct participant *participant);
/* Acknowledgements and repetitions that are due; returns when to come again, INT64_MAX for never. */
int64_t directed_upkeep(struct participant *participant, int64_t now_ms);
/* Messages of this participant that are on their way. */
unsigned directed_count_open(const struct participant *participant);
/* Messages between the members of a room that were lost, when all is quiet. */
unsigned directed_count_lost(const struct participant *participant);

/* participant.c, for directed.c */
void participant_send(struct participant *participant, const Signalbox__V1__ClientMessage *message);
void participant_arm(struct participant *participant, int64_t due_ms);

#endif
