#include "common/buf.h"
#include "common/jwt.h"
#include "common/mem.h"
#include <check.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NOW_S = 1900000000, LEEWAY_S = 10, BASE64URL = sodium_base64_VARIANT_URLSAFE_NO_PADDING };

#define SECRET "0123456789abcdef0123456789abcdef"
#define HS256_HEADER "{\"alg\":\"HS256\"}"
#define GOOD_CLAIMS "{\"iss\":\"API1\",\"sub\":\"alice\",\"exp\":1900000100}"

static struct jwt_keyring *ring;
static char error[512];

static void setup(void)
{
    ring = jwt_keyring_new(LEEWAY_S);
    ck_assert_int_eq(jwt_keyring_add_secret(ring, "acme", "API1", SECRET, error, sizeof error), 0);
}

static void teardown(void)
{
    jwt_keyring_unref(&ring);
}

static void append_part(struct buf *buf, const void *data, size_t size)
{
    char text[2 * JWT_TOKEN_MAX];
    buf_append_str(buf, sodium_bin2base64(text, sizeof text, data, size, BASE64URL));
}

static struct buf unsigned_token(const char *header, const char *claims)
{
    struct buf token = {0};
    append_part(&token, header, strlen(header));
    buf_append_char(&token, '.');
    append_part(&token, claims, strlen(claims));
    return token;
}

static struct buf hs256_token(const char *header, const char *claims, const char *secret)
{
    struct buf token = unsigned_token(header, claims);
    uint8_t mac[32];
    HMAC(EVP_sha256(), secret, (int)strlen(secret), token.data, token.size, mac, NULL);
    buf_append_char(&token, '.');
    append_part(&token, mac, sizeof mac);
    return token;
}

static enum jwt_result verify_at(const char *token, size_t size, int64_t wall_s)
{
    /* A heap copy without a NUL, so that the sanitizer sees any read past the end. */
    char *copy = mem_dup(token, size);
    struct jwt_claims claims, before;
    memset(&claims, 0x5a, sizeof claims);
    before = claims;
    enum jwt_result result = jwt_verify(ring, copy, size, wall_s, &claims);
    if (result == JWT_OK)
        jwt_claims_done(&claims);
    else
        ck_assert_msg(memcmp(&claims, &before, sizeof claims) == 0, "claims touched on failure");
    free(copy);
    return result;
}

static enum jwt_result verify_text(const char *token)
{
    return verify_at(token, strlen(token), NOW_S);
}

static enum jwt_result verify_buf(struct buf token)
{
    enum jwt_result result = verify_at((const char *)token.data, token.size, NOW_S);
    buf_done(&token);
    return result;
}

static enum jwt_result verify_claims_at(const char *claims, int64_t wall_s)
{
    struct buf token = hs256_token(HS256_HEADER, claims, SECRET);
    enum jwt_result result = verify_at((const char *)token.data, token.size, wall_s);
    buf_done(&token);
    return result;
}

/* iss and exp, plus `more`. */
static enum jwt_result verify_with(const char *more)
{
    struct buf claims = {0};
    buf_printf(&claims, "{\"iss\":\"API1\",\"exp\":1900000100,%s}", more);
    enum jwt_result result = verify_claims_at(buf_str(&claims), NOW_S);
    buf_done(&claims);
    return result;
}

static json_t *vectors_load(void)
{
    json_error_t parse_error;
    json_t *file = json_load_file(SBX_TEST_SOURCE_DIR "/vectors/jwt_livekit.json", 0, &parse_error);
    ck_assert_msg(file != NULL, "%s", parse_error.text);
    const char *key = json_string_value(json_object_get(file, "key"));
    const char *secret = json_string_value(json_object_get(file, "secret"));
    ck_assert_int_eq(jwt_keyring_add_secret(ring, "livekit", key, secret, error, sizeof error), 0);
    return file;
}

static struct jwt_claims vector_verify(const json_t *file, const char *name)
{
    size_t i;
    json_t *vector;
    struct jwt_claims claims = {0};
    json_array_foreach(json_object_get(file, "vectors"), i, vector)
    {
        if (strcmp(json_string_value(json_object_get(vector, "name")), name) != 0)
            continue;
        const char *token = json_string_value(json_object_get(vector, "token"));
        ck_assert_int_eq(jwt_verify(ring, token, strlen(token), NOW_S, &claims), JWT_OK);
        return claims;
    }
    ck_abort_msg("no vector %s", name);
}

