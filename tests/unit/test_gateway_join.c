/* hello: what is refused and how, and how a session comes about although anything may be lost. */
#include "common/metrics.h"
#include "gateway_fixture.h"
#include "suite.h"
#include <stdlib.h>
#include <string.h>

static struct fixture f;

static void setup(void)
{
    fixture_open(&f, NULL);
}

static void teardown(void)
{
    fixture_close(&f);
}

/* --- refusals -------------------------------------------------------------------------------------------------- */

struct fault {
    const char *name;
    const char *claims; /* laid over a good token's; an empty object replaces nothing */
    const char *secret; /* NULL: the key's own */
    const char *room;   /* that the client asks for */
    uint16_t close_code;
    int code;
};

static const char own_secret[] = "a secret of the tests, long enough to be one";

static const struct fault faults[] = {
    {"signature", "{}", "another secret, which is long enough as well", "", CLOSE_UNAUTHENTICATED,
     CODE(UNAUTHENTICATED)},
    {"key", "{\"iss\": \"nobody\"}", NULL, "", CLOSE_UNAUTHENTICATED, CODE(UNAUTHENTICATED)},
    {"expired", "{\"exp\": 1000}", NULL, "", CLOSE_UNAUTHENTICATED, CODE(UNAUTHENTICATED)},
    {"not yet", "{\"nbf\": 2900000000}", NULL, "", CLOSE_UNAUTHENTICATED, CODE(UNAUTHENTICATED)},
    {"no grant", "{\"video\": {\"room\": \"r\"}}", NULL, "", CLOSE_FORBIDDEN, CODE(FORBIDDEN)},
    {"no room", "{\"video\": {\"roomJoin\": true}}", NULL, "", CLOSE_FORBIDDEN, CODE(FORBIDDEN)},
    {"no room, one asked", "{\"video\": {\"roomJoin\": true}}", NULL, "r", CLOSE_FORBIDDEN, CODE(FORBIDDEN)},
    {"wrong room", "{}", NULL, "other", CLOSE_FORBIDDEN, CODE(FORBIDDEN)},
    {"room name", "{}", NULL, "a\nb", CLOSE_PROTOCOL_ERROR, CODE(INVALID)},
    {"no identity", "{\"sub\": \"\"}", NULL, "", CLOSE_FORBIDDEN, CODE(FORBIDDEN)},
    {"region", "{\"video\": {\"roomJoin\": true, \"room\": \"eu/r\", \"regions\": [\"us\"]}}", NULL, "",
     CLOSE_FORBIDDEN, CODE(FORBIDDEN)},
};

START_TEST(faulty_tokens_are_refused)
{
    const struct fault *fault = &faults[_i];
    json_t *claims = json_pack("{s:s, s:s, s:I, s:{s:b, s:s}}", "iss", "key", "sub", "ann", "exp",
                               (json_int_t)(fixture_wall_s(&f) + 60), "video", "roomJoin", 1, "room", "r");
    json_t *changes = json_loads(fault->claims, 0, NULL);
    ck_assert_ptr_nonnull(changes);
    json_object_update(claims, changes);
    char *token = jwt_mint(fault->secret != NULL ? fault->secret : own_secret, claims);
    Join join = SIGNALBOX__V1__JOIN__INIT;
    join.room = (char *)fault->room;
    int client = connect_client(&f);
    hello_token(&f, client, token, &join);
    ck_assert_msg(f.clients[client].closed, "%s", fault->name);
    ck_assert_msg(f.clients[client].close_code == fault->close_code, "%s: %u", fault->name,
                  f.clients[client].close_code);
    ck_assert_int_eq((int)result_of(&f, client, 1)->code, fault->code);
    ck_assert_uint_eq(f.sent_count, 0);
    struct jwt_claims ret_claims;
    struct refusal refusal = {0};
    ck_assert(!gateway_check_token(f.gateway, token, strlen(token), fault->room, &ret_claims, &refusal));
    ck_assert_int_eq(refusal.http_status, fault->code == CODE(UNAUTHENTICATED) ? 401
                                          : fault->code == CODE(FORBIDDEN)     ? 403
                                                                               : 400);
    free(token);
    json_decref(changes);
    json_decref(claims);
}
END_TEST

