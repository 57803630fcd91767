#include "tests/load/participant.h"
#include "common/clock.h"
#include "common/jwt.h"
#include "common/mem.h"
#include "tests/load/roster.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    JOIN_TIMEOUT_MS = 30000,
    LEAVE_TIMEOUT_MS = 5000,
    DEAD_MS = 10000, /* without an answer to a ping */
    UNREAD_MS = 500,
    SYNC_REPEAT_MS = 5000,
    TOKEN_TTL_S = 7 * 86400,
    NAME_SIZE = 64,
    MUTE_REQUEST = 1,
    PACKED_MAX = 8192,
};

#define TRACK_ID "mic"

uint32_t worker_random(struct worker *worker, uint32_t bound)
{
    /* xorshift64* */
    uint64_t *state = &worker->random_state;
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (uint32_t)(((*state * 0x2545f4914f6cdd1dull >> 32) * bound) >> 32);
}

void participant_arm(struct participant *participant, int64_t due_ms)
{
    if (!timer_pending(&participant->timer) || due_ms < participant->timer.due_ms)
        timer_set(&participant->worker->wheel, &participant->timer, due_ms);
}

static void rearm(struct participant *participant, int64_t due_ms)
{
    timer_set(&participant->worker->wheel, &participant->timer, due_ms);
}

void participant_send(struct participant *participant, const Signalbox__V1__ClientMessage *message)
{
    uint8_t packed[PACKED_MAX];
    size_t size = signalbox__v1__client_message__get_packed_size(message);
    if (size > sizeof packed) {
        uint8_t *large = mem_alloc(size);
        signalbox__v1__client_message__pack(message, large);
        conn_send(&participant->conn, large, size);
        free(large);
        return;
    }
    signalbox__v1__client_message__pack(message, packed);
    conn_send(&participant->conn, packed, size);
}

/* --- coming and going --- */

static void set_in_flight(struct participant *participant, bool in_flight)
{
    participant->worker->in_flight += (uint32_t)in_flight - (uint32_t)participant->in_flight;
    participant->in_flight = in_flight;
}

static void set_state(struct participant *participant, enum participant_state state)
{
    struct worker_stats *stats = participant->worker->stats;
    stats->joined += (state == PARTICIPANT_JOINED) - (uint64_t)(participant->state == PARTICIPANT_JOINED);
    participant->state = (uint8_t)state;
    set_in_flight(participant, state == PARTICIPANT_CONNECTING || state == PARTICIPANT_SYNCING);
}

static void forget_session(struct participant *participant)
{
    free(participant->resume_token);
    participant->resume_token = NULL;
    participant->resumes = 0;
    participant->epoch[0] = '\0';
}

static void wait_and_retry(struct participant *participant, int64_t least_ms)
{
    struct worker *worker = participant->worker;
    uint64_t spread_ms = (uint64_t)worker->retry_base_ms << (participant->attempts < 16 ? participant->attempts : 16);
    if (spread_ms > worker->retry_max_ms)
        spread_ms = worker->retry_max_ms;
    participant->attempts += participant->attempts < UINT8_MAX;
    set_state(participant, PARTICIPANT_WAITING);
    rearm(participant, clock_mono_ms() + least_ms + worker_random(worker, (uint32_t)spread_ms + 1));
}

/* 127.0.0.1 is left to others. Of each room every other seat has 127.1.0.0/16, so that a test can cut the network of
 * half of its members; those who move go on to 127.2.0.0/16 and 127.3.0.0/16. */
static uint32_t source_address(const struct participant *participant, const struct target *target)
{
    uint32_t network = (participant->seat & 1u) | (uint32_t)participant->moved << 1;
    if (!target->loopback || target->address.ss_family != AF_INET)
        return 0;
    return INADDR_LOOPBACK + (network << 16) + ((participant->worker->index + 1) << 8) +
           participant->number / CONNECTIONS_PER_ADDRESS;
}

