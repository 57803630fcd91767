#include "common/protojson.h"

#include "common/codec.h"
#include "protojson_test.pb-c.h"
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVERYTHING (&signalbox__test__everything__descriptor)

static struct arena arena;
static struct buf out;
static char error[256];

static void setup(void)
{
    arena_init(&arena, 1 << 20);
}

static void teardown(void)
{
    arena_done(&arena);
    buf_done(&out);
}

static const Signalbox__Test__Everything *read_size(const char *text, size_t size)
{
    error[0] = '\0';
    return (const Signalbox__Test__Everything *)protojson_read(EVERYTHING, text, size, &arena, error, sizeof(error));
}

static const Signalbox__Test__Everything *read_ok(const char *text)
{
    const Signalbox__Test__Everything *message = read_size(text, strlen(text));
    ck_assert_msg(message != NULL, "%s: %s", text, error);
    return message;
}

static void assert_refused(const char *text, const char *why)
{
    ck_assert_msg(read_size(text, strlen(text)) == NULL, "accepted: %s", text);
    ck_assert_str_eq(error, why);
}

static const char *write_out(const void *message)
{
    buf_reset(&out);
    protojson_write(&out, message);
    return buf_str(&out);
}

/* 1 and 1.0 are the same number; json_equal() says otherwise. */
static bool same_json(const json_t *a, const json_t *b)
{
    const char *key;
    json_t *value;
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    if (json_typeof(a) != json_typeof(b))
        return false;
    if (json_is_object(a)) {
        json_object_foreach((json_t *)a, key, value)
        {
            const json_t *other = json_object_get(b, key);
            if (!other || !same_json(value, other))
                return false;
        }
        return json_object_size(a) == json_object_size(b);
    }
    if (json_is_array(a)) {
        for (size_t i = 0; i < json_array_size(a); i++) {
            if (i >= json_array_size(b) || !same_json(json_array_get(a, i), json_array_get(b, i)))
                return false;
        }
        return json_array_size(a) == json_array_size(b);
    }
    return json_equal(a, b);
}

static size_t from_hex(const char *hex, uint8_t *data, size_t room)
{
    size_t size = 0;
    unsigned byte;
    for (; *hex != '-' && sscanf(hex, "%2x", &byte) == 1; hex += 2) {
        ck_assert_uint_lt(size, room);
        data[size++] = (uint8_t)byte;
    }
    return size;
}

static void check_written(const void *message, const char *canonical)
{
    json_t *expected = json_loads(canonical, 0, NULL);
    json_t *written = json_loads(write_out(message), JSON_REJECT_DUPLICATES, NULL);
    ck_assert_ptr_nonnull(expected);
    ck_assert_msg(written && same_json(written, expected), "wrote    %s\nexpected %s", buf_str(&out), canonical);
    json_decref(expected);
    json_decref(written);
}

/* As protobuf-c packs them: the oracle's own bytes differ in legitimate ways (defaults within map entries). */
static void check_same_binary(const void *a, const void *b, const char *text)
{
    static uint8_t data_a[8192], data_b[8192];
    size_t size = protobuf_c_message_get_packed_size(a);
    ck_assert_uint_le(size, sizeof(data_a));
    ck_assert_msg(protobuf_c_message_get_packed_size(b) == size, "%s", text);
    protobuf_c_message_pack(a, data_a);
    protobuf_c_message_pack(b, data_b);
    ck_assert_msg(memcmp(data_a, data_b, size) == 0, "%s", text);
}

START_TEST(test_agrees_with_protobufs_own_implementation)
{
    FILE *file = fopen(SBX_TEST_SOURCE_DIR "/vectors/protojson.txt", "r");
    char *line = NULL;
    size_t room = 0;
    unsigned count = 0;
    ssize_t size;
    ck_assert_ptr_nonnull(file);
    while ((size = getline(&line, &room, file)) > 0) {
        uint8_t data[4096];
        if (*line == '#')
            continue;
        line[size - 1] = '\0';
        char *hex = strchr(line, ' ') + 1;
        char *json = strchr(hex, ' ') + 1;
        size_t data_size = from_hex(hex, data, sizeof(data));
        ProtobufCMessage *unpacked = codec_unpack(EVERYTHING, data, data_size, &arena, error, sizeof(error));
        ck_assert_msg(unpacked != NULL, "%s: %s", hex, error);
        const void *read = read_ok(json);
        if (strncmp(line, "maps ", 5) != 0)
            check_same_binary(read, unpacked, json);
        else
            check_written(read, json);
        if (strncmp(line, "read ", 5) != 0)
            check_written(unpacked, json);
        arena_reset(&arena);
        count++;
    }
    ck_assert_uint_ge(count, 200);
    free(line);
    fclose(file);
}
END_TEST