START_TEST(livekit_publisher)
{
    json_t *file = vectors_load();
    struct jwt_claims claims = vector_verify(file, "publisher");
    ck_assert_str_eq(claims.project, "livekit");
    ck_assert_str_eq(claims.key_id, "APIvector");
    ck_assert_str_eq(claims.identity, "alice");
    ck_assert_str_eq(claims.name, "Alice");
    ck_assert_str_eq(claims.metadata, "{\"team\":\"blue\"}");
    ck_assert_uint_eq(claims.attribute_count, 2);
    bool host_first = strcmp(claims.attributes[0].key, "role") == 0;
    ck_assert_str_eq(claims.attributes[host_first ? 0 : 1].value, "host");
    ck_assert_str_eq(claims.attributes[host_first ? 1 : 0].value, "en");
    ck_assert_int_gt(claims.expires_s, 4900000000);
    ck_assert_int_gt(claims.not_before_s, 1700000000);
    ck_assert_uint_eq(claims.resume_window_s, 0);
    ck_assert(claims.video.room_join && !claims.video.hidden && !claims.video.room_admin && !claims.video.sfu);
    ck_assert_str_eq(claims.video.room, "standup");
    ck_assert_int_eq(claims.video.can_publish, GRANT_YES);
    ck_assert_int_eq(claims.video.can_update_own_metadata, GRANT_YES);
    ck_assert_uint_eq(claims.video.can_publish_source_count, 2);
    ck_assert_str_eq(claims.video.can_publish_sources[0], "camera");
    ck_assert_str_eq(claims.video.can_publish_sources[1], "microphone");
    ck_assert_ptr_null(claims.video.regions);
    jwt_claims_done(&claims);
    jwt_claims_done(&claims);
    json_decref(file);
}
END_TEST

START_TEST(livekit_other_shapes)
{
    json_t *file = vectors_load();
    struct jwt_claims claims = vector_verify(file, "viewer");
    ck_assert_str_eq(claims.video.room, "eu/standup");
    ck_assert(claims.video.hidden);
    ck_assert_int_eq(claims.video.can_publish, GRANT_NO);
    ck_assert_int_eq(claims.video.can_publish_data, GRANT_NO);
    ck_assert_int_eq(claims.video.can_subscribe, GRANT_ABSENT);
    jwt_claims_done(&claims);

    claims = vector_verify(file, "defaults");
    ck_assert_str_eq(claims.identity, "zoë ☎");
    ck_assert_int_eq(claims.video.can_publish, GRANT_ABSENT);
    ck_assert_ptr_null(claims.video.can_publish_sources);
    ck_assert_ptr_null(claims.name);
    jwt_claims_done(&claims);

    claims = vector_verify(file, "server");
    ck_assert_str_eq(claims.identity, "");
    ck_assert(claims.video.room_create && claims.video.room_list && claims.video.room_record &&
              claims.video.room_admin && claims.video.ingress_admin && !claims.video.room_join);
    jwt_claims_done(&claims);

    claims = vector_verify(file, "agent");
    ck_assert(claims.video.agent && claims.video.recorder);
    jwt_claims_done(&claims);

    claims = vector_verify(file, "no_grant");
    ck_assert(!claims.video.room_join);
    ck_assert_str_eq(claims.video.room, "");
    jwt_claims_done(&claims);
    json_decref(file);
}
END_TEST

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