void participant_connect(struct participant *participant, int64_t due_us)
{
    struct worker *worker = participant->worker;
    const struct swarm_options *options = worker->options;
    /* After a failure the next gateway: any of them resumes any session. */
    uint32_t turn = participant->number + worker->index + participant->attempts;
    const struct target *target = &options->targets[turn % options->target_count];
    list_remove(&participant->queued);
    participant->due_us = due_us;
    participant->connect_us = clock_mono_us();
    participant->heard_ms = participant->connect_us / 1000;
    participant->pinged = false;
    worker->stats->connects++;
    set_state(participant, PARTICIPANT_CONNECTING);
    if (conn_open(&participant->conn, worker->conns, target, source_address(participant, target), worker->resume_tls)) {
        rearm(participant, clock_mono_ms() + JOIN_TIMEOUT_MS);
    } else {
        worker->stats->connect_failures++;
        wait_and_retry(participant, 0);
    }
}

void participant_cut(struct participant *participant)
{
    conn_close(&participant->conn);
    timer_cancel(&participant->worker->wheel, &participant->timer);
    set_state(participant, PARTICIPANT_AWAY);
}

void participant_renew(struct participant *participant)
{
    if (participant->state == PARTICIPANT_AWAY || participant->state == PARTICIPANT_QUEUED)
        return;
    if (participant->state == PARTICIPANT_JOINED)
        history_add_own(participant, HISTORY_LOST, 0, 0);
    participant_cut(participant);
    participant->moved = !participant->moved;
    participant->attempts = 0;
    participant_connect(participant, clock_mono_us());
}

void participant_leave(struct participant *participant)
{
    Signalbox__V1__ClientMessage message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Leave leave = SIGNALBOX__V1__LEAVE__INIT;
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_LEAVE;
    message.leave = &leave;
    participant_send(participant, &message);
    participant->leaving = true;
    history_add_own(participant, HISTORY_ENDED, 1, 0);
    forget_session(participant);
    set_state(participant, PARTICIPANT_AWAY);
    rearm(participant, clock_mono_ms() + LEAVE_TIMEOUT_MS);
}

static void left(struct participant *participant)
{
    participant->leaving = false;
    timer_cancel(&participant->worker->wheel, &participant->timer);
    set_state(participant, PARTICIPANT_AWAY);
    if (participant->rejoin) {
        participant->rejoin = false;
        participant_connect(participant, clock_mono_us());
    }
}

static void on_ended(struct conn *conn, enum conn_state before, int code)
{
    struct participant *participant = container_of(conn, struct participant, conn);
    struct worker_stats *stats = participant->worker->stats;
    if (participant->leaving) {
        left(participant);
        return;
    }
    stats->ends[stats_end_index(code)]++;
    if (participant->state == PARTICIPANT_JOINED) {
        stats->disconnects_unexpected++;
        history_add_own(participant, HISTORY_LOST, 0, code);
    } else if (before == CONN_UPGRADING && code == CONN_END_REFUSED) {
        stats->upgrades_refused++;
    } else if (before != CONN_OPEN) {
        stats->connect_failures++;
    }
    if (code == CONN_END_PROTOCOL)
        stats->violations_protocol++;
    if (code >= 4200 && code < 4400) {
        if (participant->resume_token != NULL) {
            stats->sessions_lost++;
            history_add_own(participant, HISTORY_ENDED, 0, code);
        }
        forget_session(participant);
    }
    if (code >= 4300 && code < 4400) {
        timer_cancel(&participant->worker->wheel, &participant->timer);
        set_state(participant, PARTICIPANT_AWAY);
        return;
    }
    wait_and_retry(participant, participant->retry_after_ms);
    participant->retry_after_ms = 0;
}

/* --- what it says --- */

static char *mint_token(const struct participant *participant, const char *room, const char *identity)
{
    const struct swarm_options *options = participant->worker->options;
    json_t *claims = json_pack("{s:s, s:s, s:I, s:{s:b, s:s}}", "iss", options->key, "sub", identity, "exp",
                               (json_int_t)(clock_wall_s() + TOKEN_TTL_S), "video", "roomJoin", 1, "room", room);
    char *token = jwt_mint(options->secret, claims);
    json_decref(claims);
    return token;
}

