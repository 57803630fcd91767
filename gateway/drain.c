/* A gateway goes away: its clients are told to resume elsewhere, so many at a time that the others can take them in.
 * Each keeps its connection until it has the next one, or until the deadline. */
#include "common/log.h"
#include "common/metrics.h"
#include "gateway/internal.h"
#include <assert.h>

enum {
    DRAIN_TICK_MS = 50,
    DRAIN_JITTER_MS = 500,       /* within which a client goes once it is told, so that a tick is not a burst */
    DRAIN_LAST_SPREAD_MS = 5000, /* over which those come back who did not go by themselves */
};

static void tell_reconnect(struct client *client)
{
    const struct gateway *gateway = client->gateway;
    Signalbox__V1__ServerMessage message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Reconnect reconnect = SIGNALBOX__V1__RECONNECT__INIT;
    reconnect.spread_ms = DRAIN_JITTER_MS;
    reconnect.alternates = gateway->options.alternates;
    reconnect.n_alternates = gateway->options.alternate_count;
    message.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_RECONNECT;
    message.reconnect = &reconnect;
    client_send(client, &message, CLASS_CONTROL);
}

static void close_client(struct client *client, uint32_t retry_after_ms)
{
    client_end(client, CLOSE_DRAINING, SIGNALBOX__V1__LEAVE_REASON__GATEWAY_DRAINING,
               SIGNALBOX__V1__LEAVE_ACTION__RESUME, retry_after_ms,
               "this gateway is going away; resume at another one");
}

/* Where the view knows no other gateway, waiting would only delay what comes after this one. */
static bool others_exist(const struct gateway *gateway)
{
    return gateway->view != NULL && gateway->view->gateway_count > 1;
}

static void send_away(struct client *client)
{
    client->sent_away = true;
    client->gateway->sent_away_count++;
    if (client->closing)
        return;
    bool greeted = client->session != NULL && client->session->greeted;
    if (greeted && others_exist(client->gateway)) {
        tell_reconnect(client);
        metric_add_at(M_DRAINED_CLIENTS, DRAINED_TOLD, 1);
    } else {
        close_client(client, 0);
        metric_add_at(M_DRAINED_CLIENTS, DRAINED_CLOSED, 1);
    }
}

static void close_all(struct gateway *gateway)
{
    size_t index = 0;
    log_warn("drain_clients_left", log_uint("clients", gateway->client_count),
             log_str("action", "closes them; they resume by themselves"));
    list_for_each_safe(pos, &gateway->clients) {
        struct client *client = container_of(pos, struct client, link);
        if (client->closing)
            continue;
        close_client(client, (uint32_t)(index++ * DRAIN_LAST_SPREAD_MS / gateway->client_count));
        metric_add_at(M_DRAINED_CLIENTS, DRAINED_CLOSED, 1);
    }
}

static void on_drain_tick(struct timer *timer, int64_t now_ms)
{
    struct gateway *gateway = container_of(timer, struct gateway, drain_timer);
    struct drain *drain = &gateway->drain;
    int64_t passed_ms = now_ms - drain->began_ms;
    /* By now so many should have been sent away. */
    size_t due =
        passed_ms < drain->spread_ms ? (size_t)(drain->clients * passed_ms / drain->spread_ms) : drain->clients;
    if (now_ms >= drain->deadline_ms) {
        close_all(gateway);
        return;
    }
    while (drain->sent_away < due && gateway->sent_away_count < gateway->client_count) {
        struct client *client = list_first(&gateway->clients, struct client, link);
        assert(!client->sent_away);
        list_remove(&client->link);
        list_append(&gateway->clients, &client->link);
        drain->sent_away++;
        send_away(client);
    }
    if (gateway->client_count > 0)
        timer_set(gateway->wheel, timer, now_ms + DRAIN_TICK_MS);
}

void drain_init(struct gateway *gateway)
{
    timer_init(&gateway->drain_timer, on_drain_tick);
}

void gateway_drain(struct gateway *gateway, uint32_t spread_ms, uint32_t deadline_ms, int64_t now_ms)
{
    if (gateway->draining)
        return;
    gateway->draining = true;
    gateway->drain = (struct drain){.began_ms = now_ms,
                                    .spread_ms = spread_ms,
                                    .deadline_ms = now_ms + deadline_ms,
                                    .clients = gateway->client_count};
    timer_set(gateway->wheel, &gateway->drain_timer, now_ms);
}

bool gateway_drained(const struct gateway *gateway)
{
    if (gateway->client_count > 0)
        return false;
    const struct session *session, *next;
    HASH_ITER(hh_connection, gateway->sessions, session, next) {
        if (session->acked_version != session->version)
            return false;
    }
    return true;
}
