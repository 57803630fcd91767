#include "shard/shard.h"

#include "common/log.h"
#include "common/mem.h"
#include "common/message_class.h"
#include "common/metrics.h"
#include "common/sim_fault.h"
#include "shard/held.h"
#include "shard/internal.h"
#include <stdlib.h>
#include <string.h>

typedef Signalbox__Cluster__V1__Item Item;

enum { THROTTLED_TELL_MS = 100, THROTTLED_FAR = 10 };

enum relay_refusal { RELAY_STALE_SENDER, RELAY_NO_RECEIVER, RELAY_RECEIVER_DETACHED, RELAY_THROTTLED };

const struct shard_limits shard_default_limits = {
#define LIMIT(name, def, min, max, unit, help) .name = def,
#include "shard/limits_table.h"
#undef LIMIT
};

/* Gateways that have not reported have had their time. */
static void on_progress_timer(struct timer *timer, int64_t now_ms)
{
    owner_progress(container_of(timer, struct shard, progress_timer), now_ms);
}

struct shard *shard_new(const struct shard_options *options, struct timer_wheel *wheel,
                        const struct shard_actions *actions, void *ctx)
{
    struct shard *shard = mem_new(struct shard);
    shard->options = *options;
    shard->wheel = wheel;
    shard->actions = *actions;
    shard->ctx = ctx;
    schedule_init(shard);
    departure_init(shard);
    timer_init(&shard->progress_timer, on_progress_timer);
    arena_init(&shard->arena, SHARD_ARENA_MAX);
    return shard;
}

void shard_reconfigure(struct shard *shard, const struct shard_options *options)
{
    shard->options.duplicate = options->duplicate;
    shard->options.limits = options->limits;
}

void shard_drop_room(struct shard *shard, struct room *room)
{
    if (room->state != ROOM_ABSENT)
        room_set_state(room, ROOM_ABSENT);
    timer_cancel(shard->wheel, &room->settle_timer);
    HASH_DEL(shard->rooms, room);
    room_free(&room);
}

void shard_free(struct shard **shard_ptr)
{
    struct shard *shard = *shard_ptr;
    if (shard == NULL)
        return;
    struct room *room, *next_room;
    shard->closing = true;
    HASH_ITER(hh, shard->rooms, room, next_room)
        session_drop_room(shard, room);
    arrival_done(shard);
    struct departure *departure, *next_departure;
    HASH_ITER(hh, shard->departures, departure, next_departure)
        departure_forget(departure);
    revocations_done(&shard->revocations);
    schedule_done(shard);
    timer_cancel(shard->wheel, &shard->progress_timer);
    history_done(&shard->history);
    view_unref(&shard->view);
    arena_done(&shard->arena);
    buf_done(&shard->buf);
    free(shard);
    *shard_ptr = NULL;
}

void shard_send(struct shard *shard, const struct node_address *to, Item *item)
{
    struct payload *packed = link_pack_item(item);
    shard->actions.send(shard->ctx, to, packed);
    payload_unref(&packed);
}

bool shard_parse_key(const ProtobufCBinaryData *data, struct room_key *ret_key)
{
    if (data->len != sizeof ret_key->bytes) {
        metric_add(M_ITEMS_INVALID, 1);
        return false;
    }
    memcpy(ret_key->bytes, data->data, sizeof ret_key->bytes);
    return true;
}

struct room *shard_find_any_room(struct shard *shard, const struct room_key *key)
{
    struct room *room;
    HASH_FIND(hh, shard->rooms, key, sizeof *key, room);
    return room;
}

struct room *shard_find_room(struct shard *shard, const struct room_key *key)
{
    struct room *room = shard_find_any_room(shard, key);
    return room != NULL && room_is_served(room) ? room : NULL;
}

struct room *shard_open_room(struct shard *shard, const struct room_key *key, const char *project, const char *name)
{
    struct room *room = room_new(shard, key, project, name, shard->actions.wall_ms(shard->ctx));
    HASH_ADD(hh, shard->rooms, key, sizeof room->key, room);
    room->owned_since = owner_since(shard, key, name);
    return room;
}

