#include "common/jwt-private.h"
#include "common/mem.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* 9999-12-31T23:59:59Z. A later date is a unit error (milliseconds), not a wish. */
#define NUMERIC_DATE_MAX_S 253402300799LL

static const struct {
    const char *name;
    size_t offset;
} BOOL_GRANTS[] =
    {
        {"roomCreate", offsetof(struct jwt_grants, room_create)},
        {"roomList", offsetof(struct jwt_grants, room_list)},
        {"roomRecord", offsetof(struct jwt_grants, room_record)},
        {"roomAdmin", offsetof(struct jwt_grants, room_admin)},
        {"roomJoin", offsetof(struct jwt_grants, room_join)},
        {"hidden", offsetof(struct jwt_grants, hidden)},
        {"recorder", offsetof(struct jwt_grants, recorder)},
        {"agent", offsetof(struct jwt_grants, agent)},
        {"ingressAdmin", offsetof(struct jwt_grants, ingress_admin)},
        {"sfu", offsetof(struct jwt_grants, sfu)},
},
  TRISTATE_GRANTS[] = {
      {"canPublish", offsetof(struct jwt_grants, can_publish)},
      {"canSubscribe", offsetof(struct jwt_grants, can_subscribe)},
      {"canPublishData", offsetof(struct jwt_grants, can_publish_data)},
      {"canUpdateOwnMetadata", offsetof(struct jwt_grants, can_update_own_metadata)},
};

/* The readers below return false if the claim is there and not what it should be; an absent claim leaves its target
 * alone. JSON null counts as wrong: a minter that writes `"canPublish": null` did not mean "allowed". */

static bool read_string(const json_t *object, const char *name, char **ret_text)
{
    const json_t *value = json_object_get(object, name);
    if (!value)
        return true;
    if (!json_is_string(value))
        return false;
    *ret_text = mem_strdup(json_string_value(value));
    return true;
}

/* An empty name is taken as absent: some SDKs write `"sub": ""` into server tokens. `ret_name` holds max_bytes + 1. */
static bool read_name(const json_t *object, const char *name, size_t max_bytes, char *ret_name)
{
    const json_t *value = json_object_get(object, name);
    if (!value)
        return true;
    const char *text = json_string_value(value);
    if (!text || (*text && !name_valid(text, max_bytes)))
        return false;
    memcpy(ret_name, text, strlen(text) + 1);
    return true;
}

static bool read_seconds(const json_t *object, const char *name, int64_t max_s, int64_t *ret_s)
{
    const json_t *value = json_object_get(object, name);
    if (!value)
        return true;
    if (!json_is_number(value))
        return false;
    if (json_is_integer(value)) {
        json_int_t whole_s = json_integer_value(value);
        if (whole_s < 0 || whole_s > max_s)
            return false;
        *ret_s = whole_s;
        return true;
    }
    double real_s = floor(json_real_value(value));
    if (!(real_s >= 0 && real_s <= (double)max_s))
        return false;
    *ret_s = (int64_t)real_s;
    return true;
}

static void free_strings(char **strings, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(strings[i]);
    free(strings);
}

/* Present, *ret_strings is never NULL, even if the array is empty. */
static bool read_strings(const json_t *object, const char *name, size_t max_count, char ***ret_strings,
                         size_t *ret_count)
{
    const json_t *array = json_object_get(object, name);
    if (!array)
        return true;
    size_t count = json_array_size(array);
    if (!json_is_array(array) || count > max_count)
        return false;
    char **strings = mem_zalloc((count + 1) * sizeof *strings);
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(array, i));
        if (!text) {
            free_strings(strings, i);
            return false;
        }
        strings[i] = mem_strdup(text);
    }
    *ret_strings = strings;
    *ret_count = count;
    return true;
}

static bool read_attributes(const json_t *json, struct jwt_claims *claims)
{
    json_t *map = json_object_get(json, "attributes");
    if (!map)
        return true;
    size_t size = json_object_size(map);
    if (!json_is_object(map) || size > JWT_ATTRIBUTES_MAX)
        return false;
    claims->attributes = mem_zalloc((size + 1) * sizeof *claims->attributes);
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value)
    {
        if (!json_is_string(value))
            return false;
        claims->attributes[claims->attribute_count].key = mem_strdup(key);
        claims->attributes[claims->attribute_count].value = mem_strdup(json_string_value(value));
        claims->attribute_count++;
    }
    return true;
}

