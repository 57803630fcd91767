/* What the files of membership share and nobody else sees: membership.c (states and heartbeats), membership_follow.c
 * (views in the log's order), membership_propose.c (what is appended). */
#ifndef SBX_COMMON_MEMBERSHIP_PRIVATE_H
#define SBX_COMMON_MEMBERSHIP_PRIVATE_H

#include "common/membership.h"

struct membership {
    struct node_address self;
    struct view_node node;
    struct membership_times times;
    struct timer_wheel *wheel;
    struct membership_actions actions;
    void *ctx;

    enum membership_state state;
    bool started, off_bus;
    struct view *view;     /* in force */
    struct view *proposed; /* an append is under way */
    bool reading;
    bool log_read;                 /* the log was read since the last event that made its content doubtful */
    struct view_number log_number; /* of the log's last entry, as far as known; seq 0: it is empty */
    int64_t next_read_ms;          /* not before: what was heard of may not be in the log at all */
    int64_t next_ask_ms;           /* the same of asking others */
    struct detector *detector;
    struct view_number marker;
    int64_t beat_ms;   /* when the last heartbeat went out */
    int64_t tick_ms;   /* when others were last looked at */
    int64_t proved_ms; /* when an append to prove this process was tried */
    int64_t proposed_ms;
    bool leave_sent;     /* an entry without this process */
    bool proposal_stale; /* the process was asleep or off the bus since: the append proves nothing any more */
    int64_t listening_since_ms;
    bool heard_shard; /* a shard of the newest view was heard since listening began, or not long ago */
    int64_t heard_shard_ms;
    int64_t spoke_ms;              /* when somebody of the view was last heard */
    struct view_number heard_view; /* the newest that anybody spoke of */
    int64_t newer_ms;              /* when somebody of the cluster last spoke of a newer one than that in force here */
    struct timer step_timer, heartbeat_timer, poll_timer;

    /* membership_weight.c */
    uint32_t level; /* of the weight that this shard should have, in steps; draining: 0, whatever this says */
    bool draining, full, empty;
    uint32_t drain_step_ms;
    int64_t stepped_ms, relieved_ms;

    /* membership_follow.c */
    struct view *ahead; /* newer than the one in force; waits for the entries before it */
    uint64_t next_seq;  /* the next of those */
    bool fetching;
    struct view_number removed_at; /* the newest view known that lacks a shard of the one before it */
};

static inline bool membership_is_shard(const struct membership *m)
{
    return m->self.kind == NODE_SHARD;
}

/* membership.c */
void membership_step(struct membership *m, int64_t now_ms);
void membership_enter(struct membership *m, enum membership_state state, int64_t now_ms);
void membership_read_log(struct membership *m);
/* Whoever has this process's id in `view`. */
const struct view_node *membership_namesake(const struct membership *m, const struct view *view);
/* This very process in `view` (which may be NULL), or NULL. */
const struct view_node *membership_find_self(const struct membership *m, const struct view *view);
/* Another shard of the view is alive. */
void membership_note_shard(struct membership *m, int64_t now_ms);
bool membership_is_abandoned(const struct membership *m);
/* Others have spoken of a newer view than the one in force. */
bool membership_is_behind(const struct membership *m);

/* membership_follow.c: asks for the next of the missing entries, if it is not being asked for. */
void follow_fetch(struct membership *m);

/* membership_propose.c */
/* The newest view that is known to have settled. */
struct view_number propose_settled(const struct membership *m);
bool propose_is_settled(const struct membership *m);
/* A joining shard: whether it must let the last view settle first. */
bool propose_must_wait(const struct membership *m);
/* A shard that would join a view whose shards have all gone: nobody in it is left to propose their removal. A quorum of
 * the view, which is its gateways then, has to concur in it as in any other. */
bool propose_succeeds(const struct membership *m, int64_t now_ms);
/* Joining and leaving. */
void propose_self(struct membership *m, int64_t now_ms);
/* What an active shard appends on others' account, or to prove itself. */
void propose_maintenance(struct membership *m, int64_t now_ms);

/* membership_weight.c, for shards */
/* With what weight to join the shards of `view`. */
uint32_t weight_to_join(const struct membership *m, const struct view *view);
/* What this shard's entry in the view should become by the next step; false: it is as it should be for now. */
bool weight_wants(const struct membership *m, struct view_node *ret_node, int64_t now_ms);
/* A view is in force in place of `old` (or NULL). */
void weight_view(struct membership *m, const struct view *old, int64_t now_ms);

#endif
