#include "gateway/outqueue.h"

#include "common/metrics.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>

/* A message of N bytes makes a frame of N + 2, as long as N is below 126. */
enum { BODY = 98, FRAME = 100 };

static const struct outqueue_limits limits = {
    .total_bytes = 10 * FRAME, .membership_bytes = 5 * FRAME, .ephemeral_bytes = 3 * FRAME};
static struct outqueue queue;
static struct outqueue_drops drops;

static struct outmsg *make(char tag, size_t size)
{
    char body[4096];
    memset(body, tag, size);
    return outmsg_from_bytes(body, size);
}

static enum outqueue_result push_sized(char tag, enum message_class class, size_t size)
{
    struct outmsg *message = make(tag, size);
    enum outqueue_result result = outqueue_push(&queue, &limits, ENCODING_PROTOBUF, message, class, &drops);
    outmsg_unref(&message);
    return result;
}

static enum outqueue_result push(char tag, enum message_class class)
{
    return push_sized(tag, class, BODY);
}

static void push_all(const char *tags, enum message_class class)
{
    for (; *tags != '\0'; tags++)
        ck_assert_int_eq(push(*tags, class), OUTQUEUE_OK);
}

/* The tags of what is left, in the order in which it leaves. */
static const char *drain(void)
{
    static char tags[64];
    size_t count = 0;
    for (struct outmsg *message; (message = outqueue_pop(&queue, ENCODING_PROTOBUF)) != NULL; outmsg_unref(&message))
        tags[count++] = (char)outmsg_bytes(message)->data[0];
    tags[count] = '\0';
    ck_assert(outqueue_empty(&queue));
    ck_assert_uint_eq(queue.bytes + queue.membership_bytes + queue.ephemeral_bytes, 0);
    ck_assert_ptr_null(queue.ordered.slots);
    ck_assert_ptr_null(queue.ephemeral.slots);
    return tags;
}

static void setup(void)
{
    queue = (struct outqueue){0};
    drops = (struct outqueue_drops){0};
}

static void teardown(void)
{
    outqueue_clear(&queue);
    ck_assert_uint_eq(outqueue_count(&queue), 0);
}

START_TEST(arrival_order_but_ephemeral_last)
{
    push_all("a", CLASS_MEMBERSHIP);
    push_all("b", CLASS_EPHEMERAL);
    push_all("c", CLASS_CANDIDATES);
    push_all("d", CLASS_CONTROL);
    push_all("e", CLASS_EPHEMERAL);
    push_all("f", CLASS_NEGOTIATION);
    ck_assert_uint_eq(outqueue_count(&queue), 6);
    ck_assert_uint_eq(queue.bytes, 6 * FRAME);
    ck_assert_str_eq(drain(), "acdfbe");
    ck_assert_uint_eq(drops.membership + drops.ephemeral, 0);
}
END_TEST

START_TEST(one_message_needs_no_memory_of_its_own)
{
    for (int i = 0; i < 3; i++) {
        push_all("a", CLASS_CONTROL);
        push_all("b", CLASS_EPHEMERAL);
        ck_assert_uint_eq(queue.ordered.capacity + queue.ephemeral.capacity, 0);
        ck_assert_str_eq(drain(), "ab");
    }
    push_all("abc", CLASS_CONTROL);
    ck_assert_uint_ge(queue.ordered.capacity, 3);
    ck_assert_str_eq(drain(), "abc");
    ck_assert_uint_eq(queue.ordered.capacity, 0);
}
END_TEST

START_TEST(wraps_and_grows)
{
    char expected[] = "abcdefg";
    push_all("xyz", CLASS_CONTROL);
    for (int i = 0; i < 3; i++) {
        struct outmsg *message = outqueue_pop(&queue, ENCODING_PROTOBUF);
        ck_assert_ptr_nonnull(message);
        outmsg_unref(&message);
        push_all((char[]){expected[i], '\0'}, CLASS_CONTROL);
    }
    push_all("defg", CLASS_CONTROL);
    ck_assert_str_eq(drain(), expected);
}
END_TEST

