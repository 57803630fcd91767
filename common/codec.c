#include "common/codec.h"

#include "common/ids.h"
#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { FIELDS_MAX = 256, FIELD_NUMBER_MAX = (1 << 29) - 1 };

enum wire_type { WIRE_VARINT = 0, WIRE_64BIT = 1, WIRE_LENGTH = 2, WIRE_32BIT = 5 };

/* Sizes of encoded integers that protobuf-c accepts; a longer form here would be read differently there. */
enum { VARINT_SIZE_MAX = 10, TAG_SIZE_MAX = 5, LENGTH_SIZE_MAX = 5 };

struct cursor {
    const uint8_t *at;
    const uint8_t *end;
};

struct check {
    char *error;
    size_t error_size;
};

static bool check_fail(const struct check *check, const ProtobufCMessageDescriptor *type, const char *field,
                       const char *what)
{
    snprintf(check->error, check->error_size, "%s%s%s: %s", type->short_name, field ? "." : "", field ? field : "",
             what);
    return false;
}

static bool cursor_read_varint(struct cursor *cursor, unsigned max_size, uint64_t *ret_value)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < max_size && cursor->at < cursor->end; i++) {
        uint8_t byte = *cursor->at++;
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

static bool cursor_take(struct cursor *cursor, uint64_t size, struct cursor *ret_part)
{
    if (size > (size_t)(cursor->end - cursor->at))
        return false;
    *ret_part = (struct cursor){cursor->at, cursor->at + size};
    cursor->at += size;
    return true;
}

/* Moves past one value; `ret_part` is its content without a length. */
static bool cursor_take_value(struct cursor *cursor, unsigned wire_type, struct cursor *ret_part)
{
    uint64_t number = 0;
    switch (wire_type) {
    case WIRE_VARINT:
        return cursor_read_varint(cursor, VARINT_SIZE_MAX, &number);
    case WIRE_64BIT:
        return cursor_take(cursor, 8, ret_part);
    case WIRE_LENGTH:
        return cursor_read_varint(cursor, LENGTH_SIZE_MAX, &number) && cursor_take(cursor, number, ret_part);
    case WIRE_32BIT:
        return cursor_take(cursor, 4, ret_part);
    default:
        return false;
    }
}

/* How many leading bytes are ASCII without a NUL, in steps of eight: nearly all of what is signaled (SDP, candidates,
 * ids) is nothing else. */
static size_t ascii_prefix_size(const uint8_t *data, size_t size)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    size_t at = 0;
    for (; size - at >= sizeof(uint64_t); at += sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, data + at, sizeof(word));
        /* A zero byte borrows and sets its highest bit; so does, at worst, a byte above a zero. */
        if ((word | (word - ones)) & (ones << 7))
            break;
    }
    return at;
}

static bool check_string(const struct check *check, const ProtobufCMessageDescriptor *type,
                         const ProtobufCFieldDescriptor *field, struct cursor content)
{
    content.at += ascii_prefix_size(content.at, content.end - content.at);
    size_t rest = content.end - content.at;
    if (memchr(content.at, '\0', rest))
        return check_fail(check, type, field->name, "contains a NUL");
    return utf8_valid(content.at, rest) || check_fail(check, type, field->name, "not UTF-8");
}

/* Encoders write fields in the order of their numbers, so the next one is likely the one after the last. */
static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *type,
                                                  const ProtobufCFieldDescriptor *last, uint32_t number)
{
    if (type->n_fields == 0)
        return NULL;
    const ProtobufCFieldDescriptor *next = last ? last + 1 : type->fields;
    if (last && last->id == number)
        return last;
    if (next < type->fields + type->n_fields && next->id == number)
        return next;
    return protobuf_c_message_descriptor_get_field(type, number);
}

static bool check_message(const struct check *check, const ProtobufCMessageDescriptor *type, struct cursor cursor,
                          unsigned depth);

static bool check_field(const struct check *check, const ProtobufCMessageDescriptor *type,
                        const ProtobufCFieldDescriptor *field, struct cursor content, unsigned depth, uint64_t *seen)
{
    if (field->type == PROTOBUF_C_TYPE_STRING)
        return check_string(check, type, field, content);
    if (field->type != PROTOBUF_C_TYPE_MESSAGE)
        return true;
    if (field->label != PROTOBUF_C_LABEL_REPEATED) {
        unsigned index = field - type->fields;
        uint64_t bit = UINT64_C(1) << (index % 64);
        if (seen[index / 64] & bit)
            return check_fail(check, type, field->name, "occurs twice");
        seen[index / 64] |= bit;
    }
    if (depth == CODEC_DEPTH_MAX)
        return check_fail(check, type, field->name, "nested too deeply");
    return check_message(check, field->descriptor, content, depth + 1);
}

static bool check_message(const struct check *check, const ProtobufCMessageDescriptor *type, struct cursor cursor,
                          unsigned depth)
{
    uint64_t seen[FIELDS_MAX / 64] = {0};
    const ProtobufCFieldDescriptor *field = NULL;
    assert(type->n_fields <= FIELDS_MAX);
    while (cursor.at < cursor.end) {
        uint64_t tag;
        if (!cursor_read_varint(&cursor, TAG_SIZE_MAX, &tag) || tag >> 3 == 0 || tag >> 3 > FIELD_NUMBER_MAX)
            return check_fail(check, type, NULL, "malformed protobuf: bad field number");
        field = find_field(type, field, tag >> 3);
        struct cursor content = {0};
        if (!cursor_take_value(&cursor, tag & 7, &content))
            return check_fail(check, type, field ? field->name : NULL, "malformed protobuf: cut short, or a group");
        if ((tag & 7) == WIRE_LENGTH && field && !check_field(check, type, field, content, depth, seen))
            return false;
    }
    return true;
}

ProtobufCMessage *codec_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t size,
                               struct arena *arena, char *error, size_t error_size)
{
    const struct check check = {error, error_size};
    static const uint8_t nothing;
    const uint8_t *bytes = size ? data : &nothing;
    if (!check_message(&check, type, (struct cursor){bytes, bytes + size}, 1))
        return NULL;
    ProtobufCMessage *message = protobuf_c_message_unpack(type, &arena->allocator, size, bytes);
    if (!message)
        check_fail(&check, type, NULL, "a field of the wrong type, or too large when unpacked");
    return message;
}
