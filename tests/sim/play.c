#include "tests/sim/play.h"

#include "common/metrics.h"
#include "tests/sim/model_client.h"
#include <stdio.h>
#include <string.h>

enum {
    PEOPLE_MAX = 16,
    START_SPREAD_MS = 3000,
    TROUBLE_MS = 40 * 1000,
    CALM_MS = 50 * 1000,
    ROSTERS_MS = 90 * 1000,
    /* Windows that began to run in the trouble end, with what they hide. */
    AFTERMATH_MS = 45 * 1000,
    ROLL_MS = 2000,
    STEP_MAX_MS = 400,
    LOG_TAIL_MAX = 3,
    FLEET_EVERY = 100,
    FLEET_SHARDS = 8,
    FLEET_GATEWAYS = 64,
    FLEET_TROUBLE_MS = 15 * 1000,
};

struct play {
    struct world *world;
    bool fleet;
    int rooms; /* in use */
    struct model_client people[PEOPLE_MAX];
    int people_count;
};

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

/* What a shard is configured with when it starts: it may have been changed since its last start. */
static void configure(struct world *world, struct process *process)
{
    static const uint32_t weights[] = {100, 100, 50, 200};
    static const char *const regions[] = {"", "eu", "us"};
    uint32_t weight = weights[world_random(world, 4)];
    const char *region = world->regions ? regions[world_random(world, 3)] : "";
    bool again = process->life > 0 && process->index >= world->gateways;
    world->injected[INJECTED_WEIGHT] += again && weight != process->weight;
    world->injected[INJECTED_REGION] += again && strcmp(region, process->region) != 0;
    process->weight = weight;
    snprintf(process->region, sizeof process->region, "%s", region);
}

static void start(struct world *world, struct process *process)
{
    configure(world, process);
    process_start(process);
}

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

static void cut_off(struct world *world, struct process *process)
{
    int64_t ms = between(world, 200, 8000);
    if (ms % 4 == 0) {
        world->injected[INJECTED_SERVER_LOST]++;
        cluster_lose_server(world, process->index % CLUSTER_SERVERS, 200 + ms / 3);
    } else {
        world->injected[INJECTED_BUS_CUT]++;
        process_cut(process, ms);
    }
}

static void lose_leader(struct world *world)
{
    world->injected[INJECTED_LEADERLESS]++;
    world->leaderless_until_ms = world->now_ms + between(world, 500, 9000);
    cluster_tell(world, "the log has no leader");
}

/* As a power cut does it to servers which acknowledge before they sync. */
static void lose_log(struct world *world)
{
    size_t count = world_random(world, 2) == 0 ? world->log_count : (size_t)between(world, 1, LOG_TAIL_MAX);
    lose_leader(world);
    if (world->log_count > 0)
        cluster_log_lose(world, count);
}

static void load(struct world *world, struct process *shard)
{
    if (world_random(world, 3) == 0) {
        world->injected[INJECTED_FULL]++;
        shard->full_until_ms = world->now_ms + between(world, 1000, 8000);
        cluster_tell(world, "%s is full", shard->address.id);
        return;
    }
    world->injected[INJECTED_LOADED]++;
    shard->pressure = shard->pressure == PRESSURE_HIGH ? PRESSURE_LOW : PRESSURE_HIGH;
    cluster_tell(world, "%s is under %s pressure", shard->address.id,
                 shard->pressure == PRESSURE_HIGH ? "high" : "low");
}

static void give_up(struct world *world, struct process *process)
{
    if (process->shard != NULL && world_random(world, 2) != 0) {
        world->injected[INJECTED_DRAIN]++;
        process_drain(process, (uint32_t)between(world, 2000, 20000));
    } else {
        world->injected[INJECTED_LEAVE]++;
        process_leave(process);
    }
}

