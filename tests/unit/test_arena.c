#include "common/arena.h"

#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

START_TEST(pieces_are_aligned_and_apart)
{
    struct arena arena;
    arena_init(&arena, 1 << 20);
    uint8_t *pieces[200];
    for (size_t i = 0; i < 200; i++) {
        pieces[i] = arena_alloc(&arena, i);
        ck_assert_ptr_nonnull(pieces[i]);
        ck_assert_uint_eq((uintptr_t)pieces[i] % _Alignof(max_align_t), 0);
        memset(pieces[i], (int)i, i);
    }
    for (size_t i = 0; i < 200; i++)
        for (size_t j = 0; j < i; j++)
            ck_assert_uint_eq(pieces[i][j], i);
    arena_done(&arena);
}
END_TEST

START_TEST(refuses_past_its_limit)
{
    struct arena arena;
    arena_init(&arena, 1000);
    ck_assert_ptr_null(arena_alloc(&arena, 1001));
    ck_assert_ptr_null(arena_alloc(&arena, SIZE_MAX));
    ck_assert_ptr_null(arena_alloc(&arena, SIZE_MAX - 3));
    ck_assert_ptr_nonnull(arena_alloc(&arena, 900));
    ck_assert_ptr_null(arena_alloc(&arena, 101));
    ck_assert_ptr_null(arena_zalloc(&arena, 101));
    ck_assert_ptr_null(arena_strndup(&arena,
                                     "a string that is a little too long to fit into what is left of the "
                                     "thousand bytes, which is a hundred, less padding",
                                     200));
    ck_assert_ptr_nonnull(arena_alloc(&arena, 80));
    arena_reset(&arena);
    ck_assert_ptr_nonnull(arena_alloc(&arena, 900));
    arena_done(&arena);
}
END_TEST

START_TEST(empty_pieces_are_charged)
{
    struct arena arena;
    arena_init(&arena, 4096);
    int count = 0;
    while (arena_alloc(&arena, 0) != NULL)
        ck_assert_int_lt(count++, 4096);
    ck_assert_int_gt(count, 0);
    arena_done(&arena);
}
END_TEST

START_TEST(reset_starts_over)
{
    struct arena arena;
    arena_init(&arena, 1 << 20);
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < 100; i++)
            memset(arena_alloc(&arena, 1000), round, 1000);
        ck_assert_uint_ge(arena.used_bytes, 100000);
        arena_reset(&arena);
        ck_assert_uint_eq(arena.used_bytes, 0);
    }
    arena_done(&arena);
}
END_TEST

START_TEST(zalloc_clears_recycled_memory)
{
    struct arena arena;
    arena_init(&arena, 1 << 16);
    memset(arena_alloc(&arena, 500), 0xff, 500);
    arena_reset(&arena);
    const uint8_t *piece = arena_zalloc(&arena, 500);
    for (int i = 0; i < 500; i++)
        ck_assert_uint_eq(piece[i], 0);
    arena_done(&arena);
}
END_TEST

START_TEST(strndup_stops_at_either_end)
{
    struct arena arena;
    arena_init(&arena, 1 << 16);
    ck_assert_str_eq(arena_strndup(&arena, "abcdef", 3), "abc");
    ck_assert_str_eq(arena_strndup(&arena, "abc", 30), "abc");
    ck_assert_str_eq(arena_strndup(&arena, "", 0), "");
    arena_done(&arena);
}
END_TEST

START_TEST(works_as_protobuf_allocator)
{
    struct arena arena;
    arena_init(&arena, 100);
    ProtobufCAllocator *allocator = &arena.allocator;
    void *piece = allocator->alloc(allocator->allocator_data, 60);
    ck_assert_ptr_nonnull(piece);
    allocator->free(allocator->allocator_data, piece);
    memset(piece, 1, 60);
    ck_assert_ptr_null(allocator->alloc(allocator->allocator_data, 60));
    arena_done(&arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("arena");
    TCase *tcase = tcase_create("arena");
    tcase_add_test(tcase, pieces_are_aligned_and_apart);
    tcase_add_test(tcase, refuses_past_its_limit);
    tcase_add_test(tcase, empty_pieces_are_charged);
    tcase_add_test(tcase, reset_starts_over);
    tcase_add_test(tcase, zalloc_clears_recycled_memory);
    tcase_add_test(tcase, strndup_stops_at_either_end);
    tcase_add_test(tcase, works_as_protobuf_allocator);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
