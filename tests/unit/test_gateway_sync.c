/* The room's order on its way to clients: batches, gaps, snapshots in pages, epochs, owners, a bus that comes and goes.
 */
#include "common/metrics.h"
#include "gateway_fixture.h"
#include <stdlib.h>
#include <string.h>

static struct fixture f;
static int ann, bob;
static uint64_t start; /* the room's seq when both had joined */

static void setup(void)
{
    fixture_open(&f, NULL);
    ann = join_client(&f, "ann", "r", NULL);
    bob = join_client(&f, "bob", "r", NULL);
    /* Bob's join: Ann has not got it yet. */
    deliver_events(&f, "r", f.seq, f.seq, "bob joined");
    start = f.seq;
}

static void teardown(void)
{
    fixture_close(&f);
}

/* The owner is another one, or the room was put together anew. */
static void epoch_change(uint64_t seq, uint64_t digest, const struct epoch *from, uint64_t from_seq)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__EpochChange change = SIGNALBOX__CLUSTER__V1__EPOCH_CHANGE__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&f.epoch), from_epoch;
    change.room_key = key_data("r");
    change.epoch = &epoch;
    change.seq = seq;
    change.digest = digest;
    if (from != NULL) {
        from_epoch = epoch_to_proto(from);
        change.from_epoch = &from_epoch;
        change.from_seq = from_seq;
    }
    item.body_case = ITEM(EPOCH_CHANGE);
    item.epoch_change = &change;
    fixture_deliver(&f, &item);
}

static int events_of(int client)
{
    return received_count(&f, 0, client, BODY(ROOM_EVENTS));
}

static const Signalbox__V1__RoomEvents *last_events(int client)
{
    return received(&f, 0, client, BODY(ROOM_EVENTS), events_of(client) - 1)->room_events;
}

static void sync_reply(const char *sid, uint64_t connection, ProtobufCBinaryData message, uint64_t seq, bool replay,
                       bool last_page, int code)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__SyncReply reply = SIGNALBOX__CLUSTER__V1__SYNC_REPLY__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&f.epoch);
    reply.room_key = key_data("r");
    reply.sid = (char *)sid;
    reply.connection = connection;
    reply.epoch = &epoch;
    reply.seq = seq;
    reply.replay = replay;
    reply.last_page = last_page;
    reply.code = code;
    reply.messages = &message;
    reply.n_messages = message.len > 0;
    item.body_case = ITEM(SYNC_REPLY);
    item.sync_reply = &reply;
    fixture_deliver(&f, &item);
}

static void session_reply(int client, ProtobufCBinaryData message, uint64_t seq, bool replay, bool last_page)
{
    sync_reply(f.clients[client].sid, f.clients[client].connection, message, seq, replay, last_page, CODE(OK));
}

static const Signalbox__Cluster__V1__SyncRequest *last_ask(void)
{
    const Item *item = sent(&f, 0, ITEM(SYNC_REQUEST), sent_count(&f, 0, ITEM(SYNC_REQUEST)) - 1);
    ck_assert_ptr_nonnull(item);
    return item->sync_request;
}

static void say_sync(int client, Signalbox__V1__Position *position, const char *cursor)
{
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__SyncState sync = SIGNALBOX__V1__SYNC_STATE__INIT;
    sync.position = position;
    sync.cursor = (char *)cursor;
    message.request_id = 50;
    message.body_case = REQUEST(SYNC_STATE);
    message.sync_state = &sync;
    request(&f, client, &message);
}

/* --- batches --------------------------------------------------------------------------------------------------- */

START_TEST(a_batch_is_one_frame_for_all)
{
    ck_assert_int_eq(events_of(ann), 1);
    ck_assert_int_eq(events_of(bob), 0); /* it was in his snapshot */
    deliver_events(&f, "r", start + 1, start + 3, "x");
    ck_assert_int_eq(events_of(ann), 2);
    ck_assert_int_eq(events_of(bob), 1);
    ck_assert_ptr_eq(f.received[f.received_count - 1].raw, f.received[f.received_count - 2].raw);
    deliver_events(&f, "r", start + 1, start + 3, "x"); /* again */
    ck_assert_int_eq(events_of(ann), 2);
    deliver_events(&f, "r", start + 2, start + 4, "partly seen");
    ck_assert_int_eq(events_of(ann), 3);
    deliver_events(&f, "elsewhere", 1, 1, "x");
    ck_assert_int_eq(events_of(ann), 3);
}
END_TEST

