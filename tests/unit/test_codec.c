#include "common/codec.h"

#include "protojson_test.pb-c.h"
#include <check.h>
#include <string.h>

#define EVERYTHING (&signalbox__test__everything__descriptor)

static struct arena arena;
static char error[256];

static void setup(void)
{
    arena_init(&arena, 1 << 20);
    error[0] = '\0';
}

static void teardown(void)
{
    arena_done(&arena);
}

static const Signalbox__Test__Everything *unpack(const void *data, size_t size)
{
    return (const Signalbox__Test__Everything *)codec_unpack(EVERYTHING, data, size, &arena, error, sizeof(error));
}

static void assert_refused(const void *data, size_t size, const char *why)
{
    ck_assert_ptr_null(unpack(data, size));
    ck_assert_str_eq(error, why);
}

/* Wraps what is in `data` into a length-prefixed field; returns the new size. */
static size_t wrap(uint8_t *data, size_t size, uint32_t field)
{
    uint8_t head[8];
    size_t head_size = 0;
    for (uint32_t tag = field << 3 | 2; head_size == 0 || tag; tag >>= 7)
        head[head_size++] = (tag & 0x7f) | (tag > 0x7f ? 0x80 : 0);
    size_t rest = size;
    do {
        head[head_size++] = (rest & 0x7f) | (rest > 0x7f ? 0x80 : 0);
        rest >>= 7;
    } while (rest);
    memmove(data + head_size, data, size);
    memcpy(data, head, head_size);
    return size + head_size;
}

START_TEST(test_unpacks_what_was_packed)
{
    Signalbox__Test__Nested nested = SIGNALBOX__TEST__NESTED__INIT;
    Signalbox__Test__Everything message = SIGNALBOX__TEST__EVERYTHING__INIT;
    uint8_t data[128];
    nested.text = (char *)"gr\xc3\xbc\xc3\x9f";
    message.nested = &nested;
    message.a_uint64 = UINT64_MAX;
    size_t size = signalbox__test__everything__pack(&message, data);
    const Signalbox__Test__Everything *back = unpack(data, size);
    ck_assert_ptr_nonnull(back);
    ck_assert_str_eq(back->nested->text, nested.text);
    ck_assert_uint_eq(back->a_uint64, UINT64_MAX);
}
END_TEST

START_TEST(test_empty_is_the_default_message)
{
    const Signalbox__Test__Everything *back = unpack(NULL, 0);
    ck_assert_ptr_nonnull(back);
    ck_assert_str_eq(back->a_string, "");
}
END_TEST

START_TEST(test_refuses_bad_strings_wherever_they_are)
{
    uint8_t data[64] = "\x72\x02\xc3\x28";
    assert_refused(data, 4, "Everything.a_string: not UTF-8");
    assert_refused("\x72\x03"
                   "a\0b",
                   5, "Everything.a_string: contains a NUL");
    assert_refused("\xca\x01\x01"
                   "a\xca\x01\x01\xff",
                   8, "Everything.string_list: not UTF-8");
    assert_refused("\xf2\x01\x02\xed\xa0", 5, "Everything.chosen_string: not UTF-8");
    memcpy(data, "\x0a\x01\xff", 3);
    assert_refused(data, wrap(data, 3, 17), "Nested.text: not UTF-8");
    memcpy(data, "\x0a\x01\xff\x12\x01x", 6);
    assert_refused(data, wrap(data, 6, 40), "StringMapEntry.key: not UTF-8");
}
END_TEST

/* The check goes through ASCII in steps of eight. */
START_TEST(test_finds_a_bad_byte_at_every_place)
{
    static const char bad[] = {'\0', '\x80', '\xff', '\xc3'};
    for (size_t length = 1; length <= 40; length++) {
        for (size_t at = 0; at < length; at++) {
            for (size_t i = 0; i < sizeof(bad); i++) {
                uint8_t data[64] = {0x72, (uint8_t)length};
                arena_reset(&arena);
                memset(data + 2, 'a' + (int)i, length);
                ck_assert_ptr_nonnull(unpack(data, 2 + length));
                data[2 + at] = (uint8_t)bad[i];
                ck_assert_ptr_null(unpack(data, 2 + length));
            }
        }
    }
}
END_TEST

START_TEST(test_bytes_and_unknown_fields_may_hold_anything)
{
    const Signalbox__Test__Everything *back = unpack("\x7a\x02\x00\xff", 4);
    ck_assert_ptr_nonnull(back);
    ck_assert_uint_eq(back->a_bytes.len, 2);
    back = unpack("\xa2\x1f\x02\x00\xff", 5); /* field 500 */
    ck_assert_ptr_nonnull(back);
    ck_assert_uint_eq(back->base.n_unknown_fields, 1);
}
END_TEST

