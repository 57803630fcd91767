#include "common/viewlog.h"
#include "common/list.h"
#include "common/mem.h"
#include "common/nats_options.h"
#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    REQUEST_TIMEOUT_MS = 2000,
    ENTRIES_MAX = 10000,
    REPLICAS_CLUSTERED = 3,
    SERVER_ID_MAX = 64,
};
/* The server's least; the log needs no detection of duplicates, its entries say what they follow. */
static const int64_t duplicate_window_ns = 100 * 1000 * 1000;

enum request_kind { REQUEST_READ_LAST, REQUEST_READ, REQUEST_APPEND, REQUEST_PUBLISH };

/* Queued for the helper thread, carried out there, posted back to the loop, freed. */
struct request {
    struct loop_message message;
    struct list queue_link; /* under the log's lock */
    struct list open_link;  /* the loop's */
    struct viewlog *log;    /* NULL once the log is closed; the loop's */
    enum request_kind kind;
    uint64_t seq; /* in: to read, or expected last; out: of the entry */
    void *data;   /* to append */
    size_t size;
    char subject[BUS_SUBJECT_MAX + 1]; /* to publish to */
    struct payload *payload;
    viewlog_append_cb append_cb;
    viewlog_read_cb read_cb;
    void *ctx;
    enum viewlog_result result;
    natsMsg *entry;             /* read */
    char server[SERVER_ID_MAX]; /* that the log was connected to when the request was done */
    char detail[NATS_DETAIL_MAX];
};

struct viewlog {
    struct loop *loop;
    unsigned replicas;
    struct list open;           /* the loop's: requests without an answer yet */
    char server[SERVER_ID_MAX]; /* the loop's: as last heard */
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct list queue;
    char bus_server[SERVER_ID_MAX];
    bool closing;

    /* The helper thread's. */
    struct nats_options options;
    bool usable;
    char unusable_detail[NATS_DETAIL_MAX];
    natsConnection *nc;
    jsCtx *js;
    bool stream_known; /* on this connection */
};

static enum viewlog_result fail(struct request *request, enum viewlog_result result, natsStatus s)
{
    natsStatus told = NATS_OK; /* of the last failure on this thread, which may be an earlier one */
    const char *text = nats_GetLastError(&told);

    snprintf(request->detail, sizeof(request->detail), "%s", told == s && text && *text ? text : natsStatus_GetText(s));
    return result;
}

static void drop_connection(struct viewlog *log)
{
    jsCtx_Destroy(log->js);
    natsConnection_Destroy(log->nc);
    log->js = NULL;
    log->nc = NULL;
    log->stream_known = false;
}

/* A server that forbids a request says so asynchronously, and the request times out. */
static bool is_forbidden(struct viewlog *log, natsStatus s, struct request *request)
{
    const char *text = NULL;

    if (s != NATS_TIMEOUT || natsConnection_GetLastError(log->nc, &text) != NATS_NOT_PERMITTED)
        return false;
    snprintf(request->detail, sizeof(request->detail), "%s", text);
    return true;
}

/* The bus would have to share its server with the log though there are others. */
static bool is_crowded(struct viewlog *log)
{
    char server[SERVER_ID_MAX] = "";

    if (!log->nc || log->options.server_count < 2 ||
        natsConnection_GetConnectedServerId(log->nc, server, sizeof(server)) != NATS_OK)
        return false;
    pthread_mutex_lock(&log->lock);
    bool crowded = strcmp(server, log->bus_server) == 0;
    pthread_mutex_unlock(&log->lock);
    return crowded;
}

/* To the next server; if that is the bus's, to the one after it, if that can be had. */
static natsStatus connect_apart(struct viewlog *log)
{
    nats_options_next_server(&log->options);
    natsStatus s = natsConnection_Connect(&log->nc, log->options.library);
    if (s == NATS_OK && is_crowded(log)) {
        natsConnection *other = NULL;
        nats_options_next_server(&log->options);
        if (natsConnection_Connect(&other, log->options.library) == NATS_OK) {
            natsConnection_Destroy(log->nc);
            log->nc = other;
        }
    }
    return s;
}

static enum viewlog_result connect_once(struct viewlog *log, struct request *request)
{
    jsOptions options;

