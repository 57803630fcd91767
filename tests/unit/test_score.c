#include "common/score.h"
#include "common/score_table.h"
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct score_seed seed = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};

START_TEST(table_is_ln_to_within_one_unit)
{
    for (int i = 0; i <= 256; i++) {
        long double exact = log1pl(i / 256.0L) * 4294967296.0L;
        ck_assert_msg(fabsl(score_ln_table[i] - exact) < 0.501L, "entry %d", i);
    }
}
END_TEST

static uint64_t next_random(uint64_t *state)
{
    /* splitmix64 */
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static void check_against_libm(uint64_t hash)
{
    /* Above 1/2 from the distance to 1, which a long double holds exactly. */
    long double to_one = (UINT64_MAX - hash + 0.5L) / 18446744073709551616.0L;
    long double u = (hash + 0.5L) / 18446744073709551616.0L;
    long double exact = (hash >> 63 ? -log1pl(-to_one) : -logl(u)) * 4294967296.0L;
    long double got = score_neg_ln(hash);

    ck_assert_msg(fabsl(got - exact) <= 0.001L * exact + 2, "hash %016llx: %Lf, not %Lf", (unsigned long long)hash, got,
                  exact);
}

START_TEST(neg_ln_is_close_to_the_logarithm)
{
    uint64_t state = 1;

    for (int i = 0; i < 20000; i++) {
        uint64_t hash = next_random(&state);
        check_against_libm(hash >> (i % 64));
        check_against_libm(~(hash >> (i % 64)));
    }
    check_against_libm(0);
    check_against_libm(UINT64_MAX);
}
END_TEST

START_TEST(neg_ln_stays_in_its_range)
{
    ck_assert_uint_eq(score_neg_ln(UINT64_MAX), 1);
    ck_assert_uint_eq(score_neg_ln(0), 65 * (uint64_t)score_ln_table[256]);
    ck_assert_uint_lt(score_neg_ln(0), 46ull << 32);
}
END_TEST

START_TEST(neg_ln_never_increases_with_the_hash)
{
    uint64_t state = 2;

    /* Neighbours at random, around each border of the table in each octave, and further apart. */
    for (int i = 0; i < 50000; i++) {
        uint64_t hash = next_random(&state) >> (i % 64);
        uint64_t higher = hash + 1 + (next_random(&state) >> (next_random(&state) % 64));
        if (hash < UINT64_MAX)
            ck_assert_uint_ge(score_neg_ln(hash), score_neg_ln(hash + 1));
        if (higher > hash)
            ck_assert_uint_ge(score_neg_ln(hash), score_neg_ln(higher));
    }
    for (int octave = 8; octave < 64; octave++) {
        for (uint64_t i = 0; i < 256; i++) {
            uint64_t border = (256 + i) << (octave - 8);
            ck_assert_uint_ge(score_neg_ln(border - 1), score_neg_ln(border));
            ck_assert_uint_ge(score_neg_ln(border), score_neg_ln(border + 1));
        }
    }
}
END_TEST

START_TEST(score_grows_with_weight_and_never_overflows)
{
    for (int i = 0; i < 1000; i++) {
        char name[32];
        snprintf(name, sizeof(name), "room-%d", i);
        struct room_key key = room_key_make("test", name);
        uint64_t last = score_compute(&seed, "shard-0", 0, &key);

        ck_assert_uint_eq(last, 0);
        for (uint32_t weight = 1; weight <= SCORE_WEIGHT_MAX; weight += 1 + weight / 3) {
            uint64_t score = score_compute(&seed, "shard-0", weight, &key);
            ck_assert_uint_gt(score, last);
            last = score;
        }
        ck_assert_uint_ge(score_compute(&seed, "shard-0", SCORE_WEIGHT_MAX, &key), last);
    }
}
END_TEST

START_TEST(score_depends_on_seed_shard_and_room)
{
    struct score_seed other_seed = seed;
    struct room_key key = room_key_make("acme", "standup"), other_key = room_key_make("acme", "retro");
    uint64_t score = score_compute(&seed, "shard-1", 100, &key);

    other_seed.bytes[15] ^= 1;
    ck_assert_uint_ne(score, score_compute(&other_seed, "shard-1", 100, &key));
    ck_assert_uint_ne(score, score_compute(&seed, "shard-10", 100, &key));
    ck_assert_uint_ne(score, score_compute(&seed, "shard-1", 100, &other_key));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("score");
    TCase *tcase = tcase_create("score");

    tcase_add_test(tcase, table_is_ln_to_within_one_unit);
    tcase_add_test(tcase, neg_ln_is_close_to_the_logarithm);
    tcase_add_test(tcase, neg_ln_stays_in_its_range);
    tcase_add_test(tcase, neg_ln_never_increases_with_the_hash);
    tcase_add_test(tcase, score_grows_with_weight_and_never_overflows);
    tcase_add_test(tcase, score_depends_on_seed_shard_and_room);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
