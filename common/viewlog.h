/* The view log: one JetStream stream whose entries are whole memberships, each published with the expected last
 * sequence, so that of two processes that append at one moment one wins and the other learns of it.
 *
 * Only expected-last-sequence publishes, direct reads by sequence and reads of the last message are used: key-value
 * updates by revision were seen to have two winners on a three-replica bucket (NATS 2.9), and key-value gets can be
 * stale. JetStream calls block, so they run on a helper thread with a connection of its own; results come back as
 * callbacks on the loop, in the order of the calls.
 *
 * That connection is this process's second voice: where there are several servers it is made to another one than the
 * bus's, so that the end of a server does not silence the process (common/detector.h).
 *
 * Threading: all functions and callbacks on the loop's thread.
 */
#ifndef SBX_COMMON_VIEWLOG_H
#define SBX_COMMON_VIEWLOG_H

#include "common/bus.h"
#include "common/loop.h"
#include <stdint.h>

#define VIEWLOG_STREAM "SBX_VIEW"
#define VIEWLOG_SUBJECT "sbx.viewlog"

struct viewlog;

enum viewlog_result {
    VIEWLOG_OK = 0,
    VIEWLOG_CONFLICT = -1, /* append: the log's last sequence is another; read it */
    VIEWLOG_UNKNOWN = -2,  /* append: timed out, may or may not have happened; read, never assume */
    VIEWLOG_FAILED = -3,   /* no server, no stream, no leader */
    VIEWLOG_EMPTY = -4,    /* read_last: the stream holds no entry */
    VIEWLOG_GONE = -5,     /* read: no entry with that sequence (the log was truncated) */
    VIEWLOG_REFUSED = -6,  /* permissions: fatal */
};

typedef void (*viewlog_append_cb)(void *ctx, enum viewlog_result result, uint64_t seq, const char *detail);
/* `data` is borrowed for the call; `seq` is that of the entry. */
typedef void (*viewlog_read_cb)(void *ctx, enum viewlog_result result, uint64_t seq, const uint8_t *data, size_t size,
                                const char *detail);

/* `options` as for the bus (subscriptions and echo unused). `replicas` 0: one on a server on its own, three in a
 * cluster; a cluster that cannot place three yields VIEWLOG_FAILED, because it may only be starting. */
struct viewlog *viewlog_open(struct loop *loop, const struct bus_options *options, unsigned replicas);
/* Waits for the request under way, whose steps (connect, find the stream, ask) take at most some 2 s each. Requests
 * without an answer get none. */
void viewlog_close(struct viewlog **log);
/* Every call creates the stream first if it is missing (file storage, purge and delete denied, rollup denied). */
void viewlog_read_last(struct viewlog *log, viewlog_read_cb cb, void *ctx);
void viewlog_read(struct viewlog *log, uint64_t seq, viewlog_read_cb cb, void *ctx);
void viewlog_append(struct viewlog *log, const void *data, size_t size, uint64_t expected_last_seq,
                    viewlog_append_cb cb, void *ctx);

/* The server that the bus is connected to ("": none): the next time that the log's end is read, the log's connection
 * moves to another one, if it can. */
void viewlog_set_bus_server(struct viewlog *log, const char *server_id);
/* To which server the log is connected, as last heard; "" if to none. */
const char *viewlog_server(const struct viewlog *log);
/* Publishes on core NATS over the log's connection as it is, at most once: nothing is connected for it, and what still
 * waits for a request under way gives way to what is newer. Takes a reference of its own. */
void viewlog_publish(struct viewlog *log, const char *subject, struct payload *payload);

#endif