START_TEST(test_nesting_is_bounded)
{
    static uint8_t data[1 << 17];
    size_t size = 0;
    for (int depth = 2; depth < CODEC_DEPTH_MAX; depth++)
        size = wrap(data, size, 2);
    ck_assert_ptr_nonnull(unpack(data, wrap(data, size, 17)));

    size = 0;
    for (int depth = 1; depth < CODEC_DEPTH_MAX; depth++)
        size = wrap(data, size, 2);
    assert_refused(data, wrap(data, size, 17), "Nested.deeper: nested too deeply");

    size = 0;
    while (size < 65536)
        size = wrap(data, size, 2);
    assert_refused(data, wrap(data, size, 17), "Nested.deeper: nested too deeply");
}
END_TEST

START_TEST(test_refuses_a_repeated_singular_message)
{
    assert_refused("\x8a\x01\x00\x8a\x01\x00", 6, "Everything.nested: occurs twice");
    assert_refused("\x82\x02\x00\x82\x02\x00", 6, "Everything.chosen_nested: occurs twice");
    /* Scalars and members of a oneof: the last one counts. */
    const Signalbox__Test__Everything *back = unpack("\x08\x01\x08\x02\x82\x02\x00\xf2\x01\x01x", 11);
    ck_assert_ptr_nonnull(back);
    ck_assert_int_eq(back->an_int32, 2);
    ck_assert_int_eq(back->choice_case, SIGNALBOX__TEST__EVERYTHING__CHOICE_CHOSEN_STRING);
    ck_assert_str_eq(back->chosen_string, "x");
}
END_TEST

START_TEST(test_refuses_malformed_wire)
{
    static const struct {
        const char *data;
        size_t size;
        const char *why;
    } cases[] = {
        {"\x00\x01", 2, "Everything: malformed protobuf: bad field number"},
        {"\x80\x80\x80\x80\x80\x01", 6, "Everything: malformed protobuf: bad field number"},
        {"\xf8\xff\xff\xff\x7f\x01", 6, "Everything: malformed protobuf: bad field number"},
        {"\x80", 1, "Everything: malformed protobuf: bad field number"},
        {"\x08", 1, "Everything.an_int32: malformed protobuf: cut short, or a group"},
        {"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 12,
         "Everything.an_int32: malformed protobuf: cut short, or a group"},
        {"\x72\x05hi", 4, "Everything.a_string: malformed protobuf: cut short, or a group"},
        {"\x72\xff\xff\xff\xff\x7f", 6, "Everything.a_string: malformed protobuf: cut short, or a group"},
        {"\x3d\x01\x02\x03", 4, "Everything.a_fixed32: malformed protobuf: cut short, or a group"},
        {"\x41\x01\x02\x03\x04\x05\x06\x07", 8, "Everything.a_fixed64: malformed protobuf: cut short, or a group"},
        {"\x0b\x0c", 2, "Everything.an_int32: malformed protobuf: cut short, or a group"},
        {"\x70\x01", 2, "Everything: a field of the wrong type, or too large when unpacked"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_refused(cases[i].data, cases[i].size, cases[i].why);
}
END_TEST

/* Two bytes on the wire each, a hundred in memory. */
START_TEST(test_amplification_ends_at_the_arena_limit)
{
    static uint8_t data[65536];
    for (size_t i = 0; i + 3 <= sizeof(data); i += 3)
        memcpy(data + i, "\xe2\x01\x00", 3); /* nested_list */
    size_t size = sizeof(data) / 3 * 3;
    assert_refused(data, size, "Everything: a field of the wrong type, or too large when unpacked");
    ck_assert_uint_le(arena.used_bytes, 1 << 20);

    struct arena large;
    arena_init(&large, 16 << 20);
    ck_assert_ptr_nonnull(codec_unpack(EVERYTHING, data, size, &large, error, sizeof(error)));
    arena_done(&large);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("codec");
    TCase *tcase = tcase_create("codec");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_unpacks_what_was_packed);
    tcase_add_test(tcase, test_empty_is_the_default_message);
    tcase_add_test(tcase, test_refuses_bad_strings_wherever_they_are);
    tcase_add_test(tcase, test_finds_a_bad_byte_at_every_place);
    tcase_add_test(tcase, test_bytes_and_unknown_fields_may_hold_anything);
    tcase_add_test(tcase, test_nesting_is_bounded);
    tcase_add_test(tcase, test_refuses_a_repeated_singular_message);
    tcase_add_test(tcase, test_refuses_malformed_wire);
    tcase_add_test(tcase, test_amplification_ends_at_the_arena_limit);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
