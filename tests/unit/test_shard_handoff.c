/* Rooms on their way from shard to shard: two real shards, whose items are carried, lost or repeated by the test. */
#include "common/mem.h"
#include "common/metrics.h"
#include "shard/internal.h"
#include "shard_fixture.h"
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHARDS = 3, QUEUE_MAX = 4096 };

/* What one shard has sent to another, not yet carried. */
struct letter {
    int from, to;
    struct payload *item;
};

static struct timer_wheel wheel;
static int64_t now_ms;
static struct view *view;
static struct peer {
    struct node_address address;
    struct shard *shard;
    struct view_number marker;
    bool flush_wanted;
} peers[SHARDS];
static struct letter letters[QUEUE_MAX];
static size_t letter_count;
static struct arena arena;
static Item *to_gateways[QUEUE_MAX];
static size_t to_gateway_count;
static struct view_number reported;

static Item *unpack(const struct payload *item)
{
    Signalbox__Cluster__V1__Envelope *envelope =
        signalbox__cluster__v1__envelope__unpack(&arena.allocator, item->size, item->data);
    ck_assert_ptr_nonnull(envelope);
    return envelope->items[0];
}

static void on_send(void *ctx, const struct node_address *to, struct payload *item)
{
    const struct peer *from = ctx;
    if (to->kind == NODE_GATEWAY) {
        ck_assert_uint_lt(to_gateway_count, QUEUE_MAX);
        to_gateways[to_gateway_count++] = unpack(item);
        return;
    }
    ck_assert_uint_lt(letter_count, QUEUE_MAX);
    for (int i = 0; i < SHARDS; i++)
        if (peers[i].address.incarnation == to->incarnation)
            letters[letter_count++] = (struct letter){.from = (int)(from - peers), .to = i, .item = payload_ref(item)};
}

static void on_flush_soon(void *ctx)
{
    ((struct peer *)ctx)->flush_wanted = true;
}

static int64_t on_wall_ms(void *ctx)
{
    return 1700000000000 + now_ms;
}

static struct view_number on_reported(void *ctx)
{
    return reported;
}

static struct view_number on_marker_of(void *ctx, uint64_t incarnation)
{
    for (int i = 0; i < SHARDS; i++)
        if (peers[i].address.incarnation == incarnation)
            return peers[i].marker;
    return (struct view_number){0, 0};
}

static void on_set_marker(void *ctx, struct view_number marker, int64_t at_ms)
{
    ((struct peer *)ctx)->marker = marker;
}

/* A view with these shards ("02" = shards 0 and 2) and one gateway. Nobody knows of it yet. */
static void next_view(const char *shards)
{
    struct view *next = view_copy(NULL);
    struct view_node gateway = {.id = "gw-0", .incarnation = 100};
    view_put_gateway(next, &gateway);
    for (const char *c = shards; *c != '\0'; c++) {
        struct view_node node = {.incarnation = peers[*c - '0'].address.incarnation, .weight = 100, .full_weight = 100};
        memcpy(node.id, peers[*c - '0'].address.id, sizeof node.id);
        view_put_shard(next, &node);
    }
    next->number = (struct view_number){1, view != NULL ? view->number.seq + 1 : 1};
    next->settled = next->number;
    for (const char *c = shards; view != NULL && *c != '\0'; c++)
        if (view_number_compare(peers[*c - '0'].marker, next->settled) < 0)
            next->settled = peers[*c - '0'].marker;
    /* A shard that joins has said nothing yet, and nothing of what it says counts. */
    if (view != NULL && view_number_compare(next->settled, view->settled) < 0)
        next->settled = view->settled;
    view_unref(&view);
    view = next;
}

static void learn(int shard)
{
    shard_view(peers[shard].shard, view, now_ms);
}

