#include "common/crypto_memory.h"

#include <assert.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <stdbool.h>
#include <stdlib.h>

enum {
    GRAIN_BYTES = 16, /* malloc's: it makes usable sizes of 16 n + 8 */
    SMALL_MAX_BYTES = 1024,
    SMALL_SHELVES = SMALL_MAX_BYTES / GRAIN_BYTES + 1,
    LARGE_GRAIN_BYTES = 2048,
    LARGE_MIN_BYTES = 12 * 1024, /* buffers of records and handshakes; the SSL itself, which stays, is smaller */
    LARGE_MAX_BYTES = 32 * 1024,
    LARGE_SHELVES = LARGE_MAX_BYTES / LARGE_GRAIN_BYTES + 1,
    KEPT_MAX_BYTES = 512 * 1024,
    KEPT_LARGE_MAX_BYTES = 384 * 1024, /* that much and no more takes large ones */
};

/* What is kept holds the link to the next. */
struct kept {
    struct kept *next;
};

static struct kept *small[SMALL_SHELVES], *large[LARGE_SHELVES];
static size_t kept_bytes;
static __thread bool keeps;

/* Of a request: whatever lies on that shelf is large enough for it. NULL: none. */
static struct kept **shelf_for(size_t size)
{
    if (size <= SMALL_MAX_BYTES)
        return &small[size <= GRAIN_BYTES + 8 ? 1 : (size + 7) / GRAIN_BYTES];
    if (size >= LARGE_MIN_BYTES && size <= LARGE_MAX_BYTES)
        return &large[(size + LARGE_GRAIN_BYTES - 1) / LARGE_GRAIN_BYTES];
    return NULL;
}

/* Of memory with so many usable bytes, which are all that is asked of its shelf, with any malloc. */
static struct kept **shelf_of(size_t usable_bytes)
{
    size_t number = (usable_bytes - 8) / GRAIN_BYTES;
    if (usable_bytes < GRAIN_BYTES + 8)
        return NULL;
    if (number < SMALL_SHELVES)
        return &small[number];
    if (usable_bytes >= LARGE_MIN_BYTES && usable_bytes / LARGE_GRAIN_BYTES < LARGE_SHELVES)
        return &large[usable_bytes / LARGE_GRAIN_BYTES];
    return NULL;
}

static void *take(size_t size, const char *file, int line)
{
    struct kept **shelf = keeps ? shelf_for(size) : NULL;
    if (shelf != NULL && *shelf != NULL) {
        struct kept *memory = *shelf;
        *shelf = memory->next;
        kept_bytes -= malloc_usable_size(memory);
        return memory;
    }
    /* Whole steps, so that it comes to lie on the shelf of its like. */
    if (shelf != NULL && size >= LARGE_MIN_BYTES)
        size = (size + LARGE_GRAIN_BYTES - 1) / LARGE_GRAIN_BYTES * LARGE_GRAIN_BYTES;
    return malloc(size);
}

static void *resize(void *memory, size_t size, const char *file, int line)
{
    return realloc(memory, size);
}

static void put(void *memory, const char *file, int line)
{
    size_t bytes = keeps && memory != NULL ? malloc_usable_size(memory) : 0;
    size_t most_bytes = bytes < LARGE_MIN_BYTES ? KEPT_MAX_BYTES : KEPT_LARGE_MAX_BYTES;
    struct kept **shelf = bytes > 0 && kept_bytes + bytes <= most_bytes ? shelf_of(bytes) : NULL;
    if (shelf == NULL) {
        free(memory);
        return;
    }
    struct kept *kept = memory;
    kept->next = *shelf;
    *shelf = kept;
    kept_bytes += bytes;
}

static void clear(struct kept **shelf)
{
    while (*shelf != NULL) {
        struct kept *memory = *shelf;
        *shelf = memory->next;
        free(memory);
    }
}

void crypto_memory_begin(void)
{
    int set = CRYPTO_set_mem_functions(take, resize, put);
    assert(set == 1);
#ifndef SBX_NO_POOLS
    keeps = true;
#endif
}

void crypto_memory_give_back(void)
{
    for (int i = 0; i < SMALL_SHELVES; i++)
        clear(&small[i]);
    for (int i = 0; i < LARGE_SHELVES; i++)
        clear(&large[i]);
    kept_bytes = 0;
}

size_t crypto_memory_kept_bytes(void)
{
    return kept_bytes;
}
