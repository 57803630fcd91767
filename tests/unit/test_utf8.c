#include "common/utf8.h"

#include "common/ids.h"
#include <check.h>
#include <stdlib.h>

/* utf8_valid() is written the other way round, by ranges: each checks the other. Counted, because an assertion of Check
 * for each of the millions of cases takes minutes. */
static unsigned disagreements(const uint8_t *bytes, size_t size)
{
    return (utf8_check(UTF8_ACCEPT, bytes, size) == UTF8_ACCEPT) != utf8_valid(bytes, size);
}

START_TEST(agrees_with_the_whole_check_on_short_sequences)
{
    static const uint8_t edges[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff};
    unsigned count = 0;
    for (unsigned first_two = 0; first_two < 65536; first_two++) {
        uint8_t bytes[4] = {(uint8_t)(first_two >> 8), (uint8_t)first_two};
        count += disagreements(bytes, 1) + disagreements(bytes, 2);
        for (size_t third = 0; third < sizeof(edges); third++) {
            bytes[2] = edges[third];
            count += disagreements(bytes, 3);
            for (size_t fourth = 0; fourth < sizeof(edges); fourth++) {
                bytes[3] = edges[fourth];
                count += disagreements(bytes, 4);
            }
        }
    }
    ck_assert_uint_eq(count, 0);
}
END_TEST

/* The fast path reads words: a bad byte must be seen at every place in one, and a split in every place be carried. */
START_TEST(finds_a_bad_byte_wherever_it_is)
{
    uint8_t text[40];
    for (size_t bad = 0; bad < sizeof(text); bad++) {
        for (size_t i = 0; i < sizeof(text); i++)
            text[i] = i == bad ? 0xff : 'a';
        ck_assert_int_eq(utf8_check(UTF8_ACCEPT, text, bad), UTF8_ACCEPT);
        ck_assert_int_eq(utf8_check(UTF8_ACCEPT, text, sizeof(text)), UTF8_REJECT);
    }
}
END_TEST

START_TEST(carries_on_across_every_split)
{
    static const char text[] = "plain text first \xce\xba\xe1\xbd\xb9 then \xf0\x9f\x8e\xa5 and on it goes";
    for (size_t split = 0; split < sizeof(text); split++) {
        uint8_t state = utf8_check(UTF8_ACCEPT, text, split);
        ck_assert_int_ne(state, UTF8_REJECT);
        ck_assert_int_eq(utf8_check(state, text + split, sizeof(text) - split), UTF8_ACCEPT);
    }
}
END_TEST

START_TEST(rejects_at_the_first_impossible_byte)
{
    ck_assert_int_eq(utf8_check(UTF8_ACCEPT, "\xf4\x90", 2), UTF8_REJECT);
    ck_assert_int_eq(utf8_check(UTF8_ACCEPT, "\xed\xa0", 2), UTF8_REJECT);
    ck_assert_int_eq(utf8_check(UTF8_ACCEPT, "\xe0\x9f", 2), UTF8_REJECT);
    ck_assert_int_eq(utf8_check(UTF8_ACCEPT, "\xc1", 1), UTF8_REJECT);
    ck_assert_int_eq(utf8_check(UTF8_REJECT, "a", 1), UTF8_REJECT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("utf8");
    TCase *tc = tcase_create("utf8");
    tcase_add_test(tc, agrees_with_the_whole_check_on_short_sequences);
    tcase_add_test(tc, finds_a_bad_byte_wherever_it_is);
    tcase_add_test(tc, carries_on_across_every_split);
    tcase_add_test(tc, rejects_at_the_first_impossible_byte);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