START_TEST(empty_lists)
{
    struct buf token = hs256_token(HS256_HEADER,
                                   "{\"iss\":\"API1\",\"exp\":1900000100,\"sub\":\"\",\"attributes\":{},"
                                   "\"video\":{\"room\":\"\",\"canPublishSources\":[],\"regions\":[]}}",
                                   SECRET);
    struct jwt_claims claims;
    ck_assert_int_eq(jwt_verify(ring, (char *)token.data, token.size, NOW_S, &claims), JWT_OK);
    ck_assert_str_eq(claims.identity, "");
    ck_assert_ptr_null(claims.video.can_publish_sources); /* all sources, as at LiveKit */
    ck_assert_ptr_nonnull(claims.video.regions);          /* no region at all */
    ck_assert_uint_eq(claims.video.region_count, 0);
    jwt_claims_done(&claims);
    buf_done(&token);
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

START_TEST(malformed_claims)
{
    static const char *const claims[] = {
        "",
        "null",
        "[{\"iss\":\"API1\",\"exp\":1900000100}]",
        "{\"iss\":\"API1\",\"exp\":1900000100,\"exp\":1900000100}",
        "{\"iss\":\"API1\",\"exp\":1900000100,\"video\":{\"hidden\":true,\"hidden\":false}}",
        "{\"iss\":\"API1\",\"exp\":1900000100,\"x\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}",
        "{\"iss\":\"API1\",\"exp\":1900000100,\"name\":\"a\\u0000b\"}",
        "{\"iss\":\"API1\",\"exp\":1900000100,\"name\":\"\xc0\xaf\"}",
        "{\"iss\":\"API1\",\"exp\":99999999999999999999}",
        "{\"iss\":\"API1\",\"exp\":1e999}",
        "{\"iss\":\"API1\",\"exp\":NaN}",
    };
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++)
        ck_assert_msg(verify_claims_at(claims[i], NOW_S) == JWT_MALFORMED, "%s", claims[i]);
    /* Brackets inside strings do not count as nesting. */
    ck_assert_int_eq(verify_with("\"metadata\":\"[[[[[[[[[[[[[[[[[[[[\\\"[[[[[[[[\\\\\""), JWT_OK);
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

START_TEST(expiry)
{
    ck_assert_int_eq(verify_claims_at("{\"iss\":\"API1\",\"exp\":1000}", 1009), JWT_OK);
    ck_assert_int_eq(verify_claims_at("{\"iss\":\"API1\",\"exp\":1000}", 1010), JWT_EXPIRED);
    ck_assert_int_eq(verify_claims_at("{\"iss\":\"API1\",\"exp\":1000.9}", 1009), JWT_OK);
    ck_assert_int_eq(verify_claims_at("{\"iss\":\"API1\",\"exp\":1000.9}", 1010), JWT_EXPIRED);
    ck_assert_int_eq(verify_claims_at("{\"iss\":\"API1\",\"exp\":1.9000001e9}", NOW_S), JWT_OK);
    ck_assert_int_eq(verify_claims_at("{\"iss\":\"API1\",\"exp\":0}", NOW_S), JWT_EXPIRED);
}
END_TEST

START_TEST(not_before)
{
    ck_assert_int_eq(verify_claims_at("{\"iss\":\"API1\",\"exp\":2000,\"nbf\":1000}", 990), JWT_OK);
    ck_assert_int_eq(verify_claims_at("{\"iss\":\"API1\",\"exp\":2000,\"nbf\":1000}", 989), JWT_NOT_YET_VALID);
    ck_assert_int_eq(verify_claims_at("{\"iss\":\"API1\",\"exp\":2000,\"nbf\":1000.5}", 989), JWT_NOT_YET_VALID);
}
END_TEST

START_TEST(absurd_dates)
{
    static const char *const dates[] = {"-1",
                                        "-0.5",
                                        "253402300800",
                                        "9223372036854775807",
                                        "1e300",
                                        "1900000100000",
                                        "null",
                                        "false",
                                        "\"1900000100\"",
                                        "[]",
                                        "{}"};
    for (size_t i = 0; i < sizeof dates / sizeof *dates; i++) {
        char claims[128];
        snprintf(claims, sizeof claims, "{\"iss\":\"API1\",\"exp\":%s}", dates[i]);
        ck_assert_msg(verify_claims_at(claims, NOW_S) == JWT_CLAIMS, "%s", claims);
        snprintf(claims, sizeof claims, "{\"iss\":\"API1\",\"exp\":1900000100,\"nbf\":%s}", dates[i]);
        ck_assert_msg(verify_claims_at(claims, NOW_S) == JWT_CLAIMS, "%s", claims);
    }
    ck_assert_int_eq(verify_claims_at("{\"iss\":\"API1\"}", NOW_S), JWT_CLAIMS);
    ck_assert_int_eq(verify_claims_at("{\"iss\":\"API1\",\"exp\":253402300799}", NOW_S), JWT_OK);
}
END_TEST

START_TEST(wrong_types)
{
    static const char *const claims[] = {
        "\"sub\":1",
        "\"sub\":\"a\\nb\"",
        "\"name\":1",
        "\"name\":null",
        "\"metadata\":{}",
        "\"attributes\":[]",
        "\"attributes\":\"\"",
        "\"attributes\":{\"a\":\"b\",\"c\":1}",
        "\"iat\":\"1\"",
        "\"iat\":-1",
        "\"jti\":1",
        "\"resumeWindow\":\"30\"",
        "\"resumeWindow\":-1",
        "\"resumeWindow\":86401",
        "\"budgetPercent\":0",
        "\"budgetPercent\":1.5",
        "\"roomBudgetPercent\":10001",
        "\"roomBudgetPercent\":\"100\"",
        "\"video\":[]",
        "\"video\":null",
        "\"video\":{\"room\":1}",
        "\"video\":{\"room\":\"a\\u0001\"}",
        "\"video\":{\"canPublishSources\":\"camera\"}",
        "\"video\":{\"canPublishSources\":{}}",
        "\"video\":{\"canPublishSources\":[\"camera\",1]}",
        "\"video\":{\"regions\":null}",
        "\"video\":{\"regions\":[[]]}",
    };
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++)
        ck_assert_msg(verify_with(claims[i]) == JWT_CLAIMS, "%s", claims[i]);

    static const char *const flags[] = {"roomCreate",
                                        "roomList",
                                        "roomRecord",
                                        "roomAdmin",
                                        "roomJoin",
                                        "hidden",
                                        "recorder",
                                        "agent",
                                        "sfu",
                                        "ingressAdmin",
                                        "canPublish",
                                        "canSubscribe",
                                        "canPublishData",
                                        "canUpdateOwnMetadata"};
    static const char *const values[] = {"1", "\"true\"", "null", "{}"};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
            char more[128];
            snprintf(more, sizeof more, "\"video\":{\"%s\":%s}", flags[i], values[k]);
            ck_assert_msg(verify_with(more) == JWT_CLAIMS, "%s", more);
        }
    }
    ck_assert_int_eq(verify_with("\"unheardOf\":[1,{}],\"video\":{\"canDance\":7}"), JWT_OK);
}
END_TEST

