/* Forwarding headers. Input: lines, each the value of one header, read in both forms. */
#include "common/mem.h"
#include "gateway/forwarded.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { VALUES_MAX = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct net_block block;
    assert(net_block_parse("10.0.0.0/8", &block));
    const struct net_blocks trusted = {&block, 1};
    static const uint8_t trusted_peer[4] = {10, 0, 0, 1}, stranger_peer[4] = {192, 0, 2, 1};
    struct net_address peer = net_address_from_ipv4(trusted_peer), stranger = net_address_from_ipv4(stranger_peer);
    struct ws_slice values[VALUES_MAX];
    size_t count = 0;

    /* Every value is a block of its own, so that a read past its end is seen. */
    while (size > 0 && count < VALUES_MAX) {
        const uint8_t *end = memchr(data, '\n', size);
        size_t length = end ? (size_t)(end - data) : size, taken = end ? length + 1 : length;
        values[count++] = (struct ws_slice){mem_dup(data, length), length};
        data += taken;
        size -= taken;
    }
    for (enum forwarded_form form = FORWARDED_X_FORWARDED_FOR; form <= FORWARDED_RFC7239; form++) {
        forwarded_client(&peer, &trusted, form, values, count);
        struct net_address client = forwarded_client(&stranger, &trusted, form, values, count);
        assert(memcmp(&client, &stranger, sizeof(client)) == 0);
    }
    for (size_t i = 0; i < count; i++)
        free((void *)(uintptr_t)values[i].data);
    return 0;
}
