/* A bump allocator for the life of one message: unpack, decide, drop everything at once.
 *
 * Ownership: embedded; arena_done() frees. Memory from an arena is valid until arena_reset() and is never stored.
 * Bounds: arena_init() takes the most bytes that one message may cost; arena_alloc() returns NULL beyond it, which the
 * protobuf allocator reports as a failed unpack. That turns a small frame that unpacks into megabytes (two bytes on the
 * wire can cost a hundred in memory) into an ordinary refusal.
 * Sanitizer builds (SBX_NO_POOLS) allocate each piece separately, so that overruns are seen.
 */
#ifndef SBX_COMMON_ARENA_H
#define SBX_COMMON_ARENA_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

struct arena_chunk;

struct arena {
    ProtobufCAllocator allocator; /* hand &arena->allocator to protobuf-c's unpack; its free does nothing */
    struct arena_chunk *chunks;   /* newest first; the oldest is kept by arena_reset() */
    size_t used_bytes;
    size_t limit_bytes;
};

void arena_init(struct arena *arena, size_t limit_bytes);
void arena_done(struct arena *arena);
void arena_reset(struct arena *arena);
/* Aligned for any type; NULL past the limit. */
void *arena_alloc(struct arena *arena, size_t size);
void *arena_zalloc(struct arena *arena, size_t size);
char *arena_strndup(struct arena *arena, const char *str, size_t size);

#endif
