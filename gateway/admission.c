/* What a token allows: the same checks before the upgrade (HTTP status) and after it (close code). */
#include "common/metrics.h"
#include "gateway/internal.h"
#include <stdio.h>
#include <string.h>

static bool refuse(struct refusal *refusal, int http_status, uint16_t close_code, Signalbox__V1__Code code,
                   const char *detail)
{
    refusal->http_status = http_status;
    refusal->close_code = close_code;
    refusal->code = code;
    refusal->retry_after_ms = 0;
    snprintf(refusal->detail, sizeof refusal->detail, "%s", detail);
    return false;
}

static bool region_granted(const struct jwt_claims *claims, const char *room)
{
    char region[REGION_MAX + 1];
    room_region(room, region);
    if (region[0] == '\0' || claims->video.regions == NULL)
        return true;
    for (size_t i = 0; i < claims->video.region_count; i++)
        if (strcmp(claims->video.regions[i], region) == 0)
            return true;
    return false;
}

static bool room_granted(const struct jwt_claims *claims, const char *room, struct refusal *ret_refusal)
{
    const struct jwt_grants *grants = &claims->video;
    bool asked = room != NULL && room[0] != '\0';
    const char *wanted = asked ? room : grants->room;
    if (!grants->room_join)
        return refuse(ret_refusal, 403, CLOSE_FORBIDDEN, SIGNALBOX__V1__CODE__FORBIDDEN,
                      "the token lacks the grant video.roomJoin");
    if (wanted[0] == '\0')
        return refuse(ret_refusal, 403, CLOSE_FORBIDDEN, SIGNALBOX__V1__CODE__FORBIDDEN,
                      "neither the token (video.room) nor the client names a room");
    if (!name_valid(wanted, ROOM_NAME_MAX))
        return refuse(ret_refusal, 400, CLOSE_PROTOCOL_ERROR, SIGNALBOX__V1__CODE__INVALID,
                      "the room name must be 1 to 128 bytes of UTF-8 without control characters");
    if (grants->room[0] == '\0' || strcmp(grants->room, wanted) != 0)
        return refuse(ret_refusal, 403, CLOSE_FORBIDDEN, SIGNALBOX__V1__CODE__FORBIDDEN,
                      grants->room[0] == '\0' ? "the token names no room (video.room)"
                                              : "the token is for another room (video.room)");
    if (!region_granted(claims, wanted))
        return refuse(ret_refusal, 403, CLOSE_FORBIDDEN, SIGNALBOX__V1__CODE__FORBIDDEN,
                      "the room is pinned to a region that the token does not grant (video.regions)");
    return true;
}

bool admission_room(const struct jwt_claims *claims, const char *room, struct refusal *ret_refusal)
{
    if (!room_granted(claims, room, ret_refusal))
        return false;
    if (claims->identity[0] == '\0')
        return refuse(ret_refusal, 403, CLOSE_FORBIDDEN, SIGNALBOX__V1__CODE__FORBIDDEN,
                      "the token has no identity (claim sub)");
    return true;
}

static bool check(struct gateway *gateway, const char *token, size_t size, const char *room,
                  bool (*granted)(const struct jwt_claims *claims, const char *room, struct refusal *ret_refusal),
                  struct jwt_claims *ret_claims, struct refusal *ret_refusal)
{
    struct jwt_claims claims;
    enum jwt_result result =
        jwt_verify(gateway->keyring, token, size, gateway->actions.wall_ms(gateway->ctx) / 1000, &claims);
    metric_add_at(M_TOKENS, (unsigned)-result, 1);
    if (result != JWT_OK) {
        char detail[sizeof ret_refusal->detail];
        snprintf(detail, sizeof detail, "%s: %s", jwt_result_name(result), jwt_result_text(result));
        return refuse(ret_refusal, 401, CLOSE_UNAUTHENTICATED, SIGNALBOX__V1__CODE__UNAUTHENTICATED, detail);
    }
    if (!granted(&claims, room, ret_refusal)) {
        jwt_claims_done(&claims);
        return false;
    }
    *ret_claims = claims;
    return true;
}

bool admission_check(struct gateway *gateway, const char *token, size_t size, const char *room,
                     struct jwt_claims *ret_claims, struct refusal *ret_refusal)
{
    return check(gateway, token, size, room, admission_room, ret_claims, ret_refusal);
}

bool gateway_check_invite(struct gateway *gateway, const char *token, size_t size, const char *room,
                          struct jwt_claims *ret_claims, struct refusal *ret_refusal)
{
    return check(gateway, token, size, room, room_granted, ret_claims, ret_refusal);
}
