/* The WebSocket opening handshake (RFC 6455 section 4.2), free of I/O: checks an upgrade request and computes what the
 * 101 answer needs.
 *
 * Subprotocols: the client offers at least one encoding, signalbox.v1.protobuf or signalbox.v1.json; the first of ours
 * in its order is chosen. Browsers cannot set headers, so an access token may travel as one more offered value,
 * signalbox.token.<JWT>; it is never echoed.
 *
 * Origins: a request without Origin comes from a native client and is allowed; a browser's is held against the
 * configured list of patterns:
 *   "*"                        any, "null" included
 *   "https://app.example.com"  exactly this; a port counts unless it is the scheme's own
 *   the same with a host of "*.example.com": its subdomains at any depth, not example.com itself
 *
 * Ownership: slices are borrowed from the request. Threading: pure functions. Header sizes are bounded by whoever
 * parsed the request.
 */
#ifndef SBX_GATEWAY_WS_HANDSHAKE_H
#define SBX_GATEWAY_WS_HANDSHAKE_H

#include "common/config.h"
#include <stdbool.h>
#include <stddef.h>

struct ws_slice {
    const char *data; /* not NUL-terminated */
    size_t size;
};

struct ws_request_header {
    struct ws_slice name; /* any case */
    struct ws_slice value;
};

struct ws_request {
    struct ws_slice method;
    int http_version; /* major << 8 | minor */
    const struct ws_request_header *headers;
    size_t header_count;
};

/* X(enumerator, name, status, detail, answer header, its value): every outcome of the check, in the order of the
 * checks. */
#define WS_HANDSHAKE_RESULTS(X)                                                                                        \
    X(WS_HANDSHAKE_OK, "ok", 101, "Switching protocols.", NULL, NULL)                                                  \
    X(WS_HANDSHAKE_METHOD, "method_not_get", 405, "A WebSocket is opened with GET.", "Allow", "GET")                   \
    X(WS_HANDSHAKE_HTTP_VERSION, "http_version", 400, "A WebSocket is opened over HTTP/1.1.", NULL, NULL)              \
    X(WS_HANDSHAKE_NOT_AN_UPGRADE, "not_an_upgrade", 426,                                                              \
      "This address speaks WebSocket only: send Upgrade: websocket and Connection: Upgrade. A proxy in between must "  \
      "pass both on.",                                                                                                 \
      "Upgrade", "websocket")                                                                                          \
    X(WS_HANDSHAKE_WS_VERSION, "websocket_version", 426, "Sec-WebSocket-Version must be 13.", "Sec-WebSocket-Version", \
      "13")                                                                                                            \
    X(WS_HANDSHAKE_KEY, "websocket_key", 400, "Sec-WebSocket-Key must be 16 bytes in base64, once.", NULL, NULL)       \
    X(WS_HANDSHAKE_ORIGIN, "origin_not_allowed", 403, "This Origin is not among the allowed origins of this server.",  \
      NULL, NULL)                                                                                                      \
    X(WS_HANDSHAKE_NO_SUBPROTOCOL, "no_subprotocol", 400,                                                              \
      "Offer the subprotocol signalbox.v1.protobuf or signalbox.v1.json.", NULL, NULL)                                 \
    X(WS_HANDSHAKE_BAD_SUBPROTOCOL, "malformed_subprotocols", 400,                                                     \
      "Sec-WebSocket-Protocol must be a list of tokens with at most one signalbox.token.<JWT>.", NULL, NULL)

enum ws_handshake_result {
#define X(enumerator, name, status, detail, header, value) enumerator,
    WS_HANDSHAKE_RESULTS(X)
#undef X
};

/* How to answer. */
struct ws_handshake_answer {
    const char *name;                       /* stable snake_case, for metrics labels, problem bodies and logs */
    const char *detail;                     /* a sentence for the person who wrote the client */
    unsigned status;                        /* HTTP */
    const char *header_name, *header_value; /* a header that must go with the status; NULL if none */
};

enum ws_subprotocol { WS_SUBPROTOCOL_PROTOBUF, WS_SUBPROTOCOL_JSON };

enum { WS_ACCEPT_SIZE = 28 };

struct ws_handshake {
    enum ws_subprotocol subprotocol;
    struct ws_slice token;           /* the JWT alone; size 0 if none was offered */
    char accept[WS_ACCEPT_SIZE + 1]; /* Sec-WebSocket-Accept */
};

/* Fills `ret_handshake` (untouched on failure). */
enum ws_handshake_result ws_handshake_check(const struct ws_request *request,
                                            const struct config_strings *allowed_origins,
                                            struct ws_handshake *ret_handshake);
const struct ws_handshake_answer *ws_handshake_answer(enum ws_handshake_result result);
/* What Sec-WebSocket-Protocol of the answer says. */
const char *ws_subprotocol_name(enum ws_subprotocol subprotocol);
/* Whether `pattern` may stand in the list of allowed origins. */
bool ws_origin_pattern_valid(const char *pattern);

#endif