static void setup(void)
{
    static const struct shard_actions actions = {.send = on_send,
                                                 .flush_soon = on_flush_soon,
                                                 .wall_ms = on_wall_ms,
                                                 .reported = on_reported,
                                                 .marker_of = on_marker_of,
                                                 .set_marker = on_set_marker};
    now_ms = 1000;
    timer_wheel_init(&wheel, now_ms);
    arena_init(&arena, 1 << 30);
    letter_count = to_gateway_count = 0;
    reported = (struct view_number){UINT64_MAX, 0};
    for (int i = 0; i < SHARDS; i++) {
        struct shard_options options = {.limits = shard_default_limits};
        peers[i] = (struct peer){.address = {.kind = NODE_SHARD, .incarnation = 7 + (uint64_t)i}};
        snprintf(peers[i].address.id, sizeof peers[i].address.id, "shard-%d", i);
        options.self = peers[i].address;
        peers[i].shard = shard_new(&options, &wheel, &actions, &peers[i]);
    }
    next_view("0");
    learn(0);
}

static void teardown(void)
{
    for (int i = 0; i < SHARDS; i++)
        shard_free(&peers[i].shard);
    for (size_t i = 0; i < letter_count; i++)
        payload_unref(&letters[i].item);
    ck_assert_uint_eq(wheel.count, 0);
    view_unref(&view);
    arena_done(&arena);
}

static void pass(int64_t ms)
{
    for (int64_t end_ms = now_ms + ms; now_ms < end_ms;) {
        now_ms++;
        timer_wheel_advance(&wheel, now_ms);
        for (int i = 0; i < SHARDS; i++)
            if (peers[i].flush_wanted) {
                peers[i].flush_wanted = false;
                shard_flush(peers[i].shard, now_ms);
            }
    }
}

static void hand(const struct letter *letter)
{
    shard_item(peers[letter->to].shard, &peers[letter->from].address, unpack(letter->item), now_ms);
}

/* Everything that waits, and what that leads to; `most` (0: all) letters. */
static void carry(size_t most)
{
    for (size_t n = 0; letter_count > 0 && (most == 0 || n < most); n++) {
        struct letter first = letters[0];
        memmove(letters, letters + 1, --letter_count * sizeof letters[0]);
        hand(&first);
        payload_unref(&first.item);
    }
}

static void lose(void)
{
    while (letter_count > 0)
        payload_unref(&letters[--letter_count].item);
}

/* A room that `owner` owns in the newest view; a static string. */
static const char *room_of(int owner)
{
    static char name[16];
    for (int i = 0;; i++) {
        snprintf(name, sizeof name, "room-%d", i);
        struct room_key key = room_key_make("test", name);
        struct score_seed seed = {0};
        if (view_owner(view, &seed, &key, "")->incarnation == peers[owner].address.incarnation)
            return name;
    }
}

/* `seq`: of the view that the gateway goes by; 0: it does not say. */
static void say_under(int shard, const struct person *person, int intent, int wanted, uint64_t seq)
{
    Signalbox__Cluster__V1__ViewNumber under = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    struct node_address gateway = {.kind = NODE_GATEWAY, .id = "gw-0", .incarnation = 100};
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    item.body_case = BODY(SESSION_STATE);
    item.session_state = person_state(person, intent, wanted);
    under.generation = view->number.generation;
    under.seq = seq;
    if (seq != 0)
        item.session_state->view = &under;
    struct payload *packed = payload_pack(&item.base);
    shard_item(peers[shard].shard, &gateway,
               signalbox__cluster__v1__item__unpack(&arena.allocator, packed->size, packed->data), now_ms);
    payload_unref(&packed);
}

static void say(int shard, const struct person *person, int intent, int wanted)
{
    say_under(shard, person, intent, wanted, 0);
}

static const Ack *last_ack(const struct person *person)
{
    for (size_t i = to_gateway_count; i-- > 0;)
        if (to_gateways[i]->body_case == BODY(SESSION_ACK) &&
            strcmp(to_gateways[i]->session_ack->sid, person->sid) == 0)
            return to_gateways[i]->session_ack;
    return NULL;
}

static const Item *last_of(int body_case)
{
    for (size_t i = to_gateway_count; i-- > 0;)
        if ((int)to_gateways[i]->body_case == body_case)
            return to_gateways[i];
    return NULL;
}

static struct person joins(int shard, const char *identity, const char *room)
{
    struct person person = person_make(identity, room, 0);
    person.version = 1;
    say(shard, &person, JOIN, ATTACHED);
    return person;
}

static const struct room *room_at(int shard, const char *name)
{
    struct room_key key = room_key_make("test", name);
    return shard_find_any_room(peers[shard].shard, &key);
}

