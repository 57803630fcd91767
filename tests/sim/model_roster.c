/* Who is in the room: snapshots, and events in their order. */
#include "model_private.h"

#include "common/epoch.h"
#include "common/mem.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { SYNC_AGAIN_MS = 5000, BEHIND_MS = 2000 };

static size_t find(const struct model_participant *list, size_t count, const char *sid)
{
    size_t i = 0;
    while (i < count && strcmp(list[i].sid, sid) != 0)
        i++;
    return i;
}

const struct model_participant *model_client_find(const struct model_client *client, const char *sid)
{
    size_t i = find(client->roster, client->roster_count, sid);
    return i < client->roster_count ? &client->roster[i] : NULL;
}

static void remember_left(struct model_client *client, const char *sid)
{
    client->left = mem_realloc(client->left, (client->left_count + 1) * sizeof *client->left);
    model_copy_text(client->left[client->left_count++], SID_TEXT_SIZE + 1, sid);
    messages_end_pair(client, sid);
}

static void put(struct model_client *client, struct model_participant *list, size_t *count,
                const Signalbox__V1__Participant *participant)
{
    size_t i = find(list, *count, participant->sid);
    for (size_t n = 0; n < client->left_count; n++)
        if (strcmp(client->left[n], participant->sid) == 0)
            model_violated(client, "join and leave once", "%s has left and is back", participant->sid);
    if (i < *count && list[i].version > participant->version)
        return;
    if (i == MODEL_ROSTER_MAX) {
        model_violated(client, "queues", "the roster is too large");
        return;
    }
    if (i == *count) {
        (*count)++;
        world_note(client->world, client->room, "%s is told of %s (%s)", client->identity, participant->identity,
                   participant->sid);
    }
    model_copy_text(list[i].sid, sizeof list[i].sid, participant->sid);
    model_copy_text(list[i].identity, sizeof list[i].identity, participant->identity);
    model_copy_text(list[i].name, sizeof list[i].name, participant->name);
    list[i].version = participant->version;
}

static void remove_participant(struct model_client *client, const char *sid)
{
    size_t i = find(client->roster, client->roster_count, sid);
    if (i == client->roster_count)
        return;
    world_note(client->world, client->room, "%s sees %s (%s) leave", client->identity, client->roster[i].identity, sid);
    remember_left(client, sid); /* which may point into the roster */
    client->roster[i] = client->roster[--client->roster_count];
}

void roster_ask(struct model_client *client, bool position_known, const char *cursor)
{
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__SyncState sync = SIGNALBOX__V1__SYNC_STATE__INIT;
    Signalbox__V1__Position position = SIGNALBOX__V1__POSITION__INIT;
    int64_t now_ms = world_now_ms(client->world);
    if (cursor[0] == '\0' && client->asked_ms != 0 && now_ms - client->asked_ms < SYNC_AGAIN_MS)
        return;
    client->asked_ms = now_ms;
    if (position_known && client->has_position) {
        position.epoch = client->epoch;
        position.seq = client->seq;
        sync.position = &position;
    }
    sync.cursor = (char *)cursor;
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_SYNC_STATE;
    message.sync_state = &sync;
    world_send(client->conn, &message);
}

void roster_take_epoch(struct model_client *client, const char *text)
{
    struct epoch before, now;
    if (!epoch_parse(text, &now))
        model_violated(client, "epochs only grow", "%s is no epoch", text);
    else if (epoch_parse(client->epoch, &before) && epoch_compare(&now, &before) < 0)
        model_violated(client, "epochs only grow", "goes back from epoch %s to %s", client->epoch, text);
    model_copy_text(client->epoch, sizeof client->epoch, text);
}

void roster_take_snapshot(struct model_client *client, const Signalbox__V1__Snapshot *snapshot)
{
    bool new_epoch = strcmp(client->epoch, snapshot->position->epoch) != 0;
    if (!client->pulling || client->page_seq != snapshot->position->seq) {
        client->pulling = true;
        client->page_seq = snapshot->position->seq;
        client->page_count = 0;
    }
    for (size_t i = 0; i < snapshot->n_participants; i++)
        put(client, client->pages, &client->page_count, snapshot->participants[i]);
    client->asked_ms = 0;
    if (snapshot->next_cursor[0] != '\0') {
        roster_ask(client, false, snapshot->next_cursor);
        return;
    }
    client->pulling = false;
    client->settling = snapshot->settling;
    for (size_t i = client->roster_count; i-- > 0 && !snapshot->settling;)
        if (find(client->pages, client->page_count, client->roster[i].sid) == client->page_count)
            remove_participant(client, client->roster[i].sid);
    for (size_t i = 0; i < client->page_count; i++) {
        size_t at = find(client->roster, client->roster_count, client->pages[i].sid);
        if (at == client->roster_count)
            client->roster_count++;
        client->roster[at] = client->pages[i];
    }
    /* Whatever was said in the meantime is not in it. */
    for (size_t i = 0; i < client->heard_count; i++)
        client->heard[i].continuous = false;
    client->has_position = true;
    roster_take_epoch(client, snapshot->position->epoch);
    client->seq = snapshot->position->seq;
    client->snapshots++;
    world_note(client->world, client->room, "%s has a snapshot: %zu at %" PRIu64 " of %s%s", client->identity,
               client->page_count, client->seq, client->epoch, client->settling ? ", settling" : "");
    if (new_epoch)
        messages_resend_all(client);
}

