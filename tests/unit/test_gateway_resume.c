/* A session outlives its connections: detach, window, resume, replacement, leaving by token, drain. */
#include "common/metrics.h"
#include "gateway/internal.h"
#include "gateway_fixture.h"
#include "suite.h"
#include <string.h>

static struct fixture f;
static int ann;

static void setup(void)
{
    fixture_open(&f, NULL);
    ann = join_client(&f, "ann", "r", NULL);
}

static void teardown(void)
{
    fixture_close(&f);
}

/* M_RECONNECTS as they were, and what has been counted since. */
static uint64_t reconnects_before[RECONNECT_ABANDONED + 1];

static void watch_reconnects(void)
{
    for (int i = 0; i <= RECONNECT_ABANDONED; i++)
        reconnects_before[i] = metric_value_at(M_RECONNECTS, (unsigned)i);
}

static void assert_reconnects(enum reconnect_outcome outcome, uint64_t count, uint64_t total)
{
    uint64_t sum = 0;
    for (int i = 0; i <= RECONNECT_ABANDONED; i++)
        sum += metric_value_at(M_RECONNECTS, (unsigned)i) - reconnects_before[i];
    ck_assert_uint_eq(metric_value_at(M_RECONNECTS, outcome) - reconnects_before[outcome], count);
    ck_assert_uint_eq(sum, total);
}

/* --- losing the connection ------------------------------------------------------------------------------------- */

START_TEST(a_lost_socket_detaches)
{
    fixture_advance(&f, 5000);
    disconnect_client(&f, ann, false);
    const State *state = last_state(&f, ann);
    ck_assert_int_eq((int)state->state, DETACHED);
    ck_assert_int_eq((int)state->intent, HOLD);
    ck_assert_uint_eq(state->window_left_ms, f.options.limits.resume_window_ms);
    fixture_advance(&f, 300);
    ck_assert_uint_eq(last_state(&f, ann)->window_left_ms, f.options.limits.resume_window_ms - 300);
    deliver_ack(&f, make_ack(&f, last_state(&f, ann)));
    ck_assert_uint_eq(gateway_stats(f.gateway).orphans, 1);
    size_t before = f.sent_count;
    fixture_advance(&f, f.options.limits.resume_window_ms - 301);
    ck_assert_uint_eq(gateway_stats(f.gateway).sessions, 1);
    fixture_advance(&f, 6000); /* the owner has let it go by now; should that word be lost, so does the gateway */
    ck_assert_uint_eq(f.sent_count, before);
    ck_assert_uint_eq(gateway_stats(f.gateway).sessions, 0);
    ck_assert_uint_eq(gateway_stats(f.gateway).rooms, 0);
}
END_TEST

START_TEST(a_window_that_ends_unheard_becomes_a_departure)
{
    disconnect_client(&f, ann, false);
    fixture_advance(&f, 600 * 1000);
    const State *state = last_state(&f, ann);
    ck_assert_int_eq((int)state->state, DEPARTED);
    ck_assert_int_eq((int)state->reason, REASON(DISCONNECTED));
    deliver_ack(&f, make_ack(&f, state));
    ck_assert_uint_eq(gateway_stats(f.gateway).sessions, 0);
}
END_TEST

START_TEST(a_clean_close_departs)
{
    disconnect_client(&f, ann, true);
    ck_assert_int_eq((int)last_state(&f, ann)->state, DEPARTED);
    ck_assert_int_eq((int)last_state(&f, ann)->reason, REASON(CLIENT_LEFT));
}
END_TEST

START_TEST(sessions_without_clients_are_bounded)
{
    f.options.limits.orphaned_sessions = 2;
    gateway_reconfigure(f.gateway, &f.options, f.keyring, &f.token_keys);
    int bob = join_client(&f, "bob", "r", NULL), carl = join_client(&f, "carl", "r", NULL);
    uint64_t before = metric_value(M_SESSIONS_FORGOTTEN);
    disconnect_client(&f, ann, false);
    disconnect_client(&f, bob, true);
    ck_assert_uint_eq(gateway_stats(f.gateway).sessions, 3);
    disconnect_client(&f, carl, false);
    ck_assert_uint_eq(gateway_stats(f.gateway).sessions, 2);
    ck_assert_uint_eq(metric_value(M_SESSIONS_FORGOTTEN), before + 1);
}
END_TEST

