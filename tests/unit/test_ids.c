#include "common/ids.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>

START_TEST(sid_round_trips)
{
    for (int i = 0; i < 1000; i++) {
        struct sid sid, back;
        char text[SID_TEXT_SIZE + 1];

        sid_random(&sid);
        sid_format(&sid, text);
        ck_assert_uint_eq(strlen(text), SID_TEXT_SIZE);
        ck_assert(sid_parse(text, &back));
        ck_assert(sid_equal(&sid, &back));
    }
}
END_TEST

START_TEST(sid_is_written_as_rfc4648_says)
{
    struct sid sid = {{0xfb, 0xff, 0xbf, 0x00, 0x10, 0x83, 0x10, 0x51, 0x87, 0x20, 0x92, 0x8b, 0x30, 0xd3, 0x8f, 0x41}};
    char text[SID_TEXT_SIZE + 1];

    sid_format(&sid, text);
    ck_assert_str_eq(text, "-_-_ABCDEFGHIJKLMNOPQQ");
}
END_TEST

START_TEST(sids_differ)
{
    struct sid a, b;

    sid_random(&a);
    sid_random(&b);
    ck_assert(!sid_equal(&a, &b));
}
END_TEST

START_TEST(sid_parse_is_strict)
{
    static const char *const bad[] = {
        "",
        "AAAAAAAAAAAAAAAAAAAAA",   /* 21 */
        "AAAAAAAAAAAAAAAAAAAAAAA", /* 23 */
        "AAAAAAAAAAAAAAAAAAAAA=",
        "AAAAAAAAAAAAAAAAAAAAAA==",
        "AAAAAAAAAA+AAAAAAAAAAA",
        "AAAAAAAAAA/AAAAAAAAAAA",
        "AAAAAAAAAA AAAAAAAAAAA",
        "AAAAAAAAAA\xc3\xa4"
        "AAAAAAAAAA",
    };
    struct sid sid;

    memset(&sid, 0x5a, sizeof(sid));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(!sid_parse(bad[i], &sid), "%s", bad[i]);
    for (size_t i = 0; i < sizeof(sid.bytes); i++)
        ck_assert_uint_eq(sid.bytes[i], 0x5a);
}
END_TEST

START_TEST(sid_parse_takes_one_text_for_each_sid)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    char text[] = "0123456789abcdefghijk?";
    char canonical[SID_TEXT_SIZE + 1];
    struct sid sid;
    int accepted = 0;

    for (const char *last = alphabet; *last; last++) {
        text[SID_TEXT_SIZE - 1] = *last;
        if (!sid_parse(text, &sid))
            continue;
        accepted++;
        sid_format(&sid, canonical);
        ck_assert_str_eq(text, canonical);
    }
    ck_assert_int_eq(accepted, 4);
}
END_TEST

START_TEST(incarnations_differ)
{
    ck_assert_uint_ne(incarnation_random(), incarnation_random());
}
END_TEST

START_TEST(node_ids_and_regions_are_labels)
{
    char longest[NODE_ID_MAX + 2];

    memset(longest, 'a', sizeof(longest));
    longest[NODE_ID_MAX + 1] = '\0';
    ck_assert(!node_id_valid(longest));
    longest[NODE_ID_MAX] = '\0';
    ck_assert(node_id_valid(longest));
    longest[REGION_MAX + 1] = '\0';
    ck_assert(!region_valid(longest));
    longest[REGION_MAX] = '\0';
    ck_assert(region_valid(longest));

    ck_assert(node_id_valid("shard-0"));
    ck_assert(!node_id_valid(""));
    ck_assert(!node_id_valid("Shard"));
    ck_assert(!node_id_valid("shard.0"));
    ck_assert(!node_id_valid("shard*"));
    ck_assert(!node_id_valid("shard>"));
    ck_assert(!node_id_valid("shard 0"));
    ck_assert(!node_id_valid("\xc3\xa4"));
}
END_TEST

START_TEST(names_are_printable_utf8_within_bounds)
{
    ck_assert(name_valid("a", 1));
    ck_assert(!name_valid("", 128));
    ck_assert(!name_valid("ab", 1));
    ck_assert(name_valid("\xc3\xa4", 2));
    ck_assert(!name_valid("\xc3\xa4", 1));
    ck_assert(!name_valid("a\nb", 128));
    ck_assert(!name_valid("a\x1f", 128));
    ck_assert(!name_valid("a\x7f", 128));
    ck_assert(!name_valid("a\xff", 128));
    ck_assert(name_valid("eu/stand up", 128));
}
END_TEST

