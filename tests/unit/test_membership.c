#include "common/mem.h"
#include "common/membership.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WALL_S = 5000, SELF = 100 };

static struct timer_wheel wheel;
static struct membership *membership;
static int64_t now_ms;

/* What the actions asked for. */
static unsigned reads, entry_reads, appends, heartbeats, announcements, probes, questions;
static uint64_t expected_seq, entry_seq;
static uint64_t seen[16]; /* sequences of the views that came into force */
static unsigned seen_count;
static unsigned reads_answered;
static uint32_t rooms_of_others;
static struct view *proposed; /* of the last append */
static enum membership_state states[16];
static unsigned state_count;

static void on_read_last(void *ctx)
{
    reads++;
}

static void on_read(void *ctx, uint64_t seq)
{
    entry_reads++;
    entry_seq = seq;
}

static void on_append(void *ctx, const struct view *entry, uint64_t expected_last_seq)
{
    appends++;
    expected_seq = expected_last_seq;
    view_unref(&proposed);
    proposed = view_copy(entry);
}

static void on_announce(void *ctx, const struct view *view)
{
    announcements++;
}

static void on_heartbeat(void *ctx)
{
    heartbeats++;
}

static void on_probe(void *ctx, const struct node_address *node)
{
    probes++;
}

static void on_ask(void *ctx, const struct node_address *whom, struct view_number after)
{
    questions++;
    ck_assert_uint_eq(after.seq, membership_view(membership)->number.seq);
}

static void on_view(void *ctx, struct view *old, struct view *view, int64_t at_ms)
{
    seen[seen_count++] = view->number.seq;
}

static void on_state(void *ctx, enum membership_state state, int64_t at_ms)
{
    states[state_count++] = state;
}

static int64_t on_wall_s(void *ctx)
{
    return WALL_S;
}

/* As a shard without rooms does. */
static void on_progress(void *ctx, int64_t at_ms)
{
    membership_set_marker(membership, membership_reported(membership), at_ms);
}

static void begin(enum node_kind kind)
{
    static const struct membership_actions actions = {.read_last = on_read_last,
                                                      .read = on_read,
                                                      .append = on_append,
                                                      .announce = on_announce,
                                                      .heartbeat = on_heartbeat,
                                                      .probe = on_probe,
                                                      .ask = on_ask,
                                                      .view = on_view,
                                                      .state = on_state,
                                                      .wall_s = on_wall_s,
                                                      .progress = on_progress};
    struct node_address self = {.kind = kind, .id = "self", .incarnation = SELF};
    membership = membership_new(&self, "eu", 70, &membership_default_times, &wheel, &actions, NULL);
}

static void setup(void)
{
    now_ms = 1000;
    rooms_of_others = 0;
    timer_wheel_init(&wheel, now_ms);
    reads = reads_answered = entry_reads = seen_count = appends = heartbeats = announcements = probes = questions =
        state_count = 0;
    expected_seq = 0;
}

static void teardown(void)
{
    membership_free(&membership);
    view_unref(&proposed);
}

static void pass(int64_t ms)
{
    for (int64_t end_ms = now_ms + ms; now_ms < end_ms;) {
        now_ms += 10;
        timer_wheel_advance(&wheel, now_ms);
    }
}

static struct view *make_view(uint64_t generation, uint64_t seq, const char *shards)
{
    struct view *view = view_copy(NULL);
    view->number = (struct view_number){generation, seq};
    for (const char *c = shards; *c != '\0'; c++) {
        struct view_node node = {.incarnation = (uint64_t)*c, .weight = 100, .full_weight = 100};
        snprintf(node.id, sizeof node.id, "%c", *c);
        view_put_shard(view, &node);
    }
    return view;
}

static void put_self(struct view *view, enum node_kind kind, uint64_t incarnation)
{
    struct view_node node = {.id = "self", .incarnation = incarnation, .weight = 1, .full_weight = 1};
    if (kind == NODE_SHARD)
        view_put_shard(view, &node);
    else
        view_put_gateway(view, &node);
}

static void read_done(struct view *take_view)
{
    membership_read_done(membership, VIEWLOG_OK, take_view, now_ms);
    view_unref(&take_view);
}

static void learn(struct view *take_view)
{
    membership_learn(membership, take_view, now_ms);
    view_unref(&take_view);
}

/* A heartbeat of a shard that has reached the view that it speaks of. */
static void hear(const char *id, uint64_t generation, uint64_t seq)
{
    Signalbox__Cluster__V1__Heartbeat beat = SIGNALBOX__CLUSTER__V1__HEARTBEAT__INIT;
    Signalbox__Cluster__V1__ViewNumber number = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    Signalbox__Cluster__V1__Load load = SIGNALBOX__CLUSTER__V1__LOAD__INIT;
    number.generation = generation;
    number.seq = seq;
    load.rooms = rooms_of_others;
    beat.load = &load;
    beat.node = (char *)id;
    beat.incarnation = (uint64_t)id[0];
    beat.kind = SIGNALBOX__CLUSTER__V1__NODE_KIND__SHARD;
    beat.view = beat.settled = &number;
    membership_heartbeat(membership, &beat, now_ms);
}

static void assert_state(enum membership_state state)
{
    ck_assert_str_eq(membership_state_name(membership_state(membership)), membership_state_name(state));
}

/* Passes time while a and b are heard, with the view in force settled or not. */
static void pass_heard(int64_t ms, bool settled)
{
    for (int64_t end_ms = now_ms + ms; now_ms < end_ms;) {
        struct view_number number = membership_view(membership)->number;
        hear("a", number.generation, number.seq);
        hear("b", number.generation, settled ? number.seq : number.seq - 1);
        pass(50);
        if (reads > reads_answered) {
            membership_read_done(membership, VIEWLOG_FAILED, NULL, now_ms);
            reads_answered = reads;
        }
    }
}

