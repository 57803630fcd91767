#include "tests/sim/cluster.h"

#include "common/bus.h"
#include "common/mem.h"
#include <stdlib.h>
#include <string.h>

enum {
    LOG_DELAY_MAX_MS = 20,
    LOG_SLOW_MAX_MS = 3000,
    LOG_TIMEOUT_MS = 2000,
    PROBE_DELAY_MAX_MS = 2,
    HELD_UP_MIN_MS = 1000,
    HELD_UP_MAX_MS = 6000
};

/* --- events ---------------------------------------------------------------------------------------------------- */

bool cluster_chance(struct world *world, uint32_t permille)
{
    return world_random(world, 1000) < permille;
}

void cluster_push(struct world *world, struct event event)
{
    struct event *copy = mem_new(struct event);
    *copy = event;
    copy->order = heap_push(&world->events, event.at_ms, event.order, copy);
}

void cluster_drop_event(struct event *event)
{
    payload_unref(&event->bytes);
    free(event);
}

int64_t cluster_later(struct world *world, int64_t *last_ms, uint32_t delay_max_ms)
{
    int64_t at_ms = world->now_ms + (int64_t)world_random(world, delay_max_ms + 1);
    return *last_ms = at_ms > *last_ms ? at_ms : *last_ms;
}

/* --- the bus --------------------------------------------------------------------------------------------------- */

static void deliver(struct process *from, struct process *to, enum event_kind kind, struct payload *bytes)
{
    struct world *world = from->world;
    if (world->now_ms < from->cut_until_ms || world->now_ms < to->cut_until_ms ||
        world->now_ms < to->deaf_until_ms[from->index])
        return;
    if (cluster_chance(world, world->loss)) {
        world->injected[INJECTED_LOSS]++;
        return;
    }
    if (kind == EVENT_HEARTBEAT && cluster_chance(world, world->duplication)) {
        /* A NATS server that its sender has left stood still, and goes on. */
        int64_t held_ms = HELD_UP_MIN_MS + (int64_t)world_random(world, HELD_UP_MAX_MS - HELD_UP_MIN_MS);
        world->injected[INJECTED_HELD_UP]++;
        cluster_push(world, (struct event){.at_ms = world->now_ms + held_ms,
                                           .kind = kind,
                                           .process = to,
                                           .incarnation = to->address.incarnation,
                                           .bytes = payload_ref(bytes)});
    }
    int copies = cluster_chance(world, world->duplication) ? 2 : 1;
    world->injected[INJECTED_DUPLICATE] += (uint64_t)copies - 1;
    for (int i = 0; i < copies; i++) {
        int64_t at_ms = cluster_later(world, &to->last_arrival_ms[from->index], world->delay_max_ms);
        world->injected[INJECTED_DELAY] += at_ms > world->now_ms;
        cluster_push(world, (struct event){.at_ms = at_ms,
                                           .kind = kind,
                                           .process = to,
                                           .incarnation = to->address.incarnation,
                                           .bytes = payload_ref(bytes)});
    }
}

void cluster_publish(struct process *from, enum event_kind kind, const char *subject, struct payload *bytes)
{
    struct world *world = from->world;
    if (!from->bus_up)
        return;
    for (int i = 0; i < world->gateways + world->shards; i++) {
        struct process *to = &world->processes[i];
        bool listens = kind == EVENT_LINK        ? strcmp(to->subject, subject) == 0
                       : kind == EVENT_HEARTBEAT ? to->shard != NULL || from->shard != NULL
                                                 : true;
        if (to->alive && to->bus_up && listens)
            deliver(from, to, kind, bytes);
    }
}

void cluster_publish_second(struct process *from, struct payload *bytes)
{
    struct world *world = from->world;
    if (world->now_ms < from->mute_until_ms)
        return;
    for (int i = 0; i < world->gateways + world->shards; i++) {
        struct process *to = &world->processes[i];
        if (to != from && to->alive && to->bus_up && (to->shard != NULL || from->shard != NULL) &&
            world->now_ms >= to->cut_until_ms && world->now_ms >= to->deaf_until_ms[from->index])
            cluster_push(world, (struct event){.at_ms = world->now_ms + 1,
                                               .kind = EVENT_HEARTBEAT,
                                               .process = to,
                                               .incarnation = to->address.incarnation,
                                               .bytes = payload_ref(bytes)});
    }
}

