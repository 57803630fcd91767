/* Gateways and shards together, on a bus that loses, repeats and delays: whatever happened, once it is quiet every
 * roster is the truth, and every message has arrived once, in order, or is known not to have. */
#include "tests/sim/model_client.h"
#include "tests/sim/world.h"
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PEOPLE = 6, SEEDS = 120, TROUBLE_MS = 30 * 1000, QUIET_MS = 120 * 1000 };

static struct world *world;
static struct model_client people[PEOPLE];
static uint64_t seed;

static void open_world(uint64_t with_seed)
{
    struct world_options options = world_default_options(with_seed);
    seed = with_seed;
    world = world_new(&options);
    for (int i = 0; i < PEOPLE; i++) {
        char identity[16];
        snprintf(identity, sizeof identity, "person-%d", i);
        model_client_init(&people[i], world, identity, i % 3 == 2 ? "second" : "first");
    }
}

static void close_world(void)
{
    for (int i = 0; i < PEOPLE; i++)
        model_client_done(&people[i]);
    world_free(&world);
}

static void act(struct model_client *person)
{
    int gateway = (int)world_random(world, 2);
    char name[16];
    if (!person->wants_in) {
        model_client_join(person, gateway);
        return;
    }
    switch (world_random(world, 20)) {
    case 0:
        model_client_leave(person, (enum model_leave)world_random(world, 3));
        break;
    case 1:
    case 2:
        model_client_lose(person, gateway);
        break;
    case 3:
    case 4:
    case 5:
        snprintf(name, sizeof name, "name-%d", (int)world_random(world, 1000));
        model_client_rename(person, name);
        break;
    case 6:
    case 7:
    case 8:
    case 9:
        model_client_say(person);
        break;
    default:
        model_client_send(person);
        break;
    }
}

static void make_trouble(void)
{
    struct world_faults faults = {.bus_loss = (uint32_t)world_random(world, 201),
                                  .bus_duplication = (uint32_t)world_random(world, 101),
                                  .bus_delay_max_ms = (uint32_t)world_random(world, 200),
                                  .client_delay_max_ms = (uint32_t)world_random(world, 100)};
    world_set_faults(world, &faults);
    for (int64_t end_ms = world_now_ms(world) + TROUBLE_MS; world_now_ms(world) < end_ms;) {
        act(&people[world_random(world, PEOPLE)]);
        world_run(world, 1 + (int64_t)world_random(world, 200));
    }
}

static void calm_down(void)
{
    struct world_faults none = {0};
    world_set_faults(world, &none);
    for (int i = 0; i < PEOPLE; i++)
        if (!people[i].wants_in && i % 2 == 0)
            model_client_join(&people[i], i % 2);
    world_run(world, QUIET_MS);
}

/* --- what must hold then --------------------------------------------------------------------------------------- */

static void check_roster(const struct model_client *self)
{
    size_t expected = 0;
    for (int i = 0; i < PEOPLE; i++) {
        const struct model_client *other = &people[i];
        if (!other->wants_in || strcmp(other->room, self->room) != 0)
            continue;
        expected++;
        const struct model_participant *seen = model_client_find(self, other->sid);
        ck_assert_msg(seen != NULL, "seed %" PRIu64 ": %s does not see %s", seed, self->identity, other->identity);
        ck_assert_msg(strcmp(seen->name, other->name) == 0, "seed %" PRIu64 ": %s calls %s %s", seed, self->identity,
                      other->identity, seen->name);
        ck_assert_msg(seen->version == model_client_find(other, other->sid)->version, "seed %" PRIu64 ": versions",
                      seed);
    }
    ck_assert_msg(self->roster_count == expected, "seed %" PRIu64 ": %s sees %zu of %zu", seed, self->identity,
                  self->roster_count, expected);
}

static void check_messages(const struct model_client *self)
{
    ck_assert_msg(self->room_acked == self->room_sent, "seed %" PRIu64 ": %s to the room", seed, self->identity);
    for (size_t i = 0; i < self->pair_count; i++) {
        const struct model_pair *pair = &self->pairs[i];
        ck_assert_msg(pair->ended || pair->acked == pair->sent, "seed %" PRIu64 ": %s to %s: %" PRIu64 " of %" PRIu64,
                      seed, self->identity, pair->peer, pair->acked, pair->sent);
    }
    for (int i = 0; i < PEOPLE; i++) {
        const struct model_client *other = &people[i];
        if (!other->wants_in || other == self || strcmp(other->room, self->room) != 0)
            continue;
        const struct model_pair *there = model_client_pair(self, other->sid);
        const struct model_pair *back = model_client_pair(other, self->sid);
        uint64_t sent = there != NULL ? there->sent : 0, delivered = back != NULL ? back->delivered : 0;
        ck_assert_msg(sent == delivered, "seed %" PRIu64 ": %s to %s: sent %" PRIu64 ", delivered %" PRIu64, seed,
                      self->identity, other->identity, sent, delivered);
        ck_assert_msg(there == NULL || !there->ended, "seed %" PRIu64 ": a pair of the living has ended", seed);
        const struct model_heard *heard = model_client_heard(other, self->sid);
        ck_assert_msg(heard == NULL || !heard->continuous || heard->last == self->room_sent,
                      "seed %" PRIu64 ": %s has heard %" PRIu64 " of %" PRIu64 " of %s", seed, other->identity,
                      heard->last, self->room_sent, self->identity);
    }
}

static void check(void)
{
    size_t in = 0;
    for (int i = 0; i < PEOPLE; i++) {
        const struct model_client *self = &people[i];
        ck_assert_msg(self->violation[0] == '\0', "seed %" PRIu64 ": %s", seed, self->violation);
        if (!self->wants_in)
            continue;
        in++;
        ck_assert_msg(self->greeted, "seed %" PRIu64 ": %s is not in", seed, self->identity);
        check_roster(self);
        check_messages(self);
    }
    size_t sessions = 0, orphans = 0, members = 0;
    for (int i = 0; i < 2; i++) {
        sessions += gateway_stats(world_gateway(world, i)).sessions;
        orphans += gateway_stats(world_gateway(world, i)).orphans;
        if (world_shard(world, i) != NULL)
            members += shard_stats(world_shard(world, i)).participants;
    }
    ck_assert_msg(sessions == in && orphans == 0 && members == in,
                  "seed %" PRIu64 ": %zu in, %zu sessions, %zu orphans, %zu members", seed, in, sessions, orphans,
                  members);
}

START_TEST(what_was_lost_is_made_whole)
{
    open_world((uint64_t)_i + 1);
    make_trouble();
    calm_down();
    check();
    close_world();
}
END_TEST

/* The owner of some rooms is lost with all that it knew, and later comes back empty: rosters are made whole from what
 * the gateways hold. */
START_TEST(an_owner_is_lost_and_comes_back)
{
    open_world((uint64_t)_i + 1000);
    for (int i = 0; i < PEOPLE; i++)
        model_client_join(&people[i], i % 2);
    make_trouble();
    int shard = (int)world_random(world, 2);
    world_remove_shard(world, shard, 500);
    make_trouble();
    world_add_shard(world, shard, 500);
    make_trouble();
    calm_down();
    check();
    close_world();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("core_pair");
    TCase *tcase = tcase_create("pair");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, what_was_lost_is_made_whole, 0, SEEDS);
    tcase_add_loop_test(tcase, an_owner_is_lost_and_comes_back, 0, SEEDS / 4);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
