/* Which tokens are taken: their shape, their algorithm, their signature, the key that it must be of. */
#include "jwt_fixture.h"
#include "suite.h"
#include <stdlib.h>
#include <string.h>

START_TEST(mint_round_trip)
{
    json_t *minted =
        json_pack("{s:s, s:s, s:I, s:f, s:i, s:i, s:{s:b, s:s, s:b, s:[s,s]}}", "iss", "API1", "sub", "sfu-1", "exp",
                  (json_int_t)NOW_S + 60, "resumeWindow", 45.5, "budgetPercent", 50, "roomBudgetPercent", 10000,
                  "video", "roomJoin", 1, "room", "eu/a", "sfu", 1, "regions", "eu", "us-east");
    char *token = jwt_mint(SECRET, minted);
    struct jwt_claims claims;
    ck_assert_int_eq(jwt_verify(ring, token, strlen(token), NOW_S, &claims), JWT_OK);
    ck_assert_str_eq(claims.project, "acme");
    ck_assert_str_eq(claims.identity, "sfu-1");
    ck_assert_int_eq(claims.expires_s, NOW_S + 60);
    ck_assert_int_eq(claims.not_before_s, 0);
    ck_assert_uint_eq(claims.resume_window_s, 45);
    ck_assert_uint_eq(claims.budget_percent, 50);
    ck_assert_uint_eq(claims.room_budget_percent, 10000);
    ck_assert(claims.video.sfu);
    ck_assert_uint_eq(claims.video.region_count, 2);
    ck_assert_str_eq(claims.video.regions[1], "us-east");
    jwt_claims_done(&claims);
    free(token);
    json_decref(minted);
}
END_TEST

START_TEST(malformed_shape)
{
    static const char *const texts[] = {"", ".", "..", "...", "a", "e30", "e30.e30", "e30.e30.e30.e30", "=.=.="};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        ck_assert_msg(verify_text(texts[i]) == JWT_MALFORMED, "'%s'", texts[i]);

    static const char *const suffixes[] = {".", "=", " ", "\n", ".AAAA"};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        struct buf token = hs256_token(HS256_HEADER, GOOD_CLAIMS, SECRET);
        buf_append_str(&token, suffixes[i]);
        ck_assert_msg(verify_buf(token) == JWT_MALFORMED, "suffix '%s'", suffixes[i]);
    }
    struct buf token = hs256_token(HS256_HEADER, GOOD_CLAIMS, SECRET);
    token.data[3] = '+';
    ck_assert_int_eq(verify_buf(token), JWT_MALFORMED);
    token = hs256_token(HS256_HEADER, GOOD_CLAIMS, SECRET);
    token.data[3] = '\0';
    ck_assert_int_eq(verify_buf(token), JWT_MALFORMED);
}
END_TEST

START_TEST(noncanonical_trailing_bits)
{
    struct buf token = hs256_token(HS256_HEADER, GOOD_CLAIMS, SECRET);
    /* 32 bytes leave two unused bits in the last character: the same MAC could be written in four ways. */
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint8_t *last = &token.data[token.size - 1];
    size_t value = (size_t)(strchr(alphabet, *last) - alphabet);
    ck_assert_uint_eq(value % 4, 0);
    *last = (uint8_t)alphabet[value + 1];
    ck_assert_int_eq(verify_buf(token), JWT_MALFORMED);
}
END_TEST

START_TEST(too_large)
{
    char text[JWT_TOKEN_MAX + 1];
    memset(text, 'A', sizeof text);
    ck_assert_int_eq(verify_at(text, JWT_TOKEN_MAX + 1, NOW_S), JWT_TOO_LARGE);
    ck_assert_int_eq(verify_at(text, JWT_TOKEN_MAX, NOW_S), JWT_MALFORMED);

    /* The largest token that is allowed is accepted. */
    struct buf claims = {0};
    buf_append_str(&claims, "{\"iss\":\"API1\",\"exp\":1900000100,\"metadata\":\"");
    while (claims.size < (JWT_TOKEN_MAX - 65) * 3 / 4 - 2)
        buf_append_char(&claims, 'x');
    buf_append_str(&claims, "\"}");
    struct buf token = hs256_token(HS256_HEADER, buf_str(&claims), SECRET);
    ck_assert_uint_ge(token.size, JWT_TOKEN_MAX - 2);
    ck_assert_uint_le(token.size, JWT_TOKEN_MAX);
    ck_assert_int_eq(verify_buf(token), JWT_OK);
    buf_done(&claims);
}
END_TEST

