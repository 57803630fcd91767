#include "gateway/ws.h"
#include "common/mem.h"
#include "common/utf8.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* RFC 6455 section 5.2: the first two bytes of a frame. */
enum { BIT_FIN = 0x80, BITS_RSV = 0x70, BITS_OPCODE = 0x0f, BIT_CONTROL = 0x08, BIT_MASKED = 0x80, BITS_LENGTH = 0x7f };
enum { LENGTH_16 = 126, LENGTH_64 = 127, MASK_SIZE = 4, PARTIAL_MIN = 256 };

/* The fragments of the message in progress, as far as they have arrived, and behind them the pieces of a control frame
 * while one is being read. */
struct ws_partial {
    uint32_t size;
    uint32_t capacity;
    uint8_t data[];
};

void ws_parser_init(struct ws_parser *parser, size_t message_limit_bytes)
{
    assert(message_limit_bytes <= INT32_MAX);
    *parser = (struct ws_parser){.message_limit_bytes = (uint32_t)message_limit_bytes};
}

void ws_parser_done(struct ws_parser *parser)
{
    free(parser->partial);
    parser->partial = NULL;
}

static int fail(enum ws_close_code code, const char *reason, const char **ret_reason)
{
    *ret_reason = reason;
    return code;
}

/* Grows with what has arrived, never with what a header announced: an announcement costs the peer nothing. */
static void partial_append(struct ws_parser *parser, const uint8_t *data, size_t size)
{
    struct ws_partial *partial = parser->partial;

    if (size == 0)
        return;
    size_t used = partial ? partial->size : 0;
    if (!partial || size > partial->capacity - used) {
        size_t capacity = partial ? 2 * (size_t)partial->capacity : PARTIAL_MIN;
        if (capacity < used + size)
            capacity = used + size;
        partial = mem_realloc(partial, sizeof(*partial) + capacity);
        partial->capacity = (uint32_t)capacity;
        parser->partial = partial;
    }
    memcpy(partial->data + used, data, size);
    partial->size = (uint32_t)(used + size);
}

static uint8_t frame_opcode(const struct ws_parser *parser)
{
    return parser->header[0] & BITS_OPCODE;
}

static bool frame_is_control(const struct ws_parser *parser)
{
    return parser->header[0] & BIT_CONTROL;
}

static size_t header_length_size(const struct ws_parser *parser)
{
    switch (parser->header[1] & BITS_LENGTH) {
    case LENGTH_16:
        return 2;
    case LENGTH_64:
        return 8;
    default:
        return 0;
    }
}

static int check_first_byte(const struct ws_parser *parser, const char **ret_reason)
{
    uint8_t opcode = frame_opcode(parser);
    bool in_message = parser->message_opcode != 0;

    if (parser->header[0] & BITS_RSV)
        return fail(WS_CLOSE_PROTOCOL_ERROR, "reserved bits are set", ret_reason);
    switch (opcode) {
    case WS_CONTINUATION:
        if (!in_message)
            return fail(WS_CLOSE_PROTOCOL_ERROR, "continuation of no message", ret_reason);
        return 0;
    case WS_TEXT:
    case WS_BINARY:
        if (in_message)
            return fail(WS_CLOSE_PROTOCOL_ERROR, "message within a message", ret_reason);
        return 0;
    case WS_CLOSE:
    case WS_PING:
    case WS_PONG:
        if (!(parser->header[0] & BIT_FIN))
            return fail(WS_CLOSE_PROTOCOL_ERROR, "fragmented control frame", ret_reason);
        return 0;
    default:
        return fail(WS_CLOSE_PROTOCOL_ERROR, "unknown opcode", ret_reason);
    }
}

static int check_second_byte(const struct ws_parser *parser, const char **ret_reason)
{
    if (!(parser->header[1] & BIT_MASKED))
        return fail(WS_CLOSE_PROTOCOL_ERROR, "frame is not masked", ret_reason);
    if (frame_is_control(parser) && (parser->header[1] & BITS_LENGTH) > WS_CONTROL_MAX)
        return fail(WS_CLOSE_PROTOCOL_ERROR, "control frame is too long", ret_reason);
    return 0;
}

