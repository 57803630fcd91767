/* What a joined client says to others: passed on to the room's owner, or refused with a code. */
#include "common/metrics.h"
#include "request_fixture.h"
#include "suite.h"

static char peer[] = "AAAAAAAAAAAAAAAAAAAAAA";

static Signalbox__V1__Route route_to(char *to, uint64_t seq)
{
    Signalbox__V1__Route route = SIGNALBOX__V1__ROUTE__INIT;
    route.peer = to;
    route.seq = seq;
    route.ack = 5;
    return route;
}

/* --- directed messages ----------------------------------------------------------------------------------------- */

static const Signalbox__Cluster__V1__Relay *relayed(size_t since, const Message **ret_message)
{
    const Item *item = sent(&f, since, ITEM(RELAY), 0);
    ck_assert_ptr_nonnull(item);
    const Signalbox__Cluster__V1__Relay *relay = item->relay;
    *ret_message = signalbox__v1__server_message__unpack(&f.arena.allocator, relay->message.len, relay->message.data);
    ck_assert_ptr_nonnull(*ret_message);
    ck_assert_str_eq(relay->from, f.clients[ann].sid);
    ck_assert_str_eq(relay->to, peer);
    ck_assert_uint_eq(relay->from_bind_generation, 1);
    char epoch[EPOCH_TEXT_MAX + 1];
    epoch_format(&f.epoch, epoch);
    const Signalbox__V1__Route *route = (*ret_message)->route;
    ck_assert_str_eq(route->peer, f.clients[ann].sid);
    ck_assert_uint_eq(route->ack, 5);
    ck_assert_str_eq(route->sender_join->epoch, epoch);
    ck_assert_uint_eq(route->sender_join->seq, f.seq);
    return relay;
}

START_TEST(negotiation_is_relayed)
{
    const Message *message;
    Signalbox__V1__Route route = route_to(peer, 1);
    Signalbox__V1__Offer offer = SIGNALBOX__V1__OFFER__INIT;
    offer.sdp = (char *)"v=0";
    offer.negotiation = 3;
    offer.ice_generation = 2;
    REQUEST_WITH(offers, OFFER, offer, &offer, &route);
    size_t since = f.sent_count;
    ck_assert_int_eq(ask(ann, &offers), CODE(OK));
    const Signalbox__Cluster__V1__Relay *relay = relayed(since, &message);
    ck_assert_int_eq((int)relay->kind, SIGNALBOX__CLUSTER__V1__RELAY__KIND__OFFER);
    ck_assert_uint_eq(relay->class_, CLASS_NEGOTIATION);
    ck_assert_uint_eq(relay->negotiation, 3);
    ck_assert_uint_eq(relay->ice_generation, 2);
    ck_assert_str_eq(message->offer->sdp, "v=0");
    ck_assert_uint_eq(message->route->seq, 1);

    Signalbox__V1__Answer answer = SIGNALBOX__V1__ANSWER__INIT;
    REQUEST_WITH(answers, ANSWER, answer, &answer, &route);
    since = f.sent_count;
    ck_assert_int_eq(ask(ann, &answers), CODE(OK));
    ck_assert_int_eq((int)relayed(since, &message)->kind, SIGNALBOX__CLUSTER__V1__RELAY__KIND__ANSWER);

    Signalbox__V1__Candidate candidate = SIGNALBOX__V1__CANDIDATE__INIT;
    REQUEST_WITH(candidates, CANDIDATE, candidate, &candidate, &route);
    since = f.sent_count;
    ck_assert_int_eq(ask(ann, &candidates), CODE(OK));
    relay = relayed(since, &message);
    ck_assert_int_eq((int)relay->kind, SIGNALBOX__CLUSTER__V1__RELAY__KIND__CANDIDATE);
    ck_assert_uint_eq(relay->class_, CLASS_CANDIDATES);

    Signalbox__V1__CandidatesDone done = SIGNALBOX__V1__CANDIDATES_DONE__INIT;
    REQUEST_WITH(dones, CANDIDATES_DONE, candidates_done, &done, &route);
    since = f.sent_count;
    ck_assert_int_eq(ask(ann, &dones), CODE(OK));
    ck_assert_int_eq((int)relayed(since, &message)->kind, SIGNALBOX__CLUSTER__V1__RELAY__KIND__CANDIDATES_DONE);

    Signalbox__V1__Ack ack = SIGNALBOX__V1__ACK__INIT;
    route.seq = 0;
    REQUEST_WITH(acks, ACK, ack, &ack, &route);
    since = f.sent_count;
    ck_assert_int_eq(ask(ann, &acks), CODE(OK));
    ck_assert_int_eq((int)relayed(since, &message)->kind, SIGNALBOX__CLUSTER__V1__RELAY__KIND__ACK);
    ck_assert_int_eq((int)message->body_case, BODY(ACK));
}
END_TEST

