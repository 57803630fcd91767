#include "common/buf.h"

#include "common/mem.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CAPACITY_MIN = 128 };

void buf_done(struct buf *buf)
{
    free(buf->data);
    *buf = (struct buf){0};
}

void buf_reset(struct buf *buf)
{
    buf->size = 0;
}

uint8_t *buf_reserve(struct buf *buf, size_t more)
{
    /* Beyond half the address space is a caller that lost count, not a lack of memory. */
    assert(more <= SIZE_MAX / 2 - buf->size);
    size_t needed = buf->size + more;
    if (needed > buf->capacity || buf->data == NULL) {
        size_t capacity = buf->capacity > CAPACITY_MIN / 2 ? buf->capacity * 2 : CAPACITY_MIN;
        buf->capacity = capacity > needed ? capacity : needed;
        buf->data = mem_realloc(buf->data, buf->capacity);
    }
    return buf->data + buf->size;
}

void buf_append(struct buf *buf, const void *data, size_t size)
{
    if (size == 0)
        return;
    memcpy(buf_reserve(buf, size), data, size);
    buf->size += size;
}

void buf_append_str(struct buf *buf, const char *str)
{
    buf_append(buf, str, strlen(str));
}

void buf_append_char(struct buf *buf, char c)
{
    *buf_reserve(buf, 1) = (uint8_t)c;
    buf->size++;
}

void buf_printf(struct buf *buf, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    char *dest = (char *)buf_reserve(buf, 1);
    int length = vsnprintf(dest, buf->capacity - buf->size, format, args);
    va_end(args);
    assert(length >= 0);
    if ((size_t)length >= buf->capacity - buf->size) {
        dest = (char *)buf_reserve(buf, (size_t)length + 1);
        vsnprintf(dest, (size_t)length + 1, format, again);
    }
    va_end(again);
    buf->size += (size_t)length;
}

const char *buf_str(struct buf *buf)
{
    *buf_reserve(buf, 1) = '\0';
    return (const char *)buf->data;
}
