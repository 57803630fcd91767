/* A cluster in one process and in virtual time: the real gateways, shards and links, on a bus that loses, repeats and
 * delays, with connections to model clients. A seed reproduces a run exactly.
 *
 * The bus keeps the order of what one process sends to another, as NATS does, and nothing else. Connections are TCP:
 * they delay, keep order, and end.
 *
 * Ownership: world_free() frees everything, connections included. Threading: one thread.
 */
#ifndef SBX_TESTS_SIM_WORLD_H
#define SBX_TESTS_SIM_WORLD_H

#include "common/timer.h"
#include "gateway/gateway.h"
#include "shard/shard.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WORLD_PROCESSES_MAX = 16 };

struct world;
struct world_conn;

/* What the network does to each message; permille and milliseconds. */
struct world_faults {
    uint32_t bus_loss, bus_duplication, bus_delay_max_ms, client_delay_max_ms;
};

struct world_options {
    uint64_t seed;
    int gateways, shards;
    struct world_faults faults;
    struct shard_limits shard_limits;
    struct gateway_limits gateway_limits;
};

struct conn_handlers {
    /* Borrowed for the call. */
    void (*message)(void *ctx, const Signalbox__V1__ServerMessage *message);
    /* The gateway has closed; nothing comes after this. */
    void (*closed)(void *ctx, uint16_t code);
};

/* Quiet faults and the modules' default limits. */
struct world_options world_default_options(uint64_t seed);
struct world *world_new(const struct world_options *options);
void world_free(struct world **world);

/* Lets time pass. */
void world_run(struct world *world, int64_t ms);
int64_t world_now_ms(const struct world *world);
struct timer_wheel *world_wheel(struct world *world);
/* Less than `below`. */
uint64_t world_random(struct world *world, uint64_t below);
void world_set_faults(struct world *world, const struct world_faults *faults);
/* Appends a view without the shard (or with it again, as a new incarnation that knows nothing); every process learns of
 * it at a moment of its own within `spread_ms`. */
void world_remove_shard(struct world *world, int shard, int64_t spread_ms);
void world_add_shard(struct world *world, int shard, int64_t spread_ms);

/* A step of this room, for the story of a run. */
void world_note(struct world *world, const char *room, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* An access token for any room of that name; the caller frees it. */
char *world_mint(struct world *world, const char *identity, const char *room);

struct world_conn *world_connect(struct world *world, int gateway, const struct conn_handlers *handlers, void *ctx);
void world_send(struct world_conn *conn, const Signalbox__V1__ClientMessage *message);
/* The client ends the connection, and hears nothing more from it. The gateway notices when the network lets it. */
void world_disconnect(struct world_conn **conn, bool clean);

struct gateway *world_gateway(struct world *world, int gateway);
/* The cluster knows of it: whom it holds is not taken for gone. */
bool world_gateway_counts(const struct world *world, int gateway);
/* NULL while the shard is not in the view. */
struct shard *world_shard(struct world *world, int shard);

#endif