START_TEST(signals_are_filtered)
{
    Message message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Signals signals = SIGNALBOX__V1__SIGNALS__INIT;
    Signalbox__V1__Signal each[2] = {SIGNALBOX__V1__SIGNAL__INIT, SIGNALBOX__V1__SIGNAL__INIT};
    Signalbox__V1__Signal *list[2] = {&each[0], &each[1]};
    Signalbox__Cluster__V1__RoomBatch batch = SIGNALBOX__CLUSTER__V1__ROOM_BATCH__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&f.epoch);
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    each[0].from = each[1].from = f.clients[bob].sid;
    each[0].key = (char *)"speaking";
    each[1].key = (char *)"cursor";
    signals.signals = list;
    signals.n_signals = 2;
    message.body_case = BODY(SIGNALS);
    message.signals = &signals;
    batch.room_key = key_data("r");
    batch.epoch = &epoch;
    batch.class_ = CLASS_EPHEMERAL;
    batch.message = pack_message(&message);
    batch.exclude_sid = f.clients[bob].sid;
    item.body_case = ITEM(ROOM_BATCH);
    item.room_batch = &batch;
    fixture_deliver(&f, &item);
    ck_assert_uint_eq(received(&f, 0, ann, BODY(SIGNALS), 0)->signals->n_signals, 2);
    ck_assert_int_eq(received_count(&f, 0, bob, BODY(SIGNALS)), 0);

    Request request_message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__SetInterest set = SIGNALBOX__V1__SET_INTEREST__INIT;
    Signalbox__V1__Interest interest = SIGNALBOX__V1__INTEREST__INIT;
    char *keys[1] = {(char *)"cursor"}, *sids[1] = {f.clients[ann].sid};
    interest.mute_keys = keys;
    interest.n_mute_keys = 1;
    set.interest = &interest;
    request_message.body_case = REQUEST(SET_INTEREST);
    request_message.set_interest = &set;
    request(&f, ann, &request_message);
    fixture_deliver(&f, &item);
    const Message *filtered = received(&f, 0, ann, BODY(SIGNALS), 1);
    ck_assert_uint_eq(filtered->signals->n_signals, 1);
    ck_assert_str_eq(filtered->signals->signals[0]->key, "speaking");
    interest.signal_sids = sids; /* only of herself: nothing is left */
    interest.n_signal_sids = 1;
    request(&f, ann, &request_message);
    fixture_deliver(&f, &item);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(SIGNALS)), 2);
    sids[0] = (char *)"nobody";
    request_message.request_id = 60;
    request(&f, ann, &request_message);
    ck_assert_int_eq((int)result_of(&f, ann, 60)->code, CODE(INVALID));
    interest = (Signalbox__V1__Interest)SIGNALBOX__V1__INTEREST__INIT;
    interest.viewers = true; /* those are not in the roster that she has */
    request(&f, ann, &request_message);
    ck_assert(last_ask()->want_viewers && last_ask()->epoch == NULL);
}
END_TEST

/* The owner says how many viewers there are, as it does whenever they come, go or change. */
static void deliver_viewers(uint64_t seq, uint32_t viewers)
{
    Message message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__RoomEvents events = SIGNALBOX__V1__ROOM_EVENTS__INIT;
    Signalbox__V1__RoomEvent event = SIGNALBOX__V1__ROOM_EVENT__INIT, *list[1] = {&event};
    Signalbox__V1__RoomInfo info = SIGNALBOX__V1__ROOM_INFO__INIT;
    Signalbox__Cluster__V1__RoomBatch batch = SIGNALBOX__CLUSTER__V1__ROOM_BATCH__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&f.epoch);
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    char epoch_text[EPOCH_TEXT_MAX + 1];
    epoch_format(&f.epoch, epoch_text);
    info.viewers = viewers;
    event.event_case = SIGNALBOX__V1__ROOM_EVENT__EVENT_ROOM;
    event.room = &info;
    events.epoch = epoch_text;
    events.first_seq = events.last_seq = seq;
    events.events = list;
    events.n_events = 1;
    message.body_case = BODY(ROOM_EVENTS);
    message.room_events = &events;
    batch.room_key = key_data("r");
    batch.epoch = &epoch;
    batch.first_seq = batch.last_seq = seq;
    batch.class_ = CLASS_MEMBERSHIP;
    batch.message = pack_message(&message);
    item.body_case = ITEM(ROOM_BATCH);
    item.room_batch = &batch;
    fixture_deliver(&f, &item);
}

static void set_interest_in_viewers(int client, bool viewers)
{
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__SetInterest set = SIGNALBOX__V1__SET_INTEREST__INIT;
    Signalbox__V1__Interest interest = SIGNALBOX__V1__INTEREST__INIT;
    interest.viewers = viewers;
    set.interest = &interest;
    message.body_case = REQUEST(SET_INTEREST);
    message.set_interest = &set;
    request(&f, client, &message);
}

