#include "common/bus_private.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/nats_rights.h"
#include <stdlib.h>
#include <time.h>

enum { WATCH_TICK_MS = 100, SILENT_TICKS_MAX = 10 };

static int64_t retry_delay_ms(unsigned attempts)
{
    if (attempts == 0)
        return 0;
    uint32_t ceiling_ms = attempts >= ATTEMPTS_SLOWEST ? RETRY_MAX_MS : RETRY_MIN_MS << (attempts - 1);
    return ceiling_ms / 2 + arc4random_uniform(ceiling_ms / 2 + 1);
}

static void wait_locked(struct bus *bus, int64_t delay_ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += delay_ms / 1000;
    until.tv_nsec += delay_ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&bus->changed, &bus->lock, &until);
}

/* Watches the connection until the bus thread has destroyed it. Silence is counted in ticks of this thread and not in
 * time, so that a machine which did not let us run is not taken for a dead server. It is this thread that watches,
 * because the bus thread blocks inside the library while a TLS record is incomplete. */
static void watch_locked(struct bus *bus)
{
    unsigned heard = 0, silent_ticks = 0;

    while (bus->conn) {
        wait_locked(bus, WATCH_TICK_MS);
        if (!bus->conn)
            break;
        unsigned echoes = nats_conn_echoes(bus->conn);
        silent_ticks = echoes == heard ? silent_ticks + 1 : 0;
        heard = echoes;
        if (silent_ticks == SILENT_TICKS_MAX) {
            bus->silent = true;
            nats_conn_sever(bus->conn);
        }
    }
}

/* 0, or NATS_CONN_REFUSED if the user may too little. */
static int check_rights(struct bus *bus, char ret_detail[NATS_DETAIL_MAX])
{
    char excess[NATS_RIGHTS_TEXT_MAX];
    size_t count = bus->right_count;

    bus->right_count = 0;
    if (!nats_rights_check(&bus->options, bus->echo_subject, bus->rights, count, ret_detail, excess))
        return NATS_CONN_REFUSED;
    if (excess[0] != '\0' && bus->has_user)
        log_warn("nats_permissions_too_large", log_str("granted", excess),
                 log_str("action", "give this program the user of its role, as deploy/nats/roles.conf has it"));
    else if (excess[0] != '\0')
        log_info("nats_without_users", log_str("reason", "whoever reaches the NATS servers may do everything there"));
    return 0;
}

/* Called with the lock held; lets go of it while it blocks. */
static void connect_locked(struct bus *bus)
{
    struct nats_conn *conn = NULL;
    char detail[NATS_DETAIL_MAX];

    bus->attempts++;
    pthread_mutex_unlock(&bus->lock);
    const char *server = nats_options_next_server(&bus->options);
    int error = nats_conn_open(&bus->options, &conn, detail);
    if (!error && bus->right_count > 0 && (error = check_rights(bus, detail)) != 0)
        nats_conn_free(&conn);
    if (error)
        log_warn("bus_connect_failed", log_str("server", server), log_str("error", detail));
    pthread_mutex_lock(&bus->lock);

    if (!error && bus->closing) {
        nats_conn_free(&conn); /* the bus thread may have ended */
    } else if (!error) {
        bus->conn = conn;
        bus->silent = false;
        bus_kick_thread(bus);
    } else if (error == NATS_CONN_REFUSED) {
        bus->attempts = ATTEMPTS_SLOWEST;
        bus_change_state_locked(bus, BUS_REFUSED, "", detail);
    }
}

void *bus_connector_main(void *arg)
{
    struct bus *bus = arg;

    pthread_setname_np(pthread_self(), "sbx-bus-connect");
    pthread_mutex_lock(&bus->lock);
    while (!bus->closing) {
        int64_t until_ms = clock_mono_ms() + retry_delay_ms(bus->attempts), now_ms;
        while (!bus->closing && (now_ms = clock_mono_ms()) < until_ms)
            wait_locked(bus, until_ms - now_ms);
        if (!bus->closing)
            connect_locked(bus);
        watch_locked(bus);
    }
    pthread_mutex_unlock(&bus->lock);
    return NULL;
}
