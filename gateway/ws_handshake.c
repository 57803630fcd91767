#include "gateway/ws_handshake.h"
#include <assert.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <string.h>
#include <strings.h>

#define SLICE(literal) ((struct ws_slice){literal, sizeof(literal) - 1})

enum { KEY_SIZE = 24, KEY_DIGITS = 22 }; /* 16 bytes in base64: 22 digits and "==" */
enum { GUID_SIZE = 36 };

static const char *const subprotocol_names[] = {
    [WS_SUBPROTOCOL_PROTOBUF] = "signalbox.v1.protobuf",
    [WS_SUBPROTOCOL_JSON] = "signalbox.v1.json",
};

static const struct ws_handshake_answer answers[] = {
#define X(enumerator, label, code, text, header, value)                                                                \
    [enumerator] = {                                                                                                   \
        .name = (label), .detail = (text), .status = (code), .header_name = (header), .header_value = (value)},
    WS_HANDSHAKE_RESULTS(X)
#undef X
};

const struct ws_handshake_answer *ws_handshake_answer(enum ws_handshake_result result)
{
    assert(result < sizeof(answers) / sizeof(answers[0]));
    return &answers[result];
}

const char *ws_subprotocol_name(enum ws_subprotocol subprotocol)
{
    return subprotocol_names[subprotocol];
}

