/* What an access token allows a participant: at the join, and when it is refreshed under a session. */
#include "gateway/internal.h"
#include <assert.h>
#include <string.h>

typedef Signalbox__V1__Participant Participant;
typedef Signalbox__V1__Permissions Permissions;

static Signalbox__V1__Source source_by_name(const char *name)
{
    static const struct {
        const char *name;
        Signalbox__V1__Source source;
    } sources[] = {{"camera", SIGNALBOX__V1__SOURCE__CAMERA},
                   {"microphone", SIGNALBOX__V1__SOURCE__MICROPHONE},
                   {"screen_share", SIGNALBOX__V1__SOURCE__SCREEN_SHARE},
                   {"screen_share_audio", SIGNALBOX__V1__SOURCE__SCREEN_SHARE_AUDIO}};
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++)
        if (strcmp(sources[i].name, name) == 0)
            return sources[i].source;
    return SIGNALBOX__V1__SOURCE__SOURCE_UNSPECIFIED;
}

void grants_permissions(const struct jwt_grants *grants, Permissions *permissions,
                        Signalbox__V1__Source sources[JWT_SOURCES_MAX])
{
    permissions->can_publish = grants->can_publish != GRANT_NO;
    permissions->can_subscribe = grants->can_subscribe != GRANT_NO;
    permissions->can_publish_data = grants->can_publish_data != GRANT_NO;
    permissions->can_update_metadata = grants->can_update_own_metadata != GRANT_NO;
    permissions->hidden = grants->hidden;
    permissions->room_admin = grants->room_admin;
    permissions->can_publish_sources = sources;
    for (size_t i = 0; i < grants->can_publish_source_count && i < JWT_SOURCES_MAX; i++)
        sources[permissions->n_can_publish_sources++] = source_by_name(grants->can_publish_sources[i]);
}

bool grants_drop_tracks(Participant *participant)
{
    size_t kept = 0, before = participant->n_tracks;
    for (size_t i = 0; i < before; i++)
        if (request_may_publish(participant->permissions, participant->tracks[i]->source))
            participant->tracks[kept++] = participant->tracks[i];
    participant->n_tracks = kept;
    return kept < before;
}

static bool equal(const Permissions *a, const Permissions *b)
{
    uint8_t packed_a[RESUME_TOKEN_GRANTS_MAX], packed_b[RESUME_TOKEN_GRANTS_MAX];
    size_t size = signalbox__v1__permissions__get_packed_size(a);
    assert(size <= sizeof packed_a);
    if (size != signalbox__v1__permissions__get_packed_size(b))
        return false;
    signalbox__v1__permissions__pack(a, packed_a);
    signalbox__v1__permissions__pack(b, packed_b);
    return memcmp(packed_a, packed_b, size) == 0;
}

void grants_renew(struct session *session, const struct jwt_grants *grants, int64_t now_ms)
{
    static const Permissions none = SIGNALBOX__V1__PERMISSIONS__INIT;
    Participant *participant = session_participant(session);
    const Permissions *before = participant->permissions != NULL ? participant->permissions : &none;
    Permissions permissions = SIGNALBOX__V1__PERMISSIONS__INIT;
    Signalbox__V1__Source sources[JWT_SOURCES_MAX];
    grants_permissions(grants, &permissions, sources);
    /* Who is listed was settled by the join. */
    permissions.hidden = before->hidden;
    permissions.can_publish &= participant->kind != SIGNALBOX__V1__PARTICIPANT__KIND__VIEWER;
    if (equal(before, &permissions))
        return;
    participant->permissions = &permissions;
    grants_drop_tracks(participant);
    session->grants_version++;
    session_change_participant(session, participant, now_ms);
}
