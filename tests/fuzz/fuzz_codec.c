#include "common/codec.h"

#include "common/ids.h"
#include "protojson_test.pb-c.h"
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_strings(const ProtobufCMessage *message);

static void check_member(const ProtobufCFieldDescriptor *field, const void *member)
{
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        const char *str = *(char *const *)member;
        assert(str == NULL || utf8_valid(str, strlen(str)));
    } else if (field->type == PROTOBUF_C_TYPE_MESSAGE && *(ProtobufCMessage *const *)member) {
        check_strings(*(ProtobufCMessage *const *)member);
    }
}

static void check_strings(const ProtobufCMessage *message)
{
    const uint8_t *base = (const uint8_t *)message;
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        const void *member = base + field->offset;
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            /* Strings and messages: both arrays of pointers. */
            if (field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_MESSAGE)
                continue;
            for (size_t n = 0; n < *(const size_t *)(base + field->quantifier_offset); n++)
                check_member(field, *(void *const *const *)member + n);
        } else if (!(field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) ||
                   *(const uint32_t *)(base + field->quantifier_offset) == field->id) {
            check_member(field, member);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const ProtobufCMessageDescriptor *type = &signalbox__test__everything__descriptor;
    char error[160];
    struct arena arena;
    arena_init(&arena, 16 << 20);
    ProtobufCMessage *message = codec_unpack(type, data, size, &arena, error, sizeof(error));
    if (message) {
        check_strings(message);
        /* Packing what was unpacked settles at once. */
        size_t packed_size = protobuf_c_message_get_packed_size(message);
        uint8_t *packed = malloc(packed_size + 1), *again = malloc(packed_size + 1);
        assert(protobuf_c_message_pack(message, packed) == packed_size);
        ProtobufCMessage *back = codec_unpack(type, packed, packed_size, &arena, error, sizeof(error));
        assert(back || arena.used_bytes > arena.limit_bytes / 2);
        if (back) {
            assert(protobuf_c_message_get_packed_size(back) == packed_size);
            protobuf_c_message_pack(back, again);
            assert(memcmp(packed, again, packed_size) == 0);
        }
        free(packed);
        free(again);
    } else {
        assert(memchr(error, '\0', sizeof(error)) && error[0]);
    }
    arena_done(&arena);
    return 0;
}