START_TEST(an_access_token_ends_its_session)
{
    fixture_advance(&f, (int64_t)TOKEN_TTL_S * 1000);
    assert_closed(&f, ann, CLOSE_TOKEN_EXPIRED, REASON(TOKEN_EXPIRED), ACTION(STOP));
    ck_assert_int_eq((int)last_state(&f, ann)->state, DEPARTED);
}
END_TEST

/* Only tokens that come in are held against the wall clock. */
START_TEST(a_clock_that_is_set_ends_no_session)
{
    static const int64_t steps_ms[] = {-86400000, 86400000};
    for (size_t i = 0; i < sizeof steps_ms / sizeof steps_ms[0]; i++) {
        f.wall_step_ms = steps_ms[i];
        fixture_advance(&f, 40000);
        ck_assert(!f.clients[ann].closed);
    }
    disconnect_client(&f, ann, false);
    ck_assert_uint_eq(last_state(&f, ann)->window_left_ms, gateway_default_limits.resume_window_ms);
    f.wall_step_ms = 0;
    fixture_advance(&f, 1000);
    ck_assert_int_eq((int)last_state(&f, ann)->state, DETACHED);
}
END_TEST

/* --- coming back ----------------------------------------------------------------------------------------------- */

static int resume_client(const char *token, uint64_t seq)
{
    char epoch[EPOCH_TEXT_MAX + 1];
    Signalbox__V1__Position last = SIGNALBOX__V1__POSITION__INIT;
    epoch_format(&f.epoch, epoch);
    last.epoch = epoch;
    last.seq = seq;
    int client = connect_client(&f);
    hello_resume(&f, client, token, &last);
    const State *state = newest_state(&f);
    if (!f.clients[client].closed) {
        strcpy(f.clients[client].sid, state->sid);
        f.clients[client].connection = state->connection;
    }
    return client;
}

START_TEST(a_token_brings_the_session_back)
{
    char token[1025], sid[SID_TEXT_SIZE + 1];
    strcpy(token, f.clients[ann].resume_token);
    strcpy(sid, f.clients[ann].sid);
    uint64_t joined_seq = f.seq;
    watch_reconnects();
    uint64_t latencies = metric_value(M_RESUME_LATENCY);
    fixture_advance(&f, 2000);
    disconnect_client(&f, ann, false);
    int again = resume_client(token, 41);
    const State *state = newest_state(&f);
    ck_assert_int_eq((int)state->intent, RESUME);
    ck_assert_int_eq((int)state->state, ATTACHED);
    ck_assert_str_eq(state->sid, sid);
    ck_assert_str_eq(state->room, "r");
    ck_assert_str_eq(state->participant->identity, "ann");
    ck_assert(state->participant->permissions->can_publish);
    ck_assert_uint_eq(state->token_bind_generation, 1);
    ck_assert_uint_eq(state->last_seq, 41);
    ck_assert_uint_eq(state->join_seq, joined_seq);
    ck_assert_int_ne(state->joined_at_ms, 0);
    ck_assert_uint_eq(state->resume_window_ms, f.options.limits.resume_window_ms);

    Ack *ack = make_ack(&f, state);
    ProtobufCBinaryData events = pack_events(&f, 42, 43, "missed");
    ack->bind_generation = 2;
    ack->recovered = true;
    ack->seq = 43;
    ack->messages = &events;
    ack->n_messages = 1;
    deliver_ack(&f, ack);
    const Signalbox__V1__HelloOk *ok = received(&f, 0, again, BODY(HELLO_OK), 1)->hello_ok;
    ck_assert(ok->recovered);
    ck_assert_uint_eq(ok->bind_generation, 2);
    ck_assert_uint_eq(ok->position->seq, 43);
    assert_reconnects(RECONNECT_RECOVERED, 1, 1);
    ck_assert_uint_eq(metric_value(M_RESUME_LATENCY), latencies + 1);
    ck_assert_uint_eq(gateway_stats(f.gateway).sessions, 1); /* the detached one has given its place */
    ck_assert_uint_eq(gateway_stats(f.gateway).orphans, 0);
}
END_TEST

