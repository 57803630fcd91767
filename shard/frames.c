#include "shard/frames.h"

#include <string.h>

enum { LENGTH_DELIMITED = 2 };

static size_t write_varint(uint8_t *out, uint64_t value)
{
    size_t size = 0;
    while (value > 0x7f) {
        out[size++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    out[size++] = (uint8_t)value;
    return size;
}

static void append_prefix(struct buf *out, unsigned field, size_t size)
{
    uint8_t *at = buf_reserve(out, 20);
    size_t used = write_varint(at, (uint64_t)field << 3 | LENGTH_DELIMITED);
    used += write_varint(at + used, size);
    out->size += used;
}

void frames_append(struct buf *out, unsigned field, const void *data, size_t size)
{
    append_prefix(out, field, size);
    buf_append(out, data, size);
}

void frames_append_message(struct buf *out, unsigned field, const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    append_prefix(out, field, size);
    out->size += protobuf_c_message_pack(message, buf_reserve(out, size));
}

struct payload *frames_wrap(unsigned field, const struct buf *body)
{
    uint8_t prefix[20];
    size_t prefix_size = write_varint(prefix, (uint64_t)field << 3 | LENGTH_DELIMITED);
    prefix_size += write_varint(prefix + prefix_size, body->size);
    struct payload *payload = payload_new(prefix_size + body->size);
    memcpy(payload->data, prefix, prefix_size);
    if (body->size > 0)
        memcpy(payload->data + prefix_size, body->data, body->size);
    return payload;
}