START_TEST(malformed_header)
{
    static const char *const headers[] = {
        "",
        "null",
        "[]",
        "\"HS256\"",
        "{\"alg\":\"HS256\"",
        "{\"alg\":\"HS256\"} x",
        "{\"alg\":\"HS256\",\"alg\":\"HS256\"}",
        "{\"alg\":\"HS256\",\"crit\":[\"exp\"],\"exp\":1}",
        "{\"alg\":\"HS256\",\"crit\":[]}",
        "{\"alg\":\"HS256\",\"kid\":7}",
        "{\"alg\":\"HS256\",\"typ\":7}",
        "{\"alg\":\"HS256\",\"x\":\"\xff\"}",
        "{\"alg\":\"HS256\",\"x\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}",
    };
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        ck_assert_msg(verify_buf(hs256_token(headers[i], GOOD_CLAIMS, SECRET)) == JWT_MALFORMED, "%s", headers[i]);
    ck_assert_int_eq(verify_buf(hs256_token("{\"typ\":\"JWT\",\"kid\":\"x\",\"alg\":\"HS256\"}", GOOD_CLAIMS, SECRET)),
                     JWT_OK);
}
END_TEST

START_TEST(algorithm_refused)
{
    struct buf token = unsigned_token("{\"alg\":\"none\"}", GOOD_CLAIMS);
    buf_append_char(&token, '.');
    ck_assert_int_eq(verify_buf(token), JWT_ALGORITHM);
    static const char *const headers[] = {
        "{}",
        "{\"alg\":null}",
        "{\"alg\":\"none\"}",
        "{\"alg\":\"hs256\"}",
        "{\"alg\":\"HS512\"}",
        "{\"alg\":\"RS256\"}",
        "{\"alg\":\"ES256\"}",
        "{\"alg\":[\"HS256\"]}",
    };
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        ck_assert_msg(verify_buf(hs256_token(headers[i], GOOD_CLAIMS, SECRET)) == JWT_ALGORITHM, "%s", headers[i]);
}
END_TEST

START_TEST(unknown_key)
{
    ck_assert_int_eq(verify_claims_at("{\"iss\":\"API2\",\"exp\":1900000100}", NOW_S), JWT_UNKNOWN_KEY);
    ck_assert_int_eq(verify_buf(hs256_token("{\"alg\":\"RS256\",\"kid\":\"gone\"}", GOOD_CLAIMS, SECRET)),
                     JWT_UNKNOWN_KEY);
    ck_assert_int_eq(verify_claims_at("{\"exp\":1900000100}", NOW_S), JWT_CLAIMS);
    ck_assert_int_eq(verify_claims_at("{\"iss\":1,\"exp\":1900000100}", NOW_S), JWT_CLAIMS);
}
END_TEST

START_TEST(kid_never_selects_a_secret)
{
    ck_assert_int_eq(jwt_keyring_add_secret(ring, "acme", "API2", SECRET "2", error, sizeof error), 0);
    const char *header = "{\"alg\":\"HS256\",\"kid\":\"API2\"}";
    ck_assert_int_eq(verify_buf(hs256_token(header, GOOD_CLAIMS, SECRET)), JWT_OK);
    ck_assert_int_eq(verify_buf(hs256_token(header, GOOD_CLAIMS, SECRET "2")), JWT_SIGNATURE);
}
END_TEST

