#include "common/view_exchange.h"

#include "common/metrics.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

enum { ASKER = 1, KNOWER = 2, SETTLED = 3, NEWEST = 9 };

/* A process as far as it takes part: `self` is its id's letter and its incarnation. */
struct node {
    struct node_address address;
    struct membership *membership;
    struct links *links;
    struct payload *sent; /* its last envelope */
    enum link_verdict verdict;
    unsigned questions, entry_reads;
};

static struct timer_wheel wheel;
static struct node asker, knower;
static int64_t now_ms;

static int on_publish(void *ctx, const char *subject, struct payload *envelope)
{
    struct node *node = ctx;
    payload_unref(&node->sent);
    node->sent = payload_ref(envelope);
    return 0;
}

static enum link_verdict on_judge(void *ctx, const struct node_address *from, struct view_number view)
{
    return ((struct node *)ctx)->verdict;
}

static void on_item(void *ctx, const struct node_address *from, const Signalbox__Cluster__V1__Item *item, int64_t at_ms)
{
    struct node *node = ctx;
    ck_assert(view_exchange_item(node->membership, node->links, from, item, at_ms));
}

static void on_gap(void *ctx, const struct node_address *from, int64_t at_ms)
{
}

static struct view_number on_number(void *ctx)
{
    struct view *view = membership_view(((struct node *)ctx)->membership);
    return view != NULL ? view->number : (struct view_number){0, 0};
}

static void on_nothing(void *ctx)
{
}

static void on_read(void *ctx, uint64_t seq)
{
    ((struct node *)ctx)->entry_reads++;
}

static void on_append(void *ctx, const struct view *entry, uint64_t expected_last_seq)
{
}

static void on_announce(void *ctx, const struct view *view)
{
}

static void on_probe(void *ctx, const struct node_address *whom)
{
}

static void on_ask(void *ctx, const struct node_address *whom, struct view_number after)
{
    struct node *node = ctx;
    node->questions++;
    view_exchange_ask(node->links, whom, after, now_ms);
}

static void on_view(void *ctx, struct view *old, struct view *view, int64_t at_ms)
{
}

static void on_state(void *ctx, enum membership_state state, int64_t at_ms)
{
}

static int64_t on_wall_s(void *ctx)
{
    return 1;
}

static void on_progress(void *ctx, int64_t at_ms)
{
}

static void open_node(struct node *node, enum node_kind kind, const char *id, uint64_t incarnation)
{
    static const struct membership_actions actions = {.read_last = on_nothing,
                                                      .read = on_read,
                                                      .append = on_append,
                                                      .announce = on_announce,
                                                      .heartbeat = on_nothing,
                                                      .probe = on_probe,
                                                      .ask = on_ask,
                                                      .view = on_view,
                                                      .state = on_state,
                                                      .wall_s = on_wall_s,
                                                      .progress = on_progress};
    static const struct link_handlers handlers = {
        .publish = on_publish, .judge = on_judge, .item = on_item, .gap = on_gap, .view = on_number};
    memset(node, 0, sizeof *node);
    node->address = (struct node_address){.kind = kind, .incarnation = incarnation};
    snprintf(node->address.id, sizeof node->address.id, "%s", id);
    node->membership = membership_new(&node->address, "", 1, &membership_default_times, &wheel, &actions, node);
    node->links = links_new(&node->address, &handlers, node);
}

static void close_node(struct node *node)
{
    membership_free(&node->membership);
    links_free(&node->links);
    payload_unref(&node->sent);
}

/* The asker is a gateway, the knower a shard; both are in every view. */
static struct view *make_view(uint64_t seq)
{
    struct view *view = view_copy(NULL);
    struct view_node shard = {.id = "k", .incarnation = KNOWER, .weight = 1, .full_weight = 1};
    struct view_node gateway = {.id = "a", .incarnation = ASKER};
    view_put_shard(view, &shard);
    view_put_gateway(view, &gateway);
    view->number = (struct view_number){1, seq};
    view->settled = (struct view_number){1, seq < SETTLED ? seq : SETTLED};
    return view;
}

