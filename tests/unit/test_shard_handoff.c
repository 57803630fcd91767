/* Rooms handed from shard to shard: nothing is lost and nobody told, whatever the bus does. */
#include "common/metrics.h"
#include "handoff_fixture.h"
#include "suite.h"
#include <sodium.h>
#include <stdio.h>
#include <string.h>

/* Rooms of one at shard 0, which hands over so many of them at once. */
static void open_rooms(int count, uint32_t at_once)
{
    struct shard_options options = f.peers[0].shard->options;
    options.limits.handoff_rooms = at_once;
    shard_reconfigure(f.peers[0].shard, &options);
    for (int i = 0; i < count; i++) {
        char name[16];
        snprintf(name, sizeof name, "room-%d", i);
        struct person person = person_make("p", name, 0);
        person.version = 1;
        say(0, &person, JOIN, ATTACHED);
    }
}

static uint64_t chunks_refused(const char *reason)
{
    static const char *const reasons[] = {"no_room", "other_handoff", "too_large", "damaged", "malformed"};
    for (unsigned i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (strcmp(reasons[i], reason) == 0)
            return metric_value_at(M_HANDOFF_CHUNKS_REFUSED, i);
    ck_abort_msg("no reason '%s'", reason);
}

/* Ann's room at shard 0 is frozen, and sent to shard 1; `ret_ann` may be NULL. */
static const char *begin_handoff(struct person *ret_ann)
{
    const char *name = room_moving_to(1, "01");
    struct person ann = joins(0, "ann", name);
    if (ret_ann != NULL)
        *ret_ann = ann;
    next_view("01");
    learn(0);
    return name;
}

START_TEST(a_room_moves_whole_and_in_silence)
{
    const char *name = room_moving_to(1, "01");
    struct person ann = joins(0, "ann", name), bob = joins(0, "bob", name), eve = joins(0, "eve", name);
    pass(20);
    eve.version = 2;
    eve.bind_generation = 1;
    say(0, &eve, HOLD, DEPARTED);
    bob.version = 2;
    bob.bind_generation = 1;
    say(0, &bob, HOLD, DETACHED);
    pass(20);
    struct room before = *room_at(0, name);
    uint64_t digest = before.digest, seq = before.seq;
    struct epoch epoch = before.epoch;

    next_view("01");
    learn(0);
    ck_assert_int_eq(state_at(0, name), ROOM_FROZEN);
    ck_assert_uint_lt(f.peers[0].marker.seq, f.view->number.seq);
    learn(1);
    carry(0);
    ck_assert_int_eq(state_at(0, name), ROOM_ABSENT);
    ck_assert_int_eq(state_at(1, name), ROOM_LIVE);
    ck_assert_uint_eq(f.peers[0].marker.seq, f.view->number.seq);
    const struct room *room = room_at(1, name);
    ck_assert_uint_eq(room->digest, digest);
    ck_assert_uint_eq(room->seq, seq);
    ck_assert_uint_eq(room->total, 2);
    ck_assert_int_gt(epoch_compare(&room->epoch, &epoch), 0);
    ck_assert_uint_eq(shard_stats(f.peers[1].shard).detached, 1);
    /* The gateway hears how the new epoch goes on from the old one, and nothing else. */
    const Signalbox__Cluster__V1__EpochChange *change = last_of(BODY(EPOCH_CHANGE))->epoch_change;
    struct epoch from = epoch_from_proto(change->from_epoch);
    ck_assert(epoch_equal(&from, &epoch));
    ck_assert_uint_eq(change->from_seq, seq);
    ck_assert_uint_eq(change->seq, seq);
    ck_assert_uint_eq(change->digest, digest);
    /* The ring came too: a position of the old epoch is replayed under the new one. */
    ck_assert(room_can_replay(room, &epoch, seq - 1));
    ck_assert(!room_can_replay(room, &epoch, seq + 1));
    /* Generations, versions and departures are as they were. */
    struct member *member = member_find(f.peers[1].shard, ann.sid);
    ck_assert_uint_eq(member->bind_generation, 1);
    ck_assert_uint_eq(member->connection, ann.connection);
    ck_assert_uint_eq(member_find(f.peers[1].shard, bob.sid)->version, 2);
    say(1, &eve, RESUME, ATTACHED);
    ck_assert_int_eq(last_ack(&eve)->code, CODE(NOT_FOUND));
    /* Bob's window runs on. */
    pass(30000);
    ck_assert_ptr_null(member_find(f.peers[1].shard, bob.sid));
}
END_TEST

START_TEST(a_large_room_goes_in_chunks_whatever_is_lost)
{
    enum { PEOPLE = 2000 };
    const char *name = room_moving_to(1, "01");
    for (int i = 0; i < PEOPLE; i++) {
        char identity[16];
        snprintf(identity, sizeof identity, "p-%d", i);
        joins(0, identity, name);
    }
    pass(50);
    uint64_t digest = room_at(0, name)->digest;
    next_view("01");
    learn(0);
    learn(1);
    ck_assert_uint_gt(f.letter_count, 1);
    uint64_t random = 1;
    for (int round = 0; state_at(0, name) == ROOM_FROZEN; round++) {
        ck_assert_int_lt(round, 1000);
        /* Of each batch of letters some are lost, and some come twice. */
        for (size_t n = f.letter_count; n > 0; n--) {
            random = random * 6364136223846793005 + 1442695040888963407;
            if (random >> 62 == 0) {
                payload_unref(&f.letters[0].item);
                memmove(f.letters, f.letters + 1, --f.letter_count * sizeof f.letters[0]);
                continue;
            }
            if (random >> 62 == 1)
                hand(&f.letters[0]);
            carry(1);
        }
        pass(50);
    }
    ck_assert_int_eq(state_at(1, name), ROOM_LIVE);
    ck_assert_uint_eq(room_at(1, name)->digest, digest);
    ck_assert_uint_eq(room_at(1, name)->total, PEOPLE);
}
END_TEST

/* It was sent before the room had been another shard's, and comes after that. */
START_TEST(a_command_of_an_older_view_than_the_owner_is_refused_as_such)
{
    enum { OLDER_VIEW = 10 }; /* among the labels of M_SESSION_COMMANDS */
    const char *name = room_moving_to(1, "01");
    struct person ann = joins(0, "ann", name);
    uint64_t older = f.view->number.seq;
    learn(1); /* whoever joins begins with the last settled view */
    next_view("01");
    learn(0);
    learn(1);
    carry(0);
    ck_assert_int_eq(state_at(1, name), ROOM_LIVE);
    f.to_gateway_count = 0;
    ann.bind_generation = 1;
    ann.version = 2;
    uint64_t refused = metric_value_at(M_SESSION_COMMANDS, OLDER_VIEW);
    say_under(1, &ann, HOLD, DEPARTED, older);
    ck_assert_uint_eq(last_of(BODY(NOT_OWNER))->not_owner->view->seq, f.view->number.seq);
    ck_assert_uint_eq(metric_value_at(M_SESSION_COMMANDS, OLDER_VIEW), refused + 1);
    ck_assert_uint_eq(room_at(1, name)->total, 1);
    say_under(1, &ann, HOLD, ATTACHED, f.view->number.seq);
    ck_assert_uint_eq(last_ack(&ann)->version, 2);
    say_under(1, &ann, HOLD, ATTACHED, f.view->number.seq + 1); /* a gateway that has read on */
    ck_assert_uint_eq(metric_value_at(M_SESSION_COMMANDS, OLDER_VIEW), refused + 1);
}
END_TEST

START_TEST(a_frozen_room_stays_frozen_and_sends_commands_away)
{
    struct person ann;
    const char *name = begin_handoff(&ann);
    ann.version = 2;
    ann.bind_generation = 1;
    say(0, &ann, HOLD, ATTACHED);
    ck_assert_uint_eq(last_of(BODY(NOT_OWNER))->not_owner->view->seq, f.view->number.seq);
    for (int i = 0; i < 100; i++) {
        lose();
        pass(1000); /* it is said again, and no time ends it */
        ck_assert_uint_gt(f.letter_count, 0);
    }
    ck_assert_int_eq(state_at(0, name), ROOM_FROZEN);
    learn(1);
    carry(0);
    ck_assert_int_eq(state_at(1, name), ROOM_LIVE);
}
END_TEST

START_TEST(a_repeat_is_answered_and_not_installed_again)
{
    struct person ann;
    const char *name = begin_handoff(&ann);
    learn(1);
    struct letter chunk = f.letters[0];
    payload_ref(chunk.item);
    carry(1);
    lose(); /* the answer */
    /* Meanwhile the room has come to its end there. */
    ann.version = 2;
    ann.bind_generation = 1;
    say(1, &ann, HOLD, DEPARTED);
    ck_assert_int_eq(state_at(1, name), ROOM_ABSENT);
    hand(&chunk);
    payload_unref(&chunk.item);
    ck_assert_int_eq(state_at(1, name), ROOM_ABSENT);
    carry(0);
    ck_assert_int_eq(state_at(0, name), ROOM_ABSENT);
}
END_TEST

START_TEST(a_target_that_is_lost_takes_the_copy_with_it)
{
    const char *name = begin_handoff(NULL);
    lose();
    next_view("0");
    f.reported = (struct view_number){0, 0};
    learn(0);
    /* It may have served the room: the gateways know. */
    ck_assert_int_eq(state_at(0, name), ROOM_ABSENT);
}
END_TEST

START_TEST(a_room_that_comes_back_is_thawed_only_when_nobody_has_it)
{
    const char *name = room_moving_to(1, "01");
    struct person ann = joins(0, "ann", name);
    pass(20);
    struct epoch epoch = room_at(0, name)->epoch;
    next_view("01");
    learn(0);
    lose();
    /* Its weight falls to nothing: the rooms go back. */
    next_view("01");
    f.view->shards[1].weight = 0;
    learn(0);
    ck_assert_int_eq(state_at(0, name), ROOM_FROZEN);
    /* What is asked meanwhile waits. */
    ann.version = 2;
    ann.bind_generation = 1;
    size_t before = f.to_gateway_count;
    say(0, &ann, HOLD, ATTACHED);
    ck_assert_uint_eq(f.to_gateway_count, before);
    learn(1);
    pass(5);
    carry(0);
    ck_assert_int_eq(state_at(0, name), ROOM_LIVE);
    ck_assert_int_eq(state_at(1, name), ROOM_ABSENT);
    ck_assert_int_gt(epoch_compare(&room_at(0, name)->epoch, &epoch), 0);
    ck_assert_uint_eq(last_ack(&ann)->version, 2);
    ck_assert_uint_eq(room_at(0, name)->total, 1);
}
END_TEST

START_TEST(a_room_that_was_installed_comes_back_from_there)
{
    struct person ann;
    const char *name = begin_handoff(&ann);
    learn(1);
    carry(1);
    lose(); /* the answer */
    struct person bob = joins(1, "bob", name);
    ck_assert_int_eq(last_ack(&bob)->code, CODE(OK));
    next_view("01");
    f.view->shards[1].weight = 0;
    learn(0);
    learn(1);
    pass(5);
    carry(0);
    ck_assert_int_eq(state_at(0, name), ROOM_LIVE);
    ck_assert_int_eq(state_at(1, name), ROOM_ABSENT);
    ck_assert_uint_eq(room_at(0, name)->total, 2);
    ck_assert_ptr_nonnull(member_find(f.peers[0].shard, ann.sid));
}
END_TEST

START_TEST(a_room_that_moves_on_before_it_is_sent_goes_to_its_newest_owner)
{
    char name[16];
    bool goes_on = false;
    /* A room that goes from 0 to 1 when 1 joins, and on to 2. */
    for (int i = 0; !goes_on; i++) {
        struct score_seed seed = {0};
        snprintf(name, sizeof name, "room-%d", i);
        struct room_key key = room_key_make("test", name);
        struct view *now = view_ref(f.view);
        next_view("01");
        goes_on = view_owner(f.view, &seed, &key, "")->incarnation == f.peers[1].address.incarnation;
        next_view("012");
        goes_on = goes_on && view_owner(f.view, &seed, &key, "")->incarnation == f.peers[2].address.incarnation;
        view_unref(&f.view);
        f.view = now;
    }
    joins(0, "ann", name);
    next_view("01");
    learn(0);
    lose(); /* the target never heard of it */
    next_view("012");
    learn(0);
    for (int i = 1; i < SHARDS; i++)
        learn(i);
    pass(5);
    carry(0); /* asks shard 1, which never had it, then sends it to shard 2 */
    ck_assert_int_eq(state_at(0, name), ROOM_ABSENT);
    ck_assert_int_eq(state_at(1, name), ROOM_ABSENT);
    ck_assert_int_eq(state_at(2, name), ROOM_LIVE);
}
END_TEST

START_TEST(a_damaged_room_is_sent_again)
{
    const char *name = begin_handoff(NULL);
    learn(1);
    uint64_t before = chunks_refused("damaged");
    Item *item = unpack(f.letters[0].item);
    item->handoff_chunk->data.data[item->handoff_chunk->data.len / 2] ^= 1;
    shard_item(f.peers[1].shard, &f.peers[0].address, item, f.now_ms);
    ck_assert_int_eq(state_at(1, name), ROOM_ABSENT);
    ck_assert_uint_eq(chunks_refused("damaged") - before, 1);
    carry(0);
    pass(400);
    carry(0);
    ck_assert_int_eq(state_at(1, name), ROOM_LIVE);
}
END_TEST

START_TEST(what_makes_no_room_is_refused_and_counted)
{
    const char *name = begin_handoff(NULL);
    learn(1);
    uint64_t before = chunks_refused("malformed");
    Item *item = unpack(f.letters[0].item);
    Signalbox__Cluster__V1__HandoffChunk *chunk = item->handoff_chunk;
    memset(chunk->data.data, 0xff, chunk->data.len);
    crypto_hash_sha256(chunk->digest.data, chunk->data.data, chunk->data.len);
    shard_item(f.peers[1].shard, &f.peers[0].address, item, f.now_ms);
    ck_assert_int_eq(state_at(1, name), ROOM_ABSENT);
    ck_assert_uint_eq(chunks_refused("malformed") - before, 1);
}
END_TEST

START_TEST(parts_of_two_rooms_are_not_mixed)
{
    begin_handoff(NULL);
    learn(1);
    uint64_t before = chunks_refused("other_handoff");
    Item *item = unpack(f.letters[0].item);
    item->handoff_chunk->count = 2;
    shard_item(f.peers[1].shard, &f.peers[0].address, item, f.now_ms);
    ck_assert_uint_eq(chunks_refused("other_handoff"), before);
    item->handoff_chunk->count = 3;
    item->handoff_chunk->index = 1;
    shard_item(f.peers[1].shard, &f.peers[0].address, item, f.now_ms);
    ck_assert_uint_eq(chunks_refused("other_handoff") - before, 1);
}
END_TEST

START_TEST(more_than_there_is_memory_for_waits)
{
    open_rooms(40, 40);
    struct shard_options options = f.peers[1].shard->options;
    options.limits.arrival_bytes = 1;
    shard_reconfigure(f.peers[1].shard, &options);
    next_view("01");
    learn(0);
    learn(1);
    size_t frozen = shard_stats(f.peers[0].shard).rooms_in_state[ROOM_FROZEN];
    ck_assert_uint_gt(frozen, 1);
    uint64_t before = chunks_refused("no_room");
    /* One that has begun and does not go on takes all that there is. */
    Item *item = unpack(f.letters[0].item);
    item->handoff_chunk->count = 2;
    item->handoff_chunk->handoff_id ^= 1;
    shard_item(f.peers[1].shard, &f.peers[0].address, item, f.now_ms);
    carry(0);
    ck_assert_uint_eq(shard_stats(f.peers[1].shard).rooms_in_state[ROOM_LIVE], 0);
    ck_assert_uint_ge(chunks_refused("no_room") - before, frozen);
    options.limits.arrival_bytes = 1 << 20;
    shard_reconfigure(f.peers[1].shard, &options);
    for (int i = 0; i < 20; i++) {
        pass(400);
        carry(0);
    }
    ck_assert_uint_eq(shard_stats(f.peers[1].shard).rooms_in_state[ROOM_LIVE], frozen);
}
END_TEST

START_TEST(rooms_go_a_few_at_a_time_and_those_that_are_asked_for_first)
{
    open_rooms(100, 4);
    next_view("01");
    learn(0);
    size_t frozen = shard_stats(f.peers[0].shard).rooms_in_state[ROOM_FROZEN];
    ck_assert_uint_gt(frozen, 8);
    ck_assert_uint_eq(f.letter_count, 4);
    learn(1);
    carry(0);
    ck_assert_uint_eq(shard_stats(f.peers[0].shard).rooms_in_state[ROOM_FROZEN], 0);
    ck_assert_uint_eq(shard_stats(f.peers[1].shard).rooms_in_state[ROOM_LIVE], frozen);
}
END_TEST

START_TEST(those_that_wait_for_a_target_that_is_lost_come_back_whole)
{
    open_rooms(20, 2);
    next_view("01");
    learn(0);
    ck_assert_uint_gt(shard_stats(f.peers[0].shard).rooms_in_state[ROOM_FROZEN], 3);
    f.reported = f.view->number;
    next_view("0");
    learn(0);
    /* The two that were sent may have been served there. */
    ck_assert_uint_eq(shard_stats(f.peers[0].shard).rooms_in_state[ROOM_LIVE], 20 - 2);
    ck_assert_uint_eq(shard_stats(f.peers[0].shard).rooms_in_state[ROOM_FROZEN], 0);
    ck_assert_uint_eq(f.letter_count, 2);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("handoff");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, a_room_moves_whole_and_in_silence);
    tcase_add_test(tests, a_large_room_goes_in_chunks_whatever_is_lost);
    tcase_add_test(tests, a_command_of_an_older_view_than_the_owner_is_refused_as_such);
    tcase_add_test(tests, a_frozen_room_stays_frozen_and_sends_commands_away);
    tcase_add_test(tests, a_repeat_is_answered_and_not_installed_again);
    tcase_add_test(tests, a_target_that_is_lost_takes_the_copy_with_it);
    tcase_add_test(tests, a_room_that_comes_back_is_thawed_only_when_nobody_has_it);
    tcase_add_test(tests, a_room_that_was_installed_comes_back_from_there);
    tcase_add_test(tests, a_room_that_moves_on_before_it_is_sent_goes_to_its_newest_owner);
    tcase_add_test(tests, a_damaged_room_is_sent_again);
    tcase_add_test(tests, what_makes_no_room_is_refused_and_counted);
    tcase_add_test(tests, parts_of_two_rooms_are_not_mixed);
    tcase_add_test(tests, more_than_there_is_memory_for_waits);
    tcase_add_test(tests, rooms_go_a_few_at_a_time_and_those_that_are_asked_for_first);
    tcase_add_test(tests, those_that_wait_for_a_target_that_is_lost_come_back_whole);
    tcase_set_timeout(tests, 60);
    return suite_run("shard_handoff", tests, NULL);
}