bool shard_lists_gateway(const struct shard *shard, const struct node_address *gateway)
{
    return shard->view != NULL && view_lists(shard->view, gateway);
}

void shard_drop_room_if_idle(struct shard *shard, struct room *room)
{
    if (list_empty(&room->members) && room->state == ROOM_LIVE)
        shard_drop_room(shard, room);
}

/* --- budgets ------------------------------------------------------------------------------------------------------ */

/* A member whose requests are refused again and again is told now and then, with how many there were. */
static void tell_throttled(struct member *member, enum room_budget_kind budget, uint32_t wait_ms, int64_t now_ms)
{
    member->throttled_untold++;
    if (member->throttled_ms != 0 && now_ms < member->throttled_ms + THROTTLED_TELL_MS)
        return;
    Signalbox__Cluster__V1__RoomThrottled throttled = SIGNALBOX__CLUSTER__V1__ROOM_THROTTLED__INIT;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    struct room_key *key = &member->room->key;
    throttled.room_key = (ProtobufCBinaryData){.len = sizeof key->bytes, .data = key->bytes};
    throttled.sid = member->sid_text;
    throttled.budget = (char *)budget_name(budget);
    throttled.retry_after_ms = wait_ms;
    /* Far beyond the budget: what would be refused anyway is better not sent at all until it is told again. */
    if (member->throttled_untold >= THROTTLED_FAR && wait_ms < THROTTLED_TELL_MS)
        throttled.retry_after_ms = THROTTLED_TELL_MS;
    throttled.count = member->throttled_untold;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_ROOM_THROTTLED;
    item.room_throttled = &throttled;
    shard_send(member->shard, &member->gateway->address, &item);
    member->throttled_ms = now_ms;
    member->throttled_untold = 0;
}

bool shard_charge(struct member *member, const struct room_charge *charge, int64_t now_ms)
{
    enum room_budget_kind lacking;
    uint32_t wait_ms = budget_take(&member->room->budget, &member->shard->options.limits, charge, now_ms, &lacking);
    if (wait_ms == 0)
        return true;
    metric_add_at(M_ROOM_THROTTLED, lacking, 1);
    tell_throttled(member, lacking, wait_ms, now_ms);
    return false;
}

/* --- directed messages and the rest ------------------------------------------------------------------------------ */

static struct member *bound_sender(struct shard *shard, const struct node_address *from, const char *sid)
{
    struct member *member = member_find(shard, sid);
    if (member == NULL || member->gateway->address.incarnation != from->incarnation)
        return NULL;
    return room_is_served(member->room) ? member : NULL;
}

static void relay_failed(struct shard *shard, const struct node_address *to, const Signalbox__Cluster__V1__Relay *relay,
                         Signalbox__V1__LeaveReason reason)
{
    Signalbox__Cluster__V1__RelayFailed failed = SIGNALBOX__CLUSTER__V1__RELAY_FAILED__INIT;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    failed.room_key = relay->room_key;
    failed.from = relay->from;
    failed.to = relay->to;
    failed.reason = reason;
    failed.code = SIGNALBOX__V1__CODE__UNDELIVERABLE;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_RELAY_FAILED;
    item.relay_failed = &failed;
    shard_send(shard, to, &item);
}