static void learn(struct node *node, uint64_t seq)
{
    struct view *view = make_view(seq);
    membership_learn(node->membership, view, now_ms);
    view_unref(&view);
}

/* The asker is active in the first view, the knower has all up to the newest. */
static void setup(void)
{
    now_ms = 1000;
    timer_wheel_init(&wheel, now_ms);
    open_node(&asker, NODE_GATEWAY, "a", ASKER);
    open_node(&knower, NODE_SHARD, "k", KNOWER);
    for (uint64_t seq = 1; seq <= NEWEST; seq++)
        learn(&knower, seq);
    membership_start(asker.membership, now_ms);
    struct view *first = make_view(1);
    membership_read_done(asker.membership, VIEWLOG_OK, first, now_ms);
    view_unref(&first);
    for (int64_t end_ms = now_ms + membership_default_times.listen_ms; now_ms < end_ms;)
        timer_wheel_advance(&wheel, now_ms += 50);
    ck_assert_int_eq(membership_state(asker.membership), MEMBERSHIP_ACTIVE);
}

static void teardown(void)
{
    close_node(&asker);
    close_node(&knower);
}

static void pass_on(struct node *from, struct node *to)
{
    links_flush(from->links, now_ms);
    ck_assert_ptr_nonnull(from->sent);
    links_receive(to->links, from->sent->data, from->sent->size, now_ms);
}

START_TEST(whoever_is_behind_learns_from_whoever_is_not)
{
    membership_heard(asker.membership, &knower.address, (struct view_number){1, NEWEST}, now_ms);
    ck_assert_uint_eq(asker.questions, 1);
    pass_on(&asker, &knower);
    asker.verdict = LINK_HOLD; /* as long as it does not know the view that the answer was sent under */
    pass_on(&knower, &asker);
    ck_assert_uint_eq(membership_view(asker.membership)->number.seq, NEWEST);
    asker.verdict = LINK_ACCEPT;
    links_release(asker.links, now_ms);
    ck_assert_uint_eq(membership_view(asker.membership)->number.seq, NEWEST);
}
END_TEST

START_TEST(whoever_knows_nothing_newer_does_not_answer)
{
    view_exchange_ask(asker.links, &knower.address, (struct view_number){1, NEWEST}, now_ms);
    pass_on(&asker, &knower);
    links_flush(knower.links, now_ms);
    ck_assert_ptr_null(knower.sent);
}
END_TEST

/* Announced, but the one before it was lost, and the log has no leader. */
START_TEST(what_is_missing_in_between_comes_from_others_too)
{
    learn(&asker, NEWEST);
    ck_assert_uint_eq(membership_view(asker.membership)->number.seq, 1);
    ck_assert_uint_eq(asker.entry_reads, 1); /* without an answer */
    membership_heard(asker.membership, &knower.address, (struct view_number){1, NEWEST}, now_ms);
    pass_on(&asker, &knower);
    asker.verdict = LINK_HOLD;
    pass_on(&knower, &asker);
    ck_assert_uint_eq(membership_view(asker.membership)->number.seq, NEWEST);
}
END_TEST