/* An owner takes what a resume says for the client's own position, and would leave out the roster. */
START_TEST(a_resume_without_a_position_says_none)
{
    char token[1025];
    strcpy(token, f.clients[ann].resume_token);
    join_client(&f, "bob", "r", NULL);
    disconnect_client(&f, ann, false);
    hello_resume(&f, connect_client(&f), token, NULL);
    const State *state = newest_state(&f);
    ck_assert_int_eq((int)state->intent, RESUME);
    ck_assert_ptr_null(state->last_epoch);
}
END_TEST

START_TEST(a_newer_connection_here_replaces_the_older)
{
    int again = resume_client(f.clients[ann].resume_token, f.seq);
    ck_assert(!f.clients[ann].closed); /* not before the owner has agreed */
    bind_session(&f, newest_state(&f), 2, f.seq);
    assert_closed(&f, ann, CLOSE_REPLACED, REASON(REPLACED), ACTION(STOP));
    ck_assert(!f.clients[again].closed);
    disconnect_client(&f, ann, false); /* its end says nothing of the session */
    ck_assert_uint_eq(gateway_stats(f.gateway).sessions, 1);
    ck_assert_int_eq((int)last_state(&f, again)->state, ATTACHED);
}
END_TEST

/* Both had said hello before the owner answered; its answer to the first was held up. */
START_TEST(an_older_connection_that_is_answered_late_changes_nothing)
{
    char token[1025];
    strcpy(token, f.clients[ann].resume_token);
    int older = resume_client(token, f.seq);
    const State *state_of_older = newest_state(&f);
    int newer = resume_client(token, f.seq);
    bind_session(&f, newest_state(&f), 3, f.seq);
    size_t since = f.received_count;
    bind_session(&f, state_of_older, 2, f.seq);
    assert_closed(&f, older, CLOSE_REPLACED, REASON(REPLACED), ACTION(STOP));
    ck_assert(!f.clients[newer].closed);
    ck_assert_int_eq(received_count(&f, since, older, BODY(HELLO_OK)), 0);
    ck_assert_uint_eq(gateway_stats(f.gateway).sessions, 1);
}
END_TEST

START_TEST(the_new_token_is_confirmed_once)
{
    int again = resume_client(f.clients[ann].resume_token, f.seq);
    bind_session(&f, newest_state(&f), 2, f.seq);
    ck_assert(!last_state(&f, again)->confirmed);
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Ping ping = SIGNALBOX__V1__PING__INIT;
    message.body_case = REQUEST(PING);
    message.ping = &ping;
    request(&f, again, &message);
    gateway_gap(f.gateway, &f.shard, f.now_ms); /* repeats a version that the owner has taken already */
    deliver_ack(&f, make_ack(&f, last_state(&f, again)));
    fixture_advance(&f, 1000);
    ck_assert(last_state(&f, again)->confirmed);
    ck_assert_uint_eq(last_state(&f, again)->version, 2);
    deliver_ack(&f, make_ack(&f, last_state(&f, again)));
    size_t before = f.sent_count;
    request(&f, again, &message);
    fixture_advance(&f, 10000);
    ck_assert_int_eq(sent_count(&f, before, ITEM(SESSION_STATE)), 0);
}
END_TEST

