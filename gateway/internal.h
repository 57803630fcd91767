/* What the decision files of gateway/ share and nobody else sees: clients, sessions, rooms.
 *
 * Life of a session: JOINING (its state was sent, no owner has answered) -> BOUND (has a generation; attached while it
 * has a client, detached while not) -> DEPARTED (until the owner has acknowledged that). */
#ifndef SBX_GATEWAY_INTERNAL_H
#define SBX_GATEWAY_INTERNAL_H

#include "common/arena.h"
#include "common/bucket.h"
#include "common/epoch.h"
#include "common/history.h"
#include "common/ids.h"
#include "common/list.h"
#include "common/revocations.h"
#include "gateway/gateway.h"
#include "gateway/turn.h"
#include <uthash.h>

enum {
    GATEWAY_ARENA_MAX = 4 * 1024 * 1024,
    PENDING_RESULTS_MAX = 32,
    INTEREST_KEYS_MAX = 16,
    INTEREST_SIDS_MAX = 64,
    CLIENT_BUDGET_PERCENT = 100,
    SDP_MAX = 48 * 1024,
    CANDIDATE_MAX = 1024,
    MID_MAX = 32,
    TRACK_ID_MAX = 64,
    ATTRIBUTE_KEY_MAX = 64,
    ATTRIBUTE_VALUE_MAX = 512,
    TOPIC_MAX = 128,
    SIGNAL_KEY_MAX = 64,
};

/* Label values of M_THROTTLED. */
enum { THROTTLED_MESSAGES, THROTTLED_BYTES, THROTTLED_ROOM, THROTTLED_SIGNALS };
/* Values of the label of M_EPOCHS. */
enum epoch_outcome { EPOCH_HANDED_OVER, EPOCH_SAME_ROSTER, EPOCH_DIFFERS, EPOCH_STALE };

enum join_outcome { JOIN_OK, JOIN_RECOVERED, JOIN_RESUMED, JOIN_REFUSED, JOIN_TIMEOUT };
/* Label values of M_RECONNECTS. */
enum reconnect_outcome {
    RECONNECT_RECOVERED,
    RECONNECT_RESUMED,
    RECONNECT_UNAVAILABLE,
    RECONNECT_TIMEOUT,
    RECONNECT_WINDOW_OVER,
    RECONNECT_ENDED,
    RECONNECT_REVOKED,
    RECONNECT_INVALID,
    RECONNECT_REFUSED,
    RECONNECT_ABANDONED,
};
/* Of an attempt to resume that ends with this close code. */
enum reconnect_outcome reconnect_outcome_of(uint16_t close_code);

/* Positions in the metrics' labels. */
enum { DRAINED_TOLD, DRAINED_CLOSED };
enum join_deferral { DEFERRED_CONNECTIONS, DEFERRED_RATE, DEFERRED_MEMORY /* has a metric of its own */ };

enum session_state { SESSION_JOINING, SESSION_BOUND, SESSION_DEPARTED };

/* Why the room's traffic does not flow to a session at the moment. */
enum session_sync {
    SYNC_LIVE,    /* it flows */
    SYNC_WAITING, /* an acknowledgement with the room's state is to come */
    SYNC_ASKED,   /* a sync request is under way */
    SYNC_PAGING,  /* the client is pulling a snapshot's pages */
};

struct client {
    void *transport;
    bool closing;
    bool sent_away; /* by a drain */
    uint32_t hello_request_id;
    struct gateway *gateway;
    struct list link; /* gateway->clients */
    struct session *session;
    struct jwt_claims *claims; /* owned; until the session exists */
    uint32_t budget_percent;   /* of the configured budgets, by its token */
    uint32_t strikes;
    int64_t strikes_updated_ms;
    struct bucket messages, signals, bytes;
    int64_t throttled_ms; /* when it was told last that it is over its own budget */
    struct timer hello_timer;
};

/* A request whose result waits for the owner's acknowledgement of a version. */
struct pending_result {
    uint32_t request_id;
    uint64_t version;
};

struct interest {
    struct session *session;
    bool viewers;
    struct timer viewers_timer; /* their list is out of date, and asked for anew when it runs out */
    char *mute_keys[INTEREST_KEYS_MAX];
    size_t mute_key_count;
    struct sid sids[INTEREST_SIDS_MAX];
    size_t sid_count;
};

