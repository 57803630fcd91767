/* Random histories of a room, watched by model clients that know nothing but the rules of docs/PROTOCOL.md: whenever
 * and however they begin, they end with the shard's own roster, and see everybody come and go once. */
#include "common/list.h"
#include "shard_fixture.h"
#include "suite.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEEDS = 24, STEPS = 400, PEOPLE_MAX = 400, MODELS_MAX = 80, ROSTER_MAX = 500 };

struct known {
    char sid[SID_TEXT_SIZE + 1];
    uint64_t version;
    char name[32];
    size_t tracks;
    bool present, gone;
    uint64_t sender_seq; /* of the last message to the room, 0 = none seen */
};

/* A client of one gateway. */
struct model {
    int gateway;
    int owner; /* the person whose client it is, or -1: it ends with them */
    bool live, behind;
    char epoch[81];
    uint64_t seq;
    struct known roster[ROSTER_MAX];
    size_t count;
};

struct history {
    struct fixture fixture;
    uint64_t random;
    struct person people[PEOPLE_MAX];
    bool in_room[PEOPLE_MAX], detached[PEOPLE_MAX];
    uint64_t sends[PEOPLE_MAX];
    int person_count;
    struct model *models[MODELS_MAX];
    int model_count;
    size_t seen; /* of fixture.sent */
    char settled_digest[17];
};

static uint64_t draw(struct history *history, uint64_t below)
{
    history->random = history->random * 6364136223846793005u + 1442695040888963407u;
    return (history->random >> 33) % below;
}

/* --- the client's rules ------------------------------------------------------------------------------------------ */

static struct known *find(struct model *model, const char *sid)
{
    for (size_t i = 0; i < model->count; i++)
        if (strcmp(model->roster[i].sid, sid) == 0)
            return &model->roster[i];
    return NULL;
}

static struct known *open_known(struct model *model, const char *sid)
{
    struct known *known = find(model, sid);
    if (known != NULL)
        return known;
    ck_assert_uint_lt(model->count, ROSTER_MAX);
    known = &model->roster[model->count++];
    *known = (struct known){0};
    snprintf(known->sid, sizeof known->sid, "%s", sid);
    return known;
}

static void put(struct model *model, const Signalbox__V1__Participant *participant)
{
    struct known *known = open_known(model, participant->sid);
    ck_assert(!known->gone); /* a sid that has left never comes back */
    if (known->present && known->version > participant->version)
        return;
    known->present = true;
    known->version = participant->version;
    known->tracks = participant->n_tracks;
    snprintf(known->name, sizeof known->name, "%s", participant->name);
}

static void apply(struct model *model, const Event *event)
{
    struct known *known;
    switch (event->event_case) {
    case SIGNALBOX__V1__ROOM_EVENT__EVENT_JOINED:
        put(model, event->joined);
        break;
    case SIGNALBOX__V1__ROOM_EVENT__EVENT_LEFT:
        known = open_known(model, event->left->sid);
        known->present = false;
        known->gone = true;
        break;
    case SIGNALBOX__V1__ROOM_EVENT__EVENT_UPDATED:
        known = find(model, event->updated->sid);
        if (known == NULL || !known->present || event->updated->version < known->version)
            break;
        known->version = event->updated->version;
        if (event->updated->profile != NULL)
            snprintf(known->name, sizeof known->name, "%s", event->updated->profile->name);
        if (event->updated->tracks != NULL)
            known->tracks = event->updated->tracks->n_tracks;
        break;
    case SIGNALBOX__V1__ROOM_EVENT__EVENT_MESSAGE:
        known = open_known(model, event->message->from);
        if (event->message->sender_seq <= known->sender_seq)
            break;
        ck_assert(known->sender_seq == 0 || event->message->sender_seq == known->sender_seq + 1);
        known->sender_seq = event->message->sender_seq;
        break;
    default:
        break;
    }
}

static void apply_events(struct model *model, const Events *events)
{
    ck_assert_str_eq(events->epoch, model->epoch);
    ck_assert_uint_le(events->first_seq, model->seq + 1); /* otherwise something was missed */
    if (events->last_seq <= model->seq)
        return;
    for (size_t i = 0; i < events->n_events; i++)
        apply(model, events->events[i]);
    model->seq = events->last_seq;
}

