#include "handoff_fixture.h"

#include <stdio.h>
#include <string.h>

struct handoff_fixture f;

Item *unpack(const struct payload *item)
{
    Signalbox__Cluster__V1__Envelope *envelope =
        signalbox__cluster__v1__envelope__unpack(&f.arena.allocator, item->size, item->data);
    ck_assert_ptr_nonnull(envelope);
    return envelope->items[0];
}

static void on_send(void *ctx, const struct node_address *to, struct payload *item)
{
    const struct peer *from = ctx;
    if (to->kind == NODE_GATEWAY) {
        ck_assert_uint_lt(f.to_gateway_count, QUEUE_MAX);
        f.to_gateways[f.to_gateway_count++] = unpack(item);
        return;
    }
    ck_assert_uint_lt(f.letter_count, QUEUE_MAX);
    for (int i = 0; i < SHARDS; i++)
        if (f.peers[i].address.incarnation == to->incarnation)
            f.letters[f.letter_count++] =
                (struct letter){.from = (int)(from - f.peers), .to = i, .item = payload_ref(item)};
}

static void on_flush_soon(void *ctx)
{
    ((struct peer *)ctx)->flush_wanted = true;
}

static int64_t on_wall_ms(void *ctx)
{
    return 1700000000000 + f.now_ms;
}

static struct view_number on_reported(void *ctx)
{
    return f.reported;
}

static struct view_number on_marker_of(void *ctx, uint64_t incarnation)
{
    for (int i = 0; i < SHARDS; i++)
        if (f.peers[i].address.incarnation == incarnation)
            return f.peers[i].marker;
    return (struct view_number){0, 0};
}

static void on_set_marker(void *ctx, struct view_number marker, int64_t at_ms)
{
    ((struct peer *)ctx)->marker = marker;
}

void next_view(const char *shards)
{
    struct view *next = view_copy(NULL);
    struct view_node gateway = {.id = "gw-0", .incarnation = 100};
    view_put_gateway(next, &gateway);
    for (const char *c = shards; *c != '\0'; c++) {
        struct view_node node = {
            .incarnation = f.peers[*c - '0'].address.incarnation, .weight = 100, .full_weight = 100};
        memcpy(node.id, f.peers[*c - '0'].address.id, sizeof node.id);
        view_put_shard(next, &node);
    }
    next->number = (struct view_number){1, f.view != NULL ? f.view->number.seq + 1 : 1};
    next->settled = next->number;
    for (const char *c = shards; f.view != NULL && *c != '\0'; c++)
        if (view_number_compare(f.peers[*c - '0'].marker, next->settled) < 0)
            next->settled = f.peers[*c - '0'].marker;
    /* A shard that joins has said nothing yet, and nothing of what it says counts. */
    if (f.view != NULL && view_number_compare(next->settled, f.view->settled) < 0)
        next->settled = f.view->settled;
    view_unref(&f.view);
    f.view = next;
}

void learn(int shard)
{
    shard_view(f.peers[shard].shard, f.view, f.now_ms);
}

void setup(void)
{
    static const struct shard_actions actions = {.send = on_send,
                                                 .flush_soon = on_flush_soon,
                                                 .wall_ms = on_wall_ms,
                                                 .reported = on_reported,
                                                 .marker_of = on_marker_of,
                                                 .set_marker = on_set_marker};
    f = (struct handoff_fixture){.now_ms = 1000, .reported = {UINT64_MAX, 0}};
    timer_wheel_init(&f.wheel, f.now_ms);
    arena_init(&f.arena, 1 << 30);
    for (int i = 0; i < SHARDS; i++) {
        struct shard_options options = {.limits = shard_default_limits};
        f.peers[i] = (struct peer){.address = {.kind = NODE_SHARD, .incarnation = 7 + (uint64_t)i}};
        snprintf(f.peers[i].address.id, sizeof f.peers[i].address.id, "shard-%d", i);
        options.self = f.peers[i].address;
        f.peers[i].shard = shard_new(&options, &f.wheel, &actions, &f.peers[i]);
    }
    next_view("0");
    learn(0);
}

