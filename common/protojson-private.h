/* What reading and writing protobuf JSON both know about protobuf-c's descriptors; for protojson_*.c alone. */
#ifndef SBX_COMMON_PROTOJSON_PRIVATE_H
#define SBX_COMMON_PROTOJSON_PRIVATE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static inline size_t element_size(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_STRING:
        return sizeof(char *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(ProtobufCMessage *);
    default:
        return 4;
    }
}

static inline bool field_is_oneof(const ProtobufCFieldDescriptor *field)
{
    return field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;
}

/* The rule by which protobuf derives names: underscores go, the letter after one becomes a capital. Returns the next
 * character, '\0' at the end. */
static inline char camel_next(const char **name, bool capital)
{
    while (**name == '_') {
        capital = true;
        (*name)++;
    }
    char c = **name;
    if (c == '\0')
        return c;
    (*name)++;
    if (capital && c >= 'a' && c <= 'z')
        return (char)(c - 'a' + 'A');
    return c;
}

/* protobuf-c shows map<k, v> foo_bar as repeated FooBarEntry{key, value}. */
static inline bool field_is_map(const ProtobufCFieldDescriptor *field)
{
    if (field->label != PROTOBUF_C_LABEL_REPEATED || field->type != PROTOBUF_C_TYPE_MESSAGE)
        return false;
    const ProtobufCMessageDescriptor *entry = field->descriptor;
    if (entry->n_fields != 2 || strcmp(entry->fields[0].name, "key") != 0 ||
        strcmp(entry->fields[1].name, "value") != 0)
        return false;
    const char *name = field->name;
    const char *type = entry->short_name;
    for (char c = camel_next(&name, true); c; c = camel_next(&name, false)) {
        if (*type++ != c)
            return false;
    }
    return !strcmp(type, "Entry");
}

#endif
