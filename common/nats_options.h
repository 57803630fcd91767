/* What the bus and the view log have in common: a bus_options turned into the library's own connection options.
 *
 * Library reconnect is off (its parser state survives a reconnect and it replays stale bytes), pings are off (the bus
 * has its own echo), and each connect names one server, so that "the next server" is our decision.
 *
 * Threading: any one thread at a time per object. Errors: a negative value and a text for the operator.
 */
#ifndef SBX_COMMON_NATS_OPTIONS_H
#define SBX_COMMON_NATS_OPTIONS_H

#include "common/bus.h"
#include <nats/nats.h>
#include <stddef.h>

enum { NATS_DETAIL_MAX = 256, NATS_CONNECT_TIMEOUT_MS = 2000 };

struct nats_options {
    natsOptions *library;
    char **servers; /* a copy */
    size_t server_count;
    bool secure;
    char *tls_ca_file, *tls_cert_file, *tls_key_file; /* copies, or NULL */
    char address[256];                                /* of the server chosen last */
    size_t server_next;                               /* starts at random, so that a fleet spreads over the servers */
};

/* The library starts its threads with every signal blocked. Works as destructor of a half-built object too. */
int nats_options_init(struct nats_options *options, const struct bus_options *from, char ret_detail[NATS_DETAIL_MAX]);
void nats_options_done(struct nats_options *options);
/* Aims the next connect at the next server; returns its address without the credentials that a URL may hold. */
const char *nats_options_next_server(struct nats_options *options);

/* Derives the public key ("U...", 56 characters and a NUL) from a user's seed ("SU..."): the server is told the former,
 * files hold the latter. False for anything but a user seed with a right checksum. */
enum { NKEY_PUBLIC_SIZE = 56 };
bool nkey_public_from_seed(const char *seed, char ret_public[NKEY_PUBLIC_SIZE + 1]);

#endif
