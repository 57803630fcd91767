#include "gateway/outmsg.h"

#include "common/buf.h"
#include "common/codec.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/protojson.h"
#include "gateway/ws.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* What a message may cost in memory while it is converted: unpacked it takes many times its packed size. */
enum { CONVERT_FACTOR = 128, CONVERT_MIN_BYTES = 65536 };
/* Larger ones cost more to compare than their memory is worth. */
enum { COALESCE_MAX_BYTES = 65536, COALESCED_KEPT = 8 };

/* What became of a message and the one before it. */
struct coalesced {
    struct outmsg *older;
    struct outmsg *result; /* NULL: the newer one says it all */
    uint32_t overtaken;    /* 0: nothing is gained, and there is no result */
};

struct outmsg {
    uint32_t refs;
    bool unreadable; /* the packed bytes could not be converted to JSON */
    bool crowd;
    struct payload *bytes;
    struct payload *frames[2]; /* by encoding; made when first asked for */
    struct coalesced *coalesced;
    uint32_t coalesced_count;
};

static struct outmsg *outmsg_new(struct payload *take_bytes)
{
    struct outmsg *message = mem_new(struct outmsg);
    message->refs = 1;
    message->bytes = take_bytes;
    return message;
}

struct outmsg *outmsg_pack(const Signalbox__V1__ServerMessage *message)
{
    return outmsg_new(payload_pack(&message->base));
}

struct outmsg *outmsg_from_bytes(const void *packed, size_t size)
{
    return outmsg_new(payload_from(packed, size));
}

struct outmsg *outmsg_ref(struct outmsg *message)
{
    assert(message->refs != 0 && message->refs != UINT32_MAX);
    message->refs++;
    return message;
}

void outmsg_unref(struct outmsg **message_ptr)
{
    struct outmsg *message = *message_ptr;
    *message_ptr = NULL;
    if (message == NULL || --message->refs > 0)
        return;
    payload_unref(&message->bytes);
    payload_unref(&message->frames[ENCODING_PROTOBUF]);
    payload_unref(&message->frames[ENCODING_JSON]);
    for (uint32_t i = 0; i < message->coalesced_count; i++) {
        outmsg_unref(&message->coalesced[i].older);
        outmsg_unref(&message->coalesced[i].result);
    }
    free(message->coalesced);
    free(message);
}

static struct payload *json_frame(const struct payload *bytes)
{
    char error[128];
    struct arena arena;
    struct payload *frame = NULL;

    arena_init(&arena, CONVERT_MIN_BYTES + (size_t)CONVERT_FACTOR * bytes->size);
    const ProtobufCMessage *message = codec_unpack(&signalbox__v1__server_message__descriptor, bytes->data, bytes->size,
                                                   &arena, error, sizeof(error));
    if (message != NULL) {
        struct buf text = {0};
        protojson_write(&text, message);
        frame = ws_frame(WS_TEXT, text.data, text.size);
        buf_done(&text);
    } else {
        log_warn("message_not_converted", log_str("error", error));
    }
    arena_done(&arena);
    return frame;
}

struct payload *outmsg_frame(struct outmsg *message, enum encoding encoding)
{
    if (message->frames[encoding] != NULL || (encoding == ENCODING_JSON && message->unreadable))
        return message->frames[encoding];
    if (encoding == ENCODING_PROTOBUF) {
        message->frames[encoding] = ws_frame(WS_BINARY, message->bytes->data, message->bytes->size);
    } else {
        message->frames[encoding] = json_frame(message->bytes);
        message->unreadable = message->frames[encoding] == NULL;
    }
    if (message->unreadable)
        metric_add(M_MESSAGES_NOT_CONVERTED, 1);
    return message->frames[encoding];
}

void outmsg_set_crowd(struct outmsg *message)
{
    message->crowd = true;
}

bool outmsg_is_crowd(const struct outmsg *message)
{
    return message->crowd;
}

const struct payload *outmsg_bytes(const struct outmsg *message)
{
    return message->bytes;
}

/* --- Signals that overtake each other */

static int compare_signals(const Signalbox__V1__Signal *a, const Signalbox__V1__Signal *b)
{
    int order = strcmp(a->from, b->from);
    return order != 0 ? order : strcmp(a->key, b->key);
}