/* A shard that is ACTIVE in view (9, 21), beside a and b. */
static void join(enum node_kind kind)
{
    begin(kind);
    membership_start(membership, now_ms);
    read_done(make_view(9, 20, "ab"));
    hear("a", 9, 20);
    hear("b", 9, 20);
    pass(membership_default_times.listen_ms);
    ck_assert_uint_eq(appends, 1);
    membership_append_done(membership, VIEWLOG_OK, 21, now_ms);
    assert_state(MEMBERSHIP_ACTIVE);
}

START_TEST(the_first_of_all_appends_to_an_empty_log)
{
    begin(NODE_SHARD);
    assert_state(MEMBERSHIP_LISTENING);
    membership_start(membership, now_ms);
    ck_assert_uint_eq(reads, 1);
    ck_assert_uint_eq(heartbeats, 1);
    membership_read_done(membership, VIEWLOG_EMPTY, NULL, now_ms);
    ck_assert_uint_eq(appends, 1);
    ck_assert_uint_eq(expected_seq, 0);
    ck_assert_uint_eq(proposed->number.generation, WALL_S);
    ck_assert_uint_eq(view_find_shard(proposed, "self")->incarnation, SELF);
    ck_assert_uint_eq(view_find_shard(proposed, "self")->weight, 70);
    ck_assert_str_eq(view_find_shard(proposed, "self")->region, "eu");
    membership_append_done(membership, VIEWLOG_OK, 1, now_ms);
    assert_state(MEMBERSHIP_ACTIVE);
    ck_assert_uint_eq(announcements, 1);
    ck_assert_uint_eq(membership_view(membership)->number.seq, 1);
}
END_TEST

START_TEST(it_listens_before_it_joins_others)
{
    begin(NODE_SHARD);
    membership_start(membership, now_ms);
    read_done(make_view(9, 20, "ab"));
    hear("a", 9, 20);
    hear("b", 9, 20);
    pass(membership_default_times.listen_ms - 20);
    ck_assert_uint_eq(appends, 0);
    pass(20);
    ck_assert_uint_eq(appends, 1);
    ck_assert_uint_eq(expected_seq, 20);
    ck_assert_uint_eq(proposed->number.generation, 9);
    ck_assert_uint_eq(proposed->shard_count, 3);
    ck_assert_uint_eq(proposed->settled.seq, 20);
    ck_assert(heartbeats > 5);
}
END_TEST

START_TEST(after_a_conflict_it_builds_on_what_won)
{
    begin(NODE_SHARD);
    membership_start(membership, now_ms);
    membership_read_done(membership, VIEWLOG_EMPTY, NULL, now_ms);
    membership_append_done(membership, VIEWLOG_CONFLICT, 0, now_ms);
    ck_assert_uint_eq(reads, 2);
    ck_assert_uint_eq(appends, 1);
    read_done(make_view(WALL_S, 1, "a"));
    hear("a", WALL_S, 1);
    pass(membership_default_times.heartbeat_ms);
    ck_assert_uint_eq(appends, 2);
    ck_assert_uint_eq(expected_seq, 1);
    ck_assert_uint_eq(proposed->shard_count, 2);
    membership_append_done(membership, VIEWLOG_OK, 2, now_ms);
    assert_state(MEMBERSHIP_ACTIVE);
}
END_TEST

START_TEST(an_unknown_outcome_is_read_and_never_assumed)
{
    struct view *view;

    begin(NODE_SHARD);
    membership_start(membership, now_ms);
    membership_read_done(membership, VIEWLOG_EMPTY, NULL, now_ms);
    membership_append_done(membership, VIEWLOG_UNKNOWN, 0, now_ms);
    assert_state(MEMBERSHIP_JOINING);
    ck_assert_uint_eq(reads, 2);
    ck_assert_uint_eq(appends, 1);
    view = make_view(WALL_S, 1, "");
    put_self(view, NODE_SHARD, SELF); /* it did happen */
    read_done(view);
    assert_state(MEMBERSHIP_ACTIVE);
    ck_assert_uint_eq(appends, 1);
}
END_TEST

START_TEST(a_failed_append_is_tried_again_later)
{
    begin(NODE_SHARD);
    membership_start(membership, now_ms);
    membership_read_done(membership, VIEWLOG_FAILED, NULL, now_ms);
    ck_assert_uint_eq(reads, 1);
    pass(membership_default_times.retry_ms);
    ck_assert_uint_eq(reads, 2);
    membership_read_done(membership, VIEWLOG_EMPTY, NULL, now_ms);
    membership_append_done(membership, VIEWLOG_FAILED, 0, now_ms);
    ck_assert_uint_eq(reads, 2);
    pass(membership_default_times.retry_ms);
    ck_assert_uint_eq(reads, 3);
    membership_read_done(membership, VIEWLOG_EMPTY, NULL, now_ms);
    ck_assert_uint_eq(appends, 2);
}
END_TEST

START_TEST(an_abandoned_log_is_left_behind)
{
    begin(NODE_SHARD);
    membership_start(membership, now_ms);
    read_done(make_view(9, 20, "ab"));
    hear("x", 9, 20); /* not of the view */
    for (unsigned answered = reads; appends == 0 && now_ms < 1000 + 2 * membership_default_times.abandoned_ms;) {
        pass(10);
        if (reads > answered)
            membership_read_done(membership, VIEWLOG_FAILED, NULL, now_ms); /* the poll's */
        answered = reads;
    }
    ck_assert_int_ge(now_ms, 1000 + membership_default_times.abandoned_ms);
    ck_assert_int_le(now_ms, 2000 + membership_default_times.abandoned_ms);
    ck_assert_uint_eq(appends, 1);
    ck_assert_uint_eq(expected_seq, 20);
    ck_assert_uint_eq(proposed->number.generation, WALL_S);
    ck_assert_uint_eq(proposed->shard_count, 1);
}
END_TEST

