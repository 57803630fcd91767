#include "gateway/peers.h"

#include "common/bucket.h"
#include "common/ids.h"
#include "common/list.h"
#include "common/mem.h"
#include <assert.h>
#include <stdlib.h>

struct peer {
    struct peer *next; /* in its chain */
    uint64_t key;
    struct list idle; /* on peers->idle while it has no connection */
    struct bucket arrivals;
    uint32_t connections;
};

struct peers {
    struct peer **chains;
    size_t chain_count; /* a power of 2 */
    struct list idle;   /* longest idle first */
    size_t idle_count, count;
};

struct peers *peers_new(size_t connections_max)
{
    struct peers *peers = mem_new(struct peers);
    peers->chain_count = 1;
    while (peers->chain_count < connections_max + PEERS_IDLE_MAX)
        peers->chain_count *= 2;
    peers->chains = mem_zalloc(peers->chain_count * sizeof(*peers->chains));
    list_init(&peers->idle);
    return peers;
}

static struct peer **find(struct peers *peers, uint64_t key)
{
    struct peer **at = &peers->chains[table_hash(&key, sizeof(key)) & (peers->chain_count - 1)];
    while (*at != NULL && (*at)->key != key)
        at = &(*at)->next;
    return at;
}

static void forget(struct peers *peers, struct peer *peer)
{
    assert(peer->connections == 0);
    *find(peers, peer->key) = peer->next;
    list_remove(&peer->idle);
    peers->idle_count--;
    peers->count--;
    free(peer);
}

void peers_free(struct peers **peers_ptr)
{
    struct peers *peers = *peers_ptr;
    *peers_ptr = NULL;
    if (peers == NULL)
        return;
    while (!list_empty(&peers->idle))
        forget(peers, list_first(&peers->idle, struct peer, idle));
    assert(peers->count == 0);
    free(peers->chains);
    free(peers);
}

static void enter_idle(struct peers *peers, struct peer *peer)
{
    list_append(&peers->idle, &peer->idle);
    if (++peers->idle_count > PEERS_IDLE_MAX)
        forget(peers, list_first(&peers->idle, struct peer, idle));
}

/* The address's record; a new one is idle. */
static struct peer *look_up(struct peers *peers, uint64_t key, const struct bucket_limit *rate, int64_t now_ms)
{
    struct peer **at = find(peers, key);
    if (*at != NULL)
        return *at;
    struct peer *peer = *at = mem_new(struct peer);
    peer->key = key;
    list_init(&peer->idle);
    bucket_init(&peer->arrivals, rate, now_ms);
    peers->count++;
    enter_idle(peers, peer);
    return peer;
}

enum peer_result peers_enter(struct peers *peers, const struct net_address *address, const struct peer_limits *limits,
                             int64_t now_ms, struct peer **ret_peer)
{
    const struct bucket_limit rate = {.rate_per_s = limits->arrivals_per_s, .burst = 2 * limits->arrivals_per_s};
    struct peer *peer = look_up(peers, net_address_client_key(address), &rate, now_ms);

    if (limits->connections > 0 && peer->connections >= limits->connections)
        return PEER_TOO_MANY;
    if (!bucket_take(&peer->arrivals, &rate, 1, now_ms))
        return PEER_TOO_FAST;
    if (peer->connections++ == 0) {
        list_remove(&peer->idle);
        peers->idle_count--;
    }
    *ret_peer = peer;
    return PEER_OK;
}

void peers_leave(struct peers *peers, struct peer **peer_ptr)
{
    struct peer *peer = *peer_ptr;
    *peer_ptr = NULL;
    if (peer == NULL)
        return;
    assert(peer->connections > 0);
    if (--peer->connections == 0)
        enter_idle(peers, peer);
}

size_t peers_count(const struct peers *peers)
{
    return peers->count;
}
