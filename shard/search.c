/* Rooms that are asked for before they are here.
 *
 * Whoever owned the room since the last settled view and is still there is asked for it (pull), again and again until
 * it comes, or until nobody can have it. What gateways send meanwhile waits: so many commands for a room and in all,
 * for so long; who finds no place, or waits for too long, is told RETRY. Reports of sessions need not wait: their
 * gateways repeat them. */
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "shard/internal.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { PULL_REPEAT_MS = 200, WAITING_PER_ROOM_MAX = 256 };
enum pull_count { PULL_ASKED, PULL_COMING, PULL_NOT_HERE, PULL_IN_TRANSIT };

struct waiting_command {
    struct list link;
    struct node_address from;
    struct payload *state; /* packed SessionState */
    char sid[SID_TEXT_SIZE + 1];
    uint64_t connection;
    int64_t since_ms;
};

/* What another shard has said of a room. */
struct pull {
    uint64_t incarnation;
    int64_t asked_ms;
    struct view_number denied; /* it holds nothing of the room in this view, and never will again before a later one */
};

static struct pull *find_pull(const struct room *room, uint64_t incarnation)
{
    for (size_t i = 0; i < room->pull_count; i++)
        if (room->pulls[i].incarnation == incarnation)
            return &room->pulls[i];
    return NULL;
}

bool search_denied(const struct room *room, uint64_t incarnation, struct view_number number)
{
    const struct pull *pull = find_pull(room, incarnation);
    return pull != NULL && view_number_compare(pull->denied, number) >= 0;
}

static void ask(struct room *room, uint64_t incarnation, int64_t now_ms)
{
    Signalbox__Cluster__V1__PullRequest request = SIGNALBOX__CLUSTER__V1__PULL_REQUEST__INIT;
    Signalbox__Cluster__V1__ViewNumber view = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    struct pull *pull = find_pull(room, incarnation);
    if (pull != NULL && now_ms - pull->asked_ms < PULL_REPEAT_MS)
        return;
    if (pull == NULL) {
        room->pulls = mem_realloc(room->pulls, (room->pull_count + 1) * sizeof *room->pulls);
        pull = &room->pulls[room->pull_count++];
        *pull = (struct pull){.incarnation = incarnation};
    }
    const struct view_node *shard = view_find_incarnation(room->shard->view, NODE_SHARD, incarnation);
    if (shard == NULL)
        return;
    struct node_address to = view_node_address(NODE_SHARD, shard);
    pull->asked_ms = now_ms;
    request.room_key = (ProtobufCBinaryData){.len = sizeof room->key.bytes, .data = room->key.bytes};
    request.view = &view;
    view.generation = room->shard->view->number.generation;
    view.seq = room->shard->view->number.seq;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_PULL_REQUEST;
    item.pull_request = &request;
    shard_send(room->shard, &to, &item);
    metric_add_at(M_PULLS, PULL_ASKED, 1);
}

/* --- what waits -------------------------------------------------------------------------------------------------- */

static void command_free(struct room *room, struct waiting_command *command)
{
    list_remove(&command->link);
    room->waiting_count--;
    room->shard->waiting_commands--;
    payload_unref(&command->state);
    free(command);
}

enum command_end { COMMAND_CARRY_OUT, COMMAND_REFUSE, COMMAND_SEND_AWAY };

/* What is packed here unpacks again. Carrying it out alters the message, so its memory is an arena's. */
static void answer(struct shard *shard, const struct waiting_command *command, enum command_end end, int64_t now_ms)
{
    struct arena arena;
    arena_init(&arena, SHARD_ARENA_MAX);
    Signalbox__Cluster__V1__SessionState *state =
        signalbox__cluster__v1__session_state__unpack(&arena.allocator, command->state->size, command->state->data);
    assert(state != NULL);
    if (end == COMMAND_CARRY_OUT)
        session_state(shard, &command->from, state, now_ms);
    else if (end == COMMAND_REFUSE)
        session_refuse_waiting(shard, &command->from, state);
    else
        session_answer_not_owner(shard, &command->from, state);
    arena_done(&arena);
}

