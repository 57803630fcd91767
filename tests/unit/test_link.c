#include "common/bus.h"
#include "common/link.h"
#include "common/metrics.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PUBLISHED_MAX = 64 };

static const struct node_address shard = {.kind = NODE_SHARD, .id = "s1", .incarnation = 1};
static const struct node_address gateway = {.kind = NODE_GATEWAY, .id = "g1", .incarnation = 2};

/* Two ends of a link; what `sender` publishes is kept until deliver() hands it to `receiver`. */
static struct links *sender, *receiver;
static struct payload *published[PUBLISHED_MAX];
static char subject[LINK_SUBJECT_MAX]; /* of the last */
static unsigned published_count;
static int publish_result;
static enum link_verdict verdict;
static uint64_t items[PUBLISHED_MAX]; /* bind_generation of the items heard: a number to know them by */
static unsigned item_count, gaps;
static struct view_number judged;

static int on_publish(void *ctx, const char *to, struct payload *envelope)
{
    if (publish_result == 0) {
        ck_assert_uint_lt(published_count, PUBLISHED_MAX);
        published[published_count++] = payload_ref(envelope);
        snprintf(subject, sizeof subject, "%s", to);
    }
    return publish_result;
}

static enum link_verdict on_judge(void *ctx, const struct node_address *from, struct view_number view)
{
    ck_assert(node_address_equal(from, &shard));
    judged = view;
    return verdict;
}

static void on_item(void *ctx, const struct node_address *from, const Signalbox__Cluster__V1__Item *item,
                    int64_t now_ms)
{
    ck_assert_int_eq(item->body_case, SIGNALBOX__CLUSTER__V1__ITEM__BODY_SESSION_ACK);
    items[item_count++] = item->session_ack->bind_generation;
}

static void on_gap(void *ctx, const struct node_address *from, int64_t now_ms)
{
    gaps++;
}

static struct view_number on_view(void *ctx)
{
    return (struct view_number){7, 8};
}

static void setup(void)
{
    static const struct link_handlers handlers = {
        .publish = on_publish, .judge = on_judge, .item = on_item, .gap = on_gap, .view = on_view};
    sender = links_new(&shard, &handlers, NULL);
    receiver = links_new(&gateway, &handlers, NULL);
    published_count = item_count = gaps = 0;
    publish_result = 0;
    verdict = LINK_ACCEPT;
}

static void drop_published(void)
{
    while (published_count > 0)
        payload_unref(&published[--published_count]);
}

static void teardown(void)
{
    drop_published();
    links_free(&sender);
    links_free(&receiver);
}

static void send(uint64_t number, int64_t now_ms)
{
    Signalbox__Cluster__V1__SessionAck ack = SIGNALBOX__CLUSTER__V1__SESSION_ACK__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    ack.bind_generation = number;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_SESSION_ACK;
    item.session_ack = &ack;
    links_send_item(sender, &gateway, &item, now_ms);
}

static void deliver(unsigned index, int64_t now_ms)
{
    links_receive(receiver, published[index]->data, published[index]->size, now_ms);
}

/* An item of its own envelope each, 1, 2, 3, ... */
static void send_apart(unsigned count)
{
    for (unsigned i = 1; i <= count; i++) {
        send(i, i * 100);
        links_flush(sender, i * 100);
    }
    ck_assert_uint_eq(published_count, count);
}

static uint64_t dropped(enum bus_drop reason)
{
    return metric_value_at(M_BUS_DROPPED, reason);
}

START_TEST(items_arrive_in_order_with_the_senders_view)
{
    send_apart(3);
    ck_assert_str_eq(subject, "sbx.gw.g1.0000000000000002.in");
    for (unsigned i = 0; i < 3; i++)
        deliver(i, 1000);
    ck_assert_uint_eq(item_count, 3);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_uint_eq(items[i], i + 1);
    ck_assert_uint_eq(gaps, 0);
    ck_assert_uint_eq(judged.generation, 7);
    ck_assert_uint_eq(judged.seq, 8);
}
END_TEST

START_TEST(a_gap_is_told_before_the_items_that_show_it)
{
    send_apart(3);
    deliver(0, 1000);
    deliver(2, 1000);
    ck_assert_uint_eq(gaps, 1);
    ck_assert_uint_eq(item_count, 2);
    ck_assert_uint_eq(items[1], 3);
    deliver(1, 1000); /* too late */
    ck_assert_uint_eq(item_count, 2);
    ck_assert_uint_eq(gaps, 1);
}
END_TEST

