/* WebSocket framing (RFC 6455): the server's side of the wire, free of I/O.
 *
 * Parser: fed with whatever bytes arrived, in any pieces; unmasks in place; assembles fragmented messages up to a
 * limit; reports whole messages and control frames through callbacks; as strict as the Autobahn suite demands (masking,
 * RSV bits, opcodes, minimal lengths, control frame rules, close codes, UTF-8 checked incrementally so that a bad text
 * fails as soon as it can). An idle parser holds no heap memory: it borrows the caller's buffer for messages that
 * arrive whole and allocates only for those that do not.
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

enum { WS_HEADER_MAX = 10, WS_CONTROL_MAX = 125, WS_REASON_MAX = WS_CONTROL_MAX - 2 };

/* ws_parser_feed() returns this when the connection ends without an error of the peer's. */
enum { WS_STOPPED = 1 };

struct ws_partial;

/* 40 bytes, because every idle connection holds one. */
struct ws_parser {
    struct ws_partial *partial; /* owned: bytes of a message or control frame that did not arrive whole; mostly NULL */
    uint32_t message_limit_bytes;
    uint32_t frame_left_bytes; /* payload of the current frame that is still to come */
    uint8_t header[14];        /* of the current frame, as far as it has arrived */
    uint8_t header_size;
    bool in_payload;        /* the header is complete */
    uint8_t mask_phase;     /* of the next payload byte, 0..3 */
    uint8_t message_opcode; /* of the message in progress; 0 if none */
    uint8_t utf8_state;     /* of the text message in progress */
};

/* Each handler returns false to stop parsing; it may call ws_parser_done() before it does. */
struct ws_handlers {
    /* A whole text or binary message. The bytes are borrowed for the call and may be modified. */
    bool (*message)(void *ctx, enum ws_opcode opcode, uint8_t *data, size_t size);
    /* PING, PONG or CLOSE with its payload (a CLOSE has passed the checks on its code and reason). Nothing that follows
     * a CLOSE is looked at, whatever the handler returns. */
    bool (*control)(void *ctx, enum ws_opcode opcode, const uint8_t *data, size_t size);
};

/* A message may have up to `message_limit_bytes` in all of its fragments together; less than 2 GiB. */
void ws_parser_init(struct ws_parser *parser, size_t message_limit_bytes);
void ws_parser_done(struct ws_parser *parser);
/* 0 to go on; WS_STOPPED after a CLOSE or when a handler said stop; or the close code to fail the connection with (then
 * `*ret_reason` is a literal text for the close frame). After anything but 0 the parser is not fed again. `data` is
 * modified. The outcome does not depend on how the bytes were split. */
int ws_parser_feed(struct ws_parser *parser, uint8_t *data, size_t size, const struct ws_handlers *handlers, void *ctx,
                   const char **ret_reason);

/* Writes an unmasked header for a final frame; returns its size (2, 4 or 10). */
size_t ws_write_header(uint8_t out[WS_HEADER_MAX], enum ws_opcode opcode, size_t payload_size);
/* A final frame, ready to be shared. */
struct payload *ws_frame(enum ws_opcode opcode, const void *data, size_t size);
/* `reason` may be NULL; what does not fit into a control frame is cut off between two characters. */
struct payload *ws_close_frame(uint16_t code, const char *reason);

#endif
