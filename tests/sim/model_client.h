/* A client by the book (docs/PROTOCOL.md), small enough to be believed: the roster from snapshots and events, directed
 * messages with numbers and acknowledgements, messages to the room, resume with backoff. What it delivers to its
 * "application" it checks; what breaks a promise is reported as a violation.
 *
 * The application: directed message n of a pair says n, and so does the n-th message to the room.
 */
#ifndef SBX_TESTS_SIM_MODEL_CLIENT_H
#define SBX_TESTS_SIM_MODEL_CLIENT_H

#include "world.h"

enum { MODEL_ROSTER_MAX = 64, MODEL_WINDOW = 64 };

struct model_participant {
    char sid[SID_TEXT_SIZE + 1], identity[32], name[32];
    uint64_t version;
};

/* What goes to and comes from one other session. */
struct model_pair {
    char peer[SID_TEXT_SIZE + 1];
    bool ended;
    uint64_t sent, acked;         /* numbers of messages to it */
    uint64_t expected, delivered; /* of messages from it: next number, and how many reached the application */
    bool ack_due;
    int64_t sent_ms; /* the oldest unacknowledged, last time */
    uint32_t doublings;
};

/* Messages to the room, as heard from one sender. */
struct model_heard {
    char from[SID_TEXT_SIZE + 1];
    uint64_t last;
    char epoch[81];  /* in which the last one came */
    bool continuous; /* no snapshot has left any out since */
};

struct model_client {
    struct world *world;
    char identity[32], room[32];
    bool wants_in; /* in the room, or on the way into it */
    int gateway;
    struct world_conn *conn;
    bool greeted;
    int64_t dialled_ms, dialled_before_ms, next_dial_ms, heard_ms, pinged_ms;
    int64_t held_ms; /* when a gateway that served the session was heard last */
    unsigned attempt;
    uint32_t resume_attempt; /* which of those to resume this session */
    struct timer tick;

    char sid[SID_TEXT_SIZE + 1];
    char *resume_token;
    char name[32]; /* what it wants to be called; said again until the roster shows it */
    int64_t name_said_ms;

    bool has_position, pulling, settling;
    char epoch[81];
    uint64_t seq, behind_seq;
    int64_t asked_ms, behind_ms;
    struct model_participant roster[MODEL_ROSTER_MAX], pages[MODEL_ROSTER_MAX];
    size_t roster_count, page_count;
    uint64_t page_seq;

    struct model_pair *pairs;
    size_t pair_count;
    struct model_heard *heard;
    size_t heard_count;
    char (*left)[SID_TEXT_SIZE + 1]; /* sids that have left: they never come back */
    size_t left_count;
    uint64_t room_sent, room_acked;
    int64_t room_sent_ms;

    unsigned joins, resumes, snapshots;
    const char *invariant;
    char violation[256]; /* "" while every promise holds */
};

void model_client_init(struct model_client *client, struct world *world, const char *identity, const char *room);
void model_client_done(struct model_client *client);

void model_client_join(struct model_client *client, int gateway);
/* The network fails; it comes back by itself, to `gateway`. */
void model_client_lose(struct model_client *client, int gateway);
enum model_leave { MODEL_LEAVE_MESSAGE, MODEL_LEAVE_CLOSE, MODEL_LEAVE_BEACON };
void model_client_leave(struct model_client *client, enum model_leave how);
/* Nothing of the old page is left, and nobody has been told: a new session of the same identity. */
void model_client_reload(struct model_client *client, int gateway);
void model_client_rename(struct model_client *client, const char *name);
/* To somebody in the roster; false if the window is full or there is nobody. */
bool model_client_send(struct model_client *client);
bool model_client_say(struct model_client *client);

const struct model_pair *model_client_pair(const struct model_client *client, const char *peer);
const struct model_heard *model_client_heard(const struct model_client *client, const char *from);
const struct model_participant *model_client_find(const struct model_client *client, const char *sid);

#endif