START_TEST(the_owner_refuses_a_resume)
{
    static const struct {
        int code, reason, action;
        uint16_t close_code;
        enum reconnect_outcome outcome;
    } cases[] = {
        {CODE(UNAUTHENTICATED), REASON(REPLACED), ACTION(STOP), CLOSE_REPLACED, RECONNECT_ENDED}, /* superseded */
        {CODE(NOT_FOUND), REASON(SESSION_GONE), ACTION(REJOIN), CLOSE_SESSION_GONE, RECONNECT_ENDED},
        {CODE(NOT_FOUND), REASON(WINDOW_EXPIRED), ACTION(REJOIN), CLOSE_WINDOW_EXPIRED, RECONNECT_WINDOW_OVER},
        {CODE(NOT_FOUND), REASON(REMOVED), ACTION(STOP), CLOSE_REMOVED, RECONNECT_ENDED},
        {CODE(NOT_FOUND), REASON(ROOM_CLOSED), ACTION(STOP), CLOSE_ROOM_CLOSED, RECONNECT_ENDED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        watch_reconnects();
        int again = resume_client(f.clients[ann].resume_token, f.seq);
        Ack *ack = make_ack(&f, newest_state(&f));
        ack->code = cases[i].code;
        ack->reason = cases[i].reason;
        ack->action = cases[i].action;
        ack->detail = (char *)"the owner says why";
        deliver_ack(&f, ack);
        assert_closed(&f, again, cases[i].close_code, cases[i].reason, cases[i].action);
        assert_reconnects(cases[i].outcome, 1, 1);
        ck_assert(!f.clients[ann].closed);
    }
    ck_assert_uint_eq(gateway_stats(f.gateway).sessions, 1);
}
END_TEST

/* Whatever the owner remembers: another one may be asked than the one that ended the session. */
START_TEST(who_was_removed_is_refused_at_every_gateway)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__Revocations said = SIGNALBOX__CLUSTER__V1__REVOCATIONS__INIT;
    Signalbox__Cluster__V1__Revocation entry = SIGNALBOX__CLUSTER__V1__REVOCATION__INIT, *list[] = {&entry};
    struct sid sid;
    char token[1025];
    int bob = join_client(&f, "bob", "r", NULL);
    strcpy(token, f.clients[ann].resume_token);
    ck_assert(sid_parse(f.clients[ann].sid, &sid));
    disconnect_client(&f, ann, false);
    entry.sid = (ProtobufCBinaryData){.len = sizeof sid.bytes, .data = sid.bytes};
    entry.reason = REASON(REMOVED);
    entry.left_s = 3600;
    said.revoked = list;
    said.n_revoked = 1;
    item.body_case = ITEM(REVOCATIONS);
    item.revocations = &said;
    fixture_deliver(&f, &item);
    ck_assert_int_eq((int)last_state(&f, ann)->state, DEPARTED); /* and the owner is told, should it not know */
    ck_assert_int_eq((int)last_state(&f, ann)->reason, REASON(REMOVED));
    size_t states = (size_t)sent_count(&f, 0, ITEM(SESSION_STATE));
    watch_reconnects();
    int again = connect_client(&f);
    hello_resume(&f, again, token, NULL);
    assert_closed(&f, again, CLOSE_REMOVED, REASON(REMOVED), ACTION(STOP));
    ck_assert_uint_eq((size_t)sent_count(&f, 0, ITEM(SESSION_STATE)), states);
    assert_reconnects(RECONNECT_ENDED, 1, 1);

    ck_assert(!f.clients[bob].closed);
    ck_assert(sid_parse(f.clients[bob].sid, &sid));
    fixture_deliver(&f, &item);
    assert_closed(&f, bob, CLOSE_REMOVED, REASON(REMOVED), ACTION(STOP));
    /* What was lost on the way is asked for, and a shard that is new is told. */
    size_t since = f.sent_count;
    gateway_gap(f.gateway, &f.shard, f.now_ms);
    ck_assert(sent(&f, since, ITEM(REVOCATIONS), 0)->revocations->asks);
    since = f.sent_count;
    fixture_next_owner(&f);
    ck_assert_uint_eq(sent(&f, since, ITEM(REVOCATIONS), 0)->revocations->n_revoked, 2);
}
END_TEST