START_TEST(a_restart_takes_the_place_of_its_namesake)
{
    struct view *view = make_view(9, 20, "a");

    put_self(view, NODE_SHARD, SELF - 1);
    begin(NODE_SHARD);
    membership_start(membership, now_ms);
    read_done(view);
    hear("a", 9, 20);
    hear("b", 9, 20);
    pass(membership_default_times.listen_ms);
    ck_assert_uint_eq(appends, 1); /* its removal, which must settle first */
    ck_assert_uint_eq(proposed->shard_count, 1);
    ck_assert_ptr_null(view_find_shard(proposed, "self"));
    membership_append_done(membership, VIEWLOG_OK, 21, now_ms);
    ck_assert_uint_eq(appends, 1);
    hear("a", 9, 21);
    pass(membership_default_times.heartbeat_ms);
    ck_assert_uint_eq(appends, 2);
    ck_assert_uint_eq(proposed->shard_count, 2);
    ck_assert_uint_eq(view_find_shard(proposed, "self")->incarnation, SELF);
    ck_assert_uint_eq(proposed->settled.seq, 21);
}
END_TEST

static struct view *settled_view(uint64_t seq, uint64_t settled_seq)
{
    struct view *view = make_view(9, seq, "ab");
    view->settled = (struct view_number){9, settled_seq};
    return view;
}

static void entry_done(struct view *take_view)
{
    membership_entry_done(membership, VIEWLOG_OK, take_view, now_ms);
    view_unref(&take_view);
}

START_TEST(it_begins_with_the_last_settled_view)
{
    begin(NODE_SHARD);
    membership_start(membership, now_ms);
    read_done(settled_view(23, 20));
    for (uint64_t seq = 20; seq < 23; seq++) {
        ck_assert_uint_eq(entry_seq, seq);
        ck_assert_uint_eq(seen_count, seq - 20);
        entry_done(settled_view(seq, 19));
    }
    const uint64_t expected[] = {20, 21, 22, 23};
    ck_assert_uint_eq(seen_count, 4);
    ck_assert_mem_eq(seen, expected, sizeof expected);
    ck_assert_uint_eq(entry_reads, 3);
}
END_TEST

START_TEST(an_entry_that_was_not_announced_is_read_before_the_next)
{
    join(NODE_GATEWAY); /* in view 21 */
    struct view *late = settled_view(24, 21);
    put_self(late, NODE_GATEWAY, SELF);
    learn(late);
    ck_assert_uint_eq(entry_seq, 22);
    ck_assert_uint_eq(membership_view(membership)->number.seq, 21);
    struct view *third = settled_view(23, 21), *second = settled_view(22, 21);
    put_self(second, NODE_GATEWAY, SELF);
    put_self(third, NODE_GATEWAY, SELF);
    learn(second); /* announced after all */
    ck_assert_uint_eq(membership_view(membership)->number.seq, 22);
    membership_entry_done(membership, VIEWLOG_FAILED, NULL, now_ms);
    pass(membership_default_times.retry_ms);
    ck_assert_uint_eq(entry_seq, 23);
    entry_done(third);
    ck_assert_uint_eq(membership_view(membership)->number.seq, 24);
    assert_state(MEMBERSHIP_ACTIVE);
}
END_TEST

START_TEST(what_has_settled_is_passed_over)
{
    join(NODE_GATEWAY);
    learn(settled_view(40, 38));
    ck_assert_uint_eq(entry_seq, 38);
    entry_done(settled_view(38, 37));
    entry_done(settled_view(39, 38));
    ck_assert_uint_eq(seen_count, 5); /* 20, 21, 38, 39, 40 */
    ck_assert_uint_eq(membership_view(membership)->number.seq, 40);
}
END_TEST

START_TEST(a_truncated_log_does_not_stop_it)
{
    begin(NODE_SHARD);
    membership_start(membership, now_ms);
    read_done(settled_view(23, 20));
    membership_entry_done(membership, VIEWLOG_GONE, NULL, now_ms);
    ck_assert_uint_eq(membership_view(membership)->number.seq, 23);
    ck_assert_uint_eq(seen_count, 1);
}
END_TEST

/* A shard that was removed had not reached the view before: nobody may say that this one has settled. */
START_TEST(a_removed_shard_leaves_nothing_settled_behind)
{
    begin(NODE_SHARD);
    membership_start(membership, now_ms);
    read_done(make_view(9, 20, "abc"));
    hear("a", 9, 20);
    hear("b", 9, 20);
    hear("c", 9, 19);
    struct view *without = make_view(9, 21, "ab");
    without->settled = (struct view_number){9, 19};
    learn(without);
    pass(membership_default_times.listen_ms);
    ck_assert_uint_eq(appends, 0); /* a and b are at 20, c never was */
    hear("a", 9, 21);
    hear("b", 9, 21);
    pass(membership_default_times.heartbeat_ms);
    ck_assert_uint_eq(appends, 1);
    ck_assert_uint_eq(proposed->settled.seq, 21);
}
END_TEST

/* It joined after 15 s in any case. */
START_TEST(it_waits_for_the_view_to_settle_for_as_long_as_it_takes)
{
    begin(NODE_SHARD);
    membership_start(membership, now_ms);
    read_done(make_view(9, 20, "ab"));
    for (unsigned i = 0; i < 60; i++) {
        hear("a", 9, 20);
        hear("b", 9, 19);
        pass(500);
        membership_read_done(membership, VIEWLOG_FAILED, NULL, now_ms); /* the poll's */
    }
    ck_assert_uint_eq(appends, 0);
    hear("b", 9, 20);
    pass(1000);
    ck_assert_uint_eq(appends, 1);
}
END_TEST