/* ASCII alone, whatever the locale. */
static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool slice_equal(struct ws_slice a, struct ws_slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static bool slice_equal_nocase(struct ws_slice a, struct ws_slice b)
{
    return a.size == b.size && (a.size == 0 || strncasecmp(a.data, b.data, a.size) == 0);
}

static struct ws_slice slice_skip(struct ws_slice slice, size_t size)
{
    return (struct ws_slice){slice.data + size, slice.size - size};
}

static struct ws_slice slice_trim(struct ws_slice slice)
{
    while (slice.size > 0 && (slice.data[0] == ' ' || slice.data[0] == '\t'))
        slice = slice_skip(slice, 1);
    while (slice.size > 0 && (slice.data[slice.size - 1] == ' ' || slice.data[slice.size - 1] == '\t'))
        slice.size--;
    return slice;
}

/* How often the header is there; `ret_value` is its last value. For headers that may be there once. */
static size_t header_find(const struct ws_request *request, struct ws_slice name, struct ws_slice *ret_value)
{
    size_t count = 0;

    for (size_t i = 0; i < request->header_count; i++) {
        if (slice_equal_nocase(request->headers[i].name, name)) {
            *ret_value = slice_trim(request->headers[i].value);
            count++;
        }
    }
    return count;
}

/* Walks the comma-separated elements of a header that may be spread over several lines (RFC 9110 section 5.3). Empty
 * elements are skipped. */
struct list_cursor {
    const struct ws_request *request;
    struct ws_slice name;
    size_t next_header;
    struct ws_slice rest;
};

static bool list_next(struct list_cursor *cursor, struct ws_slice *ret_element)
{
    for (;;) {
        while (cursor->rest.size > 0) {
            const char *comma = memchr(cursor->rest.data, ',', cursor->rest.size);
            size_t size = comma ? (size_t)(comma - cursor->rest.data) : cursor->rest.size;
            struct ws_slice element = slice_trim((struct ws_slice){cursor->rest.data, size});
            cursor->rest = slice_skip(cursor->rest, comma ? size + 1 : size);
            if (element.size > 0) {
                *ret_element = element;
                return true;
            }
        }
        if (cursor->next_header == cursor->request->header_count)
            return false;
        const struct ws_request_header *header = &cursor->request->headers[cursor->next_header++];
        if (slice_equal_nocase(header->name, cursor->name))
            cursor->rest = header->value;
    }
}

static bool list_contains(const struct ws_request *request, struct ws_slice name, struct ws_slice wanted)
{
    struct list_cursor cursor = {.request = request, .name = name};
    struct ws_slice element;

    while (list_next(&cursor, &element)) {
        if (slice_equal_nocase(element, wanted))
            return true;
    }
    return false;
}

static bool key_valid(struct ws_slice key)
{
    if (key.size != KEY_SIZE || key.data[KEY_DIGITS] != '=' || key.data[KEY_DIGITS + 1] != '=')
        return false;
    for (size_t i = 0; i < KEY_DIGITS; i++) {
        if (!is_alnum(key.data[i]) && key.data[i] != '+' && key.data[i] != '/')
            return false;
    }
    return true;
}

/* RFC 6455 section 4.2.2, step 5.4. */
static void accept_compute(struct ws_slice key, char ret_accept[WS_ACCEPT_SIZE + 1])
{
    static const char guid[GUID_SIZE + 1] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char input[KEY_SIZE + GUID_SIZE];
    unsigned char digest[SHA_DIGEST_LENGTH];

    memcpy(input, key.data, KEY_SIZE);
    memcpy(input + KEY_SIZE, guid, GUID_SIZE);
    SHA1(input, sizeof(input), digest);
    EVP_EncodeBlock((unsigned char *)ret_accept, digest, sizeof(digest));
}

struct origin {
    struct ws_slice scheme;
    struct ws_slice host;
    struct ws_slice port; /* empty = the scheme's own */
    bool subdomains;      /* a pattern for what is below `host` */
};

static bool scheme_valid(struct ws_slice scheme)
{
    for (size_t i = 0; i < scheme.size; i++) {
        char c = scheme.data[i];
        if (!is_alnum(c) && c != '+' && c != '-' && c != '.')
            return false;
    }
    return scheme.size > 0;
}

static bool port_valid(struct ws_slice port)
{
    unsigned number = 0;

    if (port.size == 0 || port.size > 5)
        return false;
    for (size_t i = 0; i < port.size; i++) {
        if (port.data[i] < '0' || port.data[i] > '9')
            return false;
        number = number * 10 + (unsigned)(port.data[i] - '0');
    }
    return number > 0 && number <= 65535;
}

/* A DNS name, an IPv4 address, or an IPv6 address in brackets: the characters only, which is enough for what must be
 * equal to a configured host. */
static bool host_valid(struct ws_slice host)
{
    bool ipv6 = host.size > 2 && host.data[0] == '[' && host.data[host.size - 1] == ']';

    if (ipv6)
        host = (struct ws_slice){host.data + 1, host.size - 2};
    if (host.size == 0 || host.data[0] == '.')
        return false;
    for (size_t i = 0; i < host.size; i++) {
        char c = host.data[i];
        if (!is_alnum(c) && c != '.' && !(ipv6 ? c == ':' : c == '-' || c == '_'))
            return false;
    }
    return true;
}

/* Splits a serialised origin (RFC 6454 section 6.2) or a pattern. False for "null" and whatever else has no host. */
static bool origin_parse(struct ws_slice text, bool is_pattern, struct origin *ret_origin)
{
    const char *separator = text.size > 0 ? memmem(text.data, text.size, "://", 3) : NULL;
    if (!separator)
        return false;

    struct origin origin = {.scheme = {text.data, (size_t)(separator - text.data)}};
    origin.host = slice_skip(text, origin.scheme.size + 3);
    const char *colon = memrchr(origin.host.data, ':', origin.host.size);
    const char *bracket = memrchr(origin.host.data, ']', origin.host.size);
    if (colon && (!bracket || colon > bracket)) {
        size_t host_size = (size_t)(colon - origin.host.data);
        origin.port = slice_skip(origin.host, host_size + 1);
        origin.host.size = host_size;
        if (!port_valid(origin.port))
            return false;
    }
    if (is_pattern && origin.host.size > 2 && memcmp(origin.host.data, "*.", 2) == 0) {
        origin.subdomains = true;
        origin.host = slice_skip(origin.host, 2);
    }
    if (!scheme_valid(origin.scheme) || !host_valid(origin.host))
        return false;
    if ((slice_equal_nocase(origin.scheme, SLICE("https")) && slice_equal(origin.port, SLICE("443"))) ||
        (slice_equal_nocase(origin.scheme, SLICE("http")) && slice_equal(origin.port, SLICE("80"))))
        origin.port.size = 0;
    *ret_origin = origin;
    return true;
}

static bool pattern_parse(const char *pattern, struct origin *ret_origin)
{
    return origin_parse((struct ws_slice){pattern, strlen(pattern)}, true, ret_origin);
}

bool ws_origin_pattern_valid(const char *pattern)
{
    struct origin origin;

    return strcmp(pattern, "*") == 0 || pattern_parse(pattern, &origin);
}

static bool origin_matches(const struct origin *origin, const struct origin *pattern)
{
    struct ws_slice host = origin->host;

    if (!slice_equal_nocase(origin->scheme, pattern->scheme) || !slice_equal(origin->port, pattern->port))
        return false;
    if (pattern->subdomains) {
        if (host.size <= pattern->host.size + 1)
            return false;
        host = slice_skip(host, host.size - pattern->host.size - 1);
        if (host.data[0] != '.')
            return false;
        host = slice_skip(host, 1);
    }
    return slice_equal_nocase(host, pattern->host);
}

static bool origin_allowed(const struct ws_request *request, const struct config_strings *allowed_origins)
{
    struct ws_slice text = {0};
    size_t count = header_find(request, SLICE("origin"), &text);
    struct origin origin, pattern;

    if (count != 1)
        return count == 0;
    bool parsed = origin_parse(text, false, &origin);
    for (size_t i = 0; i < allowed_origins->count; i++) {
        if (strcmp(allowed_origins->values[i], "*") == 0)
            return true;
        if (parsed && pattern_parse(allowed_origins->values[i], &pattern) && origin_matches(&origin, &pattern))
            return true;
    }
    return false;
}

/* RFC 9110 section 5.6.2. */
static bool token_valid(struct ws_slice token)
{
    for (size_t i = 0; i < token.size; i++) {
        char c = token.data[i];
        if (!is_alnum(c) && (c == '\0' || !strchr("!#$%&'*+-.^_`|~", c)))
            return false;
    }
    return token.size > 0;
}

static enum ws_handshake_result subprotocols_take(const struct ws_request *request, struct ws_handshake *handshake)
{
    struct list_cursor cursor = {.request = request, .name = SLICE("sec-websocket-protocol")};
    const struct ws_slice prefix = SLICE("signalbox.token.");
    struct ws_slice element;
    bool chosen = false;

    while (list_next(&cursor, &element)) {
        if (!token_valid(element))
            return WS_HANDSHAKE_BAD_SUBPROTOCOL;
        if (element.size >= prefix.size && memcmp(element.data, prefix.data, prefix.size) == 0) {
            if (handshake->token.size > 0 || element.size == prefix.size)
                return WS_HANDSHAKE_BAD_SUBPROTOCOL;
            handshake->token = slice_skip(element, prefix.size);
        }
        for (size_t i = 0; i < sizeof(subprotocol_names) / sizeof(subprotocol_names[0]) && !chosen; i++) {
            if (slice_equal(element, (struct ws_slice){subprotocol_names[i], strlen(subprotocol_names[i])})) {
                handshake->subprotocol = (enum ws_subprotocol)i;
                chosen = true;
            }
        }
    }
    return chosen ? WS_HANDSHAKE_OK : WS_HANDSHAKE_NO_SUBPROTOCOL;
}

enum ws_handshake_result ws_handshake_check(const struct ws_request *request,
                                            const struct config_strings *allowed_origins,
                                            struct ws_handshake *ret_handshake)
{
    struct ws_handshake handshake = {0};
    struct ws_slice version, key;

    if (!slice_equal(request->method, SLICE("GET")))
        return WS_HANDSHAKE_METHOD;
    if (request->http_version != 0x101)
        return WS_HANDSHAKE_HTTP_VERSION;
    if (!list_contains(request, SLICE("upgrade"), SLICE("websocket")) ||
        !list_contains(request, SLICE("connection"), SLICE("upgrade")))
        return WS_HANDSHAKE_NOT_AN_UPGRADE;
    if (header_find(request, SLICE("sec-websocket-version"), &version) != 1 || !slice_equal(version, SLICE("13")))
        return WS_HANDSHAKE_WS_VERSION;
    if (header_find(request, SLICE("sec-websocket-key"), &key) != 1 || !key_valid(key))
        return WS_HANDSHAKE_KEY;
    if (!origin_allowed(request, allowed_origins))
        return WS_HANDSHAKE_ORIGIN;
    enum ws_handshake_result result = subprotocols_take(request, &handshake);
    if (result != WS_HANDSHAKE_OK)
        return result;
    accept_compute(key, handshake.accept);
    *ret_handshake = handshake;
    return WS_HANDSHAKE_OK;
}
