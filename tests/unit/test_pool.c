#include "common/pool.h"

#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 1000 };

START_TEST(objects_are_zeroed_aligned_and_apart)
{
    struct pool pool;
    pool_init(&pool, 40);
    uint8_t *objects[COUNT];
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < COUNT; i++) {
            objects[i] = pool_alloc(&pool);
            ck_assert_uint_eq((uintptr_t)objects[i] % _Alignof(max_align_t), 0);
            for (size_t j = 0; j < 40; j++)
                ck_assert_uint_eq(objects[i][j], 0);
            memset(objects[i], (int)(i % 255) + 1, 40);
        }
        for (size_t i = 0; i < COUNT; i++) {
            ck_assert_uint_eq(objects[i][0], i % 255 + 1);
            ck_assert_uint_eq(objects[i][39], i % 255 + 1);
        }
        for (size_t i = 0; i < COUNT; i++)
            pool_free(&pool, objects[i]);
        ck_assert_uint_eq(pool.used, 0);
    }
}
END_TEST

START_TEST(what_is_freed_is_used_again_and_the_last_one_gives_all_back)
{
    struct pool pool;
    pool_init(&pool, 100);
    void *kept = pool_alloc(&pool);
    for (int i = 0; i < COUNT; i++)
        pool_free(&pool, pool_alloc(&pool));
    ck_assert_uint_eq(pool.used, 1);
    pool_free(&pool, kept);
    ck_assert_ptr_null(pool.chunks);
    ck_assert_ptr_null(pool.free);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool");
    TCase *tcase = tcase_create("pool");
    tcase_add_test(tcase, objects_are_zeroed_aligned_and_apart);
    tcase_add_test(tcase, what_is_freed_is_used_again_and_the_last_one_gives_all_back);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