START_TEST(hello_without_token)
{
    int client = connect_client(&f);
    hello_token(&f, client, "", NULL);
    ck_assert_int_eq((int)result_of(&f, client, 1)->code, CODE(UNAUTHENTICATED));
    assert_closed(&f, client, CLOSE_UNAUTHENTICATED, REASON(LEAVE_REASON_UNSPECIFIED), ACTION(STOP));
    int malformed = connect_client(&f);
    hello_token(&f, malformed, "not a token", NULL);
    assert_closed(&f, malformed, CLOSE_UNAUTHENTICATED, REASON(LEAVE_REASON_UNSPECIFIED), ACTION(STOP));
}
END_TEST

START_TEST(token_of_the_upgrade_counts_first)
{
    char *token = mint(&f, "ann", "r", NULL);
    struct jwt_claims *claims = calloc(1, sizeof *claims);
    struct refusal refusal;
    ck_assert(gateway_check_token(f.gateway, token, strlen(token), "", claims, &refusal));
    free(token);
    f.clients[0].client = gateway_client_open(f.gateway, &f.clients[0], claims, f.now_ms);
    token = mint(&f, "bob", "other", NULL);
    hello_token(&f, 0, token, NULL);
    free(token);
    ck_assert_str_eq(newest_state(&f)->participant->identity, "ann");
    ck_assert_str_eq(newest_state(&f)->room, "r");
}
END_TEST

START_TEST(first_message_must_be_hello)
{
    int client = connect_client(&f);
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Ping ping = SIGNALBOX__V1__PING__INIT;
    message.body_case = REQUEST(PING);
    message.ping = &ping;
    request(&f, client, &message);
    assert_closed(&f, client, CLOSE_HELLO_EXPECTED, REASON(PROTOCOL_ERROR), ACTION(STOP));
    request(&f, client, &message); /* what still arrives is ignored */
    ck_assert_uint_eq(f.received_count, 1);
}
END_TEST

START_TEST(hello_must_come_in_time)
{
    int client = connect_client(&f);
    fixture_advance(&f, f.options.limits.hello_timeout_ms - 1);
    ck_assert(!f.clients[client].closed);
    fixture_advance(&f, 1);
    assert_closed(&f, client, CLOSE_HELLO_EXPECTED, REASON(PROTOCOL_ERROR), ACTION(STOP));
}
END_TEST

START_TEST(malformed_before_hello_closes)
{
    int client = connect_client(&f);
    gateway_client_malformed(f.gateway, f.clients[client].client, "not protobuf", f.now_ms);
    assert_closed(&f, client, CLOSE_PROTOCOL_ERROR, REASON(PROTOCOL_ERROR), ACTION(STOP));
}
END_TEST

START_TEST(agents_are_not_served_yet)
{
    int client = connect_client(&f);
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Hello hello = SIGNALBOX__V1__HELLO__INIT;
    hello.agent = true;
    message.request_id = 1;
    message.body_case = REQUEST(HELLO);
    message.hello = &hello;
    request(&f, client, &message);
    ck_assert_int_eq((int)result_of(&f, client, 1)->code, CODE(UNKNOWN_MESSAGE));
    ck_assert_uint_eq(f.clients[client].close_code, CLOSE_FORBIDDEN);
}
END_TEST

static void refused_join(Join *join)
{
    int client = connect_client(&f);
    char *token = mint(&f, "ann", "r", NULL);
    hello_token(&f, client, token, join);
    free(token);
    ck_assert_int_eq((int)result_of(&f, client, 1)->code, CODE(TOO_LARGE));
    assert_closed(&f, client, CLOSE_PROTOCOL_ERROR, REASON(PROTOCOL_ERROR), ACTION(STOP));
    ck_assert_uint_eq(f.sent_count, 0);
    ck_assert_uint_eq(gateway_stats(f.gateway).rooms, 0);
}