START_TEST(oldest_ephemeral_gives_way)
{
    push_all("abcde", CLASS_EPHEMERAL);
    ck_assert_uint_eq(drops.ephemeral, 2);
    ck_assert_str_eq(drain(), "cde");
}
END_TEST

START_TEST(ephemeral_gives_way_to_everything)
{
    push_all("abc", CLASS_EPHEMERAL);
    push_all("ABCDEFGH", CLASS_CONTROL);
    ck_assert_uint_eq(drops.ephemeral, 1);
    push_all("IJ", CLASS_NEGOTIATION);
    ck_assert_uint_eq(drops.ephemeral, 3);
    /* And never the other way round. */
    push_all("d", CLASS_EPHEMERAL);
    ck_assert_uint_eq(drops.ephemeral, 4);
    ck_assert_str_eq(drain(), "ABCDEFGHIJ");
}
END_TEST

START_TEST(membership_beyond_its_share_goes_as_a_whole)
{
    push_all("abcde", CLASS_MEMBERSHIP);
    push_all("X", CLASS_NEGOTIATION);
    ck_assert_uint_eq(drops.membership, 0);
    push_all("f", CLASS_MEMBERSHIP);
    ck_assert_uint_eq(drops.membership, 6);
    /* The snapshot that takes its place goes through. */
    push_all("S", CLASS_MEMBERSHIP);
    ck_assert_str_eq(drain(), "XS");
}
END_TEST

START_TEST(membership_gives_way_to_negotiation)
{
    push_all("abcd", CLASS_MEMBERSHIP);
    push_all("ABCDEF", CLASS_CANDIDATES);
    ck_assert_uint_eq(drops.membership, 0);
    push_all("G", CLASS_NEGOTIATION);
    ck_assert_uint_eq(drops.membership, 4);
    ck_assert_str_eq(drain(), "ABCDEFG");
}
END_TEST

START_TEST(full_of_what_must_not_drop_is_slow)
{
    push_all("ABCDEFGHIJ", CLASS_NEGOTIATION);
    ck_assert_int_eq(push('K', CLASS_CONTROL), OUTQUEUE_SLOW);
    ck_assert_uint_eq(outqueue_count(&queue), 10);
    ck_assert_str_eq(drain(), "ABCDEFGHIJ");
}
END_TEST

START_TEST(larger_than_a_limit_passes_alone)
{
    ck_assert_int_eq(push_sized('S', CLASS_MEMBERSHIP, 2000), OUTQUEUE_OK);
    ck_assert_uint_eq(drops.membership, 0);
    ck_assert_str_eq(drain(), "S");
    ck_assert_int_eq(push_sized('H', CLASS_CONTROL, 2000), OUTQUEUE_OK);
    ck_assert_int_eq(push('I', CLASS_CONTROL), OUTQUEUE_SLOW);
    ck_assert_str_eq(drain(), "H");
}
END_TEST

START_TEST(messages_are_shared)
{
    struct outqueue other = {0};
    struct outmsg *message = make('m', BODY);
    struct payload *frame = outmsg_frame(message, ENCODING_PROTOBUF);
    outqueue_push(&queue, &limits, ENCODING_PROTOBUF, message, CLASS_MEMBERSHIP, &drops);
    outqueue_push(&other, &limits, ENCODING_PROTOBUF, message, CLASS_MEMBERSHIP, &drops);
    outmsg_unref(&message);
    outqueue_clear(&queue);
    message = outqueue_pop(&other, ENCODING_PROTOBUF);
    ck_assert_ptr_eq(outmsg_frame(message, ENCODING_PROTOBUF), frame);
    outmsg_unref(&message);
}
END_TEST

