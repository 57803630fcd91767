/* Directed messages (docs/PROTOCOL.md section 5): one in sixteen is an offer, the others are candidates. A receiver
 * keeps nothing that is ahead of its turn, which the protocol allows, because it comes again. */
#include "common/clock.h"
#include "tests/load/participant.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { OFFER_EVERY = 16, OFFER_BYTES = 2500, CANDIDATE_BYTES = 160, DOUBLINGS_MAX = 3 };

static char *text_of(char *text, size_t size, uint32_t number, int64_t due_us)
{
    int n = snprintf(text, size, "swarm %" PRIu32 " %" PRId64 " ", number, due_us);
    memset(text + n, 'x', size - (size_t)n - 1);
    text[size - 1] = '\0';
    return text;
}

static void send_one(struct participant *participant, unsigned seat, uint32_t number)
{
    Signalbox__V1__ClientMessage message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Route route = SIGNALBOX__V1__ROUTE__INIT;
    Signalbox__V1__Offer offer = SIGNALBOX__V1__OFFER__INIT;
    Signalbox__V1__Candidate candidate = SIGNALBOX__V1__CANDIDATE__INIT;
    struct link *link = &participant->links[seat];
    int64_t due_us = link->due_us[number % LINK_WINDOW];
    char peer[SID_TEXT_SIZE + 1], text[OFFER_BYTES + 1];

    sid_format(&link->sid, peer);
    route.peer = peer;
    route.seq = number;
    route.ack = link->owes_ack ? link->received : 0;
    link->owes_ack = false;
    message.route = &route;
    if (number % OFFER_EVERY == 1) {
        offer.sdp = text_of(text, OFFER_BYTES + 1, number, due_us);
        offer.negotiation = number;
        offer.ice_generation = 1;
        message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_OFFER;
        message.offer = &offer;
    } else {
        candidate.candidate = text_of(text, CANDIDATE_BYTES + 1, number, due_us);
        candidate.negotiation = (number - 1) / OFFER_EVERY * OFFER_EVERY + 1;
        candidate.ice_generation = 1;
        message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_CANDIDATE;
        message.candidate = &candidate;
    }
    participant_send(participant, &message);
}

static void set_resend(struct participant *participant, struct link *link, int64_t now_ms)
{
    link->resend_ms = link->acked == link->sent ? 0 : now_ms + (participant->worker->retransmit_ms << link->resends);
    if (link->resend_ms != 0)
        participant_arm(participant, link->resend_ms);
}

void directed_send(struct participant *participant, unsigned seat, int64_t due_us)
{
    struct link *link = &participant->links[seat];
    struct worker_stats *stats = participant->worker->stats;
    if (!link->present || link->ended)
        return;
    if (link->sent - link->acked == LINK_WINDOW) {
        stats->directed_blocked++;
        return;
    }
    link->sent++;
    link->due_us[link->sent % LINK_WINDOW] = due_us;
    stats->directed_sent++;
    history_add(participant, HISTORY_SENT, seat, history_tag(&link->sid), link->sent, clock_mono_us() - due_us);
    send_one(participant, seat, link->sent);
    if (link->resend_ms == 0)
        set_resend(participant, link, clock_mono_ms());
}

static void resend(struct participant *participant, unsigned seat)
{
    struct link *link = &participant->links[seat];
    for (uint32_t number = link->acked + 1; number <= link->sent; number++) {
        participant->worker->stats->directed_repeats++;
        send_one(participant, seat, number);
    }
}

void directed_repeat_all(struct participant *participant)
{
    int64_t now_ms = clock_mono_ms();
    for (unsigned seat = 0; seat < participant->room->size; seat++) {
        struct link *link = &participant->links[seat];
        link->resends = 0;
        link->overdue = false;
        resend(participant, seat);
        set_resend(participant, link, now_ms);
    }
}

void directed_return(struct participant *participant)
{
    directed_repeat_all(participant);
    participant->ack_ms = clock_mono_ms();
    for (unsigned seat = 0; seat < participant->room->size; seat++) {
        struct link *link = &participant->links[seat];
        link->owes_ack |= link->present && !link->ended && seat != participant->seat;
    }
    participant_arm(participant, participant->ack_ms);
}

static void acknowledge(struct participant *participant, struct link *link)
{
    Signalbox__V1__ClientMessage message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Route route = SIGNALBOX__V1__ROUTE__INIT;
    Signalbox__V1__Ack ack = SIGNALBOX__V1__ACK__INIT;
    char peer[SID_TEXT_SIZE + 1];
    sid_format(&link->sid, peer);
    route.peer = peer;
    route.ack = link->received;
    message.route = &route;
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_ACK;
    message.ack = &ack;
    link->owes_ack = false;
    participant_send(participant, &message);
}

