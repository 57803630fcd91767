/* Who is heard, who is removed, and who may act. */
#include "common/metrics.h"
#include "membership_fixture.h"
#include <stdio.h>
#include <stdlib.h>

/* A heartbeat of `id` in the membership's own view, through a NATS server, over its bus or its second connection, that
 * concurs in the removal of `accused` (0: of nobody); `number_of_beat` 0: not numbered. */
static void hear_kind(Signalbox__Cluster__V1__NodeKind kind, const char *id, const char *server, bool second,
                      uint64_t number_of_beat, uint64_t accused)
{
    Signalbox__Cluster__V1__Heartbeat beat = SIGNALBOX__CLUSTER__V1__HEARTBEAT__INIT;
    Signalbox__Cluster__V1__ViewNumber number = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    Signalbox__Cluster__V1__Load load = SIGNALBOX__CLUSTER__V1__LOAD__INIT;
    Signalbox__Cluster__V1__Concurrence concurrence = SIGNALBOX__CLUSTER__V1__CONCURRENCE__INIT;
    Signalbox__Cluster__V1__Concurrence *list[1] = {&concurrence};
    number.generation = membership_view(f.membership)->number.generation;
    number.seq = membership_view(f.membership)->number.seq;
    beat.node = (char *)id;
    beat.incarnation = (uint64_t)id[0];
    beat.kind = kind;
    beat.view = beat.settled = &number;
    beat.nats_server = (char *)server;
    beat.second = second;
    beat.beat = number_of_beat;
    beat.load = &load;
    concurrence.incarnation = accused;
    beat.concurs = list;
    beat.n_concurs = accused != 0 ? 1 : 0;
    membership_heartbeat(f.membership, &beat, f.now_ms);
}

static void hear_through(const char *id, const char *server, bool second, uint64_t accused)
{
    hear_kind(SIGNALBOX__CLUSTER__V1__NODE_KIND__SHARD, id, server, second, 0, accused);
}

static void hear_beat(const char *id, uint64_t number_of_beat, uint64_t accused)
{
    hear_kind(SIGNALBOX__CLUSTER__V1__NODE_KIND__SHARD, id, "N", false, number_of_beat, accused);
}

static void hear_concurring(const char *id, uint64_t accused)
{
    hear_through(id, "N", false, accused);
}

/* A shard starts beside a view of the shard a, which is silent, and the gateways g and h, of which `accusers` concur in
 * its removal. Returns when the newcomer appended, counted from its start. */
static int64_t start_beside_a_silent_shard(int accusers)
{
    static const char *const gateways[] = {"g", "h"};
    int64_t start_ms = f.now_ms;
    struct view *view = make_view(9, 20, "a");
    for (int i = 0; i < 2; i++) {
        struct view_node node = {.incarnation = (uint64_t)gateways[i][0]};
        snprintf(node.id, sizeof node.id, "%s", gateways[i]);
        view_put_gateway(view, &node);
    }
    begin(NODE_SHARD);
    membership_start(f.membership, f.now_ms);
    read_done(view);
    f.reads_answered = f.reads;
    while (f.appends == 0 && f.now_ms - start_ms < 30000) {
        pass(50);
        if (f.reads > f.reads_answered) {
            membership_read_done(f.membership, VIEWLOG_FAILED, NULL, f.now_ms);
            f.reads_answered = f.reads;
        }
        for (int i = 0; i < 2; i++)
            hear_kind(SIGNALBOX__CLUSTER__V1__NODE_KIND__GATEWAY, gateways[i], "N", false, 0, i < accusers ? 'a' : 0);
    }
    ck_assert_uint_eq(f.appends, 1);
    return f.now_ms - start_ms;
}

START_TEST(a_newcomer_takes_the_place_of_shards_that_have_gone)
{
    int64_t took_ms = start_beside_a_silent_shard(2);
    ck_assert_int_ge(took_ms,
                     membership_default_times.detector.silence_ms + membership_default_times.detector.notice_ms);
    ck_assert_int_le(took_ms, 3500);
    ck_assert_uint_eq(f.expected_seq, 20);
    ck_assert_uint_eq(f.proposed->number.generation, 9);
    ck_assert_uint_eq(f.proposed->gateway_count, 2);
    ck_assert_uint_eq(f.proposed->shard_count, 1);
    ck_assert_uint_eq(f.proposed->shards[0].incarnation, SELF);
    ck_assert_uint_eq(f.proposed->shards[0].weight, 70);
}
END_TEST