static uint32_t own_weight(void)
{
    return view_find_shard(membership_view(membership), "self")->weight;
}

/* Lets the append that is under way be done. */
static void appended(void)
{
    membership_append_done(membership, VIEWLOG_OK, membership_view(membership)->number.seq + 1, now_ms);
}

static void mark_self(void)
{
    membership_set_marker(membership, membership_view(membership)->number, now_ms);
}

/* In the view (9, 21) beside a and b, who hold rooms; its weight will be 70. */
static void join_in_steps(void)
{
    rooms_of_others = 5;
    join(NODE_SHARD);
    reads_answered = reads;
    mark_self();
}

/* Passes time until the next append, which is done; returns the weight that it has brought. */
static uint32_t next_step(void)
{
    unsigned before = appends;
    for (unsigned i = 0; appends == before && i < 100; i++)
        pass_heard(50, true);
    ck_assert_uint_eq(appends, before + 1);
    ck_assert_uint_eq(view_find_shard(proposed, "a")->weight, 100);
    appended();
    mark_self();
    return own_weight();
}

START_TEST(a_new_shard_gets_its_weight_in_steps)
{
    const uint32_t weights[] = {8, 17, 26, 35, 43, 52, 61, 70};
    join_in_steps();
    ck_assert_uint_eq(own_weight(), weights[0]);
    for (unsigned i = 1; i < 8; i++) {
        int64_t since_ms = now_ms;
        ck_assert_uint_eq(next_step(), weights[i]);
        ck_assert_int_ge(now_ms - since_ms, membership_default_times.pace.step_ms);
    }
    unsigned before = appends;
    pass_heard(5000, true);
    ck_assert_uint_eq(appends, before);
}
END_TEST

START_TEST(no_step_is_made_before_the_last_has_settled)
{
    join_in_steps();
    unsigned before = appends;
    pass_heard(5000, false);
    ck_assert_uint_eq(appends, before);
    ck_assert_uint_eq(next_step(), 17);
}
END_TEST

START_TEST(where_nobody_holds_a_room_the_weight_comes_at_once)
{
    join(NODE_SHARD);
    ck_assert_uint_eq(own_weight(), 70);
}
END_TEST

START_TEST(a_drain_takes_the_weight_in_steps)
{
    join(NODE_SHARD);
    reads_answered = reads;
    mark_self();
    rooms_of_others = 5;
    membership_drain(membership, 8000, now_ms);
    ck_assert_int_eq(membership_drain_progress(membership), DRAIN_MOVING);
    const uint32_t weights[] = {70, 61, 52, 43, 35, 26, 17, 8, 0}; /* the mark comes first */
    for (unsigned i = 0; i < 9; i++) {
        ck_assert_uint_eq(next_step(), weights[i]);
        ck_assert(view_find_shard(membership_view(membership), "self")->draining);
    }
    ck_assert_int_eq(membership_drain_progress(membership), DRAIN_MOVING); /* a and b are not there yet */
    pass_heard(100, true);
    ck_assert_int_eq(membership_drain_progress(membership), DRAIN_DONE);
}
END_TEST

START_TEST(a_shard_without_rooms_drains_in_one_step)
{
    join(NODE_SHARD);
    reads_answered = reads;
    mark_self();
    membership_set_load(membership, &(struct membership_load){.empty = true}, now_ms);
    membership_drain(membership, 8000, now_ms);
    ck_assert_uint_eq(next_step(), 0);
}
END_TEST

START_TEST(where_all_drain_nobody_waits_for_an_heir)
{
    join(NODE_SHARD);
    struct view *view = view_copy(membership_view(membership));
    view->number.seq++;
    for (size_t i = 0; i < view->shard_count; i++)
        view->shards[i].draining = true;
    learn(view);
    membership_drain(membership, 8000, now_ms);
    ck_assert_int_eq(membership_drain_progress(membership), DRAIN_NO_HEIR);
}
END_TEST

START_TEST(load_moves_the_weight_a_step_at_a_time)
{
    const struct membership_load high = {.pressure = PRESSURE_HIGH}, steady = {.pressure = PRESSURE_STEADY},
                                 low = {.pressure = PRESSURE_LOW}, full = {.pressure = PRESSURE_HIGH, .full = true};
    join(NODE_SHARD);
    reads_answered = reads;
    mark_self();
    pass_heard(membership_default_times.pace.relief_ms, true);
    membership_set_load(membership, &high, now_ms);
    ck_assert_uint_eq(next_step(), 61);
    unsigned before = appends;
    membership_set_load(membership, &high, now_ms); /* too soon */
    pass_heard(2000, true);
    ck_assert_uint_eq(appends, before);
    pass_heard(membership_default_times.pace.relief_ms, true);
    membership_set_load(membership, &steady, now_ms);
    pass_heard(2000, true);
    ck_assert_uint_eq(appends, before);
    membership_set_load(membership, &full, now_ms);
    ck_assert_uint_eq(next_step(), 52);
    ck_assert(view_find_shard(membership_view(membership), "self")->full);
    pass_heard(membership_default_times.pace.relief_ms, true);
    membership_set_load(membership, &low, now_ms);
    ck_assert_uint_eq(next_step(), 61);
    ck_assert(!view_find_shard(membership_view(membership), "self")->full);
}
END_TEST

/* Weight 0 is for drains: an overloaded shard that owned nothing would leave the others to follow it. */
START_TEST(load_never_takes_the_last_step)
{
    const struct membership_load high = {.pressure = PRESSURE_HIGH};
    join(NODE_SHARD);
    reads_answered = reads;
    mark_self();
    for (unsigned i = 0; i < 7; i++) {
        pass_heard(membership_default_times.pace.relief_ms, true);
        membership_set_load(membership, &high, now_ms);
        next_step();
    }
    ck_assert_uint_eq(own_weight(), 8);
    unsigned before = appends;
    pass_heard(membership_default_times.pace.relief_ms, true);
    membership_set_load(membership, &high, now_ms);
    pass_heard(2000, true);
    ck_assert_uint_eq(appends, before);
}
END_TEST

