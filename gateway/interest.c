#include "common/codec.h"
#include "common/mem.h"
#include "gateway/internal.h"
#include <stdlib.h>
#include <string.h>

void interest_free(struct interest **interest)
{
    if (*interest == NULL)
        return;
    for (size_t i = 0; i < (*interest)->mute_key_count; i++)
        free((*interest)->mute_keys[i]);
    free(*interest);
    *interest = NULL;
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
    interest_free(&session->interest);
    if (wanted == NULL)
        return;
    struct interest *interest = mem_new(struct interest);
    interest->viewers = wanted->viewers;
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
