/* How many connections each client address has, and how fast it makes new ones: what can be refused before a handshake
 * has cost anything. An address is an IPv4 address or an IPv6 /64.
 *
 * The table is bounded: it holds every address that has a connection, of which there are at most as many as
 * connections, and the last PEERS_IDLE_MAX that had one, so that a rate is remembered across reconnects.
 *
 * Free of I/O. Threading: loop thread.
 */
#ifndef SBX_GATEWAY_PEERS_H
#define SBX_GATEWAY_PEERS_H

#include "gateway/net_address.h"
#include <stdint.h>

enum { PEERS_IDLE_MAX = 4096 };

struct peers;
struct peer; /* one address */

struct peer_limits {
    uint32_t connections;    /* at a time; 0 = unlimited */
    uint32_t arrivals_per_s; /* in the long run, twice as many at once; 0 = unlimited */
};

enum peer_result {
    PEER_OK = 0,
    PEER_TOO_MANY = -1,
    PEER_TOO_FAST = -2,
};

struct peers *peers_new(size_t connections_max);
/* Every connection must have left. */
void peers_free(struct peers **peers);
/* Counts a connection; ret_peer is what it leaves with. */
enum peer_result peers_enter(struct peers *peers, const struct net_address *address, const struct peer_limits *limits,
                             int64_t now_ms, struct peer **ret_peer);
/* NULL-safe; nulls the caller's pointer. */
void peers_leave(struct peers *peers, struct peer **peer);
/* Addresses in the table. */
size_t peers_count(const struct peers *peers);

#endif
