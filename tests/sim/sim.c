/* sim --seeds A..B [--verbose] [--prove]: each seed draws a cluster, people in its rooms, and what befalls them;
 * what must hold is checked after every step and once it is quiet again. A failing seed prints its story. */
#include "common/log.h"
#include "tests/sim/cluster.h"
#include "tests/sim/model_client.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    PEOPLE_MAX = 8,
    START_SPREAD_MS = 3000,
    TROUBLE_MS = 40 * 1000,
    CALM_MS = 60 * 1000,
    ROSTERS_MS = 90 * 1000,
    STEP_MAX_MS = 400,
};

struct play {
    struct world *world;
    struct model_client people[PEOPLE_MAX];
    int people_count;
};

static const char *const sabotage_names[SABOTAGE_COUNT] = {"none", "no fence", "no notice", "accept removed",
                                                           "assume appends"};

static int64_t between(struct world *world, int64_t low, int64_t high)
{
    return low + (int64_t)world_random(world, (uint64_t)(high - low + 1));
}

static struct process *draw_process(struct world *world)
{
    return &world->processes[world_random(world, (uint64_t)(world->gateways + world->shards))];
}

static int draw_gateway(struct world *world)
{
    int first = (int)world_random(world, (uint64_t)world->gateways);
    for (int i = 0; i < world->gateways; i++) {
        int index = (first + i) % world->gateways;
        if (world->processes[index].alive && !world->processes[index].leaving)
            return index;
    }
    return first;
}

/* --- trouble --------------------------------------------------------------------------------------------------- */

static void part(struct world *world, struct process *a, struct process *b, bool both_ways)
{
    int64_t ms = between(world, 200, 8000);
    if (a == b)
        return;
    world->injected[both_ways ? INJECTED_PARTITION : INJECTED_ONE_WAY]++;
    cluster_tell(world, "%s hears nothing from %s%s for %d ms", a->address.id, b->address.id,
                 both_ways ? " nor the other way" : "", (int)ms);
    a->deaf_until_ms[b->index] = world->now_ms + ms;
    if (both_ways)
        b->deaf_until_ms[a->index] = world->now_ms + ms;
}

static void befall(struct world *world)
{
    struct process *process = draw_process(world);
    uint64_t kind = world_random(world, 100);
    if (!process->alive) {
        if (kind < 60) {
            world->injected[process->life > 0 ? INJECTED_RESTART : INJECTED_JOIN]++;
            process_start(process);
        }
        return;
    }
    if (kind < 15) {
        world->injected[INJECTED_CRASH]++;
        process_crash(process);
    } else if (kind < 45 && process_runs(process)) {
        world->injected[INJECTED_PAUSE]++;
        process_pause(process, between(world, 100, world_random(world, 2) != 0 ? 2500 : 10000));
    } else if (kind < 55) {
        part(world, process, draw_process(world), true);
    } else if (kind < 65) {
        part(world, process, draw_process(world), false);
    } else if (kind < 80) {
        world->injected[INJECTED_BUS_CUT]++;
        process_cut(process, between(world, 200, 8000));
    } else if (kind < 90) {
        world->injected[INJECTED_LEADERLESS]++;
        world->leaderless_until_ms = world->now_ms + between(world, 500, 9000);
        cluster_tell(world, "the log has no leader");
    } else if (!process->leaving && process_runs(process)) {
        world->injected[INJECTED_LEAVE]++;
        process_leave(process);
    }
}

/* --- people ---------------------------------------------------------------------------------------------------- */

static void act(struct play *play)
{
    struct world *world = play->world;
    struct model_client *person = &play->people[world_random(world, (uint64_t)play->people_count)];
    const struct process *process = &world->processes[person->gateway];
    uint64_t what = world_random(world, 20);
    if (!person->wants_in) {
        model_client_join(person, draw_gateway(world));
    } else if (what == 0) {
        uint64_t ways = process_runs(process) ? 3 : 2;
        model_client_leave(person, (enum model_leave)world_random(world, ways));
    } else if (what == 1) {
        model_client_lose(person, draw_gateway(world));
    } else if (what < 8) {
        model_client_say(person);
    } else {
        model_client_send(person);
    }
}

