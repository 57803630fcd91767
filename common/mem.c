#include "common/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Not through common/log.h, which allocates. */
static void __attribute__((noreturn)) die_out_of_memory(size_t size)
{
    char line[96];
    int length = snprintf(line, sizeof(line), "signalbox: out of memory: wanted %zu bytes\n", size);
    ssize_t written = write(STDERR_FILENO, line, (size_t)length);
    (void)written;
    abort();
}

void *mem_alloc(size_t size)
{
    void *ptr = malloc(size != 0 ? size : 1);
    if (ptr == NULL)
        die_out_of_memory(size);
    return ptr;
}

void *mem_zalloc(size_t size)
{
    void *ptr = calloc(1, size != 0 ? size : 1);
    if (ptr == NULL)
        die_out_of_memory(size);
    return ptr;
}

void *mem_realloc(void *ptr, size_t size)
{
    ptr = realloc(ptr, size != 0 ? size : 1);
    if (ptr == NULL)
        die_out_of_memory(size);
    return ptr;
}

char *mem_strdup(const char *str)
{
    return mem_dup(str, strlen(str) + 1);
}

char *mem_strndup(const char *str, size_t size)
{
    size_t length = strnlen(str, size);
    char *copy = mem_alloc(length + 1);
    memcpy(copy, str, length);
    copy[length] = '\0';
    return copy;
}

void *mem_dup(const void *data, size_t size)
{
    void *copy = mem_alloc(size);
    if (size != 0)
        memcpy(copy, data, size);
    return copy;
}
