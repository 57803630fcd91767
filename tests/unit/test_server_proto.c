/* The server API is the one that LiveKit's SDKs speak: vectors that their own library encoded, both ways. */
#include "common/codec.h"
#include "common/protojson.h"
#include "proto/server.pb-c.h"
#include <check.h>
#include <jansson.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE(name) &signalbox__server__v1__##name##__descriptor

static const ProtobufCMessageDescriptor *const messages[] = {
    MESSAGE(room),
    MESSAGE(create_room_request),
    MESSAGE(list_rooms_request),
    MESSAGE(list_rooms_response),
    MESSAGE(delete_room_request),
    MESSAGE(delete_room_response),
    MESSAGE(update_room_metadata_request),
    MESSAGE(participant_info),
    MESSAGE(participant_permission),
    MESSAGE(list_participants_request),
    MESSAGE(list_participants_response),
    MESSAGE(room_participant_identity),
    MESSAGE(remove_participant_response),
    MESSAGE(update_participant_request),
    MESSAGE(track_info),
    MESSAGE(mute_room_track_request),
    MESSAGE(mute_room_track_response),
    MESSAGE(send_data_request),
    MESSAGE(send_data_response),
    MESSAGE(webhook_event),
};

static const struct {
    const char *name;
    const ProtobufCEnumDescriptor *type;
} enums[] = {
    {"TrackType", MESSAGE(track_type)},
    {"TrackSource", MESSAGE(track_source)},
    {"DisconnectReason", MESSAGE(disconnect_reason)},
    {"ParticipantInfo.State", MESSAGE(participant_info__state)},
    {"ParticipantInfo.Kind", MESSAGE(participant_info__kind)},
    {"SendDataRequest.Kind", MESSAGE(send_data_request__kind)},
};

enum { COUNT = sizeof messages / sizeof messages[0], OWN_FIELDS_FROM = 1000 };

static struct arena arena;
static json_t *file;
static char error[256];

static void setup(void)
{
    json_error_t problem;

    arena_init(&arena, 1 << 20);
    file = json_load_file(SBX_TEST_SOURCE_DIR "/vectors/server_api.json", 0, &problem);
    ck_assert_msg(file != NULL, "line %d: %s", problem.line, problem.text);
}

static void teardown(void)
{
    arena_done(&arena);
    json_decref(file);
}

static const ProtobufCMessageDescriptor *find_message(const char *name)
{
    for (size_t i = 0; i < COUNT; i++) {
        if (strcmp(messages[i]->short_name, name) == 0)
            return messages[i];
    }
    ck_abort_msg("no message %s", name);
}

static ProtobufCMessage *from_json(const ProtobufCMessageDescriptor *type, const json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT);
    ProtobufCMessage *message = protojson_read(type, text, strlen(text), &arena, error, sizeof error);

    ck_assert_msg(message != NULL, "%s: %s", text, error);
    free(text);
    return message;
}

static ProtobufCMessage *from_binary(const ProtobufCMessageDescriptor *type, const json_t *base64)
{
    unsigned char bytes[4096];
    size_t size;

    ck_assert_int_eq(sodium_base642bin(bytes, sizeof bytes, json_string_value(base64), json_string_length(base64), NULL,
                                       &size, NULL, sodium_base64_VARIANT_ORIGINAL),
                     0);
    ProtobufCMessage *message = codec_unpack(type, bytes, size, &arena, error, sizeof error);
    ck_assert_msg(message != NULL, "%s: %s", type->name, error);
    return message;
}

static void assert_json(const ProtobufCMessage *message, const json_t *want)
{
    struct buf text = {0};

    protojson_write(&text, message);
    json_t *got = json_loads(buf_str(&text), 0, NULL);
    ck_assert_msg(json_equal(got, want), "%s: %s", message->descriptor->name, buf_str(&text));
    json_decref(got);
    buf_done(&text);
}

static void assert_binary(const ProtobufCMessage *message, const json_t *want)
{
    uint8_t bytes[4096];
    char text[8192];

    ck_assert_uint_le(protobuf_c_message_get_packed_size(message), sizeof bytes);
    size_t size = protobuf_c_message_pack(message, bytes);
    sodium_bin2base64(text, sizeof text, bytes, size, sodium_base64_VARIANT_ORIGINAL);
    ck_assert_msg(strcmp(text, json_string_value(want)) == 0, "%s: %s", message->descriptor->name, text);
}