int64_t directed_upkeep(struct participant *participant, int64_t now_ms)
{
    bool acks_due = participant->ack_ms != 0 && participant->ack_ms <= now_ms;
    int64_t next_ms = INT64_MAX;
    for (unsigned seat = 0; seat < participant->room->size; seat++) {
        struct link *link = &participant->links[seat];
        if (acks_due && link->owes_ack)
            acknowledge(participant, link);
        if (link->resend_ms != 0 && link->resend_ms <= now_ms) {
            link->resends += link->resends < DOUBLINGS_MAX;
            link->overdue = true;
            resend(participant, seat);
            set_resend(participant, link, now_ms);
        }
        if (link->resend_ms != 0 && link->resend_ms < next_ms)
            next_ms = link->resend_ms;
    }
    if (acks_due)
        participant->ack_ms = 0;
    else if (participant->ack_ms != 0 && participant->ack_ms < next_ms)
        next_ms = participant->ack_ms;
    return next_ms;
}

static void take_ack(struct participant *participant, struct link *link, uint64_t ack)
{
    if (ack <= link->acked)
        return;
    if (ack > link->sent) {
        participant->worker->stats->violations_protocol++;
        return;
    }
    link->acked = (uint32_t)ack;
    link->resends = 0;
    link->overdue = false;
    set_resend(participant, link, clock_mono_ms());
}

/* Whoever is heard of again after a repetition in vain need not wait for the next. */
static void repeat_overdue(struct participant *participant, struct link *link)
{
    if (!link->overdue)
        return;
    link->overdue = false;
    resend(participant, (unsigned)(link - participant->links));
    set_resend(participant, link, clock_mono_ms());
}

static void deliver(struct participant *participant, struct link *link, const char *text, size_t size_expected)
{
    struct worker_stats *stats = participant->worker->stats;
    unsigned seat = (unsigned)(link - participant->links);
    uint32_t number;
    int64_t due_us;
    if (sscanf(text, "swarm %" SCNu32 " %" SCNd64 " ", &number, &due_us) != 2 || strlen(text) != size_expected) {
        stats->violations_order++;
        history_add(participant, HISTORY_GARBLED, seat, history_tag(&link->sid), link->received, 0);
        return;
    }
    history_add(participant, HISTORY_DELIVERED, seat, history_tag(&link->sid), number, clock_mono_us() - due_us);
    if (number != link->received) {
        stats->violations_order++;
        return;
    }
    stats->directed_delivered++;
    histogram_record(&stats->message_us, clock_mono_us() - due_us);
}

void directed_receive(struct participant *participant, const Signalbox__V1__ServerMessage *message)
{
    struct worker_stats *stats = participant->worker->stats;
    const Signalbox__V1__Route *route = message->route;
    struct link *link = NULL;
    struct sid sid;
    if (route == NULL || !sid_parse(route->peer, &sid)) {
        stats->violations_protocol++;
        return;
    }
    for (unsigned seat = 0; seat < participant->room->size; seat++) {
        struct link *candidate = &participant->links[seat];
        if (candidate->present && sid_equal(&candidate->sid, &sid))
            link = candidate;
    }
    /* Its sender's join is still on the way, or it has left. */
    if (link == NULL) {
        stats->directed_early += route->seq != 0;
        return;
    }
    take_ack(participant, link, route->ack);
    if (message->body_case == SIGNALBOX__V1__SERVER_MESSAGE__BODY_UNDELIVERABLE) {
        stats->directed_undeliverable++;
        history_add(participant, HISTORY_UNDELIVERABLE, (unsigned)(link - participant->links), history_tag(&sid), 0, 0);
        link->ended = true;
        link->acked = link->sent;
        link->resend_ms = 0;
        link->overdue = false;
        return;
    }
    repeat_overdue(participant, link);
    if (route->seq == 0)
        return;
    if (route->seq > (uint64_t)link->received + 1) {
        stats->directed_early++;
        return;
    }
    link->owes_ack = true;
    if (participant->ack_ms == 0) {
        participant->ack_ms = clock_mono_ms() + participant->worker->ack_delay_ms;
        participant_arm(participant, participant->ack_ms);
    }
    if (route->seq <= link->received) {
        stats->directed_duplicates++;
        return;
    }
    link->received++;
    if (message->body_case == SIGNALBOX__V1__SERVER_MESSAGE__BODY_OFFER)
        deliver(participant, link, message->offer->sdp, OFFER_BYTES);
    else if (message->body_case == SIGNALBOX__V1__SERVER_MESSAGE__BODY_CANDIDATE)
        deliver(participant, link, message->candidate->candidate, CANDIDATE_BYTES);
    else
        stats->violations_protocol++;
}

unsigned directed_count_open(const struct participant *participant)
{
    unsigned open = 0;
    for (unsigned seat = 0; seat < participant->room->size; seat++)
        open += participant->links[seat].sent - participant->links[seat].acked;
    return open;
}

unsigned directed_count_lost(const struct participant *participant)
{
    unsigned lost = 0;
    for (unsigned seat = 0; seat < participant->room->size; seat++) {
        const struct participant *peer = &participant->room->first[seat];
        const struct link *out = &participant->links[seat], *in = &peer->links[participant->seat];
        /* Both must speak of the same two sessions. */
        if (peer == participant || !out->present || out->ended || !in->present || !sid_equal(&out->sid, &peer->sid) ||
            !sid_equal(&in->sid, &participant->sid))
            continue;
        lost += in->received > out->sent ? in->received - out->sent : out->sent - in->received;
    }
    return lost;
}
