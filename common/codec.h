/* Decoding of protobuf bytes that a peer sent: unpack into an arena, then check what protobuf-c does not: strings are
 * UTF-8, and nothing exceeds its bound.
 * Threading: pure functions. */
#ifndef SBX_COMMON_CODEC_H
#define SBX_COMMON_CODEC_H

#include "common/arena.h"
#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

/* NULL with a text in `error`. The message lives in the arena: never free it. Embedded NULs in strings are refused,
 * because the C string would silently end there. */
ProtobufCMessage *codec_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t size,
                               struct arena *arena, char *error, size_t error_size);

#endif