    natsStatus s = connect_apart(log);
    if (s == NATS_OK)
        s = jsOptions_Init(&options);
    if (s == NATS_OK) {
        options.Wait = REQUEST_TIMEOUT_MS;
        s = natsConnection_JetStream(&log->js, log->nc, &options);
    }
    if (s == NATS_OK)
        return VIEWLOG_OK;
    drop_connection(log);
    return fail(request, s == NATS_CONNECTION_AUTH_FAILED ? VIEWLOG_REFUSED : VIEWLOG_FAILED, s);
}

static natsStatus add_stream(struct viewlog *log, unsigned replicas, jsErrCode *error)
{
    const char *subject = VIEWLOG_SUBJECT;
    jsStreamConfig config;

    jsStreamConfig_Init(&config);
    config.Name = VIEWLOG_STREAM;
    config.Subjects = &subject;
    config.SubjectsLen = 1;
    config.Storage = js_FileStorage;
    config.Discard = js_DiscardOld;
    config.MaxMsgs = ENTRIES_MAX;
    config.Duplicates = duplicate_window_ns;
    config.DenyDelete = config.DenyPurge = true;
    config.Replicas = replicas;
    return js_AddStream(NULL, log->js, &config, NULL, error);
}

/* Asking for three replicas tells a server on its own from one in a cluster. A cluster that cannot place three refuses
 * and is not given fewer: it may only be starting. */
static enum viewlog_result find_stream(struct viewlog *log, struct request *request)
{
    jsErrCode error = 0;
    jsStreamInfo *info = NULL;
    natsStatus s = js_GetStreamInfo(&info, log->js, VIEWLOG_STREAM, NULL, &error);

    jsStreamInfo_Destroy(info);
    if (s == NATS_NOT_FOUND) {
        s = add_stream(log, log->replicas ? log->replicas : REPLICAS_CLUSTERED, &error);
        if (error == JSStreamReplicasNotSupportedErr && !log->replicas)
            s = add_stream(log, 1, &error);
        /* Somebody else may have been faster, of which the server tells in more than one way. */
        jsErrCode found_error;
        if (error != 0 && js_GetStreamInfo(&info, log->js, VIEWLOG_STREAM, NULL, &found_error) == NATS_OK) {
            jsStreamInfo_Destroy(info);
            s = NATS_OK;
        }
    }
    if (s == NATS_OK) {
        log->stream_known = true;
        return VIEWLOG_OK;
    }
    if (is_forbidden(log, s, request))
        return VIEWLOG_REFUSED;
    return fail(request, VIEWLOG_FAILED, s);
}

static enum viewlog_result read_entry(struct viewlog *log, struct request *request)
{
    bool last = request->kind == REQUEST_READ_LAST;
    jsErrCode error = 0;

    if (!last && request->seq == 0) /* sequences start at 1; the library refuses to ask */
        return fail(request, VIEWLOG_GONE, NATS_NOT_FOUND);
    natsStatus s = last ? js_GetLastMsg(&request->entry, log->js, VIEWLOG_STREAM, VIEWLOG_SUBJECT, NULL, &error)
                        : js_GetMsg(&request->entry, log->js, VIEWLOG_STREAM, request->seq, NULL, &error);

    if (s == NATS_OK) {
        request->seq = natsMsg_GetSequence(request->entry);
        return VIEWLOG_OK;
    }
    if (error == JSNoMessageFoundErr)
        return fail(request, last ? VIEWLOG_EMPTY : VIEWLOG_GONE, s);
    if (error == JSStreamNotFoundErr)
        log->stream_known = false;
    return is_forbidden(log, s, request) ? VIEWLOG_REFUSED : fail(request, VIEWLOG_FAILED, s);
}

/* The header is written by hand because jsPubOptions.ExpectLastSeq = 0 means "expect nothing in particular" (cnats 3.4)
 * and the first entry must be as exclusive as any other. */
static natsStatus publish_expecting(struct viewlog *log, struct request *request, jsPubAck **ack, jsErrCode *error)
{
    char expected[24];
    natsMsg *msg = NULL;

    snprintf(expected, sizeof(expected), "%llu", (unsigned long long)request->seq);
    natsStatus s = natsMsg_Create(&msg, VIEWLOG_SUBJECT, NULL, request->data, (int)request->size);
    if (s == NATS_OK)
        s = natsMsgHeader_Set(msg, "Nats-Expected-Last-Sequence", expected);
    if (s == NATS_OK)
        s = natsMsgHeader_Set(msg, "Nats-Expected-Stream", VIEWLOG_STREAM);
    if (s == NATS_OK)
        s = js_PublishMsg(ack, log->js, msg, NULL, error);
    natsMsg_Destroy(msg);
    return s;
}

