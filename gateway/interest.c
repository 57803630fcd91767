#include "common/codec.h"
#include "common/mem.h"
#include "gateway/internal.h"
#include <stdlib.h>
#include <string.h>

/* Events say of viewers only how many there are, so that a crowd of them costs its room little. Those who want to know
 * more pay for it themselves: with a snapshot, and not for each viewer. */
enum { VIEWERS_AGAIN_MS = 2000 };

static void on_viewers_old(struct timer *timer, int64_t now_ms)
{
    struct session *session = container_of(timer, struct interest, viewers_timer)->session;
    if (session->sync == SYNC_LIVE && session->state == SESSION_BOUND && session->client != NULL)
        session_ask_snapshot(session, NULL, now_ms);
    else /* what it is being sent may be older than the change */
        timer_set(session->gateway->wheel, timer, now_ms + VIEWERS_AGAIN_MS);
}

static void want_viewers_again(struct interest *interest, int64_t now_ms)
{
    if (interest->viewers && !timer_pending(&interest->viewers_timer))
        timer_set(interest->session->gateway->wheel, &interest->viewers_timer, now_ms + VIEWERS_AGAIN_MS);
}

void interest_viewers_changed(struct gw_room *room, int64_t now_ms)
{
    if (room->viewers_wanted == 0)
        return;
    list_for_each(pos, &room->sessions) {
        struct session *session = container_of(pos, struct session, room_link);
        if (session->interest != NULL)
            want_viewers_again(session->interest, now_ms);
    }
}

void interest_free(struct session *session)
{
    struct interest *interest = session->interest;
    if (interest == NULL)
        return;
    timer_cancel(session->gateway->wheel, &interest->viewers_timer);
    session->room->viewers_wanted -= interest->viewers;
    for (size_t i = 0; i < interest->mute_key_count; i++)
        free(interest->mute_keys[i]);
    free(interest);
    session->interest = NULL;
}

const char *interest_check(const Signalbox__V1__Interest *wanted)
{
    if (wanted == NULL)
        return NULL;
    if (wanted->n_mute_keys > INTEREST_KEYS_MAX)
        return "interest.mute_keys: at most 16";
    if (wanted->n_signal_sids > INTEREST_SIDS_MAX)
        return "interest.signal_sids: at most 64";
    for (size_t i = 0; i < wanted->n_mute_keys; i++)
        if (strlen(wanted->mute_keys[i]) > SIGNAL_KEY_MAX)
            return "interest.mute_keys: a key has at most 64 bytes";
    struct sid sid;
    for (size_t i = 0; i < wanted->n_signal_sids; i++)
        if (!sid_parse(wanted->signal_sids[i], &sid))
            return "interest.signal_sids: expected sids (22 characters)";
    return NULL;
}

void interest_set(struct session *session, const Signalbox__V1__Interest *wanted)
{
    int64_t viewers_due_ms = session->interest != NULL && timer_pending(&session->interest->viewers_timer)
                                 ? session->interest->viewers_timer.due_ms
                                 : -1;
    interest_free(session);
    if (wanted == NULL)
        return;
    struct interest *interest = mem_new(struct interest);
    interest->session = session;
    interest->viewers = wanted->viewers;
    session->room->viewers_wanted += interest->viewers;
    timer_init(&interest->viewers_timer, on_viewers_old);
    if (interest->viewers && viewers_due_ms >= 0)
        timer_set(session->gateway->wheel, &interest->viewers_timer, viewers_due_ms);
    for (size_t i = 0; i < wanted->n_mute_keys; i++)
        interest->mute_keys[interest->mute_key_count++] = mem_strdup(wanted->mute_keys[i]);
    for (size_t i = 0; i < wanted->n_signal_sids; i++)
        if (sid_parse(wanted->signal_sids[i], &interest->sids[interest->sid_count]))
            interest->sid_count++;
    session->interest = interest;
}

bool interest_filters_signals(const struct session *session)
{
    return session->interest != NULL && (session->interest->mute_key_count > 0 || session->interest->sid_count > 0);
}

static bool wanted(const struct interest *interest, const Signalbox__V1__Signal *signal)
{
    for (size_t i = 0; i < interest->mute_key_count; i++)
        if (strcmp(interest->mute_keys[i], signal->key) == 0)
            return false;
    struct sid from;
    if (interest->sid_count == 0)
        return true;
    if (!sid_parse(signal->from, &from))
        return false;
    for (size_t i = 0; i < interest->sid_count; i++)
        if (sid_equal(&interest->sids[i], &from))
            return true;
    return false;
}

struct outmsg *interest_filter(struct session *session, struct outmsg *message)
{
    struct arena *arena = &session->gateway->arena;
    const struct payload *bytes = outmsg_bytes(message);
    char error[128];
    arena_reset(arena);
    Signalbox__V1__ServerMessage *unpacked = (Signalbox__V1__ServerMessage *)codec_unpack(
        &signalbox__v1__server_message__descriptor, bytes->data, bytes->size, arena, error, sizeof error);
    if (unpacked == NULL || unpacked->body_case != SIGNALBOX__V1__SERVER_MESSAGE__BODY_SIGNALS)
        return outmsg_ref(message);
    Signalbox__V1__Signals *signals = unpacked->signals;
    size_t kept = 0;
    for (size_t i = 0; i < signals->n_signals; i++)
        if (wanted(session->interest, signals->signals[i]))
            signals->signals[kept++] = signals->signals[i];
    if (kept == signals->n_signals)
        return outmsg_ref(message);
    signals->n_signals = kept;
    return kept > 0 ? outmsg_pack(unpacked) : NULL;
}
