#include "common/mem.h"
#include "common/token.h"
#include "proto/cluster.pb-c.h"
#include <check.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum { NOW_S = 1900000000, BASE64URL = sodium_base64_VARIANT_URLSAFE_NO_PADDING };

static struct token_keys keys;

static void setup(void)
{
    token_key_init(&keys, "the cluster's secret", NULL);
}

static void fill(char *text, size_t capacity)
{
    memset(text, 'x', capacity - 1);
    text[capacity - 1] = '\0';
}

/* Every field at its greatest, so that the round trip also shows that the largest token fits. */
static struct resume_token largest(void)
{
    struct resume_token token;
    memset(&token, 0xff, sizeof token);
    fill(token.project, sizeof token.project);
    fill(token.room, sizeof token.room);
    fill(token.identity, sizeof token.identity);
    fill(token.key_id, sizeof token.key_id);
    token.grants_size = sizeof token.grants;
    token.kind = SIGNALBOX__V1__PARTICIPANT__KIND__AGENT;
    token.joined_at_ms = token.access_expires_s = token.expires_s = INT64_MAX;
    return token;
}

static struct resume_token ordinary(void)
{
    struct resume_token token = {
        .project = "acme",
        .room = "eu/standup",
        .identity = "zoë",
        .epoch_view_generation = 1,
        .epoch_view_seq = 2,
        .epoch_counter = 3,
        .epoch_incarnation = 0x0123456789abcdef,
        .join_seq = 5,
        .bind_generation = 6,
        .expires_s = NOW_S + 30,
        .key_id = "API1",
        .grants = {0x08, 0x01},
        .grants_size = 2,
        .kind = SIGNALBOX__V1__PARTICIPANT__KIND__VIEWER,
        .joined_at_ms = 1900000000123,
        .access_expires_s = NOW_S + 600,
        .resume_window_ms = 30000,
    };
    sid_random(&token.sid);
    return token;
}

static enum resume_token_result open_text(const char *text, size_t size, int64_t wall_s)
{
    char *copy = mem_dup(text, size); /* without a NUL, for the sanitizer */
    struct resume_token token, before;
    memset(&token, 0x5a, sizeof token);
    before = token;
    enum resume_token_result result = resume_token_open(&keys, copy, size, wall_s, &token);
    if (result != RESUME_TOKEN_OK)
        ck_assert_msg(memcmp(&token, &before, sizeof token) == 0, "token touched on failure");
    free(copy);
    return result;
}

static void assert_same(const struct resume_token *a, const struct resume_token *b)
{
    ck_assert(sid_equal(&a->sid, &b->sid));
    ck_assert_str_eq(a->project, b->project);
    ck_assert_str_eq(a->room, b->room);
    ck_assert_str_eq(a->identity, b->identity);
    ck_assert_str_eq(a->key_id, b->key_id);
    ck_assert_uint_eq(a->epoch_view_generation, b->epoch_view_generation);
    ck_assert_uint_eq(a->epoch_view_seq, b->epoch_view_seq);
    ck_assert_uint_eq(a->epoch_counter, b->epoch_counter);
    ck_assert_uint_eq(a->epoch_incarnation, b->epoch_incarnation);
    ck_assert_uint_eq(a->join_seq, b->join_seq);
    ck_assert_uint_eq(a->bind_generation, b->bind_generation);
    ck_assert_int_eq(a->expires_s, b->expires_s);
    ck_assert_uint_eq(a->grants_size, b->grants_size);
    ck_assert_mem_eq(a->grants, b->grants, a->grants_size);
    ck_assert_uint_eq(a->kind, b->kind);
    ck_assert_int_eq(a->joined_at_ms, b->joined_at_ms);
    ck_assert_int_eq(a->access_expires_s, b->access_expires_s);
    ck_assert_uint_eq(a->resume_window_ms, b->resume_window_ms);
}