/* One signal for each letter of `keys`, whose text is `value`. */
static struct outmsg *make_signals(const char *keys, const char *value)
{
    enum { SIGNALS_MAX = 8 };
    Signalbox__V1__ServerMessage server = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Signals signals = SIGNALBOX__V1__SIGNALS__INIT;
    Signalbox__V1__Signal entries[SIGNALS_MAX], *list[SIGNALS_MAX];
    char names[SIGNALS_MAX][2] = {{0}};
    for (size_t i = 0; keys[i] != '\0'; i++) {
        signalbox__v1__signal__init(&entries[i]);
        names[i][0] = keys[i];
        entries[i].from = (char *)(i % 2 == 0 ? "ann" : "bob");
        entries[i].key = names[i];
        entries[i].data_case = SIGNALBOX__V1__SIGNAL__DATA_TEXT;
        entries[i].text = (char *)value;
        list[i] = &entries[i];
    }
    signals.n_signals = strlen(keys);
    signals.signals = list;
    server.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_SIGNALS;
    server.signals = &signals;
    return outmsg_pack(&server);
}

static void push_signals(struct outqueue *to, struct outmsg *take_message)
{
    ck_assert_int_eq(outqueue_push(to, &limits, ENCODING_PROTOBUF, take_message, CLASS_EPHEMERAL, &drops), OUTQUEUE_OK);
    outmsg_unref(&take_message);
}

/* Takes the next message and expects these signals in it, as "key=text " each. */
static void expect_signals(struct outqueue *from, const char *expected)
{
    char text[256] = "";
    struct outmsg *message = outqueue_pop(from, ENCODING_PROTOBUF);
    ck_assert_ptr_nonnull(message);
    const struct payload *bytes = outmsg_bytes(message);
    Signalbox__V1__ServerMessage *server = signalbox__v1__server_message__unpack(NULL, bytes->size, bytes->data);
    for (size_t i = 0; i < server->signals->n_signals; i++) {
        const Signalbox__V1__Signal *signal = server->signals->signals[i];
        strcat(strcat(strcat(strcat(text, signal->key), "="), signal->text), " ");
    }
    ck_assert_str_eq(text, expected);
    signalbox__v1__server_message__free_unpacked(server, NULL);
    outmsg_unref(&message);
}

START_TEST(signals_that_wait_are_overtaken)
{
    uint64_t before = metric_value(M_SIGNALS_COALESCED);
    push_signals(&queue, make_signals("axby", "1"));
    push_signals(&queue, make_signals("ax", "2"));
    push_signals(&queue, make_signals("a", "3"));
    ck_assert_uint_eq(metric_value(M_SIGNALS_COALESCED), before + 3);
    /* Nothing in common: both wait. */
    push_signals(&queue, make_signals("c", "4"));
    ck_assert_uint_eq(outqueue_count(&queue), 2);
    push_signals(&queue, make_signals("c", "5"));
    ck_assert_uint_eq(outqueue_count(&queue), 2);
    push_all("m", CLASS_MEMBERSHIP);
    ck_assert_uint_eq(drops.ephemeral, 0);
    struct outmsg *membership = outqueue_pop(&queue, ENCODING_PROTOBUF);
    outmsg_unref(&membership);
    expect_signals(&queue, "b=1 y=1 x=2 a=3 ");
    expect_signals(&queue, "c=5 ");
    ck_assert_str_eq(drain(), "");
}
END_TEST

START_TEST(of_one_key_two_senders_both_stay)
{
    push_signals(&queue, make_signals("aa", "1"));
    push_signals(&queue, make_signals("a", "2"));
    expect_signals(&queue, "a=1 a=2 ");
}
END_TEST

START_TEST(what_overtakes_is_shared_by_all_who_are_behind)
{
    struct outqueue other = {0};
    for (int i = 0; i < 3; i++) {
        struct outmsg *message = make_signals(i % 2 == 0 ? "ab" : "a", "x");
        push_signals(&other, outmsg_ref(message));
        push_signals(&queue, message);
    }
    struct outmsg *message = outqueue_pop(&queue, ENCODING_PROTOBUF), *same = outqueue_pop(&other, ENCODING_PROTOBUF);
    ck_assert_ptr_eq(message, same);
    outmsg_unref(&message);
    outmsg_unref(&same);
    ck_assert(outqueue_empty(&queue) && outqueue_empty(&other));
}
END_TEST

