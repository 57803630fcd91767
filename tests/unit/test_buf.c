#include "common/buf.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

START_TEST(zeroed_is_an_empty_buffer)
{
    struct buf buf = {0};
    ck_assert_str_eq(buf_str(&buf), "");
    ck_assert_uint_eq(buf.size, 0);
    buf_append(&buf, NULL, 0);
    ck_assert_uint_eq(buf.size, 0);
    buf_done(&buf);
    buf_done(&buf);
    ck_assert_ptr_null(buf.data);
}
END_TEST

START_TEST(appends_in_order)
{
    struct buf buf = {0};
    buf_append_str(&buf, "one");
    buf_append_char(&buf, ' ');
    buf_append(&buf, "two\0three", 9);
    buf_printf(&buf, " %d", 4);
    ck_assert_uint_eq(buf.size, 15);
    ck_assert_mem_eq(buf_str(&buf), "one two\0three 4", 16);
    buf_done(&buf);
}
END_TEST

START_TEST(grows_past_every_capacity)
{
    struct buf buf = {0};
    for (int i = 0; i < 5000; i++)
        buf_append_char(&buf, (char)('a' + i % 26));
    ck_assert_uint_eq(buf.size, 5000);
    for (int i = 0; i < 5000; i++)
        ck_assert_int_eq(buf.data[i], 'a' + i % 26);
    size_t capacity = buf.capacity;
    buf_reset(&buf);
    ck_assert_uint_eq(buf.size, 0);
    ck_assert_uint_eq(buf.capacity, capacity);
    buf_done(&buf);
}
END_TEST

START_TEST(reserve_lets_the_caller_write)
{
    struct buf buf = {0};
    buf_append_str(&buf, "head");
    memset(buf_reserve(&buf, 10000), 'x', 10000);
    buf.size += 10000;
    ck_assert_mem_eq(buf.data, "headxxxx", 8);
    ck_assert_int_eq(buf_str(&buf)[10004], '\0');
    ck_assert_uint_eq(buf.size, 10004);
    buf_done(&buf);
}
END_TEST

/* Every length around the free space left, where the first attempt just fits or just does not. */
START_TEST(printf_fits_at_every_length)
{
    for (int length = 0; length < 600; length++) {
        struct buf buf = {0};
        buf_append_str(&buf, "0123456789");
        buf_printf(&buf, "%0*d", length, 0);
        ck_assert_uint_eq(buf.size, 10 + (length != 0 ? (size_t)length : 1));
        ck_assert_uint_eq(strlen(buf_str(&buf)), buf.size);
        buf_done(&buf);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("buf");
    TCase *tcase = tcase_create("buf");
    tcase_add_test(tcase, zeroed_is_an_empty_buffer);
    tcase_add_test(tcase, appends_in_order);
    tcase_add_test(tcase, grows_past_every_capacity);
    tcase_add_test(tcase, reserve_lets_the_caller_write);
    tcase_add_test(tcase, printf_fits_at_every_length);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