static bool read_flags(const json_t *json, struct jwt_grants *grants)
{
    for (size_t i = 0; i < sizeof BOOL_GRANTS / sizeof *BOOL_GRANTS; i++) {
        const json_t *value = json_object_get(json, BOOL_GRANTS[i].name);
        if (!value)
            continue;
        if (!json_is_boolean(value))
            return false;
        *(bool *)((char *)grants + BOOL_GRANTS[i].offset) = json_is_true(value);
    }
    for (size_t i = 0; i < sizeof TRISTATE_GRANTS / sizeof *TRISTATE_GRANTS; i++) {
        const json_t *value = json_object_get(json, TRISTATE_GRANTS[i].name);
        if (!value)
            continue;
        if (!json_is_boolean(value))
            return false;
        *(enum jwt_tristate *)((char *)grants + TRISTATE_GRANTS[i].offset) = json_is_true(value) ? GRANT_YES : GRANT_NO;
    }
    return true;
}

static bool read_grants(const json_t *json, struct jwt_grants *grants)
{
    const json_t *video = json_object_get(json, "video");
    if (!video)
        return true;
    if (!json_is_object(video) || !read_flags(video, grants) ||
        !read_name(video, "room", ROOM_NAME_MAX, grants->room) ||
        !read_strings(video, "canPublishSources", JWT_SOURCES_MAX, &grants->can_publish_sources,
                      &grants->can_publish_source_count) ||
        !read_strings(video, "regions", JWT_REGIONS_MAX, &grants->regions, &grants->region_count))
        return false;
    if (grants->can_publish_sources && grants->can_publish_source_count == 0) {
        free(grants->can_publish_sources);
        grants->can_publish_sources = NULL;
    }
    return true;
}

static bool read_registered(const json_t *json, struct jwt_claims *claims)
{
    const json_t *token_id = json_object_get(json, "jti");
    int64_t issued_s;
    return json_is_string(json_object_get(json, "iss")) && (!token_id || json_is_string(token_id)) &&
           json_object_get(json, "exp") && read_seconds(json, "exp", NUMERIC_DATE_MAX_S, &claims->expires_s) &&
           read_seconds(json, "nbf", NUMERIC_DATE_MAX_S, &claims->not_before_s) &&
           read_seconds(json, "iat", NUMERIC_DATE_MAX_S, &issued_s) &&
           read_name(json, "sub", IDENTITY_MAX, claims->identity);
}

/* 1 to the maximum, or absent. */
static bool read_percent(const json_t *json, const char *name, uint32_t *ret_percent)
{
    const json_t *value = json_object_get(json, name);
    if (!value)
        return true;
    if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > JWT_BUDGET_PERCENT_MAX)
        return false;
    *ret_percent = (uint32_t)json_integer_value(value);
    return true;
}

enum jwt_result jwt_claims_read(const json_t *json, struct jwt_claims *ret_claims)
{
    struct jwt_claims claims = {0};
    int64_t resume_window_s = 0;
    if (!read_registered(json, &claims) || !read_string(json, "name", &claims.name) ||
        !read_string(json, "metadata", &claims.metadata) || !read_attributes(json, &claims) ||
        !read_seconds(json, "resumeWindow", JWT_RESUME_WINDOW_MAX_S, &resume_window_s) ||
        !read_percent(json, "budgetPercent", &claims.budget_percent) ||
        !read_percent(json, "roomBudgetPercent", &claims.room_budget_percent) || !read_grants(json, &claims.video)) {
        jwt_claims_done(&claims);
        return JWT_CLAIMS;
    }
    claims.resume_window_s = (uint32_t)resume_window_s;
    *ret_claims = claims;
    return JWT_OK;
}

void jwt_claims_done(struct jwt_claims *claims)
{
    free(claims->name);
    free(claims->metadata);
    for (size_t i = 0; i < claims->attribute_count; i++) {
        free(claims->attributes[i].key);
        free(claims->attributes[i].value);
    }
    free(claims->attributes);
    free_strings(claims->video.can_publish_sources, claims->video.can_publish_source_count);
    free_strings(claims->video.regions, claims->video.region_count);
    *claims = (struct jwt_claims){0};
}