START_TEST(a_joiner_that_removed_an_earlier_start_replaced_it)
{
    join(NODE_SHARD);
    struct view *view = make_view(9, 22, "ab");
    view->appender = SELF + 1; /* not in the view */
    learn(view);
    assert_state(MEMBERSHIP_REMOVED);
    ck_assert(membership_was_replaced(membership));
}
END_TEST

START_TEST(whoever_is_held_for_gone_was_not_replaced)
{
    join(NODE_SHARD);
    struct view *view = make_view(9, 22, "ab");
    view->appender = 'a';
    learn(view);
    assert_state(MEMBERSHIP_REMOVED);
    ck_assert(!membership_was_replaced(membership));
}
END_TEST

/* There was a wait of abandoned_ms for nobody. */
START_TEST(an_only_shard_does_not_wait_for_its_own_ghost)
{
    struct view *view = make_view(9, 20, "");

    put_self(view, NODE_SHARD, SELF - 1);
    put_self(view, NODE_GATEWAY, 7);
    begin(NODE_SHARD);
    membership_start(membership, now_ms);
    read_done(view);
    pass(membership_default_times.listen_ms);
    ck_assert_uint_eq(appends, 1);
    ck_assert_uint_eq(proposed->gateway_count, 1);
    ck_assert_uint_eq(proposed->number.generation, 9);
}
END_TEST

START_TEST(leaving_is_an_append_without_itself)
{
    join(NODE_SHARD);
    membership_leave(membership, now_ms);
    assert_state(MEMBERSHIP_LEAVING);
    ck_assert_uint_eq(appends, 2);
    ck_assert_uint_eq(expected_seq, 21);
    ck_assert_uint_eq(proposed->shard_count, 2);
    ck_assert(!membership_may_act(membership, now_ms)); /* others may know of the entry first */
    membership_append_done(membership, VIEWLOG_CONFLICT, 0, now_ms);
    struct view *view = make_view(9, 22, "abc");
    put_self(view, NODE_SHARD, SELF);
    read_done(view);
    ck_assert_uint_eq(appends, 3);
    ck_assert_uint_eq(expected_seq, 22);
    ck_assert_uint_eq(proposed->shard_count, 3);
    membership_append_done(membership, VIEWLOG_OK, 23, now_ms);
    assert_state(MEMBERSHIP_LEFT);
}
END_TEST

START_TEST(who_never_joined_leaves_at_once)
{
    begin(NODE_SHARD);
    membership_leave(membership, now_ms);
    assert_state(MEMBERSHIP_LEFT);
}
END_TEST

/* It left a ghost in the view: the append whose outcome was unknown had happened. */
START_TEST(leaving_in_doubt_reads_the_log_first)
{
    begin(NODE_SHARD);
    membership_start(membership, now_ms);
    membership_read_done(membership, VIEWLOG_EMPTY, NULL, now_ms);
    membership_append_done(membership, VIEWLOG_UNKNOWN, 0, now_ms);
    membership_leave(membership, now_ms);
    assert_state(MEMBERSHIP_LEAVING);
    struct view *view = make_view(WALL_S, 1, "");
    put_self(view, NODE_SHARD, SELF);
    read_done(view);
    ck_assert_uint_eq(appends, 2);
    ck_assert_uint_eq(proposed->shard_count, 0);
    membership_append_done(membership, VIEWLOG_OK, 2, now_ms);
    assert_state(MEMBERSHIP_LEFT);
}
END_TEST

START_TEST(a_shard_that_is_no_longer_listed_is_removed)
{
    join(NODE_SHARD);
    learn(make_view(9, 22, "ab"));
    assert_state(MEMBERSHIP_REMOVED);
    pass(1000);
    ck_assert_uint_eq(appends, 1);
}
END_TEST

START_TEST(a_gateway_that_is_no_longer_listed_is_removed)
{
    join(NODE_GATEWAY);
    learn(make_view(9, 22, "ab"));
    assert_state(MEMBERSHIP_REMOVED);
    pass(1000);
    ck_assert_uint_eq(appends, 1); /* this incarnation is never listed again */
}
END_TEST

/* Two gateways of one id replaced each other for ever. */
START_TEST(a_gateway_whose_id_was_taken_is_removed)
{
    struct view *view = make_view(9, 22, "ab");

    join(NODE_GATEWAY);
    put_self(view, NODE_GATEWAY, SELF + 1);
    learn(view);
    assert_state(MEMBERSHIP_REMOVED);
    pass(1000);
    ck_assert_uint_eq(appends, 1);
}
END_TEST

START_TEST(older_views_change_nothing)
{
    join(NODE_SHARD);
    learn(make_view(9, 20, "ab"));
    learn(make_view(8, 99, "ab"));
    assert_state(MEMBERSHIP_ACTIVE);
    ck_assert_uint_eq(membership_view(membership)->number.seq, 21);
}
END_TEST

