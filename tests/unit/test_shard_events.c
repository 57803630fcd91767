/* What a room publishes: ranges, coalescing, viewers, snapshots in pages, positions after a gap. */
#include "plain_fixture.h"
#include "suite.h"
#include <stdio.h>
#include <string.h>

static const Events *flushed_events(size_t since, int gateway)
{
    fixture_advance(&fixture, 10);
    const Events *events = sent_events(&fixture, since, gateway, 0);
    ck_assert_ptr_nonnull(events);
    ck_assert_ptr_null(sent_events(&fixture, since, gateway, 1));
    return events;
}

START_TEST(a_join_is_an_event_for_every_gateway_with_members)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 1), eve = person_make("eve", "s", 2);
    person_join(&fixture, &ann);
    person_join(&fixture, &eve);
    fixture_advance(&fixture, 10);
    size_t since = fixture.sent_count;
    person_join(&fixture, &bob);
    for (int gateway = 0; gateway < 2; gateway++) {
        const Events *events = flushed_events(since, gateway);
        ck_assert_uint_eq(events->first_seq, 2);
        ck_assert_uint_eq(events->last_seq, 2);
        ck_assert_uint_eq(events->n_events, 1);
        const Signalbox__V1__Participant *joined = events->events[0]->joined;
        ck_assert_str_eq(joined->sid, bob.sid);
        ck_assert_str_eq(joined->identity, "bob");
        ck_assert_uint_eq(joined->join->seq, 2);
    }
    ck_assert_int_eq(sent_count(&fixture, since, 2, BODY(ROOM_BATCH)), 0);
    ck_assert_int_eq(sent_item(&fixture, since, 0, BODY(ROOM_BATCH), 0)->room_batch->class_, 3);
}
END_TEST

START_TEST(a_storm_of_joins_is_one_batch)
{
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    fixture_advance(&fixture, 10);
    size_t since = fixture.sent_count;
    for (int i = 0; i < 50; i++) {
        char name[8];
        snprintf(name, sizeof name, "p%d", i);
        struct person person = person_make(name, "r", 1);
        person_join(&fixture, &person);
    }
    const Events *events = flushed_events(since, 0);
    ck_assert_uint_eq(events->n_events, 50);
    ck_assert_uint_eq(events->last_seq, 51);
}
END_TEST

START_TEST(updates_of_a_tick_become_one_with_the_parts_that_changed)
{
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    fixture_advance(&fixture, 10);
    size_t since = fixture.sent_count;
    strcpy(ann.name, "Ann");
    ck_assert_uint_eq(person_hold(&fixture, &ann, ATTACHED)->participant_version, 2);
    strcpy(ann.name, "Ann B.");
    person_hold(&fixture, &ann, ATTACHED);
    const Events *events = flushed_events(since, 0);
    ck_assert_uint_eq(events->first_seq, 2);
    ck_assert_uint_eq(events->last_seq, 3);
    ck_assert_uint_eq(events->n_events, 1);
    const Signalbox__V1__ParticipantUpdate *updated = events->events[0]->updated;
    ck_assert_uint_eq(updated->version, 3);
    ck_assert_str_eq(updated->profile->name, "Ann B.");
    ck_assert_ptr_null(updated->tracks);
    ck_assert_ptr_null(updated->permissions);

    since = fixture.sent_count;
    ann.tracks = 1;
    person_hold(&fixture, &ann, ATTACHED);
    updated = flushed_events(since, 0)->events[0]->updated;
    ck_assert_uint_eq(updated->tracks->n_tracks, 1);
    ck_assert_ptr_null(updated->profile);

    since = fixture.sent_count;
    person_hold(&fixture, &ann, ATTACHED); /* nothing changed */
    fixture_advance(&fixture, 10);
    ck_assert_ptr_null(sent_events(&fixture, since, 0, 0));
}
END_TEST

START_TEST(an_update_before_the_join_is_published_becomes_part_of_it)
{
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    ann.tracks = 2;
    person_hold(&fixture, &ann, ATTACHED);
    const Events *events = flushed_events(0, 0);
    ck_assert_uint_eq(events->n_events, 1);
    ck_assert_uint_eq(events->last_seq, 2);
    ck_assert_uint_eq(events->events[0]->joined->n_tracks, 2);
    ck_assert_uint_eq(events->events[0]->joined->version, 2);
}
END_TEST

START_TEST(a_join_and_leave_nobody_saw_cancel_and_are_covered)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 1), cat = person_make("cat", "r", 0);
    person_join(&fixture, &ann);
    fixture_advance(&fixture, 10);
    size_t since = fixture.sent_count;
    person_join(&fixture, &bob);
    person_hold(&fixture, &bob, DEPARTED);
    const Events *events = flushed_events(since, 0);
    ck_assert_uint_eq(events->n_events, 0);
    ck_assert_uint_eq(events->first_seq, 2);
    ck_assert_uint_eq(events->last_seq, 3);
    since = fixture.sent_count;
    person_join(&fixture, &cat);
    ck_assert_uint_eq(flushed_events(since, 0)->first_seq, 4);
}
END_TEST