START_TEST(a_newcomer_waits_where_too_few_concur)
{
    ck_assert_int_ge(start_beside_a_silent_shard(1), membership_default_times.abandoned_ms);
    ck_assert_uint_eq(f.proposed->number.generation, WALL_S);
}
END_TEST

/* Passes time while `b` stays silent and `a` is heard, concurring from `a_concurs_ms` of silence on. Returns the
 * silence at which an append was made, or -1. */
static int64_t silence_of_b(int64_t limit_ms, int64_t a_concurs_ms)
{
    int64_t start_ms = f.now_ms;
    unsigned before = f.appends;
    while (f.now_ms - start_ms < limit_ms) {
        pass(50);
        hear_concurring("a", f.now_ms - start_ms >= a_concurs_ms ? 'b' : 0);
        if (f.appends > before)
            return f.now_ms - start_ms;
    }
    return -1;
}

static void join_and_hear_both(void)
{
    join(NODE_SHARD); /* ids: a, b, self */
    hear_concurring("a", 0);
    hear_concurring("b", 0);
}

/* ids: self, x, y; the lowest proposes. */
static void join_as_lowest(void)
{
    begin(NODE_SHARD);
    membership_start(f.membership, f.now_ms);
    read_done(make_view(9, 20, "xy"));
    hear("x", 9, 20);
    hear("y", 9, 20);
    pass(membership_default_times.listen_ms);
    membership_append_done(f.membership, VIEWLOG_OK, 21, f.now_ms);
    assert_state(MEMBERSHIP_ACTIVE);
    hear_concurring("x", 0);
    hear_concurring("y", 0);
}

START_TEST(who_is_silent_is_removed_after_a_notice_by_a_quorum)
{
    join_as_lowest();
    int64_t start_ms = f.now_ms;
    unsigned before = f.appends;
    /* y is heard and concurs in the removal of x, which is silent. */
    while (f.appends == before && f.now_ms - start_ms < 10000) {
        pass(50);
        hear_concurring("y", f.now_ms - start_ms >= membership_default_times.detector.silence_ms ? 'x' : 0);
    }
    int64_t took_ms = f.now_ms - start_ms;
    ck_assert_int_ge(took_ms,
                     membership_default_times.detector.silence_ms + membership_default_times.detector.notice_ms);
    ck_assert_int_le(took_ms, 3500);
    ck_assert_ptr_null(view_find_shard(f.proposed, "x"));
    ck_assert_ptr_nonnull(view_find_shard(f.proposed, "y"));
    ck_assert_ptr_nonnull(view_find_shard(f.proposed, "self"));
    ck_assert_uint_gt(f.probes, 0);
}
END_TEST

/* What the accused has appended meanwhile was never seen. */
START_TEST(missed_entries_start_the_notice_again)
{
    join_as_lowest();
    unsigned before = f.appends;
    int64_t nearly_ms =
        membership_default_times.detector.silence_ms + membership_default_times.detector.notice_ms - 100;
    for (int64_t end_ms = f.now_ms + nearly_ms; f.now_ms < end_ms;) {
        pass(50);
        hear_concurring("y", 'x');
    }
    ck_assert_uint_eq(f.appends, before);
    struct view *view = make_view(WALL_S, 30, "xy");
    put_self(view, NODE_SHARD, SELF);
    learn(view);
    int64_t start_ms = f.now_ms;
    while (f.appends == before && f.now_ms - start_ms < 10000) {
        pass(50);
        hear_concurring("y", 'x');
        if (f.reads > f.reads_answered) {
            membership_read_done(f.membership, VIEWLOG_FAILED, NULL, f.now_ms);
            f.reads_answered = f.reads;
        }
    }
    ck_assert_int_ge(f.now_ms - start_ms, nearly_ms);
}
END_TEST

