/* A process's place in the view: how it joins, follows the log, and leaves.
 *
 * States: LISTENING (hears heartbeats before its first append) -> JOINING (appends itself until the log lists it) ->
 * ACTIVE -> LEAVING -> LEFT. REMOVED when the log no longer lists this incarnation though it did not ask to leave; a
 * gateway appends itself again (JOINING) unless another incarnation has taken its id.
 *
 * All watch the others (common/detector.h), and shards act on it: they append the removal of who is gone, and prove
 * themselves by an append when they cannot hear enough of the others to be sure of their own place.
 *
 * Every change is one append with the expected last sequence; on a conflict the log is read and the change is made anew
 * on top of what is there; after an unknown outcome the log is read, never assumed. A restarted gateway
 * replaces the entry of its own id; a shard removes it, and joins once that has settled. A shard that joins a view
 * whose shards have all gone takes their place once a quorum, which is of gateways then, concurs in their removal.
 *
 * A log that is behind what is known or heard of (it was lost, or lost its tail) goes on in a new generation: whoever
 * knows the newest view appends it again, and nobody builds on an older one meanwhile. If nobody of the last entry is
 * heard while listening (everything was stopped), an empty view in a new generation takes its place.
 *
 * Free of I/O: events come in as calls with the time, actions go out through membership_actions. Threading: loop
 * thread. Views handed out are borrowed for the call unless referenced.
 */
#ifndef SBX_COMMON_MEMBERSHIP_H
#define SBX_COMMON_MEMBERSHIP_H

#include "common/detector.h"
#include "common/link.h"
#include "common/timer.h"
#include "common/view.h"
#include "common/viewlog.h"
#include <stdbool.h>
#include <stdint.h>

enum membership_state {
    MEMBERSHIP_LISTENING,
    MEMBERSHIP_JOINING,
    MEMBERSHIP_ACTIVE,
    MEMBERSHIP_LEAVING,
    MEMBERSHIP_LEFT,
    MEMBERSHIP_REMOVED,
};

/* How a shard's weight changes. */
struct membership_pace {
    uint32_t steps;     /* from nothing to the configured weight */
    uint32_t step_ms;   /* from one step to the next, at least */
    uint32_t relief_ms; /* the same between steps because of load */
};

struct membership_times {
    uint32_t listen_ms;    /* before the first append */
    uint32_t abandoned_ms; /* nobody of the last entry heard for so long: everything was stopped */
    uint32_t heartbeat_ms;
    uint32_t retry_ms; /* after a failed append or read */
    uint32_t poll_ms;  /* the log is read so often even when nothing suggests it */
    struct detector_times detector;
    struct membership_pace pace;
};

extern const struct membership_times membership_default_times;

/* What of the relations between these times does not hold, above all that nobody can be removed while it may still act:
 * a text that says what would be right, and in `ret_key` the member that it is about; NULL if all do. */
const char *membership_times_problem(const struct membership_times *times, const char **ret_key);

struct membership_actions {
    void (*read_last)(void *ctx);
    void (*read)(void *ctx, uint64_t seq);
    void (*append)(void *ctx, const struct view *entry, uint64_t expected_last_seq);
    /* On core NATS, for everyone who is not the appender. */
    void (*announce)(void *ctx, const struct view *view);
    /* The caller fills in load and server and publishes. */
    void (*heartbeat)(void *ctx);
    /* Shards: is there a subscription to this process's inbox? membership_gone() if not. */
    void (*probe)(void *ctx, const struct node_address *node);
    /* `whom` knows a newer view: ask it for all after this one; what it answers is for membership_learn(). */
    void (*ask)(void *ctx, const struct node_address *whom, struct view_number after);
    /* A newer view is in force; `old` is the one before it, or NULL. They come in the log's order
     * from the last settled one on, without a gap unless entries were lost. */
    void (*view)(void *ctx, struct view *old, struct view *view, int64_t now_ms);
    void (*state)(void *ctx, enum membership_state state, int64_t now_ms);
    /* Unix time, for the number of a new generation. */
    int64_t (*wall_s)(void *ctx);
    /* Shards: somebody was heard while this process's marker is behind its view; what it waits for may have come. */
    void (*progress)(void *ctx, int64_t now_ms);
};

