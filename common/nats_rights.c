#include "common/nats_rights.h"

#include "common/clock.h"
#include "common/nats_conn.h"
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum { TRY_TIMEOUT_MS = 300 };

enum verdict { VERDICT_UNKNOWN, VERDICT_GRANTED, VERDICT_DENIED };

static void drop_message(void *ctx, natsMsg *msg)
{
    natsMsg_Destroy(msg);
}

/* The server handles what one connection sends in order: an echo that comes back says that nothing before it was
 * denied. */
static enum verdict wait_for_verdict(struct nats_conn *conn, char ret_detail[NATS_DETAIL_MAX])
{
    int64_t deadline_ms = clock_mono_ms() + TRY_TIMEOUT_MS;

    for (int64_t left_ms = TRY_TIMEOUT_MS; left_ms > 0; left_ms = deadline_ms - clock_mono_ms()) {
        struct pollfd ready = {.fd = nats_conn_fd(conn), .events = POLLIN};
        nats_conn_flush(conn);
        if (poll(&ready, 1, (int)left_ms) <= 0)
            continue;
        int error = nats_conn_read(conn, ret_detail);
        if (error != 0)
            return error == NATS_CONN_REFUSED ? VERDICT_DENIED : VERDICT_UNKNOWN;
        if (nats_conn_is_quiet(conn))
            return VERDICT_GRANTED;
    }
    return VERDICT_UNKNOWN;
}

/* Tries one right, on a connection of its own, which a denial may cost. */
static enum verdict try_right(struct nats_options *options, const char *echo_subject, const struct bus_right *right,
                              char ret_detail[NATS_DETAIL_MAX])
{
    static const struct nats_conn_handlers handlers = {.message = drop_message};
    enum verdict verdict = VERDICT_UNKNOWN;
    struct nats_conn *conn = NULL;

    if (nats_conn_open(options, &conn, ret_detail) != 0)
        return VERDICT_UNKNOWN;
    bool subscribes = right->kind == BUS_RIGHT_SUBSCRIBE;
    if (nats_conn_subscribe(conn, &right->subject, subscribes ? 1 : 0, echo_subject, &handlers, NULL) == 0 &&
        (subscribes || nats_conn_publish(conn, right->subject, "", 0, false) == 0) && nats_conn_send_echo(conn) == 0)
        verdict = wait_for_verdict(conn, ret_detail);
    nats_conn_free(&conn);
    return verdict;
}

bool nats_rights_check(struct nats_options *options, const char *echo_subject, const struct bus_right *rights,
                       size_t count, char ret_detail[NATS_DETAIL_MAX], char ret_excess[NATS_RIGHTS_TEXT_MAX])
{
    size_t size = 0;

    ret_excess[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        enum verdict verdict = try_right(options, echo_subject, &rights[i], ret_detail);
        if (rights[i].needed && verdict == VERDICT_DENIED)
            return false;
        if (!rights[i].needed && verdict == VERDICT_GRANTED && size < NATS_RIGHTS_TEXT_MAX)
            size +=
                (size_t)snprintf(ret_excess + size, NATS_RIGHTS_TEXT_MAX - size, "%s%s %s", size > 0 ? ", " : "",
                                 rights[i].kind == BUS_RIGHT_SUBSCRIBE ? "subscribe" : "publish", rights[i].subject);
    }
    return true;
}