START_TEST(directed_messages_need_a_route)
{
    Signalbox__V1__Offer offer = SIGNALBOX__V1__OFFER__INIT;
    Signalbox__V1__Route route = route_to((char *)"not a sid", 1);
    size_t since = f.sent_count;
    REQUEST_WITH(message, OFFER, offer, &offer, NULL);
    ck_assert_int_eq(ask(ann, &message), CODE(INVALID));
    message.route = &route;
    ck_assert_int_eq(ask(ann, &message), CODE(INVALID));
    route = route_to(f.clients[ann].sid, 1);
    ck_assert_int_eq(ask(ann, &message), CODE(INVALID));
    route = route_to(peer, 0);
    ck_assert_int_eq(ask(ann, &message), CODE(INVALID));
    ck_assert_uint_eq(f.sent_count, since);
}
END_TEST

START_TEST(large_negotiation_is_refused)
{
    Signalbox__V1__Route route = route_to(peer, 1);
    Signalbox__V1__Offer offer = SIGNALBOX__V1__OFFER__INIT;
    offer.sdp = (char *)long_text(48 * 1024 + 1);
    REQUEST_WITH(offers, OFFER, offer, &offer, &route);
    ck_assert_int_eq(ask(ann, &offers), CODE(TOO_LARGE));
    Signalbox__V1__Answer answer = SIGNALBOX__V1__ANSWER__INIT;
    answer.sdp = offer.sdp;
    REQUEST_WITH(answers, ANSWER, answer, &answer, &route);
    ck_assert_int_eq(ask(ann, &answers), CODE(TOO_LARGE));
    Signalbox__V1__Candidate candidate = SIGNALBOX__V1__CANDIDATE__INIT;
    candidate.candidate = (char *)long_text(1025);
    REQUEST_WITH(candidates, CANDIDATE, candidate, &candidate, &route);
    ck_assert_int_eq(ask(ann, &candidates), CODE(TOO_LARGE));
    ck_assert_int_eq(sent_count(&f, 0, ITEM(RELAY)), 0);
}
END_TEST

START_TEST(relays_reach_the_client)
{
    Message message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Ack ack = SIGNALBOX__V1__ACK__INIT;
    Signalbox__Cluster__V1__Relay relay = SIGNALBOX__CLUSTER__V1__RELAY__INIT;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    message.body_case = BODY(ACK);
    message.ack = &ack;
    relay.room_key = key_data("r");
    relay.from = peer;
    relay.to = f.clients[ann].sid;
    relay.class_ = CLASS_CANDIDATES;
    relay.message = pack_message(&message);
    item.body_case = ITEM(RELAY);
    item.relay = &relay;
    fixture_deliver(&f, &item);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(ACK)), 1);
    ck_assert_int_eq((int)f.received[f.received_count - 1].class, CLASS_CANDIDATES);
    uint64_t before = metric_value(M_RELAYS_UNHEARD);
    relay.to = peer;
    fixture_deliver(&f, &item);
    ck_assert_uint_eq(metric_value(M_RELAYS_UNHEARD), before + 1);
}
END_TEST

START_TEST(receivers_that_have_gone_are_told)
{
    Signalbox__Cluster__V1__RelayFailed failed = SIGNALBOX__CLUSTER__V1__RELAY_FAILED__INIT;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    failed.room_key = key_data("r");
    failed.from = f.clients[ann].sid;
    failed.to = peer;
    failed.reason = REASON(CLIENT_LEFT);
    item.body_case = ITEM(RELAY_FAILED);
    item.relay_failed = &failed;
    fixture_deliver(&f, &item);
    const Message *message = received(&f, 0, ann, BODY(UNDELIVERABLE), 0);
    ck_assert_str_eq(message->route->peer, peer);
    ck_assert_int_eq((int)message->undeliverable->reason, REASON(CLIENT_LEFT));
    struct node_address former = {.kind = NODE_SHARD, .id = "shard-9", .incarnation = 9};
    gateway_item(f.gateway, &former, &item, f.now_ms);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(UNDELIVERABLE)), 1);
}
END_TEST

/* --- application messages -------------------------------------------------------------------------------------- */

static Signalbox__V1__Send send_text(int delivery, const char *text)
{
    Signalbox__V1__Send send = SIGNALBOX__V1__SEND__INIT;
    send.delivery = delivery;
    send.topic = (char *)"chat";
    send.data_case = SIGNALBOX__V1__SEND__DATA_TEXT;
    send.text = (char *)text;
    return send;
}