static void befall(struct world *world)
{
    struct process *process = draw_process(world);
    uint64_t kind = world_random(world, 100);
    if (!process->alive) {
        if (kind < 60) {
            world->injected[process->life > 0 ? INJECTED_RESTART : INJECTED_JOIN]++;
            start(world, process);
        }
        return;
    }
    if (process->shard != NULL && world_random(world, 8) == 0) {
        load(world, process);
    } else if (kind < 15) {
        world->injected[INJECTED_CRASH]++;
        process_crash(process);
    } else if (kind < 45 && process_runs(process)) {
        world->injected[INJECTED_PAUSE]++;
        process_pause(process, between(world, 100, world_random(world, 2) != 0 ? 2500 : 10000));
    } else if (kind < 55) {
        part(world, process, draw_process(world), true);
    } else if (kind < 65) {
        part(world, process, draw_process(world), false);
    } else if (kind < 79) {
        cut_off(world, process);
    } else if (kind < 82) {
        lose_log(world);
    } else if (kind < 90) {
        lose_leader(world);
    } else if (!process->leaving && process_runs(process)) {
        give_up(world, process);
    }
}

/* --- people ---------------------------------------------------------------------------------------------------- */

static void act(struct play *play)
{
    struct world *world = play->world;
    struct model_client *person = &play->people[world_random(world, (uint64_t)play->people_count)];
    const struct process *process = &world->processes[person->gateway];
    uint64_t what = world_random(world, 40);
    if (!person->wants_in) {
        model_client_join(person, draw_gateway(world));
    } else if (what < 2) {
        uint64_t ways = process_runs(process) ? 3 : 2;
        world->injected[INJECTED_CLIENT_LEFT]++;
        model_client_leave(person, (enum model_leave)world_random(world, ways));
    } else if (what < 4) {
        world->injected[INJECTED_CLIENT_LOST]++;
        model_client_lose(person, draw_gateway(world));
    } else if (what < 5) {
        world->injected[INJECTED_CLIENT_RELOADED]++;
        model_client_reload(person, draw_gateway(world));
    } else if (what < 16) {
        model_client_say(person);
    } else {
        model_client_send(person);
    }
}

static int room_index(const struct model_client *person)
{
    int index = 0;
    while (strcmp(cluster_room_names[index], person->room) != 0)
        index++;
    return index;
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
            cluster_violated(play->world, person->invariant, room_index(person), "%s", person->violation);
    }
}

static void pass(struct play *play, int64_t ms, bool trouble)
{
    struct world *world = play->world;
    world->ambushes = trouble;
    for (int64_t end_ms = world->now_ms + ms; world->now_ms < end_ms && !cluster_broken(world);) {
        if (trouble) {
            act(play);
            if (world_random(world, world->restless ? 8 : 25) == 0)
                befall(world);
        }
        redirect(play);
        world_run(world, between(world, 1, STEP_MAX_MS));
    }
}

/* --- what must hold in the end --------------------------------------------------------------------------------- */

/* NULL, or what is wrong with what goes from one to the other; both are in one room, and each in the other's roster. */
static const char *undelivered(const struct model_client *from, const struct model_client *to)
{
    const struct model_pair *sent = model_client_pair(from, to->sid);
    const struct model_pair *heard = model_client_pair(to, from->sid);
    if (sent != NULL && sent->ended)
        return "takes for gone";
    if (sent == NULL || sent->sent == 0)
        return NULL;
    if (heard == NULL || heard->delivered != sent->sent)
        return "has not reached";
    return sent->acked != sent->sent ? "has no acknowledgement from" : NULL;
}