static void on_opened(struct conn *conn, bool tls_resumed)
{
    struct participant *participant = container_of(conn, struct participant, conn);
    struct worker *worker = participant->worker;
    Signalbox__V1__ClientMessage message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Hello hello = SIGNALBOX__V1__HELLO__INIT;
    Signalbox__V1__Join join = SIGNALBOX__V1__JOIN__INIT;
    Signalbox__V1__Position last = SIGNALBOX__V1__POSITION__INIT;
    Signalbox__V1__Track track = SIGNALBOX__V1__TRACK__INIT, *tracks[] = {&track};
    char room[NAME_SIZE], identity[NAME_SIZE], *token = NULL;

    if (tls_resumed)
        worker->stats->handshakes_resumed++;
    else
        worker->stats->handshakes_full++;
    histogram_record(&worker->stats->handshake_us, clock_mono_us() - participant->connect_us);
    if (worker->options->bare) {
        participant->attempts = 0;
        timer_cancel(&worker->wheel, &participant->timer);
        set_state(participant, PARTICIPANT_JOINED);
        return;
    }

    snprintf(room, sizeof room, "swarm-%s-%u-%u", worker->run, worker->index, participant->room->number);
    snprintf(identity, sizeof identity, "swarm-%u", participant->number);
    track.id = (char *)TRACK_ID;
    track.kind = SIGNALBOX__V1__TRACK__KIND__AUDIO;
    track.source = SIGNALBOX__V1__SOURCE__MICROPHONE;
    track.muted = participant->muted;
    join.room = room;
    join.tracks = tracks;
    join.n_tracks = 1;
    hello.join = &join;
    if (participant->resume_token != NULL) {
        hello.resume_token = participant->resume_token;
        hello.attempt = ++participant->resumes;
        last.epoch = participant->epoch;
        last.seq = participant->seq;
        hello.last = participant->epoch[0] != '\0' ? &last : NULL;
    } else {
        hello.token = token = mint_token(participant, room, identity);
    }
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_HELLO;
    message.hello = &hello;
    participant_send(participant, &message);
    free(token);
}

static void send_ping(struct participant *participant)
{
    Signalbox__V1__ClientMessage message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Ping ping = SIGNALBOX__V1__PING__INIT;
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_PING;
    message.ping = &ping;
    participant_send(participant, &message);
}

/* Without `cursor`: whatever came since the position, or a snapshot if there is none. */
static void sync_state(struct participant *participant, char *cursor)
{
    Signalbox__V1__ClientMessage message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__SyncState sync = SIGNALBOX__V1__SYNC_STATE__INIT;
    Signalbox__V1__Position position = SIGNALBOX__V1__POSITION__INIT;
    position.epoch = participant->epoch;
    position.seq = participant->seq;
    if (cursor != NULL)
        sync.cursor = cursor;
    else if (participant->epoch[0] != '\0')
        sync.position = &position;
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_SYNC_STATE;
    message.sync_state = &sync;
    participant_send(participant, &message);
    participant->sync_ms = clock_mono_ms() + SYNC_REPEAT_MS;
    participant_arm(participant, participant->sync_ms);
}

static void resync(struct participant *participant)
{
    if (participant->sync_ms != 0)
        return;
    participant->worker->stats->resyncs++;
    sync_state(participant, NULL);
}

static void send_mute(struct participant *participant)
{
    Signalbox__V1__ClientMessage message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Mute mute = SIGNALBOX__V1__MUTE__INIT;
    mute.track_id = (char *)TRACK_ID;
    mute.muted = participant->muted;
    message.request_id = MUTE_REQUEST;
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_MUTE;
    message.mute = &mute;
    history_add_own(participant, HISTORY_MUTED, participant->muted, 0);
    participant_send(participant, &message);
}

void participant_toggle_mute(struct participant *participant, int64_t due_us)
{
    participant->muted = !participant->muted;
    participant->muted_due_us = due_us;
    participant->worker->stats->mutes_sent++;
    send_mute(participant);
}

void participant_repeat_mute(struct participant *participant)
{
    if (participant->state == PARTICIPANT_JOINED && participant->links[participant->seat].muted != participant->muted)
        send_mute(participant);
}

void participant_signal(struct participant *participant)
{
    Signalbox__V1__ClientMessage message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Send send = SIGNALBOX__V1__SEND__INIT;
    Signalbox__V1__Speaking speaking = SIGNALBOX__V1__SPEAKING__INIT;
    speaking.active = true;
    speaking.level = worker_random(participant->worker, 101);
    send.delivery = SIGNALBOX__V1__DELIVERY_CLASS__EPHEMERAL;
    send.key = (char *)"speaking";
    send.data_case = SIGNALBOX__V1__SEND__DATA_SPEAKING;
    send.speaking = &speaking;
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_SEND;
    message.send = &send;
    participant->worker->stats->signals_sent++;
    participant_send(participant, &message);
}