START_TEST(round_trip)
{
    struct resume_token tokens[] = {ordinary(), largest(), {.expires_s = NOW_S + 1}};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        char *text = resume_token_seal(&keys, &tokens[i]);
        ck_assert_uint_le(strlen(text), RESUME_TOKEN_TEXT_MAX);
        struct resume_token opened;
        ck_assert_int_eq(resume_token_open(&keys, text, strlen(text), NOW_S, &opened), RESUME_TOKEN_OK);
        assert_same(&tokens[i], &opened);
        free(text);
    }
}
END_TEST

START_TEST(opaque_and_never_the_same_twice)
{
    struct resume_token token = ordinary();
    char *first = resume_token_seal(&keys, &token), *second = resume_token_seal(&keys, &token);
    ck_assert_str_ne(first, second);
    uint8_t bytes[RESUME_TOKEN_TEXT_MAX];
    size_t size;
    ck_assert_int_eq(sodium_base642bin(bytes, sizeof bytes, first, strlen(first), NULL, &size, NULL, BASE64URL), 0);
    ck_assert_ptr_null(memmem(bytes, size, "standup", 7));
    ck_assert_ptr_null(memmem(bytes, size, token.sid.bytes, sizeof token.sid.bytes));
    free(first);
    free(second);
}
END_TEST

START_TEST(expired)
{
    struct resume_token token = ordinary();
    char *text = resume_token_seal(&keys, &token);
    ck_assert_int_eq(open_text(text, strlen(text), NOW_S + 29), RESUME_TOKEN_OK);
    ck_assert_int_eq(open_text(text, strlen(text), NOW_S + 30), RESUME_TOKEN_EXPIRED);
    free(text);
}
END_TEST

START_TEST(malformed)
{
    char text[RESUME_TOKEN_TEXT_MAX + 4];
    memset(text, 'A', sizeof text);
    ck_assert_int_eq(open_text(text, 0, NOW_S), RESUME_TOKEN_MALFORMED);
    ck_assert_int_eq(open_text(text, 55, NOW_S), RESUME_TOKEN_MALFORMED); /* 41 bytes: one short of nonce and tag */
    ck_assert_int_eq(open_text(text, 56, NOW_S), RESUME_TOKEN_VERSION);
    ck_assert_int_eq(open_text(text, RESUME_TOKEN_TEXT_MAX, NOW_S), RESUME_TOKEN_VERSION);
    ck_assert_int_eq(open_text(text, RESUME_TOKEN_TEXT_MAX + 4, NOW_S), RESUME_TOKEN_MALFORMED);
    text[7] = '=';
    ck_assert_int_eq(open_text(text, 56, NOW_S), RESUME_TOKEN_MALFORMED);
    text[7] = '\0';
    ck_assert_int_eq(open_text(text, 56, NOW_S), RESUME_TOKEN_MALFORMED);
}
END_TEST

START_TEST(every_changed_bit_is_noticed)
{
    struct resume_token token = ordinary();
    char *text = resume_token_seal(&keys, &token);
    uint8_t bytes[RESUME_TOKEN_TEXT_MAX];
    size_t size;
    sodium_base642bin(bytes, sizeof bytes, text, strlen(text), NULL, &size, NULL, BASE64URL);
    free(text);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        char changed[2 * RESUME_TOKEN_TEXT_MAX];
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        sodium_bin2base64(changed, sizeof changed, bytes, size, BASE64URL);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert_int_eq(open_text(changed, strlen(changed), NOW_S),
                         bit < 8 ? RESUME_TOKEN_VERSION : RESUME_TOKEN_FORGED);
    }
}
END_TEST

