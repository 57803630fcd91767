/* Canonical protobuf JSON (https://protobuf.dev/programming-guides/json/) for any protobuf-c message, driven by its
 * descriptor: the one piece of code by which the JSON subprotocol, the server API and webhooks are the same messages as
 * their binary forms.
 *
 * Writing: lowerCamelCase names, default values left out, 64-bit integers as strings, bytes as base64, enums by name
 * (numbers if unknown), floats in shortest round-trip form, NaN and Infinity as strings, map fields as objects (sorted
 * by key; of entries with one key the last, as when binary is decoded into a map). Always valid JSON and UTF-8.
 * Reading: lowerCamelCase or original names, null as absent, 64-bit integers as strings or numbers, exponents where the
 * value is integral, base64 and base64url with or without padding, enums by name or number, unknown fields ignored
 * (and unknown enum names, as if the field were absent), duplicate names refused, two members of one oneof refused.
 *
 * Not supported: proto2, the well-known types, bare numbers beyond the range of int64 that are written without a
 * fraction or exponent (refused with a hint to write a string), U+0000 in strings (refused: C strings end there).
 *
 * Bounds: input nesting PROTOJSON_NESTING_MAX; all memory of a decoded message comes from the caller's arena and its
 * limit. The parsed text itself takes up to about a hundred times its size for the duration of the call, so bound that.
 * Threading: pure functions.
 */
#ifndef SBX_COMMON_PROTOJSON_H
#define SBX_COMMON_PROTOJSON_H

#include "common/arena.h"
#include "common/buf.h"
#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

/* Objects and arrays within each other, the outermost object included. */
enum { PROTOJSON_NESTING_MAX = 32 };

/* Messages come from codec_unpack(), protojson_read() or our own code, and are nested no deeper than those allow. */
void protojson_write(struct buf *out, const ProtobufCMessage *message);
/* NULL with a text in `error` that says where and what ("offer.sdp: expected a string"), printable ASCII whatever the
 * input was. The message lives in the arena: never free it. */
ProtobufCMessage *protojson_read(const ProtobufCMessageDescriptor *type, const char *text, size_t size,
                                 struct arena *arena, char *error, size_t error_size);

#endif