START_TEST(joins_beyond_limits_are_refused)
{
    static char long_text[5000];
    memset(long_text, 'x', sizeof long_text - 1);
    Join join = SIGNALBOX__V1__JOIN__INIT;
    join.metadata = long_text;
    refused_join(&join);
    join = (Join)SIGNALBOX__V1__JOIN__INIT;
    join.name = long_text;
    refused_join(&join);
    join = (Join)SIGNALBOX__V1__JOIN__INIT;
    Signalbox__V1__Track tracks[2] = {SIGNALBOX__V1__TRACK__INIT, SIGNALBOX__V1__TRACK__INIT};
    Signalbox__V1__Track *list[2] = {&tracks[0], &tracks[1]};
    tracks[0].id = tracks[1].id = (char *)"same";
    join.tracks = list;
    join.n_tracks = 2;
    refused_join(&join);
    join = (Join)SIGNALBOX__V1__JOIN__INIT;
    Signalbox__V1__Interest interest = SIGNALBOX__V1__INTEREST__INIT;
    char *keys[1] = {long_text};
    interest.mute_keys = keys;
    interest.n_mute_keys = 1;
    join.interest = &interest;
    refused_join(&join);
}
END_TEST

START_TEST(not_ready_is_not_now)
{
    gateway_bus(f.gateway, false, f.now_ms);
    int client = connect_client(&f);
    char *token = mint(&f, "ann", "r", NULL);
    hello_token(&f, client, token, NULL);
    free(token);
    const Signalbox__V1__Result *result = result_of(&f, client, 1);
    ck_assert_int_eq((int)result->code, CODE(UNAVAILABLE));
    ck_assert_uint_gt(result->retry_after_ms, 0);
    assert_closed(&f, client, CLOSE_OVERLOADED, REASON(CAPACITY), ACTION(REJOIN));
    ck_assert_ptr_nonnull(strstr(f.clients[client].close_reason, "retry_after_ms=2000"));
}
END_TEST

START_TEST(one_that_is_not_in_the_view_takes_nobody)
{
    struct node_address self = f.options.self;
    self.incarnation++;
    gateway_rename(f.gateway, &self);
    int client = connect_client(&f);
    char *token = mint(&f, "ann", "r", NULL);
    hello_token(&f, client, token, NULL);
    free(token);
    ck_assert_int_eq((int)result_of(&f, client, 1)->code, CODE(UNAVAILABLE));
    assert_closed(&f, client, CLOSE_OVERLOADED, REASON(CAPACITY), ACTION(REJOIN));
}
END_TEST

/* --- a session comes about ------------------------------------------------------------------------------------- */

START_TEST(join_is_said_to_the_owner)
{
    int client = connect_client(&f);
    json_t *grants = json_pack("{s:[s,s]}", "canPublishSources", "camera", "unheard_of");
    char *token = mint(&f, "ann", "r", grants);
    Join join = SIGNALBOX__V1__JOIN__INIT;
    Signalbox__V1__Track tracks[3] = {SIGNALBOX__V1__TRACK__INIT, SIGNALBOX__V1__TRACK__INIT,
                                      SIGNALBOX__V1__TRACK__INIT};
    Signalbox__V1__Track *list[3] = {&tracks[0], &tracks[1], &tracks[2]};
    tracks[0].id = (char *)"cam";
    tracks[0].source = SIGNALBOX__V1__SOURCE__CAMERA;
    tracks[1].id = (char *)"mic";
    tracks[1].source = SIGNALBOX__V1__SOURCE__MICROPHONE;
    tracks[2].id = (char *)"odd"; /* no source: no grant names it */
    Signalbox__V1__Join__AttributesEntry pair = SIGNALBOX__V1__JOIN__ATTRIBUTES_ENTRY__INIT, *pairs[1] = {&pair};
    pair.key = (char *)"seat";
    pair.value = (char *)"4";
    join.name = (char *)"Ann";
    join.tracks = list;
    join.n_tracks = 3;
    join.attributes = pairs;
    join.n_attributes = 1;
    hello_token(&f, client, token, &join);
    free(token);
    ck_assert_uint_eq(f.sent_count, 1);
    ck_assert(node_address_equal(&f.sent[0].to, &f.shard));
    const State *state = newest_state(&f);
    ck_assert_int_eq((int)state->intent, JOIN);
    ck_assert_int_eq((int)state->state, ATTACHED);
    ck_assert_str_eq(state->project, "test");
    ck_assert_str_eq(state->room, "r");
    ck_assert_uint_eq(state->bind_generation, 0);
    ck_assert_uint_eq(state->resume_window_ms, f.options.limits.resume_window_ms);
    ck_assert_ptr_null(state->last_epoch);
    ck_assert_str_eq(state->participant->name, "Ann");
    ck_assert_uint_eq(state->participant->n_attributes, 1);
    ck_assert_uint_eq(state->participant->n_tracks, 1);
    ck_assert_str_eq(state->participant->tracks[0]->id, "cam");
    ck_assert(state->participant->permissions->can_publish && state->participant->permissions->can_publish_data);
    ck_assert_uint_eq(f.received_count, 0);
}
END_TEST