/* A view that is spoken of and not in the log was asked for as fast as the log could answer. */
START_TEST(what_was_heard_of_is_asked_for_at_a_bounded_rate)
{
    struct view *current;
    unsigned before;

    join(NODE_SHARD);
    current = view_ref(membership_view(membership));
    before = reads;
    hear("a", 9, 50);
    ck_assert_uint_eq(questions, 1); /* somebody who knows it comes before the log */
    ck_assert_uint_eq(reads, before);
    pass(membership_default_times.heartbeat_ms);
    ck_assert_uint_eq(reads, before + 1);
    for (unsigned i = 0; i < 200; i++) {
        unsigned asked = reads;
        pass(10);
        hear("a", 9, 50);
        if (reads > asked)
            membership_read_done(membership, VIEWLOG_OK, current, now_ms);
        else if (i == 0)
            membership_read_done(membership, VIEWLOG_OK, current, now_ms);
    }
    ck_assert_uint_ge(reads, before + 3);
    ck_assert_uint_le(reads, before + 6);
    ck_assert_uint_ge(questions, 3);
    ck_assert_uint_le(questions, 6);
    view_unref(&current);
}
END_TEST

/* The append was repeated for ever, because it expected a sequence that the log no longer had. */
START_TEST(a_log_that_lost_its_tail_goes_on_in_a_new_generation)
{
    begin(NODE_SHARD);
    membership_start(membership, now_ms);
    learn(make_view(6000, 30, "ab")); /* announced, and then lost from the log */
    read_done(make_view(6000, 28, "a"));
    hear("a", 6000, 30);
    hear("b", 6000, 30);
    pass(membership_default_times.listen_ms);
    ck_assert_uint_eq(appends, 1);
    ck_assert_uint_eq(expected_seq, 28);
    ck_assert_uint_eq(proposed->number.generation, 6001);
    ck_assert_uint_eq(proposed->shard_count, 3);
    membership_append_done(membership, VIEWLOG_OK, 29, now_ms);
    assert_state(MEMBERSHIP_ACTIVE);
    ck_assert_uint_eq(membership_view(membership)->number.generation, 6001);
}
END_TEST

START_TEST(a_bus_that_is_back_means_that_views_may_have_passed)
{
    join(NODE_SHARD);
    unsigned before = reads;
    membership_start(membership, now_ms);
    ck_assert_uint_eq(reads, before + 1);
}
END_TEST

/* A heartbeat of `id` in the membership's own view, through a NATS server, over its bus or its second connection, that
 * concurs in the removal of `accused` (0: of nobody). */
static void hear_kind(Signalbox__Cluster__V1__NodeKind kind, const char *id, const char *server, bool second,
                      uint64_t accused)
{
    Signalbox__Cluster__V1__Heartbeat beat = SIGNALBOX__CLUSTER__V1__HEARTBEAT__INIT;
    Signalbox__Cluster__V1__ViewNumber number = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    Signalbox__Cluster__V1__Load load = SIGNALBOX__CLUSTER__V1__LOAD__INIT;
    Signalbox__Cluster__V1__Concurrence concurrence = SIGNALBOX__CLUSTER__V1__CONCURRENCE__INIT;
    Signalbox__Cluster__V1__Concurrence *list[1] = {&concurrence};
    number.generation = membership_view(membership)->number.generation;
    number.seq = membership_view(membership)->number.seq;
    beat.node = (char *)id;
    beat.incarnation = (uint64_t)id[0];
    beat.kind = kind;
    beat.view = beat.settled = &number;
    beat.nats_server = (char *)server;
    beat.second = second;
    beat.load = &load;
    concurrence.incarnation = accused;
    beat.concurs = list;
    beat.n_concurs = accused != 0 ? 1 : 0;
    membership_heartbeat(membership, &beat, now_ms);
}

static void hear_through(const char *id, const char *server, bool second, uint64_t accused)
{
    hear_kind(SIGNALBOX__CLUSTER__V1__NODE_KIND__SHARD, id, server, second, accused);
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
    int64_t start_ms = now_ms;
    struct view *view = make_view(9, 20, "a");
    for (int i = 0; i < 2; i++) {
        struct view_node node = {.incarnation = (uint64_t)gateways[i][0]};
        snprintf(node.id, sizeof node.id, "%s", gateways[i]);
        view_put_gateway(view, &node);
    }
    begin(NODE_SHARD);
    membership_start(membership, now_ms);
    read_done(view);
    reads_answered = reads;
    while (appends == 0 && now_ms - start_ms < 30000) {
        pass(50);
        if (reads > reads_answered) {
            membership_read_done(membership, VIEWLOG_FAILED, NULL, now_ms);
            reads_answered = reads;
        }
        for (int i = 0; i < 2; i++)
            hear_kind(SIGNALBOX__CLUSTER__V1__NODE_KIND__GATEWAY, gateways[i], "N", false, i < accusers ? 'a' : 0);
    }
    ck_assert_uint_eq(appends, 1);
    return now_ms - start_ms;
}

START_TEST(a_newcomer_takes_the_place_of_shards_that_have_gone)
{
    int64_t took_ms = start_beside_a_silent_shard(2);
    ck_assert_int_ge(took_ms,
                     membership_default_times.detector.silence_ms + membership_default_times.detector.notice_ms);
    ck_assert_int_le(took_ms, 3500);
    ck_assert_uint_eq(expected_seq, 20);
    ck_assert_uint_eq(proposed->number.generation, 9);
    ck_assert_uint_eq(proposed->gateway_count, 2);
    ck_assert_uint_eq(proposed->shard_count, 1);
    ck_assert_uint_eq(proposed->shards[0].incarnation, SELF);
    ck_assert_uint_eq(proposed->shards[0].weight, 70);
}
END_TEST

START_TEST(a_newcomer_waits_where_too_few_concur)
{
    ck_assert_int_ge(start_beside_a_silent_shard(1), membership_default_times.abandoned_ms);
    ck_assert_uint_eq(proposed->number.generation, WALL_S);
}
END_TEST

/* Passes time while `b` stays silent and `a` is heard, concurring from `a_concurs_ms` of silence on. Returns the
 * silence at which an append was made, or -1. */
