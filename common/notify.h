/* What systemd is told of a service with Type=notify: that it is ready, reloading or stopping, in a line how it is,
 * and, with WatchdogSec=, that its loop turns. The protocol of sd_notify(3), without its library.
 *
 * Ready is what /readyz calls so, for the first time: `systemctl restart` of one process after the other then leaves
 * the others time to take over. Without $NOTIFY_SOCKET nothing is sent.
 *
 * Threading: loop thread.
 */
#ifndef SBX_COMMON_NOTIFY_H
#define SBX_COMMON_NOTIFY_H

#include "common/loop.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct notify {
    int fd; /* -1: nobody listens */
    bool was_ready;
    int64_t watchdog_ms; /* half of what is allowed; 0: no watchdog */
    struct loop *loop;
    struct timer timer;
    char status[256]; /* the last that was sent */
    /* As struct admin_http_handlers has it. */
    bool (*ready)(void *ctx, char *reason, size_t size);
    void *ctx;
};

/* `ready` is called while the loop runs, until it has once been true. */
void notify_open(struct notify *notify, struct loop *loop, bool (*ready)(void *ctx, char *reason, size_t size),
                 void *ctx);
void notify_close(struct notify *notify);
void notify_reloading(struct notify *notify);
void notify_reloaded(struct notify *notify);
void notify_stopping(struct notify *notify);

#endif