static void on_relay(struct shard *shard, const struct node_address *from, const Signalbox__Cluster__V1__Relay *relay,
                     const Item *item, int64_t now_ms)
{
    struct member *sender = bound_sender(shard, from, relay->from);
    if (sender == NULL || relay->from_bind_generation != sender->bind_generation) {
        metric_add_at(M_RELAYS_REFUSED, RELAY_STALE_SENDER, 1);
        return; /* its gateway repeats the session's state and learns the truth; the client sends again */
    }
    struct member *receiver = member_find(shard, relay->to);
    if (receiver == NULL || receiver->room != sender->room) {
        metric_add_at(M_RELAYS_REFUSED, RELAY_NO_RECEIVER, 1);
        if (!room_is_settling(sender->room) && relay->kind != SIGNALBOX__CLUSTER__V1__RELAY__KIND__ACK)
            relay_failed(shard, from, relay, departure_reason(shard, relay->to));
        return;
    }
    struct room_charge charge = {.kind = relay->class_ == CLASS_CANDIDATES ? BUDGET_CANDIDATES : BUDGET_NEGOTIATION,
                                 .bytes = (uint32_t)relay->message.len};
    if (relay->kind != SIGNALBOX__CLUSTER__V1__RELAY__KIND__ACK && !shard_charge(sender, &charge, now_ms)) {
        metric_add_at(M_RELAYS_REFUSED, RELAY_THROTTLED, 1);
        return; /* the sender has been told, and sends it again */
    }
    struct payload *packed = link_pack_item(item);
    if (!receiver->detached)
        shard->actions.send(shard->ctx, &receiver->gateway->address, packed);
    else if (relay->kind != SIGNALBOX__CLUSTER__V1__RELAY__KIND__ACK)
        held_add(&receiver->held, packed, &shard->held_bytes); /* and the sender keeps it until it is acknowledged */
    payload_unref(&packed);
    negotiation_relay(&(struct negotiation_end){.sid = sender->sid, .records = &sender->negotiations},
                      &(struct negotiation_end){.sid = receiver->sid, .records = &receiver->negotiations}, relay,
                      now_ms);
    if (receiver->detached)
        metric_add_at(M_RELAYS_REFUSED, RELAY_RECEIVER_DETACHED, 1);
    else
        metric_add_at(M_RELAYS, relay->kind <= SIGNALBOX__CLUSTER__V1__RELAY__KIND__ACK ? relay->kind : 0, 1);
}

static void on_room_send(struct shard *shard, const struct node_address *from,
                         const Signalbox__Cluster__V1__RoomSend *send, int64_t now_ms)
{
    struct member *member = bound_sender(shard, from, send->sid);
    if (member == NULL || send->message == NULL || send->bind_generation != member->bind_generation) {
        metric_add_at(M_RELAYS_REFUSED, RELAY_STALE_SENDER, 1);
        return;
    }
    rebuild_learn_sent(member, send->acked, now_ms);
    member->sends_reported = false;
    bool heard = now_ms >= member->room->unheard_until_ms; /* otherwise it is sent again */
    bool next = heard && (send->sender_seq == member->room_send_seq + 1 ||
                          (SIM_FAULT(DOUBLED_SENDS) && send->sender_seq <= member->room_send_seq));
    uint32_t bytes = (uint32_t)signalbox__v1__message__get_packed_size(send->message);
    struct room_charge charge = {
        .kind = BUDGET_MEMBERSHIP, .bytes = bytes, .delivery_bytes = (uint64_t)bytes * member->room->total};
    if (next && shard_charge(member, &charge, now_ms)) {
        room_set_send_seq(member, member->room_send_seq + 1);
        send->message->from = member->sid_text;
        send->message->sender_seq = send->sender_seq;
        room_add_message(member->room, send->message, now_ms);
    }
    Signalbox__Cluster__V1__RoomSendAck ack = SIGNALBOX__CLUSTER__V1__ROOM_SEND_ACK__INIT;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    ack.room_key = send->room_key;
    ack.sid = send->sid;
    ack.acked = member->room_send_seq;
    ack.code = SIGNALBOX__V1__CODE__OK;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_ROOM_SEND_ACK;
    item.room_send_ack = &ack;
    shard_send(shard, from, &item);
}