static void apply_snapshot(struct model *model, const Snapshot *snapshot)
{
    ck_assert_str_eq(snapshot->next_cursor, "");
    for (size_t i = 0; i < model->count; i++) {
        struct known *known = &model->roster[i];
        if (known->present && snapshot_find(snapshot, known->sid) == NULL) {
            known->present = false;
            known->gone = true;
        }
        known->sender_seq = 0; /* messages may have been missed */
    }
    for (size_t i = 0; i < snapshot->n_participants; i++)
        put(model, snapshot->participants[i]);
    snprintf(model->epoch, sizeof model->epoch, "%s", snapshot->position->epoch);
    model->seq = snapshot->position->seq;
}

static void apply_messages(struct history *history, struct model *model, const ProtobufCBinaryData *messages,
                           size_t count, uint64_t seq)
{
    for (size_t i = 0; i < count; i++) {
        const Signalbox__V1__ServerMessage *message = unpack_message(&history->fixture, messages[i]);
        if (message->body_case == SIGNALBOX__V1__SERVER_MESSAGE__BODY_SNAPSHOT)
            apply_snapshot(model, message->snapshot);
        else
            apply_events(model, message->room_events);
    }
    model->live = true;
    model->behind = false;
    ck_assert_uint_ge(model->seq, seq);
}

/* --- what the gateways pass on ----------------------------------------------------------------------------------- */

static bool is_over(const struct history *history, const struct model *model)
{
    return model->owner >= 0 && !history->in_room[model->owner];
}

static struct model *some_model(struct history *history)
{
    struct model *model = history->model_count > 0 ? history->models[draw(history, history->model_count)] : NULL;
    return model != NULL && !is_over(history, model) ? model : NULL;
}

static void note_settled(struct history *history, const Events *events)
{
    for (size_t i = 0; i < events->n_events; i++) {
        if (events->events[i]->event_case != SIGNALBOX__V1__ROOM_EVENT__EVENT_SETTLED)
            continue;
        ck_assert_uint_eq(events->n_events, 1);
        ck_assert_uint_eq(events->first_seq, events->last_seq);
        snprintf(history->settled_digest, sizeof history->settled_digest, "%s", events->events[0]->settled->digest);
    }
}

/* Everything sent so far is passed on; models that are behind lose it. */
static void pass_on(struct history *history)
{
    struct fixture *fixture = &history->fixture;
    for (; history->seen < fixture->sent_count; history->seen++) {
        const struct sent *sent = &fixture->sent[history->seen];
        if ((int)sent->item->body_case != BODY(ROOM_BATCH))
            continue;
        const Signalbox__V1__ServerMessage *message = unpack_message(fixture, sent->item->room_batch->message);
        if (message->body_case == SIGNALBOX__V1__SERVER_MESSAGE__BODY_ROOM_EVENTS)
            note_settled(history, message->room_events);
        for (int i = 0; i < history->model_count; i++) {
            struct model *model = history->models[i];
            if (message->body_case == SIGNALBOX__V1__SERVER_MESSAGE__BODY_ROOM_EVENTS && model->live &&
                !model->behind && !is_over(history, model) && model->gateway == sent->gateway)
                apply_events(model, message->room_events);
        }
    }
}

static struct model *add_model(struct history *history, int gateway, int owner)
{
    if (history->model_count == MODELS_MAX)
        return NULL;
    struct model *model = calloc(1, sizeof *model);
    model->gateway = gateway;
    model->owner = owner;
    history->models[history->model_count++] = model;
    return model;
}

/* --- what happens ------------------------------------------------------------------------------------------------ */

static void someone_joins(struct history *history, int gateway)
{
    if (history->person_count == PEOPLE_MAX)
        return;
    int i = history->person_count++;
    char identity[16];
    /* Some come back under the same identity. */
    snprintf(identity, sizeof identity, "p%d", i < GATEWAYS ? i : GATEWAYS + (int)draw(history, 60));
    for (int k = 0; k < i; k++)
        if (strcmp(history->people[k].identity, identity) == 0)
            history->in_room[k] = false;
    history->people[i] = person_make(identity, "r", gateway);
    history->in_room[i] = true;
    pass_on(history);
    const Ack *ack = person_join(&history->fixture, &history->people[i]);
    pass_on(history);
    struct model *model = add_model(history, gateway, i);
    if (model != NULL)
        apply_messages(history, model, ack->messages, ack->n_messages, ack->seq);
}