/* Or an owner would take a connection to this gateway for one of the process that had its id before. */
START_TEST(connections_of_two_starts_differ)
{
    uint64_t connections[2];
    for (int i = 0; i < 2; i++) {
        int client = connect_client(&f);
        char *token = mint(&f, "ann", "r", NULL);
        hello_token(&f, client, token, NULL);
        free(token);
        connections[i] = newest_state(&f)->connection;
        fixture_close(&f);
        fixture_open(&f, NULL);
    }
    ck_assert_uint_ne(connections[0], connections[1]);
}
END_TEST

START_TEST(viewers_are_who_may_not_publish)
{
    join_client(&f, "ann", "r", json_pack("{s:b}", "canPublish", 0));
    ck_assert_int_eq((int)newest_state(&f)->participant->kind, SIGNALBOX__V1__PARTICIPANT__KIND__VIEWER);
}
END_TEST

START_TEST(lost_states_are_repeated_with_backoff)
{
    int client = connect_client(&f);
    char *token = mint(&f, "ann", "r", NULL);
    hello_token(&f, client, token, NULL);
    free(token);
    static const int64_t waits_ms[] = {300, 600, 1200, 2400, 4800};
    for (size_t i = 0; i < sizeof waits_ms / sizeof waits_ms[0]; i++) {
        size_t before = f.sent_count;
        fixture_advance(&f, waits_ms[i] - 1);
        ck_assert_uint_eq(f.sent_count, before);
        fixture_advance(&f, 1);
        ck_assert_uint_eq(f.sent_count, before + 1);
        ck_assert_uint_eq(newest_state(&f)->version, 1);
        ck_assert_uint_eq(newest_state(&f)->connection, f.sent[0].item->session_state->connection);
    }
    bind_session(&f, newest_state(&f), 1, 7);
    size_t before = f.sent_count;
    fixture_advance(&f, 60000);
    ck_assert_int_eq(sent_count(&f, before, ITEM(SESSION_STATE)), 0);
}
END_TEST

START_TEST(greeting_comes_before_everything)
{
    int client = join_client(&f, "ann", "r", NULL);
    ck_assert_uint_eq(f.received_count, 3);
    ck_assert_int_eq((int)f.received[0].message->body_case, BODY(HELLO_OK));
    ck_assert_int_eq((int)f.received[1].message->body_case, BODY(RESULT));
    ck_assert_int_eq((int)f.received[2].message->body_case, BODY(SNAPSHOT));
    const Signalbox__V1__HelloOk *ok = f.received[0].message->hello_ok;
    ck_assert_str_eq(ok->sid, f.clients[client].sid);
    ck_assert_str_eq(ok->room, "r");
    ck_assert_str_eq(ok->project, "test");
    ck_assert_str_eq(ok->gateway, "gw-1");
    ck_assert_str_eq(ok->shard, f.shard.id);
    ck_assert_str_eq(ok->self->identity, "ann");
    ck_assert_uint_eq(ok->position->seq, f.seq);
    ck_assert_uint_eq(ok->bind_generation, 1);
    ck_assert_uint_eq(ok->limits->send_bytes, f.options.limits.send_bytes);
    ck_assert_int_eq(ok->server_time_ms / 1000, fixture_wall_s(&f));
    ck_assert(!ok->recovered);
}
END_TEST