void teardown(void)
{
    for (int i = 0; i < SHARDS; i++)
        shard_free(&f.peers[i].shard);
    for (size_t i = 0; i < f.letter_count; i++)
        payload_unref(&f.letters[i].item);
    ck_assert_uint_eq(f.wheel.count, 0);
    view_unref(&f.view);
    arena_done(&f.arena);
}

void pass(int64_t ms)
{
    for (int64_t end_ms = f.now_ms + ms; f.now_ms < end_ms;) {
        f.now_ms++;
        timer_wheel_advance(&f.wheel, f.now_ms);
        for (int i = 0; i < SHARDS; i++)
            if (f.peers[i].flush_wanted) {
                f.peers[i].flush_wanted = false;
                shard_flush(f.peers[i].shard, f.now_ms);
            }
    }
}

void hand(const struct letter *letter)
{
    shard_item(f.peers[letter->to].shard, &f.peers[letter->from].address, unpack(letter->item), f.now_ms);
}

void carry(size_t most)
{
    for (size_t n = 0; f.letter_count > 0 && (most == 0 || n < most); n++) {
        struct letter first = f.letters[0];
        memmove(f.letters, f.letters + 1, --f.letter_count * sizeof f.letters[0]);
        hand(&first);
        payload_unref(&first.item);
    }
}

void lose(void)
{
    while (f.letter_count > 0)
        payload_unref(&f.letters[--f.letter_count].item);
}

const char *room_of(int owner)
{
    static char name[16];
    for (int i = 0;; i++) {
        snprintf(name, sizeof name, "room-%d", i);
        struct room_key key = room_key_make("test", name);
        struct score_seed seed = {0};
        if (view_owner(f.view, &seed, &key, "")->incarnation == f.peers[owner].address.incarnation)
            return name;
    }
}

void say_under(int shard, const struct person *person, int intent, int wanted, uint64_t seq)
{
    Signalbox__Cluster__V1__ViewNumber under = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    struct node_address gateway = {.kind = NODE_GATEWAY, .id = "gw-0", .incarnation = 100};
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    item.body_case = BODY(SESSION_STATE);
    item.session_state = person_state(person, intent, wanted);
    under.generation = f.view->number.generation;
    under.seq = seq;
    if (seq != 0)
        item.session_state->view = &under;
    struct payload *packed = payload_pack(&item.base);
    shard_item(f.peers[shard].shard, &gateway,
               signalbox__cluster__v1__item__unpack(&f.arena.allocator, packed->size, packed->data), f.now_ms);
    payload_unref(&packed);
}

void say(int shard, const struct person *person, int intent, int wanted)
{
    say_under(shard, person, intent, wanted, 0);
}

const Ack *last_ack(const struct person *person)
{
    for (size_t i = f.to_gateway_count; i-- > 0;)
        if (f.to_gateways[i]->body_case == BODY(SESSION_ACK) &&
            strcmp(f.to_gateways[i]->session_ack->sid, person->sid) == 0)
            return f.to_gateways[i]->session_ack;
    return NULL;
}

const Item *last_of(int body_case)
{
    for (size_t i = f.to_gateway_count; i-- > 0;)
        if ((int)f.to_gateways[i]->body_case == body_case)
            return f.to_gateways[i];
    return NULL;
}

struct person joins(int shard, const char *identity, const char *room)
{
    struct person person = person_make(identity, room, 0);
    person.version = 1;
    say(shard, &person, JOIN, ATTACHED);
    return person;
}

const struct room *room_at(int shard, const char *name)
{
    struct room_key key = room_key_make("test", name);
    return shard_find_any_room(f.peers[shard].shard, &key);
}

enum room_state state_at(int shard, const char *name)
{
    const struct room *room = room_at(shard, name);
    return room != NULL ? room->state : ROOM_ABSENT;
}

const char *room_moving_to(int to, const char *shards)
{
    struct view *now = view_ref(f.view);
    next_view(shards);
    const char *name = room_of(to);
    view_unref(&f.view);
    f.view = now;
    return name;
}
