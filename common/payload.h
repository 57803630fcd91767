/* Immutable, reference-counted bytes: what goes to many receivers is serialised once and shared.
 *
 * Ownership: payload_ref() and payload_unref() from any thread (the count is atomic, because a payload crosses from the
 * loop to the bus thread). The bytes never change after the first payload_ref() or hand-over.
 */
#ifndef SBX_COMMON_PAYLOAD_H
#define SBX_COMMON_PAYLOAD_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

struct payload {
    uint32_t refs;
    uint32_t size;
    uint8_t data[];
};

struct payload *payload_new(size_t size);
struct payload *payload_from(const void *data, size_t size);
/* Packs a message into a fresh payload. */
struct payload *payload_pack(const ProtobufCMessage *message);
struct payload *payload_ref(struct payload *payload);
/* NULL-safe; nulls the caller's pointer. */
void payload_unref(struct payload **payload);

#endif