/* Sets frame_left_bytes, once the header has its length. */
static int take_length(struct ws_parser *parser, size_t length_size, const char **ret_reason)
{
    uint64_t length = 0;

    if (length_size == 0) {
        length = parser->header[1] & BITS_LENGTH;
    } else {
        for (size_t i = 0; i < length_size; i++)
            length = length << 8 | parser->header[2 + i];
        if (length >> 63)
            return fail(WS_CLOSE_PROTOCOL_ERROR, "length has its highest bit set", ret_reason);
        if (length < LENGTH_16 || (length_size == 8 && length <= UINT16_MAX))
            return fail(WS_CLOSE_PROTOCOL_ERROR, "length is not in its shortest form", ret_reason);
    }
    if (!frame_is_control(parser)) {
        uint32_t received = parser->partial ? parser->partial->size : 0;
        if (length > parser->message_limit_bytes - received)
            return fail(WS_CLOSE_TOO_BIG, "message is too big", ret_reason);
    }
    parser->frame_left_bytes = (uint32_t)length;
    return 0;
}

static void begin_payload(struct ws_parser *parser)
{
    parser->in_payload = true;
    parser->mask_phase = 0;
    if (!frame_is_control(parser) && parser->message_opcode == 0) {
        parser->message_opcode = frame_opcode(parser);
        parser->utf8_state = UTF8_ACCEPT;
    }
}

/* Byte by byte, each check at the first byte that allows it: so a peer learns of its error as soon as possible, and
 * always of the same one. */
static int take_header_byte(struct ws_parser *parser, uint8_t byte, const char **ret_reason)
{
    parser->header[parser->header_size++] = byte;
    if (parser->header_size == 1)
        return check_first_byte(parser, ret_reason);

    size_t length_size = header_length_size(parser);
    int result = 0;
    if (parser->header_size == 2)
        result = check_second_byte(parser, ret_reason);
    if (result == 0 && parser->header_size == 2 + length_size)
        result = take_length(parser, length_size, ret_reason);
    if (parser->header_size == 2 + length_size + MASK_SIZE)
        begin_payload(parser);
    return result;
}

/* Eight bytes at a time; memcpy() is a plain load or store of any alignment. */
static void unmask(struct ws_parser *parser, uint8_t *data, size_t size)
{
    const uint8_t *mask = parser->header + parser->header_size - MASK_SIZE;
    uint8_t key[8];
    uint64_t wide_key;
    size_t i = 0;

    for (size_t k = 0; k < sizeof(key); k++)
        key[k] = mask[(parser->mask_phase + k) % MASK_SIZE];
    memcpy(&wide_key, key, sizeof(wide_key));
    for (; size - i >= sizeof(wide_key); i += sizeof(wide_key)) {
        uint64_t word;
        memcpy(&word, data + i, sizeof(word));
        word ^= wide_key;
        memcpy(data + i, &word, sizeof(word));
    }
    for (; i < size; i++)
        data[i] ^= key[i % sizeof(key)];
    parser->mask_phase = (parser->mask_phase + size) % MASK_SIZE;
}

/* What a peer may send: the codes of RFC 6455 section 7.4.1 and 1011 that are not reserved, the registered and the
 * private ranges of section 7.4.2. */
static bool close_code_valid(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1011) || (code >= 3000 && code <= 4999);
}

static int check_close(const uint8_t *data, size_t size, const char **ret_reason)
{
    if (size == 0)
        return 0;
    if (size == 1)
        return fail(WS_CLOSE_PROTOCOL_ERROR, "close code is cut short", ret_reason);
    if (!close_code_valid((unsigned)data[0] << 8 | data[1]))
        return fail(WS_CLOSE_PROTOCOL_ERROR, "close code is not allowed", ret_reason);
    if (utf8_check(UTF8_ACCEPT, data + 2, size - 2) != UTF8_ACCEPT)
        return fail(WS_CLOSE_INVALID_DATA, "close reason is not UTF-8", ret_reason);
    return 0;
}

/* `data` is the last piece of the control frame; earlier ones are at the end of the partial buffer. They are taken off
 * it before the call, so that the parser is between two frames again whatever the handler does. */
static int deliver_control(struct ws_parser *parser, const uint8_t *data, size_t size,
                           const struct ws_handlers *handlers, void *ctx, const char **ret_reason)
{
    uint8_t opcode = frame_opcode(parser);
    size_t total = parser->header[1] & BITS_LENGTH;
    uint8_t copy[WS_CONTROL_MAX];

    if (size < total) {
        partial_append(parser, data, size);
        parser->partial->size -= (uint32_t)total;
        memcpy(copy, parser->partial->data + parser->partial->size, total);
        data = copy;
        if (parser->partial->size == 0)
            ws_parser_done(parser);
    }
    if (opcode == WS_CLOSE) {
        int result = check_close(data, total, ret_reason);
        if (result != 0)
            return result;
    }
    bool go_on = handlers->control(ctx, opcode, data, total);
    return go_on && opcode != WS_CLOSE ? 0 : WS_STOPPED;
}