START_TEST(who_has_no_subscription_is_removed_sooner)
{
    join_as_lowest();
    int64_t start_ms = f.now_ms;
    unsigned before = f.appends;
    while (f.appends == before && f.now_ms - start_ms < 10000) {
        pass(20);
        hear_concurring("y", f.now_ms - start_ms >= 420 ? 'x' : 0);
        if (f.now_ms - start_ms >= 400)
            membership_gone(f.membership, 'x', f.now_ms);
    }
    ck_assert_int_ge(f.now_ms - start_ms, membership_default_times.detector.gone_ms);
    ck_assert_int_le(f.now_ms - start_ms, 1000);
    ck_assert_ptr_null(view_find_shard(f.proposed, "x"));
}
END_TEST

/* x falls silent; y, on server N, is heard and concurs whenever it may. Returns after what silence x is removed, or -1;
 * `second` is the server over which x is heard all the while, or NULL. */
static int64_t silence_of_x(const char *second)
{
    int64_t start_ms = f.now_ms;
    unsigned before = f.appends;
    f.reads_answered = f.reads;
    while (f.appends == before && f.now_ms - start_ms < 10000) {
        pass(50);
        if (f.reads > f.reads_answered) { /* by the poll */
            membership_read_done(f.membership, VIEWLOG_FAILED, NULL, f.now_ms);
            f.reads_answered = f.reads;
        }
        if (second != NULL)
            hear_through("x", second, true, 0);
        hear_through("y", "N", false, f.now_ms - start_ms >= membership_default_times.detector.silence_ms ? 'x' : 0);
    }
    ck_assert(f.appends == before || view_find_shard(f.proposed, "x") == NULL);
    return f.appends == before ? -1 : f.now_ms - start_ms;
}

START_TEST(who_may_have_lost_its_server_gets_patience)
{
    join_as_lowest();
    hear_through("x", "X", false, 0); /* nobody else is there */
    ck_assert_int_ge(silence_of_x(NULL), membership_default_times.detector.patience_ms);
}
END_TEST

START_TEST(who_is_silent_on_both_connections_gets_none)
{
    join_as_lowest();
    hear_through("x", "N", true, 0);
    hear_through("x", "X", false, 0);
    int64_t took_ms = silence_of_x(NULL);
    ck_assert_int_ge(took_ms,
                     membership_default_times.detector.silence_ms + membership_default_times.detector.notice_ms);
    ck_assert_int_le(took_ms, 3500);
}
END_TEST

START_TEST(who_is_heard_over_its_second_connection_gets_patience)
{
    join_as_lowest();
    hear_through("x", "N", false, 0); /* others are heard through its server */
    ck_assert_int_ge(silence_of_x("S"), membership_default_times.detector.patience_ms);
}
END_TEST

/* Two servers may have ended at once. */
START_TEST(who_may_have_lost_both_its_servers_gets_patience)
{
    join_as_lowest();
    hear_through("x", "S", true, 0);
    hear_through("x", "X", false, 0);
    ck_assert_int_ge(silence_of_x(NULL), membership_default_times.detector.patience_ms);
}
END_TEST

START_TEST(a_second_connection_that_had_ended_before_says_nothing)
{
    join_as_lowest();
    hear_through("x", "N", true, 0);
    for (int i = 0; i < 30; i++) {
        pass(50);
        hear_through("x", "X", false, 0);
        hear_through("y", "N", false, 0);
    }
    ck_assert_int_ge(silence_of_x(NULL), membership_default_times.detector.patience_ms);
}
END_TEST

START_TEST(a_single_accuser_among_three_removes_nobody)
{
    join_as_lowest();
    unsigned before = f.appends;
    for (unsigned i = 0; i < 80; i++) {
        pass(50);
        hear_concurring("y", 0); /* y still hears x */
    }
    ck_assert_uint_eq(f.appends, before);
}
END_TEST

START_TEST(it_does_not_propose_while_a_lower_id_lives)
{
    join_and_hear_both();
    ck_assert_int_eq(silence_of_b(6000, 1000), -1);
}
END_TEST

START_TEST(who_hears_too_few_may_not_act_until_an_append_lists_it)
{
    join_and_hear_both();
    pass(100);
    ck_assert(membership_may_act(f.membership, f.now_ms));
    unsigned before = f.appends;
    pass(membership_default_times.detector.fence_ms + 300); /* nobody is heard */
    ck_assert(!membership_may_act(f.membership, f.now_ms));
    ck_assert_uint_gt(f.appends, before);
    ck_assert_ptr_nonnull(view_find_shard(f.proposed, "self"));
    membership_append_done(f.membership, VIEWLOG_OK, 22, f.now_ms);
    ck_assert(membership_may_act(f.membership, f.now_ms));
}
END_TEST