/* What a message to its whole room touches of each session comes first, and together. */
struct session {
    struct list room_link;
    struct client *client; /* NULL while detached or departed */
    uint8_t state;         /* enum session_state */
    uint8_t sync;          /* enum session_sync */
    uint8_t intent;        /* of the next state sent: JOIN, RESUME, HOLD */
    bool confirmed;        /* the client has sent something since hello_ok */
    bool confirm_pending;  /* ... and the owner has not been told */
    bool greeted;          /* hello_ok is out */
    bool hello_counted;    /* what became of its hello is in the metrics */
    bool by_sid;           /* in gateway->sessions_by_sid */
    bool reporting;        /* a new owner has not acknowledged it yet */
    bool says_departures;  /* its report carries those of the room */
    bool room_sent;        /* the client has sent to the room on this connection */
    bool has_position;     /* epoch and seq say where the client stands */
    bool ask_snapshot;     /* the sync request under way wants a snapshot */
    uint8_t repeats;
    uint64_t seq; /* everything up to (epoch, seq) was delivered */
    struct epoch epoch;

    struct gateway *gateway;
    struct sid sid;
    char sid_text[SID_TEXT_SIZE + 1];
    struct gw_room *room;
    Signalbox__V1__LeaveReason depart_reason;
    uint64_t connection;
    uint64_t bind_generation, token_bind_generation;
    uint64_t version, acked_version;
    struct epoch join_epoch;
    uint64_t join_seq;
    int64_t joined_at_ms;
    uint64_t participant_version; /* as the owner last acknowledged it */
    uint32_t participant_changes; /* of the wanted state, since the owner last acknowledged all of it */
    char *cursor;                 /* of the sync request under way; NULL: none */
    uint64_t room_send_acked;

    struct payload *participant; /* packed signalbox.v1.Participant: the wanted state */
    char key_id[JWT_KEY_ID_MAX + 1];
    int64_t access_expires_s;
    uint32_t resume_window_ms;
    uint32_t budget_percent, room_budget_percent; /* by the access token; 0: as configured */
    uint32_t grants_version;                      /* of the participant's permissions */
    struct sid replaces;                          /* while joining: whose place it takes; zero: nobody's known */
    uint32_t attempt;                             /* which of the client's to resume; 0: it does not count */
    int64_t window_ends_ms;                       /* while detached */
    int64_t quiet_until_ms;                       /* its room takes no signals before that */
    int64_t started_ms;
    struct interest *interest; /* NULL = everything */
    struct pending_result *results;
    uint8_t result_count;

    struct timer repeat_timer; /* of the wanted state or the sync request */
    struct timer end_timer;    /* join timeout, access token's expiry, resume window */
    struct list orphan_link;   /* gateway->orphans, while without a client */
    struct resync *resync;     /* waits to be announced there, or was and is not acknowledged yet; NULL: neither */
    struct list resync_link;   /* while it waits */
    uint32_t compare_mark;     /* of the last list of an owner's in which it was */

    UT_hash_handle hh_connection, hh_sid;
};

struct gw_room {
    struct gateway *gateway;
    struct room_key key;
    char *project, *name;
    char region[REGION_MAX + 1];
    struct node_address owner; /* incarnation 0: none */
    struct epoch epoch;
    char epoch_text[EPOCH_TEXT_MAX + 1];
    bool has_epoch;
    uint64_t seq;            /* every batch up to here has been seen */
    uint64_t digest;         /* of what it stands for, as the owner has said; 0: it has not */
    bool moving;             /* it has another owner, of which nothing was heard yet */
    bool syncing;            /* a request for what is missing is under way */
    uint64_t expected_seq;   /* what the owner is known to have reached */
    struct timer sync_timer; /* runs while seq is behind that */
    struct list sessions;    /* room_link */
    uint32_t session_count;
    uint32_t viewers_wanted;   /* sessions that want them listed */
    struct departed *departed; /* who has left in its clients' eyes, oldest first; departed.c */
    uint32_t departed_count;
    struct resync *resync; /* where its position waits to be said; NULL: it does not */
    struct list resync_link;
    UT_hash_handle hh;
};