START_TEST(a_leave_is_told_if_a_snapshot_has_shown_the_join)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 1), cat = person_make("cat", "r", 2);
    person_join(&fixture, &ann);
    fixture_advance(&fixture, 10);
    size_t since = fixture.sent_count;
    person_join(&fixture, &bob);
    ck_assert_ptr_nonnull(snapshot_find(ack_snapshot(&fixture, person_join(&fixture, &cat)), bob.sid));
    person_hold(&fixture, &bob, DEPARTED);
    const Events *events = flushed_events(since, 2);
    ck_assert_uint_eq(events->n_events, 2);
    ck_assert_str_eq(events->events[0]->joined->sid, cat.sid);
    ck_assert_str_eq(events->events[1]->left->sid, bob.sid);
}
END_TEST

START_TEST(a_large_batch_goes_on_in_the_next_one)
{
    static char metadata[4000];
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    fixture_advance(&fixture, 10);
    size_t since = fixture.sent_count;
    memset(metadata, 'x', sizeof metadata - 1);
    for (int i = 0; i < 100; i++) {
        char name[8];
        snprintf(name, sizeof name, "p%d", i);
        struct person person = person_make(name, "r", 1);
        person.version = 1;
        State *state = person_state(&person, JOIN, ATTACHED);
        state->participant->metadata = metadata;
        send_state(&fixture, &person, state);
    }
    fixture_advance(&fixture, 10);
    uint64_t last_seq = 1;
    size_t total = 0;
    const Events *events;
    for (int n = 0; (events = sent_events(&fixture, since, 0, n)) != NULL; n++) {
        ck_assert_uint_le(sent_item(&fixture, since, 0, BODY(ROOM_BATCH), n)->room_batch->message.len, 60 * 1024);
        ck_assert_uint_eq(events->first_seq, last_seq + 1);
        ck_assert_uint_eq(events->last_seq - events->first_seq + 1, events->n_events);
        last_seq = events->last_seq;
        total += events->n_events;
    }
    ck_assert_uint_eq(total, 100);
    ck_assert_uint_eq(last_seq, 101);
}
END_TEST

START_TEST(a_busy_room_publishes_at_its_pace)
{
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    fixture_advance(&fixture, 100);
    size_t since = fixture.sent_count;
    for (unsigned i = 0; i < 20; i++) {
        ann.tracks = i % 4;
        person_hold(&fixture, &ann, ATTACHED);
        fixture_advance(&fixture, 1);
    }
    fixture_advance(&fixture, 10);
    int batches = sent_count(&fixture, since, 0, BODY(ROOM_BATCH));
    ck_assert_int_ge(batches, 4);
    ck_assert_int_le(batches, 6);
    ck_assert_uint_eq(shard_stats(fixture.shard).pending_updates, 0);
}
END_TEST

START_TEST(viewers_are_counted_and_hidden_ones_are_not_seen)
{
    struct person ann = person_make("ann", "r", 0), viewer = person_make("vic", "r", 1),
                  spy = person_make("spy", "r", 2);
    viewer.kind = SIGNALBOX__V1__PARTICIPANT__KIND__VIEWER;
    spy.hidden = true;
    person_join(&fixture, &ann);
    fixture_advance(&fixture, 10);
    size_t since = fixture.sent_count;
    const Ack *ack = person_join(&fixture, &viewer);
    ck_assert_str_eq(ack->participant->identity, "vic");
    const Snapshot *snapshot = ack_snapshot(&fixture, ack);
    ck_assert_uint_eq(snapshot->n_participants, 1);
    ck_assert_uint_eq(snapshot->room->viewers, 1);
    const Events *events = flushed_events(since, 0);
    ck_assert_uint_eq(events->n_events, 1);
    ck_assert_int_eq(events->events[0]->event_case, SIGNALBOX__V1__ROOM_EVENT__EVENT_ROOM);
    ck_assert_uint_eq(events->events[0]->room->viewers, 1);
    ck_assert_uint_eq(events->events[0]->room->participants, 1);

    since = fixture.sent_count;
    ck_assert_uint_eq(ack_snapshot(&fixture, person_join(&fixture, &spy))->n_participants, 1);
    fixture_advance(&fixture, 10);
    ck_assert_int_eq(sent_count(&fixture, since, -1, BODY(ROOM_BATCH)), 0);

    Signalbox__Cluster__V1__SyncRequest request = sync_make(&ann);
    request.want_viewers = true;
    snapshot = unpack_message(&fixture, send_sync(&fixture, &ann, &request)->messages[0])->snapshot;
    ck_assert_uint_eq(snapshot->n_participants, 2);
    ck_assert_ptr_nonnull(snapshot_find(snapshot, viewer.sid));

    since = fixture.sent_count;
    strcpy(viewer.name, "Victor"); /* those who have him listed need to know that it is time to look again */
    person_hold(&fixture, &viewer, ATTACHED);
    events = flushed_events(since, 0);
    ck_assert_uint_eq(events->n_events, 1);
    ck_assert_int_eq(events->events[0]->event_case, SIGNALBOX__V1__ROOM_EVENT__EVENT_ROOM);

    since = fixture.sent_count;
    person_hold(&fixture, &spy, DEPARTED);
    fixture_advance(&fixture, 10);
    ck_assert_int_eq(sent_count(&fixture, since, -1, BODY(ROOM_BATCH)), 0);
    person_hold(&fixture, &viewer, DEPARTED);
    ck_assert_uint_eq(flushed_events(since, 0)->events[0]->room->viewers, 0);
}
END_TEST