/* --- what it hears --- */

static void take_epoch(struct participant *participant, const char *text)
{
    struct epoch epoch;
    if (strcmp(participant->epoch, text) != 0 && epoch_parse(text, &epoch))
        history_add(participant, HISTORY_OWNER, participant->seat, epoch.incarnation, (uint32_t)epoch.view.seq, 0);
    snprintf(participant->epoch, sizeof participant->epoch, "%s", text);
}

/* It stands in its room and knows who is in it. */
static void arrived(struct participant *participant)
{
    participant->attempts = 0;
    participant->reconnect_ms = 0;
    history_add_own(participant, HISTORY_WHOLE, 0, 0);
    set_state(participant, PARTICIPANT_JOINED);
    rearm(participant, clock_mono_ms() + participant->worker->ping_interval_ms);
}

static void on_hello_ok(struct participant *participant, const Signalbox__V1__HelloOk *hello_ok)
{
    struct worker *worker = participant->worker;
    struct sid sid;
    if (participant->state != PARTICIPANT_CONNECTING || !sid_parse(hello_ok->sid, &sid) || hello_ok->position == NULL) {
        worker->stats->violations_protocol++;
        return;
    }
    bool resumed = participant->resume_token != NULL;
    if (resumed && !sid_equal(&sid, &participant->sid))
        worker->stats->violations_protocol++;
    if (hello_ok->limits != NULL) {
        worker->ping_interval_ms = hello_ok->limits->ping_interval_ms;
        worker->retransmit_ms = hello_ok->limits->retransmit_ms;
        worker->ack_delay_ms = hello_ok->limits->ack_delay_ms;
    }
    if (hello_ok->retry_policy != NULL) {
        worker->retry_base_ms = hello_ok->retry_policy->base_ms;
        worker->retry_max_ms = hello_ok->retry_policy->max_ms;
    }
    free(participant->resume_token);
    participant->resume_token = mem_strdup(hello_ok->resume_token);
    participant->sid = sid;
    participant->sync_ms = 0;
    participant->pulling = false;
    participant->fresh = !resumed;
    set_state(participant, PARTICIPANT_SYNCING);
    send_ping(participant);
    if (!resumed) {
        history_add_own(participant, HISTORY_SESSION, 0, 0);
        roster_reset(participant);
        return;
    }
    worker->stats->resumes++;
    history_add_own(participant, HISTORY_RESUMED, hello_ok->recovered, clock_mono_us() - participant->due_us);
    histogram_record(&worker->stats->resume_us, clock_mono_us() - participant->due_us);
    if (hello_ok->recovered) {
        worker->stats->resumes_recovered++;
        take_epoch(participant, hello_ok->position->epoch);
        arrived(participant);
        directed_return(participant);
    }
}

static void on_snapshot(struct participant *participant, const Signalbox__V1__Snapshot *snapshot)
{
    struct worker *worker = participant->worker;
    worker->stats->snapshots++;
    if (snapshot->position == NULL) {
        worker->stats->violations_protocol++;
        return;
    }
    if (!participant->pulling || participant->snapshot_seq != snapshot->position->seq)
        roster_snapshot_begin(participant);
    participant->pulling = true;
    participant->snapshot_seq = snapshot->position->seq;
    roster_snapshot_page(participant, snapshot);
    participant->sync_ms = 0;
    if (snapshot->next_cursor[0] != '\0') {
        sync_state(participant, snapshot->next_cursor);
        return;
    }
    bool moved = strcmp(participant->epoch, snapshot->position->epoch) != 0;
    if (!snapshot->settling)
        roster_snapshot_end(participant);
    participant->pulling = false;
    take_epoch(participant, snapshot->position->epoch);
    participant->seq = snapshot->position->seq;
    bool back = participant->state == PARTICIPANT_SYNCING;
    if (back) {
        if (participant->fresh) {
            worker->stats->joins++;
            histogram_record(&worker->stats->join_us, clock_mono_us() - participant->due_us);
        }
        arrived(participant);
    }
    if (back)
        directed_return(participant);
    else if (moved)
        directed_repeat_all(participant);
}