START_TEST(test_writes_names_and_leaves_defaults_out)
{
    Signalbox__Test__Everything message = SIGNALBOX__TEST__EVERYTHING__INIT;
    ck_assert_str_eq(write_out(&message), "{}");
    message.an_int32 = -5;
    message.httpport = 80;
    message._odd__name_9_ = 9;
    message.choice_case = SIGNALBOX__TEST__EVERYTHING__CHOICE_CHOSEN_UINT64;
    ck_assert_str_eq(write_out(&message), "{\"anInt32\":-5,\"chosenUint64\":\"0\",\"HTTPPort\":80,\"OddName9\":9}");
}
END_TEST

START_TEST(test_writes_valid_json_for_any_string)
{
    Signalbox__Test__Nested message = SIGNALBOX__TEST__NESTED__INIT;
    message.text = (char *)"\"\\/\b\n\x1f\x7f\xc3\xbc\xf0\x9f\x8e\xa5";
    ck_assert_str_eq(write_out(&message), "{\"text\":\"\\\"\\\\/\\u0008\\n\\u001f\x7f\xc3\xbc\xf0\x9f\x8e\xa5\"}");
    /* A stray continuation, an overlong form, a surrogate, one cut short by the end. */
    message.text = (char *)"a\x80"
                           "b\xc0\xaf\xed\xa0\x80\xe2\x82";
#define FFFD "\xef\xbf\xbd"
    ck_assert_str_eq(write_out(&message), "{\"text\":\"a" FFFD "b" FFFD FFFD FFFD FFFD FFFD FFFD FFFD "\"}");
    message.text = NULL;
    ck_assert_str_eq(write_out(&message), "{}");
}
END_TEST