struct membership;

struct membership *membership_new(const struct node_address *self, const char *region, uint32_t weight,
                                  const struct membership_times *times, struct timer_wheel *wheel,
                                  const struct membership_actions *actions, void *ctx);
void membership_free(struct membership **membership);

/* The bus is there (again): begin listening, or catch up. A process that was off the bus proves itself by an append. */
void membership_start(struct membership *membership, int64_t now_ms);
void membership_leave(struct membership *membership, int64_t now_ms);
void membership_bus_lost(struct membership *membership);
void membership_heartbeat(struct membership *membership, const Signalbox__Cluster__V1__Heartbeat *heartbeat,
                          int64_t now_ms);
/* Nobody subscribes to the inbox of this process. */
void membership_gone(struct membership *membership, uint64_t incarnation, int64_t now_ms);
/* Whom this process holds for gone; for its heartbeats. */
size_t membership_concurrences(const struct membership *membership, Signalbox__Cluster__V1__Concurrence *out,
                               size_t max, int64_t now_ms);
/* Whether this process may act on rooms: gateways always, shards within the fence. Notices by itself when the process
 * was asleep. */
bool membership_may_act(struct membership *membership, int64_t now_ms);
/* Gateways: every session that a new owner must know of has been reported to it, and acknowledged, up to this view.
 * Shards: they hold no room that is not theirs in it, nothing is on its way, and what its gateways had to report is
 * here. A view is settled when all shards' markers have reached it. */
void membership_set_marker(struct membership *membership, struct view_number marker, int64_t now_ms);
struct view_number membership_marker(const struct membership *membership);
/* Shards: up to which view all gateways have reported, and another shard's marker as last heard. */
struct view_number membership_reported(const struct membership *membership);
struct view_number membership_marker_of(const struct membership *membership, uint64_t incarnation);
void membership_heard(struct membership *membership, const struct node_address *from, struct view_number view,
                      int64_t now_ms);
/* A view from the bus or in answer to a read; takes a reference of its own. */
void membership_learn(struct membership *membership, struct view *view, int64_t now_ms);
/* What another process asks for: as detector_views_after(). */
size_t membership_views_after(const struct membership *membership, struct view_number after, struct view **ret_views,
                              size_t max);
/* Outcome of read_last: `view` is NULL unless result is VIEWLOG_OK. */
void membership_read_done(struct membership *membership, enum viewlog_result result, struct view *view, int64_t now_ms);
/* Outcome of read; as above. */
void membership_entry_done(struct membership *membership, enum viewlog_result result, struct view *view,
                           int64_t now_ms);
void membership_append_done(struct membership *membership, enum viewlog_result result, uint64_t seq, int64_t now_ms);

enum membership_pressure { PRESSURE_LOW, PRESSURE_STEADY, PRESSURE_HIGH };

/* What a shard has to carry. */
struct membership_load {
    bool empty; /* it holds no room */
    bool full;  /* it takes no new rooms: marked so in the view */
    enum membership_pressure pressure;
};

/* Shards: call it with every heartbeat. High pressure lowers the weight by a step, low pressure raises it again. */
void membership_set_load(struct membership *membership, const struct membership_load *load, int64_t now_ms);
/* Shards: lets the weight fall to nothing in steps, which take about half of `within_ms` if all settle at once. */
void membership_drain(struct membership *membership, uint32_t within_ms, int64_t now_ms);

enum drain_progress {
    DRAIN_MOVING,  /* it still owns rooms, or some are on their way */
    DRAIN_DONE,    /* it owns nothing, and all shards have seen to it */
    DRAIN_NO_HEIR, /* there is no shard that stays and could take its rooms, or it is not in the view */
};
enum drain_progress membership_drain_progress(const struct membership *membership);

enum membership_state membership_state(const struct membership *membership);
const char *membership_state_name(enum membership_state state);
/* The view in force; NULL before the first. Borrowed. */
struct view *membership_view(const struct membership *membership);
/* In state REMOVED: whether another process has taken this one's id, rather than the others having held it for gone. */
bool membership_was_replaced(const struct membership *membership);

#endif
