#include "common/crypto_memory.h"
#include <check.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE_MAX_BYTES = 40000, SIZES_MAX = 2000, MANY = 2000, BOUND_BYTES = 512 * 1024 };

#ifdef SBX_NO_POOLS
enum { KEEPS = 0 };
#else
enum { KEEPS = 1 };
#endif

START_TEST(what_was_freed_serves_the_next)
{
    static const size_t sizes[] = {1, 24, 40, 200, 1024, 16704, 32768};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *first = OPENSSL_malloc(sizes[i]);
        OPENSSL_free(first);
        size_t kept = crypto_memory_kept_bytes();
        void *second = OPENSSL_malloc(sizes[i]);
        if (KEEPS) {
            ck_assert_ptr_eq(first, second);
            ck_assert_uint_lt(crypto_memory_kept_bytes(), kept);
        }
        OPENSSL_free(second);
    }
}
END_TEST

static size_t next_size(size_t size)
{
    return size < 1100 ? size + 1 : size + 397;
}

/* Everything is written to its end: too small a piece would break the heap, or its neighbour. */
START_TEST(every_size_has_its_bytes)
{
    static uint8_t *pieces[SIZES_MAX];
    for (int round = 0; round < 3; round++) {
        size_t count = 0;
        for (size_t size = 1; size < SIZE_MAX_BYTES; size = next_size(size), count++) {
            pieces[count] = OPENSSL_malloc(size);
            memset(pieces[count], (int)(size & 0xff), size);
        }
        for (size_t i = 0, size = 1; i < count; i++, size = next_size(size)) {
            ck_assert_uint_eq(pieces[i][0], size & 0xff);
            ck_assert_uint_eq(pieces[i][size - 1], size & 0xff);
            pieces[i] = OPENSSL_realloc(pieces[i], size + 100);
            ck_assert_uint_eq(pieces[i][size - 1], size & 0xff);
        }
        for (size_t i = 0; i < count; i++)
            OPENSSL_free(pieces[i]);
    }
}
END_TEST

START_TEST(what_is_kept_is_bounded_and_given_back)
{
    static void *pieces[MANY];
    for (size_t i = 0; i < MANY; i++)
        pieces[i] = OPENSSL_malloc(i % 2 == 0 ? 900 : 17000);
    for (size_t i = 0; i < MANY; i++)
        OPENSSL_free(pieces[i]);
    if (KEEPS)
        ck_assert_uint_gt(crypto_memory_kept_bytes(), 0);
    ck_assert_uint_le(crypto_memory_kept_bytes(), BOUND_BYTES);
    crypto_memory_give_back();
    ck_assert_uint_eq(crypto_memory_kept_bytes(), 0);
    OPENSSL_free(OPENSSL_malloc(900));
}
END_TEST

START_TEST(openssl_works_with_it)
{
    uint8_t digest[EVP_MAX_MD_SIZE], again[EVP_MAX_MD_SIZE];
    unsigned size;
    ck_assert_int_eq(EVP_Digest("signalbox", 9, digest, &size, EVP_sha256(), NULL), 1);
    for (int i = 0; i < 100; i++) {
        ck_assert_int_eq(EVP_Digest("signalbox", 9, again, &size, EVP_sha256(), NULL), 1);
        ck_assert_mem_eq(digest, again, size);
    }
}
END_TEST

int main(void)
{
    crypto_memory_begin();
    Suite *suite = suite_create("crypto_memory");
    TCase *tcase = tcase_create("all");
    tcase_add_test(tcase, what_was_freed_serves_the_next);
    tcase_add_test(tcase, every_size_has_its_bytes);
    tcase_add_test(tcase, what_is_kept_is_bounded_and_given_back);
    tcase_add_test(tcase, openssl_works_with_it);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