static bool person_is_well(struct play *play, const struct model_client *self, bool must)
{
    struct world *world = play->world;
    size_t expected = 0;
    bool well = self->greeted && self->room_acked == self->room_sent;
    if (!self->greeted && must)
        cluster_violated(world, "rosters converge", room_index(self), "%s is not in room %s", self->identity,
                         self->room);
    if (self->room_acked != self->room_sent && must)
        cluster_violated(world, "room messages", room_index(self), "%s has no acknowledgement", self->identity);
    for (int i = 0; i < play->people_count; i++) {
        const struct model_client *other = &play->people[i];
        if (!other->wants_in || strcmp(other->room, self->room) != 0)
            continue;
        expected++;
        bool seen = model_client_find(self, other->sid) != NULL;
        const char *problem = other == self || !seen ? NULL : undelivered(self, other);
        well &= seen && problem == NULL;
        if (!seen && must)
            cluster_violated(world, "rosters converge", room_index(self), "%s does not see %s", self->identity,
                             other->identity);
        if (problem != NULL && must)
            cluster_violated(world, "directed messages", room_index(self), "%s (%s) %s %s (%s)", self->identity,
                             self->sid, problem, other->identity, other->sid);
    }
    if (expected != self->roster_count && must)
        cluster_violated(world, "rosters converge", room_index(self), "%s sees %zu of %zu", self->identity,
                         self->roster_count, expected);
    return well && expected == self->roster_count;
}

static bool check_people(struct play *play, bool must)
{
    bool well = true;
    for (int i = 0; i < play->people_count && well; i++)
        if (play->people[i].wants_in)
            well = person_is_well(play, &play->people[i], must);
    return well;
}

/* Events flow by themselves, and are not merely repaired now and then: what each says now the others hear soon. */
static void call_roll(struct play *play)
{
    if (cluster_broken(play->world))
        return;
    for (int i = 0; i < play->people_count; i++)
        if (play->people[i].wants_in)
            model_client_say(&play->people[i]);
    pass(play, ROLL_MS, false);
    for (int i = 0; i < play->people_count; i++)
        for (int n = 0; n < play->people_count; n++) {
            const struct model_client *self = &play->people[i], *other = &play->people[n];
            if (self == other || !self->wants_in || !other->wants_in || strcmp(self->room, other->room) != 0)
                continue;
            const struct model_heard *heard = model_client_heard(self, other->sid);
            if (heard == NULL || heard->last != other->room_sent)
                cluster_violated(play->world, "events flow", room_index(self), "%s has not heard what %s just said",
                                 self->identity, other->identity);
        }
}

/* --- a seed ---------------------------------------------------------------------------------------------------- */

/* Views of 1, 2 and 3 shards most of all; rarely as many as 8, with 64 gateways. */
static void draw_world(struct play *play, uint64_t seed, struct story *story)
{
    static const int shard_counts[] = {1, 2, 3, 2, 3, 5, 3, 8};
    play->fleet = seed % FLEET_EVERY == FLEET_EVERY / 2;
    int shards = play->fleet ? FLEET_SHARDS : shard_counts[seed % 8];
    int gateways = play->fleet ? FLEET_GATEWAYS : 1 + (int)(seed / 8 % 6);
    play->people_count = play->fleet ? PEOPLE_MAX : 3 + (int)(seed % 6);
    play->rooms = play->fleet ? CLUSTER_ROOMS : 3 + (int)(seed / 4 % 2) * (CLUSTER_ROOMS - 3);
    play->world = cluster_new(seed, shards, gateways, story);
    struct world *world = play->world;
    world->loss = world_random(world, 3) == 0 ? (uint32_t)world_random(world, 200) : (uint32_t)world_random(world, 20);
    world->duplication = (uint32_t)world_random(world, 100);
    world->delay_max_ms = (uint32_t)world_random(world, world_random(world, 2) == 0 ? 5 : 60);
    world->log_trouble = (uint32_t)world_random(world, 200);
    world->restless = world_random(world, 3) == 0;
    world->regions = world_random(world, 3) == 0;
    world->narrow = seed / 2 % 2 == 0;
}

static void begin(struct play *play)
{
    struct world *world = play->world;
    bool cold = world_random(world, 2) == 0;
    for (int i = 0; i < world->gateways + world->shards; i++) {
        if (cold)
            world_run(world, between(world, 0, play->fleet ? START_SPREAD_MS / 30 : START_SPREAD_MS));
        if (i == 0 || i == world->gateways || world_random(world, 5) != 0)
            start(world, &world->processes[i]);
    }
    for (int i = 0; i < play->people_count; i++) {
        char identity[32];
        snprintf(identity, sizeof identity, "person-%d", i);
        model_client_init(&play->people[i], world, identity, cluster_room_names[i % play->rooms]);
    }
    pass(play, world_random(world, 2) == 0 ? 8000 : 100, false);
}