START_TEST(who_wants_viewers_listed_gets_them_anew_when_they_change)
{
    deliver_viewers(start + 1, 1);
    fixture_advance(&f, 3000);
    ck_assert_int_eq(sent_count(&f, 0, ITEM(SYNC_REQUEST)), 0); /* nobody wants to know */
    set_interest_in_viewers(ann, true);
    ck_assert_int_eq(sent_count(&f, 0, ITEM(SYNC_REQUEST)), 1);
    session_reply(ann, pack_snapshot(&f, start + 1, ""), start + 1, false, true);

    size_t since = f.sent_count;
    for (uint32_t i = 2; i < 12; i++)
        deliver_viewers(start + i, i);
    deliver_events(&f, "r", start + 12, start + 12, "x"); /* is nothing about them */
    ck_assert_int_eq(events_of(ann), events_of(bob) + 1); /* hers, and Bob's join */
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 0);
    fixture_advance(&f, 2100);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 1);
    ck_assert(last_ask()->want_viewers && last_ask()->epoch == NULL);
    ck_assert_str_eq(last_ask()->sid, f.clients[ann].sid);

    since = f.sent_count;
    deliver_viewers(start + 13, 3); /* the snapshot under way may be older than that */
    session_reply(ann, pack_snapshot(&f, start + 13, ""), start + 13, false, true);
    set_interest_in_viewers(ann, true);
    fixture_advance(&f, 2100);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 1);
    session_reply(ann, pack_snapshot(&f, start + 13, ""), start + 13, false, true);

    since = f.sent_count;
    deliver_viewers(start + 14, 2);
    set_interest_in_viewers(ann, false);
    fixture_advance(&f, 3000);
    deliver_viewers(start + 15, 1);
    fixture_advance(&f, 3000);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 0);
}
END_TEST

START_TEST(a_session_that_waits_for_viewers_may_end)
{
    set_interest_in_viewers(ann, true);
    session_reply(ann, pack_snapshot(&f, start, ""), start, false, true);
    deliver_viewers(start + 1, 1);
    disconnect_client(&f, ann, true);
    size_t since = f.sent_count;
    fixture_advance(&f, 5000);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 0);
    deliver_viewers(start + 2, 2);
    disconnect_client(&f, bob, true);
}
END_TEST

/* --- gaps ------------------------------------------------------------------------------------------------------ */

START_TEST(a_gap_is_asked_for_until_it_is_filled)
{
    size_t since = f.sent_count;
    deliver_events(&f, "r", start + 3, start + 3, "after a gap");
    ck_assert_int_eq(events_of(bob), 0);
    const Signalbox__Cluster__V1__LinkPositions *positions = sent(&f, since, ITEM(LINK_POSITIONS), 0)->link_positions;
    ck_assert_uint_eq(positions->n_rooms, 1);
    ck_assert_uint_eq(positions->rooms[0]->seq, start);
    deliver_events(&f, "r", start + 4, start + 4, "more");
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 1);
    fixture_advance(&f, 500);
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 2);
    sync_reply("", 0, pack_events(&f, start + 1, start + 4, "all of it"), start + 4, true, true, CODE(OK));
    ck_assert_int_eq(events_of(bob), 1);
    ck_assert_uint_eq(last_events(ann)->last_seq, start + 4);
    fixture_advance(&f, 10000);
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 2);
    deliver_events(&f, "r", start + 5, start + 5, "and on");
    ck_assert_int_eq(events_of(bob), 2);
}
END_TEST

START_TEST(an_acknowledgement_shows_a_lost_last_batch)
{
    size_t since = f.sent_count;
    gateway_gap(f.gateway, &f.shard, f.now_ms);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 2);
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 1); /* and is lost */
    Ack *ack = make_ack(&f, last_state(&f, ann));
    ack->seq = start + 2;
    deliver_ack(&f, ack);
    fixture_advance(&f, 500);
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 2);
    sync_reply("", 0, pack_events(&f, start + 1, start + 2, "lost"), start + 2, true, true, CODE(OK));
    ck_assert_int_eq(events_of(ann), 2);
}
END_TEST

START_TEST(too_far_behind_takes_snapshots)
{
    size_t since = f.sent_count;
    deliver_events(&f, "r", start + 300, start + 300, "after a large gap");
    sync_reply("", 0, (ProtobufCBinaryData){0}, start + 300, false, false, CODE(RETRY));
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 2);
    ck_assert_ptr_null(last_ask()->epoch);
    fixture_advance(&f, 300); /* both are repeated */
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 4);
    session_reply(ann, pack_snapshot(&f, start + 301, ""), start + 301, false, true);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(SNAPSHOT)), 2);
    fixture_advance(&f, 600);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 5);
    deliver_events(&f, "r", start + 301, start + 301, "is in Ann's snapshot");
    deliver_events(&f, "r", start + 302, start + 302, "is not");
    ck_assert_int_eq(events_of(ann), 2);
    ck_assert_int_eq(events_of(bob), 0); /* waits for his */
}
END_TEST