static enum viewlog_result append_entry(struct viewlog *log, struct request *request)
{
    jsPubAck *ack = NULL;
    jsErrCode error = 0;
    natsStatus s = publish_expecting(log, request, &ack, &error);

    if (s == NATS_OK) {
        request->seq = ack->Sequence;
        jsPubAck_Destroy(ack);
        return VIEWLOG_OK;
    }
    if (error == JSStreamWrongLastSequenceErr)
        return fail(request, VIEWLOG_CONFLICT, s);
    if (is_forbidden(log, s, request))
        return VIEWLOG_REFUSED;
    /* Nobody listens on the subject: the stream is gone or has no leader. Then, as with an answer that says no, nothing
     * was stored; without an answer nobody knows. */
    if (s == NATS_NO_RESPONDERS || s == NATS_MAX_PAYLOAD || error != 0) {
        log->stream_known = false;
        return fail(request, VIEWLOG_FAILED, s);
    }
    return fail(request, VIEWLOG_UNKNOWN, s);
}

static enum viewlog_result publish(struct viewlog *log, struct request *request)
{
    const struct payload *payload = request->payload;

    if (log->nc && natsConnection_Publish(log->nc, request->subject, payload->data, (int)payload->size) == NATS_OK)
        return VIEWLOG_OK;
    return VIEWLOG_FAILED;
}

static enum viewlog_result carry_out(struct viewlog *log, struct request *request)
{
    enum viewlog_result result = VIEWLOG_OK;

    if (!log->usable) {
        snprintf(request->detail, sizeof(request->detail), "%s", log->unusable_detail);
        return VIEWLOG_REFUSED;
    }
    if (log->nc && natsConnection_IsClosed(log->nc))
        drop_connection(log);
    if (request->kind == REQUEST_PUBLISH)
        return publish(log, request);
    if (request->kind == REQUEST_READ_LAST && is_crowded(log))
        drop_connection(log);
    if (!log->nc)
        result = connect_once(log, request);
    if (result == VIEWLOG_OK && !log->stream_known)
        result = find_stream(log, request);
    if (result == VIEWLOG_OK)
        result = request->kind == REQUEST_APPEND ? append_entry(log, request) : read_entry(log, request);
    /* A request that got no proper answer may have hung on this server alone: the next one tries another. */
    if (log->nc && (result == VIEWLOG_FAILED || result == VIEWLOG_UNKNOWN || result == VIEWLOG_REFUSED))
        drop_connection(log);
    return result;
}

static void on_done(struct loop_message *message);

static void *viewlog_main(void *arg)
{
    struct viewlog *log = arg;

    pthread_setname_np(pthread_self(), "sbx-viewlog");
    pthread_mutex_lock(&log->lock);
    while (!log->closing) {
        if (list_empty(&log->queue)) {
            pthread_cond_wait(&log->changed, &log->lock);
            continue;
        }
        struct request *request = list_first(&log->queue, struct request, queue_link);
        list_remove(&request->queue_link);
        pthread_mutex_unlock(&log->lock);
        request->result = carry_out(log, request);
        if (log->nc)
            natsConnection_GetConnectedServerId(log->nc, request->server, sizeof(request->server));
        loop_post(log->loop, &request->message);
        pthread_mutex_lock(&log->lock);
    }
    pthread_mutex_unlock(&log->lock);
    drop_connection(log);
    return NULL;
}

static void request_free(struct request *request)
{
    list_remove(&request->open_link);
    list_remove(&request->queue_link);
    natsMsg_Destroy(request->entry);
    payload_unref(&request->payload);
    free(request->data);
    free(request);
}

static void on_done(struct loop_message *message)
{
    struct request *request = container_of(message, struct request, message);

    if (request->log) {
        list_remove(&request->open_link); /* the callback may close the log */
        memcpy(request->log->server, request->server, sizeof(request->server));
        if (request->kind == REQUEST_APPEND)
            request->append_cb(request->ctx, request->result, request->seq, request->detail);
        else if (request->kind != REQUEST_PUBLISH)
            request->read_cb(request->ctx, request->result, request->seq,
                             request->entry ? (const uint8_t *)natsMsg_GetData(request->entry) : NULL,
                             request->entry ? (size_t)natsMsg_GetDataLength(request->entry) : 0, request->detail);
    }
    request_free(request);
}