static struct person crowd[500];

static void fill_room(void)
{
    for (int i = 0; i < 500; i++) {
        char name[16];
        snprintf(name, sizeof name, "p%d", i);
        crowd[i] = person_make(name, "r", i % GATEWAYS);
        person_join(&fixture, &crowd[i]);
    }
    fixture_advance(&fixture, 10);
}

START_TEST(a_large_roster_comes_in_pages_of_one_position)
{
    fill_room();
    struct person ann = person_make("ann", "r", 0);
    ann.version = 1;
    State *state = person_state(&ann, JOIN, ATTACHED);
    state->page_size = 40;
    size_t since = fixture.sent_count;
    send_state(&fixture, &ann, state);
    const Ack *ack = sent_item(&fixture, since, 0, BODY(SESSION_ACK), 0)->session_ack;
    ck_assert(ack->more_pages);
    const Snapshot *page = ack_snapshot(&fixture, ack);
    static char seen[501][SID_TEXT_SIZE + 1];
    size_t count = 0;
    for (unsigned turn = 0;; turn++) {
        ck_assert_uint_eq(page->position->seq, 501);
        ck_assert_uint_le(page->n_participants, 40);
        for (size_t i = 0; i < page->n_participants; i++) {
            ck_assert_uint_lt(count, 501);
            strcpy(seen[count++], page->participants[i]->sid);
        }
        if (page->next_cursor[0] == '\0')
            break;
        /* People come and go meanwhile. */
        person_hold(&fixture, &crowd[turn], DEPARTED);
        struct person newcomer = person_make("new", "r", 1);
        person_join(&fixture, &newcomer);
        fixture_advance(&fixture, 10);
        Signalbox__Cluster__V1__SyncRequest request = sync_make(&ann);
        request.cursor = page->next_cursor;
        request.page_size = 40;
        const Signalbox__Cluster__V1__SyncReply *reply = send_sync(&fixture, &ann, &request);
        ck_assert(!reply->replay);
        page = unpack_message(&fixture, reply->messages[0])->snapshot;
        ck_assert_int_eq(reply->last_page, page->next_cursor[0] == '\0');
    }
    ck_assert_uint_eq(count, 501);
    for (size_t i = 0; i < 500; i++)
        ck_assert_str_eq(seen[i], crowd[i].sid);
    ck_assert_str_eq(seen[500], ann.sid);
}
END_TEST

START_TEST(a_cursor_that_is_gone_begins_a_new_snapshot)
{
    static const char *const cursors[] = {"", "x", "1", "-", "1-", "1--1", "99999999999999999999-1", "1-999999999"};
    fill_room();
    Signalbox__Cluster__V1__SyncRequest request = sync_make(&crowd[0]);
    request.page_size = 100;
    const Snapshot *page = unpack_message(&fixture, send_sync(&fixture, &crowd[0], &request)->messages[0])->snapshot;
    char cursor[64];
    snprintf(cursor, sizeof cursor, "%s", page->next_cursor);
    person_hold(&fixture, &crowd[400], DEPARTED);
    fixture_advance(&fixture, 31000);
    request.cursor = cursor;
    page = unpack_message(&fixture, send_sync(&fixture, &crowd[0], &request)->messages[0])->snapshot;
    ck_assert_uint_eq(page->position->seq, 501);
    ck_assert_str_eq(page->participants[0]->sid, crowd[0].sid);
    for (size_t i = 0; i < sizeof cursors / sizeof cursors[0]; i++) {
        request.cursor = (char *)cursors[i];
        page = unpack_message(&fixture, send_sync(&fixture, &crowd[0], &request)->messages[0])->snapshot;
        ck_assert_str_eq(page->participants[0]->sid, crowd[0].sid);
    }
}
END_TEST

