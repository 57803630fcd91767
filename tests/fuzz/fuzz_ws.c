/* The WebSocket parser, fed with one stream in three ways: at once, byte by byte, and split as the input says.
 *
 * Input: [limit selector][number of piece sizes n][n piece sizes, used in turn][stream]. With the selector's highest
 * bit set, the stream's bytes are taken for [first header byte][payload size][payload]... and made into masked frames,
 * so that a fuzzer gets past the header without having to learn masking. */
#include "common/buf.h"
#include "common/ids.h"
#include "common/mem.h"
#include "gateway/ws.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    struct buf log;
    size_t limit;
};

static bool on_message(void *ctx, enum ws_opcode opcode, uint8_t *data, size_t size)
{
    struct outcome *outcome = ctx;
    assert(opcode == WS_TEXT || opcode == WS_BINARY);
    assert(size <= outcome->limit);
    assert(opcode == WS_BINARY || utf8_valid(data, size));
    buf_printf(&outcome->log, "message %d %zu ", opcode, size);
    buf_append(&outcome->log, data, size);
    memset(data, 0xee, size); /* the bytes are the handler's to modify */
    return true;
}

static bool on_control(void *ctx, enum ws_opcode opcode, const uint8_t *data, size_t size)
{
    struct outcome *outcome = ctx;
    assert(opcode == WS_PING || opcode == WS_PONG || opcode == WS_CLOSE);
    assert(size <= WS_CONTROL_MAX);
    assert(opcode != WS_CLOSE || size == 0 || (size >= 2 && utf8_valid(data + 2, size - 2)));
    buf_printf(&outcome->log, "control %d %zu ", opcode, size);
    buf_append(&outcome->log, data, size);
    return true;
}

static void feed(const struct buf *stream, const uint8_t *steps, size_t step_count, struct outcome *outcome)
{
    static const struct ws_handlers handlers = {.message = on_message, .control = on_control};
    struct ws_parser parser;
    const char *reason = "";
    int result = 0;
    size_t size;

    ws_parser_init(&parser, outcome->limit);
    for (size_t pos = 0, turn = 0; pos < stream->size && result == 0; pos += size, turn++) {
        size = step_count > 0 ? steps[turn % step_count] + 1U : stream->size;
        if (size > stream->size - pos)
            size = stream->size - pos;
        uint8_t *piece = mem_dup(stream->data + pos, size);
        result = ws_parser_feed(&parser, piece, size, &handlers, outcome, &reason);
        free(piece);
    }
    buf_printf(&outcome->log, "result %d %s", result, reason);
    ws_parser_done(&parser);
}

static void add_frames(struct buf *stream, const uint8_t *data, size_t size)
{
    static const uint8_t mask[4] = {0x9b, 0x00, 0xc1, 0x7f};

    while (size >= 2) {
        uint8_t header[WS_HEADER_MAX];
        size_t payload_size = data[1] < size - 2 ? data[1] : size - 2;
        size_t header_size = ws_write_header(header, WS_BINARY, payload_size);
        header[0] = data[0];
        header[1] |= 0x80;
        buf_append(stream, header, header_size);
        buf_append(stream, mask, sizeof(mask));
        for (size_t i = 0; i < payload_size; i++)
            buf_append_char(stream, (char)(data[2 + i] ^ mask[i % sizeof(mask)]));
        data += 2 + payload_size;
        size -= 2 + payload_size;
    }
}

static void expect_same(const struct outcome *a, const struct outcome *b)
{
    assert(a->log.size == b->log.size);
    assert(memcmp(a->log.data, b->log.data, a->log.size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t limits[] = {0, 8, 200, 1 << 20};
    static const uint8_t single_bytes[] = {0};
    struct buf stream = {0};

    if (size < 2 || size - 2 < data[1])
        return 0;
    size_t limit = limits[data[0] & 3];
    const uint8_t *steps = data + 2, *rest = steps + data[1];
    if (data[0] & 0x80)
        add_frames(&stream, rest, (size_t)(data + size - rest));
    else
        buf_append(&stream, rest, (size_t)(data + size - rest));

    struct outcome whole = {.limit = limit}, split = {.limit = limit}, bytewise = {.limit = limit};
    feed(&stream, NULL, 0, &whole);
    feed(&stream, steps, data[1], &split);
    feed(&stream, single_bytes, 1, &bytewise);
    expect_same(&whole, &split);
    expect_same(&whole, &bytewise);
    buf_done(&whole.log);
    buf_done(&split.log);
    buf_done(&bytewise.log);
    buf_done(&stream);
    return 0;
}