static int compare_entries(const void *a, const void *b)
{
    return compare_signals(*(Signalbox__V1__Signal *const *)a, *(Signalbox__V1__Signal *const *)b);
}

static Signalbox__V1__ServerMessage *unpack_signals(const struct outmsg *message, struct arena *arena)
{
    char error[128];
    ProtobufCMessage *unpacked = codec_unpack(&signalbox__v1__server_message__descriptor, message->bytes->data,
                                              message->bytes->size, arena, error, sizeof error);
    Signalbox__V1__ServerMessage *server = (Signalbox__V1__ServerMessage *)unpacked;
    return server != NULL && server->body_case == SIGNALBOX__V1__SERVER_MESSAGE__BODY_SIGNALS ? server : NULL;
}

/* Those of the older message that the newer one does not overtake, and then the newer's. */
static struct coalesced coalesce(struct outmsg *older, struct outmsg *newer, struct arena *arena)
{
    struct coalesced coalesced = {.older = outmsg_ref(older)};
    Signalbox__V1__ServerMessage *old = unpack_signals(older, arena), *new = unpack_signals(newer, arena);
    if (old == NULL || new == NULL)
        return coalesced;
    size_t old_count = old->signals->n_signals, new_count = new->signals->n_signals, kept = 0;
    Signalbox__V1__Signal **sorted = arena_alloc(arena, (new_count + 1) * sizeof *sorted);
    Signalbox__V1__Signal **all = arena_alloc(arena, (old_count + new_count + 1) * sizeof *all);
    if (sorted == NULL || all == NULL || new_count == 0)
        return coalesced;
    memcpy(sorted, new->signals->signals, new_count * sizeof *sorted);
    qsort(sorted, new_count, sizeof *sorted, compare_entries);
    for (size_t i = 0; i < old_count; i++)
        if (bsearch(&old->signals->signals[i], sorted, new_count, sizeof *sorted, compare_entries) == NULL)
            all[kept++] = old->signals->signals[i];
    coalesced.overtaken = (uint32_t)(old_count - kept);
    if (kept == 0 || coalesced.overtaken == 0)
        return coalesced;
    memcpy(all + kept, new->signals->signals, new_count * sizeof *all);
    new->signals->signals = all;
    new->signals->n_signals = kept + new_count;
    coalesced.result = outmsg_pack(new);
    coalesced.result->crowd = newer->crowd;
    return coalesced;
}

static const struct coalesced *find_coalesced(const struct outmsg *older, const struct outmsg *newer)
{
    for (uint32_t i = 0; i < newer->coalesced_count; i++)
        if (newer->coalesced[i].older == older)
            return &newer->coalesced[i];
    return NULL;
}

static const struct coalesced *add_coalesced(struct outmsg *older, struct outmsg *newer)
{
    struct arena arena;
    arena_init(&arena, CONVERT_MIN_BYTES + (size_t)CONVERT_FACTOR * (older->bytes->size + newer->bytes->size));
    struct coalesced made = coalesce(older, newer, &arena);
    arena_done(&arena);
    if (newer->coalesced == NULL)
        newer->coalesced = mem_zalloc(COALESCED_KEPT * sizeof *newer->coalesced);
    struct coalesced *entry = &newer->coalesced[COALESCED_KEPT - 1];
    if (newer->coalesced_count < COALESCED_KEPT) {
        entry = &newer->coalesced[newer->coalesced_count++];
    } else {
        outmsg_unref(&entry->older);
        outmsg_unref(&entry->result);
    }
    *entry = made;
    return entry;
}

struct outmsg *outmsg_coalesce(struct outmsg *older, struct outmsg *newer, uint32_t *ret_overtaken)
{
    if (older->bytes->size + newer->bytes->size > COALESCE_MAX_BYTES)
        return NULL;
    const struct coalesced *coalesced = find_coalesced(older, newer);
    if (coalesced == NULL)
        coalesced = add_coalesced(older, newer);
    if (coalesced->overtaken == 0)
        return NULL;
    *ret_overtaken = coalesced->overtaken;
    return outmsg_ref(coalesced->result != NULL ? coalesced->result : newer);
}
