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
    tcase_add_test(tcase, wraps_and_grows);
    tcase_add_test(tcase, oldest_ephemeral_gives_way);
    tcase_add_test(tcase, ephemeral_gives_way_to_everything);
    tcase_add_test(tcase, membership_beyond_its_share_goes_as_a_whole);
    tcase_add_test(tcase, membership_gives_way_to_negotiation);
    tcase_add_test(tcase, full_of_what_must_not_drop_is_slow);
    tcase_add_test(tcase, larger_than_a_limit_passes_alone);
    tcase_add_test(tcase, messages_are_shared);
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