struct drain {
    int64_t began_ms, deadline_ms;
    uint32_t spread_ms;
    size_t clients; /* when it began */
    size_t sent_away;
};

struct gateway {
    struct gateway_options options;
    struct jwt_keyring *keyring;
    struct token_keys token_keys;
    struct timer_wheel *wheel;
    struct gateway_actions actions;
    void *ctx;
    struct view *view;
    struct history history;
    bool bus_up;
    bool reached; /* shards hear it: it has the bus and is in the view */
    bool draining;
    enum shed_level shed;
    uint64_t connection_counter;
    struct list clients;
    size_t client_count;
    size_t reporting_count;      /* sessions that report to a new owner */
    struct view_number reported; /* the newest view for which there were none */
    struct list orphans;         /* sessions without a client, longest first */
    size_t orphan_count;
    struct session *sessions; /* hh_connection */
    struct session *sessions_by_sid;
    struct gw_room *rooms;
    struct resync *resyncs;
    struct revocations revocations;
    struct timer resync_timer;
    unsigned resync_budget; /* states that may still be said in this tick */
    struct compared *compared;
    struct timer compare_timer;
    unsigned compare_round;
    uint32_t compare_slice, compare_slices; /* which of the sessions are compared in this round */
    uint32_t compare_mark;                  /* of the list that is being looked at */
    struct gateway_capacity capacity;
    struct bucket join_rate;
    struct drain drain;
    struct timer drain_timer;
    size_t sent_away_count; /* of the clients: those are the last in the list */
    struct arena arena;     /* scratch of one call */
};

/* client.c */
void client_send(struct client *client, const Signalbox__V1__ServerMessage *message, enum message_class class);
void client_result(struct client *client, uint32_t request_id, Signalbox__V1__Code code, uint32_t retry_after_ms,
                   const char *text);
/* Sends `leave`, then closes. The session, if any, is not touched. */
void client_end(struct client *client, uint16_t close_code, Signalbox__V1__LeaveReason reason,
                Signalbox__V1__LeaveAction action, uint32_t retry_after_ms, const char *text);
/* Counts against a client that keeps on breaking rules; true if it has been closed for it, with `close_code` and
 * `reason`. */
bool client_strike(struct client *client, uint32_t strikes, uint16_t close_code, Signalbox__V1__LeaveReason reason,
                   int64_t now_ms);
/* 0 = as configured. */
void client_set_budget(struct client *client, uint32_t percent, int64_t now_ms);
/* False if the message is over the connection's budget, which the client has been told, and must not be carried out.
 * Signals have a budget of their own: what a client signals too often keeps none of its offers waiting. */
bool client_within_budget(struct client *client, const Signalbox__V1__ClientMessage *message, size_t size,
                          int64_t now_ms);
void client_tell_throttled(struct client *client, Signalbox__V1__Throttled__Scope scope, const char *budget,
                           uint32_t retry_after_ms);
uint16_t close_code_for(Signalbox__V1__LeaveReason reason, Signalbox__V1__LeaveAction action);

/* gateway.c: a new session counts against the rate of joins */
void gateway_join_begun(struct gateway *gateway);

/* admission.c: tokens and what they allow */
bool admission_check(struct gateway *gateway, const char *token, size_t size, const char *room,
                     struct jwt_claims *ret_claims, struct refusal *ret_refusal);
bool admission_room(const struct jwt_claims *claims, const char *room, struct refusal *ret_refusal);

/* grants.c */
void grants_permissions(const struct jwt_grants *grants, Signalbox__V1__Permissions *permissions,
                        Signalbox__V1__Source sources[JWT_SOURCES_MAX]);
/* Leaves out the tracks that the participant's permissions do not allow; true if there were any. */
bool grants_drop_tracks(Signalbox__V1__Participant *participant);
/* A fresh access token's grants take the place of the session's. */
void grants_renew(struct session *session, const struct jwt_grants *grants, int64_t now_ms);

/* join.c: hello, and what answers it */
void join_hello(struct client *client, const Signalbox__V1__ClientMessage *message, int64_t now_ms);
void join_greet(struct session *session, const Signalbox__Cluster__V1__SessionAck *ack, int64_t now_ms);
char *join_seal_token(struct session *session);

