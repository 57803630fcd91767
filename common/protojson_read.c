#include "common/protojson.h"

#include "common/protojson-private.h"
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum read_result {
    READ_OK = 0,
    READ_FAILED = -1,
    READ_ABSENT = 1, /* an enum name of a newer schema */
};

struct reader {
    struct arena *arena;
    char *error;
    size_t error_size;
};

/* Where in the message we are, linked through the stack of the recursion; rendered only for an error. */
struct path {
    const struct path *up;
    const char *name; /* of a field; NULL: an element or a map entry */
    const char *key;  /* of a map entry; NULL: an element */
    size_t index;
};

struct text {
    char *at;
    size_t room;
};

static void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void text_printf(struct text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int size = vsnprintf(text->at, text->room, format, args);
    va_end(args);
    size_t used = text->room == 0 ? 0 : (size_t)size < text->room ? (size_t)size : text->room - 1;
    text->at += used;
    text->room -= used;
}

static void text_add_path(struct text *text, const struct path *path)
{
    if (path->up)
        text_add_path(text, path->up);
    if (path->key) {
        text_printf(text, "[\"%.32s\"]", path->key);
    } else if (!path->name) {
        text_printf(text, "[%zu]", path->index);
    } else {
        const char *name = path->name;
        if (path->up)
            text_printf(text, ".");
        for (char c = camel_next(&name, false); c; c = camel_next(&name, false))
            text_printf(text, "%c", c);
    }
}

/* Errors quote the input and end up in logs and answers. */
static void error_sanitize(struct reader *reader)
{
    if (reader->error_size == 0)
        return;
    for (char *c = reader->error; *c; c++) {
        if (*c < 0x20 || *c > 0x7e)
            *c = '?';
    }
}

static int fail(struct reader *reader, const struct path *path, const char *what)
{
    struct text text = {reader->error, reader->error_size};
    if (path) {
        text_add_path(&text, path);
        text_printf(&text, ": ");
    }
    text_printf(&text, "%s", what);
    error_sanitize(reader);
    return READ_FAILED;
}

static int fail_too_large(struct reader *reader, const struct path *path)
{
    return fail(reader, path, "the message is too large");
}

/* The grammar of RFC 8259 section 6; strtod() alone would take "0x1p4", " 1" and "inf". */
static bool number_is_json(const char *text)
{
    text += *text == '-';
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || (digits > 1 && *text == '0'))
        return false;
    text += digits;
    if (*text == '.') {
        digits = strspn(++text, "0123456789");
        if (digits == 0)
            return false;
        text += digits;
    }
    if (*text == 'e' || *text == 'E') {
        text++;
        text += *text == '+' || *text == '-';
        digits = strspn(text, "0123456789");
        if (digits == 0)
            return false;
        text += digits;
    }
    return *text == '\0';
}

static bool real_to_integer(double real, int64_t min, uint64_t max, uint64_t *ret_value)
{
    if (real != trunc(real) || real < (double)min || real >= 0x1p64)
        return false;
    uint64_t value = real < 0 ? (uint64_t)(int64_t)real : (uint64_t)real;
    if (real > 0 && value > max)
        return false;
    *ret_value = value;
    return true;
}

/* `text` has the form of a JSON number. */
static bool text_to_integer(const char *text, int64_t min, uint64_t max, uint64_t *ret_value)
{
    if (strpbrk(text, ".eE"))
        return real_to_integer(strtod(text, NULL), min, max, ret_value);
    errno = 0;
    if (*text == '-') {
        int64_t value = strtoll(text, NULL, 10);
        if (errno || value < min)
            return false;
        *ret_value = value;
        return true;
    }
    uint64_t value = strtoull(text, NULL, 10);
    if (errno || value > max)
        return false;
    *ret_value = value;
    return true;
}

/* Negative values come back in two's complement. */
static int read_integer(struct reader *reader, const struct path *path, const json_t *json, int64_t min, uint64_t max,
                        uint64_t *ret_value)
{
    bool in_range;
    if (json_is_integer(json)) {
        json_int_t value = json_integer_value(json);
        in_range = value < 0 ? value >= min : (uint64_t)value <= max;
        *ret_value = value;
    } else if (json_is_real(json)) {
        in_range = real_to_integer(json_real_value(json), min, max, ret_value);
    } else if (json_is_string(json) && number_is_json(json_string_value(json))) {
        in_range = text_to_integer(json_string_value(json), min, max, ret_value);
    } else {
        return fail(reader, path, "expected a whole number");
    }
    if (in_range)
        return READ_OK;
    char what[96];
    snprintf(what, sizeof(what), "expected a whole number from %lld to %llu", (long long)min, (unsigned long long)max);
    return fail(reader, path, what);
}