START_TEST(signature_refused)
{
    ck_assert_int_eq(verify_buf(hs256_token(HS256_HEADER, GOOD_CLAIMS, SECRET "x")), JWT_SIGNATURE);
    struct buf token = unsigned_token(HS256_HEADER, GOOD_CLAIMS);
    buf_append_char(&token, '.');
    ck_assert_int_eq(verify_buf(token), JWT_SIGNATURE);

    /* A MAC with a byte too many, a truncated one, and claims swapped under a good one. */
    token = hs256_token(HS256_HEADER, GOOD_CLAIMS, SECRET);
    buf_append_char(&token, 'A');
    ck_assert_int_eq(verify_buf(token), JWT_SIGNATURE);
    token = hs256_token(HS256_HEADER, GOOD_CLAIMS, SECRET);
    token.size -= 3;
    token.data[token.size - 1] = 'A';
    ck_assert_int_eq(verify_buf(token), JWT_SIGNATURE);
    token = hs256_token(HS256_HEADER, GOOD_CLAIMS, SECRET);
    struct buf other = unsigned_token(HS256_HEADER, "{\"iss\":\"API1\",\"sub\":\"mally\",\"exp\":1900000100}");
    ck_assert_mem_eq(token.data, other.data, 20);
    memcpy(token.data, other.data, other.size);
    buf_done(&other);
    ck_assert_int_eq(verify_buf(token), JWT_SIGNATURE);
}
END_TEST

START_TEST(signature_comes_before_time_and_claims)
{
    ck_assert_int_eq(verify_buf(hs256_token(HS256_HEADER, "{\"iss\":\"API1\",\"exp\":1}", SECRET "x")), JWT_SIGNATURE);
    ck_assert_int_eq(verify_buf(hs256_token(HS256_HEADER, "{\"iss\":\"API1\",\"exp\":true}", SECRET "x")),
                     JWT_SIGNATURE);
}
END_TEST

START_TEST(keyring_rules)
{
    ck_assert_int_eq(jwt_keyring_add_secret(ring, "acme", "API1", SECRET, error, sizeof error), -1);
    ck_assert_ptr_nonnull(strstr(error, "API1"));
    ck_assert_int_eq(jwt_keyring_add_secret(ring, "acme", "API2", "devkey", error, sizeof error), -1);
    ck_assert_ptr_nonnull(strstr(error, "32"));
    ck_assert_int_eq(jwt_keyring_add_secret(ring, "acme", "", SECRET, error, sizeof error), -1);
    ck_assert_int_eq(jwt_keyring_add_secret(ring, "", "API2", SECRET, error, sizeof error), -1);
    char id[JWT_KEY_ID_MAX + 2];
    snprintf(id, sizeof id, "%0*d", JWT_KEY_ID_MAX + 1, 0);
    ck_assert_int_eq(jwt_keyring_add_secret(ring, "acme", id, SECRET, error, sizeof error), -1);
    ck_assert(jwt_keyring_has(ring, "API1"));
    ck_assert(!jwt_keyring_has(ring, "API2"));

    struct jwt_keyring *second = jwt_keyring_ref(ring);
    jwt_keyring_unref(&second);
    ck_assert_ptr_null(second);
    jwt_keyring_unref(&second);
    ck_assert_int_eq(verify_claims_at(GOOD_CLAIMS, NOW_S), JWT_OK);
}
END_TEST

START_TEST(result_texts)
{
    for (int i = JWT_OK; i >= JWT_CLAIMS; i--) {
        ck_assert_uint_gt(strlen(jwt_result_name(i)), 0);
        const char *text = jwt_result_text(i);
        ck_assert_int_eq(text[strlen(text) - 1], '.');
    }
    ck_assert_str_eq(jwt_result_name(JWT_UNKNOWN_KEY), "unknown_key");
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("tokens");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, mint_round_trip);
    tcase_add_test(tests, malformed_shape);
    tcase_add_test(tests, noncanonical_trailing_bits);
    tcase_add_test(tests, too_large);
    tcase_add_test(tests, malformed_header);
    tcase_add_test(tests, algorithm_refused);
    tcase_add_test(tests, unknown_key);
    tcase_add_test(tests, kid_never_selects_a_secret);
    tcase_add_test(tests, signature_refused);
    tcase_add_test(tests, signature_comes_before_time_and_claims);
    tcase_add_test(tests, keyring_rules);
    tcase_add_test(tests, result_texts);
    return suite_run("jwt", tests, NULL);
}
