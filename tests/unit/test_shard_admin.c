/* Requests about rooms, as signalboxctl and the server API put them. */
#include "shard_fixture.h"
#include "suite.h"
#include <string.h>

typedef Signalbox__Cluster__V1__AdminRequest Request;
typedef Signalbox__Cluster__V1__AdminReply Reply;

#define REQUEST(kind) SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__REQUEST_##kind

static struct fixture fixture;
static struct person ann, bob, carol;
static struct arena arena;
static Reply reply;

static void open_fixture(void)
{
    fixture_open(&fixture, NULL);
    arena_init(&arena, 1024 * 1024);
    ann = person_make("ann", "r", 0);
    bob = person_make("bob", "r", 1);
    carol = person_make("carol", "other", 0);
    ann.tracks = 1;
    person_join(&fixture, &ann);
    person_join(&fixture, &bob);
    person_join(&fixture, &carol);
    fixture_advance(&fixture, 10);
}

static void close_fixture(void)
{
    arena_done(&arena);
    fixture_close(&fixture);
}

static bool ask(Request *request)
{
    arena_reset(&arena);
    signalbox__cluster__v1__admin_reply__init(&reply);
    request->request_id = 77;
    return shard_admin(fixture.shard, request, &arena, &reply, fixture.now_ms);
}

static Request make(int kind)
{
    Request request = SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__INIT;
    request.request_case = kind;
    return request;
}

static size_t participants(void)
{
    return shard_stats(fixture.shard).participants;
}

START_TEST(a_room_is_described_with_its_members)
{
    Signalbox__Cluster__V1__GetRoom get = SIGNALBOX__CLUSTER__V1__GET_ROOM__INIT;
    Request request = make(REQUEST(GET_ROOM));
    request.get_room = &get;
    get.room = (char *)"r";
    ck_assert(ask(&request));
    ck_assert_uint_eq(reply.request_id, 77);
    ck_assert_int_eq(reply.code, CODE(OK));
    ck_assert_uint_eq(reply.n_rooms, 1);
    ck_assert_str_eq(reply.rooms[0]->state, "live");
    ck_assert_uint_eq(reply.rooms[0]->seq, 2);
    ck_assert_uint_eq(reply.rooms[0]->n_members, 2);
    ck_assert_str_eq(reply.rooms[0]->members[0]->participant->sid, ann.sid);
    ck_assert_str_eq(reply.rooms[0]->members[1]->gateway, fixture_gateway(1).id);
    ck_assert_str_eq(reply.rooms[0]->members[1]->state, "attached");
    get.room = (char *)"nowhere";
    ck_assert(ask(&request));
    ck_assert_int_eq(reply.code, CODE(NOT_FOUND));
    get.room = (char *)"r";
    get.project = (char *)"somebody-elses";
    ck_assert(ask(&request));
    ck_assert_int_eq(reply.code, CODE(NOT_FOUND));
}
END_TEST

START_TEST(rooms_are_listed_in_pages)
{
    Signalbox__Cluster__V1__ListRooms list = SIGNALBOX__CLUSTER__V1__LIST_ROOMS__INIT;
    Request request = make(REQUEST(LIST_ROOMS));
    uint8_t after[16];
    request.list_rooms = &list;
    list.limit = 1;
    ck_assert(ask(&request));
    ck_assert_uint_eq(reply.n_rooms, 1);
    ck_assert_uint_eq(reply.next.len, 16);
    memcpy(after, reply.next.data, 16);
    list.after = (ProtobufCBinaryData){.len = 16, .data = after};
    ck_assert(ask(&request));
    ck_assert_uint_eq(reply.n_rooms, 1);
    ck_assert_uint_eq(reply.next.len, 0);
    ck_assert_int_gt(memcmp(reply.rooms[0]->room_key.data, after, 16), 0);
    list.after.len = 3;
    ck_assert(ask(&request));
    ck_assert_int_eq(reply.code, CODE(INVALID));
}
END_TEST

START_TEST(a_participant_is_removed_for_everybody)
{
    Signalbox__Cluster__V1__RemoveParticipant remove = SIGNALBOX__CLUSTER__V1__REMOVE_PARTICIPANT__INIT;
    Request request = make(REQUEST(REMOVE_PARTICIPANT));
    size_t since = fixture.sent_count;
    request.remove_participant = &remove;
    remove.room = (char *)"r";
    remove.identity = (char *)"bob";
    ck_assert(ask(&request));
    ck_assert_int_eq(reply.code, CODE(OK));
    fixture_advance(&fixture, 10);
    const Item *told = sent_item(&fixture, since, 1, BODY(SESSION_COMMAND), 0);
    ck_assert_int_eq(told->session_command->close->reason, REASON(REMOVED));
    ck_assert_str_eq(sent_events(&fixture, since, 0, 0)->events[0]->left->sid, bob.sid);
    ck_assert(ask(&request));
    ck_assert_int_eq(reply.code, CODE(NOT_FOUND));
}
END_TEST