/* The same session's earlier word is overtaken by the later one. */
static void drop_earlier(struct room *room, const Signalbox__Cluster__V1__SessionState *state)
{
    list_for_each_safe(pos, &room->waiting) {
        struct waiting_command *command = container_of(pos, struct waiting_command, link);
        if (command->connection == state->connection && strcmp(command->sid, state->sid) == 0) {
            command_free(room, command);
            return;
        }
    }
}

void search_wait(struct room *room, const struct node_address *from, const Signalbox__Cluster__V1__SessionState *state,
                 int64_t now_ms)
{
    struct shard *shard = room->shard;
    drop_earlier(room, state);
    if (room->waiting_count >= WAITING_PER_ROOM_MAX ||
        shard->waiting_commands >= shard->options.limits.waiting_commands) {
        session_refuse_waiting(shard, from, state);
        return;
    }
    struct waiting_command *command = mem_new(struct waiting_command);
    command->from = *from;
    command->state = payload_pack(&state->base);
    command->connection = state->connection;
    memcpy(command->sid, state->sid, sizeof command->sid); /* it was parsed */
    command->since_ms = now_ms;
    list_append(&room->waiting, &command->link);
    room->waiting_count++;
    shard->waiting_commands++;
    if (!timer_pending(&room->waiting_timer))
        timer_set(shard->wheel, &room->waiting_timer, now_ms + PULL_REPEAT_MS);
}

void search_take(struct room *room, struct list *ret_waiting)
{
    list_init(ret_waiting);
    list_splice(ret_waiting, &room->waiting);
    room->shard->waiting_commands -= room->waiting_count;
    room->waiting_count = 0;
    timer_cancel(room->shard->wheel, &room->waiting_timer);
}

void search_replay(struct shard *shard, struct list *waiting, int64_t now_ms)
{
    while (!list_empty(waiting)) {
        struct waiting_command *command = list_first(waiting, struct waiting_command, link);
        list_remove(&command->link);
        answer(shard, command, COMMAND_CARRY_OUT, now_ms);
        payload_unref(&command->state);
        free(command);
    }
}

void search_release(struct room *room, int64_t now_ms)
{
    struct shard *shard = room->shard;
    struct list waiting;
    search_take(room, &waiting);
    search_replay(shard, &waiting, now_ms);
}

void search_send_away(struct room *room)
{
    while (!list_empty(&room->waiting)) {
        struct waiting_command *command = list_first(&room->waiting, struct waiting_command, link);
        answer(room->shard, command, COMMAND_SEND_AWAY, 0);
        command_free(room, command);
    }
}

static void on_waiting(struct timer *timer, int64_t now_ms)
{
    struct room *room = container_of(timer, struct room, waiting_timer);
    struct shard *shard = room->shard;
    search_step(room, now_ms);
    owner_progress(shard, now_ms);
}

void search_init(struct room *room)
{
    list_init(&room->waiting);
    timer_init(&room->waiting_timer, on_waiting);
}

void search_done(struct room *room)
{
    while (!list_empty(&room->waiting))
        command_free(room, list_first(&room->waiting, struct waiting_command, link));
    timer_cancel(room->shard->wheel, &room->waiting_timer);
    free(room->pulls);
    room->pulls = NULL;
    room->pull_count = 0;
}

/* --- steps ------------------------------------------------------------------------------------------------------- */

static void refuse_old(struct room *room, int64_t now_ms)
{
    while (!list_empty(&room->waiting)) {
        struct waiting_command *command = list_first(&room->waiting, struct waiting_command, link);
        if (now_ms - command->since_ms < room->shard->options.limits.waiting_ms)
            return;
        answer(room->shard, command, COMMAND_REFUSE, now_ms);
        command_free(room, command);
    }
}