/* As an address that several gateways share sends them to one that is there. */
static void redirect(struct play *play)
{
    for (int i = 0; i < play->people_count; i++) {
        struct model_client *person = &play->people[i];
        const struct process *process = &play->world->processes[person->gateway];
        if (!process->alive || process->leaving)
            person->gateway = draw_gateway(play->world);
        if (person->violation[0] != '\0')
            cluster_violated(play->world, "%s", person->violation);
    }
}

static void pass(struct play *play, int64_t ms, bool trouble)
{
    struct world *world = play->world;
    for (int64_t end_ms = world->now_ms + ms; world->now_ms < end_ms && world->violation[0] == '\0';) {
        if (trouble) {
            act(play);
            if (world_random(world, world->restless ? 8 : 25) == 0)
                befall(world);
        }
        redirect(play);
        world_run(world, between(world, 1, STEP_MAX_MS));
    }
}

static void check_rosters(struct play *play)
{
    for (int i = 0; i < play->people_count; i++) {
        const struct model_client *self = &play->people[i];
        size_t expected = 0;
        if (!self->wants_in)
            continue;
        if (!self->greeted)
            cluster_violated(play->world, "%s is not in room %s", self->identity, self->room);
        for (int n = 0; n < play->people_count; n++) {
            const struct model_client *other = &play->people[n];
            if (!other->wants_in || strcmp(other->room, self->room) != 0)
                continue;
            expected++;
            if (model_client_find(self, other->sid) == NULL)
                cluster_violated(play->world, "%s does not see %s", self->identity, other->identity);
        }
        if (expected != self->roster_count)
            cluster_violated(play->world, "%s sees %zu of %zu", self->identity, self->roster_count, expected);
    }
}

/* --- a seed ---------------------------------------------------------------------------------------------------- */

static void begin(struct play *play)
{
    struct world *world = play->world;
    world->loss = world_random(world, 3) == 0 ? (uint32_t)world_random(world, 200) : (uint32_t)world_random(world, 20);
    world->duplication = (uint32_t)world_random(world, 100);
    world->delay_max_ms = (uint32_t)world_random(world, world_random(world, 2) == 0 ? 5 : 60);
    world->log_trouble = (uint32_t)world_random(world, 200);
    world->restless = world_random(world, 3) == 0;
    bool cold = world_random(world, 2) == 0;
    for (int i = 0; i < world->gateways + world->shards; i++) {
        if (cold)
            world_run(world, between(world, 0, START_SPREAD_MS));
        if (i == 0 || i == world->gateways || world_random(world, 5) != 0)
            process_start(&world->processes[i]);
    }
    for (int i = 0; i < play->people_count; i++) {
        char identity[32];
        snprintf(identity, sizeof identity, "person-%d", i);
        model_client_init(&play->people[i], world, identity, cluster_room_names[i % 3]);
    }
    pass(play, world_random(world, 2) == 0 ? 8000 : 100, false);
}

static void calm_down(struct play *play)
{
    struct world *world = play->world;
    world->loss = world->duplication = world->delay_max_ms = world->log_trouble = 0;
    world->leaderless_until_ms = 0;
    cluster_tell(world, "trouble ends");
    for (int i = 0; i < world->gateways + world->shards; i++) {
        struct process *process = &world->processes[i];
        memset(process->deaf_until_ms, 0, sizeof process->deaf_until_ms);
        process->cut_until_ms = 0;
        if (!process->alive && (i == 0 || i == world->gateways))
            process_start(process);
    }
    pass(play, CALM_MS, false);
    /* Whoever was leaving has left; somebody has to be there. */
    cluster_check_calm(world);
    for (int i = 0; i <= world->gateways; i += world->gateways)
        if (!world->processes[i].alive)
            process_start(&world->processes[i]);
    pass(play, ROSTERS_MS, false);
    check_rosters(play);
}

