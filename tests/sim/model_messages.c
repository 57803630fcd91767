/* Numbered messages: to and from others, to the room and from it. */
#include "model_private.h"

#include "common/mem.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RETRANSMIT_MS = 1000, RETRANSMIT_DOUBLINGS = 3 };

const struct model_pair *model_client_pair(const struct model_client *client, const char *peer)
{
    for (size_t i = 0; i < client->pair_count; i++)
        if (strcmp(client->pairs[i].peer, peer) == 0)
            return &client->pairs[i];
    return NULL;
}

static struct model_pair *pair_with(struct model_client *client, const char *peer)
{
    for (size_t i = 0; i < client->pair_count; i++)
        if (strcmp(client->pairs[i].peer, peer) == 0)
            return &client->pairs[i];
    client->pairs = mem_realloc(client->pairs, (client->pair_count + 1) * sizeof *client->pairs);
    struct model_pair *pair = &client->pairs[client->pair_count++];
    *pair = (struct model_pair){.expected = 1};
    model_copy_text(pair->peer, sizeof pair->peer, peer);
    return pair;
}

void messages_end_pair(struct model_client *client, const char *peer)
{
    pair_with(client, peer)->ended = true;
}

const struct model_heard *model_client_heard(const struct model_client *client, const char *from)
{
    for (size_t i = 0; i < client->heard_count; i++)
        if (strcmp(client->heard[i].from, from) == 0)
            return &client->heard[i];
    return NULL;
}

void messages_take_from_room(struct model_client *client, const Signalbox__V1__Message *message)
{
    size_t i = 0;
    while (i < client->heard_count && strcmp(client->heard[i].from, message->from) != 0)
        i++;
    if (i == client->heard_count) {
        client->heard = mem_realloc(client->heard, (i + 1) * sizeof *client->heard);
        client->heard[client->heard_count++] = (struct model_heard){0};
        model_copy_text(client->heard[i].from, sizeof client->heard[i].from, message->from);
    }
    struct model_heard *heard = &client->heard[i];
    if (message->sender_seq <= heard->last) {
        /* A later owner may not know that an earlier one has put it into the order. */
        if (strcmp(heard->epoch, client->epoch) == 0)
            model_violated(client, "room messages", "message %" PRIu64 " of %s comes twice", message->sender_seq,
                           message->from);
        return;
    }
    model_copy_text(heard->epoch, sizeof heard->epoch, client->epoch);
    if (heard->continuous && message->sender_seq != heard->last + 1)
        model_violated(client, "room messages", "room message %" PRIu64 " of %s after %" PRIu64, message->sender_seq,
                       message->from, heard->last);
    if (strtoull(message->text, NULL, 10) != message->sender_seq)
        model_violated(client, "room messages", "room message %" PRIu64 " of %s says %s", message->sender_seq,
                       message->from, message->text);
    heard->last = message->sender_seq;
    heard->continuous = true;
}

/* A message that says its own number; to the room if `peer` is "". */
static void transmit(struct model_client *client, const char *peer, uint64_t seq, uint64_t ack)
{
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Route route = SIGNALBOX__V1__ROUTE__INIT;
    Signalbox__V1__Send send = SIGNALBOX__V1__SEND__INIT;
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, seq);
    route.peer = (char *)peer;
    route.seq = seq;
    route.ack = ack;
    send.delivery = SIGNALBOX__V1__DELIVERY_CLASS__RELIABLE;
    send.data_case = SIGNALBOX__V1__SEND__DATA_TEXT;
    send.text = text;
    message.route = &route;
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_SEND;
    message.send = &send;
    world_send(client->conn, &message);
}

static void send_ack(struct model_client *client, struct model_pair *pair)
{
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Route route = SIGNALBOX__V1__ROUTE__INIT;
    Signalbox__V1__Ack ack = SIGNALBOX__V1__ACK__INIT;
    route.peer = pair->peer;
    route.ack = pair->expected - 1;
    message.route = &route;
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_ACK;
    message.ack = &ack;
    pair->ack_due = false;
    world_send(client->conn, &message);
}

