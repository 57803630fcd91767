#include "common/protojson.h"

#include "common/codec.h"
#include "common/ids.h"
#include "common/mem.h"
#include "common/protojson-private.h"
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const void *member_at(const ProtobufCMessage *message, size_t offset)
{
    return (const uint8_t *)message + offset;
}

static void write_camel(struct buf *out, const char *name)
{
    char *at = (char *)buf_reserve(out, strlen(name));
    for (char c = camel_next(&name, false); c; c = camel_next(&name, false)) {
        *at++ = c;
        out->size++;
    }
}

/* The size of the UTF-8 sequence at `str`, 0 if it is none. */
static size_t utf8_sequence_size(const char *str)
{
    uint8_t lead = *str;
    size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    return strnlen(str, size) == size && utf8_valid(str, size) ? size : 0;
}

static void write_string(struct buf *out, const char *str)
{
    buf_append_char(out, '"');
    const char *run = str;
    for (;;) {
        uint8_t c = *str;
        size_t plain = c < 0x20 || c == '"' || c == '\\' ? 0 : c < 0x80 ? 1 : utf8_sequence_size(str);
        if (plain) {
            str += plain;
            continue;
        }
        buf_append(out, run, str - run);
        run = ++str;
        if (c == '\0')
            break;
        if (c == '"' || c == '\\')
            buf_append(out, (char[]){'\\', (char)c}, 2);
        else if (c == '\n' || c == '\r' || c == '\t')
            buf_append(out, (char[]){'\\', (char)(c == '\n' ? 'n' : c == '\r' ? 'r' : 't')}, 2);
        else if (c < 0x20)
            buf_printf(out, "\\u%04x", c);
        else
            buf_append_str(out, "\xef\xbf\xbd"); /* U+FFFD */
    }
    buf_append_char(out, '"');
}

static void write_bytes(struct buf *out, const ProtobufCBinaryData *bytes)
{
    size_t room = sodium_base64_encoded_len(bytes->len, sodium_base64_VARIANT_ORIGINAL);
    buf_append_char(out, '"');
    char *text = (char *)buf_reserve(out, room);
    sodium_bin2base64(text, room, bytes->data, bytes->len, sodium_base64_VARIANT_ORIGINAL);
    out->size += room - 1;
    buf_append_char(out, '"');
}

static void write_real(struct buf *out, double value, bool is_float)
{
    char text[32];
    if (!isfinite(value)) {
        buf_append_str(out, isnan(value) ? "\"NaN\"" : value > 0 ? "\"Infinity\"" : "\"-Infinity\"");
        return;
    }
    int digits = is_float ? 6 : 15;
    int digits_max = is_float ? 9 : 17;
    double back;
    do {
        snprintf(text, sizeof(text), "%.*g", digits, value);
        back = is_float ? (double)strtof(text, NULL) : strtod(text, NULL);
    } while (back != value && digits++ < digits_max);
    buf_append_str(out, text);
    /* "-0" alone is an integer to many parsers, and the sign is gone. */
    if (value == 0 && signbit(value))
        buf_append_str(out, ".0");
}

static void write_message(struct buf *out, const ProtobufCMessage *message, unsigned depth);

static void write_enum(struct buf *out, const ProtobufCEnumDescriptor *type, int number)
{
    const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(type, number);
    if (value)
        write_string(out, value->name);
    else
        buf_printf(out, "%d", number);
}

static void write_value(struct buf *out, const ProtobufCFieldDescriptor *field, const void *member, unsigned depth)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        buf_printf(out, "%" PRId32, *(const int32_t *)member);
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        buf_printf(out, "%" PRIu32, *(const uint32_t *)member);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        buf_printf(out, "\"%" PRId64 "\"", *(const int64_t *)member);
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        buf_printf(out, "\"%" PRIu64 "\"", *(const uint64_t *)member);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        write_real(out, *(const float *)member, true);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        write_real(out, *(const double *)member, false);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        buf_append_str(out, *(const protobuf_c_boolean *)member ? "true" : "false");
        break;
    case PROTOBUF_C_TYPE_ENUM:
        write_enum(out, field->descriptor, *(const int *)member);
        break;
    case PROTOBUF_C_TYPE_STRING: {
        const char *str = *(char *const *)member;
        write_string(out, str ? str : "");
        break;
    }
    case PROTOBUF_C_TYPE_BYTES:
        write_bytes(out, member);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        write_message(out, *(ProtobufCMessage *const *)member, depth + 1);
        break;
    }
}

struct map_item {
    const ProtobufCMessage *entry;
    size_t index;
};

