#include "common/payload.h"

#include "common/mem.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct payload *payload_new(size_t size)
{
    assert(size <= UINT32_MAX);
    struct payload *payload = mem_alloc(sizeof(*payload) + size);
    payload->refs = 1;
    payload->size = (uint32_t)size;
    return payload;
}

struct payload *payload_from(const void *data, size_t size)
{
    struct payload *payload = payload_new(size);
    if (size != 0)
        memcpy(payload->data, data, size);
    return payload;
}

struct payload *payload_pack(const ProtobufCMessage *message)
{
    struct payload *payload = payload_new(protobuf_c_message_get_packed_size(message));
    protobuf_c_message_pack(message, payload->data);
    return payload;
}

struct payload *payload_ref(struct payload *payload)
{
    uint32_t before = __atomic_fetch_add(&payload->refs, 1, __ATOMIC_RELAXED);
    assert(before != 0 && before != UINT32_MAX);
    return payload;
}

void payload_unref(struct payload **payload)
{
    struct payload *p = *payload;
    *payload = NULL;
    /* Release and acquire: whoever frees sees every use by the others as done. */
    if (p != NULL && __atomic_fetch_sub(&p->refs, 1, __ATOMIC_ACQ_REL) == 1)
        free(p);
}