static int read_32(struct reader *reader, const struct path *path, const json_t *json, int64_t min, uint64_t max,
                   void *member)
{
    uint64_t value;
    if (read_integer(reader, path, json, min, max, &value) < 0)
        return READ_FAILED;
    *(uint32_t *)member = (uint32_t)value;
    return READ_OK;
}

static bool text_to_real(const char *text, double *ret_value)
{
    if (!strcmp(text, "NaN"))
        *ret_value = NAN;
    else if (!strcmp(text, "Infinity"))
        *ret_value = INFINITY;
    else if (!strcmp(text, "-Infinity"))
        *ret_value = -INFINITY;
    else if (number_is_json(text) && isfinite(strtod(text, NULL)))
        *ret_value = strtod(text, NULL);
    else
        return false;
    return true;
}

static int read_real(struct reader *reader, const struct path *path, const json_t *json, double *ret_value)
{
    if (json_is_number(json))
        *ret_value = json_number_value(json);
    else if (!json_is_string(json) || !text_to_real(json_string_value(json), ret_value))
        return fail(reader, path, "expected a number, \"NaN\", \"Infinity\" or \"-Infinity\"");
    return READ_OK;
}

static int read_float(struct reader *reader, const struct path *path, const json_t *json, float *ret_value)
{
    double value;
    if (read_real(reader, path, json, &value) < 0)
        return READ_FAILED;
    /* Compared after rounding: the shortest text for the greatest float lies above it. */
    *ret_value = (float)value;
    if (isinf(*ret_value) && !isinf(value))
        return fail(reader, path, "too large for a float");
    return READ_OK;
}

static int read_enum(struct reader *reader, const struct path *path, const ProtobufCEnumDescriptor *type,
                     const json_t *json, void *member)
{
    if (json_is_string(json)) {
        const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value_by_name(type, json_string_value(json));
        if (!value)
            return READ_ABSENT;
        *(int *)member = value->value;
        return READ_OK;
    }
    if (!json_is_number(json))
        return fail(reader, path, "expected the name of an enum value");
    return read_32(reader, path, json, INT32_MIN, INT32_MAX, member);
}

static int read_string(struct reader *reader, const struct path *path, const json_t *json, char **ret_str)
{
    if (!json_is_string(json))
        return fail(reader, path, "expected a string");
    *ret_str = arena_strndup(reader->arena, json_string_value(json), json_string_length(json));
    return *ret_str ? READ_OK : fail_too_large(reader, path);
}

static int read_bytes(struct reader *reader, const struct path *path, const json_t *json,
                      ProtobufCBinaryData *ret_bytes)
{
    if (!json_is_string(json))
        return fail(reader, path, "expected a string of base64");
    const char *text = json_string_value(json);
    size_t size = json_string_length(json);
    bool padded = size > 0 && text[size - 1] == '=';
    int variant = strpbrk(text, "-_") == NULL
                      ? (padded ? sodium_base64_VARIANT_ORIGINAL : sodium_base64_VARIANT_ORIGINAL_NO_PADDING)
                      : (padded ? sodium_base64_VARIANT_URLSAFE : sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    size_t room = size / 4 * 3 + 3;
    uint8_t *data = arena_alloc(reader->arena, room);
    if (!data)
        return fail_too_large(reader, path);
    size_t used;
    if (sodium_base642bin(data, room, text, size, NULL, &used, NULL, variant) != 0)
        return fail(reader, path, "malformed base64");
    *ret_bytes = (ProtobufCBinaryData){.len = used, .data = used ? data : NULL};
    return READ_OK;
}

static ProtobufCMessage *read_message(struct reader *reader, const struct path *path,
                                      const ProtobufCMessageDescriptor *type, const json_t *json);

/* Fills an element of the field's type. */
static int read_value(struct reader *reader, const struct path *path, const ProtobufCFieldDescriptor *field,
                      const json_t *json, void *member)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return read_32(reader, path, json, INT32_MIN, INT32_MAX, member);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return read_32(reader, path, json, 0, UINT32_MAX, member);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return read_integer(reader, path, json, INT64_MIN, INT64_MAX, member);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return read_integer(reader, path, json, 0, UINT64_MAX, member);
    case PROTOBUF_C_TYPE_FLOAT:
        return read_float(reader, path, json, member);
    case PROTOBUF_C_TYPE_DOUBLE:
        return read_real(reader, path, json, member);
    case PROTOBUF_C_TYPE_BOOL:
        if (!json_is_boolean(json))
            return fail(reader, path, "expected true or false");
        *(protobuf_c_boolean *)member = json_is_true(json);
        return READ_OK;
    case PROTOBUF_C_TYPE_ENUM:
        return read_enum(reader, path, field->descriptor, json, member);
    case PROTOBUF_C_TYPE_STRING:
        return read_string(reader, path, json, member);
    case PROTOBUF_C_TYPE_BYTES:
        return read_bytes(reader, path, json, member);
    case PROTOBUF_C_TYPE_MESSAGE:
        *(ProtobufCMessage **)member = read_message(reader, path, field->descriptor, json);
        return *(ProtobufCMessage **)member ? READ_OK : READ_FAILED;
    }
    return fail(reader, path, "of a type that this version does not know");
}