START_TEST(a_client_that_misses_something_asks)
{
    char epoch[EPOCH_TEXT_MAX + 1];
    Signalbox__V1__Position position = SIGNALBOX__V1__POSITION__INIT;
    epoch_format(&f.epoch, epoch);
    position.epoch = epoch;
    position.seq = start - 1;
    say_sync(bob, &position, "");
    ck_assert_uint_eq(last_ask()->seq, start - 1);
    ck_assert_str_eq(last_ask()->sid, f.clients[bob].sid);
    int asked = sent_count(&f, 0, ITEM(SYNC_REQUEST));
    say_sync(bob, &position, ""); /* it is on its way */
    ck_assert_int_eq(sent_count(&f, 0, ITEM(SYNC_REQUEST)), asked);
    deliver_events(&f, "r", start + 1, start + 1, "meanwhile");
    ck_assert_int_eq(events_of(bob), 0);
    session_reply(bob, pack_events(&f, start, start, "missed"), start, true, true);
    ck_assert_uint_eq(last_events(bob)->last_seq, start);
    ck_assert_uint_eq(last_ask()->seq, start); /* for what came meanwhile */
    session_reply(bob, pack_events(&f, start + 1, start + 1, "meanwhile"), start + 1, true, true);
    deliver_events(&f, "r", start + 2, start + 2, "live again");
    ck_assert_uint_eq(last_events(bob)->last_seq, start + 2);
    position.epoch = (char *)"nonsense";
    say_sync(bob, &position, "");
    ck_assert_ptr_null(last_ask()->epoch);
    /* Its roster is wrong: events that are on their way are not what it needs. */
    position.epoch = epoch;
    say_sync(ann, &position, "");
    ck_assert_ptr_nonnull(last_ask()->epoch);
    say_sync(ann, NULL, "");
    ck_assert_str_eq(last_ask()->sid, f.clients[ann].sid);
    ck_assert_ptr_null(last_ask()->epoch);
    asked = sent_count(&f, 0, ITEM(SYNC_REQUEST));
    say_sync(ann, NULL, "");
    ck_assert_int_eq(sent_count(&f, 0, ITEM(SYNC_REQUEST)), asked);
}
END_TEST

START_TEST(snapshots_come_in_pages)
{
    say_sync(bob, NULL, "");
    ck_assert_ptr_null(last_ask()->epoch);
    session_reply(bob, pack_snapshot(&f, start, "1-100"), start, false, false);
    deliver_events(&f, "r", start + 1, start + 1, "held");
    ck_assert_int_eq(events_of(bob), 0);
    ck_assert_int_eq(events_of(ann), 2);
    say_sync(bob, NULL, "1-100");
    ck_assert_str_eq(last_ask()->cursor, "1-100");
    fixture_advance(&f, 300); /* lost: the same page is asked for again */
    ck_assert_str_eq(last_ask()->cursor, "1-100");
    session_reply(bob, pack_snapshot(&f, start, ""), start, false, true);
    ck_assert_int_eq(received_count(&f, 0, bob, BODY(SNAPSHOT)), 3);
    ck_assert_uint_eq(last_ask()->seq, start); /* catches up from where it was pinned */
    ck_assert_str_eq(last_ask()->cursor, "");
    session_reply(bob, pack_events(&f, start + 1, start + 1, "held"), start + 1, true, true);
    ck_assert_int_eq(events_of(bob), 1);
    say_sync(bob, NULL, "1-100");
    ck_assert_int_eq((int)result_of(&f, bob, 50)->code, CODE(INVALID)); /* nothing is being read */
}
END_TEST

START_TEST(a_slow_reader_gets_a_snapshot)
{
    gateway_client_overflow(f.gateway, f.clients[ann].client, 3, 2, f.now_ms);
    const Message *dropped = received(&f, 0, ann, BODY(DROPPED), 0);
    ck_assert_uint_eq(dropped->dropped->n_counts, 2);
    ck_assert_str_eq(dropped->dropped->counts[0]->class_name, "p3_membership");
    ck_assert_uint_eq(dropped->dropped->counts[0]->count, 3);
    ck_assert_ptr_null(last_ask()->epoch);
    int asked = sent_count(&f, 0, ITEM(SYNC_REQUEST));
    gateway_client_overflow(f.gateway, f.clients[bob].client, 0, 2, f.now_ms);
    ck_assert_int_eq(sent_count(&f, 0, ITEM(SYNC_REQUEST)), asked);
}
END_TEST

/* --- epochs and owners ----------------------------------------------------------------------------------------- */

START_TEST(older_epochs_are_refused_newer_ones_taken)
{
    struct epoch now = f.epoch;
    uint64_t stale = metric_value(M_BATCHES_STALE);
    f.epoch.counter = 0;
    deliver_events(&f, "r", start + 1, start + 1, "of the past");
    ck_assert_uint_eq(metric_value(M_BATCHES_STALE), stale + 1);
    ck_assert_int_eq(events_of(bob), 0);
    f.epoch.counter = now.counter + 1;
    size_t since = f.sent_count;
    deliver_events(&f, "r", 1, 9, "of a new epoch");
    ck_assert_int_eq(events_of(bob), 0);
    /* Whether the position is one of the new epoch, the owner knows. */
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 0);
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 1);
    epoch_change(9, 77, NULL, 0);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 2);
    ck_assert_ptr_null(last_ask()->epoch);
    session_reply(bob, pack_snapshot(&f, 9, ""), 9, false, true);
    deliver_events(&f, "r", 10, 10, "goes on");
    ck_assert_int_eq(events_of(bob), 1);
}
END_TEST