static void on_signal(struct shard *shard, const struct node_address *from,
                      const Signalbox__Cluster__V1__SignalUpdate *update, const Item *item, int64_t now_ms)
{
    struct member *sender = bound_sender(shard, from, update->from);
    if (sender == NULL || update->signal == NULL) {
        metric_add_at(M_RELAYS_REFUSED, RELAY_STALE_SENDER, 1);
        return;
    }
    struct room_charge charge = {.kind = BUDGET_EPHEMERAL,
                                 .bytes = (uint32_t)signalbox__v1__signal__get_packed_size(update->signal)};
    if (!shard_charge(sender, &charge, now_ms)) {
        count_dropped(CLASS_EPHEMERAL, DROP_ROOM_BUDGET, 1);
        return;
    }
    update->signal->from = sender->sid_text;
    if (update->to[0] == '\0') {
        room_add_signal(sender->room, update->signal, now_ms);
        return;
    }
    struct member *receiver = member_find(shard, update->to);
    if (receiver == NULL || receiver->room != sender->room || receiver->detached) {
        count_dropped(CLASS_EPHEMERAL, DROP_RECEIVER_AWAY, 1);
        return;
    }
    struct payload *packed = link_pack_item(item);
    shard->actions.send(shard->ctx, &receiver->gateway->address, packed);
    payload_unref(&packed);
}

static void on_ice_report(struct shard *shard, const struct node_address *from,
                          const Signalbox__Cluster__V1__IceReport *report, int64_t now_ms)
{
    struct member *reporter = bound_sender(shard, from, report->from);
    struct negotiation_end peer = {0};
    if (reporter == NULL || report->state == NULL || !sid_parse(report->state->peer, &peer.sid))
        return;
    struct member *other = member_find(shard, report->state->peer);
    if (other != NULL && other->room == reporter->room)
        peer.records = &other->negotiations;
    Signalbox__V1__IceState__State state = report->state->state;
    metric_add_at(M_ICE_STATES, (unsigned)state <= SIGNALBOX__V1__ICE_STATE__STATE__CLOSED ? state : 0, 1);
    negotiation_report(&(struct negotiation_end){.sid = reporter->sid, .records = &reporter->negotiations}, &peer,
                       report->state, now_ms);
}

void shard_item(struct shard *shard, const struct node_address *from, const Item *item, int64_t now_ms)
{
    switch (item->body_case) {
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_SESSION_STATE:
        session_state(shard, from, item->session_state, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_RELAY:
        on_relay(shard, from, item->relay, item, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_ROOM_SEND:
        on_room_send(shard, from, item->room_send, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_SIGNAL:
        on_signal(shard, from, item->signal, item, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_SYNC_REQUEST:
        sync_request(shard, from, item->sync_request, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_LINK_POSITIONS:
        sync_positions(shard, from, item->link_positions, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_SESSION_DIGEST:
        compare_digest(shard, from, item->session_digest, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_ICE_REPORT:
        on_ice_report(shard, from, item->ice_report, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_HANDOFF_CHUNK:
        arrival_chunk(shard, from, item->handoff_chunk, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_HANDOFF_REPLY:
        handoff_on_reply(shard, from, item->handoff_reply, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_PULL_REQUEST:
        search_on_pull(shard, from, item->pull_request, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_PULL_REPLY:
        search_on_reply(shard, from, item->pull_reply, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_REVOCATIONS:
        revocations_receive(&shard->revocations, from, item->revocations, now_ms);
        break;
    default:
        /* Of a newer version, or not for shards: safe to ignore by the schema's rules. */
        metric_add(M_ITEMS_INVALID, 1);
        break;
    }
}

void shard_gap(struct shard *shard, const struct node_address *from)
{
    revocations_ask(&shard->revocations, from);
}

struct shard_stats shard_stats(const struct shard *shard)
{
    struct shard_stats stats = {.rooms = HASH_COUNT(shard->rooms),
                                .waiting_commands = shard->waiting_commands,
                                .participants = HASH_CNT(hh_sid, shard->members_by_sid),
                                .detached = shard->detached,
                                .gateways = HASH_COUNT(shard->gateways),
                                .pending_updates = shard->pending_events + shard->pending_signals,
                                .ring_bytes = shard->ring_bytes,
                                .held_bytes = shard->held_bytes,
                                .arrival_bytes = shard->arrival_bytes};
    memcpy(stats.rooms_in_state, shard->rooms_in_state, sizeof stats.rooms_in_state);
    return stats;
}