START_TEST(bad_resume_tokens)
{
    char token[1025], good[1025];
    strcpy(token, f.clients[ann].resume_token);
    strcpy(good, token);
    watch_reconnects();
    token[40] = token[40] == 'A' ? 'B' : 'A';
    int client = resume_client(token, 1);
    assert_closed(&f, client, CLOSE_UNAUTHENTICATED, REASON(LEAVE_REASON_UNSPECIFIED), ACTION(STOP));

    struct jwt_keyring *without = jwt_keyring_new(0);
    gateway_reconfigure(f.gateway, &f.options, without, &f.token_keys);
    client = resume_client(good, 1);
    assert_closed(&f, client, CLOSE_TOKEN_REVOKED, REASON(TOKEN_REVOKED), ACTION(STOP));
    assert_closed(&f, ann, CLOSE_TOKEN_REVOKED, REASON(TOKEN_REVOKED), ACTION(STOP));
    gateway_reconfigure(f.gateway, &f.options, f.keyring, &f.token_keys);
    jwt_keyring_unref(&without);

    disconnect_client(&f, ann, false);
    fixture_advance(&f, ((int64_t)TOKEN_TTL_S + 1) * 1000);
    client = connect_client(&f);
    hello_resume(&f, client, good, NULL);
    assert_closed(&f, client, CLOSE_TOKEN_EXPIRED, REASON(TOKEN_EXPIRED), ACTION(STOP));
    fixture_advance(&f, 60 * 1000);
    int late = connect_client(&f);
    hello_resume(&f, late, good, NULL);
    assert_closed(&f, late, CLOSE_WINDOW_EXPIRED, REASON(WINDOW_EXPIRED), ACTION(REJOIN));
    assert_reconnects(RECONNECT_INVALID, 1, 4);
    assert_reconnects(RECONNECT_REVOKED, 2, 4);
    assert_reconnects(RECONNECT_WINDOW_OVER, 1, 4);
}
END_TEST

START_TEST(not_now_is_no_reason_to_give_up)
{
    watch_reconnects();
    gateway_bus(f.gateway, false, f.now_ms);
    int again = resume_client(f.clients[ann].resume_token, f.seq);
    assert_closed(&f, again, CLOSE_OVERLOADED, REASON(CAPACITY), ACTION(RESUME));
    gateway_bus(f.gateway, true, f.now_ms);
    again = resume_client(f.clients[ann].resume_token, f.seq);
    fixture_advance(&f, f.options.limits.join_timeout_ms);
    assert_closed(&f, again, CLOSE_OVERLOADED, REASON(CAPACITY), ACTION(RESUME));
    /* Should the owner have bound it: it is detached, and has its window. */
    ck_assert_int_eq((int)last_state(&f, again)->intent, RESUME);
    ck_assert_int_eq((int)last_state(&f, again)->state, DETACHED);
    assert_reconnects(RECONNECT_UNAVAILABLE, 1, 2);
    assert_reconnects(RECONNECT_TIMEOUT, 1, 2);
    deliver_ack(&f, make_ack(&f, last_state(&f, again))); /* too late to count again */
    assert_reconnects(RECONNECT_TIMEOUT, 1, 2);
}
END_TEST

START_TEST(who_goes_away_before_the_answer_has_given_up)
{
    watch_reconnects();
    int again = resume_client(f.clients[ann].resume_token, f.seq);
    Ack *ack = make_ack(&f, newest_state(&f));
    disconnect_client(&f, again, false);
    assert_reconnects(RECONNECT_ABANDONED, 0, 0); /* not decided yet */
    deliver_ack(&f, ack);
    assert_reconnects(RECONNECT_ABANDONED, 1, 1);
}
END_TEST

START_TEST(the_owner_closes_a_session)
{
    Signalbox__Cluster__V1__SessionCommand command = SIGNALBOX__CLUSTER__V1__SESSION_COMMAND__INIT;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__V1__Leave leave = SIGNALBOX__V1__LEAVE__INIT;
    leave.reason = REASON(REPLACED); /* resumed on another gateway */
    leave.action = ACTION(STOP);
    command.room_key = key_data("r");
    command.sid = f.clients[ann].sid;
    command.bind_generation = 7;
    command.command_case = SIGNALBOX__CLUSTER__V1__SESSION_COMMAND__COMMAND_CLOSE;
    command.close = &leave;
    item.body_case = ITEM(SESSION_COMMAND);
    item.session_command = &command;
    fixture_deliver(&f, &item); /* of another binding */
    ck_assert(!f.clients[ann].closed);
    command.bind_generation = 1;
    fixture_deliver(&f, &item);
    ck_assert_uint_eq(f.clients[ann].close_code, CLOSE_REPLACED);
    size_t before = f.sent_count;
    disconnect_client(&f, ann, false);
    ck_assert_uint_eq(f.sent_count, before);
    ck_assert_uint_eq(gateway_stats(f.gateway).rooms, 0);
}
END_TEST

/* --- leaving by token ------------------------------------------------------------------------------------------ */

static bool leave_by_token(const char *token)
{
    return gateway_leave_by_token(f.gateway, token, strlen(token), f.now_ms);
}