START_TEST(a_muted_track_is_published_and_told_to_the_gateway)
{
    Signalbox__Cluster__V1__MuteTrack mute = SIGNALBOX__CLUSTER__V1__MUTE_TRACK__INIT;
    Signalbox__Cluster__V1__GetRoom get = SIGNALBOX__CLUSTER__V1__GET_ROOM__INIT;
    Request request = make(REQUEST(MUTE_TRACK)), look = make(REQUEST(GET_ROOM));
    char track_id[65];
    look.get_room = &get;
    get.room = (char *)"r";
    ck_assert(ask(&look));
    strcpy(track_id, reply.rooms[0]->members[0]->participant->tracks[0]->id);
    size_t since = fixture.sent_count;
    request.mute_track = &mute;
    mute.room = (char *)"r";
    mute.identity = (char *)"ann";
    mute.track_id = track_id;
    mute.muted = true;
    ck_assert(ask(&request));
    ck_assert_int_eq(reply.code, CODE(OK));
    fixture_advance(&fixture, 10);
    ck_assert(sent_item(&fixture, since, 0, BODY(SESSION_COMMAND), 0)->session_command->update->tracks[0]->muted);
    ck_assert(sent_events(&fixture, since, 1, 0)->events[0]->updated->tracks->tracks[0]->muted);
    since = fixture.sent_count;
    ck_assert(ask(&request)); /* again: nothing changes */
    fixture_advance(&fixture, 10);
    ck_assert_uint_eq(fixture.sent_count, since);
    mute.track_id = (char *)"none";
    ck_assert(ask(&request));
    ck_assert_int_eq(reply.code, CODE(NOT_FOUND));
}
END_TEST

START_TEST(a_deleted_room_is_empty)
{
    Signalbox__Cluster__V1__DeleteRoom delete = SIGNALBOX__CLUSTER__V1__DELETE_ROOM__INIT;
    Request request = make(REQUEST(DELETE_ROOM));
    size_t since = fixture.sent_count;
    request.delete_room = &delete;
    delete.room = (char *)"r";
    ck_assert(ask(&request));
    ck_assert_int_eq(reply.code, CODE(OK));
    ck_assert_uint_eq(participants(), 1);
    ck_assert_uint_eq(shard_stats(fixture.shard).rooms, 1);
    ck_assert_int_eq(sent_item(&fixture, since, 0, BODY(SESSION_COMMAND), 0)->session_command->close->reason,
                     REASON(ROOM_CLOSED));
    fixture_advance(&fixture, 10);
}
END_TEST

START_TEST(data_reaches_the_room_or_some_of_it)
{
    Signalbox__Cluster__V1__SendData send = SIGNALBOX__CLUSTER__V1__SEND_DATA__INIT;
    Request request = make(REQUEST(SEND_DATA));
    char *to[] = {(char *)"bob"};
    size_t since = fixture.sent_count;
    request.send_data = &send;
    send.room = (char *)"r";
    send.payload = (ProtobufCBinaryData){.len = 2, .data = (uint8_t *)"hi"};
    send.reliable = true;
    ck_assert(ask(&request));
    fixture_advance(&fixture, 10);
    ck_assert_uint_eq(sent_events(&fixture, since, 1, 0)->events[0]->message->payload.len, 2);

    send.to_identities = to;
    send.n_to_identities = 1;
    ck_assert(ask(&request));
    ck_assert_int_eq(reply.code, CODE(INVALID));
    send.reliable = false;
    since = fixture.sent_count;
    ck_assert(ask(&request));
    ck_assert_str_eq(sent_item(&fixture, since, 1, BODY(SIGNAL), 0)->signal->to, bob.sid);
    to[0] = (char *)"carol"; /* of another room */
    ck_assert(ask(&request));
    ck_assert_int_eq(reply.code, CODE(NOT_FOUND));
}
END_TEST

START_TEST(unknown_requests_are_not_for_shards)
{
    Request request = make(REQUEST(FOLLOW_EVENTS));
    ck_assert(!ask(&request));
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("shard_admin");
    tcase_add_checked_fixture(tcase, open_fixture, close_fixture);
    tcase_add_test(tcase, a_room_is_described_with_its_members);
    tcase_add_test(tcase, rooms_are_listed_in_pages);
    tcase_add_test(tcase, a_participant_is_removed_for_everybody);
    tcase_add_test(tcase, a_muted_track_is_published_and_told_to_the_gateway);
    tcase_add_test(tcase, a_deleted_room_is_empty);
    tcase_add_test(tcase, data_reaches_the_room_or_some_of_it);
    tcase_add_test(tcase, unknown_requests_are_not_for_shards);
    return suite_run("shard_admin", tcase, NULL);
}