START_TEST(second_hello_is_refused)
{
    int client = join_client(&f, "ann", "r", NULL);
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Hello hello = SIGNALBOX__V1__HELLO__INIT;
    message.request_id = 9;
    message.body_case = REQUEST(HELLO);
    message.hello = &hello;
    request(&f, client, &message);
    ck_assert_int_eq((int)result_of(&f, client, 9)->code, CODE(INVALID));
    ck_assert(!f.clients[client].closed);
}
END_TEST

START_TEST(owner_refuses)
{
    static const struct {
        int code, reason, action;
        uint16_t close_code;
    } cases[] = {
        {CODE(NO_CAPACITY), REASON(CAPACITY), ACTION(REJOIN), CLOSE_NO_CAPACITY},
        {CODE(LIMIT_REACHED), REASON(CAPACITY), ACTION(STOP), CLOSE_FORBIDDEN},
        {CODE(ALREADY_EXISTS), REASON(DUPLICATE_IDENTITY), ACTION(STOP), CLOSE_DUPLICATE_IDENTITY},
        {CODE(TOO_LARGE), REASON(PROTOCOL_ERROR), ACTION(STOP), CLOSE_PROTOCOL_ERROR},
        {CODE(INTERNAL), REASON(SERVER_ERROR), ACTION(STOP), CLOSE_SERVER_ERROR},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int client = connect_client(&f);
        char *token = mint(&f, "ann", "r", NULL);
        hello_token(&f, client, token, NULL);
        free(token);
        Ack *ack = make_ack(&f, newest_state(&f));
        ack->code = cases[i].code;
        ack->reason = cases[i].reason;
        ack->action = cases[i].action;
        ack->retry_after_ms = 5000;
        ack->detail = (char *)"the owner says why";
        deliver_ack(&f, ack);
        ck_assert_int_eq((int)result_of(&f, client, 1)->code, cases[i].code);
        assert_closed(&f, client, cases[i].close_code, cases[i].reason, cases[i].action);
        ck_assert_uint_eq(gateway_stats(f.gateway).sessions, 0);
        ck_assert_uint_eq(gateway_stats(f.gateway).rooms, 0);
    }
}
END_TEST

START_TEST(stale_acknowledgements_are_ignored)
{
    int client = connect_client(&f);
    char *token = mint(&f, "ann", "r", NULL);
    hello_token(&f, client, token, NULL);
    free(token);
    Ack *ack = make_ack(&f, newest_state(&f));
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    item.body_case = ITEM(SESSION_ACK);
    item.session_ack = ack;
    struct node_address former = {.kind = NODE_SHARD, .id = "shard-1", .incarnation = 1};
    uint64_t before = metric_value(M_ACKS_STALE);
    gateway_item(f.gateway, &former, &item, f.now_ms);
    ack->connection++;
    deliver_ack(&f, ack);
    ack->connection--;
    ack->sid = (char *)"AAAAAAAAAAAAAAAAAAAAAA";
    deliver_ack(&f, ack);
    ck_assert_uint_eq(metric_value(M_ACKS_STALE), before + 3);
    ck_assert_uint_eq(f.received_count, 0);
}
END_TEST

