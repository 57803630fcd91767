#include "common/protojson.h"

#include "protojson_test.pb-c.h"
#include <assert.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static ProtobufCMessage *read_text(const void *text, size_t size, struct arena *arena)
{
    char error[160];
    ProtobufCMessage *message =
        protojson_read(&signalbox__test__everything__descriptor, text, size, arena, error, sizeof(error));
    if (!message) {
        assert(error[0]);
        for (const char *c = error; *c; c++)
            assert(*c >= 0x20 && *c <= 0x7e);
    }
    return message;
}

static void pack(struct buf *out, const ProtobufCMessage *message)
{
    out->size = protobuf_c_message_pack(message, buf_reserve(out, protobuf_c_message_get_packed_size(message)));
}

/* What was read is written, read and written again: text and binary stay the same. The first binary may differ from the
 * second only in the order of map entries, so it is the second that is compared. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    arena_init(&arena, 16 << 20);
    ProtobufCMessage *first = read_text(data, size, &arena);
    if (first) {
        struct buf text = {0}, text_again = {0}, binary = {0}, binary_again = {0};
        protojson_write(&text, first);
        ProtobufCMessage *second = read_text(text.data, text.size, &arena);
        assert(second);
        protojson_write(&text_again, second);
        assert(text.size == text_again.size && memcmp(text.data, text_again.data, text.size) == 0);
        ProtobufCMessage *third = read_text(text_again.data, text_again.size, &arena);
        assert(third);
        pack(&binary, second);
        pack(&binary_again, third);
        assert(binary.size == binary_again.size && memcmp(binary.data, binary_again.data, binary.size) == 0);
        buf_done(&text);
        buf_done(&text_again);
        buf_done(&binary);
        buf_done(&binary_again);
    }
    arena_done(&arena);
    return 0;
}