static void on_updated(struct model_client *client, const Signalbox__V1__ParticipantUpdate *update)
{
    size_t i = find(client->roster, client->roster_count, update->sid);
    if (i == client->roster_count || update->version < client->roster[i].version)
        return;
    client->roster[i].version = update->version;
    if (update->profile != NULL)
        model_copy_text(client->roster[i].name, sizeof client->roster[i].name, update->profile->name);
}

static void on_settled(struct model_client *client, const Signalbox__V1__Settled *settled)
{
    uint64_t sum = 0;
    char text[64], digest[17];
    for (size_t i = 0; i < client->roster_count; i++) {
        uint64_t hash = 0xcbf29ce484222325;
        snprintf(text, sizeof text, "%s:%" PRIu64, client->roster[i].sid, client->roster[i].version);
        for (const char *c = text; *c != '\0'; c++)
            hash = (hash ^ (uint8_t)*c) * 0x100000001b3;
        hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccd;
        hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53;
        sum += hash ^ (hash >> 33);
    }
    snprintf(digest, sizeof digest, "%016" PRIx64, sum);
    client->settling = false;
    if (strcmp(digest, settled->digest) == 0)
        return;
    client->has_position = false; /* until the snapshot comes, on whatever connection */
    roster_ask(client, false, "");
}

void roster_take_events(struct model_client *client, const Signalbox__V1__RoomEvents *events)
{
    if (client->has_position && strcmp(client->epoch, events->epoch) != 0)
        model_violated(client, "epochs are announced", "hears events of epoch %s without having been told of it, at %s",
                       events->epoch, client->epoch);
    if (client->pulling)
        return;
    if (!client->has_position || strcmp(client->epoch, events->epoch) != 0 || events->first_seq > client->seq + 1) {
        roster_ask(client, true, "");
        return;
    }
    client->asked_ms = 0;
    if (events->last_seq <= client->seq)
        return;
    for (size_t i = 0; i < events->n_events; i++) {
        const Signalbox__V1__RoomEvent *event = events->events[i];
        if (event->event_case == SIGNALBOX__V1__ROOM_EVENT__EVENT_JOINED)
            put(client, client->roster, &client->roster_count, event->joined);
        else if (event->event_case == SIGNALBOX__V1__ROOM_EVENT__EVENT_LEFT)
            remove_participant(client, event->left->sid);
        else if (event->event_case == SIGNALBOX__V1__ROOM_EVENT__EVENT_UPDATED)
            on_updated(client, event->updated);
        else if (event->event_case == SIGNALBOX__V1__ROOM_EVENT__EVENT_MESSAGE)
            messages_take_from_room(client, event->message);
        else if (event->event_case == SIGNALBOX__V1__ROOM_EVENT__EVENT_SETTLED)
            on_settled(client, event->settled);
    }
    client->seq = events->last_seq;
}

void roster_take_pong(struct model_client *client, const Signalbox__V1__Pong *pong)
{
    if (pong->position == NULL || client->pulling)
        return;
    bool behind = strcmp(client->epoch, pong->position->epoch) != 0 || pong->position->seq > client->seq;
    if (!behind)
        client->behind_ms = 0;
    else if (client->behind_ms == 0)
        client->behind_ms = world_now_ms(client->world);
    client->behind_seq = pong->position->seq;
}

void roster_keep_up(struct model_client *client, int64_t now_ms)
{
    if (client->behind_ms != 0 && now_ms - client->behind_ms >= BEHIND_MS) {
        client->behind_ms = 0;
        if (client->seq < client->behind_seq)
            roster_ask(client, true, "");
    }
    if (client->asked_ms != 0 && now_ms - client->asked_ms >= SYNC_AGAIN_MS) {
        client->pulling = false;
        roster_ask(client, true, "");
    }
}