static ProtobufCMessage *message_new(struct reader *reader, const struct path *path,
                                     const ProtobufCMessageDescriptor *type)
{
    ProtobufCMessage *message = arena_alloc(reader->arena, type->sizeof_message);
    if (message)
        protobuf_c_message_init(type, message);
    else
        fail_too_large(reader, path);
    return message;
}

static int read_map_key(struct reader *reader, const struct path *path, const ProtobufCFieldDescriptor *field,
                        const char *key, void *member)
{
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        *(char **)member = arena_strndup(reader->arena, key, strlen(key));
        return *(char **)member ? READ_OK : fail_too_large(reader, path);
    }
    json_t *json = field->type != PROTOBUF_C_TYPE_BOOL ? json_string(key)
                   : !strcmp(key, "true")              ? json_true()
                   : !strcmp(key, "false")             ? json_false()
                                                       : json_string(key);
    int result = read_value(reader, path, field, json, member);
    json_decref(json);
    return result;
}

static int read_map(struct reader *reader, const struct path *path, const ProtobufCMessageDescriptor *entry_type,
                    json_t *json, ProtobufCMessage **ret_entries, size_t *ret_count)
{
    const ProtobufCFieldDescriptor *key_field = &entry_type->fields[0];
    const ProtobufCFieldDescriptor *value_field = &entry_type->fields[1];
    size_t count = 0;
    const char *key;
    json_t *value;
    json_object_foreach(json, key, value)
    {
        struct path here = {.up = path, .key = key};
        ProtobufCMessage *entry = message_new(reader, &here, entry_type);
        if (!entry || read_map_key(reader, &here, key_field, key, (uint8_t *)entry + key_field->offset) < 0)
            return READ_FAILED;
        int result = read_value(reader, &here, value_field, value, (uint8_t *)entry + value_field->offset);
        if (result < 0)
            return READ_FAILED;
        if (result == READ_OK)
            ret_entries[count++] = entry;
    }
    *ret_count = count;
    return READ_OK;
}

static int read_list(struct reader *reader, const struct path *path, const ProtobufCFieldDescriptor *field,
                     const json_t *json, uint8_t *ret_elements, size_t *ret_count)
{
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(json); i++) {
        struct path here = {.up = path, .index = i};
        uint8_t *element = ret_elements + count * element_size(field->type);
        int result = read_value(reader, &here, field, json_array_get(json, i), element);
        if (result < 0)
            return READ_FAILED;
        if (result == READ_OK)
            count++;
    }
    *ret_count = count;
    return READ_OK;
}

static int read_repeated(struct reader *reader, const struct path *path, const ProtobufCFieldDescriptor *field,
                         json_t *json, ProtobufCMessage *message)
{
    bool map = field_is_map(field);
    if (map ? !json_is_object(json) : !json_is_array(json))
        return fail(reader, path, map ? "expected an object" : "expected an array");
    size_t count = map ? json_object_size(json) : json_array_size(json);
    if (count == 0)
        return READ_OK;
    void *elements = arena_alloc(reader->arena, count * element_size(field->type));
    if (!elements)
        return fail_too_large(reader, path);
    int result = map ? read_map(reader, path, field->descriptor, json, elements, &count)
                     : read_list(reader, path, field, json, elements, &count);
    if (result < 0)
        return READ_FAILED;
    *(void **)((uint8_t *)message + field->offset) = elements;
    *(size_t *)((uint8_t *)message + field->quantifier_offset) = count;
    return READ_OK;
}