void cluster_probe(struct process *from, const struct node_address *node, struct payload *bytes)
{
    struct world *world = from->world;
    char subject[LINK_SUBJECT_MAX];
    node_inbox(node, subject);
    if (!from->bus_up || world->now_ms < from->cut_until_ms)
        return;
    for (int i = 0; i < world->gateways + world->shards; i++)
        if (world->processes[i].alive && world->processes[i].bus_up &&
            strcmp(world->processes[i].subject, subject) == 0) {
            deliver(from, &world->processes[i], EVENT_LINK, bytes);
            return;
        }
    cluster_push(world, (struct event){.at_ms = world->now_ms + (int64_t)world_random(world, PROBE_DELAY_MAX_MS + 1),
                                       .kind = EVENT_UNREACHABLE,
                                       .process = from,
                                       .incarnation = from->address.incarnation,
                                       .number = node->incarnation});
}

/* --- the view log ---------------------------------------------------------------------------------------------- */

struct view *cluster_newest_view(const struct world *world)
{
    return world->newest;
}

void cluster_log_request(struct process *from, enum event_kind kind, struct payload *bytes, uint64_t expected_seq)
{
    struct world *world = from->world;
    bool slow = cluster_chance(world, world->log_trouble);
    world->injected[INJECTED_LOG_SLOW] += slow;
    cluster_push(world,
                 (struct event){.at_ms = cluster_later(world, &from->log_ms, slow ? LOG_SLOW_MAX_MS : LOG_DELAY_MAX_MS),
                                .kind = kind,
                                .from = from,
                                .incarnation = from->address.incarnation,
                                .bytes = bytes != NULL ? payload_ref(bytes) : NULL,
                                .number = expected_seq,
                                .asked_ms = world->now_ms});
}

void cluster_log_lose(struct world *world, size_t count)
{
    world->injected[count < world->log_count ? INJECTED_LOG_TRUNCATED : INJECTED_LOG_LOST]++;
    world->log_count -= count < world->log_count ? count : world->log_count;
    world->log_lost_ms = world->now_ms;
    if (world->log_count == 0)
        cluster_tell(world, "the log is lost");
    else
        cluster_tell(world, "the log's last entries are lost: it ends with %u.%u",
                     (unsigned)world->log[world->log_count - 1].view->number.generation,
                     (unsigned)world->log[world->log_count - 1].view->number.seq);
}

static bool lives_who_had(const struct world *world, const struct log_entry *entry)
{
    for (int i = 0; i < world->gateways + world->shards; i++)
        if (world->processes[i].alive && entry->had_by[i] == world->processes[i].life)
            return true;
    return false;
}

/* No two views have one number, whatever has become of the first, unless nobody lives who has had that. */
static void check_number(struct world *world, const struct view *view)
{
    for (size_t i = world->entry_count; i-- > 0;)
        if (lives_who_had(world, &world->entries[i]) &&
            view_number_compare(world->entries[i].view->number, view->number) == 0)
            cluster_violated(world, "view numbers", CLUSTER_NO_ROOM, "two views are %u.%u",
                             (unsigned)view->number.generation, (unsigned)view->number.seq);
}

static void tell_appended(struct world *world, const struct process *from, const struct view *view)
{
    const struct view *last = world->log_count > 0 ? world->log[world->log_count - 1].view : NULL;
    cluster_tell(world, "%s appends view %u.%u: %zu shards, %zu gateways, settled %u.%u", from->address.id,
                 (unsigned)view->number.generation, (unsigned)view->number.seq, view->shard_count, view->gateway_count,
                 (unsigned)view->settled.generation, (unsigned)view->settled.seq);
    for (int i = 0; last != NULL && i < world->gateways + world->shards; i++) {
        const struct process *process = &world->processes[i];
        if (!cluster_lists(last, &process->address) || cluster_lists(view, &process->address) || process == from)
            continue;
        world->injected[INJECTED_REMOVAL] += process->alive;
        cluster_tell(world, "  which removes %s", process->address.id);
    }
}