struct viewlog *viewlog_open(struct loop *loop, const struct bus_options *options, unsigned replicas)
{
    struct viewlog *log = mem_new(struct viewlog);
    sigset_t all, before;

    log->loop = loop;
    log->replicas = replicas;
    list_init(&log->open);
    list_init(&log->queue);
    pthread_mutex_init(&log->lock, NULL);
    pthread_cond_init(&log->changed, NULL);
    log->usable = nats_options_init(&log->options, options, log->unusable_detail) == 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&log->thread, NULL, viewlog_main, log);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    assert(error == 0);
    return log;
}

void viewlog_close(struct viewlog **log_ptr)
{
    struct viewlog *log = *log_ptr;

    if (!log)
        return;
    *log_ptr = NULL;
    pthread_mutex_lock(&log->lock);
    log->closing = true;
    pthread_cond_signal(&log->changed);
    pthread_mutex_unlock(&log->lock);
    pthread_join(log->thread, NULL);

    /* What is not queued any more is posted, and frees itself when the loop comes to it. */
    list_for_each_safe(link, &log->open) {
        struct request *request = container_of(link, struct request, open_link);
        request->log = NULL;
        list_remove(link);
        if (list_linked(&request->queue_link))
            request_free(request);
    }
    nats_options_done(&log->options);
    pthread_cond_destroy(&log->changed);
    pthread_mutex_destroy(&log->lock);
    free(log);
}

static struct request *request_new(struct viewlog *log, enum request_kind kind, uint64_t seq, void *ctx)
{
    struct request *request = mem_new(struct request);

    request->message.cb = on_done;
    request->log = log;
    request->kind = kind;
    request->seq = seq;
    request->ctx = ctx;
    list_init(&request->queue_link);
    list_append(&log->open, &request->open_link);
    return request;
}

static void submit(struct viewlog *log, struct request *request)
{
    pthread_mutex_lock(&log->lock);
    list_append(&log->queue, &request->queue_link);
    pthread_cond_signal(&log->changed);
    pthread_mutex_unlock(&log->lock);
}

void viewlog_read_last(struct viewlog *log, viewlog_read_cb cb, void *ctx)
{
    struct request *request = request_new(log, REQUEST_READ_LAST, 0, ctx);

    request->read_cb = cb;
    submit(log, request);
}

void viewlog_read(struct viewlog *log, uint64_t seq, viewlog_read_cb cb, void *ctx)
{
    struct request *request = request_new(log, REQUEST_READ, seq, ctx);

    request->read_cb = cb;
    submit(log, request);
}

void viewlog_append(struct viewlog *log, const void *data, size_t size, uint64_t expected_last_seq,
                    viewlog_append_cb cb, void *ctx)
{
    struct request *request = request_new(log, REQUEST_APPEND, expected_last_seq, ctx);

    request->data = mem_dup(data, size);
    request->size = size;
    request->append_cb = cb;
    submit(log, request);
}

void viewlog_set_bus_server(struct viewlog *log, const char *server_id)
{
    pthread_mutex_lock(&log->lock);
    snprintf(log->bus_server, sizeof(log->bus_server), "%s", server_id);
    pthread_mutex_unlock(&log->lock);
}

const char *viewlog_server(const struct viewlog *log)
{
    return log->server;
}

static void withdraw_publishes(struct viewlog *log)
{
    pthread_mutex_lock(&log->lock);
    list_for_each_safe(link, &log->queue) {
        struct request *request = container_of(link, struct request, queue_link);
        if (request->kind == REQUEST_PUBLISH)
            request_free(request);
    }
    pthread_mutex_unlock(&log->lock);
}

void viewlog_publish(struct viewlog *log, const char *subject, struct payload *payload)
{
    withdraw_publishes(log);
    struct request *request = request_new(log, REQUEST_PUBLISH, 0, NULL);
    snprintf(request->subject, sizeof(request->subject), "%s", subject);
    request->payload = payload_ref(payload);
    submit(log, request);
}
