/* One process's parts and how they are joined: what common/node.c, shard/process.c and gateway/process.c do with a real
 * loop and bus. */
#ifndef SBX_TESTS_SIM_CLUSTER_WIRING_H
#define SBX_TESTS_SIM_CLUSTER_WIRING_H

#include "tests/sim/cluster.h"

/* A new incarnation of the process's id. */
void wiring_name(struct process *process, enum node_kind kind);
void wiring_open_core(struct process *process, struct jwt_keyring *keyring, const struct token_keys *token_keys);
/* Membership and links; the bus comes up a little later. */
void wiring_open_node(struct process *process);
void wiring_close_node(struct process *process);
/* The view has removed this incarnation: the process goes on as another one. */
void wiring_rejoin(struct process *process);
void wiring_event(struct process *process, struct event *event);

/* cluster.c */
int64_t wiring_wall_ms(void *ctx);
void wiring_client_send(void *ctx, void *transport, struct outmsg *message, enum message_class class);
void wiring_client_close(void *ctx, void *transport, uint16_t code, const char *reason);

#endif
