/* Objects of one size that come and go for as long as the process lives, kept together: allocated one by one they would
 * lie between everything else and pin its pages. The memory is freed with the last object, so there is nothing to end.
 *
 * Ownership: embedded. Bounds: the caller counts. Threading: one thread.
 * Sanitizer builds (SBX_NO_POOLS) allocate each object separately, so that overruns are seen.
 */
#ifndef SBX_COMMON_POOL_H
#define SBX_COMMON_POOL_H

#include <stddef.h>

struct pool_chunk;

struct pool {
    size_t object_size;
    size_t used;
    void *free; /* linked through their first bytes */
    struct pool_chunk *chunks;
};

void pool_init(struct pool *pool, size_t object_size);
/* Zeroed; never NULL. */
void *pool_alloc(struct pool *pool) __attribute__((malloc, returns_nonnull));
void pool_free(struct pool *pool, void *object);

#endif