START_TEST(of_views_that_do_not_fit_a_message_the_newest_are_sent)
{
    enum { GATEWAYS = 1500 };
    struct view *large = make_view(NEWEST);
    for (uint64_t i = 0; i < GATEWAYS; i++) {
        struct view_node gateway = {.incarnation = UINT64_MAX - i};
        snprintf(gateway.id, sizeof gateway.id, "a-gateway-with-a-long-name-%04u", (unsigned)i);
        view_put_gateway(large, &gateway);
    }
    for (uint64_t seq = NEWEST + 1; seq <= NEWEST + 4; seq++) {
        struct view *view = view_copy(large);
        view->number.seq = seq;
        membership_learn(knower.membership, view, now_ms);
        view_unref(&view);
    }
    view_unref(&large);
    uint64_t before = metric_value(M_VIEWS_LEFT_OUT);
    membership_heard(asker.membership, &knower.address, (struct view_number){1, NEWEST + 4}, now_ms);
    pass_on(&asker, &knower);
    uint64_t left_out = metric_value(M_VIEWS_LEFT_OUT) - before;
    ck_assert_uint_gt(left_out, 0);
    ck_assert_uint_lt(left_out, NEWEST + 4 - 1);
    pass_on(&knower, &asker);
    ck_assert_uint_eq(asker.entry_reads, 1); /* in the log */
}
END_TEST

START_TEST(what_asks_for_nothing_or_tells_too_much_is_counted)
{
    enum { TOO_MANY = 65 };
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__ViewRequest request = SIGNALBOX__CLUSTER__V1__VIEW_REQUEST__INIT;
    Signalbox__Cluster__V1__ViewReply reply = SIGNALBOX__CLUSTER__V1__VIEW_REPLY__INIT;
    Signalbox__Cluster__V1__ViewRecord record = SIGNALBOX__CLUSTER__V1__VIEW_RECORD__INIT, *records[TOO_MANY];
    uint64_t invalid = metric_value(M_ITEMS_INVALID), malformed = metric_value_at(M_BUS_DROPPED, BUS_DROP_MALFORMED);
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_VIEW_REQUEST;
    item.view_request = &request;
    ck_assert(view_exchange_item(knower.membership, knower.links, &asker.address, &item, now_ms));
    ck_assert_uint_eq(metric_value(M_ITEMS_INVALID), invalid + 1);
    for (int i = 0; i < TOO_MANY; i++)
        records[i] = &record;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_VIEW_REPLY;
    item.view_reply = &reply;
    reply.records = records;
    reply.n_records = TOO_MANY;
    ck_assert(view_exchange_item(asker.membership, asker.links, &knower.address, &item, now_ms));
    ck_assert_uint_eq(metric_value(M_ITEMS_INVALID), invalid + 2);
    ck_assert_uint_eq(metric_value_at(M_BUS_DROPPED, BUS_DROP_MALFORMED), malformed);
    reply.n_records = 1;
    ck_assert(view_exchange_item(asker.membership, asker.links, &knower.address, &item, now_ms));
    ck_assert_uint_eq(metric_value_at(M_BUS_DROPPED, BUS_DROP_MALFORMED), malformed + 1);
}
END_TEST

START_TEST(a_record_is_read_as_it_was_written)
{
    struct arena arena;
    struct view *view = make_view(NEWEST);
    struct payload *record = view_exchange_pack(view);
    arena_init(&arena, 64 * 1024);
    struct view *read = view_exchange_unpack(record->data, record->size, &arena);
    ck_assert_ptr_nonnull(read);
    ck_assert_int_eq(view_number_compare(read->number, view->number), 0);
    ck_assert_uint_eq(read->shard_count, 1);
    view_unref(&read);
    ck_assert_ptr_null(view_exchange_unpack(record->data, record->size - 1, &arena));
    arena_done(&arena);
    payload_unref(&record);
    view_unref(&view);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("view_exchange");
    TCase *tcase = tcase_create("view_exchange");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, whoever_is_behind_learns_from_whoever_is_not);
    tcase_add_test(tcase, whoever_knows_nothing_newer_does_not_answer);
    tcase_add_test(tcase, what_is_missing_in_between_comes_from_others_too);
    tcase_add_test(tcase, of_views_that_do_not_fit_a_message_the_newest_are_sent);
    tcase_add_test(tcase, what_asks_for_nothing_or_tells_too_much_is_counted);
    tcase_add_test(tcase, a_record_is_read_as_it_was_written);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