START_TEST(who_was_asleep_may_not_act)
{
    join_and_hear_both();
    pass(100);
    ck_assert(membership_may_act(f.membership, f.now_ms));
    f.now_ms += 10000; /* stopped and continued; old heartbeats wait in its buffers */
    ck_assert(!membership_may_act(f.membership, f.now_ms));
    hear_concurring("a", 0);
    hear_concurring("b", 0);
    ck_assert(!membership_may_act(f.membership, f.now_ms));
}
END_TEST

/* It went on until its last entry was sent, beside whoever had its rooms when it had been removed before. */
START_TEST(who_leaves_may_act_within_the_fence_alone)
{
    join_and_hear_both();
    ck_assert(membership_may_act(f.membership, f.now_ms));
    membership_bus_lost(f.membership);
    membership_leave(f.membership, f.now_ms);
    assert_state(MEMBERSHIP_LEAVING);
    ck_assert_uint_eq(f.appends, 1); /* the log is read first */
    ck_assert(!membership_may_act(f.membership, f.now_ms));
}
END_TEST

/* The log had lost the entry that removed it, and it put itself back. */
START_TEST(who_was_away_hears_most_of_the_others_before_it_appends)
{
    join_and_hear_both();
    membership_bus_lost(f.membership);
    pass(3000);
    membership_start(f.membership, f.now_ms);
    membership_read_done(f.membership, VIEWLOG_EMPTY, NULL, f.now_ms);
    unsigned before = f.appends;
    pass(250);
    ck_assert_uint_eq(f.appends, before);
    hear_concurring("a", 0);
    pass(250);
    ck_assert_uint_eq(f.appends, before + 1);
}
END_TEST

START_TEST(who_hears_itself_accused_may_not_act)
{
    join_and_hear_both();
    for (unsigned i = 0; i < 40; i++) { /* beyond what the join's own append proves */
        pass(50);
        hear_concurring("a", 0);
        hear_concurring("b", 0);
    }
    ck_assert(membership_may_act(f.membership, f.now_ms));
    hear_concurring("a", SELF);
    ck_assert(membership_may_act(f.membership, f.now_ms)); /* two of three do not */
    hear_concurring("b", SELF);
    ck_assert(!membership_may_act(f.membership, f.now_ms));
}
END_TEST

static void hear_sent(const char *id, int64_t sent_ms)
{
    Signalbox__Cluster__V1__Heartbeat beat = SIGNALBOX__CLUSTER__V1__HEARTBEAT__INIT;
    Signalbox__Cluster__V1__ViewNumber number = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    number.generation = membership_view(f.membership)->number.generation;
    number.seq = membership_view(f.membership)->number.seq;
    beat.node = (char *)id;
    beat.incarnation = (uint64_t)id[0];
    beat.kind = SIGNALBOX__CLUSTER__V1__NODE_KIND__SHARD;
    beat.view = beat.settled = &number;
    beat.sent_ms = sent_ms;
    membership_heartbeat(f.membership, &beat, f.now_ms);
}

/* What waited in a server that stood still proved a majority that had long removed it. */
START_TEST(a_heartbeat_counts_from_when_it_was_sent)
{
    const int64_t ahead_ms = 700000; /* of the others' clocks */
    join_and_hear_both();
    for (unsigned i = 0; i < 40; i++) {
        pass(50);
        hear_sent("a", f.now_ms + ahead_ms);
        hear_sent("b", f.now_ms + ahead_ms);
    }
    ck_assert(membership_may_act(f.membership, f.now_ms));
    int64_t last_ms = f.now_ms;
    while (membership_may_act(f.membership, f.now_ms) && f.now_ms < last_ms + 5000) {
        pass(50);
        hear_sent("a", last_ms + ahead_ms + 1);
        hear_sent("b", last_ms + ahead_ms + 1);
    }
    ck_assert_int_ge(f.now_ms - last_ms, membership_default_times.detector.fence_ms);
    ck_assert_int_le(f.now_ms - last_ms, membership_default_times.detector.fence_ms + 100);
}
END_TEST