/* `before`, then "0", "1", ... each followed by `value`, then `after`. */
static enum jwt_result verify_repeated(const char *before, const char *value, int count, const char *after)
{
    struct buf more = {0};
    buf_append_str(&more, before);
    for (int i = 0; i < count; i++) {
        buf_printf(&more, "%s\"%d\"%s", i ? "," : "", i, value);
    }
    buf_append_str(&more, after);
    enum jwt_result result = verify_with(buf_str(&more));
    buf_done(&more);
    return result;
}

START_TEST(bounds)
{
    ck_assert_int_eq(verify_repeated("\"attributes\":{", ":\"v\"", JWT_ATTRIBUTES_MAX, "}"), JWT_OK);
    ck_assert_int_eq(verify_repeated("\"attributes\":{", ":\"v\"", JWT_ATTRIBUTES_MAX + 1, "}"), JWT_CLAIMS);
    ck_assert_int_eq(verify_repeated("\"video\":{\"regions\":[", "", JWT_REGIONS_MAX, "]}"), JWT_OK);
    ck_assert_int_eq(verify_repeated("\"video\":{\"regions\":[", "", JWT_REGIONS_MAX + 1, "]}"), JWT_CLAIMS);
    const char *sources = "\"video\":{\"canPublishSources\":[";
    ck_assert_int_eq(verify_repeated(sources, "", JWT_SOURCES_MAX, "]}"), JWT_OK);
    ck_assert_int_eq(verify_repeated(sources, "", JWT_SOURCES_MAX + 1, "]}"), JWT_CLAIMS);
    char more[256];
    snprintf(more, sizeof more, "\"sub\":\"%0*d\"", IDENTITY_MAX, 0);
    ck_assert_int_eq(verify_with(more), JWT_OK);
    snprintf(more, sizeof more, "\"sub\":\"%0*d\"", IDENTITY_MAX + 1, 0);
    ck_assert_int_eq(verify_with(more), JWT_CLAIMS);
    snprintf(more, sizeof more, "\"video\":{\"room\":\"%0*d\"}", ROOM_NAME_MAX, 0);
    ck_assert_int_eq(verify_with(more), JWT_OK);
    snprintf(more, sizeof more, "\"video\":{\"room\":\"%0*d\"}", ROOM_NAME_MAX + 1, 0);
    ck_assert_int_eq(verify_with(more), JWT_CLAIMS);
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

/* Keys from a JWKS file. */

struct pair {
    const char *kid, *algorithm;
    EVP_PKEY *pkey;
};

static struct pair rsa, p256, ed25519;

static char *bn_text(const EVP_PKEY *pkey, const char *param, size_t size)
{
    uint8_t bytes[512];
    char text[1024];
    BIGNUM *number = NULL;
    ck_assert_int_eq(EVP_PKEY_get_bn_param(pkey, param, &number), 1);
    if (size == 0)
        size = (size_t)BN_num_bytes(number);
    BN_bn2binpad(number, bytes, (int)size);
    BN_free(number);
    return mem_strdup(sodium_bin2base64(text, sizeof text, bytes, size, BASE64URL));
}

static json_t *jwk_make(const struct pair *pair)
{
    json_t *jwk = json_pack("{s:s}", "kid", pair->kid);
    char *a = NULL, *b = NULL;
    if (EVP_PKEY_is_a(pair->pkey, "RSA")) {
        a = bn_text(pair->pkey, OSSL_PKEY_PARAM_RSA_N, 0);
        b = bn_text(pair->pkey, OSSL_PKEY_PARAM_RSA_E, 0);
        json_object_update_new(jwk, json_pack("{s:s, s:s, s:s, s:s}", "kty", "RSA", "n", a, "e", b, "use", "sig"));
    } else if (EVP_PKEY_is_a(pair->pkey, "EC")) {
        a = bn_text(pair->pkey, OSSL_PKEY_PARAM_EC_PUB_X, 32);
        b = bn_text(pair->pkey, OSSL_PKEY_PARAM_EC_PUB_Y, 32);
        json_object_update_new(
            jwk, json_pack("{s:s, s:s, s:s, s:s, s:s}", "kty", "EC", "crv", "P-256", "x", a, "y", b, "alg", "ES256"));
    } else {
        uint8_t point[32];
        char text[64];
        size_t size = sizeof point;
        EVP_PKEY_get_raw_public_key(pair->pkey, point, &size);
        json_object_update_new(jwk, json_pack("{s:s, s:s, s:s, s:[s]}", "kty", "OKP", "crv", "Ed25519", "x",
                                              sodium_bin2base64(text, sizeof text, point, size, BASE64URL), "key_ops",
                                              "verify"));
    }
    free(a);
    free(b);
    return jwk;
}

/* Writes `text` to a file, adds it to the ring, removes it. */
static int add_jwks_text(const char *text)
{
    char path[] = "/tmp/sbx-test-jwks-XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    error[0] = '\0';
    int result = jwt_keyring_add_jwks_file(ring, "idp", path, error, sizeof error);
    ck_assert_msg(result == 0 || strstr(error, path), "the error names no file: %s", error);
    unlink(path);
    return result;
}

/* Takes the reference to `keys`. */
static int add_jwks(json_t *keys)
{
    json_t *set = json_pack("{s:o}", "keys", keys);
    char *text = json_dumps(set, 0);
    int result = add_jwks_text(text);
    free(text);
    json_decref(set);
    return result;
}

static struct buf signed_token(const struct pair *pair, const char *header, const char *claims)
{
    struct buf token = unsigned_token(header, claims);
    uint8_t signature[512];
    size_t size = sizeof signature;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    const EVP_MD *digest = EVP_PKEY_is_a(pair->pkey, "ED25519") ? NULL : EVP_sha256();
    ck_assert_int_eq(EVP_DigestSignInit(md, NULL, digest, NULL, pair->pkey), 1);
    ck_assert_int_eq(EVP_DigestSign(md, signature, &size, token.data, token.size), 1);
    EVP_MD_CTX_free(md);
    if (EVP_PKEY_is_a(pair->pkey, "EC")) {
        const uint8_t *der = signature;
        ECDSA_SIG *rs = d2i_ECDSA_SIG(NULL, &der, (long)size);
        uint8_t raw[64];
        BN_bn2binpad(ECDSA_SIG_get0_r(rs), raw, 32);
        BN_bn2binpad(ECDSA_SIG_get0_s(rs), raw + 32, 32);
        ECDSA_SIG_free(rs);
        memcpy(signature, raw, sizeof raw);
        size = sizeof raw;
    }
    buf_append_char(&token, '.');
    append_part(&token, signature, size);
    return token;
}

static void keys_make(void)
{
    rsa = (struct pair){"rsa-1", "RS256", EVP_RSA_gen(2048)};
    p256 = (struct pair){"ec-1", "ES256", EVP_EC_gen("P-256")};
    ed25519 = (struct pair){"ed-1", "EdDSA", EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")};
}

static void keys_free(void)
{
    EVP_PKEY_free(rsa.pkey);
    EVP_PKEY_free(p256.pkey);
    EVP_PKEY_free(ed25519.pkey);
}

static void setup_jwks(void)
{
    setup();
    ck_assert_msg(add_jwks(json_pack("[o,o,o]", jwk_make(&rsa), jwk_make(&p256), jwk_make(&ed25519))) == 0, "%s",
                  error);
}

static const struct pair *const PAIRS[] = {&rsa, &p256, &ed25519};

START_TEST(jwks_accepts)
{
    const struct pair *pair = PAIRS[_i];
    char header[128], claims_text[128];
    snprintf(header, sizeof header, "{\"alg\":\"%s\",\"kid\":\"%s\",\"typ\":\"JWT\"}", pair->algorithm, pair->kid);
    struct buf token = signed_token(pair, header, "{\"iss\":\"https://idp\",\"exp\":1900000100,\"sub\":\"bob\"}");
    struct jwt_claims claims;
    ck_assert_int_eq(jwt_verify(ring, (char *)token.data, token.size, NOW_S, &claims), JWT_OK);
    ck_assert_str_eq(claims.project, "idp");
    ck_assert_str_eq(claims.key_id, pair->kid);
    ck_assert_str_eq(claims.identity, "bob");
    jwt_claims_done(&claims);
    buf_done(&token);

    /* Without a kid the issuer names the key. */
    snprintf(header, sizeof header, "{\"alg\":\"%s\"}", pair->algorithm);
    snprintf(claims_text, sizeof claims_text, "{\"iss\":\"%s\",\"exp\":1900000100}", pair->kid);
    ck_assert_int_eq(verify_buf(signed_token(pair, header, claims_text)), JWT_OK);
    ck_assert_int_eq(verify_buf(signed_token(pair, header, "{\"iss\":\"https://idp\",\"exp\":1900000100}")),
                     JWT_UNKNOWN_KEY);
    /* A kid does not replace the required issuer. */
    snprintf(header, sizeof header, "{\"alg\":\"%s\",\"kid\":\"%s\"}", pair->algorithm, pair->kid);
    ck_assert_int_eq(verify_buf(signed_token(pair, header, "{\"exp\":1900000100}")), JWT_CLAIMS);
}
END_TEST

START_TEST(jwks_signature_refused)
{
    const struct pair *pair = PAIRS[_i];
    char header[128];
    snprintf(header, sizeof header, "{\"alg\":\"%s\",\"kid\":\"%s\"}", pair->algorithm, pair->kid);
    struct buf token = signed_token(pair, header, GOOD_CLAIMS);
    size_t middle = token.size - 20;
    token.data[middle] = token.data[middle] == 'A' ? 'B' : 'A';
    ck_assert_int_eq(verify_buf(token), JWT_SIGNATURE);

    /* Four characters are three bytes: a shorter signature that is still good base64url, or none at all. */
    token = signed_token(pair, header, GOOD_CLAIMS);
    token.size -= 4;
    token.data[token.size - 1] = 'A';
    ck_assert_int_eq(verify_buf(token), JWT_SIGNATURE);
    token = unsigned_token(header, GOOD_CLAIMS);
    buf_append_char(&token, '.');
    ck_assert_int_eq(verify_buf(token), JWT_SIGNATURE);
}
END_TEST

START_TEST(jwks_algorithm_is_the_keys)
{
    const struct pair *pair = PAIRS[_i];
    static const char *const algorithms[] = {"HS256", "RS256", "ES256", "EdDSA", "none"};
    for (size_t i = 0; i < sizeof algorithms / sizeof *algorithms; i++) {
        if (strcmp(algorithms[i], pair->algorithm) == 0)
            continue;
        char header[128], claims[128];
        snprintf(header, sizeof header, "{\"alg\":\"%s\",\"kid\":\"%s\"}", algorithms[i], pair->kid);
        ck_assert_int_eq(verify_buf(signed_token(pair, header, GOOD_CLAIMS)), JWT_ALGORITHM);
        snprintf(header, sizeof header, "{\"alg\":\"%s\"}", algorithms[i]);
        snprintf(claims, sizeof claims, "{\"iss\":\"%s\",\"exp\":1900000100}", pair->kid);
        ck_assert_int_eq(verify_buf(signed_token(pair, header, claims)), JWT_ALGORITHM);
    }
}
END_TEST

START_TEST(hs256_with_the_public_key_as_secret)
{
    /* The classic confusion: the public key, which everybody has, used as an HMAC secret. */
    BIO *bio = BIO_new(BIO_s_mem());
    ck_assert_int_eq(PEM_write_bio_PUBKEY(bio, rsa.pkey), 1);
    char *pem;
    long size = BIO_get_mem_data(bio, &pem);
    char *secret = mem_strndup(pem, (size_t)size);
    BIO_free(bio);
    ck_assert_int_eq(verify_buf(hs256_token("{\"alg\":\"HS256\",\"kid\":\"rsa-1\"}", GOOD_CLAIMS, secret)),
                     JWT_ALGORITHM);
    ck_assert_int_eq(verify_buf(hs256_token(HS256_HEADER, "{\"iss\":\"rsa-1\",\"exp\":1900000100}", secret)),
                     JWT_ALGORITHM);
    free(secret);
}
END_TEST

START_TEST(es256_der_refused)
{
    struct buf token = unsigned_token("{\"alg\":\"ES256\",\"kid\":\"ec-1\"}", GOOD_CLAIMS);
    uint8_t signature[128];
    size_t size = sizeof signature;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    ck_assert_int_eq(EVP_DigestSignInit(md, NULL, EVP_sha256(), NULL, p256.pkey), 1);
    ck_assert_int_eq(EVP_DigestSign(md, signature, &size, token.data, token.size), 1);
    EVP_MD_CTX_free(md);
    buf_append_char(&token, '.');
    append_part(&token, signature, size);
    ck_assert_int_eq(verify_buf(token), JWT_SIGNATURE);

    /* r and s with a zero byte behind them: 64 bytes are 86 characters, 65 are 87. */
    token = signed_token(&p256, "{\"alg\":\"ES256\",\"kid\":\"ec-1\"}", GOOD_CLAIMS);
    buf_append_char(&token, 'A');
    ck_assert_int_eq(verify_buf(token), JWT_SIGNATURE);

    /* r = s = 0, the signature that broken verifiers take for any message. */
    token = unsigned_token("{\"alg\":\"ES256\",\"kid\":\"ec-1\"}", GOOD_CLAIMS);
    memset(signature, 0, 64);
    buf_append_char(&token, '.');
    append_part(&token, signature, 64);
    ck_assert_int_eq(verify_buf(token), JWT_SIGNATURE);
}
END_TEST

static json_t *without(json_t *jwk, const char *name)
{
    json_object_del(jwk, name);
    return jwk;
}

static json_t *with(json_t *jwk, const char *name, const char *value)
{
    json_object_set_new(jwk, name, json_string(value));
    return jwk;
}

START_TEST(jwks_refuses)
{
    ck_assert_int_eq(jwt_keyring_add_jwks_file(ring, "idp", "/nonexistent/jwks.json", error, sizeof error), -1);
    ck_assert_ptr_nonnull(strstr(error, "No such file"));
    ck_assert_int_eq(add_jwks_text("{\"keys\":[\n}"), -1);
    ck_assert_ptr_nonnull(strstr(error, "line 2"));
    ck_assert_int_eq(add_jwks_text("{}"), -1);
    ck_assert_int_eq(add_jwks_text("[]"), -1);
    ck_assert_int_eq(add_jwks_text("{\"keys\":[]}"), -1);
    ck_assert_int_eq(add_jwks_text("{\"keys\":[7]}"), -1);

    ck_assert_int_eq(add_jwks(json_pack("[o]", without(jwk_make(&rsa), "kid"))), -1);
    ck_assert_ptr_nonnull(strstr(error, "kid"));
    ck_assert_int_eq(add_jwks(json_pack("[o]", with(jwk_make(&rsa), "kid", ""))), -1);
    ck_assert_int_eq(add_jwks(json_pack("[o]", with(jwk_make(&rsa), "kid", "API1"))), -1);
    ck_assert_int_eq(add_jwks(json_pack("[o]", with(jwk_make(&p256), "d", "AA"))), -1);
    ck_assert_ptr_nonnull(strstr(error, "private"));
    ck_assert_int_eq(add_jwks(json_pack("[o]", without(jwk_make(&rsa), "n"))), -1);
    ck_assert_int_eq(add_jwks(json_pack("[o]", with(jwk_make(&rsa), "e", "AA"))), -1);
    ck_assert_int_eq(add_jwks(json_pack("[o]", with(jwk_make(&rsa), "n", "not base64"))), -1);
    ck_assert_int_eq(add_jwks(json_pack("[o]", with(jwk_make(&p256), "x", "AA"))), -1);
    ck_assert_int_eq(add_jwks(json_pack("[o]", without(jwk_make(&p256), "y"))), -1);
    ck_assert_int_eq(add_jwks(json_pack("[o]", with(jwk_make(&ed25519), "x", "AAAA"))), -1);
    json_t *off_curve = jwk_make(&p256);
    json_object_set(off_curve, "y", json_object_get(off_curve, "x"));
    ck_assert_int_eq(add_jwks(json_pack("[o]", off_curve)), -1);

    struct pair weak = {"weak", "RS256", EVP_RSA_gen(1024)};
    ck_assert_int_eq(add_jwks(json_pack("[o]", jwk_make(&weak))), -1);
    ck_assert_ptr_nonnull(strstr(error, "2048"));
    /* All or nothing: the good key before the bad one is not kept. */
    ck_assert_int_eq(add_jwks(json_pack("[o,o]", jwk_make(&ed25519), jwk_make(&weak))), -1);
    ck_assert(!jwt_keyring_has(ring, "ed-1"));
    ck_assert(jwt_keyring_has(ring, "API1"));
    EVP_PKEY_free(weak.pkey);
}
END_TEST

START_TEST(jwks_passes_over_other_keys)
{
    json_t *others =
        json_pack("[o,o,o,{s:s,s:s,s:s}]", with(jwk_make(&rsa), "use", "enc"), with(jwk_make(&rsa), "alg", "RS512"),
                  with(jwk_make(&p256), "crv", "P-384"), "kty", "oct", "kid", "shared", "k", "c2VjcmV0");
    json_t *signs_only = jwk_make(&ed25519);
    json_object_set_new(signs_only, "key_ops", json_pack("[s]", "sign"));
    json_array_append_new(others, signs_only);
    ck_assert_int_eq(add_jwks(json_incref(others)), -1);
    ck_assert_ptr_nonnull(strstr(error, "no array `keys` with"));
    json_array_append_new(others, jwk_make(&ed25519));
    ck_assert_msg(add_jwks(others) == 0, "%s", error);
    ck_assert(jwt_keyring_has(ring, "ed-1"));
    ck_assert(!jwt_keyring_has(ring, "rsa-1"));
    ck_assert(!jwt_keyring_has(ring, "shared"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("jwt");
    TCase *tokens = tcase_create("tokens");
    tcase_add_checked_fixture(tokens, setup, teardown);
    tcase_add_test(tokens, livekit_publisher);
    tcase_add_test(tokens, livekit_other_shapes);
    tcase_add_test(tokens, mint_round_trip);
    tcase_add_test(tokens, empty_lists);
    tcase_add_test(tokens, malformed_shape);
    tcase_add_test(tokens, noncanonical_trailing_bits);
    tcase_add_test(tokens, too_large);
    tcase_add_test(tokens, malformed_header);
    tcase_add_test(tokens, malformed_claims);
    tcase_add_test(tokens, algorithm_refused);
    tcase_add_test(tokens, unknown_key);
    tcase_add_test(tokens, kid_never_selects_a_secret);
    tcase_add_test(tokens, signature_refused);
    tcase_add_test(tokens, signature_comes_before_time_and_claims);
    tcase_add_test(tokens, expiry);
    tcase_add_test(tokens, not_before);
    tcase_add_test(tokens, absurd_dates);
    tcase_add_test(tokens, wrong_types);
    tcase_add_test(tokens, bounds);
    tcase_add_test(tokens, keyring_rules);
    tcase_add_test(tokens, result_texts);
    suite_add_tcase(suite, tokens);

    TCase *jwks = tcase_create("jwks");
    tcase_set_timeout(jwks, 60); /* RSA keys under a sanitizer */
    tcase_add_unchecked_fixture(jwks, keys_make, keys_free);
    tcase_add_checked_fixture(jwks, setup_jwks, teardown);
    tcase_add_loop_test(jwks, jwks_accepts, 0, 3);
    tcase_add_loop_test(jwks, jwks_signature_refused, 0, 3);
    tcase_add_loop_test(jwks, jwks_algorithm_is_the_keys, 0, 3);
    tcase_add_test(jwks, hs256_with_the_public_key_as_secret);
    tcase_add_test(jwks, es256_der_refused);
    suite_add_tcase(suite, jwks);

    TCase *files = tcase_create("files");
    tcase_set_timeout(files, 60);
    tcase_add_unchecked_fixture(files, keys_make, keys_free);
    tcase_add_checked_fixture(files, setup, teardown);
    tcase_add_test(files, jwks_refuses);
    tcase_add_test(files, jwks_passes_over_other_keys);
    suite_add_tcase(suite, files);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