static void resend(struct model_client *client, struct model_pair *pair)
{
    pair->sent_ms = world_now_ms(client->world);
    for (uint64_t seq = pair->acked + 1; seq <= pair->sent && !pair->ended; seq++)
        transmit(client, pair->peer, seq, pair->expected - 1);
}

static void resend_room(struct model_client *client)
{
    client->room_sent_ms = world_now_ms(client->world);
    for (uint64_t seq = client->room_acked + 1; seq <= client->room_sent; seq++)
        transmit(client, "", seq, 0);
}

void messages_resend_all(struct model_client *client)
{
    for (size_t i = 0; i < client->pair_count; i++)
        resend(client, &client->pairs[i]);
    resend_room(client);
}

void messages_take_ack(struct model_client *client, const Signalbox__V1__Route *route)
{
    if (route->peer[0] == '\0') {
        if (route->ack > client->room_sent)
            model_violated(client, "room messages", "the room acknowledges %" PRIu64 " of %" PRIu64, route->ack,
                           client->room_sent);
        else if (route->ack > client->room_acked)
            client->room_acked = route->ack;
        return;
    }
    struct model_pair *pair = pair_with(client, route->peer);
    if (route->ack > pair->sent) {
        model_violated(client, "directed messages", "%s acknowledges %" PRIu64 " of %" PRIu64, route->peer, route->ack,
                       pair->sent);
    } else if (route->ack > pair->acked) {
        pair->acked = route->ack;
        pair->doublings = 0;
        pair->sent_ms = world_now_ms(client->world);
    }
}

void messages_take_directed(struct model_client *client, const Message *message)
{
    const Signalbox__V1__Route *route = message->route;
    struct model_pair *pair = pair_with(client, route->peer);
    messages_take_ack(client, route);
    bool known = model_client_find(client, route->peer) != NULL ||
                 (client->has_position && !client->pulling && client->seq >= route->sender_join->seq);
    if (pair->ended || !known || route->seq > pair->expected)
        return; /* it comes again */
    pair->ack_due = true;
    if (route->seq < pair->expected)
        return;
    if (strtoull(message->message->text, NULL, 10) != pair->delivered + 1)
        model_violated(client, "directed messages", "directed message %" PRIu64 " of %s says %s", route->seq,
                       route->peer, message->message->text);
    pair->expected++;
    pair->delivered++;
}

void messages_keep_up(struct model_client *client, int64_t now_ms)
{
    for (size_t i = 0; i < client->pair_count; i++) {
        struct model_pair *pair = &client->pairs[i];
        if (pair->ack_due)
            send_ack(client, pair);
        if (pair->ended || pair->acked == pair->sent ||
            now_ms < pair->sent_ms + ((int64_t)RETRANSMIT_MS << pair->doublings))
            continue;
        if (pair->doublings < RETRANSMIT_DOUBLINGS)
            pair->doublings++;
        resend(client, pair);
    }
    if (client->room_acked < client->room_sent && now_ms >= client->room_sent_ms + RETRANSMIT_MS)
        resend_room(client);
}

bool model_client_send(struct model_client *client)
{
    if (!client->greeted || client->roster_count == 0)
        return false;
    const struct model_participant *to = &client->roster[world_random(client->world, client->roster_count)];
    struct model_pair *pair = pair_with(client, to->sid);
    if (strcmp(to->sid, client->sid) == 0 || pair->ended || pair->sent - pair->acked >= MODEL_WINDOW)
        return false;
    if (pair->sent == pair->acked)
        pair->sent_ms = world_now_ms(client->world);
    transmit(client, pair->peer, ++pair->sent, pair->expected - 1);
    return true;
}

bool model_client_say(struct model_client *client)
{
    if (!client->greeted || client->room_sent - client->room_acked >= MODEL_WINDOW)
        return false;
    if (client->room_sent == client->room_acked)
        client->room_sent_ms = world_now_ms(client->world);
    transmit(client, "", ++client->room_sent, 0);
    return true;
}
