/* Decoding of protobuf bytes that a peer sent: check what protobuf-c does not, then unpack into an arena.
 *
 * The check is one pass over the wire, led by the descriptors, before anything is allocated. It refuses
 * - strings that are not UTF-8 (the proto3 language guide demands it), and NULs in strings, which would silently end
 *   the C string;
 * - messages nested deeper than CODEC_DEPTH_MAX: protobuf-c recurses without a limit, and a 64 KiB frame of nested
 *   headers takes megabytes of stack;
 * - a singular message field that occurs twice. The specification would have them merged, but no encoder writes that,
 *   and protobuf-c's merge costs quadratic memory and fails on an unset oneof;
 * - groups, field number 0 and lengths beyond the end, as protobuf-c does too.
 * How many fields and elements there may be is bounded by the arena's limit: protobuf-c takes all its memory from
 * there, its own bookkeeping (up to a hundred bytes per field on the wire) included.
 *
 * Threading: pure functions. */
#ifndef SBX_COMMON_CODEC_H
#define SBX_COMMON_CODEC_H

#include "common/arena.h"
#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

/* The outermost message counts as one; so does each entry of a map. */
enum { CODEC_DEPTH_MAX = 32 };

/* NULL with a text in `error` ("Offer.sdp: not UTF-8"). The message lives in the arena: never free it. proto3 types of
 * at most 256 fields. */
ProtobufCMessage *codec_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t size,
                               struct arena *arena, char *error, size_t error_size);

#endif