START_TEST(more_receivers_behind_by_different_messages_than_are_remembered)
{
    enum { QUEUES = 20 };
    struct outqueue queues[QUEUES] = {0};
    for (int i = 0; i < QUEUES; i++)
        push_signals(&queues[i], make_signals("ab", "1"));
    struct outmsg *message = make_signals("a", "2");
    for (int i = 0; i < QUEUES; i++)
        push_signals(&queues[i], outmsg_ref(message));
    outmsg_unref(&message);
    for (int i = 0; i < QUEUES; i++) {
        expect_signals(&queues[i], "b=1 a=2 ");
        ck_assert(outqueue_empty(&queues[i]));
    }
}
END_TEST

static void check_frame(const struct payload *frame, uint8_t first_byte, const void *body, size_t size)
{
    ck_assert_ptr_nonnull(frame);
    ck_assert_uint_eq(frame->size, size + 2);
    ck_assert_uint_eq(frame->data[0], first_byte);
    ck_assert_uint_eq(frame->data[1], size);
    ck_assert_mem_eq(frame->data + 2, body, size);
}

START_TEST(frames_in_both_encodings)
{
    Signalbox__V1__Pong pong = SIGNALBOX__V1__PONG__INIT;
    Signalbox__V1__ServerMessage server = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    server.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_PONG;
    server.pong = &pong;
    struct outmsg *message = outmsg_pack(&server);
    const struct payload *bytes = outmsg_bytes(message);
    check_frame(outmsg_frame(message, ENCODING_PROTOBUF), 0x82, bytes->data, bytes->size);
    check_frame(outmsg_frame(message, ENCODING_JSON), 0x81, "{\"pong\":{}}", 11);
    ck_assert_ptr_eq(outmsg_frame(message, ENCODING_JSON), outmsg_frame(message, ENCODING_JSON));
    outmsg_unref(&message);
}
END_TEST

START_TEST(unreadable_bytes_have_no_json_frame)
{
    struct outmsg *message = outmsg_from_bytes("\xff\xff", 2);
    uint64_t before = metric_value(M_MESSAGES_NOT_CONVERTED);
    ck_assert_ptr_null(outmsg_frame(message, ENCODING_JSON));
    ck_assert_ptr_null(outmsg_frame(message, ENCODING_JSON));
    ck_assert_uint_eq(metric_value(M_MESSAGES_NOT_CONVERTED), before + 1);
    ck_assert_ptr_nonnull(outmsg_frame(message, ENCODING_PROTOBUF));
    outmsg_unref(&message);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("outqueue");
    TCase *tcase = tcase_create("queue");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, arrival_order_but_ephemeral_last);
    tcase_add_test(tcase, one_message_needs_no_memory_of_its_own);
    tcase_add_test(tcase, wraps_and_grows);
    tcase_add_test(tcase, oldest_ephemeral_gives_way);
    tcase_add_test(tcase, ephemeral_gives_way_to_everything);
    tcase_add_test(tcase, membership_beyond_its_share_goes_as_a_whole);
    tcase_add_test(tcase, membership_gives_way_to_negotiation);
    tcase_add_test(tcase, full_of_what_must_not_drop_is_slow);
    tcase_add_test(tcase, larger_than_a_limit_passes_alone);
    tcase_add_test(tcase, messages_are_shared);
    tcase_add_test(tcase, signals_that_wait_are_overtaken);
    tcase_add_test(tcase, of_one_key_two_senders_both_stay);
    tcase_add_test(tcase, what_overtakes_is_shared_by_all_who_are_behind);
    tcase_add_test(tcase, more_receivers_behind_by_different_messages_than_are_remembered);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("outmsg");
    tcase_add_test(tcase, frames_in_both_encodings);
    tcase_add_test(tcase, unreadable_bytes_have_no_json_frame);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
