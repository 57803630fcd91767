#include "tests/load/roster.h"
#include "common/clock.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void roster_reset(struct participant *participant)
{
    memset(participant->links, 0, participant->room->size * sizeof *participant->links);
    participant->ack_ms = 0;
}

static struct link *link_of_identity(struct participant *participant, const char *identity)
{
    unsigned number;
    uint32_t first = participant->number - participant->seat;
    if (sscanf(identity, "swarm-%u", &number) != 1 || number < first || number - first >= participant->room->size)
        return NULL;
    return &participant->links[number - first];
}

static struct link *link_of_sid(struct participant *participant, const char *text)
{
    struct sid sid;
    if (!sid_parse(text, &sid))
        return NULL;
    for (unsigned seat = 0; seat < participant->room->size; seat++) {
        struct link *link = &participant->links[seat];
        if (link->present && sid_equal(&link->sid, &sid))
            return link;
    }
    return NULL;
}

static bool is_muted(size_t count, Signalbox__V1__Track **tracks)
{
    return count > 0 && tracks[0]->muted;
}

static void note(const struct participant *participant, enum history_kind kind, const struct link *link)
{
    history_add(participant, kind, (unsigned)(link - participant->links), history_tag(&link->sid), link->muted, 0);
}

static void see_mute(struct participant *participant, struct link *link, bool muted)
{
    const struct participant *peer = &participant->room->first[link - participant->links];
    if (link->muted == muted)
        return;
    link->muted = muted;
    note(participant, HISTORY_SAW_MUTE, link);
    /* Of two toggles in short order only the second is seen, and a roster may bring what is old. */
    if (peer->muted != muted || peer->muted_due_us == 0 || peer == participant)
        return;
    participant->worker->stats->mutes_seen++;
    histogram_record(&participant->worker->stats->event_us, clock_mono_us() - peer->muted_due_us);
}

/* Somebody is in the room. */
static void put(struct participant *participant, const Signalbox__V1__Participant *who)
{
    struct worker_stats *stats = participant->worker->stats;
    struct link *link = link_of_identity(participant, who->identity);
    struct sid sid;
    if (link == NULL || !sid_parse(who->sid, &sid)) {
        stats->violations_roster++;
        return;
    }
    link->listed = true;
    if (link->known && sid_equal(&link->sid, &sid)) {
        if (!link->present) {
            stats->violations_roster++; /* a sid that has left never comes back */
            link->present = true;
            note(participant, HISTORY_SAW_JOIN, link);
        }
        if (who->version < link->version)
            return;
        link->version = who->version;
        see_mute(participant, link, is_muted(who->n_tracks, who->tracks));
        return;
    }
    if (link->present)
        note(participant, HISTORY_SAW_LEAVE, link);
    *link = (struct link){.sid = sid, .version = who->version, .present = true, .known = true, .listed = true};
    link->muted = is_muted(who->n_tracks, who->tracks);
    note(participant, HISTORY_SAW_JOIN, link);
}

static void remove_link(const struct participant *participant, struct link *link)
{
    note(participant, HISTORY_SAW_LEAVE, link);
    *link = (struct link){.sid = link->sid, .known = true};
}

void roster_snapshot_begin(struct participant *participant)
{
    for (unsigned seat = 0; seat < participant->room->size; seat++)
        participant->links[seat].listed = false;
}

void roster_snapshot_page(struct participant *participant, const Signalbox__V1__Snapshot *page)
{
    for (size_t i = 0; i < page->n_participants; i++)
        put(participant, page->participants[i]);
}

void roster_snapshot_end(struct participant *participant)
{
    for (unsigned seat = 0; seat < participant->room->size; seat++) {
        struct link *link = &participant->links[seat];
        if (link->present && !link->listed)
            remove_link(participant, link);
    }
}

static void update(struct participant *participant, const Signalbox__V1__ParticipantUpdate *change)
{
    struct link *link = link_of_sid(participant, change->sid);
    if (link == NULL || change->version < link->version)
        return;
    link->version = change->version;
    if (change->tracks != NULL)
        see_mute(participant, link, is_muted(change->tracks->n_tracks, change->tracks->tracks));
}

void roster_apply(struct participant *participant, const Signalbox__V1__RoomEvent *event)
{
    struct link *link;
    switch (event->event_case) {
    case SIGNALBOX__V1__ROOM_EVENT__EVENT_JOINED:
        put(participant, event->joined);
        break;
    case SIGNALBOX__V1__ROOM_EVENT__EVENT_LEFT:
        link = link_of_sid(participant, event->left->sid);
        if (link != NULL)
            remove_link(participant, link);
        break;
    case SIGNALBOX__V1__ROOM_EVENT__EVENT_UPDATED:
        update(participant, event->updated);
        break;
    default: /* the room's own information, messages to the room, the end of settling: who is listed stays the same */
        break;
    }
}

uint64_t roster_digest(const struct participant *participant)
{
    uint64_t sum = 0;
    for (unsigned seat = 0; seat < participant->room->size; seat++) {
        const struct link *link = &participant->links[seat];
        char sid[SID_TEXT_SIZE + 1], text[64];
        uint64_t hash = 0xcbf29ce484222325u;
        if (!link->present)
            continue;
        sid_format(&link->sid, sid);
        snprintf(text, sizeof text, "%s:%" PRIu64, sid, link->version);
        for (const char *c = text; *c != '\0'; c++)
            hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
        hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccdu;
        hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53u;
        sum += hash ^ (hash >> 33);
    }
    return sum;
}

unsigned roster_count_differences(const struct participant *participant)
{
    unsigned differences = 0;
    for (unsigned seat = 0; seat < participant->room->size; seat++) {
        const struct participant *peer = &participant->room->first[seat];
        const struct link *link = &participant->links[seat];
        bool there = peer->state == PARTICIPANT_JOINED;
        if (link->present != there || (there && (!sid_equal(&link->sid, &peer->sid) || link->muted != peer->muted)))
            differences++;
    }
    return differences;
}