static int read_field(struct reader *reader, const struct path *path, const ProtobufCFieldDescriptor *field,
                      json_t *json, ProtobufCMessage *message)
{
    if (json_is_null(json))
        return READ_OK;
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return read_repeated(reader, path, field, json, message);
    void *member = (uint8_t *)message + field->offset;
    if (!field_is_oneof(field))
        return read_value(reader, path, field, json, member);
    uint32_t *oneof_case = (uint32_t *)((uint8_t *)message + field->quantifier_offset);
    if (*oneof_case)
        return fail(reader, path, "excludes another field that is given too");
    int result = read_value(reader, path, field, json, member);
    if (result == READ_OK)
        *oneof_case = field->id;
    return result;
}

static bool name_matches(const char *name, const char *key)
{
    if (!strcmp(name, key))
        return true;
    for (char c = camel_next(&name, false); c; c = camel_next(&name, false)) {
        if (*key++ != c)
            return false;
    }
    return *key == '\0';
}

static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *type, const char *key)
{
    for (unsigned i = 0; i < type->n_fields; i++) {
        if (name_matches(type->fields[i].name, key))
            return &type->fields[i];
    }
    return NULL;
}

static ProtobufCMessage *read_message(struct reader *reader, const struct path *path,
                                      const ProtobufCMessageDescriptor *type, const json_t *json)
{
    if (!json_is_object(json)) {
        fail(reader, path, "expected an object");
        return NULL;
    }
    ProtobufCMessage *message = message_new(reader, path, type);
    /* One name twice is refused by the parser; this is for a field under both of its names. */
    bool *seen = arena_zalloc(reader->arena, type->n_fields);
    if (!message || !seen) {
        fail_too_large(reader, path);
        return NULL;
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)json, key, value)
    {
        const ProtobufCFieldDescriptor *field = find_field(type, key);
        if (!field)
            continue;
        struct path here = {.up = path, .name = field->name};
        if (seen[field - type->fields]) {
            fail(reader, &here, "given twice");
            return NULL;
        }
        seen[field - type->fields] = true;
        if (read_field(reader, &here, field, value, message) < 0)
            return NULL;
    }
    return message;
}

/* The parser recurses to 2,048 levels; what we would read is far less. Up to the first syntax error, where the parser
 * stops, this sees brackets and strings exactly as it does. */
static bool nesting_is_bounded(const char *text, size_t size)
{
    unsigned depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (c == '"')
            in_string = !in_string;
        else if (in_string)
            i += c == '\\';
        else if (c == '{' || c == '[')
            depth++;
        else if ((c == '}' || c == ']') && depth > 0)
            depth--;
        if (depth > PROTOJSON_NESTING_MAX)
            return false;
    }
    return true;
}

static void fail_syntax(struct reader *reader, const json_error_t *error)
{
    const char *what = error->text;
    switch (json_error_code(error)) {
    case json_error_null_character:
    case json_error_null_byte_in_key:
        what = "strings must not contain U+0000";
        break;
    case json_error_numeric_overflow:
        what = "a number beyond 64 bits; write it as a string";
        break;
    default:
        break;
    }
    snprintf(reader->error, reader->error_size, "syntax error at line %d column %d: %s", error->line, error->column,
             what);
    error_sanitize(reader);
}

ProtobufCMessage *protojson_read(const ProtobufCMessageDescriptor *type, const char *text, size_t size,
                                 struct arena *arena, char *error, size_t error_size)
{
    struct reader reader = {arena, error, error_size};
    if (!nesting_is_bounded(text, size)) {
        fail(&reader, NULL, "nested too deeply");
        return NULL;
    }
    json_error_t parse_error;
    json_t *root = json_loadb(size ? text : "", size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &parse_error);
    if (!root) {
        fail_syntax(&reader, &parse_error);
        return NULL;
    }
    ProtobufCMessage *message = read_message(&reader, NULL, type, root);
    json_decref(root);
    return message;
}