START_TEST(leaving_by_token)
{
    char token[1025];
    strcpy(token, f.clients[ann].resume_token);
    ck_assert(!leave_by_token("nonsense"));
    token[40] = token[40] == 'A' ? 'B' : 'A';
    ck_assert(!leave_by_token(token));
    ck_assert(!f.clients[ann].closed);
    ck_assert(leave_by_token(f.clients[ann].resume_token));
    assert_closed(&f, ann, 1000, REASON(CLIENT_LEFT), ACTION(STOP));
    ck_assert_int_eq((int)last_state(&f, ann)->state, DEPARTED);
    ck_assert(leave_by_token(f.clients[ann].resume_token)); /* twice does no harm */
    deliver_ack(&f, make_ack(&f, last_state(&f, ann)));
    ck_assert_uint_eq(gateway_stats(f.gateway).sessions, 0);

    ck_assert(leave_by_token(f.clients[ann].resume_token)); /* held elsewhere: the owner judges */
    const State *state = newest_state(&f);
    ck_assert_int_eq((int)state->intent, RESUME);
    ck_assert_int_eq((int)state->state, DEPARTED);
    ck_assert_uint_eq(state->token_bind_generation, 1);
    ck_assert_str_eq(state->participant->identity, "ann");
    deliver_ack(&f, make_ack(&f, state));
    ck_assert_uint_eq(gateway_stats(f.gateway).sessions, 0);
    ck_assert_uint_eq(gateway_stats(f.gateway).rooms, 0);
}
END_TEST

START_TEST(an_older_token_does_not_end_a_newer_binding)
{
    char old[1025];
    strcpy(old, f.clients[ann].resume_token);
    int again = resume_client(old, f.seq);
    bind_session(&f, newest_state(&f), 2, f.seq);
    ck_assert(leave_by_token(old));
    ck_assert(!f.clients[again].closed);
}
END_TEST

/* --- drain ----------------------------------------------------------------------------------------------------- */

static int closed_count(void)
{
    int count = 0;
    for (int i = 0; i < CLIENTS; i++)
        count += f.clients[i].client != NULL && f.clients[i].closed;
    return count;
}

static void add_other_gateway(void)
{
    struct view *view = view_copy(f.view);
    struct view_node self = {.id = "gw-1", .incarnation = f.options.self.incarnation},
                     other = {.id = "gw-2", .incarnation = 200};
    view_put_gateway(view, &self);
    view_put_gateway(view, &other);
    view->number.seq++;
    view_unref(&f.view);
    f.view = view;
    gateway_view(f.gateway, view, f.now_ms);
}

static int told_count(void)
{
    int count = 0;
    for (int i = 0; i < CLIENTS; i++)
        count += received_count(&f, 0, i, BODY(RECONNECT));
    return count;
}

