/* The PROXY protocol header. Input: the first bytes of a connection. */
#include "gateway/proxy_protocol.h"
#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_header header, again;
    ssize_t result = proxy_protocol_parse(data, size, &header);

    assert(result <= (ssize_t)size && result <= PROXY_HEADER_MAX);
    /* Whatever the split: every proper part of a header is incomplete, and what follows it does not matter. */
    for (ssize_t i = 0; i < result; i++)
        assert(proxy_protocol_parse(data, (size_t)i, &again) == PROXY_INCOMPLETE);
    if (result > 0) {
        assert(proxy_protocol_parse(data, (size_t)result, &again) == result);
        assert(header.has_source == again.has_source);
    }
    return 0;
}
