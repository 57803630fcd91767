#include "common/notify.h"

#include "common/clock.h"
#include "common/log.h"
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { READY_POLL_MS = 100 };

__attribute__((format(printf, 2, 3))) static void tell(const struct notify *notify, const char *format, ...)
{
    char text[512];
    va_list args;

    if (notify->fd < 0)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    /* A service manager that does not read is no reason to wait; the watchdog's next word follows soon. */
    if (send(notify->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        log_warn("notify_failed", log_str("error", strerror(errno)));
}

static int open_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size = strlen(path);

    if ((path[0] != '/' && path[0] != '@') || size >= sizeof address.sun_path) {
        log_warn("notify_unavailable", log_str("socket", path), log_str("reason", "not a path or an abstract name"));
        return -1;
    }
    memcpy(address.sun_path, path, size);
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, address_size) == 0)
        return fd;
    log_warn("notify_unavailable", log_str("socket", path), log_str("reason", strerror(errno)));
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Half of WATCHDOG_USEC, which sd_watchdog_enabled(3) recommends; 0 if it is absent or for another process. */
static int64_t watchdog_interval_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");

    if (usec == NULL || (pid != NULL && strtoll(pid, NULL, 10) != getpid()))
        return 0;
    int64_t interval_ms = strtoll(usec, NULL, 10) / 2000;
    return interval_ms > 0 ? interval_ms : 0;
}

static void look_ready(struct notify *notify)
{
    char reason[sizeof notify->status] = "";

    if (notify->ready(notify->ctx, reason, sizeof reason)) {
        notify->was_ready = true;
        tell(notify, "READY=1\nSTATUS=ready");
    } else if (strcmp(reason, notify->status) != 0) {
        snprintf(notify->status, sizeof notify->status, "%s", reason);
        tell(notify, "STATUS=%s", reason);
    }
}

static void on_timer(struct timer *timer, int64_t now_ms)
{
    struct notify *notify = container_of(timer, struct notify, timer);
    int64_t wait_ms = notify->watchdog_ms;

    if (!notify->was_ready)
        look_ready(notify);
    if (!notify->was_ready && (wait_ms == 0 || wait_ms > READY_POLL_MS))
        wait_ms = READY_POLL_MS;
    if (notify->watchdog_ms > 0)
        tell(notify, "WATCHDOG=1");
    if (wait_ms > 0)
        timer_set(loop_timers(notify->loop), timer, now_ms + wait_ms);
}

void notify_open(struct notify *notify, struct loop *loop, bool (*ready)(void *ctx, char *reason, size_t size),
                 void *ctx)
{
    const char *path = getenv("NOTIFY_SOCKET");

    *notify = (struct notify){.fd = -1, .loop = loop, .ready = ready, .ctx = ctx};
    timer_init(&notify->timer, on_timer);
    if (path != NULL && path[0] != '\0')
        notify->fd = open_socket(path);
    if (notify->fd < 0)
        return;
    notify->watchdog_ms = watchdog_interval_ms();
    timer_set(loop_timers(loop), &notify->timer, loop_now_ms(loop));
}

void notify_close(struct notify *notify)
{
    timer_cancel(loop_timers(notify->loop), &notify->timer);
    if (notify->fd >= 0)
        close(notify->fd);
    notify->fd = -1;
}

void notify_reloading(struct notify *notify)
{
    tell(notify, "RELOADING=1\nMONOTONIC_USEC=%" PRId64, clock_mono_us());
}

/* Ready ends the reload in systemd's eyes, too; a service that never was ready is still starting. */
void notify_reloaded(struct notify *notify)
{
    if (notify->was_ready)
        tell(notify, "READY=1");
}

void notify_stopping(struct notify *notify)
{
    notify->was_ready = true;
    tell(notify, "STOPPING=1\nSTATUS=draining");
}