/* Those who had been on a server that stood still had accused everybody; when it went on, their old accusations came
 * out of it, and whoever heard them suspended itself. */
START_TEST(a_heartbeat_that_a_later_one_has_overtaken_counts_for_nothing)
{
    uint64_t stale = metric_value(M_HEARTBEATS_STALE);
    join_and_hear_both();
    uint64_t last = 0;
    for (; last < 40; last++) { /* until no append proves it any more */
        pass(50);
        hear_beat("a", last + 1, 0);
        hear_beat("b", last + 1, 0);
    }
    ck_assert(membership_may_act(f.membership, f.now_ms));
    hear_beat("a", last - 30, SELF);
    hear_beat("b", last - 30, SELF);
    ck_assert_uint_eq(metric_value(M_HEARTBEATS_STALE), stale + 2);
    ck_assert(membership_may_act(f.membership, f.now_ms));
    hear_beat("a", last + 1, SELF);
    hear_beat("b", last + 1, SELF);
    ck_assert(!membership_may_act(f.membership, f.now_ms));
}
END_TEST

/* It counted from the view on that listed it, which may itself have come late. */
START_TEST(whoever_was_never_heard_is_no_part_of_a_majority)
{
    join_and_hear_both();
    mark_self();
    f.reads_answered = f.reads;
    pass_heard(2000, true); /* beyond what the join's own append proves */
    ck_assert(membership_may_act(f.membership, f.now_ms));
    struct view *view = view_copy(membership_view(f.membership));
    view->number.seq++;
    for (char c = 'c'; c <= 'f'; c++) {
        struct view_node node = {.id = {c}, .incarnation = (uint64_t)c, .weight = 1, .full_weight = 1};
        view_put_shard(view, &node);
    }
    learn(view); /* 7 shards, of which 3 have been heard */
    ck_assert(!membership_may_act(f.membership, f.now_ms));
}
END_TEST

/* Each process hears of the others in an order of its own, and a quorum must concur in the same ones. */
START_TEST(where_many_are_gone_the_same_ones_are_named_first)
{
    enum { GONE = 5, NAMED = 3, ACCUSED_SAID = 0 };
    static const uint64_t incarnations[GONE] = {900, 300, 500, 200, 700};
    const uint64_t expected[NAMED] = {200, 300, 500};
    Signalbox__Cluster__V1__Concurrence named[NAMED];
    join_and_hear_both();
    struct view *view = view_copy(membership_view(f.membership));
    view->number.seq++;
    for (int i = 0; i < GONE; i++) {
        struct view_node node = {.id = {(char)('p' + i)}, .incarnation = incarnations[i]};
        view_put_gateway(view, &node);
    }
    learn(view);
    f.reads_answered = f.reads;
    pass_heard(membership_default_times.detector.silence_ms + 100, true);
    uint64_t left_out = metric_value_at(M_DETECTOR_FULL, ACCUSED_SAID);
    ck_assert_uint_eq(membership_concurrences(f.membership, named, NAMED, f.now_ms), NAMED);
    for (int i = 0; i < NAMED; i++)
        ck_assert_uint_eq(named[i].incarnation, expected[i]);
    ck_assert_uint_eq(metric_value_at(M_DETECTOR_FULL, ACCUSED_SAID), left_out + GONE - NAMED);
}
END_TEST

START_TEST(whom_others_hold_for_gone_is_bounded_and_counted)
{
    enum { ACCUSED = 66, MOST = 64, ACCUSED_HEARD = 1 };
    static Signalbox__Cluster__V1__Concurrence concurs[ACCUSED], *list[ACCUSED];
    Signalbox__Cluster__V1__Heartbeat beat = SIGNALBOX__CLUSTER__V1__HEARTBEAT__INIT;
    join_and_hear_both();
    for (uint64_t i = 0; i < ACCUSED; i++) {
        signalbox__cluster__v1__concurrence__init(&concurs[i]);
        concurs[i].incarnation = 1000 + i;
        list[i] = &concurs[i];
    }
    beat.node = (char *)"a";
    beat.incarnation = 'a';
    beat.kind = SIGNALBOX__CLUSTER__V1__NODE_KIND__SHARD;
    beat.concurs = list;
    beat.n_concurs = ACCUSED;
    uint64_t before = metric_value_at(M_DETECTOR_FULL, ACCUSED_HEARD);
    membership_heartbeat(f.membership, &beat, f.now_ms);
    ck_assert_uint_eq(metric_value_at(M_DETECTOR_FULL, ACCUSED_HEARD), before + ACCUSED - MOST);
}
END_TEST