/* Who has not come back is gone now, and shows only in a snapshot. */
static void on_settled(struct participant *participant, const Signalbox__V1__Settled *settled)
{
    char digest[17];
    snprintf(digest, sizeof digest, "%016" PRIx64, roster_digest(participant));
    if (strcmp(settled->digest, digest) == 0)
        return;
    take_epoch(participant, "");
    resync(participant);
}

static void on_room_events(struct participant *participant, const Signalbox__V1__RoomEvents *events)
{
    if (participant->pulling)
        return;
    if (strcmp(events->epoch, participant->epoch) != 0 || events->first_seq > participant->seq + 1) {
        resync(participant);
        return;
    }
    participant->sync_ms = 0;
    if (events->last_seq <= participant->seq)
        return;
    for (size_t i = 0; i < events->n_events; i++)
        roster_apply(participant, events->events[i]);
    participant->worker->stats->room_events += events->n_events;
    participant->seq = events->last_seq;
    if (events->n_events == 1 && events->events[0]->event_case == SIGNALBOX__V1__ROOM_EVENT__EVENT_SETTLED)
        on_settled(participant, events->events[0]->settled);
}

/* Whatever was behind 2 s after a pong is asked for; a room's events come long before that, so the check rides on the
 * next ping instead of a timer. */
static void on_pong(struct participant *participant, const Signalbox__V1__Pong *pong)
{
    const Signalbox__V1__Position *position = pong->position;
    if (participant->state != PARTICIPANT_JOINED || position == NULL)
        return;
    if (participant->behind_seq > participant->seq)
        resync(participant);
    participant->behind_seq = position->seq > participant->seq ? position->seq : 0;
}

static void on_leave(struct participant *participant, const Signalbox__V1__Leave *leave)
{
    if (participant->leaving)
        return;
    participant->worker->stats->leaves_received++;
    participant->retry_after_ms = leave->retry_after_ms;
}

static void on_reconnect(struct participant *participant, const Signalbox__V1__Reconnect *reconnect)
{
    participant->reconnect_ms = clock_mono_ms() + worker_random(participant->worker, reconnect->spread_ms + 1);
    participant_arm(participant, participant->reconnect_ms);
}

static void on_result(struct participant *participant, const Signalbox__V1__Result *result)
{
    history_add_own(participant, HISTORY_ANSWERED, result->code, 0);
    if (result->code != SIGNALBOX__V1__CODE__OK)
        participant->worker->stats->refusals++;
}

static void dispatch(struct participant *participant, const Signalbox__V1__ServerMessage *message)
{
    struct worker_stats *stats = participant->worker->stats;
    switch (message->body_case) {
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_HELLO_OK:
        on_hello_ok(participant, message->hello_ok);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_LEAVE:
        on_leave(participant, message->leave);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_PONG:
        on_pong(participant, message->pong);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_RESULT:
        on_result(participant, message->result);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_OFFER:
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_ANSWER:
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_CANDIDATE:
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_CANDIDATES_DONE:
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_ACK:
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_MESSAGE:
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_UNDELIVERABLE:
        directed_receive(participant, message);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_SIGNALS:
        stats->signals_received += message->signals->n_signals;
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_SNAPSHOT:
        on_snapshot(participant, message->snapshot);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_ROOM_EVENTS:
        on_room_events(participant, message->room_events);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_TOKEN_REFRESH:
        free(participant->resume_token);
        participant->resume_token = mem_strdup(message->token_refresh->resume_token);
        send_ping(participant);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_MOVED:
        take_epoch(participant, message->moved->epoch);
        directed_repeat_all(participant);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_RECONNECT:
        on_reconnect(participant, message->reconnect);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_DEGRADED:
        if (!message->degraded->degraded)
            directed_return(participant);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_THROTTLED:
        stats->refusals++;
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_DROPPED:
        for (size_t i = 0; i < message->dropped->n_counts; i++)
            stats->dropped += message->dropped->counts[i]->count;
        break;
    default: /* nothing that this client does anything about */
        break;
    }
}