START_TEST(unanswered_join_times_out_and_departs)
{
    int client = connect_client(&f);
    char *token = mint(&f, "ann", "r", NULL);
    hello_token(&f, client, token, NULL);
    free(token);
    fixture_advance(&f, f.options.limits.join_timeout_ms);
    assert_closed(&f, client, CLOSE_OVERLOADED, REASON(CAPACITY), ACTION(REJOIN));
    ck_assert_uint_eq(received(&f, 0, client, BODY(LEAVE), 0)->leave->retry_after_ms, f.options.limits.retry_base_ms);
    /* The owner may have seated it: it is told until it answers, however long that takes. */
    fixture_advance(&f, 3600 * 1000);
    const State *state = newest_state(&f);
    ck_assert_int_eq((int)state->state, DEPARTED);
    ck_assert_int_eq((int)state->intent, JOIN);
    ck_assert_uint_eq(gateway_stats(f.gateway).orphans, 1);
    Ack *late = make_ack(&f, f.sent[0].item->session_state);
    deliver_ack(&f, late); /* of the join itself: not what is wanted any more */
    ck_assert_uint_eq(gateway_stats(f.gateway).sessions, 1);
    deliver_ack(&f, make_ack(&f, state));
    ck_assert_uint_eq(gateway_stats(f.gateway).sessions, 0);
    ck_assert_uint_eq(gateway_stats(f.gateway).rooms, 0);
}
END_TEST

static void deliver_taken(const State *state, const char *by)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__IdentityTaken taken = SIGNALBOX__CLUSTER__V1__IDENTITY_TAKEN__INIT;
    taken.room_key = state->room_key;
    taken.sid = state->sid;
    taken.connection = state->connection;
    taken.by = (char *)by;
    item.body_case = ITEM(IDENTITY_TAKEN);
    item.identity_taken = &taken;
    fixture_deliver(&f, &item);
}

START_TEST(who_takes_anothers_place_says_so_while_somebody_waits_for_it)
{
    static const char by[] = "BAAAAAAAAAAAAAAAAAAAAA";
    int client = connect_client(&f);
    char *token = mint(&f, "ann", "r", NULL);
    hello_token(&f, client, token, NULL);
    free(token);
    ck_assert_str_eq(newest_state(&f)->replaces, "");
    deliver_taken(newest_state(&f), by);
    ck_assert_int_eq((int)newest_state(&f)->state, ATTACHED);
    ck_assert_str_eq(newest_state(&f)->replaces, by);
    disconnect_client(&f, client, false);
    int said = sent_count(&f, 0, ITEM(SESSION_STATE));
    deliver_taken(newest_state(&f), by); /* nobody wants that place any more */
    ck_assert_int_eq(sent_count(&f, 0, ITEM(SESSION_STATE)), said);
    ck_assert_int_eq((int)newest_state(&f)->state, DEPARTED);
}
END_TEST

START_TEST(client_goes_before_the_answer)
{
    int client = connect_client(&f);
    char *token = mint(&f, "ann", "r", NULL);
    hello_token(&f, client, token, NULL);
    free(token);
    disconnect_client(&f, client, false);
    const State *state = newest_state(&f);
    ck_assert_int_eq((int)state->state, DEPARTED);
    ck_assert_int_eq((int)state->reason, REASON(DISCONNECTED));
    deliver_ack(&f, make_ack(&f, state));
    ck_assert_uint_eq(gateway_stats(f.gateway).sessions, 0);
}
END_TEST

START_TEST(ice_servers_have_credentials)
{
    char *urls[] = {(char *)"turn:turn.example.com:3478"};
    f.options.turn = (struct gateway_turn){.urls = urls, .url_count = 1, .secret = "shared", .ttl_s = 600};
    gateway_reconfigure(f.gateway, &f.options, f.keyring, &f.token_keys);
    int client = join_client(&f, "ann", "r", NULL);
    const Signalbox__V1__HelloOk *ok = received(&f, 0, client, BODY(HELLO_OK), 0)->hello_ok;
    ck_assert_uint_eq(ok->n_ice_servers, 1);
    ck_assert_int_eq(ok->ice_servers[0]->expires_at_s, fixture_wall_s(&f) + 600);
    ck_assert_uint_gt(strlen(ok->ice_servers[0]->credential), 0);
}
END_TEST

