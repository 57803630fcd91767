#include "common/view_exchange.h"

#include "common/bus.h"
#include "common/codec.h"
#include "common/metrics.h"

enum { RECORDS_MAX = 64, REPLY_MAX_BYTES = LINK_ENVELOPE_MAX };

typedef Signalbox__Cluster__V1__ViewRecord Record;

struct payload *view_exchange_pack(const struct view *view)
{
    struct payload *entry = view_pack(view);
    Signalbox__Cluster__V1__ViewNumber number = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    Record record = SIGNALBOX__CLUSTER__V1__VIEW_RECORD__INIT;
    number.generation = view->number.generation;
    number.seq = view->number.seq;
    record.number = &number;
    record.entry = (ProtobufCBinaryData){.len = entry->size, .data = entry->data};
    struct payload *payload = payload_pack(&record.base);
    payload_unref(&entry);
    return payload;
}

/* NULL, counted, if it is malformed. */
static struct view *read_record(const Record *record)
{
    struct view *view = NULL;
    if (record != NULL && record->number != NULL)
        view = view_unpack(record->entry.data, record->entry.len, record->number->seq);
    if (view == NULL)
        metric_add_at(M_BUS_DROPPED, BUS_DROP_MALFORMED, 1);
    return view;
}

struct view *view_exchange_unpack(const void *data, size_t size, struct arena *arena)
{
    char error[128];
    arena_reset(arena);
    return read_record((const Record *)codec_unpack(&signalbox__cluster__v1__view_record__descriptor, data, size, arena,
                                                    error, sizeof error));
}

void view_exchange_ask(struct links *links, const struct node_address *whom, struct view_number after, int64_t now_ms)
{
    Signalbox__Cluster__V1__ViewNumber number = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    Signalbox__Cluster__V1__ViewRequest request = SIGNALBOX__CLUSTER__V1__VIEW_REQUEST__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    number.generation = after.generation;
    number.seq = after.seq;
    request.after = &number;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_VIEW_REQUEST;
    item.view_request = &request;
    links_send_item(links, whom, &item, now_ms);
}

/* The newest views are what is wanted most: where not all fit, the oldest are left to the log. */
static void answer(struct membership *membership, struct links *links, const struct node_address *to,
                   struct view_number after, int64_t now_ms)
{
    struct view *views[RECORDS_MAX];
    struct payload *entries[RECORDS_MAX];
    Signalbox__Cluster__V1__ViewNumber numbers[RECORDS_MAX];
    Record records[RECORDS_MAX], *list[RECORDS_MAX];
    Signalbox__Cluster__V1__ViewReply reply = SIGNALBOX__CLUSTER__V1__VIEW_REPLY__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    size_t count = membership_views_after(membership, after, views, RECORDS_MAX), first = count, bytes = 0;
    while (first > 0) {
        size_t i = first - 1;
        entries[i] = view_pack(views[i]);
        bytes += entries[i]->size;
        if (bytes > REPLY_MAX_BYTES && first < count) {
            payload_unref(&entries[i]);
            break;
        }
        signalbox__cluster__v1__view_number__init(&numbers[i]);
        numbers[i].generation = views[i]->number.generation;
        numbers[i].seq = views[i]->number.seq;
        signalbox__cluster__v1__view_record__init(&records[i]);
        records[i].number = &numbers[i];
        records[i].entry = (ProtobufCBinaryData){.len = entries[i]->size, .data = entries[i]->data};
        list[i] = &records[i];
        first = i;
    }
    reply.records = &list[first];
    reply.n_records = count - first;
    metric_add(M_VIEWS_LEFT_OUT, first);
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_VIEW_REPLY;
    item.view_reply = &reply;
    if (reply.n_records > 0)
        links_send_item(links, to, &item, now_ms);
    for (size_t i = first; i < count; i++)
        payload_unref(&entries[i]);
}

static void learn(struct membership *membership, const Record *record, int64_t now_ms)
{
    struct view *view = read_record(record);
    if (view != NULL)
        membership_learn(membership, view, now_ms);
    view_unref(&view);
}

/* The newest says where to begin: what has settled before it is not needed. */
static void learn_all(struct membership *membership, const Signalbox__Cluster__V1__ViewReply *reply, int64_t now_ms)
{
    size_t count = reply->n_records;
    if (count > RECORDS_MAX) {
        metric_add(M_ITEMS_INVALID, 1);
        return;
    }
    if (count > 0)
        learn(membership, reply->records[count - 1], now_ms);
    for (size_t i = 0; i + 1 < count; i++)
        learn(membership, reply->records[i], now_ms);
}

bool view_exchange_item(struct membership *membership, struct links *links, const struct node_address *from,
                        const Signalbox__Cluster__V1__Item *item, int64_t now_ms)
{
    const Signalbox__Cluster__V1__ViewRequest *request = item->view_request;
    switch (item->body_case) {
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_VIEW_REQUEST:
        if (request->after == NULL)
            metric_add(M_ITEMS_INVALID, 1);
        else
            answer(membership, links, from, (struct view_number){request->after->generation, request->after->seq},
                   now_ms);
        return true;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_VIEW_REPLY:
        learn_all(membership, item->view_reply, now_ms);
        return true;
    default:
        return false;
    }
}