static void print_story(const struct world *world, uint64_t seed)
{
    uint64_t first = world->story_count > CLUSTER_STORY ? world->story_count - CLUSTER_STORY : 0;
    printf("seed %" PRIu64 ": %s\n", seed, world->violation);
    for (uint64_t i = first; i < world->story_count; i++)
        printf("  %s\n", world->story[i % CLUSTER_STORY]);
}

/* True if everything held. */
static bool run_seed(uint64_t seed, enum sabotage sabotage, bool verbose, bool quiet, uint64_t injected[],
                     int64_t *overlap_max_ms)
{
    static const int shard_counts[] = {1, 2, 3, 8};
    struct play play = {.people_count = 3 + (int)(seed % 6)};
    play.world = cluster_new(seed, shard_counts[seed % 4], 1 + (int)(seed / 4 % 6), sabotage, verbose);
    begin(&play);
    pass(&play, TROUBLE_MS, true);
    calm_down(&play);
    bool held = play.world->violation[0] == '\0';
    if (!held && !quiet)
        print_story(play.world, seed);
    for (int i = 0; i < INJECTED_COUNT; i++)
        injected[i] += play.world->injected[i];
    if (play.world->overlap_max_ms > *overlap_max_ms)
        *overlap_max_ms = play.world->overlap_max_ms;
    for (int i = 0; i < play.people_count; i++)
        model_client_done(&play.people[i]);
    cluster_free(&play.world);
    return held;
}

static void print_injected(const uint64_t injected[])
{
    static const char *const helps[] = {
#define X(name, help) help,
        INJECTED_TABLE(X)
#undef X
    };
    for (int i = 0; i < INJECTED_COUNT; i++)
        printf("%12" PRIu64 "  %s\n", injected[i], helps[i]);
}

/* Each deliberate fault must be found within the seeds. */
static int prove(uint64_t first, uint64_t last)
{
    int missed = 0;
    for (int sabotage = 1; sabotage < SABOTAGE_COUNT; sabotage++) {
        uint64_t injected[INJECTED_COUNT] = {0}, seed = first;
        int64_t overlap_ms = 0;
        while (seed <= last && run_seed(seed, (enum sabotage)sabotage, false, true, injected, &overlap_ms))
            seed++;
        printf("%-16s %s", sabotage_names[sabotage], seed <= last ? "caught" : "NOT CAUGHT");
        printf(seed <= last ? ", seed %" PRIu64 "\n" : "\n", seed);
        missed += seed > last;
    }
    return missed;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seeds", required_argument, NULL, 's'},
                                            {"verbose", no_argument, NULL, 'v'},
                                            {"prove", no_argument, NULL, 'p'},
                                            {0}};
    uint64_t first = 1, last = 100, injected[INJECTED_COUNT] = {0}, violations = 0;
    int64_t overlap_ms = 0;
    bool verbose = false, proving = false;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 's' && sscanf(optarg, "%" SCNu64 "..%" SCNu64, &first, &last) == 2)
            continue;
        if (option != 'v' && option != 'p') {
            fprintf(stderr, "usage: sim [--seeds A..B] [--verbose] [--prove]\n");
            return 2;
        }
        verbose |= option == 'v';
        proving |= option == 'p';
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    log_setup(LOG_ERROR, LOG_FORMAT_TEXT);
    if (proving)
        return prove(first, last) == 0 ? 0 : 1;
    for (uint64_t seed = first; seed <= last; seed++)
        violations += !run_seed(seed, SABOTAGE_NONE, verbose, false, injected, &overlap_ms);
    print_injected(injected);
    printf("%12" PRId64 "  ms at most that two listed shards acted on a room while news of a view travelled\n",
           overlap_ms);
    printf("%" PRIu64 " seeds, %" PRIu64 " violations\n", last - first + 1, violations);
    return violations == 0 ? 0 : 1;
}