void search_step(struct room *room, int64_t now_ms)
{
    struct shard *shard = room->shard;
    uint64_t holders[VIEW_SHARDS_MAX];
    size_t count = 0;
    refuse_old(room, now_ms);
    if (room->state != ROOM_HELD) {
        if (!list_empty(&room->waiting))
            timer_set(shard->wheel, &room->waiting_timer, now_ms + PULL_REPEAT_MS);
        return;
    }
    if (list_empty(&room->waiting)) {
        shard_drop_room(shard, room);
        return;
    }
    switch (owner_origin(shard, room, &room->key, room->name, holders, &count)) {
    case ORIGIN_ELSEWHERE:
        for (size_t i = 0; i < count; i++)
            ask(room, holders[i], now_ms);
        timer_set(shard->wheel, &room->waiting_timer, now_ms + PULL_REPEAT_MS);
        return;
    case ORIGIN_LOST:
        rebuild_open(room, now_ms);
        return;
    case ORIGIN_NEW:
        search_release(room, now_ms);
        if (shard_find_any_room(shard, &room->key) == room && room->state == ROOM_HELD)
            shard_drop_room(shard, room); /* nobody of those who waited was let in */
        return;
    }
}

void search_on_pull(struct shard *shard, const struct node_address *from,
                    const Signalbox__Cluster__V1__PullRequest *request, int64_t now_ms)
{
    Signalbox__Cluster__V1__PullReply reply = SIGNALBOX__CLUSTER__V1__PULL_REPLY__INIT;
    Signalbox__Cluster__V1__ViewNumber view = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    struct room_key key;
    if (shard->view == NULL || !shard_parse_key(&request->room_key, &key))
        return;
    struct room *room = shard_find_any_room(shard, &key);
    reply.room_key = request->room_key;
    reply.view = &view;
    view.generation = shard->view->number.generation;
    view.seq = shard->view->number.seq;
    reply.result = SIGNALBOX__CLUSTER__V1__PULL_REPLY__RESULT__NOT_HERE;
    if (room != NULL && room->state == ROOM_FROZEN) {
        const struct node_address *target = handoff_target_of(room);
        bool to_asker = target->incarnation == from->incarnation;
        reply.result = to_asker ? SIGNALBOX__CLUSTER__V1__PULL_REPLY__RESULT__COMING
                                : SIGNALBOX__CLUSTER__V1__PULL_REPLY__RESULT__IN_TRANSIT;
        reply.in_transit_to = (char *)target->id;
        if (to_asker)
            handoff_hurry(room, now_ms);
    } else if (room != NULL && room_is_served(room)) {
        /* This shard's own in a view that the asker does not know yet. */
        reply.result = SIGNALBOX__CLUSTER__V1__PULL_REPLY__RESULT__IN_TRANSIT;
        reply.in_transit_to = shard->options.self.id;
    }
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_PULL_REPLY;
    item.pull_reply = &reply;
    shard_send(shard, from, &item);
}

void search_on_reply(struct shard *shard, const struct node_address *from,
                     const Signalbox__Cluster__V1__PullReply *reply, int64_t now_ms)
{
    struct room_key key;
    if (!shard_parse_key(&reply->room_key, &key) || reply->view == NULL)
        return;
    struct room *room = shard_find_any_room(shard, &key);
    struct pull *pull = room != NULL && room->state == ROOM_HELD ? find_pull(room, from->incarnation) : NULL;
    if (pull == NULL)
        return;
    if (reply->result == SIGNALBOX__CLUSTER__V1__PULL_REPLY__RESULT__COMING) {
        metric_add_at(M_PULLS, PULL_COMING, 1);
    } else if (reply->result == SIGNALBOX__CLUSTER__V1__PULL_REPLY__RESULT__IN_TRANSIT) {
        metric_add_at(M_PULLS, PULL_IN_TRANSIT, 1); /* to one that is asked as well */
    } else if (reply->result == SIGNALBOX__CLUSTER__V1__PULL_REPLY__RESULT__NOT_HERE) {
        metric_add_at(M_PULLS, PULL_NOT_HERE, 1);
        pull->denied = (struct view_number){reply->view->generation, reply->view->seq};
        search_step(room, now_ms);
        owner_progress(shard, now_ms);
    }
}