static int64_t silence_of_b(int64_t limit_ms, int64_t a_concurs_ms)
{
    int64_t start_ms = now_ms;
    unsigned before = appends;
    while (now_ms - start_ms < limit_ms) {
        pass(50);
        hear_concurring("a", now_ms - start_ms >= a_concurs_ms ? 'b' : 0);
        if (appends > before)
            return now_ms - start_ms;
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
    membership_start(membership, now_ms);
    read_done(make_view(9, 20, "xy"));
    hear("x", 9, 20);
    hear("y", 9, 20);
    pass(membership_default_times.listen_ms);
    membership_append_done(membership, VIEWLOG_OK, 21, now_ms);
    assert_state(MEMBERSHIP_ACTIVE);
    hear_concurring("x", 0);
    hear_concurring("y", 0);
}

START_TEST(who_is_silent_is_removed_after_a_notice_by_a_quorum)
{
    join_as_lowest();
    int64_t start_ms = now_ms;
    unsigned before = appends;
    /* y is heard and concurs in the removal of x, which is silent. */
    while (appends == before && now_ms - start_ms < 10000) {
        pass(50);
        hear_concurring("y", now_ms - start_ms >= membership_default_times.detector.silence_ms ? 'x' : 0);
    }
    int64_t took_ms = now_ms - start_ms;
    ck_assert_int_ge(took_ms,
                     membership_default_times.detector.silence_ms + membership_default_times.detector.notice_ms);
    ck_assert_int_le(took_ms, 3500);
    ck_assert_ptr_null(view_find_shard(proposed, "x"));
    ck_assert_ptr_nonnull(view_find_shard(proposed, "y"));
    ck_assert_ptr_nonnull(view_find_shard(proposed, "self"));
    ck_assert_uint_gt(probes, 0);
}
END_TEST

START_TEST(who_has_no_subscription_is_removed_sooner)
{
    join_as_lowest();
    int64_t start_ms = now_ms;
    unsigned before = appends;
    while (appends == before && now_ms - start_ms < 10000) {
        pass(20);
        hear_concurring("y", now_ms - start_ms >= 420 ? 'x' : 0);
        if (now_ms - start_ms >= 400)
            membership_gone(membership, 'x', now_ms);
    }
    ck_assert_int_ge(now_ms - start_ms, membership_default_times.detector.gone_ms);
    ck_assert_int_le(now_ms - start_ms, 1000);
    ck_assert_ptr_null(view_find_shard(proposed, "x"));
}
END_TEST

/* x falls silent; y, on server N, is heard and concurs whenever it may. Returns after what silence x is removed, or -1;
 * `second` is the server over which x is heard all the while, or NULL. */
static int64_t silence_of_x(const char *second)
{
    int64_t start_ms = now_ms;
    unsigned before = appends;
    reads_answered = reads;
    while (appends == before && now_ms - start_ms < 10000) {
        pass(50);
        if (reads > reads_answered) { /* by the poll */
            membership_read_done(membership, VIEWLOG_FAILED, NULL, now_ms);
            reads_answered = reads;
        }
        if (second != NULL)
            hear_through("x", second, true, 0);
        hear_through("y", "N", false, now_ms - start_ms >= membership_default_times.detector.silence_ms ? 'x' : 0);
    }
    ck_assert(appends == before || view_find_shard(proposed, "x") == NULL);
    return appends == before ? -1 : now_ms - start_ms;
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
    unsigned before = appends;
    for (unsigned i = 0; i < 80; i++) {
        pass(50);
        hear_concurring("y", 0); /* y still hears x */
    }
    ck_assert_uint_eq(appends, before);
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
    ck_assert(membership_may_act(membership, now_ms));
    unsigned before = appends;
    pass(membership_default_times.detector.fence_ms + 300); /* nobody is heard */
    ck_assert(!membership_may_act(membership, now_ms));
    ck_assert_uint_gt(appends, before);
    ck_assert_ptr_nonnull(view_find_shard(proposed, "self"));
    membership_append_done(membership, VIEWLOG_OK, 22, now_ms);
    ck_assert(membership_may_act(membership, now_ms));
}
END_TEST

START_TEST(who_was_asleep_may_not_act)
{
    join_and_hear_both();
    pass(100);
    ck_assert(membership_may_act(membership, now_ms));
    now_ms += 10000; /* stopped and continued; old heartbeats wait in its buffers */
    ck_assert(!membership_may_act(membership, now_ms));
    hear_concurring("a", 0);
    hear_concurring("b", 0);
    ck_assert(!membership_may_act(membership, now_ms));
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
    ck_assert(membership_may_act(membership, now_ms));
    hear_concurring("a", SELF);
    ck_assert(membership_may_act(membership, now_ms)); /* two of three do not */
    hear_concurring("b", SELF);
    ck_assert(!membership_may_act(membership, now_ms));
}
END_TEST

static void hear_sent(const char *id, int64_t sent_ms)
{
    Signalbox__Cluster__V1__Heartbeat beat = SIGNALBOX__CLUSTER__V1__HEARTBEAT__INIT;
    Signalbox__Cluster__V1__ViewNumber number = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    number.generation = membership_view(membership)->number.generation;
    number.seq = membership_view(membership)->number.seq;
    beat.node = (char *)id;
    beat.incarnation = (uint64_t)id[0];
    beat.kind = SIGNALBOX__CLUSTER__V1__NODE_KIND__SHARD;
    beat.view = beat.settled = &number;
    beat.sent_ms = sent_ms;
    membership_heartbeat(membership, &beat, now_ms);
}

/* What waited in a server that stood still proved a majority that had long removed it. */
START_TEST(a_heartbeat_counts_from_when_it_was_sent)
{
    const int64_t ahead_ms = 700000; /* of the others' clocks */
    join_and_hear_both();
    for (unsigned i = 0; i < 40; i++) {
        pass(50);
        hear_sent("a", now_ms + ahead_ms);
        hear_sent("b", now_ms + ahead_ms);
    }
    ck_assert(membership_may_act(membership, now_ms));
    int64_t last_ms = now_ms;
    while (membership_may_act(membership, now_ms) && now_ms < last_ms + 5000) {
        pass(50);
        hear_sent("a", last_ms + ahead_ms + 1);
        hear_sent("b", last_ms + ahead_ms + 1);
    }
    ck_assert_int_ge(now_ms - last_ms, membership_default_times.detector.fence_ms);
    ck_assert_int_le(now_ms - last_ms, membership_default_times.detector.fence_ms + 100);
}
END_TEST

/* It counted from the view on that listed it, which may itself have come late. */
START_TEST(whoever_was_never_heard_is_no_part_of_a_majority)
{
    join_and_hear_both();
    mark_self();
    reads_answered = reads;
    pass_heard(2000, true); /* beyond what the join's own append proves */
    ck_assert(membership_may_act(membership, now_ms));
    struct view *view = view_copy(membership_view(membership));
    view->number.seq++;
    for (char c = 'c'; c <= 'f'; c++) {
        struct view_node node = {.id = {c}, .incarnation = (uint64_t)c, .weight = 1, .full_weight = 1};
        view_put_shard(view, &node);
    }
    learn(view); /* 7 shards, of which 3 have been heard */
    ck_assert(!membership_may_act(membership, now_ms));
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
    Suite *suite = suite_create("membership");
    TCase *tcase = tcase_create("membership");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, the_first_of_all_appends_to_an_empty_log);
    tcase_add_test(tcase, it_listens_before_it_joins_others);
    tcase_add_test(tcase, after_a_conflict_it_builds_on_what_won);
    tcase_add_test(tcase, an_unknown_outcome_is_read_and_never_assumed);
    tcase_add_test(tcase, a_failed_append_is_tried_again_later);
    tcase_add_test(tcase, an_abandoned_log_is_left_behind);
    tcase_add_test(tcase, a_restart_takes_the_place_of_its_namesake);
    tcase_add_test(tcase, it_begins_with_the_last_settled_view);
    tcase_add_test(tcase, an_entry_that_was_not_announced_is_read_before_the_next);
    tcase_add_test(tcase, what_has_settled_is_passed_over);
    tcase_add_test(tcase, a_truncated_log_does_not_stop_it);
    tcase_add_test(tcase, a_removed_shard_leaves_nothing_settled_behind);
    tcase_add_test(tcase, it_waits_for_the_view_to_settle_for_as_long_as_it_takes);
    tcase_add_test(tcase, a_new_shard_gets_its_weight_in_steps);
    tcase_add_test(tcase, no_step_is_made_before_the_last_has_settled);
    tcase_add_test(tcase, where_nobody_holds_a_room_the_weight_comes_at_once);
    tcase_add_test(tcase, a_drain_takes_the_weight_in_steps);
    tcase_add_test(tcase, a_shard_without_rooms_drains_in_one_step);
    tcase_add_test(tcase, where_all_drain_nobody_waits_for_an_heir);
    tcase_add_test(tcase, load_moves_the_weight_a_step_at_a_time);
    tcase_add_test(tcase, load_never_takes_the_last_step);
    tcase_add_test(tcase, a_joiner_that_removed_an_earlier_start_replaced_it);
    tcase_add_test(tcase, whoever_is_held_for_gone_was_not_replaced);
    tcase_add_test(tcase, an_only_shard_does_not_wait_for_its_own_ghost);
    tcase_add_test(tcase, leaving_is_an_append_without_itself);
    tcase_add_test(tcase, who_never_joined_leaves_at_once);
    tcase_add_test(tcase, leaving_in_doubt_reads_the_log_first);
    tcase_add_test(tcase, a_shard_that_is_no_longer_listed_is_removed);
    tcase_add_test(tcase, a_gateway_that_is_no_longer_listed_is_removed);
    tcase_add_test(tcase, a_gateway_whose_id_was_taken_is_removed);
    tcase_add_test(tcase, older_views_change_nothing);
    tcase_add_test(tcase, what_was_heard_of_is_asked_for_at_a_bounded_rate);
    tcase_add_test(tcase, a_log_that_lost_its_tail_goes_on_in_a_new_generation);
    tcase_add_test(tcase, a_bus_that_is_back_means_that_views_may_have_passed);
    tcase_add_test(tcase, who_is_silent_is_removed_after_a_notice_by_a_quorum);
    tcase_add_test(tcase, who_has_no_subscription_is_removed_sooner);
    tcase_add_test(tcase, a_newcomer_takes_the_place_of_shards_that_have_gone);
    tcase_add_test(tcase, a_newcomer_waits_where_too_few_concur);
    tcase_add_test(tcase, who_may_have_lost_its_server_gets_patience);
    tcase_add_test(tcase, who_is_silent_on_both_connections_gets_none);
    tcase_add_test(tcase, who_is_heard_over_its_second_connection_gets_patience);
    tcase_add_test(tcase, who_may_have_lost_both_its_servers_gets_patience);
    tcase_add_test(tcase, a_second_connection_that_had_ended_before_says_nothing);
    tcase_add_test(tcase, a_single_accuser_among_three_removes_nobody);
    tcase_add_test(tcase, it_does_not_propose_while_a_lower_id_lives);
    tcase_add_test(tcase, who_hears_too_few_may_not_act_until_an_append_lists_it);
    tcase_add_test(tcase, who_was_asleep_may_not_act);
    tcase_add_test(tcase, who_hears_itself_accused_may_not_act);
    tcase_add_test(tcase, a_heartbeat_counts_from_when_it_was_sent);
    tcase_add_test(tcase, whoever_was_never_heard_is_no_part_of_a_majority);
    tcase_add_test(tcase, the_times_are_checked_against_each_other);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