START_TEST(test_writes_the_shortest_number_that_comes_back)
{
    static const struct {
        double value;
        const char *as_double, *as_float;
    } cases[] = {
        {0.1, "0.1", "0.1"},
        {1.0 / 3, "0.3333333333333333", "0.33333334"},
        {5e-324, "4.94065645841247e-324", "0"},
        {3.4028234663852886e38, "3.4028234663852886e+38", "3.4028235e+38"},
        {100000, "100000", "100000"},
        {1e21, "1e+21", "1e+21"},
        {-0.0, "-0.0", "-0.0"},
        {9007199254740993, "9007199254740992", "9.007199e+15"},
        {INFINITY, "\"Infinity\"", "\"Infinity\""},
        {-INFINITY, "\"-Infinity\"", "\"-Infinity\""},
        {NAN, "\"NaN\"", "\"NaN\""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        Signalbox__Test__Everything message = SIGNALBOX__TEST__EVERYTHING__INIT;
        double real = cases[i].value;
        float single = (float)real;
        char expected[128];
        message.n_double_list = message.n_float_list = 1;
        message.double_list = &real;
        message.float_list = &single;
        snprintf(expected, sizeof(expected), "{\"doubleList\":[%s],\"floatList\":[%s]}", cases[i].as_double,
                 cases[i].as_float);
        ck_assert_str_eq(write_out(&message), expected);
        const Signalbox__Test__Everything *back = read_ok(expected);
        ck_assert(memcmp(&back->double_list[0], &real, sizeof(real)) == 0 || isnan(real));
        ck_assert(memcmp(&back->float_list[0], &single, sizeof(single)) == 0 || isnan(real));
    }
}
END_TEST

START_TEST(test_writes_the_last_of_map_entries_with_one_key)
{
    Signalbox__Test__Everything__StringMapEntry entries[4];
    Signalbox__Test__Everything__StringMapEntry *list[4];
    static const char *const pairs[4][2] = {{"b", "1"}, {"a", "2"}, {"b", "3"}, {"a", "4"}};
    Signalbox__Test__Everything message = SIGNALBOX__TEST__EVERYTHING__INIT;
    for (int i = 0; i < 4; i++) {
        signalbox__test__everything__string_map_entry__init(&entries[i]);
        entries[i].key = (char *)pairs[i][0];
        entries[i].value = (char *)pairs[i][1];
        list[i] = &entries[i];
    }
    message.n_string_map = 4;
    message.string_map = list;
    ck_assert_str_eq(write_out(&message), "{\"stringMap\":{\"a\":\"4\",\"b\":\"3\"}}");
}
END_TEST

START_TEST(test_writes_map_keys_that_are_no_strings)
{
    const char *text = "{\"byInt64\":{\"-5\":\"x\"},\"byBool\":{\"true\":\"COLOR_RED\"}}";
    ck_assert_str_eq(write_out(read_ok(text)), text);
    /* The value is missing on the wire. */
    ck_assert_str_eq(write_out(codec_unpack(EVERYTHING, "\xd2\x02\x03\x0a\x01k", 6, &arena, error, sizeof(error))),
                     "{\"nestedMap\":{\"k\":{}}}");
}
END_TEST

START_TEST(test_reads_both_names_and_ignores_the_unknown)
{
    ck_assert_int_eq(read_ok("{\"an_int32\":1}")->an_int32, 1);
    ck_assert_int_eq(read_ok("{\"anInt32\":1}")->an_int32, 1);
    ck_assert_int_eq(read_ok("{\"_odd__name_9_\":1}")->_odd__name_9_, 1);
    ck_assert_int_eq(read_ok("{\"OddName9\":1}")->_odd__name_9_, 1);
    ck_assert_str_eq(
        write_out(read_ok("{\"anint32\":1,\"\":2,\"later\":{\"x\":[1,null,{}]},\"anInt3\":1,\"anInt320\":1}")), "{}");
    ck_assert_str_eq(write_out(read_ok("{\"couple\":1,\"nested\":{\"couple\":[{\"key\":\"k\",\"value\":\"v\"}]}}")),
                     "{\"nested\":{\"couple\":[{\"key\":\"k\",\"value\":\"v\"}]}}");
}
END_TEST

START_TEST(test_null_is_absent)
{
    ck_assert_str_eq(write_out(read_ok("{\"anInt32\":null,\"nested\":null,\"stringList\":null,\"stringMap\":null,"
                                       "\"chosenString\":null,\"chosenBool\":false}")),
                     "{\"chosenBool\":false}");
    assert_refused("{\"stringList\":[null]}", "stringList[0]: expected a string");
    assert_refused("{\"stringMap\":{\"k\":null}}", "stringMap[\"k\"]: expected a string");
}
END_TEST

START_TEST(test_reads_integers_in_every_form)
{
    static const char *const forms[] = {"12", "1.2e1", "12.0", "\"12\"", "\"1.2e1\"", "\"120E-1\"", "0.12e+2"};
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        char text[128];
        snprintf(text, sizeof(text), "{\"anInt32\":%s,\"aUint64\":%s,\"aSfixed64\":%s}", forms[i], forms[i], forms[i]);
        const Signalbox__Test__Everything *message = read_ok(text);
        ck_assert_int_eq(message->an_int32, 12);
        ck_assert_uint_eq(message->a_uint64, 12);
        ck_assert_int_eq(message->a_sfixed64, 12);
    }
    ck_assert_uint_eq(read_ok("{\"aUint64\":\"18446744073709551615\"}")->a_uint64, UINT64_MAX);
    ck_assert_uint_eq(read_ok("{\"aUint64\":1e19}")->a_uint64, UINT64_C(10000000000000000000));
    ck_assert_int_eq(read_ok("{\"anInt64\":\"-9223372036854775808\"}")->an_int64, INT64_MIN);
    ck_assert_int_eq(read_ok("{\"anInt64\":-9223372036854775808}")->an_int64, INT64_MIN);
}
END_TEST

START_TEST(test_refuses_what_is_no_integer_of_the_type)
{
    const char *no_number = "anInt32: expected a whole number";
    const char *no_int32 = "anInt32: expected a whole number from -2147483648 to 2147483647";
    const char *no_int64 = "anInt64: expected a whole number from -9223372036854775808 to 9223372036854775807";
    const char *no_uint64 = "aUint64: expected a whole number from 0 to 18446744073709551615";
    assert_refused("{\"anInt32\":\"\"}", no_number);
    assert_refused("{\"anInt32\":\" 1\"}", no_number);
    assert_refused("{\"anInt32\":\"1 \"}", no_number);
    assert_refused("{\"anInt32\":\"+1\"}", no_number);
    assert_refused("{\"anInt32\":\"01\"}", no_number);
    assert_refused("{\"anInt32\":\"0x1\"}", no_number);
    assert_refused("{\"anInt32\":\"1.\"}", no_number);
    assert_refused("{\"anInt32\":\"1e\"}", no_number);
    assert_refused("{\"anInt32\":\"inf\"}", no_number);
    assert_refused("{\"anInt32\":true}", no_number);
    assert_refused("{\"anInt32\":1.5}", no_int32);
    assert_refused("{\"anInt32\":2147483648}", no_int32);
    assert_refused("{\"anInt32\":\"-2147483649\"}", no_int32);
    assert_refused("{\"anInt32\":\"1e400\"}", no_int32);
    assert_refused("{\"anInt64\":\"9223372036854775808\"}", no_int64);
    assert_refused("{\"anInt64\":9223372036854775808.0}", no_int64);
    assert_refused("{\"anInt64\":-1e19}", no_int64);
    assert_refused("{\"aUint64\":-1}", no_uint64);
    assert_refused("{\"aUint64\":\"18446744073709551616\"}", no_uint64);
    assert_refused("{\"aUint64\":18446744073709551616e0}", no_uint64);
    assert_refused("{\"aUint64\":18446744073709551615}",
                   "syntax error at line 1 column 31: a number beyond 64 bits; write it as a string");
}
END_TEST