START_TEST(a_new_owner_is_told_of_every_session)
{
    size_t since = f.sent_count;
    fixture_next_owner(&f);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 2);
    const State *state = last_state(&f, ann);
    ck_assert_int_eq((int)state->intent, HOLD);
    ck_assert_int_eq((int)state->state, ATTACHED);
    ck_assert_uint_eq(state->bind_generation, 1);
    ck_assert_uint_eq(state->participant->version, 1);
    ck_assert_uint_eq(state->last_seq, start);
    ck_assert_uint_eq(state->join_seq, start - 1);
    for (size_t i = since; i < f.sent_count; i++)
        ck_assert(node_address_equal(&f.sent[i].to, &f.shard));
    /* It is told of both, and says where the room stands once it knows all of it: elsewhere. */
    for (int i = 0; i < 2; i++) {
        Ack *ack = make_ack(&f, last_state(&f, i == 0 ? ann : bob));
        ack->epoch = NULL;
        deliver_ack(&f, ack);
    }
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 0);
    epoch_change(3, 77, NULL, 0);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 2);
    session_reply(ann, pack_snapshot(&f, 3, ""), 3, false, true);
    session_reply(bob, pack_snapshot(&f, 3, ""), 3, false, true);
    deliver_events(&f, "r", 4, 4, "goes on");
    ck_assert_int_eq(events_of(ann), 2);
    ck_assert_int_eq(events_of(bob), 1);
}
END_TEST

static ProtobufCBinaryData pack_left(uint64_t seq, const char *sid)
{
    Message message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__RoomEvents events = SIGNALBOX__V1__ROOM_EVENTS__INIT;
    Signalbox__V1__RoomEvent event = SIGNALBOX__V1__ROOM_EVENT__INIT, *list[] = {&event};
    Signalbox__V1__ParticipantLeft left = SIGNALBOX__V1__PARTICIPANT_LEFT__INIT;
    left.sid = (char *)sid;
    left.reason = REASON(DUPLICATE_IDENTITY);
    event.event_case = SIGNALBOX__V1__ROOM_EVENT__EVENT_LEFT;
    event.left = &left;
    events.first_seq = events.last_seq = seq;
    events.events = list;
    events.n_events = 1;
    message.body_case = BODY(ROOM_EVENTS);
    message.room_events = &events;
    return pack_message(&message);
}

static void deliver_left(uint64_t seq, const char *sid)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__RoomBatch batch = SIGNALBOX__CLUSTER__V1__ROOM_BATCH__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&f.epoch);
    batch.room_key = key_data("r");
    batch.epoch = &epoch;
    batch.first_seq = batch.last_seq = seq;
    batch.class_ = 3;
    batch.message = pack_left(seq, sid);
    item.body_case = ITEM(ROOM_BATCH);
    item.room_batch = &batch;
    fixture_deliver(&f, &item);
}

START_TEST(a_new_owner_is_told_once_of_the_latest_who_left)
{
    char sids[40][SID_TEXT_SIZE + 1];
    for (int i = 0; i < 40; i++) {
        struct sid sid = {.bytes = {(uint8_t)(i + 1)}};
        sid_format(&sid, sids[i]);
        deliver_left(start + 1 + (uint64_t)i, sids[i]);
    }
    fixture_next_owner(&f);
    const State *state = last_state(&f, ann);
    ck_assert_uint_eq(state->n_departures, 32);
    ck_assert_str_eq(state->departures[0]->sid, sids[8]);
    ck_assert_str_eq(state->departures[31]->sid, sids[39]);
    ck_assert_int_eq((int)state->departures[31]->reason, REASON(DUPLICATE_IDENTITY));
    ck_assert_uint_gt(state->departures[31]->left_ms, 0);
    ck_assert_uint_eq(last_state(&f, bob)->n_departures, 0);
    /* Again until it is acknowledged, and no more then. */
    fixture_advance(&f, 400);
    ck_assert_uint_eq(last_state(&f, ann)->n_departures, 32);
    deliver_ack(&f, make_ack(&f, last_state(&f, ann)));
    disconnect_client(&f, ann, false);
    ck_assert_uint_eq(newest_state(&f)->n_departures, 0);
}
END_TEST

/* As where a client comes back to a gateway that had nobody in its room. */
START_TEST(a_new_owner_is_told_of_who_left_in_the_eyes_of_one_client)
{
    char epoch[EPOCH_TEXT_MAX + 1], sid_text[SID_TEXT_SIZE + 1];
    Signalbox__V1__Position position = SIGNALBOX__V1__POSITION__INIT;
    struct sid sid = {.bytes = {7}};
    sid_format(&sid, sid_text);
    epoch_format(&f.epoch, epoch);
    position.epoch = epoch;
    position.seq = start - 1;
    say_sync(bob, &position, "");
    session_reply(bob, pack_left(start, sid_text), start, true, true);
    fixture_next_owner(&f);
    ck_assert_uint_eq(last_state(&f, ann)->n_departures, 1);
    ck_assert_str_eq(last_state(&f, ann)->departures[0]->sid, sid_text);
}
END_TEST