START_TEST(sends_go_where_they_are_meant_for)
{
    const Message *message;
    Signalbox__V1__Route route = route_to(peer, 1);
    Signalbox__V1__Send send = send_text(SIGNALBOX__V1__DELIVERY_CLASS__RELIABLE, "hi");
    REQUEST_WITH(sends, SEND, send, &send, &route);
    size_t since = f.sent_count;
    ck_assert_int_eq(ask(ann, &sends), CODE(OK));
    ck_assert_int_eq((int)relayed(since, &message)->kind, SIGNALBOX__CLUSTER__V1__RELAY__KIND__APPLICATION);
    ck_assert_str_eq(message->message->text, "hi");
    ck_assert_str_eq(message->message->from, f.clients[ann].sid);

    route = route_to((char *)"", 4);
    since = f.sent_count;
    ck_assert_int_eq(ask(ann, &sends), CODE(OK));
    const Signalbox__Cluster__V1__RoomSend *room_send = sent(&f, since, ITEM(ROOM_SEND), 0)->room_send;
    ck_assert_uint_eq(room_send->sender_seq, 4);
    ck_assert_uint_eq(room_send->bind_generation, 1);
    ck_assert_str_eq(room_send->message->text, "hi");
    route.seq = 0;
    ck_assert_int_eq(ask(ann, &sends), CODE(INVALID));
    sends.route = NULL;
    ck_assert_int_eq(ask(ann, &sends), CODE(INVALID));

    Signalbox__V1__Speaking speaking = SIGNALBOX__V1__SPEAKING__INIT;
    speaking.level = 61;
    send = send_text(SIGNALBOX__V1__DELIVERY_CLASS__EPHEMERAL, "");
    send.key = (char *)"speaking";
    send.data_case = SIGNALBOX__V1__SEND__DATA_SPEAKING;
    send.speaking = &speaking;
    since = f.sent_count;
    ck_assert_int_eq(ask(ann, &sends), CODE(OK));
    const Signalbox__Cluster__V1__SignalUpdate *signal = sent(&f, since, ITEM(SIGNAL), 0)->signal;
    ck_assert_str_eq(signal->signal->key, "speaking");
    ck_assert_uint_eq(signal->signal->speaking->level, 61);
    ck_assert_str_eq(signal->to, "");
    send.delivery = SIGNALBOX__V1__DELIVERY_CLASS__RELIABLE;
    ck_assert_int_eq(ask(ann, &sends), CODE(INVALID));
}
END_TEST

START_TEST(sends_beyond_limits_are_refused)
{
    Signalbox__V1__Route route = route_to((char *)"", 1);
    Signalbox__V1__Send send =
        send_text(SIGNALBOX__V1__DELIVERY_CLASS__RELIABLE, long_text(f.options.limits.send_bytes + 1));
    REQUEST_WITH(sends, SEND, send, &send, &route);
    ck_assert_int_eq(ask(ann, &sends), CODE(TOO_LARGE));
    send = send_text(SIGNALBOX__V1__DELIVERY_CLASS__RELIABLE, "hi");
    send.topic = (char *)long_text(129);
    ck_assert_int_eq(ask(ann, &sends), CODE(TOO_LARGE));
    send = send_text(SIGNALBOX__V1__DELIVERY_CLASS__DELIVERY_UNSPECIFIED, "hi");
    ck_assert_int_eq(ask(ann, &sends), CODE(INVALID));
    int mute = join_client(&f, "mute", "r", json_pack("{s:b}", "canPublishData", 0));
    send = send_text(SIGNALBOX__V1__DELIVERY_CLASS__RELIABLE, "hi");
    ck_assert_int_eq(ask(mute, &sends), CODE(FORBIDDEN));
    ck_assert_int_eq(sent_count(&f, 0, ITEM(ROOM_SEND)), 0);
}
END_TEST

START_TEST(room_send_acknowledgement_is_passed_on)
{
    Signalbox__Cluster__V1__RoomSendAck ack = SIGNALBOX__CLUSTER__V1__ROOM_SEND_ACK__INIT;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    ack.room_key = key_data("r");
    ack.sid = f.clients[ann].sid;
    ack.acked = 3;
    ack.code = CODE(OK);
    item.body_case = ITEM(ROOM_SEND_ACK);
    item.room_send_ack = &ack;
    fixture_deliver(&f, &item);
    const Message *message = received(&f, 0, ann, BODY(ACK), 0);
    ck_assert_uint_eq(message->route->ack, 3);
    ck_assert_str_eq(message->route->peer, "");
    fixture_next_owner(&f); /* a new owner must know how far it had come */
    ck_assert_uint_eq(last_state(&f, ann)->room_send_acked, 3);
}
END_TEST

START_TEST(ice_states_are_reported)
{
    Signalbox__V1__IceState state = SIGNALBOX__V1__ICE_STATE__INIT;
    state.peer = peer;
    state.state = SIGNALBOX__V1__ICE_STATE__STATE__CONNECTED;
    REQUEST_WITH(message, ICE_STATE, ice_state, &state, NULL);
    ck_assert_int_eq(ask(ann, &message), CODE(OK));
    ck_assert_str_eq(sent(&f, 0, ITEM(ICE_REPORT), 0)->ice_report->from, f.clients[ann].sid);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("messages");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, negotiation_is_relayed);
    tcase_add_test(tests, directed_messages_need_a_route);
    tcase_add_test(tests, large_negotiation_is_refused);
    tcase_add_test(tests, relays_reach_the_client);
    tcase_add_test(tests, receivers_that_have_gone_are_told);
    tcase_add_test(tests, sends_go_where_they_are_meant_for);
    tcase_add_test(tests, sends_beyond_limits_are_refused);
    tcase_add_test(tests, room_send_acknowledgement_is_passed_on);
    tcase_add_test(tests, ice_states_are_reported);
    return suite_run("gateway_messages", tests, NULL);
}