START_TEST(room_keys_are_sha256_of_project_nul_room)
{
    /* printf 'acme\0eu/standup' | sha256sum */
    static const uint8_t expected[16] = {0x55, 0xf4, 0x23, 0x73, 0x14, 0x4a, 0xfd, 0x35,
                                         0xdc, 0x86, 0x64, 0xe9, 0xb4, 0x70, 0x81, 0xac};
    struct room_key key = room_key_make("acme", "eu/standup");

    ck_assert_mem_eq(key.bytes, expected, sizeof(expected));

    struct room_key a = room_key_make("a", "bc"), b = room_key_make("ab", "c");
    ck_assert(!room_key_equal(&a, &b));
    b = room_key_make("a", "bc");
    ck_assert(room_key_equal(&a, &b));
}
END_TEST

START_TEST(region_is_the_part_before_the_first_slash)
{
    static const struct {
        const char *room, *region;
    } cases[] = {
        {"eu/standup", "eu"},
        {"us-east-1/a/b", "us-east-1"},
        {"standup", ""},
        {"/standup", ""},
        {"EU/standup", ""},
        {"e u/standup", ""},
        {"abcdefghijklmnopqrstuvwxyz01234/r", "abcdefghijklmnopqrstuvwxyz01234"},
        {"abcdefghijklmnopqrstuvwxyz012345/r", ""},
        {"", ""},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char region[REGION_MAX + 1];

        room_region(cases[i].room, region);
        ck_assert_str_eq(region, cases[i].region);
    }
}
END_TEST

START_TEST(table_hash_is_stable_and_spreads)
{
    ck_assert_uint_eq(table_hash("abc", 3), table_hash("abc", 3));
    ck_assert_uint_ne(table_hash("abc", 3), table_hash("abd", 3));
    ck_assert_uint_ne(table_hash("abc", 3), table_hash("abc", 2));
}
END_TEST

/* What RFC 3629 allows, by the definition: decode, then ask whether encoding that code point gives the same bytes. */
static bool model_utf8_valid(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size;) {
        static const uint32_t smallest[] = {0, 0x80, 0x800, 0x10000};
        uint8_t lead = data[i++];
        int more = lead < 0x80             ? 0
                   : (lead & 0xe0) == 0xc0 ? 1
                   : (lead & 0xf0) == 0xe0 ? 2
                   : (lead & 0xf8) == 0xf0 ? 3
                                           : -1;

        if (more < 0)
            return false;
        uint32_t code = more == 0 ? lead : lead & (0x3fu >> more);
        for (int k = 0; k < more; k++, i++) {
            if (i >= size || (data[i] & 0xc0) != 0x80)
                return false;
            code = code << 6 | (data[i] & 0x3f);
        }
        if (code < smallest[more] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
            return false;
    }
    return true;
}

START_TEST(utf8_agrees_with_the_definition)
{
    /* Each lead byte, with continuation bytes on both sides of every border, at every length. */
    static const uint8_t borders[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff};
    enum { N = sizeof(borders) };
    int differences = 0;

    for (unsigned lead = 0; lead < 256; lead++) {
        for (unsigned rest = 0; rest < N * N * N; rest++) {
            uint8_t bytes[4] = {(uint8_t)lead, borders[rest % N], borders[rest / N % N], borders[rest / N / N]};
            for (size_t size = 0; size <= 4; size++)
                differences += utf8_valid(bytes, size) != model_utf8_valid(bytes, size);
        }
    }
    ck_assert_int_eq(differences, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ids");
    TCase *tcase = tcase_create("ids");

    tcase_add_test(tcase, sid_round_trips);
    tcase_add_test(tcase, sid_is_written_as_rfc4648_says);
    tcase_add_test(tcase, sids_differ);
    tcase_add_test(tcase, sid_parse_is_strict);
    tcase_add_test(tcase, sid_parse_takes_one_text_for_each_sid);
    tcase_add_test(tcase, incarnations_differ);
    tcase_add_test(tcase, node_ids_and_regions_are_labels);
    tcase_add_test(tcase, names_are_printable_utf8_within_bounds);
    tcase_add_test(tcase, room_keys_are_sha256_of_project_nul_room);
    tcase_add_test(tcase, region_is_the_part_before_the_first_slash);
    tcase_add_test(tcase, table_hash_is_stable_and_spreads);
    tcase_add_test(tcase, utf8_agrees_with_the_definition);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