static const Signalbox__Cluster__V1__SyncReply *send_position(const char *room, const struct epoch *epoch, uint64_t seq)
{
    size_t since = fixture.sent_count;
    Signalbox__Cluster__V1__LinkPositions positions = SIGNALBOX__CLUSTER__V1__LINK_POSITIONS__INIT;
    Signalbox__Cluster__V1__RoomPosition position = SIGNALBOX__CLUSTER__V1__ROOM_POSITION__INIT, *rooms = &position;
    Signalbox__Cluster__V1__Epoch packed = epoch_to_proto(epoch);
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    position.room_key = key_data(room);
    position.epoch = &packed;
    position.seq = seq;
    positions.n_rooms = 1;
    positions.rooms = &rooms;
    item.body_case = BODY(LINK_POSITIONS);
    item.link_positions = &positions;
    fixture_deliver(&fixture, 0, &item);
    const Item *reply = sent_item(&fixture, since, 0, BODY(SYNC_REPLY), 0);
    return reply != NULL ? reply->sync_reply : NULL;
}

START_TEST(a_gateway_behind_is_replayed_or_told_to_ask)
{
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    fixture_advance(&fixture, 10);
    for (unsigned i = 1; i <= 300; i++) {
        ann.tracks = i % 4;
        person_hold(&fixture, &ann, ATTACHED);
        fixture_advance(&fixture, 10);
    }
    ck_assert_ptr_null(send_position("r", &ann.join_epoch, 301));
    const Signalbox__Cluster__V1__SyncReply *reply = send_position("r", &ann.join_epoch, 299);
    ck_assert(reply->replay);
    ck_assert_uint_eq(reply->n_messages, 2);
    ck_assert_uint_eq(reply->seq, 301);
    ck_assert_str_eq(reply->sid, "");
    ck_assert_int_eq(send_position("r", &ann.join_epoch, 3)->code, CODE(RETRY));
    struct epoch other = ann.join_epoch;
    other.counter++;
    /* In another epoch the gateway is told of this one, and judges by itself. */
    size_t since = fixture.sent_count;
    ck_assert_ptr_null(send_position("r", &other, 301));
    const Item *change = sent_item(&fixture, since, 0, BODY(EPOCH_CHANGE), 0);
    ck_assert_ptr_nonnull(change);
    ck_assert_uint_eq(change->epoch_change->seq, 301);
    ck_assert_uint_eq(change->epoch_change->participants, 1);
    ck_assert_ptr_null(change->epoch_change->from_epoch);
    ck_assert_int_eq(send_position("nobody", &other, 301)->code, CODE(NOT_FOUND));
}
END_TEST

START_TEST(an_empty_room_is_forgotten_and_comes_back_with_another_epoch)
{
    struct person ann = person_make("ann", "r", 0), again = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    person_hold(&fixture, &ann, DEPARTED);
    struct shard_stats stats = shard_stats(fixture.shard);
    ck_assert_uint_eq(stats.rooms + stats.participants + stats.gateways + stats.pending_updates, 0);
    fixture_advance(&fixture, 100);
    ck_assert_int_eq(sent_count(&fixture, 0, -1, BODY(ROOM_BATCH)), 0);
    person_join(&fixture, &again);
    ck_assert_int_gt(epoch_compare(&again.join_epoch, &ann.join_epoch), 0);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("events");
    tcase_add_checked_fixture(tests, open_fixture, close_fixture);
    tcase_add_test(tests, a_join_is_an_event_for_every_gateway_with_members);
    tcase_add_test(tests, a_storm_of_joins_is_one_batch);
    tcase_add_test(tests, updates_of_a_tick_become_one_with_the_parts_that_changed);
    tcase_add_test(tests, an_update_before_the_join_is_published_becomes_part_of_it);
    tcase_add_test(tests, a_join_and_leave_nobody_saw_cancel_and_are_covered);
    tcase_add_test(tests, a_leave_is_told_if_a_snapshot_has_shown_the_join);
    tcase_add_test(tests, a_large_batch_goes_on_in_the_next_one);
    tcase_add_test(tests, a_busy_room_publishes_at_its_pace);
    tcase_add_test(tests, viewers_are_counted_and_hidden_ones_are_not_seen);
    tcase_add_test(tests, a_large_roster_comes_in_pages_of_one_position);
    tcase_add_test(tests, a_cursor_that_is_gone_begins_a_new_snapshot);
    tcase_add_test(tests, a_gateway_behind_is_replayed_or_told_to_ask);
    tcase_add_test(tests, an_empty_room_is_forgotten_and_comes_back_with_another_epoch);
    tcase_set_timeout(tests, 60);
    return suite_run("shard_events", tests, NULL);
}