/* A share of what this process can take in is kept for those who come back. */
START_TEST(newcomers_leave_room_for_those_who_resume)
{
    struct gateway_capacity capacity = {.join_connections = 2};
    int ann = join_client(&f, "ann", "r", NULL);
    join_client(&f, "bob", "r", NULL);
    gateway_set_capacity(f.gateway, &capacity, f.now_ms);
    uint64_t deferred = metric_value_at(M_JOINS_DEFERRED, 0);
    int carl = connect_client(&f);
    char *token = mint(&f, "carl", "r", NULL);
    hello_token(&f, carl, token, NULL);
    assert_closed(&f, carl, CLOSE_OVERLOADED, REASON(CAPACITY), ACTION(REJOIN));
    ck_assert_uint_gt(received(&f, 0, carl, BODY(LEAVE), 0)->leave->retry_after_ms, 0);
    ck_assert_uint_eq(metric_value_at(M_JOINS_DEFERRED, 0), deferred + 1);
    int again = connect_client(&f);
    hello_resume(&f, again, f.clients[ann].resume_token, NULL);
    ck_assert_int_eq((int)newest_state(&f)->intent, RESUME);
    ck_assert(!f.clients[again].closed);

    capacity = (struct gateway_capacity){.joins_per_s = 3};
    gateway_set_capacity(f.gateway, &capacity, f.now_ms);
    int refused = 0;
    for (int i = 0; i < 5; i++) {
        int client = connect_client(&f);
        hello_token(&f, client, token, NULL);
        refused += f.clients[client].closed;
    }
    ck_assert_int_eq(refused, 2);
    again = connect_client(&f);
    hello_resume(&f, again, f.clients[ann].resume_token, NULL);
    ck_assert(!f.clients[again].closed);
    fixture_advance(&f, 400);
    int later = connect_client(&f);
    hello_token(&f, later, token, NULL);
    ck_assert(!f.clients[later].closed);
    free(token);
}
END_TEST

int main(void)
{
    TCase *refusals = tcase_create("refusals");
    tcase_set_timeout(refusals, 60);
    tcase_add_checked_fixture(refusals, setup, teardown);
    tcase_add_loop_test(refusals, faulty_tokens_are_refused, 0, sizeof faults / sizeof faults[0]);
    tcase_add_test(refusals, hello_without_token);
    tcase_add_test(refusals, token_of_the_upgrade_counts_first);
    tcase_add_test(refusals, first_message_must_be_hello);
    tcase_add_test(refusals, hello_must_come_in_time);
    tcase_add_test(refusals, malformed_before_hello_closes);
    tcase_add_test(refusals, agents_are_not_served_yet);
    tcase_add_test(refusals, joins_beyond_limits_are_refused);
    tcase_add_test(refusals, not_ready_is_not_now);
    tcase_add_test(refusals, one_that_is_not_in_the_view_takes_nobody);
    tcase_add_test(refusals, newcomers_leave_room_for_those_who_resume);

    TCase *sessions = tcase_create("sessions");
    tcase_set_timeout(sessions, 60);
    tcase_add_checked_fixture(sessions, setup, teardown);
    tcase_add_test(sessions, join_is_said_to_the_owner);
    tcase_add_test(sessions, connections_of_two_starts_differ);
    tcase_add_test(sessions, viewers_are_who_may_not_publish);
    tcase_add_test(sessions, lost_states_are_repeated_with_backoff);
    tcase_add_test(sessions, greeting_comes_before_everything);
    tcase_add_test(sessions, second_hello_is_refused);
    tcase_add_test(sessions, owner_refuses);
    tcase_add_test(sessions, stale_acknowledgements_are_ignored);
    tcase_add_test(sessions, unanswered_join_times_out_and_departs);
    tcase_add_test(sessions, client_goes_before_the_answer);
    tcase_add_test(sessions, who_takes_anothers_place_says_so_while_somebody_waits_for_it);
    tcase_add_test(sessions, ice_servers_have_credentials);
    return suite_run("gateway_join", refusals, sessions, NULL);
}
