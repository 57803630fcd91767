#include "ctl/ask.h"

#include "common/clock.h"
#include "common/mem.h"
#include "common/nats_options.h"
#include "common/payload.h"
#include "common/program.h"
#include "common/viewlog.h"
#include <inttypes.h>
#include <nats/nats.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char default_server[] = "nats://127.0.0.1:4222";

struct ask_config {
    struct cluster_config cluster; /* nats.* alone */
};

static const struct config_key nats_table[] = {NATS_CONFIG_KEYS(struct ask_config, cluster), {.name = NULL}};

struct ask {
    struct ask_config config;
    struct nats_options options;
    natsConnection *connection;
    natsSubscription *replies;
    char inbox[64];
    uint64_t next_request;
};

/* Replaces the configured servers by those of a list separated by commas. */
static void set_servers(struct config_strings *servers, const char *list)
{
    for (size_t i = 0; i < servers->count; i++)
        free(servers->values[i]);
    free(servers->values);
    *servers = (struct config_strings){.values = mem_zalloc((strlen(list) + 1) * sizeof(char *))};
    for (const char *start = list; *start != '\0'; start += strspn(start, ",")) {
        size_t size = strcspn(start, ",");
        servers->values[servers->count++] = mem_strndup(start, size);
        start += size;
    }
}

static int load(struct ask *ask, const char *servers, const char *config_path)
{
    struct buf problems = {0};
    size_t count = config_load_some(nats_table, config_path, &ask->config, &problems);

    if (count > 0)
        fputs(buf_str(&problems), stderr);
    buf_done(&problems);
    if (count > 0)
        return -1;
    if (servers == NULL && config_path == NULL)
        servers = getenv("SIGNALBOX_NATS") != NULL ? getenv("SIGNALBOX_NATS") : default_server;
    if (servers != NULL)
        set_servers(&ask->config.cluster.nats_servers, servers);
    if (ask->config.cluster.nats_servers.count > 0)
        return 0;
    ctl_failed("no NATS server is named; give --nats, --config or $SIGNALBOX_NATS");
    return -1;
}

static int connect_any(struct ask *ask)
{
    struct bus_options bus;
    char detail[NATS_DETAIL_MAX];
    natsStatus s = NATS_ERR;

    cluster_bus_options(&ask->config.cluster, &bus);
    bus.name = "signalboxctl";
    if (nats_options_init(&ask->options, &bus, detail) != 0) {
        ctl_failed("the NATS options are not usable: %s", detail);
        return -1;
    }
    for (size_t i = 0; s != NATS_OK && i < bus.server_count; i++) {
        const char *server = nats_options_next_server(&ask->options);
        s = natsConnection_Connect(&ask->connection, ask->options.library);
        if (s != NATS_OK)
            ctl_failed("cannot connect to NATS at %s: %s", server, nats_GetLastError(NULL));
    }
    if (s == NATS_OK)
        s = natsConnection_SubscribeSync(&ask->replies, ask->connection, ask->inbox);
    return s == NATS_OK ? 0 : -1;
}

struct ask *ask_open(const char *servers, const char *config_path)
{
    struct ask *ask = mem_new(struct ask);

    snprintf(ask->inbox, sizeof ask->inbox, "sbx.tool.%016" PRIx64, incarnation_random());
    if (load(ask, servers, config_path) != 0 || connect_any(ask) != 0)
        ask_close(&ask);
    return ask;
}

void ask_close(struct ask **ask_ptr)
{
    struct ask *ask = *ask_ptr;
    if (ask == NULL)
        return;
    /* First, so that nothing arrives at a subscription that is being destroyed. */
    if (ask->connection != NULL)
        natsConnection_Close(ask->connection);
    natsSubscription_Destroy(ask->replies);
    natsConnection_Destroy(ask->connection);
    nats_options_done(&ask->options);
    nats_Close();
    config_done(nats_table, &ask->config);
    free(ask);
    *ask_ptr = NULL;
}

const char *ask_server(const struct ask *ask)
{
    return ask->options.address;
}

struct view *ask_view(struct ask *ask)
{
    jsOptions options;
    jsCtx *js = NULL;
    natsMsg *message = NULL;
    jsErrCode code = 0;
    struct view *view = NULL;