static void someone_changes(struct history *history, struct person *person)
{
    if (draw(history, 2) == 0)
        person->tracks = (unsigned)draw(history, 5);
    else
        snprintf(person->name, sizeof person->name, "name %u", (unsigned)draw(history, 1000));
    person_hold(&history->fixture, person, ATTACHED);
}

static void someone_resumes(struct history *history, int i)
{
    struct person *person = &history->people[i];
    int gateway = (int)draw(history, GATEWAYS);
    struct model *model = some_model(history);
    size_t since = history->fixture.sent_count;
    pass_on(history);
    person->gateway = gateway;
    person->connection += 1000000;
    person->version = 1;
    State *state = person_state(person, RESUME, ATTACHED);
    state->token_bind_generation = person->bind_generation;
    struct epoch epoch;
    if (model != NULL && epoch_parse(model->epoch, &epoch)) {
        static Signalbox__Cluster__V1__Epoch last;
        last = epoch_to_proto(&epoch);
        state->last_epoch = &last;
        state->last_seq = model->seq;
    }
    send_state(&history->fixture, person, state);
    pass_on(history);
    const Item *item = sent_item(&history->fixture, since, gateway, BODY(SESSION_ACK), 0);
    ck_assert_int_eq(item->session_ack->code, CODE(OK));
    ck_assert_uint_eq(item->session_ack->bind_generation, person->bind_generation + 1);
    person->bind_generation++;
    history->detached[i] = false;
    if (model != NULL) {
        model->gateway = gateway;
        apply_messages(history, model, item->session_ack->messages, item->session_ack->n_messages,
                       item->session_ack->seq);
    }
}

static void someone_sends(struct history *history, int i)
{
    Signalbox__V1__Message message = SIGNALBOX__V1__MESSAGE__INIT;
    Signalbox__Cluster__V1__RoomSend send = SIGNALBOX__CLUSTER__V1__ROOM_SEND__INIT;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    send.room_key = key_data("r");
    send.sid = history->people[i].sid;
    send.bind_generation = history->people[i].bind_generation;
    send.sender_seq = ++history->sends[i];
    send.message = &message;
    item.body_case = BODY(ROOM_SEND);
    item.room_send = &send;
    fixture_deliver(&history->fixture, history->people[i].gateway, &item);
}

/* A client begins with a snapshot, or one that lost something asks from where it stands. */
static void some_model_syncs(struct history *history, struct model *model)
{
    struct person *anchor = &history->people[model->gateway];
    Signalbox__Cluster__V1__SyncRequest request = sync_make(anchor);
    Signalbox__Cluster__V1__Epoch packed;
    struct epoch epoch;
    if (epoch_parse(model->epoch, &epoch)) {
        packed = epoch_to_proto(&epoch);
        request.epoch = &packed;
        request.seq = model->seq;
    }
    pass_on(history);
    const Signalbox__Cluster__V1__SyncReply *reply = send_sync(&history->fixture, anchor, &request);
    pass_on(history);
    apply_messages(history, model, reply->messages, reply->n_messages, reply->seq);
}

