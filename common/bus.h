/* The message bus, as the loop sees it: publish to a subject, hear messages, know whether it is there.
 *
 * Backend: core NATS through cnats (bus_nats.c). One bus thread owns one connection in event-loop mode; a connector
 * thread makes the blocking connects; a fresh connection after every loss. The bus promises at-most-once and
 * per-publisher order on one connection, nothing more; links (common/link.h) make it whole.
 *
 * Liveness: the bus thread publishes to its own inbox every 200 ms; 1 s without hearing itself is a dead connection,
 * however open its socket looks. While the bus is down, publishes are refused and the senders keep what they must.
 *
 * Bounds: outgoing bytes are capped; past the cap the bus counts as lost. Incoming messages wait for the loop in a
 * queue that is capped in messages and bytes; past it the newest are dropped and counted (links notice and resync).
 *
 * Threading: all functions on the loop's thread; handlers run on the loop's thread.
 */
#ifndef SBX_COMMON_BUS_H
#define SBX_COMMON_BUS_H

#include "common/loop.h"
#include "common/payload.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bus;

enum { BUS_SUBJECT_MAX = 255, BUS_SUBSCRIPTIONS_MAX = 8 };

enum bus_state {
    BUS_CONNECTING, /* never connected yet */
    BUS_UP,
    BUS_LOST,    /* was up; reconnecting */
    BUS_REFUSED, /* authentication, permissions or unusable options: a human must act; `detail` says on what. Fatal at
                    start-up; afterwards the bus keeps trying, slowly, in case it is the server that gets repaired */
};

/* Why a message of the bus was dropped: the label of M_BUS_DROPPED. */
enum bus_drop {
    BUS_DROP_DOWN,
    BUS_DROP_INCOMING_FULL,
    BUS_DROP_MALFORMED,
    BUS_DROP_STALE_SENDER,
    BUS_DROP_SCHEMA,
    BUS_DROP_HELD_FULL,
    BUS_DROP_TOO_LARGE,
    BUS_DROP_FENCED,
};

/* Something that this process's user must be able to do at the NATS servers, or must not. */
struct bus_right {
    enum { BUS_RIGHT_PUBLISH, BUS_RIGHT_SUBSCRIBE } kind;
    const char *subject; /* one that nobody uses, covered by the permission in question */
    bool needed;
};

struct bus_options {
    const char *const *servers; /* nats:// or tls:// URLs */
    size_t server_count;
    const char *user, *password; /* or NULL */
    const char *nkey_seed_file;  /* or NULL */
    const char *tls_ca_file;     /* or NULL */
    const char *tls_cert_file, *tls_key_file;
    const char *name;                 /* connection name shown by the server's monitoring */
    const char *const *subscriptions; /* static; up to BUS_SUBSCRIPTIONS_MAX; wildcards allowed */
    size_t subscription_count;
    /* may be covered by one of the subscriptions, not by two */
    const char *echo_subject; /* own inbox for the liveness echo and for no-responder replies; must be covered by
                                 this process's publish and subscribe permissions */
    /* Static. Looked at once, when the first connection has been made: BUS_REFUSED if a needed one is denied, a warning
     * for others that are granted. */
    const struct bus_right *rights;
    size_t right_count;
    size_t outgoing_limit_bytes; /* default 64 MiB when 0 */
    size_t incoming_limit_bytes; /* default 64 MiB when 0 */
};

struct bus_handlers {
    /* `data` is borrowed for the call. `subject` is the one published to. */
    void (*message)(void *ctx, const char *subject, const uint8_t *data, size_t size);
    /* Nobody subscribes to `subject` (NATS 503), for a message sent with BUS_WANT_UNREACHABLE. */
    void (*unreachable)(void *ctx, const char *subject);
    /* `server_id` while up: which NATS server this process hangs on, else "". `detail` is for the log. Not held back by
     * the gate, so that messages heard before a loss may still come after it. */
    void (*state)(void *ctx, enum bus_state state, const char *server_id, const char *detail);
    /* Before a batch of messages is delivered: return false to leave them queued (a process that must fence itself
     * drains nothing while stale) and call bus_resume() later. May be NULL. */
    bool (*gate)(void *ctx);
};

enum bus_publish_flags {
    BUS_WANT_UNREACHABLE = 1, /* ask for the no-responders signal */
};

/* Starts the threads and returns at once; the first state arrives through the handler. */
struct bus *bus_open(struct loop *loop, const struct bus_options *options, const struct bus_handlers *handlers,
                     void *ctx);
/* Waits at most 500 ms for the server to have taken what is queued (and NATS_CONNECT_TIMEOUT_MS for a connect under
 * way), then closes. Messages not yet delivered are dropped. Not from inside a handler. */
void bus_close(struct bus **bus);
/* Takes a reference of its own to `payload`. 0, or -1 when the bus is down (nothing is queued for later) or the payload
 * is larger than the server allows. */
int bus_publish(struct bus *bus, const char *subject, struct payload *payload, int flags);
bool bus_is_up(const struct bus *bus);
/* Delivery goes on after a gate said no. */
void bus_resume(struct bus *bus);

#endif
