/* Allocation that cannot fail. A server that is out of memory cannot keep its promises; it logs what it wanted and
 * aborts, and its peers take over. What a peer controls is bounded before it gets here.
 * Threading: any thread. */
#ifndef SBX_COMMON_MEM_H
#define SBX_COMMON_MEM_H

#include <stddef.h>

void *mem_alloc(size_t size) __attribute__((malloc, alloc_size(1), returns_nonnull));
void *mem_zalloc(size_t size) __attribute__((malloc, alloc_size(1), returns_nonnull));
void *mem_realloc(void *ptr, size_t size) __attribute__((alloc_size(2), returns_nonnull));
char *mem_strdup(const char *str) __attribute__((malloc, returns_nonnull));
char *mem_strndup(const char *str, size_t size) __attribute__((malloc, returns_nonnull));
void *mem_dup(const void *data, size_t size) __attribute__((malloc, returns_nonnull));
#define mem_new(type) ((type *)mem_zalloc(sizeof(type)))

#endif