/* What is said of a client that asks to join the room. */
static const State *join_of_cat(void)
{
    int cat = connect_client(&f);
    char *token = mint(&f, "cat", "r", NULL);
    Join join = SIGNALBOX__V1__JOIN__INIT;
    hello_token(&f, cat, token, &join);
    free(token);
    const State *state = newest_state(&f);
    ck_assert_int_eq((int)state->intent, JOIN);
    ck_assert_str_eq(state->participant->identity, "cat");
    return state;
}

START_TEST(a_join_says_where_others_here_stand)
{
    fixture_next_owner(&f);
    const State *state = join_of_cat();
    ck_assert_ptr_nonnull(state->last_epoch);
    ck_assert_uint_eq(state->last_seq, start);
}
END_TEST

/* The room may be gone with them, and would settle for nobody. */
START_TEST(a_join_says_nothing_of_who_has_left)
{
    disconnect_client(&f, ann, true);
    disconnect_client(&f, bob, true); /* neither has been acknowledged */
    const State *state = join_of_cat();
    ck_assert_ptr_null(state->last_epoch);
}
END_TEST

/* Or the new owner's roster would have the digest of the old one, and nobody would be shown the change. */
START_TEST(a_change_that_a_lost_owner_did_not_acknowledge_has_a_version_of_its_own)
{
    Request changes = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__SetMetadata metadata = SIGNALBOX__V1__SET_METADATA__INIT;
    changes.body_case = REQUEST(SET_METADATA);
    changes.set_metadata = &metadata;
    metadata.set_metadata = true;
    metadata.metadata = (char *)"first";
    request(&f, ann, &changes);
    metadata.metadata = (char *)"second";
    request(&f, ann, &changes);
    fixture_next_owner(&f);
    ck_assert_uint_eq(last_state(&f, ann)->participant->version, 3);
    ck_assert_uint_eq(last_state(&f, bob)->participant->version, 1);
    /* The new owner has taken it. */
    Ack *ack = make_ack(&f, last_state(&f, ann));
    ack->participant_version = 3;
    deliver_ack(&f, ack);
    fixture_next_owner(&f);
    ck_assert_uint_eq(last_state(&f, ann)->participant->version, 3);
}
END_TEST

START_TEST(a_room_that_came_whole_goes_on_in_silence)
{
    struct epoch from = f.epoch;
    int snapshots = received_count(&f, 0, ann, BODY(SNAPSHOT));
    fixture_next_owner(&f);
    size_t since = f.sent_count;
    f.epoch.counter++;
    epoch_change(start + 1, 0, &from, start + 1);
    const Message *moved = received(&f, 0, ann, BODY(MOVED), 0);
    ck_assert_ptr_nonnull(moved);
    ck_assert_str_eq(moved->moved->shard, f.shard.id);
    /* One event was missed before the room moved: it is replayed, under the new epoch. */
    const Item *ask = sent(&f, since, ITEM(LINK_POSITIONS), 0);
    ck_assert_uint_eq(ask->link_positions->rooms[0]->seq, start);
    sync_reply("", 0, pack_events(&f, start + 1, start + 1, "missed"), start + 1, true, true, CODE(OK));
    deliver_events(&f, "r", start + 2, start + 2, "goes on");
    ck_assert_int_eq(events_of(bob), 2);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(SNAPSHOT)), snapshots);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 0);
    /* Said again, or by the owner before: nothing. */
    epoch_change(start + 2, 0, &from, start + 1);
    f.epoch = from;
    epoch_change(start + 5, 0, NULL, 0);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(MOVED)), 1);
}
END_TEST

/* Their next turn by the clock may be seconds away. */
START_TEST(clients_of_an_owner_that_acts_again_send_again)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__EpochChange change = SIGNALBOX__CLUSTER__V1__EPOCH_CHANGE__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&f.epoch);
    change.room_key = key_data("r");
    change.epoch = &epoch;
    change.seq = start;
    item.body_case = ITEM(EPOCH_CHANGE);
    item.epoch_change = &change;
    fixture_deliver(&f, &item);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(MOVED)), 0);
    change.resumed = true;
    size_t since = f.sent_count;
    fixture_deliver(&f, &item);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(MOVED)), 1);
    ck_assert_int_eq(received_count(&f, 0, bob, BODY(MOVED)), 1);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 0);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 0);
    deliver_events(&f, "r", start + 1, start + 1, "goes on");
    ck_assert_int_eq(events_of(bob), 1);
}
END_TEST