static enum viewlog_result log_append(struct world *world, struct event *event)
{
    if (event->number != world->log_count)
        return VIEWLOG_CONFLICT;
    struct view *view = view_unpack(event->bytes->data, event->bytes->size, world->log_count + 1);
    if (view == NULL) {
        cluster_violated(world, "view numbers", CLUSTER_NO_ROOM, "an entry that cannot be read is appended");
        return VIEWLOG_FAILED;
    }
    const struct view *last = world->log_count > 0 ? world->log[world->log_count - 1].view : NULL;
    /* A log that has lost entries uses their sequences again; what is appended to it by mistake then is nobody's view.
     */
    if (last != NULL && world->log_lost_ms == 0 && view_number_compare(view->number, last->number) <= 0)
        cluster_violated(world, "view numbers", CLUSTER_NO_ROOM, "view %u.%u is appended after %u.%u",
                         (unsigned)view->number.generation, (unsigned)view->number.seq,
                         (unsigned)last->number.generation, (unsigned)last->number.seq);
    check_number(world, view);
    tell_appended(world, event->from, view);
    struct log_entry entry = {.bytes = payload_ref(event->bytes), .view = view};
    world->entries = mem_realloc(world->entries, (world->entry_count + 1) * sizeof *world->entries);
    world->entries[world->entry_count++] = entry;
    if (world->newest == NULL || view_number_compare(view->number, world->newest->number) >= 0)
        world->newest = view;
    world->log = mem_realloc(world->log, (world->log_count + 1) * sizeof *world->log);
    world->log[world->log_count++] = entry;
    return VIEWLOG_OK;
}

/* At the log: a request is done, fails, or is done or not without anybody being told. */
void cluster_log_handle(struct world *world, struct event *event)
{
    struct process *from = event->from;
    bool append = event->kind == EVENT_LOG_APPEND;
    struct event answer = {.kind = append                           ? EVENT_LOG_APPEND_DONE
                                   : event->kind == EVENT_LOG_ENTRY ? EVENT_LOG_ENTRY_DONE
                                                                    : EVENT_LOG_READ_DONE,
                           .process = from,
                           .incarnation = event->incarnation,
                           .result = VIEWLOG_OK};
    uint32_t delay_max_ms = LOG_DELAY_MAX_MS;
    bool reachable = world->now_ms >= world->leaderless_until_ms && world->now_ms >= from->cut_until_ms &&
                     event->asked_ms >= world->log_lost_ms;
    if (!reachable || cluster_chance(world, world->log_trouble)) {
        answer.result = append && cluster_chance(world, 500) ? VIEWLOG_UNKNOWN : VIEWLOG_FAILED;
        if (answer.result == VIEWLOG_UNKNOWN) {
            world->injected[INJECTED_LOG_UNKNOWN]++;
            delay_max_ms = LOG_TIMEOUT_MS;
            if (reachable && cluster_chance(world, 500)) {
                log_append(world, event);
            }
        } else {
            world->injected[INJECTED_LOG_FAILED]++;
        }
    } else if (append) {
        answer.result = log_append(world, event);
        answer.number = world->log_count;
    } else if (event->kind == EVENT_LOG_ENTRY && (event->number == 0 || event->number > world->log_count)) {
        answer.result = VIEWLOG_GONE;
    } else if (world->log_count == 0) {
        answer.result = VIEWLOG_EMPTY;
    } else {
        answer.number = event->kind == EVENT_LOG_ENTRY ? event->number : world->log_count;
        answer.bytes = payload_ref(world->log[answer.number - 1].bytes);
    }
    answer.at_ms = cluster_later(world, &from->log_ms, delay_max_ms);
    cluster_push(world, answer);
}