/* What hello_ok and ice_refresh say of TURN, with room for the credentials. */
struct ice_servers {
    Signalbox__V1__IceServer server;
    Signalbox__V1__IceServer *list[1];
    size_t count;
    char username[TURN_USERNAME_SIZE], password[TURN_PASSWORD_SIZE];
};
void join_ice_servers(struct gateway *gateway, const char *user, struct ice_servers *ice);

/* resync.c: what is said again, in doses. resync_begin() starts what was added. */
void resync_init(struct gateway *gateway);
void resync_add_session(struct session *session);
/* It is acknowledged, said by other means, or no more. */
void resync_drop_session(struct session *session);
void resync_add_room(struct gw_room *room);
void resync_drop_room(struct gw_room *room);
void resync_begin(struct gateway *gateway, int64_t now_ms);

/* drain.c */
void drain_init(struct gateway *gateway);

/* session.c */
struct session *session_new(struct gateway *gateway, const struct sid *sid, struct gw_room *room, int64_t now_ms);
void session_free(struct session **session);
struct session *session_by_connection(struct gateway *gateway, uint64_t connection);
struct session *session_by_sid(struct gateway *gateway, const char *sid_text);
/* Sends the wanted state now and repeats it until it is acknowledged. */
void session_announce(struct session *session, int64_t now_ms);
/* Sends the sync request under way again: the owner that had it may not be one any more. */
void session_ask_again(struct session *session, int64_t now_ms);
/* Has the state said to an owner that may not know it. The caller begins the resync. */
void session_report(struct session *session);
/* The wanted state has changed. */
void session_changed(struct session *session, int64_t now_ms);
/* ... in what peers see of it. */
void session_change_participant(struct session *session, const Signalbox__V1__Participant *participant, int64_t now_ms);
/* The client has shown that it has hello_ok: earlier resume tokens are superseded. */
void session_confirm(struct session *session, int64_t now_ms);
/* Its client has gone: the window runs, or, before anybody has seen it, it departs. */
void session_detach(struct session *session, int64_t now_ms);
/* When the access token runs out, so does the session. */
void session_arm_expiry(struct session *session, int64_t now_ms);
void session_depart(struct session *session, Signalbox__V1__LeaveReason reason, int64_t now_ms);
/* The owner has acknowledged this version of the wanted state: it is not repeated any more. With its `first` answer,
 * what has changed since is said at once. */
void session_version_acked(struct session *session, uint64_t version, bool first, int64_t now_ms);
void session_not_owner(struct gateway *gateway, const Signalbox__Cluster__V1__NotOwner *not_owner, int64_t now_ms);
/* Asks the owner for what has happened since the session's position, or for a snapshot, or for the page at a cursor. */
void session_ask_events(struct session *session, int64_t now_ms);
void session_ask_snapshot(struct session *session, const char *cursor, int64_t now_ms);
/* The participant, unpacked into the gateway's arena (which is reset). */
Signalbox__V1__Participant *session_participant(struct session *session);
void session_set_participant(struct session *session, const Signalbox__V1__Participant *participant);

/* session_answers.c: what the owner says */
void session_acked(struct gateway *gateway, const struct node_address *from,
                   const Signalbox__Cluster__V1__SessionAck *ack, int64_t now_ms);
void session_command(struct gateway *gateway, const struct node_address *from,
                     const Signalbox__Cluster__V1__SessionCommand *command, int64_t now_ms);
/* Somebody of the same identity is in the room: the join is said again, as one that knows. */
void session_identity_taken(struct gateway *gateway, const struct node_address *from,
                            const Signalbox__Cluster__V1__IdentityTaken *taken, int64_t now_ms);
void session_sync_reply(struct gateway *gateway, const struct node_address *from,
                        const Signalbox__Cluster__V1__SyncReply *reply, int64_t now_ms);

