/* Addresses of clients and blocks of addresses, whatever family they came from: IPv4 is held as ::ffff:a.b.c.d
 * (RFC 4291 section 2.5.5.2), so that a client has one address however a socket or a header wrote it.
 *
 * Threading: pure functions.
 */
#ifndef SBX_GATEWAY_NET_ADDRESS_H
#define SBX_GATEWAY_NET_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum { NET_ADDRESS_TEXT_SIZE = 46 };

struct net_address {
    uint8_t bytes[16];
};

/* "10.0.0.0/8", "2001:db8::/32", or one address. */
struct net_block {
    struct net_address base;
    uint8_t prefix_bits; /* 0..128 */
};

struct net_blocks {
    struct net_block *blocks; /* owned */
    size_t count;
};

/* False for families other than IPv4 and IPv6. */
bool net_address_from_sockaddr(const struct sockaddr *address, struct net_address *ret_address);
struct net_address net_address_from_ipv4(const uint8_t bytes[4]);
/* Numeric, without brackets, port or zone. */
bool net_address_parse(const char *text, size_t size, struct net_address *ret_address);
void net_address_format(const struct net_address *address, char text[NET_ADDRESS_TEXT_SIZE]);
/* What is limited as one client: an IPv4 address, or the /64 of an IPv6 address, which is the least that a subscriber
 * gets (RFC 6177). */
uint64_t net_address_client_key(const struct net_address *address);

/* False if it is no address, or the prefix is too long. Bits behind the prefix are ignored. */
bool net_block_parse(const char *text, struct net_block *ret_block);
bool net_blocks_contain(const struct net_blocks *blocks, const struct net_address *address);

#endif