START_TEST(the_loss_of_the_very_first_is_a_gap)
{
    send_apart(2);
    deliver(1, 1000);
    ck_assert_uint_eq(gaps, 1);
}
END_TEST

START_TEST(duplicates_are_dropped_and_counted)
{
    uint64_t before = metric_value(M_LINK_DUPLICATES);

    send_apart(1);
    deliver(0, 1000);
    deliver(0, 1000);
    ck_assert_uint_eq(item_count, 1);
    ck_assert_uint_eq(metric_value(M_LINK_DUPLICATES), before + 1);
    ck_assert_uint_eq(gaps, 0);
}
END_TEST

START_TEST(an_idle_link_shows_the_loss_of_its_last_message)
{
    send_apart(2);
    deliver(0, 200);
    ck_assert_int_eq(links_flush(sender, 200 + LINK_IDLE_MS - 1), 1);
    ck_assert_uint_eq(published_count, 2);
    links_flush(sender, 200 + LINK_IDLE_MS);
    ck_assert_uint_eq(published_count, 3);
    deliver(2, 2000);
    ck_assert_uint_eq(gaps, 1);
    deliver(2, 2000); /* the same number again says nothing new */
    ck_assert_uint_eq(gaps, 1);
    ck_assert_uint_eq(item_count, 1);
}
END_TEST

START_TEST(an_unused_link_falls_silent)
{
    send_apart(1);
    ck_assert_int_eq(links_flush(sender, 100 + LINK_IN_USE_MS), -1);
    ck_assert_uint_eq(published_count, 1);
}
END_TEST

START_TEST(under_load_a_tick_gathers_items_in_one_envelope)
{
    send(1, 100);
    ck_assert_int_ge(links_flush(sender, 100), 0); /* quiet: at once */
    ck_assert_uint_eq(published_count, 1);
    send(2, 101);
    send(3, 101);
    ck_assert_int_eq(links_flush(sender, 101), 4);
    ck_assert_uint_eq(published_count, 1);
    ck_assert_uint_eq(links_pending_items(sender), 2);
    links_flush(sender, 105);
    ck_assert_uint_eq(published_count, 2);
    ck_assert_uint_eq(links_pending_items(sender), 0);
    deliver(0, 110);
    deliver(1, 110);
    ck_assert_uint_eq(item_count, 3);
}
END_TEST

START_TEST(where_processors_are_short_a_tick_is_longer)
{
    links_set_busy(sender, 250);
    send(1, 100);
    links_flush(sender, 100);
    send(2, 101);
    ck_assert_int_eq(links_flush(sender, 101), 9);
    links_set_busy(sender, 1000);
    links_flush(sender, 110);
    ck_assert_uint_eq(published_count, 2);
    send(3, 111);
    ck_assert_int_eq(links_flush(sender, 111), 14);
    links_set_busy(sender, 0);
    send(4, 200);
    links_flush(sender, 200); /* quiet: at once, however busy */
    ck_assert_uint_eq(published_count, 3);
    send(5, 201);
    ck_assert_int_eq(links_flush(sender, 201), 4);
}
END_TEST

START_TEST(an_envelope_that_the_bus_lost_is_a_gap)
{
    uint64_t before = metric_value(M_LINK_ENVELOPES_LOST);

    send(1, 100);
    publish_result = -1;
    links_flush(sender, 100);
    ck_assert_uint_eq(metric_value(M_LINK_ENVELOPES_LOST), before + 1);
    publish_result = 0;
    send(2, 200);
    links_flush(sender, 200);
    deliver(0, 300);
    ck_assert_uint_eq(gaps, 1);
    ck_assert_uint_eq(items[0], 2);
}
END_TEST

static struct payload *large_item(size_t size)
{
    struct payload *bytes = payload_new(size);
    Signalbox__Cluster__V1__RoomBatch batch = SIGNALBOX__CLUSTER__V1__ROOM_BATCH__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    memset(bytes->data, 'x', size);
    batch.message = (ProtobufCBinaryData){.len = size, .data = bytes->data};
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_ROOM_BATCH;
    item.room_batch = &batch;
    struct payload *packed = link_pack_item(&item);
    payload_unref(&bytes);
    return packed;
}

