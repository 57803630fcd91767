#include "gateway/front-private.h"

#include "common/metrics.h"
#include <netinet/tcp.h>

enum {
    PROBE_NOW_S = 1,       /* of TCP_KEEPIDLE: whoever is asked has been silent for longer */
    PROBE_NEVER_S = 32767, /* likewise, the most that it takes */
    PROBES_MAX = 127,
    PROBED_INTERVALS = 3, /* of silence, before a client that the kernel reaches is sent a ping all the same */
};

/* --- Whether the client is still there */

static bool look_at_tcp(const struct conn *conn, struct tcp_info *ret_info)
{
    socklen_t size = sizeof *ret_info;
    return getsockopt(h2o_socket_get_fd(conn->sock), IPPROTO_TCP, TCP_INFO, ret_info, &size) == 0;
}

/* Whether the client's system has confirmed all that was sent: it can be reached, and its program is what is slow. */
static bool is_delivered(const struct conn *conn)
{
    struct tcp_info info;
    return look_at_tcp(conn, &info) && info.tcpi_unacked == 0;
}

static bool set_probe_after(const struct conn *conn, int idle_s)
{
    return setsockopt(h2o_socket_get_fd(conn->sock), IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s) == 0;
}

bool conn_prepare_probes(const struct conn *conn)
{
    const struct front_options *options = &conn->front->options;
    int on = 1, count = PROBES_MAX, fd = h2o_socket_get_fd(conn->sock);
    return !conn->exempt && !options->proxy_protocol &&
           options->ping_interval_ms > options->ping_timeout_ms / 2 + PROBE_NOW_S * 1000 &&
           set_probe_after(conn, PROBE_NEVER_S) &&
           setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count) == 0 &&
           setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == 0;
}

/* Silence before the client is asked; the kernel's probe is early enough to be answered before the ping would be due.
 */
static uint32_t quiet_ms(const struct conn *conn)
{
    const struct front_options *options = &conn->front->options;
    return options->ping_interval_ms - (conn->probed ? options->ping_timeout_ms / 2 : 0);
}

/* False if the client's system has not answered: a ping, which TCP repeats, must tell. It may wait for so long at most
 * until it is asked again. */
static bool is_in_touch(struct conn *conn, int64_t most_ms)
{
    struct tcp_info info;
    bool asked = conn->probing;

    if (!look_at_tcp(conn, &info) || info.tcpi_unacked != 0)
        return false;
    conn->probing = false;
    if (asked && !set_probe_after(conn, PROBE_NEVER_S))
        return false;
    if (info.tcpi_last_ack_recv < quiet_ms(conn)) {
        int64_t wait_ms = quiet_ms(conn) - info.tcpi_last_ack_recv;
        conn_set_timer(conn, wait_ms < most_ms ? wait_ms : most_ms);
        return true;
    }
    int64_t answer_ms = conn->front->options.ping_timeout_ms / 2;
    if (asked || most_ms <= answer_ms || !set_probe_after(conn, PROBE_NOW_S))
        return false;
    conn->probing = true;
    conn_set_timer(conn, answer_ms);
    return true;
}

void conn_keep_alive(struct conn *conn)
{
    const struct front_options *options = &conn->front->options;
    int64_t silent_ms = conn_now_ms(conn) - conn->alive_ms;
    /* Until even a client that the kernel reaches is sent a ping. */
    int64_t left_ms = PROBED_INTERVALS * (int64_t)options->ping_interval_ms - silent_ms;

    if (conn->ping_sent) {
        if (conn->paused && silent_ms < options->ping_timeout_ms)
            conn_set_timer(conn, options->ping_timeout_ms - silent_ms);
        else if (conn->paused)
            conn_close_slow(conn);
        else if (silent_ms < 2 * (int64_t)options->ping_interval_ms && is_delivered(conn))
            conn_set_timer(conn, options->ping_timeout_ms);
        else
            conn_close_with(conn, CLOSE_PING_TIMEOUT, "no answer to a ping", CAUSE_PING_TIMEOUT);
    } else if (silent_ms < quiet_ms(conn)) {
        conn_set_timer(conn, quiet_ms(conn) - silent_ms);
    } else if (conn->probed && left_ms > 0 && is_in_touch(conn, left_ms)) {
        return;
    } else {
        if (conn->probing)
            conn->probing = !set_probe_after(conn, PROBE_NEVER_S);
        conn->ping_sent = conn->ping_due = true;
        conn_mark_dirty(conn);
        conn_set_timer(conn, options->ping_timeout_ms);
    }
}

/* --- When memory is short */

static void shed_ephemeral(struct conn *conn)
{
    struct outqueue_drops drops = {0};
    size_t bytes = conn->queue.bytes, count = outqueue_count(&conn->queue);
    outqueue_drop_ephemeral(&conn->queue, conn->encoding, &drops);
    if (drops.ephemeral == 0)
        return;
    conn_account(conn, bytes, count);
    count_dropped(CLASS_EPHEMERAL, DROP_GATEWAY_MEMORY, drops.ephemeral);
    metric_add_at(M_SHED, SHED_METRIC_SIGNAL, drops.ephemeral);
    conn->drops.ephemeral += drops.ephemeral;
    conn_mark_dirty(conn);
}

void conn_shed_all(struct front *front, enum shed_level level, uint64_t used_bytes, uint64_t ceiling_bytes)
{
    struct shed_queues queues = {0};
    if (level < SHED_EPHEMERAL || front->queued_bytes == 0)
        return;
    list_for_each(pos, &front->conns) {
        struct conn *conn = container_of(pos, struct conn, link);
        if (conn->phase != CONN_OPEN)
            continue;
        shed_ephemeral(conn);
        shed_count_queue(&queues, conn->queue.bytes);
    }
    if (level < SHED_SLOWEST)
        return;
    uint32_t from_bytes = shed_slowest_bytes(&queues, used_bytes, ceiling_bytes);
    list_for_each_safe(pos, &front->conns) {
        struct conn *conn = container_of(pos, struct conn, link);
        if (conn->phase != CONN_OPEN || conn->queue.bytes < from_bytes)
            continue;
        metric_add_at(M_SHED, SHED_METRIC_CONNECTION, 1);
        conn_close_slow(conn);
    }
}
