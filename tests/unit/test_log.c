#include "common/log.h"

#include <check.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIELDS(...) ((const struct log_field[]){__VA_ARGS__, {.key = NULL}})

static struct buf line;

static const char *text(const struct log_field *fields)
{
    buf_reset(&line);
    log_format_line(&line, LOG_FORMAT_TEXT, INT64_C(1767268800123), LOG_INFO, "thing_happened", fields, 0);
    return buf_str(&line);
}

static json_t *json(const struct log_field *fields)
{
    buf_reset(&line);
    log_format_line(&line, LOG_FORMAT_JSON, INT64_C(1767268800123), LOG_WARN, "thing_happened", fields, 7);
    ck_assert_int_eq(line.data[line.size - 1], '\n');
    ck_assert_ptr_null(memchr(line.data, '\n', line.size - 1));
    json_error_t error;
    json_t *object = json_loadb((const char *)line.data, line.size, 0, &error);
    ck_assert_msg(object != NULL, "%s in %s", error.text, buf_str(&line));
    return object;
}

static void forget_line(void)
{
    buf_done(&line);
}

#define HEAD "2026-01-01T12:00:00.123Z INFO thing_happened"

START_TEST(text_line)
{
    ck_assert_str_eq(text(FIELDS(log_str("sid", "S1"), log_int("members", -3), log_uint("bytes", UINT64_MAX),
                                 log_hex("incarnation", 0xabc), log_str("none", NULL))),
                     HEAD " sid=S1 members=-3 bytes=18446744073709551615 incarnation=0000000000000abc none=-\n");
}
END_TEST

START_TEST(text_quotes_what_could_be_misread)
{
    ck_assert_str_eq(text(FIELDS(log_str("k", "two words"))), HEAD " k=\"two words\"\n");
    ck_assert_str_eq(text(FIELDS(log_str("k", ""))), HEAD " k=\"\"\n");
    ck_assert_str_eq(text(FIELDS(log_str("k", "a=b"))), HEAD " k=\"a=b\"\n");
    ck_assert_str_eq(text(FIELDS(log_str("k", "say \"hi\"\\"))), HEAD " k=\"say \\\"hi\\\"\\\\\"\n");
    ck_assert_str_eq(text(FIELDS(log_str("k", "a\nb\r\tc\x1b[31m\x7f"))),
                     HEAD " k=\"a\\nb\\r\\tc\\u001b[31m\\u007f\"\n");
    ck_assert_str_eq(text(FIELDS(log_strn("k", "a\0b", 3))), HEAD " k=\"a\\u0000b\"\n");
    /* U+009B is the control sequence introducer of 8-bit terminals. */
    ck_assert_str_eq(text(FIELDS(log_str("k", "\xc2\x9b"))), HEAD " k=\"\\u009b\"\n");
    ck_assert_str_eq(text(FIELDS(log_str("k", "caf\xc3\xa9"))), HEAD " k=\"caf\xc3\xa9\"\n");
}
END_TEST

START_TEST(json_line)
{
    json_t *object = json(FIELDS(log_str("room", "a \"b\"\n\x01"), log_int("n", -5), log_hex("id", 255)));
    ck_assert_str_eq(json_string_value(json_object_get(object, "ts")), "2026-01-01T12:00:00.123Z");
    ck_assert_str_eq(json_string_value(json_object_get(object, "level")), "warn");
    ck_assert_str_eq(json_string_value(json_object_get(object, "event")), "thing_happened");
    ck_assert_str_eq(json_string_value(json_object_get(object, "room")), "a \"b\"\n\x01");
    ck_assert_int_eq(json_integer_value(json_object_get(object, "n")), -5);
    ck_assert_str_eq(json_string_value(json_object_get(object, "id")), "00000000000000ff");
    ck_assert_int_eq(json_integer_value(json_object_get(object, "suppressed")), 7);
    json_decref(object);
}
END_TEST

/* jansson refuses invalid UTF-8, so that every one of these would fail to load if it got through. */
START_TEST(invalid_utf8_is_replaced)
{
    static const char *const invalid[] = {
        "\x80",
        "\xff",
        "\xc0\xaf",
        "\xc2",
        "\xe0\x80\x80",
        "\xed\xa0\x80",
        "\xe2\x82",
        "\xf0\x80\x80\x80",
        "\xf4\x90\x80\x80",
        "\xf5\x80",
        "a\xe2\x28\xa1z",
        "\xf0\x9f\x98",
    };
    for (size_t i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++) {
        json_t *object = json(FIELDS(log_str("k", invalid[i])));
        ck_assert_ptr_nonnull(strstr(json_string_value(json_object_get(object, "k")), "\xef\xbf\xbd"));
        json_decref(object);
    }
    static const char *const valid[] = {"\xc2\xa0", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf",
                                        "\xee\x80\x80"};
    for (size_t i = 0; i < sizeof(valid) / sizeof(valid[0]); i++) {
        json_t *object = json(FIELDS(log_str("k", valid[i])));
        ck_assert_str_eq(json_string_value(json_object_get(object, "k")), valid[i]);
        json_decref(object);
    }
}
END_TEST