START_TEST(the_same_roster_at_the_same_position_is_adopted_in_silence)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__RoomBatch batch = SIGNALBOX__CLUSTER__V1__ROOM_BATCH__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&f.epoch);
    batch.room_key = key_data("r");
    batch.epoch = &epoch;
    batch.first_seq = batch.last_seq = start + 1;
    batch.class_ = 3;
    batch.message = pack_events(&f, start + 1, start + 1, "hears of the digest");
    batch.digest = 77;
    batch.exclude_sid = (char *)"";
    item.body_case = ITEM(ROOM_BATCH);
    item.room_batch = &batch;
    fixture_deliver(&f, &item);
    fixture_next_owner(&f);
    size_t since = f.sent_count;
    f.epoch.counter++;
    epoch_change(start + 1, 77, NULL, 0);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(MOVED)), 1);
    ck_assert_int_eq(received_count(&f, 0, bob, BODY(MOVED)), 1);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 0);
    deliver_events(&f, "r", start + 2, start + 2, "goes on");
    ck_assert_int_eq(events_of(bob), 2);
    /* Another roster, or another position, is not. */
    f.epoch.counter++;
    epoch_change(start + 2, 78, NULL, 0);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(MOVED)), 1);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 2);
}
END_TEST

START_TEST(a_new_owner_that_says_nothing_is_asked)
{
    size_t since = f.sent_count;
    fixture_next_owner(&f);
    fixture_advance(&f, 499);
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 0);
    fixture_advance(&f, 1001);
    ck_assert_int_ge(sent_count(&f, since, ITEM(LINK_POSITIONS)), 2);
}
END_TEST

START_TEST(an_owner_that_lost_the_room_is_told_again)
{
    size_t since = f.sent_count;
    sync_reply("", 0, (ProtobufCBinaryData){0}, 0, false, false, CODE(NOT_FOUND));
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 2);
    f.epoch.counter++;
    deliver_ack(&f, make_ack(&f, last_state(&f, ann)));
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 1); /* it has the room again, in another epoch */
}
END_TEST

START_TEST(not_owner_is_told_again_or_waits)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__NotOwner not_owner = SIGNALBOX__CLUSTER__V1__NOT_OWNER__INIT;
    Signalbox__Cluster__V1__ViewNumber view = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    int carl = connect_client(&f);
    char *token = mint(&f, "carl", "r", NULL);
    hello_token(&f, carl, token, NULL);
    free(token);
    not_owner.room_key = key_data("r");
    not_owner.sid = newest_state(&f)->sid;
    not_owner.connection = newest_state(&f)->connection;
    not_owner.view = &view;
    view.generation = 1;
    view.seq = f.view->number.seq;
    item.body_case = ITEM(NOT_OWNER);
    item.not_owner = &not_owner;
    fixture_deliver(&f, &item); /* the shard was behind */
    size_t since = f.sent_count;
    fixture_advance(&f, 600);
    ck_assert_uint_gt(f.sent_count, since);
    view.seq++; /* this gateway is behind */
    fixture_deliver(&f, &item);
    since = f.sent_count;
    fixture_next_owner(&f);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 3);
}
END_TEST

START_TEST(where_all_shards_are_full_only_known_rooms_are_joined)
{
    struct jwt_claims claims = {0};
    struct refusal refusal;
    strcpy(claims.project, "p");
    ck_assert(gateway_has_capacity(f.gateway, &claims, "elsewhere", &refusal));
    struct view *view = view_copy(f.view);
    view->number.seq++;
    view->shards[0].full = true;
    gateway_view(f.gateway, view, f.now_ms);
    view_unref(&view);
    ck_assert(!gateway_has_capacity(f.gateway, &claims, "elsewhere", &refusal));
    ck_assert_int_eq(refusal.http_status, 503);
    ck_assert_int_eq(refusal.code, CODE(NO_CAPACITY));
    ck_assert_uint_gt(refusal.retry_after_ms, 0);
    ck_assert(gateway_ready(f.gateway, &refusal)); /* for resumes */
}
END_TEST

START_TEST(a_bus_that_comes_and_goes)
{
    gateway_bus(f.gateway, false, f.now_ms);
    ck_assert(received(&f, 0, ann, BODY(DEGRADED), 0)->degraded->degraded);
    struct refusal refusal;
    ck_assert(!gateway_ready(f.gateway, &refusal));
    ck_assert_int_eq(refusal.http_status, 503);
    size_t since = f.sent_count;
    gateway_bus(f.gateway, true, f.now_ms);
    ck_assert(!received(&f, 0, bob, BODY(DEGRADED), 1)->degraded->degraded);
    ck_assert(gateway_ready(f.gateway, &refusal));
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 1);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 2);
    deliver_ack(&f, make_ack(&f, last_state(&f, ann)));
    deliver_ack(&f, make_ack(&f, last_state(&f, bob)));
    since = f.sent_count;
    fixture_advance(&f, 10000);
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 0);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 0);
}
END_TEST

