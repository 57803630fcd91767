#include "common/arena.h"

#include "common/mem.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = _Alignof(max_align_t), CHUNK_MIN = 4096 };

struct arena_chunk {
    struct arena_chunk *next;
    size_t used;
    size_t capacity;
    _Alignas(max_align_t) uint8_t data[];
};

static void *allocator_alloc(void *arena, size_t size)
{
    return arena_alloc(arena, size);
}

static void allocator_free(void *arena, void *ptr)
{
}

void arena_init(struct arena *arena, size_t limit_bytes)
{
    *arena = (struct arena){
        .allocator = {.alloc = allocator_alloc, .free = allocator_free, .allocator_data = arena},
        .limit_bytes = limit_bytes,
    };
}

static void free_chunks_until(struct arena *arena, const struct arena_chunk *keep)
{
    while (arena->chunks != keep) {
        struct arena_chunk *next = arena->chunks->next;
        free(arena->chunks);
        arena->chunks = next;
    }
}

void arena_done(struct arena *arena)
{
    free_chunks_until(arena, NULL);
    *arena = (struct arena){0};
}

void arena_reset(struct arena *arena)
{
#ifdef SBX_NO_POOLS
    struct arena_chunk *oldest = NULL;
#else
    struct arena_chunk *oldest = arena->chunks;
#endif
    while (oldest != NULL && oldest->next != NULL)
        oldest = oldest->next;
    free_chunks_until(arena, oldest);
    if (oldest != NULL)
        oldest->used = 0;
    arena->used_bytes = 0;
}

static struct arena_chunk *chunk_add(struct arena *arena, size_t capacity)
{
    struct arena_chunk *chunk = mem_alloc(sizeof(*chunk) + capacity);
    *chunk = (struct arena_chunk){.next = arena->chunks, .capacity = capacity};
    arena->chunks = chunk;
    return chunk;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    /* What it costs is charged, an empty piece included: a million of those must not be free. */
    size_t cost = size <= ALIGNMENT ? ALIGNMENT : (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (size > arena->limit_bytes || cost > arena->limit_bytes - arena->used_bytes)
        return NULL;
    arena->used_bytes += cost;
#ifdef SBX_NO_POOLS
    struct arena_chunk *chunk = chunk_add(arena, size);
#else
    struct arena_chunk *chunk = arena->chunks;
    if (chunk == NULL || cost > chunk->capacity - chunk->used) {
        /* As much again as is in use, so that a large message takes few chunks. */
        size_t capacity = arena->used_bytes > CHUNK_MIN ? arena->used_bytes : CHUNK_MIN;
        chunk = chunk_add(arena, capacity);
    }
#endif
    void *ptr = chunk->data + chunk->used;
    chunk->used += cost;
    return ptr;
}

void *arena_zalloc(struct arena *arena, size_t size)
{
    void *ptr = arena_alloc(arena, size);
    if (ptr != NULL)
        memset(ptr, 0, size);
    return ptr;
}

char *arena_strndup(struct arena *arena, const char *str, size_t size)
{
    size_t length = strnlen(str, size);
    char *copy = arena_alloc(arena, length + 1);
    if (copy == NULL)
        return NULL;
    memcpy(copy, str, length);
    copy[length] = '\0';
    return copy;
}
