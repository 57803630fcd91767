#include "tests/load/worker.h"
#include "common/clock.h"
#include "common/mem.h"
#include "tests/load/participant.h"
#include "tests/load/plan.h"
#include "tests/load/roster.h"
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { EVENTS_MAX = 256, LOOK_US = 20000, CHECK_US = 100000, MESSAGE_ARENA_MAX = 16 << 20 };

/* Something that is due at a steady rate, whatever the loop is up to: what is late is done late, and says so by its
 * `due`. */
struct pace {
    int64_t due_us; /* of the next; INT64_MAX: never */
    double interval_us, fraction_us;
};

struct loop {
    struct worker worker;
    int epoll_fd;
    enum phase phase;
    int serial; /* of the order that is being followed */
    int renewals;
    bool reached;
    int64_t begun_us, deadline_us, look_us;
    struct pace connects, messages, mutes, signals, churn;
};

static void pace_set(struct pace *pace, double per_second, int64_t now_us)
{
    pace->interval_us = per_second > 0 ? 1e6 / per_second : 0;
    pace->fraction_us = 0;
    pace->due_us = per_second > 0 ? now_us + (int64_t)pace->interval_us : INT64_MAX;
}

static int64_t pace_take(struct pace *pace)
{
    int64_t due_us = pace->due_us;
    pace->fraction_us += pace->interval_us;
    pace->due_us += (int64_t)pace->fraction_us;
    pace->fraction_us -= (double)(int64_t)pace->fraction_us;
    return due_us;
}

static double uniform(void *ctx)
{
    return worker_random(ctx, 1u << 30) / (double)(1u << 30);
}

/* --- traffic --- */

/* NULL if the one drawn is not there: its share of the traffic is not shifted onto others. */
static struct participant *draw(struct worker *worker)
{
    struct participant *participant = &worker->participants[worker_random(worker, worker->participant_count)];
    return participant->state == PARTICIPANT_JOINED ? participant : NULL;
}

/* A room is never left out, so that a gap in what arrives there is a gap in what it can do. */
static struct participant *draw_of_next_room(struct worker *worker)
{
    const struct room *room = &worker->rooms[worker->next_room++ % worker->room_count];
    struct participant *participant = &room->first[worker_random(worker, room->size)];
    return participant->state == PARTICIPANT_JOINED ? participant : NULL;
}

static void send_message(struct worker *worker, int64_t due_us)
{
    struct participant *participant = worker->options->steady ? draw_of_next_room(worker) : draw(worker);
    if (participant == NULL || participant->room->size < 2)
        return;
    unsigned seat = worker_random(worker, participant->room->size - 1u);
    directed_send(participant, seat + (seat >= participant->seat), due_us);
}

static void send_mute(struct worker *worker, int64_t due_us)
{
    struct participant *participant = draw(worker);
    if (participant != NULL)
        participant_toggle_mute(participant, due_us);
}

static void send_signal(struct worker *worker, int64_t due_us)
{
    struct participant *participant = draw(worker);
    if (participant != NULL)
        participant_signal(participant);
}

static void churn(struct worker *worker, int64_t due_us)
{
    struct participant *participant = draw(worker);
    if (participant == NULL)
        return;
    worker->stats->churned++;
    participant->rejoin = true;
    participant_leave(participant);
}

static void run_pace(struct worker *worker, struct pace *pace, int64_t now_us, void (*act)(struct worker *, int64_t))
{
    while (pace->due_us <= now_us)
        act(worker, pace_take(pace));
}

static void run_connects(struct loop *loop, int64_t now_us)
{
    struct worker *worker = &loop->worker;
    while (!list_empty(&worker->retries) && worker->in_flight < worker->options->in_flight) {
        struct participant *next = list_first(&worker->retries, struct participant, queued);
        participant_connect(next, next->due_us);
    }
    while (!list_empty(&worker->queue) && worker->in_flight < worker->options->in_flight) {
        struct participant *next = list_first(&worker->queue, struct participant, queued);
        int64_t due_us = loop->begun_us;
        if (loop->connects.interval_us > 0) {
            if (loop->connects.due_us > now_us)
                break;
            due_us = pace_take(&loop->connects);
        }
        participant_connect(next, due_us);
    }
}

/* --- phases --- */

static void set_traffic(struct loop *loop, bool on, int64_t now_us)
{
    const struct swarm_options *options = loop->worker.options;
    double count = on ? loop->worker.participant_count / 60.0 : 0;
    pace_set(&loop->messages, options->messages_per_min * count, now_us);
    pace_set(&loop->mutes, options->mutes_per_min * count, now_us);
    pace_set(&loop->signals, options->signals_per_min * count, now_us);
    pace_set(&loop->churn, loop->phase == PHASE_HOLD ? options->churn_percent_per_min / 100 * count : 0, now_us);
}