static enum room_state state_at(int shard, const char *name)
{
    const struct room *room = room_at(shard, name);
    return room != NULL ? room->state : ROOM_ABSENT;
}

/* A room of shard 0 with two in it, which will be shard `to`'s in a view of the shards given. */
static const char *room_moving_to(int to, const char *shards)
{
    struct view *now = view_ref(view);
    next_view(shards);
    const char *name = room_of(to);
    view_unref(&view);
    view = now;
    return name;
}

/* --- handing over ------------------------------------------------------------------------------------------------ */

/* Rooms of one at shard 0, which hands over so many of them at once. */
static void open_rooms(int count, uint32_t at_once)
{
    struct shard_options options = peers[0].shard->options;
    options.limits.handoff_rooms = at_once;
    shard_reconfigure(peers[0].shard, &options);
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
    ck_assert_uint_lt(peers[0].marker.seq, view->number.seq);
    learn(1);
    carry(0);
    ck_assert_int_eq(state_at(0, name), ROOM_ABSENT);
    ck_assert_int_eq(state_at(1, name), ROOM_LIVE);
    ck_assert_uint_eq(peers[0].marker.seq, view->number.seq);
    const struct room *room = room_at(1, name);
    ck_assert_uint_eq(room->digest, digest);
    ck_assert_uint_eq(room->seq, seq);
    ck_assert_uint_eq(room->total, 2);
    ck_assert_int_gt(epoch_compare(&room->epoch, &epoch), 0);
    ck_assert_uint_eq(shard_stats(peers[1].shard).detached, 1);
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
    struct member *member = member_find(peers[1].shard, ann.sid);
    ck_assert_uint_eq(member->bind_generation, 1);
    ck_assert_uint_eq(member->connection, ann.connection);
    ck_assert_uint_eq(member_find(peers[1].shard, bob.sid)->version, 2);
    say(1, &eve, RESUME, ATTACHED);
    ck_assert_int_eq(last_ack(&eve)->code, CODE(NOT_FOUND));
    /* Bob's window runs on. */
    pass(30000);
    ck_assert_ptr_null(member_find(peers[1].shard, bob.sid));
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
    ck_assert_uint_gt(letter_count, 1);
    uint64_t random = 1;
    for (int round = 0; state_at(0, name) == ROOM_FROZEN; round++) {
        ck_assert_int_lt(round, 1000);
        /* Of each batch of letters some are lost, and some come twice. */
        for (size_t n = letter_count; n > 0; n--) {
            random = random * 6364136223846793005 + 1442695040888963407;
            if (random >> 62 == 0) {
                payload_unref(&letters[0].item);
                memmove(letters, letters + 1, --letter_count * sizeof letters[0]);
                continue;
            }
            if (random >> 62 == 1)
                hand(&letters[0]);
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
    uint64_t older = view->number.seq;
    learn(1); /* whoever joins begins with the last settled view */
    next_view("01");
    learn(0);
    learn(1);
    carry(0);
    ck_assert_int_eq(state_at(1, name), ROOM_LIVE);
    to_gateway_count = 0;
    ann.bind_generation = 1;
    ann.version = 2;
    uint64_t refused = metric_value_at(M_SESSION_COMMANDS, OLDER_VIEW);
    say_under(1, &ann, HOLD, DEPARTED, older);
    ck_assert_uint_eq(last_of(BODY(NOT_OWNER))->not_owner->view->seq, view->number.seq);
    ck_assert_uint_eq(metric_value_at(M_SESSION_COMMANDS, OLDER_VIEW), refused + 1);
    ck_assert_uint_eq(room_at(1, name)->total, 1);
    say_under(1, &ann, HOLD, ATTACHED, view->number.seq);
    ck_assert_uint_eq(last_ack(&ann)->version, 2);
    say_under(1, &ann, HOLD, ATTACHED, view->number.seq + 1); /* a gateway that has read on */
    ck_assert_uint_eq(metric_value_at(M_SESSION_COMMANDS, OLDER_VIEW), refused + 1);
}
END_TEST

START_TEST(a_frozen_room_stays_frozen_and_sends_commands_away)
{
    const char *name = room_moving_to(1, "01");
    struct person ann = joins(0, "ann", name);
    next_view("01");
    learn(0);
    ann.version = 2;
    ann.bind_generation = 1;
    say(0, &ann, HOLD, ATTACHED);
    ck_assert_uint_eq(last_of(BODY(NOT_OWNER))->not_owner->view->seq, view->number.seq);
    for (int i = 0; i < 100; i++) {
        lose();
        pass(1000); /* it is said again, and no time ends it */
        ck_assert_uint_gt(letter_count, 0);
    }
    ck_assert_int_eq(state_at(0, name), ROOM_FROZEN);
    learn(1);
    carry(0);
    ck_assert_int_eq(state_at(1, name), ROOM_LIVE);
}
END_TEST

START_TEST(a_repeat_is_answered_and_not_installed_again)
{
    const char *name = room_moving_to(1, "01");
    struct person ann = joins(0, "ann", name);
    next_view("01");
    learn(0);
    learn(1);
    struct letter chunk = letters[0];
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
    const char *name = room_moving_to(1, "01");
    joins(0, "ann", name);
    next_view("01");
    learn(0);
    lose();
    next_view("0");
    reported = (struct view_number){0, 0};
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
    view->shards[1].weight = 0;
    learn(0);
    ck_assert_int_eq(state_at(0, name), ROOM_FROZEN);
    /* What is asked meanwhile waits. */
    ann.version = 2;
    ann.bind_generation = 1;
    size_t before = to_gateway_count;
    say(0, &ann, HOLD, ATTACHED);
    ck_assert_uint_eq(to_gateway_count, before);
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
    const char *name = room_moving_to(1, "01");
    struct person ann = joins(0, "ann", name);
    next_view("01");
    learn(0);
    learn(1);
    carry(1);
    lose(); /* the answer */
    struct person bob = joins(1, "bob", name);
    ck_assert_int_eq(last_ack(&bob)->code, CODE(OK));
    next_view("01");
    view->shards[1].weight = 0;
    learn(0);
    learn(1);
    pass(5);
    carry(0);
    ck_assert_int_eq(state_at(0, name), ROOM_LIVE);
    ck_assert_int_eq(state_at(1, name), ROOM_ABSENT);
    ck_assert_uint_eq(room_at(0, name)->total, 2);
    ck_assert_ptr_nonnull(member_find(peers[0].shard, ann.sid));
}
END_TEST

START_TEST(a_room_that_moves_on_before_it_is_sent_goes_to_its_newest_owner)
{
    const char *name = room_moving_to(2, "012");
    struct view *with_one = NULL;
    /* A room that goes from 0 to 1 when 1 joins, and on to 2. */
    for (int i = 0; with_one == NULL; i++) {
        static char candidate[16];
        struct score_seed seed = {0};
        snprintf(candidate, sizeof candidate, "room-%d", i);
        struct room_key key = room_key_make("test", candidate);
        struct view *now = view_ref(view);
        next_view("01");
        bool first = view_owner(view, &seed, &key, "")->incarnation == peers[1].address.incarnation;
        next_view("012");
        bool second = view_owner(view, &seed, &key, "")->incarnation == peers[2].address.incarnation;
        view_unref(&view);
        view = now;
        if (first && second) {
            name = candidate;
            break;
        }
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
    const char *name = room_moving_to(1, "01");
    joins(0, "ann", name);
    next_view("01");
    learn(0);
    learn(1);
    uint64_t before = chunks_refused("damaged");
    Item *item = unpack(letters[0].item);
    item->handoff_chunk->data.data[item->handoff_chunk->data.len / 2] ^= 1;
    shard_item(peers[1].shard, &peers[0].address, item, now_ms);
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
    const char *name = room_moving_to(1, "01");
    joins(0, "ann", name);
    next_view("01");
    learn(0);
    learn(1);
    uint64_t before = chunks_refused("malformed");
    Item *item = unpack(letters[0].item);
    Signalbox__Cluster__V1__HandoffChunk *chunk = item->handoff_chunk;
    memset(chunk->data.data, 0xff, chunk->data.len);
    crypto_hash_sha256(chunk->digest.data, chunk->data.data, chunk->data.len);
    shard_item(peers[1].shard, &peers[0].address, item, now_ms);
    ck_assert_int_eq(state_at(1, name), ROOM_ABSENT);
    ck_assert_uint_eq(chunks_refused("malformed") - before, 1);
}
END_TEST

START_TEST(parts_of_two_rooms_are_not_mixed)
{
    const char *name = room_moving_to(1, "01");
    joins(0, "ann", name);
    next_view("01");
    learn(0);
    learn(1);
    uint64_t before = chunks_refused("other_handoff");
    Item *item = unpack(letters[0].item);
    item->handoff_chunk->count = 2;
    shard_item(peers[1].shard, &peers[0].address, item, now_ms);
    ck_assert_uint_eq(chunks_refused("other_handoff"), before);
    item->handoff_chunk->count = 3;
    item->handoff_chunk->index = 1;
    shard_item(peers[1].shard, &peers[0].address, item, now_ms);
    ck_assert_uint_eq(chunks_refused("other_handoff") - before, 1);
}
END_TEST

START_TEST(more_than_there_is_memory_for_waits)
{
    open_rooms(40, 40);
    struct shard_options options = peers[1].shard->options;
    options.limits.arrival_bytes = 1;
    shard_reconfigure(peers[1].shard, &options);
    next_view("01");
    learn(0);
    learn(1);
    size_t frozen = shard_stats(peers[0].shard).rooms_in_state[ROOM_FROZEN];
    ck_assert_uint_gt(frozen, 1);
    uint64_t before = chunks_refused("no_room");
    /* One that has begun and does not go on takes all that there is. */
    Item *item = unpack(letters[0].item);
    item->handoff_chunk->count = 2;
    item->handoff_chunk->handoff_id ^= 1;
    shard_item(peers[1].shard, &peers[0].address, item, now_ms);
    carry(0);
    ck_assert_uint_eq(shard_stats(peers[1].shard).rooms_in_state[ROOM_LIVE], 0);
    ck_assert_uint_ge(chunks_refused("no_room") - before, frozen);
    options.limits.arrival_bytes = 1 << 20;
    shard_reconfigure(peers[1].shard, &options);
    for (int i = 0; i < 20; i++) {
        pass(400);
        carry(0);
    }
    ck_assert_uint_eq(shard_stats(peers[1].shard).rooms_in_state[ROOM_LIVE], frozen);
}
END_TEST

START_TEST(rooms_go_a_few_at_a_time_and_those_that_are_asked_for_first)
{
    open_rooms(100, 4);
    next_view("01");
    learn(0);
    size_t frozen = shard_stats(peers[0].shard).rooms_in_state[ROOM_FROZEN];
    ck_assert_uint_gt(frozen, 8);
    ck_assert_uint_eq(letter_count, 4);
    learn(1);
    carry(0);
    ck_assert_uint_eq(shard_stats(peers[0].shard).rooms_in_state[ROOM_FROZEN], 0);
    ck_assert_uint_eq(shard_stats(peers[1].shard).rooms_in_state[ROOM_LIVE], frozen);
}
END_TEST

START_TEST(those_that_wait_for_a_target_that_is_lost_come_back_whole)
{
    open_rooms(20, 2);
    next_view("01");
    learn(0);
    ck_assert_uint_gt(shard_stats(peers[0].shard).rooms_in_state[ROOM_FROZEN], 3);
    reported = view->number;
    next_view("0");
    learn(0);
    /* The two that were sent may have been served there. */
    ck_assert_uint_eq(shard_stats(peers[0].shard).rooms_in_state[ROOM_LIVE], 20 - 2);
    ck_assert_uint_eq(shard_stats(peers[0].shard).rooms_in_state[ROOM_FROZEN], 0);
    ck_assert_uint_eq(letter_count, 2);
}
END_TEST

/* --- asking for rooms that are not here --------------------------------------------------------------------------- */

START_TEST(an_unknown_room_is_pulled_before_it_is_taken_for_new)
{
    const char *name = room_moving_to(1, "01");
    struct person ann = joins(0, "ann", name);
    next_view("01");
    learn(1); /* the old owner is behind */
    struct person bob = joins(1, "bob", name);
    ck_assert_int_eq(state_at(1, name), ROOM_HELD);
    ck_assert_ptr_null(last_ack(&bob));
    ck_assert_uint_eq(letter_count, 1);
    learn(0); /* before it takes in the request, as links have it */
    carry(0);
    ck_assert_int_eq(state_at(1, name), ROOM_LIVE);
    ck_assert_int_eq(last_ack(&bob)->code, CODE(OK));
    ck_assert_uint_eq(room_at(1, name)->total, 2);
    ck_assert_ptr_nonnull(member_find(peers[1].shard, ann.sid));
    ck_assert_uint_eq(peers[1].marker.seq, view->number.seq);
}
END_TEST

START_TEST(a_room_that_nobody_has_is_new_once_that_is_known)
{
    next_view("01");
    const char *name = room_of(1);
    learn(1);
    struct person bob = joins(1, "bob", name);
    ck_assert_int_eq(state_at(1, name), ROOM_HELD);
    lose(); /* the request, or its answer: it is asked again */
    pass(250);
    learn(0);
    carry(0);
    ck_assert_int_eq(state_at(1, name), ROOM_LIVE);
    ck_assert_int_eq(last_ack(&bob)->code, CODE(OK));
    /* Once the other's marker says that it holds nothing, nobody is asked. */
    struct person cat = joins(1, "cat", "room-that-is-new");
    if (last_ack(&cat) == NULL)
        ck_assert_ptr_nonnull(last_of(BODY(NOT_OWNER)));
    ck_assert_uint_eq(letter_count, 0);
}
END_TEST

START_TEST(nobody_overtakes_those_that_wait)
{
    next_view("01");
    const char *name = room_of(1);
    learn(1);
    struct person bob = joins(1, "bob", name);
    ck_assert_int_eq(state_at(1, name), ROOM_HELD);
    peers[0].marker = view->number; /* it holds nothing: the next one to come would find the room new */
    struct person cat = joins(1, "cat", name);
    ck_assert_int_eq(last_ack(&bob)->code, CODE(OK));
    ck_assert_int_eq(last_ack(&cat)->code, CODE(OK));
    ck_assert_uint_lt(last_ack(&bob)->join_seq, last_ack(&cat)->join_seq);
    ck_assert_uint_eq(shard_stats(peers[1].shard).waiting_commands, 0);
}
END_TEST

START_TEST(who_waits_too_long_or_one_too_many_is_told_to_try_again)
{
    struct shard_options options = peers[1].shard->options;
    options.limits.waiting_commands = 2;
    shard_reconfigure(peers[1].shard, &options);
    next_view("01");
    const char *name = room_of(1);
    learn(1);
    struct person people[3];
    for (int i = 0; i < 3; i++) {
        char identity[8];
        snprintf(identity, sizeof identity, "p%d", i);
        people[i] = joins(1, identity, name);
    }
    ck_assert_ptr_null(last_ack(&people[1]));
    ck_assert_int_eq(last_ack(&people[2])->code, CODE(RETRY));
    ck_assert_int_eq((int)last_ack(&people[2])->action, (int)SIGNALBOX__V1__LEAVE_ACTION__REJOIN);
    ck_assert_uint_gt(last_ack(&people[2])->retry_after_ms, 0);
    pass(6000);
    ck_assert_int_eq(last_ack(&people[0])->code, CODE(RETRY));
    ck_assert_int_eq(last_ack(&people[1])->code, CODE(RETRY));
    ck_assert_int_eq(state_at(1, name), ROOM_ABSENT);
    ck_assert_uint_eq(shard_stats(peers[1].shard).waiting_commands, 0);
}
END_TEST

/* --- rebuilding -------------------------------------------------------------------------------------------------- */

START_TEST(a_lost_owners_room_is_put_together_without_a_word)
{
    next_view("01");
    learn(0);
    learn(1);
    carry(0);
    const char *name = room_of(1);
    struct person ann = joins(1, "ann", name), bob = joins(1, "bob", name);
    pass(20);
    uint64_t digest = room_at(1, name)->digest, seq = room_at(1, name)->seq;
    reported = view->number;
    next_view("0");
    learn(0);
    struct person cat = joins(0, "cat", name); /* has to wait: others may be in there */
    ck_assert_int_eq(state_at(0, name), ROOM_REBUILDING);
    size_t before = to_gateway_count;
    const struct person *held[] = {&ann, &bob};
    for (int i = 0; i < 2; i++) {
        struct person person = *held[i];
        Signalbox__Cluster__V1__Epoch epoch = SIGNALBOX__CLUSTER__V1__EPOCH__INIT;
        const Ack *joined = last_ack(&person);
        person.bind_generation = 1;
        person.join_seq = joined->join_seq;
        person.join_epoch = epoch_from_proto(joined->join_epoch);
        person.joined_at_ms = joined->joined_at_ms;
        State *state = person_state(&person, HOLD, ATTACHED);
        epoch = *joined->epoch;
        state->last_epoch = &epoch;
        state->last_seq = seq;
        state->participant->version = 1;
        struct node_address gateway = {.kind = NODE_GATEWAY, .id = "gw-0", .incarnation = 100};
        session_state(peers[0].shard, &gateway, state, now_ms);
        ck_assert_ptr_null(last_ack(&person)->epoch);
        ck_assert_uint_eq(last_ack(&person)->n_messages, 0);
    }
    ck_assert_ptr_null(last_ack(&cat));
    pass(50);
    for (size_t i = before; i < to_gateway_count; i++)
        ck_assert_int_eq(to_gateways[i]->body_case, BODY(SESSION_ACK));
    ck_assert_uint_lt(peers[0].marker.seq, view->number.seq);
    /* Everybody has reported: a digest says it all. */
    reported = view->number;
    shard_progress(peers[0].shard, now_ms);
    ck_assert_int_eq(state_at(0, name), ROOM_SETTLING);
    const Signalbox__Cluster__V1__EpochChange *change = last_of(BODY(EPOCH_CHANGE))->epoch_change;
    ck_assert_uint_eq(change->seq, seq);
    ck_assert_uint_eq(change->digest, digest);
    ck_assert_ptr_null(change->from_epoch);
    ck_assert(change->settling);
    ck_assert_int_eq(last_ack(&cat)->code, CODE(OK));
    ck_assert_uint_eq(peers[0].marker.seq, view->number.seq);
}
END_TEST

/* Gateways take a roster for what they know by its digest alone. */
START_TEST(changes_of_two_members_do_not_cancel_each_other_out)
{
    for (int i = 0; i < 1000; i++) {
        struct member ann = {.participant_version = 1}, bob = {.participant_version = 1};
        snprintf(ann.sid_text, sizeof ann.sid_text, "annAnnAnnAnnAnnAnn%04d", i);
        snprintf(bob.sid_text, sizeof bob.sid_text, "bobBobBobBobBobBob%04d", i);
        uint64_t before = member_digest(&ann) + member_digest(&bob);
        ann.participant_version = bob.participant_version = 2;
        ck_assert_uint_ne(member_digest(&ann) + member_digest(&bob), before);
    }
}
END_TEST

START_TEST(gateways_have_their_time_to_report_and_no_more)
{
    next_view("01");
    learn(0);
    learn(1);
    carry(0);
    const char *name = room_of(1);
    reported = view->number;
    next_view("0");
    learn(0);
    struct person cat = joins(0, "cat", name);
    pass(2900);
    ck_assert_ptr_null(last_ack(&cat));
    pass(200);
    ck_assert_int_eq(last_ack(&cat)->code, CODE(OK));
    ck_assert_int_eq(state_at(0, name), ROOM_SETTLING); /* who resumes is let in */
    /* But the view has not settled. */
    ck_assert_uint_lt(peers[0].marker.seq, view->number.seq);
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
    tcase_add_test(tests, an_unknown_room_is_pulled_before_it_is_taken_for_new);
    tcase_add_test(tests, a_room_that_nobody_has_is_new_once_that_is_known);
    tcase_add_test(tests, nobody_overtakes_those_that_wait);
    tcase_add_test(tests, who_waits_too_long_or_one_too_many_is_told_to_try_again);
    tcase_add_test(tests, a_lost_owners_room_is_put_together_without_a_word);
    tcase_add_test(tests, changes_of_two_members_do_not_cancel_each_other_out);
    tcase_add_test(tests, gateways_have_their_time_to_report_and_no_more);
    tcase_set_timeout(tests, 60);
    Suite *suite = suite_create("shard_handoff");
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