static void end_trouble(struct world *world)
{
    world->loss = world->duplication = world->delay_max_ms = world->log_trouble = 0;
    world->leaderless_until_ms = 0;
    cluster_tell(world, "trouble ends");
    for (int i = 0; i < world->gateways + world->shards; i++) {
        struct process *process = &world->processes[i];
        memset(process->deaf_until_ms, 0, sizeof process->deaf_until_ms);
        process->cut_until_ms = process->mute_until_ms = process->full_until_ms = 0;
        process->pressure = PRESSURE_LOW;
        if (!process->alive && (i == 0 || i == world->gateways))
            start(world, process);
    }
}

static bool calms_within(struct play *play, int64_t ms)
{
    struct world *world = play->world;
    for (int64_t end_ms = world->now_ms + ms; world->now_ms < end_ms && !cluster_broken(world);) {
        pass(play, STEP_MAX_MS, false);
        if (cluster_check_calm(world, false))
            return true;
    }
    return false;
}

/* Where too few are left for a quorum, somebody has to start what is dead. */
static void start_the_dead(struct world *world)
{
    world->injected[INJECTED_RESCUE]++;
    cluster_tell(world, "whoever is dead is started");
    for (int i = 0; i < world->gateways + world->shards; i++)
        if (!world->processes[i].alive)
            start(world, &world->processes[i]);
}

static void calm_down(struct play *play)
{
    struct world *world = play->world;
    int64_t ended_ms = world->now_ms;
    end_trouble(world);
    if (!calms_within(play, CALM_MS) && !cluster_broken(world)) {
        start_the_dead(world);
        if (!calms_within(play, CALM_MS))
            cluster_check_calm(world, true);
    }
    /* Whoever was leaving has left; somebody has to be there. */
    for (int i = 0; i <= world->gateways; i += world->gateways)
        if (!world->processes[i].alive)
            start(world, &world->processes[i]);
    int64_t calm_ms = world->now_ms;
    do
        pass(play, STEP_MAX_MS, false);
    while (
        !cluster_broken(world) && world->now_ms - calm_ms < ROSTERS_MS &&
        (world->now_ms - ended_ms < AFTERMATH_MS || !check_people(play, false) || !cluster_check_calm(world, false)));
    check_people(play, true);
    cluster_check_calm(world, true);
    call_roll(play);
}

void play_seed(uint64_t seed, struct story *story, struct play_result *ret_result)
{
    struct play play = {0};
    uint64_t edges_before[ROOM_EDGE_COUNT];
    for (unsigned i = 0; i < ROOM_EDGE_COUNT; i++)
        edges_before[i] = metric_value_at(M_ROOM_TRANSITIONS, i);
    draw_world(&play, seed, story);
    begin(&play);
    pass(&play, play.fleet ? FLEET_TROUBLE_MS : TROUBLE_MS, true);
    calm_down(&play);
    *ret_result = (struct play_result){
        .seed = seed, .digest = play.world->digest, .held = !cluster_broken(play.world), .fleet = play.fleet};
    for (unsigned i = 0; i < ROOM_EDGE_COUNT; i++)
        ret_result->edges[i] = metric_value_at(M_ROOM_TRANSITIONS, i) - edges_before[i];
    memcpy(ret_result->injected, play.world->injected, sizeof ret_result->injected);
    for (int i = 0; i < play.people_count; i++)
        model_client_done(&play.people[i]);
    cluster_free(&play.world);
}

const char *play_injected_help(enum injected injected)
{
    static const char *const helps[] = {
#define X(name, help) help,
        INJECTED_TABLE(X)
#undef X
    };
    return helps[injected];
}
