/* What a client asks to be changed of its own participant: tracks, mute states, metadata. The owner's acknowledgement
 * is the result; requests wait for it by the version in which they are. */
#include "common/mem.h"
#include "gateway/requests-private.h"
#include <string.h>

enum { CHANGE_RETRY_MS = 1000 };

typedef Signalbox__V1__Participant Participant;

const char *request_check_track(const Signalbox__V1__Track *track)
{
    if (!name_valid(track->id, TRACK_ID_MAX))
        return "track.id: expected 1 to 64 bytes without control characters";
    if (strlen(track->name) > IDENTITY_MAX)
        return "track.name: at most 128 bytes";
    if (strlen(track->mime_type) > 64)
        return "track.mime_type: at most 64 bytes";
    return NULL;
}

static void change(struct request *request, const Participant *participant)
{
    struct session *session = request->session;
    if (request->message->request_id != 0) {
        if (session->result_count == PENDING_RESULTS_MAX) {
            request->retry_after_ms = CHANGE_RETRY_MS;
            refuse(request, SIGNALBOX__V1__CODE__RETRY, "too many changes wait for the owner's acknowledgement");
            return;
        }
        if (session->results == NULL)
            session->results = mem_alloc(PENDING_RESULTS_MAX * sizeof *session->results);
        session->results[session->result_count++] =
            (struct pending_result){.request_id = request->message->request_id, .version = session->version + 1};
        request->deferred = true;
    }
    session_change_participant(session, participant, request->now_ms);
}

void request_acked(struct session *session)
{
    uint8_t kept = 0;
    for (uint8_t i = 0; i < session->result_count; i++) {
        if (session->results[i].version > session->acked_version)
            session->results[kept++] = session->results[i];
        else if (session->client != NULL)
            client_result(session->client, session->results[i].request_id, SIGNALBOX__V1__CODE__OK, 0, "");
    }
    session->result_count = kept;
}

bool request_may_publish(const Signalbox__V1__Permissions *permissions, Signalbox__V1__Source source)
{
    if (permissions == NULL || !permissions->can_publish)
        return false;
    if (permissions->n_can_publish_sources == 0)
        return true;
    /* A source that this version does not know is unspecified in the grants, and grants nothing. */
    for (size_t i = 0; i < permissions->n_can_publish_sources; i++)
        if (source != SIGNALBOX__V1__SOURCE__SOURCE_UNSPECIFIED && permissions->can_publish_sources[i] == source)
            return true;
    return false;
}

static size_t find_track(const Participant *participant, const char *id)
{
    size_t i = 0;
    while (i < participant->n_tracks && strcmp(participant->tracks[i]->id, id) != 0)
        i++;
    return i;
}

void request_publish_track(struct request *request)
{
    Signalbox__V1__Track *track = request->message->publish_track->track;
    struct gateway *gateway = request->client->gateway;
    const char *problem = track != NULL ? request_check_track(track) : "publish_track.track: missing";
    if (problem != NULL) {
        refuse(request, SIGNALBOX__V1__CODE__INVALID, problem);
        return;
    }
    Participant *participant = session_participant(request->session);
    if (!request_may_publish(participant->permissions, track->source)) {
        refuse(request, SIGNALBOX__V1__CODE__FORBIDDEN,
               "the token grants neither canPublish nor this source (canPublishSources)");
        return;
    }
    size_t at = find_track(participant, track->id);
    if (at == participant->n_tracks && at >= gateway->options.limits.tracks) {
        refuse(request, SIGNALBOX__V1__CODE__LIMIT_REACHED, "as many tracks as limits.tracks are published");
        return;
    }
    Signalbox__V1__Track **tracks = arena_alloc(&gateway->arena, (participant->n_tracks + 1) * sizeof *tracks);
    if (tracks == NULL) {
        refuse(request, SIGNALBOX__V1__CODE__TOO_LARGE, "the participant has grown too large");
        return;
    }
    if (participant->n_tracks > 0)
        memcpy(tracks, participant->tracks, participant->n_tracks * sizeof *tracks);
    tracks[at] = track;
    participant->tracks = tracks;
    if (at == participant->n_tracks)
        participant->n_tracks++;
    change(request, participant);
}

