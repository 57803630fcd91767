#include "shard/negotiation.h"

#include "common/mem.h"
#include "common/metrics.h"
#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>

typedef Signalbox__Cluster__V1__Relay Relay;
typedef Signalbox__V1__IceState IceState;

enum state { OFFERED, ANSWERED, CONNECTED };

struct negotiation {
    struct list link;
    struct sid peer;
    uint64_t id;
    uint64_t glare_id; /* of the other end's offer that crossed this one; the answer says which of the two stands */
    int64_t offered_ms;
    uint32_t ice_generation;
    uint8_t state;
    bool offered_by_keeper;
    bool restarts_ice; /* connected is what ends it, not the answer */
};

static void count_outcome(enum negotiation_outcome outcome)
{
    metric_add_at(M_NEGOTIATIONS, outcome, 1);
}

static void drop(struct negotiations *keeper, struct negotiation *record, enum negotiation_outcome outcome)
{
    if (record->state != CONNECTED)
        count_outcome(outcome);
    list_remove(&record->link);
    keeper->count--;
    free(record);
}

void negotiations_init(struct negotiations *negotiations)
{
    list_init(&negotiations->records);
    negotiations->count = 0;
}

void negotiations_done(struct negotiations *negotiations, enum negotiation_outcome outcome)
{
    list_for_each_safe(pos, &negotiations->records)
        drop(negotiations, container_of(pos, struct negotiation, link), outcome);
}

static struct negotiation *find_kept(const struct negotiation_end *keeper, const struct sid *peer)
{
    if (keeper->records == NULL)
        return NULL;
    list_for_each(pos, &keeper->records->records) {
        struct negotiation *record = container_of(pos, struct negotiation, link);
        if (sid_equal(&record->peer, peer))
            return record;
    }
    return NULL;
}

/* The pair's record and which of the two ends keeps it. */
static struct negotiation *find(const struct negotiation_end *from, const struct negotiation_end *to,
                                const struct negotiation_end **ret_keeper)
{
    struct negotiation *record = find_kept(from, &to->sid);
    *ret_keeper = from;
    if (record == NULL) {
        record = find_kept(to, &from->sid);
        *ret_keeper = to;
    }
    return record;
}

static struct negotiation *add(const struct negotiation_end *keeper, const struct negotiation_end *peer, uint64_t id,
                               int64_t now_ms)
{
    struct negotiations *records = keeper->records;
    assert(records != NULL);
    if (records->count == NEGOTIATIONS_MAX)
        drop(records, list_first(&records->records, struct negotiation, link), NEGOTIATION_FORGOTTEN);
    struct negotiation *record = mem_new(struct negotiation);
    record->peer = peer->sid;
    record->id = id;
    record->offered_ms = now_ms;
    record->offered_by_keeper = true;
    record->restarts_ice = true;
    list_append(&records->records, &record->link);
    records->count++;
    return record;
}

static void on_offer(const struct negotiation_end *from, const struct negotiation_end *to, const Relay *relay,
                     int64_t now_ms)
{
    const struct negotiation_end *keeper;
    struct negotiation *record = find(from, to, &keeper);
    if (record == NULL) {
        add(from, to, relay->negotiation, now_ms)->ice_generation = relay->ice_generation;
        return;
    }
    bool by_keeper = keeper == from;
    if (record->state == OFFERED && record->offered_by_keeper != by_keeper) {
        if (record->glare_id == 0 && relay->negotiation != 0) {
            record->glare_id = relay->negotiation;
            metric_add(M_NEGOTIATION_GLARE, 1);
        }
        return;
    }
    if (relay->negotiation <= record->id)
        return; /* a repeat */
    if (record->state == CONNECTED) {
        record->offered_ms = now_ms;
        record->restarts_ice = relay->ice_generation > record->ice_generation;
    } else {
        count_outcome(NEGOTIATION_SUPERSEDED);
        record->restarts_ice |= relay->ice_generation > record->ice_generation;
    }
    record->state = OFFERED;
    record->id = relay->negotiation;
    record->glare_id = 0;
    record->ice_generation = relay->ice_generation;
    record->offered_by_keeper = by_keeper;
}