static void step(struct history *history)
{
    int i = (int)draw(history, history->person_count);
    bool anchor = i < GATEWAYS; /* keeps its gateway supplied */
    struct model *model = some_model(history);
    uint64_t kind = draw(history, 12);
    if (kind < 3) {
        someone_joins(history, (int)draw(history, GATEWAYS));
    } else if (kind == 3) {
        struct model *fresh = add_model(history, (int)draw(history, GATEWAYS), -1);
        if (fresh != NULL)
            some_model_syncs(history, fresh);
    } else if (kind == 4 && model != NULL) {
        pass_on(history);
        if (model->behind)
            some_model_syncs(history, model);
        model->behind = draw(history, 2) == 0;
    } else if (kind == 5) {
        fixture_advance(&history->fixture, (int64_t)draw(history, 20));
    } else if (!history->in_room[i]) {
        return;
    } else if (kind < 8) {
        if (!history->detached[i])
            someone_changes(history, &history->people[i]);
    } else if (kind == 8 && !anchor) {
        person_hold(&history->fixture, &history->people[i], DEPARTED);
        history->in_room[i] = false;
    } else if (kind == 9 && !anchor) {
        person_hold(&history->fixture, &history->people[i], DETACHED);
        history->detached[i] = true;
    } else if (kind == 10 && !anchor) {
        someone_resumes(history, i);
    } else if (kind == 11) {
        someone_sends(history, i);
    }
}

static uint64_t digest_of(const char *sid, uint64_t version)
{
    char text[64];
    uint64_t hash = 14695981039346656037u;
    snprintf(text, sizeof text, "%s:%" PRIu64, sid, version);
    for (const char *c = text; *c != '\0'; c++) {
        hash ^= (uint8_t)*c;
        hash *= 1099511628211u;
    }
    hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccdu;
    hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53u;
    return hash ^ (hash >> 33);
}

static void check_end(struct history *history)
{
    struct model *fresh = history->models[0];
    fresh->owner = -1;
    fresh->gateway = 0;
    fresh->epoch[0] = '\0';
    some_model_syncs(history, fresh);
    size_t in_room = 0;
    uint64_t digest = 0;
    for (int i = 0; i < history->person_count; i++) {
        struct known *known = find(fresh, history->people[i].sid);
        ck_assert_int_eq(known != NULL && known->present, history->in_room[i]);
        if (!history->in_room[i])
            continue;
        in_room++;
        digest += digest_of(known->sid, known->version);
        ck_assert_str_eq(known->name, history->people[i].name);
    }
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, digest);
    ck_assert_str_eq(text, history->settled_digest);
    for (int m = 0; m < history->model_count; m++) {
        struct model *model = history->models[m];
        if (is_over(history, model))
            continue;
        if (model->behind)
            some_model_syncs(history, model);
        size_t present = 0;
        for (size_t i = 0; i < model->count; i++) {
            const struct known *known = &model->roster[i], *truth = find(fresh, known->sid);
            if (!known->present)
                continue;
            present++;
            ck_assert_ptr_nonnull(truth);
            ck_assert_uint_eq(known->version, truth->version);
            ck_assert_uint_eq(known->tracks, truth->tracks);
            ck_assert_str_eq(known->name, truth->name);
        }
        ck_assert_uint_eq(present, in_room);
    }
}

START_TEST(every_client_ends_with_the_same_roster)
{
    struct history *history = calloc(1, sizeof *history);
    struct shard_options options = {.limits = shard_default_limits};
    /* Small rings, so that some replays fail. */
    options.limits.ring_entries = _i % 3 == 0 ? 4 : 256;
    options.limits.snapshot_page_bytes = 1 << 20;
    history->random = (uint64_t)_i + 1;
    fixture_open(&history->fixture, &options);

    /* The room begins with a resume, so that it settles at the end and tells its digest. */
    history->people[0] = person_make("p0", "r", 0);
    history->people[0].window_ms = 60 * 60 * 1000;
    history->in_room[0] = true;
    history->person_count = 1;
    person_resume(&history->fixture, &history->people[0], 0, 1);
    for (int gateway = 1; gateway < GATEWAYS; gateway++)
        someone_joins(history, gateway);
    for (int i = 0; i < STEPS; i++)
        step(history);
    for (int i = 0; i < history->person_count; i++)
        if (history->detached[i])
            history->in_room[i] = false; /* its window ends before the room settles */
    fixture_advance(&history->fixture, 60 * 60 * 1000);
    pass_on(history);
    check_end(history);

    for (int i = 0; i < history->model_count; i++)
        free(history->models[i]);
    fixture_close(&history->fixture);
    free(history);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("history");
    tcase_add_loop_test(tests, every_client_ends_with_the_same_roster, 0, SEEDS);
    tcase_set_timeout(tests, 60);
    return suite_run("shard_history", tests, NULL);
}
