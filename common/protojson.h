/* Canonical protobuf JSON (https://protobuf.dev/programming-guides/json/) for any protobuf-c message, driven by its
 * descriptor: the one piece of code by which the JSON subprotocol, the server API and webhooks are the same messages as
 * their binary forms.
 *
 * Writing: lowerCamelCase names, default values left out, 64-bit integers as strings, bytes as base64, enums by name
 * (numbers if unknown), floats in shortest round-trip form, NaN and Infinity as strings, map fields as objects.
 * Reading: lowerCamelCase or original names, null as absent, 64-bit integers as strings or numbers, exponents where the
 * value is integral, base64 and base64url with or without padding, enums by name or number, unknown fields ignored
 * (and unknown enum names, as if the field were absent), duplicate names refused, two members of one oneof refused.
 *
 * Bounds: input nesting 32; all memory of a decoded message comes from the caller's arena and its limit.
 * Threading: pure functions.
 */
#ifndef SBX_COMMON_PROTOJSON_H
#define SBX_COMMON_PROTOJSON_H

#include "common/arena.h"
#include "common/buf.h"
#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

void protojson_write(struct buf *out, const ProtobufCMessage *message);
/* NULL with a text in `error` that says where and what ("offer.sdp: expected a string"). The message lives in the arena:
 * never free it. */
ProtobufCMessage *protojson_read(const ProtobufCMessageDescriptor *type, const char *text, size_t size,
                                 struct arena *arena, char *error, size_t error_size);

#endif
