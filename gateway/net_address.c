#include "gateway/net_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

enum { MAPPED_PREFIX_BITS = 96 };

static const uint8_t mapped_prefix[12] = {[10] = 0xff, [11] = 0xff};

static bool is_ipv4(const struct net_address *address)
{
    return memcmp(address->bytes, mapped_prefix, sizeof(mapped_prefix)) == 0;
}

struct net_address net_address_from_ipv4(const uint8_t bytes[4])
{
    struct net_address address;
    memcpy(address.bytes, mapped_prefix, sizeof(mapped_prefix));
    memcpy(address.bytes + sizeof(mapped_prefix), bytes, 4);
    return address;
}

bool net_address_from_sockaddr(const struct sockaddr *address, struct net_address *ret_address)
{
    switch (address->sa_family) {
    case AF_INET:
        *ret_address =
            net_address_from_ipv4((const uint8_t *)&((const struct sockaddr_in *)(const void *)address)->sin_addr);
        return true;
    case AF_INET6:
        memcpy(ret_address->bytes, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 16);
        return true;
    default:
        return false;
    }
}

bool net_address_parse(const char *text, size_t size, struct net_address *ret_address)
{
    char copy[NET_ADDRESS_TEXT_SIZE];
    uint8_t bytes[16];

    if (size == 0 || size >= sizeof(copy) || memchr(text, '\0', size) != NULL)
        return false;
    memcpy(copy, text, size);
    copy[size] = '\0';
    if (inet_pton(AF_INET, copy, bytes) == 1) {
        *ret_address = net_address_from_ipv4(bytes);
        return true;
    }
    if (inet_pton(AF_INET6, copy, bytes) != 1)
        return false;
    memcpy(ret_address->bytes, bytes, sizeof(bytes));
    return true;
}

void net_address_format(const struct net_address *address, char text[NET_ADDRESS_TEXT_SIZE])
{
    if (is_ipv4(address))
        inet_ntop(AF_INET, address->bytes + sizeof(mapped_prefix), text, NET_ADDRESS_TEXT_SIZE);
    else
        inet_ntop(AF_INET6, address->bytes, text, NET_ADDRESS_TEXT_SIZE);
}

uint64_t net_address_client_key(const struct net_address *address)
{
    /* The first 64 bits of every IPv4 address are 0, so they stand apart under a prefix that no IPv6 client has. */
    const uint8_t *from = is_ipv4(address) ? address->bytes + 8 : address->bytes;
    uint64_t key = 0;
    for (size_t i = 0; i < 8; i++)
        key = key << 8 | from[i];
    return key;
}

bool net_block_parse(const char *text, struct net_block *ret_block)
{
    const char *slash = strchr(text, '/');
    struct net_block block;

    if (!net_address_parse(text, slash ? (size_t)(slash - text) : strlen(text), &block.base))
        return false;
    /* An IPv4 address in IPv6 notation counts its prefix in IPv6 bits. */
    bool v4_notation = strchr(text, ':') == NULL;
    unsigned bits_max = v4_notation ? 32 : 128, bits = bits_max;
    if (slash != NULL) {
        size_t digits = strspn(slash + 1, "0123456789");
        if (digits == 0 || digits > 3 || slash[1 + digits] != '\0')
            return false;
        bits = (unsigned)atoi(slash + 1);
        if (bits > bits_max)
            return false;
    }
    block.prefix_bits = (uint8_t)(v4_notation ? MAPPED_PREFIX_BITS + bits : bits);
    *ret_block = block;
    return true;
}

static bool block_contains(const struct net_block *block, const struct net_address *address)
{
    size_t bytes = block->prefix_bits / 8;
    unsigned rest = block->prefix_bits % 8;

    if (memcmp(block->base.bytes, address->bytes, bytes) != 0)
        return false;
    return rest == 0 || (block->base.bytes[bytes] ^ address->bytes[bytes]) >> (8 - rest) == 0;
}

bool net_blocks_contain(const struct net_blocks *blocks, const struct net_address *address)
{
    for (size_t i = 0; i < blocks->count; i++)
        if (block_contains(&blocks->blocks[i], address))
            return true;
    return false;
}