static int map_key_compare(const struct map_item *a, const struct map_item *b)
{
    const ProtobufCFieldDescriptor *field = &a->entry->descriptor->fields[0];
    const void *key_a = member_at(a->entry, field->offset);
    const void *key_b = member_at(b->entry, field->offset);
    if (field->type == PROTOBUF_C_TYPE_STRING)
        return strcmp(*(char *const *)key_a, *(char *const *)key_b);
    /* Any order will do, so long as equal keys meet. */
    return memcmp(key_a, key_b, element_size(field->type));
}

static int map_item_compare(const void *a, const void *b)
{
    const struct map_item *item_a = a, *item_b = b;
    int order = map_key_compare(item_a, item_b);
    return order ? order : (item_a->index > item_b->index) - (item_a->index < item_b->index);
}

static void write_map_item(struct buf *out, const ProtobufCMessage *entry, unsigned depth)
{
    const ProtobufCFieldDescriptor *key = &entry->descriptor->fields[0];
    const ProtobufCFieldDescriptor *value = &entry->descriptor->fields[1];
    size_t start = out->size;
    write_value(out, key, member_at(entry, key->offset), depth);
    if (out->data[start] != '"') {
        char bare[32];
        size_t size = out->size - start;
        memcpy(bare, out->data + start, size);
        out->size = start;
        buf_printf(out, "\"%.*s\"", (int)size, bare);
    }
    buf_append_char(out, ':');
    write_value(out, value, member_at(entry, value->offset), depth);
}

/* Nothing stops a sender from repeating a key on the wire, and strict readers refuse an object that does. */
static void write_map(struct buf *out, ProtobufCMessage *const *entries, size_t count, unsigned depth)
{
    struct map_item *items = mem_alloc(count * sizeof(*items));
    for (size_t i = 0; i < count; i++)
        items[i] = (struct map_item){entries[i], i};
    qsort(items, count, sizeof(*items), map_item_compare);
    char before = '{';
    for (size_t i = 0; i < count; i++) {
        if (i + 1 < count && map_key_compare(&items[i], &items[i + 1]) == 0)
            continue;
        buf_append_char(out, before);
        write_map_item(out, items[i].entry, depth);
        before = ',';
    }
    buf_append_char(out, '}');
    free(items);
}

static void write_repeated(struct buf *out, const ProtobufCFieldDescriptor *field, const void *elements, size_t count,
                           unsigned depth)
{
    if (field_is_map(field)) {
        write_map(out, elements, count, depth);
        return;
    }
    char before = '[';
    for (size_t i = 0; i < count; i++) {
        buf_append_char(out, before);
        write_value(out, field, (const uint8_t *)elements + i * element_size(field->type), depth);
        before = ',';
    }
    buf_append_char(out, ']');
}

/* Outside a oneof, scalars that are zero or empty are not there: the same rule by which protobuf-c packs. */
static bool singular_is_present(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    const void *member = member_at(message, field->offset);
    if (field_is_oneof(field))
        return *(const uint32_t *)member_at(message, field->quantifier_offset) == field->id;
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        return *(char *const *)member && **(char *const *)member;
    case PROTOBUF_C_TYPE_BYTES:
        return ((const ProtobufCBinaryData *)member)->len > 0;
    case PROTOBUF_C_TYPE_MESSAGE:
        return *(ProtobufCMessage *const *)member;
    case PROTOBUF_C_TYPE_FLOAT:
        return *(const float *)member != 0;
    case PROTOBUF_C_TYPE_DOUBLE:
        return *(const double *)member != 0;
    default:
        return element_size(field->type) == 8 ? *(const uint64_t *)member != 0 : *(const uint32_t *)member != 0;
    }
}

static void write_name(struct buf *out, const char *before, const char *name)
{
    buf_append_str(out, before);
    write_camel(out, name);
    buf_append(out, "\":", 2);
}

static void write_message(struct buf *out, const ProtobufCMessage *message, unsigned depth)
{
    assert(depth <= CODEC_DEPTH_MAX);
    const char *before = "\"";
    buf_append_char(out, '{');
    /* A map entry whose value is missing on the wire has none here. */
    unsigned field_count = message ? message->descriptor->n_fields : 0;
    for (unsigned i = 0; i < field_count; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        const void *member = member_at(message, field->offset);
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t count = *(const size_t *)member_at(message, field->quantifier_offset);
            if (count == 0)
                continue;
            write_name(out, before, field->name);
            write_repeated(out, field, *(void *const *)member, count, depth);
        } else {
            if (!singular_is_present(message, field))
                continue;
            write_name(out, before, field->name);
            write_value(out, field, member, depth);
        }
        before = ",\"";
    }
    buf_append_char(out, '}');
}

void protojson_write(struct buf *out, const ProtobufCMessage *message)
{
    write_message(out, message, 1);
}