/* `data` is the last piece of the message, and all of it if nothing was put aside. */
static int deliver_message(struct ws_parser *parser, uint8_t *data, size_t size, const struct ws_handlers *handlers,
                           void *ctx, const char **ret_reason)
{
    uint8_t opcode = parser->message_opcode;
    struct ws_partial *partial = NULL;

    if (opcode == WS_TEXT && parser->utf8_state != UTF8_ACCEPT)
        return fail(WS_CLOSE_INVALID_DATA, "text ends within a character", ret_reason);
    parser->message_opcode = 0;
    if (parser->partial) {
        partial_append(parser, data, size);
        partial = parser->partial;
        parser->partial = NULL;
        data = partial->data;
        size = partial->size;
    }
    bool go_on = handlers->message(ctx, opcode, data, size);
    free(partial);
    return go_on ? 0 : WS_STOPPED;
}

static int take_payload(struct ws_parser *parser, uint8_t *data, size_t size, const struct ws_handlers *handlers,
                        void *ctx, const char **ret_reason)
{
    bool control = frame_is_control(parser);

    unmask(parser, data, size);
    parser->frame_left_bytes -= (uint32_t)size;
    if (!control && parser->message_opcode == WS_TEXT) {
        parser->utf8_state = utf8_check(parser->utf8_state, data, size);
        if (parser->utf8_state == UTF8_REJECT)
            return fail(WS_CLOSE_INVALID_DATA, "text is not UTF-8", ret_reason);
    }
    if (parser->frame_left_bytes > 0) {
        partial_append(parser, data, size);
        return 0;
    }
    parser->in_payload = false;
    parser->header_size = 0;
    if (control)
        return deliver_control(parser, data, size, handlers, ctx, ret_reason);
    if (parser->header[0] & BIT_FIN)
        return deliver_message(parser, data, size, handlers, ctx, ret_reason);
    partial_append(parser, data, size);
    return 0;
}

int ws_parser_feed(struct ws_parser *parser, uint8_t *data, size_t size, const struct ws_handlers *handlers, void *ctx,
                   const char **ret_reason)
{
    int result = 0;

    while (size > 0 && result == 0) {
        if (!parser->in_payload) {
            result = take_header_byte(parser, *data++, ret_reason);
            size--;
        }
        /* Right after the header too: a frame without payload is complete with it. */
        if (parser->in_payload) {
            size_t piece = size < parser->frame_left_bytes ? size : parser->frame_left_bytes;
            result = take_payload(parser, data, piece, handlers, ctx, ret_reason);
            data += piece;
            size -= piece;
        }
    }
    return result;
}

size_t ws_write_header(uint8_t out[WS_HEADER_MAX], enum ws_opcode opcode, size_t payload_size)
{
    size_t length_size = payload_size < LENGTH_16 ? 0 : payload_size <= UINT16_MAX ? 2 : 8;

    out[0] = (uint8_t)(BIT_FIN | opcode);
    out[1] = length_size == 0 ? (uint8_t)payload_size : length_size == 2 ? LENGTH_16 : LENGTH_64;
    for (size_t i = 0; i < length_size; i++)
        out[2 + i] = (uint8_t)((uint64_t)payload_size >> 8 * (length_size - 1 - i));
    return 2 + length_size;
}

struct payload *ws_frame(enum ws_opcode opcode, const void *data, size_t size)
{
    uint8_t header[WS_HEADER_MAX];
    size_t header_size = ws_write_header(header, opcode, size);
    struct payload *frame = payload_new(header_size + size);

    memcpy(frame->data, header, header_size);
    if (size > 0)
        memcpy(frame->data + header_size, data, size);
    return frame;
}

struct payload *ws_close_frame(uint16_t code, const char *reason)
{
    uint8_t body[WS_CONTROL_MAX] = {(uint8_t)(code >> 8), (uint8_t)code};
    size_t size = reason ? strnlen(reason, WS_REASON_MAX + 1) : 0;

    if (size > WS_REASON_MAX) {
        size = WS_REASON_MAX;
        while (size > 0 && ((uint8_t)reason[size] & 0xc0) == 0x80)
            size--;
    }
    if (size > 0)
        memcpy(body + 2, reason, size);
    return ws_frame(WS_CLOSE, body, 2 + size);
}
