/* Puts packed parts together into packed ServerMessages without unpacking them: a roster of packed participants becomes
 * a snapshot, a tick's packed events become room_events. Internal to shard/; pure functions. */
#ifndef SBX_SHARD_FRAMES_H
#define SBX_SHARD_FRAMES_H

#include "common/buf.h"
#include "common/payload.h"
#include <protobuf-c/protobuf-c.h>
#include <stdint.h>

/* Field numbers of client.proto that are written here; checked against the descriptors by the unit test. */
enum {
    FIELD_SERVER_SIGNALS = 41,
    FIELD_SERVER_SNAPSHOT = 50,
    FIELD_SERVER_ROOM_EVENTS = 51,
    FIELD_SNAPSHOT_PARTICIPANTS = 2,
    FIELD_ROOM_EVENTS_EVENTS = 4,
    FIELD_ROOM_EVENT_JOINED = 1,
    FIELD_SIGNALS_SIGNALS = 1,
};

/* Appends a length-delimited field. */
void frames_append(struct buf *out, unsigned field, const void *data, size_t size);
void frames_append_message(struct buf *out, unsigned field, const ProtobufCMessage *message);
/* ServerMessage{field: body}. */
struct payload *frames_wrap(unsigned field, const struct buf *body);

#endif