void request_unpublish_track(struct request *request)
{
    Participant *participant = session_participant(request->session);
    size_t at = find_track(participant, request->message->unpublish_track->track_id);
    if (at == participant->n_tracks) {
        refuse(request, SIGNALBOX__V1__CODE__NOT_FOUND, "unpublish_track.track_id: no such track of this participant");
        return;
    }
    memmove(&participant->tracks[at], &participant->tracks[at + 1],
            (participant->n_tracks - at - 1) * sizeof *participant->tracks);
    participant->n_tracks--;
    change(request, participant);
}

void request_mute(struct request *request)
{
    Participant *participant = session_participant(request->session);
    size_t at = find_track(participant, request->message->mute->track_id);
    if (at == participant->n_tracks) {
        refuse(request, SIGNALBOX__V1__CODE__NOT_FOUND, "mute.track_id: no such track of this participant");
        return;
    }
    participant->tracks[at]->muted = request->message->mute->muted;
    change(request, participant);
}

/* Lays the given attributes over the participant's; false if there would be too many or one is too large. */
static bool lay_attributes(struct gateway *gateway, Participant *participant, const Signalbox__V1__SetMetadata *set)
{
    typedef Signalbox__V1__Participant__AttributesEntry Entry;
    size_t capacity = participant->n_attributes + set->n_attributes;
    Entry **list = arena_zalloc(&gateway->arena, (capacity + 1) * sizeof *list);
    Entry *fresh = arena_zalloc(&gateway->arena, (set->n_attributes + 1) * sizeof *fresh);
    if (list == NULL || fresh == NULL)
        return false;
    size_t count = participant->n_attributes;
    if (count > 0)
        memcpy(list, participant->attributes, count * sizeof *list);
    for (size_t i = 0; i < set->n_attributes; i++) {
        const char *key = set->attributes[i]->key;
        size_t at = 0;
        if (strlen(key) > ATTRIBUTE_KEY_MAX || strlen(set->attributes[i]->value) > ATTRIBUTE_VALUE_MAX)
            return false;
        while (at < count && strcmp(list[at]->key, key) != 0)
            at++;
        if (set->attributes[i]->value[0] == '\0') {
            if (at < count)
                list[at] = list[--count];
            continue;
        }
        signalbox__v1__participant__attributes_entry__init(&fresh[i]);
        fresh[i].key = (char *)key;
        fresh[i].value = set->attributes[i]->value;
        list[at] = &fresh[i];
        if (at == count)
            count++;
    }
    participant->attributes = list;
    participant->n_attributes = count;
    return count <= gateway->options.limits.attributes;
}

void request_set_metadata(struct request *request)
{
    const Signalbox__V1__SetMetadata *set = request->message->set_metadata;
    struct gateway *gateway = request->client->gateway;
    Participant *participant = session_participant(request->session);
    if (participant->permissions == NULL || !participant->permissions->can_update_metadata) {
        refuse(request, SIGNALBOX__V1__CODE__FORBIDDEN, "the token does not grant canUpdateOwnMetadata");
        return;
    }
    if (strlen(set->name) > IDENTITY_MAX || strlen(set->metadata) > gateway->options.limits.metadata_bytes) {
        refuse(request, SIGNALBOX__V1__CODE__TOO_LARGE,
               "set_metadata: name has at most 128 bytes, metadata at most limits.metadata_bytes");
        return;
    }
    if (!lay_attributes(gateway, participant, set)) {
        refuse(request, SIGNALBOX__V1__CODE__TOO_LARGE,
               "set_metadata.attributes: at most limits.attributes pairs, keys of 64 bytes, values of 512");
        return;
    }
    if (set->name[0] != '\0')
        participant->name = set->name;
    if (set->set_metadata)
        participant->metadata = set->metadata;
    change(request, participant);
}