START_TEST(of_many_that_start_the_first_are_forgotten_and_counted)
{
    enum { STARTING = 33, FULL_STARTING = 2 };
    Signalbox__Cluster__V1__Heartbeat beat = SIGNALBOX__CLUSTER__V1__HEARTBEAT__INIT;
    join_and_hear_both();
    uint64_t before = metric_value_at(M_DETECTOR_FULL, FULL_STARTING);
    beat.node = (char *)"z";
    beat.kind = SIGNALBOX__CLUSTER__V1__NODE_KIND__SHARD;
    beat.joining = true;
    for (uint64_t i = 0; i < STARTING; i++) {
        ck_assert_uint_eq(metric_value_at(M_DETECTOR_FULL, FULL_STARTING), before);
        beat.incarnation = 1000 + i;
        membership_heartbeat(f.membership, &beat, f.now_ms);
    }
    ck_assert_uint_eq(metric_value_at(M_DETECTOR_FULL, FULL_STARTING), before + 1);
}
END_TEST

START_TEST(the_times_are_checked_against_each_other)
{
    struct membership_times times = membership_default_times;
    const char *key = NULL;
    ck_assert_ptr_null(membership_times_problem(&times, &key));
    times.detector.fence_ms = times.detector.notice_ms; /* nothing would be left for news that is late */
    ck_assert_ptr_nonnull(membership_times_problem(&times, &key));
    ck_assert_str_eq(key, "notice_ms");
    times = membership_default_times;
    times.heartbeat_ms = 400;
    ck_assert_ptr_nonnull(membership_times_problem(&times, &key));
    ck_assert_str_eq(key, "silence_ms");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("membership_detector");
    TCase *tcase = tcase_create("membership_detector");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_newcomer_takes_the_place_of_shards_that_have_gone);
    tcase_add_test(tcase, a_newcomer_waits_where_too_few_concur);
    tcase_add_test(tcase, who_is_silent_is_removed_after_a_notice_by_a_quorum);
    tcase_add_test(tcase, missed_entries_start_the_notice_again);
    tcase_add_test(tcase, who_has_no_subscription_is_removed_sooner);
    tcase_add_test(tcase, who_may_have_lost_its_server_gets_patience);
    tcase_add_test(tcase, who_is_silent_on_both_connections_gets_none);
    tcase_add_test(tcase, who_is_heard_over_its_second_connection_gets_patience);
    tcase_add_test(tcase, who_may_have_lost_both_its_servers_gets_patience);
    tcase_add_test(tcase, a_second_connection_that_had_ended_before_says_nothing);
    tcase_add_test(tcase, a_single_accuser_among_three_removes_nobody);
    tcase_add_test(tcase, it_does_not_propose_while_a_lower_id_lives);
    tcase_add_test(tcase, who_hears_too_few_may_not_act_until_an_append_lists_it);
    tcase_add_test(tcase, who_was_asleep_may_not_act);
    tcase_add_test(tcase, who_leaves_may_act_within_the_fence_alone);
    tcase_add_test(tcase, who_was_away_hears_most_of_the_others_before_it_appends);
    tcase_add_test(tcase, who_hears_itself_accused_may_not_act);
    tcase_add_test(tcase, a_heartbeat_counts_from_when_it_was_sent);
    tcase_add_test(tcase, a_heartbeat_that_a_later_one_has_overtaken_counts_for_nothing);
    tcase_add_test(tcase, whoever_was_never_heard_is_no_part_of_a_majority);
    tcase_add_test(tcase, where_many_are_gone_the_same_ones_are_named_first);
    tcase_add_test(tcase, whom_others_hold_for_gone_is_bounded_and_counted);
    tcase_add_test(tcase, of_many_that_start_the_first_are_forgotten_and_counted);
    tcase_add_test(tcase, the_times_are_checked_against_each_other);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