static bool is_storm(enum phase phase)
{
    return phase == PHASE_STORM_FULL || phase == PHASE_STORM_RESUMED;
}

/* A participant's part in a phase that begins. */
static void take_part(struct participant *participant, enum phase phase)
{
    struct worker *worker = participant->worker;
    bool joined = participant->state == PARTICIPANT_JOINED;
    if (is_storm(phase) && joined) {
        worker->stats->cuts++;
        participant_cut(participant);
    }
    if ((is_storm(phase) || phase == PHASE_JOIN) && participant->state == PARTICIPANT_AWAY && !participant->leaving) {
        participant->state = PARTICIPANT_QUEUED;
        list_append(&worker->queue, &participant->queued);
    }
    if (phase == PHASE_CHECK)
        participant_repeat_mute(participant);
    if (phase == PHASE_LEAVE) {
        list_remove(&participant->queued);
        if (joined && worker->options->bare)
            participant_cut(participant);
        else if (joined)
            participant_leave(participant);
    }
}

static void enter(struct loop *loop, enum phase phase, int64_t now_us)
{
    struct worker *worker = &loop->worker;
    const struct swarm_options *options = worker->options;
    loop->phase = phase;
    loop->begun_us = now_us;
    loop->deadline_us = INT64_MAX;
    set_traffic(loop, phase == PHASE_HOLD || is_storm(phase), now_us);
    pace_set(&loop->connects, (is_storm(phase) ? options->storm_rate : options->join_rate) / options->processes,
             now_us);
    worker->resume_tls = phase == PHASE_STORM_RESUMED;
    for (uint32_t i = 0; i < worker->participant_count; i++)
        take_part(&worker->participants[i], phase);
    if (phase == PHASE_IDLE)
        loop->deadline_us = now_us + (int64_t)(options->idle_s * 1e6);
    if (phase == PHASE_HOLD)
        loop->deadline_us = now_us + (int64_t)(options->hold_s * 1e6);
    if (phase == PHASE_CHECK)
        loop->deadline_us = now_us + (int64_t)(options->settle_s * 1e6);
}

static void renew_networks(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->participant_count; i++)
        if (worker->participants[i].seat % 2 == 1)
            participant_renew(&worker->participants[i]);
}

/* Participants that are not where they should be at a checkpoint. */
static uint64_t count_unconverged(const struct worker *worker)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < worker->participant_count; i++) {
        const struct participant *participant = &worker->participants[i];
        count += participant->state != PARTICIPANT_JOINED || roster_count_differences(participant) > 0 ||
                 directed_count_open(participant) > 0;
    }
    return count;
}

static void count_violations(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->participant_count; i++) {
        const struct participant *participant = &worker->participants[i];
        if (participant->state == PARTICIPANT_JOINED)
            worker->stats->violations_roster += roster_count_differences(participant);
        worker->stats->violations_order += directed_count_lost(participant);
        history_add_checkpoint(participant);
    }
}

static bool everybody_left(const struct worker *worker)
{
    for (uint32_t i = 0; i < worker->participant_count; i++)
        if (worker->participants[i].leaving)
            return false;
    return true;
}

/* Looked at now and then: whether the phase has reached its end. */
static bool is_done(struct loop *loop, int64_t now_us)
{
    struct worker *worker = &loop->worker;
    switch (loop->phase) {
    case PHASE_JOIN:
    case PHASE_STORM_FULL:
    case PHASE_STORM_RESUMED:
        return worker->stats->joined == worker->participant_count;
    case PHASE_CHECK:
        worker->stats->unconverged = count_unconverged(worker);
        if (worker->stats->unconverged > 0 && now_us < loop->deadline_us)
            return false;
        count_violations(worker);
        return true;
    case PHASE_LEAVE:
        return everybody_left(worker);
    case PHASE_WAIT:
    case PHASE_IDLE:
    case PHASE_HOLD:
        break;
    }
    return now_us >= loop->deadline_us;
}

static void follow_orders(struct loop *loop, int64_t now_us)
{
    struct worker_stats *stats = loop->worker.stats;
    int serial = __atomic_load_n(&stats->wanted_serial, __ATOMIC_ACQUIRE);
    stats->tls_bytes = conn_tls_bytes();
    loop->look_us = now_us + (loop->phase == PHASE_CHECK ? CHECK_US : LOOK_US);
    while (loop->renewals < stats->wanted_renewals) {
        loop->renewals++;
        renew_networks(&loop->worker);
    }
    if (serial != loop->serial) {
        loop->serial = serial;
        loop->reached = false;
        enter(loop, (enum phase)stats->wanted, now_us);
    } else if (!loop->reached && loop->phase != PHASE_WAIT && is_done(loop, now_us)) {
        loop->reached = true;
        stats->phase_took_us = now_us - loop->begun_us;
        __atomic_store_n(&stats->reached_serial, serial, __ATOMIC_RELEASE);
    }
}

/* --- the loop --- */

