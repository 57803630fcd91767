#include "common/pool.h"

#include "common/mem.h"
#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_OBJECTS = 64 };

struct pool_chunk {
    struct pool_chunk *next;
    alignas(max_align_t) uint8_t objects[];
};

void pool_init(struct pool *pool, size_t object_size)
{
    size_t unit = alignof(max_align_t);
    *pool = (struct pool){.object_size = (object_size + unit - 1) / unit * unit};
}

#ifdef SBX_NO_POOLS

void *pool_alloc(struct pool *pool)
{
    pool->used++;
    return mem_zalloc(pool->object_size);
}

void pool_free(struct pool *pool, void *object)
{
    pool->used--;
    free(object);
}

#else

static void free_chunks(struct pool *pool)
{
    while (pool->chunks != NULL) {
        struct pool_chunk *next = pool->chunks->next;
        free(pool->chunks);
        pool->chunks = next;
    }
    pool->free = NULL;
}

static void put(struct pool *pool, void *object)
{
    memcpy(object, &pool->free, sizeof pool->free);
    pool->free = object;
}

static void grow(struct pool *pool)
{
    struct pool_chunk *chunk = mem_alloc(sizeof *chunk + CHUNK_OBJECTS * pool->object_size);
    chunk->next = pool->chunks;
    pool->chunks = chunk;
    for (size_t i = CHUNK_OBJECTS; i-- > 0;)
        put(pool, chunk->objects + i * pool->object_size);
}

void *pool_alloc(struct pool *pool)
{
    if (pool->free == NULL)
        grow(pool);
    void *object = pool->free;
    memcpy(&pool->free, object, sizeof pool->free);
    pool->used++;
    return memset(object, 0, pool->object_size);
}

void pool_free(struct pool *pool, void *object)
{
    put(pool, object);
    if (--pool->used == 0)
        free_chunks(pool);
}

#endif