START_TEST(test_refuses_wrong_types_and_says_where)
{
    assert_refused("[]", "expected an object");
    assert_refused("1", "expected an object");
    assert_refused("{\"nested\":[]}", "nested: expected an object");
    assert_refused("{\"nested\":{\"deeper\":{\"text\":1}}}", "nested.deeper.text: expected a string");
    assert_refused("{\"nestedList\":[{},{\"children\":[{},{\"number\":\"x\"}]}]}",
                   "nestedList[1].children[1].number: expected a whole number");
    assert_refused("{\"nestedList\":{}}", "nestedList: expected an array");
    assert_refused("{\"stringMap\":[]}", "stringMap: expected an object");
    assert_refused("{\"nestedMap\":{\"a\xc3\xbc\":{\"text\":1}}}", "nestedMap[\"a??\"].text: expected a string");
    assert_refused("{\"byBool\":{\"yes\":1}}", "byBool[\"yes\"]: expected true or false");
    assert_refused("{\"byInt64\":{\"yes\":\"\"}}", "byInt64[\"yes\"]: expected a whole number");
    assert_refused("{\"aBool\":\"true\"}", "aBool: expected true or false");
    assert_refused("{\"aFloat\":1e39}", "aFloat: too large for a float");
    assert_refused("{\"aDouble\":\"nan\"}", "aDouble: expected a number, \"NaN\", \"Infinity\" or \"-Infinity\"");
    assert_refused("{\"color\":true}", "color: expected the name of an enum value");
    assert_refused("{\"aBytes\":1}", "aBytes: expected a string of base64");
}
END_TEST

START_TEST(test_refuses_a_field_twice)
{
    assert_refused("{\"anInt32\":1,\"an_int32\":null}", "anInt32: given twice");
    assert_refused("{\"chosenString\":\"\",\"chosenBool\":true}",
                   "chosenBool: excludes another field that is given too");
    ck_assert_ptr_null(read_size("{\"aBool\":true,\"aBool\":true}", 27));
    ck_assert_ptr_nonnull(strstr(error, "duplicate object key"));
}
END_TEST

START_TEST(test_enums_of_a_newer_schema)
{
    const Signalbox__Test__Everything *message =
        read_ok("{\"color\":\"COLOR_NEW\",\"colorList\":[\"COLOR_RED\",\"COLOR_NEW\",42],\"chosenColor\":\"COLOR_NEW\","
                "\"byBool\":{\"true\":\"COLOR_NEW\"}}");
    ck_assert_str_eq(write_out(message), "{\"colorList\":[\"COLOR_RED\",42]}");
}
END_TEST

START_TEST(test_reads_every_base64)
{
    static const char *const forms[] = {"+/8=", "+/8", "-_8=", "-_8"};
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        char text[64];
        snprintf(text, sizeof(text), "{\"aBytes\":\"%s\"}", forms[i]);
        const Signalbox__Test__Everything *message = read_ok(text);
        ck_assert_uint_eq(message->a_bytes.len, 2);
        ck_assert_mem_eq(message->a_bytes.data, "\xfb\xff", 2);
    }
    ck_assert_uint_eq(read_ok("{\"aBytes\":\"\"}")->a_bytes.len, 0);
    assert_refused("{\"aBytes\":\"A\"}", "aBytes: malformed base64");
    assert_refused("{\"aBytes\":\"AA=\"}", "aBytes: malformed base64");
    assert_refused("{\"aBytes\":\"A A=\"}", "aBytes: malformed base64");
    assert_refused("{\"aBytes\":\"+_8=\"}", "aBytes: malformed base64");
}
END_TEST

