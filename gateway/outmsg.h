/* A message on its way to clients: serialised once per encoding, shared by all its receivers.
 *
 * It begins as a packed ServerMessage (mostly as it came from the shard). The binary frame is those bytes behind a
 * header; the JSON frame is made at the first JSON client that needs it, and kept. Immutable and reference-counted.
 * Threading: loop thread.
 */
#ifndef SBX_GATEWAY_OUTMSG_H
#define SBX_GATEWAY_OUTMSG_H

#include "common/message_class.h"
#include "common/payload.h"
#include "proto/client.pb-c.h"
#include <stdbool.h>

enum encoding { ENCODING_PROTOBUF, ENCODING_JSON };

struct outmsg;

struct outmsg *outmsg_pack(const Signalbox__V1__ServerMessage *message);
struct outmsg *outmsg_from_bytes(const void *packed, size_t size);
struct outmsg *outmsg_ref(struct outmsg *message);
void outmsg_unref(struct outmsg **message);
/* The WebSocket frame in an encoding; borrowed, lives as long as the message. NULL if the packed bytes cannot be read
 * (a shard of another version sent something this build cannot convert): counted, and not sent. */
struct payload *outmsg_frame(struct outmsg *message, enum encoding encoding);
/* Its receivers are many: connections for which nothing else waits may let others go first. */
void outmsg_set_crowd(struct outmsg *message);
bool outmsg_is_crowd(const struct outmsg *message);
/* One message in place of two that follow each other and are both Signals: the latest of each sender and key.
 * `overtaken` is how many of the older one's have gone. The caller owns the reference. NULL where nothing would be
 * gained. Receivers that are behind by the same messages share the result. */
struct outmsg *outmsg_coalesce(struct outmsg *older, struct outmsg *newer, uint32_t *ret_overtaken);
/* The packed bytes. */
const struct payload *outmsg_bytes(const struct outmsg *message);

#endif