START_TEST(envelopes_and_queues_are_bounded)
{
    enum { SIZE = 100 * 1024 };
    struct payload *item = large_item(SIZE);
    uint64_t before = metric_value(M_LINK_ITEMS_DROPPED);
    unsigned fitting = LINK_PENDING_MAX / (SIZE + 64);

    for (unsigned i = 0; i < 5; i++)
        links_send(sender, &gateway, item, 100);
    links_flush(sender, 100);
    ck_assert_uint_eq(published_count, 3); /* 2, 2 and 1 */
    for (unsigned i = 0; i < published_count; i++)
        ck_assert_uint_le(published[i]->size, LINK_ENVELOPE_MAX);

    for (unsigned i = 0; i < fitting + 10; i++)
        links_send(sender, &gateway, item, 101);
    ck_assert_uint_ge(metric_value(M_LINK_ITEMS_DROPPED), before + 9);
    ck_assert_uint_le(links_pending_items(sender), fitting + 1);
    payload_unref(&item);
}
END_TEST

START_TEST(what_did_not_fit_shows_as_a_gap)
{
    struct payload *item = large_item(LINK_PENDING_MAX - 1024);
    struct payload *more = large_item(2048);

    links_send(sender, &gateway, item, 100);
    links_send(sender, &gateway, more, 100); /* dropped */
    links_flush(sender, 100);
    drop_published();
    send(2, 200);
    links_flush(sender, 200);
    send(3, 300);
    links_flush(sender, 300);
    deliver(0, 400); /* number 3: 1 was skipped, 2 not delivered */
    ck_assert_uint_eq(gaps, 1);
    deliver(1, 400);
    ck_assert_uint_eq(gaps, 1);
    ck_assert_uint_eq(item_count, 2);
    payload_unref(&item);
    payload_unref(&more);
}
END_TEST

START_TEST(strangers_are_refused)
{
    uint64_t before = dropped(BUS_DROP_STALE_SENDER);

    send_apart(1);
    verdict = LINK_REFUSE;
    deliver(0, 1000);
    ck_assert_uint_eq(item_count, 0);
    ck_assert_uint_eq(dropped(BUS_DROP_STALE_SENDER), before + 1);
}
END_TEST

START_TEST(messages_of_a_newer_view_wait_for_it)
{
    send_apart(2);
    verdict = LINK_HOLD;
    deliver(0, 1000);
    links_release(receiver, 1000);
    ck_assert_uint_eq(item_count, 0);
    verdict = LINK_ACCEPT;
    links_release(receiver, 1000);
    ck_assert_uint_eq(item_count, 1);
    deliver(1, 1000);
    ck_assert_uint_eq(item_count, 2);
    ck_assert_uint_eq(gaps, 0);
}
END_TEST

/* They overtook the held ones, which were then taken for duplicates. */
START_TEST(what_comes_after_a_held_message_waits_behind_it)
{
    send_apart(2);
    verdict = LINK_HOLD;
    deliver(0, 1000);
    verdict = LINK_ACCEPT; /* the view is there, the release not yet run */
    deliver(1, 1000);
    ck_assert_uint_eq(item_count, 0);
    links_release(receiver, 1000);
    ck_assert_uint_eq(item_count, 2);
    ck_assert_uint_eq(items[0], 1);
    ck_assert_uint_eq(gaps, 0);
}
END_TEST

START_TEST(what_is_held_is_bounded)
{
    uint64_t before = dropped(BUS_DROP_HELD_FULL);
    struct payload *item = large_item(200 * 1024);

    links_send(sender, &gateway, item, 100);
    links_flush(sender, 100);
    verdict = LINK_HOLD;
    for (unsigned i = 0; i <= LINK_HELD_MAX / item->size; i++)
        deliver(0, 100);
    ck_assert_uint_ge(dropped(BUS_DROP_HELD_FULL), before + 1);
    payload_unref(&item);
}
END_TEST

/* A gateway comes back into the view as the same incarnation, and counted on while the shard began again at 1: all that
 * the shard sent was taken for duplicates. */
START_TEST(a_forgotten_peer_that_comes_back_goes_on_counting)
{
    send_apart(2);
    deliver(0, 1000);
    deliver(1, 1000);
    send(9, 1000); /* waits, and is dropped with the peer */
    links_forget(sender, gateway.incarnation, 1000);
    ck_assert_uint_eq(links_pending_items(sender), 0);
    drop_published();
    ck_assert_int_eq(links_flush(sender, 2000), -1);
    send(3, 3000);
    links_flush(sender, 3000);
    deliver(0, 3000);
    ck_assert_uint_eq(item_count, 3);
    ck_assert_uint_eq(items[2], 3);
    ck_assert_uint_eq(gaps, 1); /* for what was dropped */
}
END_TEST

