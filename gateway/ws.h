/* WebSocket framing (RFC 6455): the server's side of the wire, free of I/O.
 *
 * Parser: fed with whatever bytes arrived, in any pieces; unmasks in place; assembles fragmented messages up to a limit;
 * reports whole messages and control frames through callbacks; as strict as the Autobahn suite demands (masking, RSV
 * bits, opcodes, minimal lengths, control frame rules, close codes, UTF-8 checked incrementally so that a bad text fails
 * as soon as it can). An idle parser holds no heap memory: it borrows the caller's buffer for messages that arrive whole
 * and allocates only for those that do not.
 *
 * Builder: a server frame is a header and the payload as it is (servers do not mask), so a message for a whole room is
 * framed once and shared.
 *
 * Threading: loop thread. Extensions: none are negotiated (permessage-deflate would cost 32 KB or more per connection).
 */
#ifndef SBX_GATEWAY_WS_H
#define SBX_GATEWAY_WS_H

#include "common/payload.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ws_opcode { WS_CONTINUATION = 0, WS_TEXT = 1, WS_BINARY = 2, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10 };

/* RFC 6455 section 7.4.1, as far as a server sends them. */
enum ws_close_code {
    WS_CLOSE_NORMAL = 1000,
    WS_CLOSE_GOING_AWAY = 1001,
    WS_CLOSE_PROTOCOL_ERROR = 1002,
    WS_CLOSE_UNSUPPORTED = 1003,
    WS_CLOSE_INVALID_DATA = 1007,
    WS_CLOSE_POLICY = 1008,
    WS_CLOSE_TOO_BIG = 1009,
    WS_CLOSE_INTERNAL = 1011,
};

enum { WS_HEADER_MAX = 10, WS_CONTROL_MAX = 125 };

struct ws_parser {
    uint8_t header[14]; /* of the frame being read */
    uint8_t header_size;
    uint8_t message_opcode; /* of the fragmented message in progress; 0 if none */
    uint8_t opcode;         /* of the current frame */
    bool fin;
    bool in_payload;
    uint32_t utf8_state;
    uint8_t mask[4];
    uint64_t payload_left;
    uint64_t payload_offset; /* for the mask's phase */
    uint8_t *partial;        /* owned: pieces so far of a message or control frame that did not arrive whole */
    size_t partial_size, partial_capacity;
    size_t message_limit;
};

struct ws_handlers {
    /* A whole text or binary message; bytes are borrowed for the call. Return false to stop parsing (the connection is
     * being closed); the parser must not be touched afterwards except by ws_parser_done(). */
    bool (*message)(void *ctx, enum ws_opcode opcode, uint8_t *data, size_t size);
    /* PING, PONG or CLOSE with its payload (a CLOSE has passed the checks on its code and reason). */
    bool (*control)(void *ctx, enum ws_opcode opcode, const uint8_t *data, size_t size);
};

void ws_parser_init(struct ws_parser *parser, size_t message_limit);
void ws_parser_done(struct ws_parser *parser);
/* 0, or the close code to fail the connection with (then `*ret_reason` is a literal text), or 1 if a handler said stop.
 * `data` is modified. */
int ws_parser_feed(struct ws_parser *parser, uint8_t *data, size_t size, const struct ws_handlers *handlers, void *ctx,
                   const char **ret_reason);

/* Writes an unmasked header for a final frame; returns its size (2, 4 or 10). */
size_t ws_write_header(uint8_t out[WS_HEADER_MAX], enum ws_opcode opcode, size_t payload_size);
/* A final frame, ready to be shared. */
struct payload *ws_frame(enum ws_opcode opcode, const void *data, size_t size);
struct payload *ws_close_frame(uint16_t code, const char *reason);

#endif
