#include "common/payload.h"

#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

START_TEST(copies_bytes)
{
    struct payload *payload = payload_from("a\0b", 3);
    ck_assert_uint_eq(payload->size, 3);
    ck_assert_mem_eq(payload->data, "a\0b", 3);
    payload_unref(&payload);
    ck_assert_ptr_null(payload);
    payload_unref(&payload);

    payload = payload_from(NULL, 0);
    ck_assert_uint_eq(payload->size, 0);
    payload_unref(&payload);
}
END_TEST

START_TEST(lives_until_the_last_reference)
{
    struct payload *first = payload_from("shared", 6);
    struct payload *second = payload_ref(first);
    ck_assert_ptr_eq(first, second);
    payload_unref(&first);
    ck_assert_mem_eq(second->data, "shared", 6);
    payload_unref(&second);
}
END_TEST

/* A message type without fields, whose content is one unknown field: what packing does with it needs no schema. */
START_TEST(packs_a_message)
{
    static const ProtobufCMessageDescriptor empty_type = {
        .magic = PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,
        .name = "Empty",
        .sizeof_message = sizeof(ProtobufCMessage),
    };
    ProtobufCMessage message = {.descriptor = &empty_type};
    struct payload *payload = payload_pack(&message);
    ck_assert_uint_eq(payload->size, 0);
    payload_unref(&payload);

    uint8_t hi[] = "\2hi";
    ProtobufCMessageUnknownField field = {
        .tag = 1, .wire_type = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, .len = 3, .data = hi};
    message.n_unknown_fields = 1;
    message.unknown_fields = &field;
    payload = payload_pack(&message);
    ck_assert_uint_eq(payload->size, 4);
    ck_assert_mem_eq(payload->data, "\x0a\2hi", 4);
    payload_unref(&payload);
}
END_TEST

static void *use_references(void *arg)
{
    struct payload *own = arg;
    for (int i = 0; i < 20000; i++) {
        struct payload *more = payload_ref(own);
        payload_unref(&more);
    }
    payload_unref(&own);
    return NULL;
}

START_TEST(threads_share_it)
{
    struct payload *payload = payload_from("x", 1);
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, use_references, payload_ref(payload)), 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(payload->refs, 1);
    payload_unref(&payload);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("payload");
    TCase *tcase = tcase_create("payload");
    tcase_add_test(tcase, copies_bytes);
    tcase_add_test(tcase, lives_until_the_last_reference);
    tcase_add_test(tcase, packs_a_message);
    tcase_add_test(tcase, threads_share_it);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