START_TEST(a_peer_that_stays_away_is_forgotten_for_good)
{
    send_apart(2);
    links_forget(sender, gateway.incarnation, 1000);
    links_flush(sender, 1000 + LINK_FORGET_MS);
    drop_published();
    send(1, 2000 + LINK_FORGET_MS);
    links_flush(sender, 2000 + LINK_FORGET_MS);
    deliver(0, 2000 + LINK_FORGET_MS);
    ck_assert_uint_eq(gaps, 0); /* number 1 */
}
END_TEST

static void deliver_envelope(const Signalbox__Cluster__V1__Envelope *envelope)
{
    struct payload *packed = payload_pack(&envelope->base);
    links_receive(receiver, packed->data, packed->size, 1000);
    payload_unref(&packed);
}

START_TEST(unreadable_messages_are_counted_and_dropped)
{
    Signalbox__Cluster__V1__Envelope envelope = SIGNALBOX__CLUSTER__V1__ENVELOPE__INIT;
    uint64_t malformed = dropped(BUS_DROP_MALFORMED), schema = dropped(BUS_DROP_SCHEMA);

    links_receive(receiver, "\xff\xff\xff", 3, 1000);
    ck_assert_uint_eq(dropped(BUS_DROP_MALFORMED), malformed + 1);

    envelope.sender = (char *)"s1";
    envelope.incarnation = 1;
    envelope.kind = SIGNALBOX__CLUSTER__V1__NODE_KIND__SHARD;
    envelope.link_seq = 1;
    envelope.schema_version = LINK_SCHEMA_VERSION + 2;
    deliver_envelope(&envelope);
    ck_assert_uint_eq(dropped(BUS_DROP_SCHEMA), schema + 1);

    envelope.schema_version = LINK_SCHEMA_VERSION;
    envelope.sender = (char *)"not an id";
    deliver_envelope(&envelope);
    envelope.sender = (char *)"s1";
    envelope.kind = SIGNALBOX__CLUSTER__V1__NODE_KIND__TOOL;
    deliver_envelope(&envelope);
    ck_assert_uint_eq(dropped(BUS_DROP_MALFORMED), malformed + 3);
    ck_assert_uint_eq(item_count + gaps, 0);

    envelope.kind = SIGNALBOX__CLUSTER__V1__NODE_KIND__SHARD;
    envelope.schema_version = LINK_SCHEMA_VERSION + 1; /* the next version is readable */
    deliver_envelope(&envelope);
    ck_assert_uint_eq(dropped(BUS_DROP_SCHEMA), schema + 1);
    ck_assert_uint_eq(dropped(BUS_DROP_MALFORMED), malformed + 3);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("link");
    TCase *tcase = tcase_create("link");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, items_arrive_in_order_with_the_senders_view);
    tcase_add_test(tcase, a_gap_is_told_before_the_items_that_show_it);
    tcase_add_test(tcase, the_loss_of_the_very_first_is_a_gap);
    tcase_add_test(tcase, duplicates_are_dropped_and_counted);
    tcase_add_test(tcase, an_idle_link_shows_the_loss_of_its_last_message);
    tcase_add_test(tcase, an_unused_link_falls_silent);
    tcase_add_test(tcase, under_load_a_tick_gathers_items_in_one_envelope);
    tcase_add_test(tcase, where_processors_are_short_a_tick_is_longer);
    tcase_add_test(tcase, an_envelope_that_the_bus_lost_is_a_gap);
    tcase_add_test(tcase, envelopes_and_queues_are_bounded);
    tcase_add_test(tcase, what_did_not_fit_shows_as_a_gap);
    tcase_add_test(tcase, strangers_are_refused);
    tcase_add_test(tcase, messages_of_a_newer_view_wait_for_it);
    tcase_add_test(tcase, what_comes_after_a_held_message_waits_behind_it);
    tcase_add_test(tcase, what_is_held_is_bounded);
    tcase_add_test(tcase, a_forgotten_peer_that_comes_back_goes_on_counting);
    tcase_add_test(tcase, a_peer_that_stays_away_is_forgotten_for_good);
    tcase_add_test(tcase, unreadable_messages_are_counted_and_dropped);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