    jsOptions_Init(&options);
    options.Wait = ASK_TIMEOUT_MS;
    natsStatus s = natsConnection_JetStream(&js, ask->connection, &options);
    if (s == NATS_OK)
        s = js_GetLastMsg(&message, js, VIEWLOG_STREAM, VIEWLOG_SUBJECT, NULL, &code);
    if (s == NATS_OK) {
        view =
            view_unpack(natsMsg_GetData(message), (size_t)natsMsg_GetDataLength(message), natsMsg_GetSequence(message));
        if (view == NULL)
            ctl_failed("the last entry of the view log (%" PRIu64 ") is damaged, or of a newer version",
                       natsMsg_GetSequence(message));
    } else if (code == JSStreamNotFoundErr || code == JSNoMessageFoundErr) {
        ctl_failed("there is no view at NATS %s: no shard or gateway has ever joined; is it this cluster's?",
                   ask_server(ask));
    } else {
        ctl_failed("the view log at NATS %s cannot be read: %s", ask_server(ask), nats_GetLastError(NULL));
    }
    natsMsg_Destroy(message);
    jsCtx_Destroy(js);
    return view;
}

struct view *ask_view_before(struct ask *ask, const struct view *view)
{
    jsOptions options;
    jsCtx *js = NULL;
    natsMsg *message = NULL;
    struct view *before = NULL;

    jsOptions_Init(&options);
    options.Wait = ASK_TIMEOUT_MS;
    if (view->number.seq > 1 && natsConnection_JetStream(&js, ask->connection, &options) == NATS_OK &&
        js_GetMsg(&message, js, VIEWLOG_STREAM, view->number.seq - 1, NULL, NULL) == NATS_OK)
        before =
            view_unpack(natsMsg_GetData(message), (size_t)natsMsg_GetDataLength(message), natsMsg_GetSequence(message));
    natsMsg_Destroy(message);
    jsCtx_Destroy(js);
    return before;
}

static void send_request(struct ask *ask, const struct node_address *node,
                         const Signalbox__Cluster__V1__AdminRequest *request)
{
    char subject[LINK_SUBJECT_MAX];
    struct payload *packed = payload_pack(&request->base);

    snprintf(subject, sizeof subject, "sbx.admin.%s.%s", node->kind == NODE_SHARD ? "shard" : "gw", node->id);
    /* With a reply subject, so that NATS says at once when nobody subscribes. */
    natsConnection_PublishRequest(ask->connection, subject, ask->inbox, packed->data, (int)packed->size);
    payload_unref(&packed);
}

/* Files a reply under the request that it answers; false if it is none of these. */
static bool take_reply(const natsMsg *message, uint64_t first_request, size_t count,
                       Signalbox__Cluster__V1__AdminReply **replies)
{
    Signalbox__Cluster__V1__AdminReply *reply = signalbox__cluster__v1__admin_reply__unpack(
        NULL, (size_t)natsMsg_GetDataLength(message), (const uint8_t *)natsMsg_GetData(message));

    if (reply == NULL)
        return false;
    uint64_t index = reply->request_id - first_request;
    if (index >= count || replies[index] != NULL) {
        signalbox__cluster__v1__admin_reply__free_unpacked(reply, NULL);
        return false;
    }
    replies[index] = reply;
    return true;
}

size_t ask_all(struct ask *ask, const struct node_address *nodes, size_t count,
               Signalbox__Cluster__V1__AdminRequest *request, Signalbox__Cluster__V1__AdminReply **ret_replies)
{
    uint64_t first_request = ask->next_request + 1;
    int64_t deadline_ms = clock_mono_ms() + ASK_TIMEOUT_MS;
    size_t answered = 0, absent = 0;

    request->schema_version = LINK_SCHEMA_VERSION;
    request->reply_subject = ask->inbox;
    for (size_t i = 0; i < count; i++) {
        ret_replies[i] = NULL;
        request->request_id = ++ask->next_request;
        send_request(ask, &nodes[i], request);
    }
    while (answered + absent < count) {
        natsMsg *message = NULL;
        int64_t left_ms = deadline_ms - clock_mono_ms();
        natsStatus s = left_ms > 0 ? natsSubscription_NextMsg(&message, ask->replies, left_ms) : NATS_TIMEOUT;
        if (s == NATS_NO_RESPONDERS)
            absent++;
        else if (s != NATS_OK)
            break;
        else
            answered += take_reply(message, first_request, count, ret_replies);
        natsMsg_Destroy(message);
    }
    return answered;
}