START_TEST(rotation)
{
    struct resume_token token = ordinary();
    char *old_text = resume_token_seal(&keys, &token);
    token_key_init(&keys, "the next secret", "the cluster's secret");
    char *new_text = resume_token_seal(&keys, &token);
    ck_assert_int_eq(open_text(old_text, strlen(old_text), NOW_S), RESUME_TOKEN_OK);
    ck_assert_int_eq(open_text(new_text, strlen(new_text), NOW_S), RESUME_TOKEN_OK);
    token_key_init(&keys, "the next secret", NULL);
    ck_assert_int_eq(open_text(old_text, strlen(old_text), NOW_S), RESUME_TOKEN_FORGED);
    ck_assert_int_eq(open_text(new_text, strlen(new_text), NOW_S), RESUME_TOKEN_OK);
    /* Two secrets whose ids collide are told apart by the tag. */
    token_key_init(&keys, "yet another", "the next secret");
    keys.keys[0].id = keys.keys[1].id;
    ck_assert_int_eq(open_text(new_text, strlen(new_text), NOW_S), RESUME_TOKEN_OK);
    free(old_text);
    free(new_text);
}
END_TEST

/* Seals content of any kind, as a newer or a broken release might. */
static enum resume_token_result open_content(const uint8_t *content, size_t size)
{
    uint8_t sealed[RESUME_TOKEN_TEXT_MAX] = {1, keys.keys[0].id};
    unsigned long long cipher_size;
    crypto_aead_xchacha20poly1305_ietf_encrypt(sealed + 26, &cipher_size, content, size, sealed, 2, NULL, sealed + 2,
                                               keys.keys[0].bytes);
    char text[2 * RESUME_TOKEN_TEXT_MAX];
    sodium_bin2base64(text, sizeof text, sealed, 26 + (size_t)cipher_size, BASE64URL);
    return open_text(text, strlen(text), NOW_S);
}

static enum resume_token_result open_message(const Signalbox__Cluster__V1__ResumeToken *message)
{
    uint8_t content[RESUME_TOKEN_TEXT_MAX];
    return open_content(content, signalbox__cluster__v1__resume_token__pack(message, content));
}

START_TEST(authentic_but_unusable)
{
    uint8_t sid[17] = {0}, grants[RESUME_TOKEN_GRANTS_MAX + 1] = {0};
    char project[PROJECT_MAX + 2];
    fill(project, sizeof project);
    Signalbox__Cluster__V1__Epoch epoch = SIGNALBOX__CLUSTER__V1__EPOCH__INIT;
    Signalbox__Cluster__V1__ResumeToken good = SIGNALBOX__CLUSTER__V1__RESUME_TOKEN__INIT, bad;
    good.version = 1;
    good.sid = (ProtobufCBinaryData){16, sid};
    good.epoch = &epoch;
    good.expires_s = NOW_S + 1;
    ck_assert_int_eq(open_message(&good), RESUME_TOKEN_OK);
    bad = good;
    bad.version = 2;
    ck_assert_int_eq(open_message(&bad), RESUME_TOKEN_VERSION);
    bad = good;
    bad.sid.len = 15;
    ck_assert_int_eq(open_message(&bad), RESUME_TOKEN_MALFORMED);
    bad.sid.len = 17;
    ck_assert_int_eq(open_message(&bad), RESUME_TOKEN_MALFORMED);
    bad = good;
    bad.epoch = NULL;
    ck_assert_int_eq(open_message(&bad), RESUME_TOKEN_MALFORMED);
    bad = good;
    bad.project = project;
    ck_assert_int_eq(open_message(&bad), RESUME_TOKEN_MALFORMED);
    bad = good;
    bad.grants = (ProtobufCBinaryData){sizeof grants, grants};
    ck_assert_int_eq(open_message(&bad), RESUME_TOKEN_MALFORMED);
    ck_assert_int_eq(open_content((const uint8_t *)"\xff\xff", 2), RESUME_TOKEN_MALFORMED);
    ck_assert_int_eq(open_content(NULL, 0), RESUME_TOKEN_VERSION);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("token");
    TCase *tcase = tcase_create("token");
    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_test(tcase, round_trip);
    tcase_add_test(tcase, opaque_and_never_the_same_twice);
    tcase_add_test(tcase, expired);
    tcase_add_test(tcase, malformed);
    tcase_add_test(tcase, every_changed_bit_is_noticed);
    tcase_add_test(tcase, rotation);
    tcase_add_test(tcase, authentic_but_unusable);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
