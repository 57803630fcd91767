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

/* What a message may cost in memory while it is converted: unpacked it takes many times its packed size. */
enum { CONVERT_FACTOR = 128, CONVERT_MIN_BYTES = 65536 };

struct outmsg {
    uint32_t refs;
    bool unreadable; /* the packed bytes could not be converted to JSON */
    bool crowd;
    struct payload *bytes;
    struct payload *frames[2]; /* by encoding; made when first asked for */
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