static int64_t earliest(const struct loop *loop, int64_t now_us)
{
    const struct worker *worker = &loop->worker;
    const struct pace *paces[] = {&loop->messages, &loop->mutes, &loop->signals, &loop->churn, &loop->connects};
    size_t count = sizeof paces / sizeof paces[0];
    int64_t next_us = loop->look_us, timers_ms = timer_wheel_wait_ms(&worker->wheel, now_us / 1000);
    if (list_empty(&worker->queue) || worker->in_flight >= worker->options->in_flight)
        count--;
    for (size_t i = 0; i < count; i++)
        if (paces[i]->due_us < next_us)
            next_us = paces[i]->due_us;
    if (timers_ms >= 0 && now_us + timers_ms * 1000 < next_us)
        next_us = now_us + timers_ms * 1000;
    return next_us > now_us ? next_us - now_us : 0;
}

static void turn(struct loop *loop)
{
    struct worker *worker = &loop->worker;
    struct epoll_event events[EVENTS_MAX];
    int64_t now_us = clock_mono_us(), wait_us = earliest(loop, now_us);
    struct timespec wait = {.tv_sec = wait_us / 1000000, .tv_nsec = wait_us % 1000000 * 1000};
    int count = epoll_pwait2(loop->epoll_fd, events, EVENTS_MAX, &wait, NULL);
    for (int i = 0; i < count; i++)
        conn_ready(events[i].data.ptr);
    now_us = clock_mono_us();
    timer_wheel_advance(&worker->wheel, now_us / 1000);
    run_pace(worker, &loop->messages, now_us, send_message);
    run_pace(worker, &loop->mutes, now_us, send_mute);
    run_pace(worker, &loop->signals, now_us, send_signal);
    run_pace(worker, &loop->churn, now_us, churn);
    run_connects(loop, now_us);
    if (now_us >= loop->look_us)
        follow_orders(loop, now_us);
}

static void make_participants(struct worker *worker)
{
    uint8_t *sizes = mem_alloc(worker->participant_count);
    struct participant *next;
    uint32_t number = 0;
    worker->room_count = plan_rooms(worker->options, worker->participant_count, uniform, worker, sizes);
    worker->rooms = mem_zalloc(worker->room_count * sizeof *worker->rooms);
    next = worker->participants = mem_zalloc(worker->participant_count * sizeof *worker->participants);
    for (uint32_t i = 0; i < worker->room_count; i++) {
        struct room *room = &worker->rooms[i];
        *room = (struct room){.first = next, .number = i, .size = sizes[i]};
        for (; next < room->first + room->size; next++)
            participant_init(next, worker, room, number++);
    }
    free(sizes);
}

/* False if the history could not be kept. */
static bool done(struct loop *loop)
{
    struct worker *worker = &loop->worker;
    for (uint32_t i = 0; i < worker->participant_count; i++)
        participant_done(&worker->participants[i]);
    free(worker->participants);
    free(worker->rooms);
    conn_context_free(&worker->conns);
    arena_done(&worker->arena);
    close(loop->epoll_fd);
    return history_close(&worker->history);
}

static bool open_history(struct worker *worker)
{
    char path[PATH_MAX];
    if (worker->options->history_dir == NULL)
        return true;
    snprintf(path, sizeof path, "%s/history-%u.bin", worker->options->history_dir, worker->index);
    worker->history = history_open(path);
    return worker->history != NULL;
}

int worker_run(const struct swarm_options *options, unsigned index, const char *run, struct worker_stats *stats)
{
    static struct loop loop;
    struct worker *worker = &loop.worker;
    /* Ctrl-C reaches the whole group; the coordinator decides what to do about it. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_DFL);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGTERM);

    loop.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    *worker = (struct worker){.options = options,
                              .stats = stats,
                              .index = index,
                              .participant_count = plan_share(options, index),
                              .random_state = (options->seed + 1) * 0x9e3779b97f4a7c15ull + index,
                              .ping_interval_ms = 20000,
                              .retransmit_ms = 1000,
                              .ack_delay_ms = 50,
                              .retry_base_ms = 500,
                              .retry_max_ms = 15000};
    snprintf(worker->run, sizeof worker->run, "%s", run);
    worker->conns = conn_context_new(loop.epoll_fd, options, &participant_handlers);
    if (worker->conns == NULL || !open_history(worker))
        return EXIT_FAILURE;
    timer_wheel_init(&worker->wheel, clock_mono_ms());
    arena_init(&worker->arena, MESSAGE_ARENA_MAX);
    list_init(&worker->queue);
    list_init(&worker->retries);
    make_participants(worker);
    set_traffic(&loop, false, 0);
    pace_set(&loop.connects, 0, 0);
    while (loop.phase != PHASE_LEAVE || !loop.reached)
        turn(&loop);
    return done(&loop) ? EXIT_SUCCESS : EXIT_FAILURE;
}