static void on_answer(const struct negotiation_end *from, const struct negotiation_end *to, const Relay *relay)
{
    const struct negotiation_end *keeper;
    struct negotiation *record = find(from, to, &keeper);
    if (record == NULL || record->state != OFFERED)
        return;
    bool to_offerer = record->offered_by_keeper == (keeper == to);
    if (relay->negotiation != (to_offerer ? record->id : record->glare_id))
        return;
    record->id = relay->negotiation;
    record->glare_id = 0;
    record->offered_by_keeper = keeper == to;
    if (record->restarts_ice) {
        record->state = ANSWERED;
        return;
    }
    record->state = CONNECTED;
    count_outcome(NEGOTIATION_CONNECTED);
}

static void on_candidate(const struct negotiation_end *from, const struct negotiation_end *to, const Relay *relay)
{
    const struct negotiation_end *keeper;
    const struct negotiation *record = find(from, to, &keeper);
    if (record == NULL || relay->negotiation == record->glare_id)
        return;
    if (relay->negotiation < record->id || relay->ice_generation < record->ice_generation)
        metric_add(M_CANDIDATES_STALE, 1);
}

/* The least recently used are forgotten first. */
static void touch(const struct negotiation_end *from, const struct negotiation_end *to)
{
    const struct negotiation_end *keeper;
    struct negotiation *record = find(from, to, &keeper);
    if (record == NULL)
        return;
    list_remove(&record->link);
    list_append(&keeper->records->records, &record->link);
}

void negotiation_relay(const struct negotiation_end *from, const struct negotiation_end *to, const Relay *relay,
                       int64_t now_ms)
{
    switch (relay->kind) {
    case SIGNALBOX__CLUSTER__V1__RELAY__KIND__OFFER:
        on_offer(from, to, relay, now_ms);
        touch(from, to);
        break;
    case SIGNALBOX__CLUSTER__V1__RELAY__KIND__ANSWER:
        on_answer(from, to, relay);
        touch(from, to);
        break;
    case SIGNALBOX__CLUSTER__V1__RELAY__KIND__CANDIDATE:
    case SIGNALBOX__CLUSTER__V1__RELAY__KIND__CANDIDATES_DONE:
        on_candidate(from, to, relay);
        break;
    default:
        break;
    }
}

static void on_connected(const struct negotiation_end *from, const struct negotiation_end *to,
                         struct negotiation *record, const IceState *report, int64_t now_ms)
{
    if (record == NULL) {
        /* Offered under an earlier owner: the client's own figure, once for the two ends. */
        if (report->time_to_connected_ms == 0)
            return;
        add(from, to, report->negotiation, now_ms)->state = CONNECTED;
        metric_observe_us(M_TIME_TO_CONNECTED, (int64_t)report->time_to_connected_ms * 1000);
        count_outcome(NEGOTIATION_CONNECTED);
        return;
    }
    if (record->state == CONNECTED)
        return;
    record->state = CONNECTED;
    metric_observe_us(M_TIME_TO_CONNECTED, (now_ms - record->offered_ms) * 1000);
    count_outcome(NEGOTIATION_CONNECTED);
}

void negotiation_report(const struct negotiation_end *from, const struct negotiation_end *to, const IceState *report,
                        int64_t now_ms)
{
    const struct negotiation_end *keeper;
    struct negotiation *record = find(from, to, &keeper);
    if (record != NULL && report->negotiation != 0 && report->negotiation < record->id &&
        report->negotiation != record->glare_id)
        return; /* of one that is over */
    switch (report->state) {
    case SIGNALBOX__V1__ICE_STATE__STATE__CONNECTED:
        on_connected(from, to, record, report, now_ms);
        break;
    case SIGNALBOX__V1__ICE_STATE__STATE__FAILED:
        if (record != NULL)
            drop(keeper->records, record, NEGOTIATION_FAILED);
        break;
    case SIGNALBOX__V1__ICE_STATE__STATE__CLOSED:
        if (record != NULL)
            drop(keeper->records, record, NEGOTIATION_CLOSED);
        break;
    default:
        break;
    }
}
