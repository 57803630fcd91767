#include "sync_fixture.h"

struct fixture f;
int ann, bob;
uint64_t start;

void setup(void)
{
    fixture_open(&f, NULL);
    ann = join_client(&f, "ann", "r", NULL);
    bob = join_client(&f, "bob", "r", NULL);
    /* Bob's join: Ann has not got it yet. */
    deliver_events(&f, "r", f.seq, f.seq, "bob joined");
    start = f.seq;
}

void teardown(void)
{
    fixture_close(&f);
}

int events_of(int client)
{
    return received_count(&f, 0, client, BODY(ROOM_EVENTS));
}

void sync_reply(const char *sid, uint64_t connection, ProtobufCBinaryData message, uint64_t seq, bool replay,
                bool last_page, int code)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__SyncReply reply = SIGNALBOX__CLUSTER__V1__SYNC_REPLY__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&f.epoch);
    reply.room_key = key_data("r");
    reply.sid = (char *)sid;
    reply.connection = connection;
    reply.epoch = &epoch;
    reply.seq = seq;
    reply.replay = replay;
    reply.last_page = last_page;
    reply.code = code;
    reply.messages = &message;
    reply.n_messages = message.len > 0;
    item.body_case = ITEM(SYNC_REPLY);
    item.sync_reply = &reply;
    fixture_deliver(&f, &item);
}

void session_reply(int client, ProtobufCBinaryData message, uint64_t seq, bool replay, bool last_page)
{
    sync_reply(f.clients[client].sid, f.clients[client].connection, message, seq, replay, last_page, CODE(OK));
}

const Signalbox__Cluster__V1__SyncRequest *last_ask(void)
{
    const Item *item = sent(&f, 0, ITEM(SYNC_REQUEST), sent_count(&f, 0, ITEM(SYNC_REQUEST)) - 1);
    ck_assert_ptr_nonnull(item);
    return item->sync_request;
}

void say_sync(int client, Signalbox__V1__Position *position, const char *cursor)
{
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__SyncState sync = SIGNALBOX__V1__SYNC_STATE__INIT;
    sync.position = position;
    sync.cursor = (char *)cursor;
    message.request_id = 50;
    message.body_case = REQUEST(SYNC_STATE);
    message.sync_state = &sync;
    request(&f, client, &message);
}
