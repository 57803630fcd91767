/* What a token says whose signature is good: LiveKit's grants, dates, types and bounds. */
#include "jwt_fixture.h"
#include "suite.h"
#include <stdio.h>
#include <string.h>

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

int main(void)
{
    TCase *tests = tcase_create("claims");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, livekit_publisher);
    tcase_add_test(tests, livekit_other_shapes);
    tcase_add_test(tests, empty_lists);
    tcase_add_test(tests, malformed_claims);
    tcase_add_test(tests, expiry);
    tcase_add_test(tests, not_before);
    tcase_add_test(tests, absurd_dates);
    tcase_add_test(tests, wrong_types);
    tcase_add_test(tests, bounds);
    return suite_run("jwt_claims", tests, NULL);
}