START_TEST(messages_are_read_and_written_as_livekit_does)
{
    size_t i;
    json_t *vector;

    ck_assert_uint_gt(json_array_size(json_object_get(file, "vectors")), 0);
    json_array_foreach(json_object_get(file, "vectors"), i, vector)
    {
        const ProtobufCMessageDescriptor *type = find_message(json_string_value(json_object_get(vector, "message")));
        const json_t *json = json_object_get(vector, "json"), *binary = json_object_get(vector, "binary");

        assert_json(from_json(type, json), json);
        if (!json_is_true(json_object_get(vector, "read_only")))
            assert_binary(from_json(type, json), binary);
        assert_json(from_binary(type, binary), json);
    }
}
END_TEST

START_TEST(what_only_livekit_has_is_ignored)
{
    size_t i, count = 0;
    json_t *vector;

    json_array_foreach(json_object_get(file, "vectors"), i, vector)
    {
        const ProtobufCMessageDescriptor *type = find_message(json_string_value(json_object_get(vector, "message")));
        const json_t *more = json_object_get(vector, "with_more"), *json = json_object_get(vector, "json");

        if (more == NULL)
            continue;
        assert_json(from_json(type, json_object_get(more, "json")), json);
        assert_json(from_binary(type, json_object_get(more, "binary")), json);
        count++;
    }
    ck_assert_uint_gt(count, 0);
}
END_TEST

START_TEST(every_field_number_and_name_is_livekits)
{
    for (size_t i = 0; i < COUNT; i++) {
        const json_t *theirs = json_object_get(json_object_get(file, "fields"), messages[i]->short_name);

        ck_assert_msg(theirs != NULL, "%s", messages[i]->name);
        for (unsigned f = 0; f < messages[i]->n_fields; f++) {
            const ProtobufCFieldDescriptor *field = &messages[i]->fields[f];
            const json_t *number = json_object_get(theirs, field->name);

            if (field->id >= OWN_FIELDS_FROM)
                ck_assert_msg(number == NULL, "%s.%s", messages[i]->name, field->name);
            else
                ck_assert_msg(number != NULL && json_integer_value(number) == field->id, "%s.%s", messages[i]->name,
                              field->name);
        }
    }
}
END_TEST

START_TEST(every_enum_value_is_livekits)
{
    for (size_t i = 0; i < sizeof enums / sizeof enums[0]; i++) {
        const json_t *theirs = json_object_get(json_object_get(file, "enums"), enums[i].name);

        for (unsigned v = 0; v < enums[i].type->n_values; v++) {
            const ProtobufCEnumValue *value = &enums[i].type->values[v];
            const json_t *number = json_object_get(theirs, value->name);

            ck_assert_msg(number != NULL && json_integer_value(number) == value->value, "%s.%s", enums[i].name,
                          value->name);
        }
    }
}
END_TEST

START_TEST(the_keys_of_webhooks_are_ours)
{
    Signalbox__Server__V1__EventKey key = SIGNALBOX__SERVER__V1__EVENT_KEY__INIT;
    Signalbox__Server__V1__WebhookEvent event = SIGNALBOX__SERVER__V1__WEBHOOK_EVENT__INIT;
    char epoch[] = "2.7.x", name[] = "room_finished", id[] = "e1";
    json_t *want = json_pack("{s:s, s:s, s:{s:s, s:s}}", "event", name, "id", id, "key", "epoch", epoch, "seq",
                             "18446744073709551615");

    key.epoch = epoch;
    key.seq = UINT64_MAX;
    event.event = name;
    event.id = id;
    event.key = &key;
    assert_json(&event.base, want);
    assert_json(from_json(MESSAGE(webhook_event), want), want);
    json_decref(want);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("server_proto");
    TCase *tcase = tcase_create("livekit");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, messages_are_read_and_written_as_livekit_does);
    tcase_add_test(tcase, what_only_livekit_has_is_ignored);
    tcase_add_test(tcase, every_field_number_and_name_is_livekits);
    tcase_add_test(tcase, every_enum_value_is_livekits);
    tcase_add_test(tcase, the_keys_of_webhooks_are_ours);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
