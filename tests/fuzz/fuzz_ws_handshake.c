/* The check of a WebSocket upgrade request.
 *
 * Input: lines. The first is an origin pattern, the others are headers "name:value" of a GET over HTTP/1.1. Every name
 * and value is a heap block of its own, so that a read past its end is seen. */
#include "common/mem.h"
#include "gateway/ws_handshake.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { HEADERS_MAX = 32 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Cuts the text up to `end` (or all of it) off `*text`. */
static struct ws_slice take_until(struct ws_slice *text, char end)
{
    if (text->size == 0)
        return (struct ws_slice){0};
    const char *found = memchr(text->data, end, text->size);
    size_t size = found ? (size_t)(found - text->data) : text->size;
    struct ws_slice taken = {size > 0 ? mem_dup(text->data, size) : NULL, size};

    text->data += found ? size + 1 : size;
    text->size -= found ? size + 1 : size;
    return taken;
}

static void slice_free(struct ws_slice slice)
{
    free((void *)(uintptr_t)slice.data);
}

static void check_success(const struct ws_request *request, const struct ws_handshake *handshake)
{
    bool token_found = handshake->token.size == 0;

    assert(strlen(handshake->accept) == WS_ACCEPT_SIZE);
    assert(strncmp(ws_subprotocol_name(handshake->subprotocol), "signalbox.v1.", 13) == 0);
    for (size_t i = 0; i < request->header_count; i++) {
        struct ws_slice value = request->headers[i].value;
        if (value.size > 0 && handshake->token.data >= value.data &&
            handshake->token.data + handshake->token.size <= value.data + value.size)
            token_found = true;
    }
    assert(token_found);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ws_slice rest = {(const char *)data, size};
    struct ws_request_header headers[HEADERS_MAX];
    struct ws_request request = {.method = {"GET", 3}, .http_version = 0x101, .headers = headers};
    struct ws_handshake handshake, before;

    struct ws_slice line = take_until(&rest, '\n');
    char *pattern = mem_strndup(line.size > 0 ? line.data : "", line.size);
    const struct config_strings origins = {.values = &pattern, .count = 1};
    slice_free(line);
    while (rest.size > 0 && request.header_count < HEADERS_MAX) {
        line = take_until(&rest, '\n');
        struct ws_slice left = line;
        headers[request.header_count].name = take_until(&left, ':');
        headers[request.header_count++].value = take_until(&left, '\n');
        slice_free(line);
    }

    memset(&handshake, 0xaa, sizeof(handshake));
    before = handshake;
    enum ws_handshake_result result = ws_handshake_check(&request, &origins, &handshake);
    if (result == WS_HANDSHAKE_OK)
        check_success(&request, &handshake);
    else
        assert(memcmp(&handshake, &before, sizeof(handshake)) == 0);
    assert(ws_handshake_answer(result)->status >= 101);
    ws_origin_pattern_valid(pattern);

    for (size_t i = 0; i < request.header_count; i++) {
        slice_free(headers[i].name);
        slice_free(headers[i].value);
    }
    free(pattern);
    return 0;
}