START_TEST(test_syntax_errors_say_where_in_plain_ascii)
{
    assert_refused("{\"anInt32\": 1,\n  x}", "syntax error at line 2 column 3: string or '}' expected near 'x'");
    assert_refused("", "syntax error at line 1 column 0: unexpected token near end of file");
    assert_refused("{\"aString\":\"\\u0000\"}", "syntax error at line 1 column 19: strings must not contain U+0000");
    assert_refused("{\"a\\u0000\":1}", "syntax error at line 1 column 10: strings must not contain U+0000");
    ck_assert_ptr_null(read_size("{\"aString\":\"\0\"}", 15));
    ck_assert_ptr_null(read_size("{} \x01\x1b[31m", 8));
    ck_assert_str_eq(error, "syntax error at line 1 column 4: end of file expected near '?'");
    ck_assert_ptr_null(read_size("{\"aString\":\"\xc3\x28\"}", 16));
}
END_TEST

START_TEST(test_nesting_is_bounded)
{
    static char text[65537];
    size_t size = 0;
    for (int i = 0; i < PROTOJSON_NESTING_MAX - 1; i++)
        size += (size_t)sprintf(text + size, i ? "{\"deeper\":" : "{\"nested\":");
    size_t inner = size;
    size += (size_t)sprintf(text + size, "{\"text\":\"[[[\\\"{{{\"}");
    memset(text + size, '}', PROTOJSON_NESTING_MAX - 1);
    text[size + PROTOJSON_NESTING_MAX - 1] = '\0';
    write_out(read_ok(text));
    ck_assert_str_eq(buf_str(&out), text);

    size = inner + (size_t)sprintf(text + inner, "{\"unknown\":[]}");
    memset(text + size, '}', PROTOJSON_NESTING_MAX - 1);
    text[size + PROTOJSON_NESTING_MAX - 1] = '\0';
    assert_refused(text, "nested too deeply");

    memset(text, '[', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_refused(text, "nested too deeply");
}
END_TEST

START_TEST(test_errors_fit_their_buffer)
{
    char small[12];
    memset(small, 'x', sizeof(small));
    ck_assert_ptr_null(protojson_read(EVERYTHING, "{\"nested\":{\"text\":1}}", 21, &arena, small, 8));
    ck_assert_str_eq(small, "nested.");
    ck_assert_int_eq(small[8], 'x');
}
END_TEST

START_TEST(test_memory_is_bounded_by_the_arena)
{
    struct arena tight;
    static char text[8192];
    size_t size = (size_t)sprintf(text, "{\"nestedList\":[{}");
    while (size < 8000)
        size += (size_t)sprintf(text + size, ",{}");
    sprintf(text + size, "]}");
    arena_init(&tight, 4096);
    ck_assert_ptr_null(protojson_read(EVERYTHING, text, strlen(text), &tight, error, sizeof(error)));
    ck_assert_ptr_nonnull(strstr(error, ": the message is too large"));
    ck_assert_uint_le(tight.used_bytes, 4096);
    arena_done(&tight);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("protojson");
    TCase *tcase = tcase_create("protojson");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_agrees_with_protobufs_own_implementation);
    tcase_add_test(tcase, test_writes_names_and_leaves_defaults_out);
    tcase_add_test(tcase, test_writes_valid_json_for_any_string);
    tcase_add_test(tcase, test_writes_the_shortest_number_that_comes_back);
    tcase_add_test(tcase, test_writes_the_last_of_map_entries_with_one_key);
    tcase_add_test(tcase, test_writes_map_keys_that_are_no_strings);
    tcase_add_test(tcase, test_reads_both_names_and_ignores_the_unknown);
    tcase_add_test(tcase, test_null_is_absent);
    tcase_add_test(tcase, test_reads_integers_in_every_form);
    tcase_add_test(tcase, test_refuses_what_is_no_integer_of_the_type);
    tcase_add_test(tcase, test_refuses_wrong_types_and_says_where);
    tcase_add_test(tcase, test_refuses_a_field_twice);
    tcase_add_test(tcase, test_enums_of_a_newer_schema);
    tcase_add_test(tcase, test_reads_every_base64);
    tcase_add_test(tcase, test_syntax_errors_say_where_in_plain_ascii);
    tcase_add_test(tcase, test_nesting_is_bounded);
    tcase_add_test(tcase, test_errors_fit_their_buffer);
    tcase_add_test(tcase, test_memory_is_bounded_by_the_arena);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