static void on_message(struct conn *conn, const uint8_t *data, size_t size)
{
    struct participant *participant = container_of(conn, struct participant, conn);
    struct arena *arena = &participant->worker->arena;
    Signalbox__V1__ServerMessage *message = signalbox__v1__server_message__unpack(&arena->allocator, size, data);
    participant->heard_ms = clock_mono_ms();
    participant->pinged = false;
    if (message != NULL)
        dispatch(participant, message);
    else
        participant->worker->stats->violations_protocol++;
    arena_reset(arena);
}

const struct conn_handlers participant_handlers = {.opened = on_opened, .message = on_message, .ended = on_ended};

/* --- time --- */

static void give_up(struct participant *participant)
{
    struct worker_stats *stats = participant->worker->stats;
    stats->timeouts++;
    if (participant->state == PARTICIPANT_JOINED) {
        stats->disconnects_unexpected++;
        history_add_own(participant, HISTORY_LOST, 0, 0);
    }
    conn_close(&participant->conn);
    wait_and_retry(participant, 0);
}

/* Breaks before it makes, where the protocol lets a client keep the first connection until it has the second. */
static void go_elsewhere(struct participant *participant)
{
    history_add_own(participant, HISTORY_LOST, 0, 0);
    participant_cut(participant);
    participant->attempts = 1;
    participant_connect(participant, clock_mono_us());
}

static void keep_up(struct participant *participant, int64_t now_ms)
{
    if (participant->reconnect_ms != 0 && participant->reconnect_ms <= now_ms) {
        go_elsewhere(participant);
        return;
    }
    int64_t next_ms = directed_upkeep(participant, now_ms);
    int64_t ping_ms = participant->heard_ms + participant->worker->ping_interval_ms;
    if (participant->sync_ms != 0 && participant->sync_ms <= now_ms) {
        participant->pulling = false;
        sync_state(participant, NULL);
    }
    if (participant->pinged) {
        ping_ms += DEAD_MS;
        /* An answer that this process has not come to read is none of the server's silence. */
        if (ping_ms <= now_ms && conn_has_input(&participant->conn)) {
            ping_ms = now_ms + UNREAD_MS;
        } else if (ping_ms <= now_ms) {
            give_up(participant);
            return;
        }
    } else if (ping_ms <= now_ms) {
        participant->pinged = true;
        send_ping(participant);
        ping_ms = now_ms + DEAD_MS;
    }
    participant_arm(participant, ping_ms < next_ms ? ping_ms : next_ms);
    if (participant->reconnect_ms != 0)
        participant_arm(participant, participant->reconnect_ms);
}

static void on_timer(struct timer *timer, int64_t now_ms)
{
    struct participant *participant = container_of(timer, struct participant, timer);
    switch ((enum participant_state)participant->state) {
    case PARTICIPANT_WAITING:
        /* Not at once: thousands that retry together would starve each other in this process, which no crowd of real
         * clients has to share. */
        participant->state = PARTICIPANT_QUEUED;
        list_append(&participant->worker->retries, &participant->queued);
        break;
    case PARTICIPANT_CONNECTING:
    case PARTICIPANT_SYNCING:
        give_up(participant);
        break;
    case PARTICIPANT_JOINED:
        keep_up(participant, now_ms);
        break;
    case PARTICIPANT_AWAY: /* its leave was not answered */
        participant->worker->stats->timeouts++;
        conn_close(&participant->conn);
        left(participant);
        break;
    case PARTICIPANT_QUEUED:
        break;
    }
}

void participant_init(struct participant *participant, struct worker *worker, struct room *room, uint32_t number)
{
    *participant = (struct participant){.worker = worker, .room = room, .number = number};
    participant->conn.fd = -1;
    participant->seat = (uint8_t)(participant - room->first);
    participant->links = mem_zalloc(room->size * sizeof *participant->links);
    history_add_own(participant, HISTORY_SEAT, room->number, room->size);
    timer_init(&participant->timer, on_timer);
    list_init(&participant->queued);
}

void participant_done(struct participant *participant)
{
    conn_close(&participant->conn);
    timer_cancel(&participant->worker->wheel, &participant->timer);
    list_remove(&participant->queued);
    free(participant->links);
    free(participant->resume_token);
}