static void join_nine(void)
{
    static const char *const names[] = {"b", "c", "d", "e", "f", "g", "h", "i", "j"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        join_client(&f, names[i], "r", NULL);
}

START_TEST(a_drain_tells_clients_at_its_pace_and_keeps_them)
{
    static char *alternates[] = {(char *)"https://gw-2.example.com"};
    f.options.alternates = alternates;
    f.options.alternate_count = 1;
    gateway_reconfigure(f.gateway, &f.options, f.keyring, &f.token_keys);
    add_other_gateway();
    join_nine();
    int unheard = connect_client(&f); /* has not said hello: nothing to resume */
    gateway_drain(f.gateway, 1000, 5000, f.now_ms);
    for (int passed_ms = 100; passed_ms <= 1000; passed_ms += 100) {
        fixture_advance(&f, 100);
        ck_assert_int_le(told_count(), 11 * passed_ms / 1000 + 1);
        ck_assert_int_ge(told_count() + 1, 11 * (passed_ms - 100) / 1000);
    }
    fixture_advance(&f, 100);
    ck_assert_int_eq(told_count(), 10);
    ck_assert_int_eq(closed_count(), 1);
    assert_closed(&f, unheard, CLOSE_DRAINING, REASON(GATEWAY_DRAINING), ACTION(RESUME));
    const Signalbox__V1__Reconnect *reconnect = received(&f, 0, ann, BODY(RECONNECT), 0)->reconnect;
    ck_assert_uint_gt(reconnect->spread_ms, 0);
    ck_assert_uint_eq(reconnect->n_alternates, 1);
    ck_assert_str_eq(reconnect->alternates[0], "https://gw-2.example.com");

    struct refusal refusal;
    ck_assert(!gateway_ready(f.gateway, &refusal));
    int late = connect_client(&f);
    hello_resume(&f, late, f.clients[ann].resume_token, NULL);
    ck_assert_uint_eq(f.clients[late].close_code, CLOSE_OVERLOADED);
    disconnect_client(&f, ann, false); /* it has a connection elsewhere */
    fixture_advance(&f, 3000);
    ck_assert_int_eq(closed_count(), 2);

    fixture_advance(&f, 1000); /* the deadline */
    uint32_t latest_ms = 0;
    for (int i = 1; i < 10; i++) {
        assert_closed(&f, i, CLOSE_DRAINING, REASON(GATEWAY_DRAINING), ACTION(RESUME));
        const Signalbox__V1__Leave *leave = received(&f, 0, i, BODY(LEAVE), 0)->leave;
        latest_ms = leave->retry_after_ms > latest_ms ? leave->retry_after_ms : latest_ms;
    }
    ck_assert_uint_gt(latest_ms, 1000); /* not all at once */
}
END_TEST

START_TEST(a_drain_ends_when_the_owner_knows_of_everybody)
{
    add_other_gateway();
    gateway_drain(f.gateway, 100, 5000, f.now_ms);
    fixture_advance(&f, 200);
    ck_assert(!gateway_drained(f.gateway));
    disconnect_client(&f, ann, false);
    ck_assert_int_eq((int)last_state(&f, ann)->state, DETACHED);
    ck_assert(!gateway_drained(f.gateway));
    deliver_ack(&f, make_ack(&f, last_state(&f, ann)));
    ck_assert(gateway_drained(f.gateway));
}
END_TEST

START_TEST(the_last_gateway_closes_its_clients_in_turn)
{
    join_nine();
    gateway_drain(f.gateway, 1000, 60000, f.now_ms);
    fixture_advance(&f, 300);
    ck_assert_int_le(closed_count(), 4);
    fixture_advance(&f, 800);
    ck_assert_int_eq(closed_count(), 10);
    ck_assert_int_eq(told_count(), 0);
    disconnect_client(&f, ann, true); /* answers the close: it has been sent away and will be back */
    ck_assert_int_eq((int)last_state(&f, ann)->state, DETACHED);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("resume");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_lost_socket_detaches);
    tcase_add_test(tcase, a_window_that_ends_unheard_becomes_a_departure);
    tcase_add_test(tcase, a_clean_close_departs);
    tcase_add_test(tcase, sessions_without_clients_are_bounded);
    tcase_add_test(tcase, an_access_token_ends_its_session);
    tcase_add_test(tcase, a_clock_that_is_set_ends_no_session);
    tcase_add_test(tcase, a_token_brings_the_session_back);
    tcase_add_test(tcase, a_resume_without_a_position_says_none);
    tcase_add_test(tcase, a_newer_connection_here_replaces_the_older);
    tcase_add_test(tcase, an_older_connection_that_is_answered_late_changes_nothing);
    tcase_add_test(tcase, the_new_token_is_confirmed_once);
    tcase_add_test(tcase, the_owner_refuses_a_resume);
    tcase_add_test(tcase, who_was_removed_is_refused_at_every_gateway);
    tcase_add_test(tcase, bad_resume_tokens);
    tcase_add_test(tcase, not_now_is_no_reason_to_give_up);
    tcase_add_test(tcase, who_goes_away_before_the_answer_has_given_up);
    tcase_add_test(tcase, the_owner_closes_a_session);
    tcase_add_test(tcase, leaving_by_token);
    tcase_add_test(tcase, an_older_token_does_not_end_a_newer_binding);
    tcase_add_test(tcase, a_drain_tells_clients_at_its_pace_and_keeps_them);
    tcase_add_test(tcase, a_drain_ends_when_the_owner_knows_of_everybody);
    tcase_add_test(tcase, the_last_gateway_closes_its_clients_in_turn);
    return suite_run("gateway_resume", tcase, NULL);
}