/* interest.c: what a client has asked not to hear */
/* NULL, or what is wrong with it. */
const char *interest_check(const Signalbox__V1__Interest *wanted);
void interest_set(struct session *session, const Signalbox__V1__Interest *wanted);
void interest_free(struct session *session);
/* Viewers have come, gone or changed: whoever wants them listed gets a snapshot, soon and not too often. */
void interest_viewers_changed(struct gw_room *room, int64_t now_ms);
bool interest_filters_signals(const struct session *session);
/* What is left of a Signals message for this session: a reference, or NULL if nothing is. */
struct outmsg *interest_filter(struct session *session, struct outmsg *message);

/* room.c */
struct gw_room *room_open(struct gateway *gateway, const char *project, const char *name);
void room_close_if_empty(struct gw_room *room);
void room_find_owner(struct gw_room *room);
/* Asks the owner where the room stands, and again until it is known. */
void room_ask(struct gw_room *room, int64_t now_ms);
void room_expect(struct gw_room *room, uint64_t seq, int64_t now_ms);
/* Takes an epoch whose position has nothing to do with the one before: sessions need the room's state anew. */
void room_begin_epoch(struct gw_room *room, const struct epoch *epoch, uint64_t seq, uint64_t digest, int64_t now_ms);
/* The owner has said that the room stands there: a newer epoch is taken, batches that do not come are asked for. */
void room_adopt(struct gw_room *room, const struct epoch *epoch, uint64_t seq, uint64_t digest, int64_t now_ms);
void room_batch(struct gateway *gateway, const struct node_address *from,
                const Signalbox__Cluster__V1__RoomBatch *batch, int64_t now_ms);
void room_sync_reply(struct gateway *gateway, const struct node_address *from,
                     const Signalbox__Cluster__V1__SyncReply *reply, int64_t now_ms);
void room_position(const struct gw_room *room, Signalbox__Cluster__V1__RoomPosition *position,
                   Signalbox__Cluster__V1__Epoch *epoch);
struct gw_room *room_by_key(struct gateway *gateway, const ProtobufCBinaryData *key);
/* Says its sessions to an owner that may know nothing of them. The caller begins the resync. */
void room_report(struct gw_room *room);
/* Asks the new owner after a while, if it has not spoken by then. */
void room_owner_changed(struct gw_room *room, int64_t now_ms);
/* It has, and nothing is outstanding. */
void room_owner_heard(struct gw_room *room);

/* compare.c: what owners list against what is held here. */
void compare_init(struct gateway *gateway, int64_t now_ms);
void compare_done(struct gateway *gateway);
void compare_listed(struct gateway *gateway, const struct node_address *from,
                    const Signalbox__Cluster__V1__SessionDigest *listed, int64_t now_ms);

/* handover.c: rooms that change their owner without their clients noticing */
/* A newer view than `since` is in force: the room may have another owner, or may have had one that was lost. */
void handover_view(struct gw_room *room, struct view_number since, int64_t now_ms);
/* The client's position is one of this epoch, too. */
void handover_tell(struct session *session, const struct epoch *epoch);
void handover_epoch(struct gateway *gateway, const struct node_address *from,
                    const Signalbox__Cluster__V1__EpochChange *change, int64_t now_ms);

/* departed.c: who may not come back, and who has left rooms, for owners that have lost them */
/* The revocations' callbacks, and room for them. */
void departed_init(struct gateway *gateway);
/* A packed ServerMessage of room events is about to be delivered: notes who leaves, and that viewers may have changed.
 */
void departed_note(struct gw_room *room, const ProtobufCBinaryData *message, int64_t now_ms);
/* Into the gateway's arena, if it is this session's report that carries them; returns how many. */
size_t departed_say(const struct session *session, Signalbox__Cluster__V1__Departure ***ret_departures, int64_t now_ms);

/* requests.c: what a joined client asks for */
/* False if its room takes no more of these for now. */
bool request_handle(struct client *client, const Signalbox__V1__ClientMessage *message, int64_t now_ms);

/* requests_participant.c: what it asks to be changed of its own participant */
/* NULL, or what is wrong with a track. */
const char *request_check_track(const Signalbox__V1__Track *track);
bool request_may_publish(const Signalbox__V1__Permissions *permissions, Signalbox__V1__Source source);
/* Results that waited for acked_version. */
void request_acked(struct session *session);

void to_owner(struct gw_room *room, Signalbox__Cluster__V1__Item *item);

#endif