START_TEST(long_values_are_cut_between_characters)
{
    char value[3000];
    for (size_t shift = 0; shift < 3; shift++) {
        memset(value, 'x', shift);
        for (size_t i = shift; i + 3 < sizeof(value); i += 3)
            memcpy(value + i, "\xe2\x82\xac", 3);
        json_t *object = json(FIELDS(log_strn("k", value, 2900)));
        const char *got = json_string_value(json_object_get(object, "k"));
        ck_assert_uint_le(strlen(got), 1024 + 3);
        ck_assert_uint_ge(strlen(got), 1022 + 3);
        ck_assert_str_eq(got + strlen(got) - 3, "...");
        ck_assert_ptr_null(strstr(got, "\xef\xbf\xbd"));
        json_decref(object);
    }
}
END_TEST

START_TEST(each_site_is_limited)
{
    struct log_site site = {0};
    uint32_t suppressed = 99;
    int64_t now_ms = 5;
    for (int i = 0; i < LOG_BURST; i++)
        ck_assert(log_site_take(&site, now_ms, &suppressed));
    ck_assert_uint_eq(suppressed, 0);
    for (int i = 0; i < 3; i++)
        ck_assert(!log_site_take(&site, now_ms, &suppressed));
    now_ms += 1000 / LOG_RATE_PER_S - 1;
    ck_assert(!log_site_take(&site, now_ms, &suppressed));
    now_ms += 1;
    ck_assert(log_site_take(&site, now_ms, &suppressed));
    ck_assert_uint_eq(suppressed, 4);
    ck_assert(!log_site_take(&site, now_ms, &suppressed));
    now_ms += INT64_C(1) << 40;
    for (int i = 0; i < LOG_BURST; i++)
        ck_assert(log_site_take(&site, now_ms, &suppressed));
    ck_assert(!log_site_take(&site, now_ms, &suppressed));
}
END_TEST

static char output[65536];

/* Runs `body` with stderr in a pipe; what it logs must fit the pipe. */
static const char *capture(void (*body)(void))
{
    int fds[2], saved = dup(STDERR_FILENO);
    ck_assert_int_eq(pipe(fds), 0);
    dup2(fds[1], STDERR_FILENO);
    close(fds[1]);
    body();
    dup2(saved, STDERR_FILENO);
    close(saved);
    size_t size = 0;
    for (ssize_t n; (n = read(fds[0], output + size, sizeof(output) - 1 - size)) > 0;)
        size += (size_t)n;
    close(fds[0]);
    output[size] = '\0';
    return output;
}

static size_t count_lines(const char *out)
{
    size_t count = 0;
    for (; *out != '\0'; out++)
        count += *out == '\n';
    return count;
}

static void log_at_every_level(void)
{
    log_error("first");
    log_warn("second", log_int("n", 2));
    log_info("third", log_int("n", 3), log_str("s", "x"));
    log_debug("fourth");
}

START_TEST(levels)
{
    log_setup(LOG_WARN, LOG_FORMAT_TEXT);
    ck_assert(log_enabled(LOG_ERROR) && log_enabled(LOG_WARN) && !log_enabled(LOG_INFO));
    const char *out = capture(log_at_every_level);
    ck_assert_uint_eq(count_lines(out), 2);
    ck_assert_ptr_nonnull(strstr(out, "Z ERROR first\n"));
    ck_assert_ptr_nonnull(strstr(out, "Z WARN second n=2\n"));
    log_set_level(LOG_DEBUG);
    ck_assert_uint_eq(count_lines(capture(log_at_every_level)), 4);
}
END_TEST

static void log_a_storm(void)
{
    for (int i = 0; i < 10 * LOG_BURST; i++)
        log_info("storm", log_int("i", i));
}

START_TEST(a_storm_is_held_back)
{
    log_setup(LOG_INFO, LOG_FORMAT_JSON);
    size_t lines = count_lines(capture(log_a_storm));
    ck_assert_uint_ge(lines, LOG_BURST);
    ck_assert_uint_lt(lines, 10 * LOG_BURST);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("log");
    TCase *tcase = tcase_create("log");
    tcase_add_checked_fixture(tcase, NULL, forget_line);
    tcase_add_test(tcase, text_line);
    tcase_add_test(tcase, text_quotes_what_could_be_misread);
    tcase_add_test(tcase, json_line);
    tcase_add_test(tcase, invalid_utf8_is_replaced);
    tcase_add_test(tcase, long_values_are_cut_between_characters);
    tcase_add_test(tcase, each_site_is_limited);
    tcase_add_test(tcase, levels);
    tcase_add_test(tcase, a_storm_is_held_back);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