/* Removed while it could not be heard. With the bus alone it is not back: shards listen to those in their view. */
START_TEST(a_gateway_that_was_removed_is_back_with_the_view_that_lists_it)
{
    struct node_address self = f.options.self;
    self.incarnation++;
    gateway_bus(f.gateway, false, f.now_ms);
    gateway_rename(f.gateway, &self);
    gateway_bus(f.gateway, true, f.now_ms);
    fixture_advance(&f, 5000); /* what it says goes nowhere, so that it says it less and less often */
    ck_assert(received(&f, 0, ann, BODY(DEGRADED), 0)->degraded->degraded);
    ck_assert_ptr_null(received(&f, 0, ann, BODY(DEGRADED), 1));
    size_t since = f.sent_count;
    struct view *view = view_copy(f.view);
    struct view_node node = {.incarnation = self.incarnation};
    memcpy(node.id, self.id, sizeof node.id);
    view->number.seq++;
    view_put_gateway(view, &node);
    gateway_view(f.gateway, view, f.now_ms);
    view_unref(&view);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 2);
    ck_assert(!received(&f, 0, ann, BODY(DEGRADED), 1)->degraded->degraded);
    struct refusal refusal;
    ck_assert(gateway_ready(f.gateway, &refusal));
}
END_TEST

/* A gateway of thousands, all of whom a new owner must be told of. */
START_TEST(a_resync_is_paced_by_its_acknowledgements)
{
    enum { ROOMS = 40, WINDOW = 256 };
    char name[32], identity[32];
    int sessions = 2;
    for (int i = 0; i < 2 * WINDOW; i++, sessions++) {
        snprintf(name, sizeof name, "room-%d", i % ROOMS);
        snprintf(identity, sizeof identity, "p%d", i);
        int client = join_client(&f, identity, name, NULL);
        disconnect_client(&f, client, false);
        deliver_ack(&f, make_ack(&f, newest_state(&f)));
    }
    ck_assert_uint_eq(gateway_stats(f.gateway).sessions, (size_t)sessions);
    size_t since = f.sent_count;
    fixture_next_owner(&f);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), WINDOW);
    ck_assert_int_ne(view_number_compare(gateway_reported(f.gateway), f.view->number), 0);
    fixture_advance(&f, 100); /* nothing is acknowledged: nothing further is said */
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), WINDOW);
    for (int acked = 0; acked < sessions; acked++) {
        deliver_ack(&f, make_ack(&f, sent(&f, since, ITEM(SESSION_STATE), acked)->session_state));
        if (acked % 100 == 0)
            fixture_advance(&f, 10);
        ck_assert_int_le(sent_count(&f, since, ITEM(SESSION_STATE)), acked + 1 + WINDOW);
        if (acked + 1 == sent_count(&f, since, ITEM(SESSION_STATE)))
            fixture_advance(&f, 10);
    }
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), sessions);
    ck_assert_int_eq(view_number_compare(gateway_reported(f.gateway), f.view->number), 0);

    since = f.sent_count;
    gateway_gap(f.gateway, &f.shard, f.now_ms);
    gateway_gap(f.gateway, &f.shard, f.now_ms); /* while the first is worked off */
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), WINDOW);
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway_sync");
    TCase *tcase = tcase_create("sync");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_batch_is_one_frame_for_all);
    tcase_add_test(tcase, signals_are_filtered);
    tcase_add_test(tcase, who_wants_viewers_listed_gets_them_anew_when_they_change);
    tcase_add_test(tcase, a_session_that_waits_for_viewers_may_end);
    tcase_add_test(tcase, a_gap_is_asked_for_until_it_is_filled);
    tcase_add_test(tcase, an_acknowledgement_shows_a_lost_last_batch);
    tcase_add_test(tcase, too_far_behind_takes_snapshots);
    tcase_add_test(tcase, a_client_that_misses_something_asks);
    tcase_add_test(tcase, snapshots_come_in_pages);
    tcase_add_test(tcase, a_slow_reader_gets_a_snapshot);
    tcase_add_test(tcase, older_epochs_are_refused_newer_ones_taken);
    tcase_add_test(tcase, a_new_owner_is_told_of_every_session);
    tcase_add_test(tcase, a_new_owner_is_told_once_of_the_latest_who_left);
    tcase_add_test(tcase, a_new_owner_is_told_of_who_left_in_the_eyes_of_one_client);
    tcase_add_test(tcase, a_join_says_where_others_here_stand);
    tcase_add_test(tcase, a_join_says_nothing_of_who_has_left);
    tcase_add_test(tcase, a_change_that_a_lost_owner_did_not_acknowledge_has_a_version_of_its_own);
    tcase_add_test(tcase, a_room_that_came_whole_goes_on_in_silence);
    tcase_add_test(tcase, clients_of_an_owner_that_acts_again_send_again);
    tcase_add_test(tcase, the_same_roster_at_the_same_position_is_adopted_in_silence);
    tcase_add_test(tcase, a_new_owner_that_says_nothing_is_asked);
    tcase_add_test(tcase, an_owner_that_lost_the_room_is_told_again);
    tcase_add_test(tcase, not_owner_is_told_again_or_waits);
    tcase_add_test(tcase, where_all_shards_are_full_only_known_rooms_are_joined);
    tcase_add_test(tcase, a_bus_that_comes_and_goes);
    tcase_add_test(tcase, a_gateway_that_was_removed_is_back_with_the_view_that_lists_it);
    tcase_add_test(tcase, a_resync_is_paced_by_its_acknowledgements);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
