/* The inside of the bus, shared by its three files: the loop's side (bus_nats.c), the bus thread, which owns the
 * connection (bus_thread.c), and the connector, which makes and watches it (bus_connector.c).
 *
 * Threading: each member of `struct bus` says whose it is. Functions whose name ends in `_locked` want the bus's lock.
 */
#ifndef SBX_COMMON_BUS_PRIVATE_H
#define SBX_COMMON_BUS_PRIVATE_H

#include "common/bus.h"
#include "common/list.h"
#include "common/nats_conn.h"
#include <pthread.h>

enum {
    RETRY_MIN_MS = 50,
    RETRY_MAX_MS = 2000,
    ATTEMPTS_SLOWEST = 7, /* RETRY_MIN_MS doubled this often less one exceeds RETRY_MAX_MS */
    /* What a queued message costs beyond its payload; charged to the limits, so that they bound the count too. */
    MESSAGE_OVERHEAD_BYTES = 256,
    SPENT_MAX_BYTES = 64 * 1024,
};

struct bus_outgoing {
    struct list link;
    struct payload *payload;
    int flags;
    char subject[];
};

struct bus_incoming {
    struct list link;
    natsMsg *msg; /* or NULL: nobody subscribes to `unreachable` */
    size_t cost_bytes;
    char unreachable[];
};

struct bus_state_change {
    struct list link;
    enum bus_state state;
    uint64_t generation;
    char server_id[NATS_CONN_SERVER_ID_MAX];
    char detail[NATS_DETAIL_MAX];
};

/* Posted to the loop; outlives the bus, then with bus == NULL. */
struct bus_wake {
    struct loop_message message;
    struct bus *bus;
};

struct bus {
    /* Fixed after bus_open(). */
    struct loop *loop;
    struct bus_handlers handlers;
    void *ctx;
    char *subscriptions[BUS_SUBSCRIPTIONS_MAX];
    size_t subscription_count;
    char *echo_subject;
    const struct bus_right *rights; /* not looked at yet; the connector's */
    size_t right_count;
    bool has_user; /* credentials of some kind are configured */
    size_t outgoing_limit_bytes, incoming_limit_bytes;
    int wake_fd;
    bool started;
    pthread_t bus_thread, connector_thread;

    /* The loop's. */
    enum bus_state state;
    uint64_t generation; /* of the connection that the loop was told of; 0 when it is not up */
    struct list ready;   /* messages taken over from `incoming` */
    struct list spent;   /* delivered, not freed yet */
    size_t spent_bytes;
    bool delivering;

    /* Shared, under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* for the connector: conn gone, or closing */
    struct nats_conn *conn; /* set by the connector, cleared and destroyed by the bus thread */
    bool silent;            /* the connector severed `conn` */
    bool closing;
    unsigned attempts;      /* at connecting, since the bus was last up; decides the delay before the next */
    uint64_t up_generation; /* what bus_publish() is accepted for; 0 when down */
    size_t max_payload;
    struct list outgoing;  /* from the loop */
    size_t outgoing_bytes; /* in `outgoing` */
    size_t backlog_bytes;  /* taken from it and not yet written to the socket */
    bool outgoing_kicked;  /* the bus thread knows that `outgoing` is not empty */
    bool outgoing_full;
    struct list incoming;       /* to the loop */
    size_t incoming_bytes;      /* in `incoming` and `ready` */
    struct list changes;        /* to the loop */
    enum bus_state last_change; /* the newest ever put there */
    struct bus_wake *wake;      /* posted and not yet run */

    /* The connector's. */
    struct nats_options options;

    /* The bus thread's. */
    int epoll_fd;
    struct nats_conn *current; /* == conn once adopted */
    bool polling_write;
    bool proven;        /* an echo came back */
    bool said_farewell; /* closing: the echo behind the last message is sent */
    uint64_t last_generation;
    int64_t echo_due_ms;
    struct list sending; /* accepted and not yet handed to the library */
    size_t sending_bytes;
    struct list heard; /* to go into `incoming` at the end of the turn */
};

/* Thread bodies. */
void *bus_thread_main(void *bus);
void *bus_connector_main(void *bus);

/* Has the loop look at `incoming` and `changes`. */
void bus_post_wake_locked(struct bus *bus);
void bus_kick_thread(struct bus *bus);
void bus_poll_fd(struct bus *bus, int op, int fd, uint32_t events);
/* Tells the loop, if it is a change. */
void bus_change_state_locked(struct bus *bus, enum bus_state state, const char *server_id, const char *detail);
void bus_outgoing_free(struct bus_outgoing *out);
void bus_outgoing_drop_all(struct list *list);
void bus_incoming_free(struct bus_incoming *in);
void bus_incoming_free_all(struct list *list);

#endif
