/* A growable byte buffer for building output: responses, frames, log lines, metrics pages.
 *
 * Ownership: embedded by value; buf_done() frees. A zeroed struct is a valid empty buffer.
 * Errors: none; running out of memory ends the process (see common/mem.h). A buffer built from peer input must be
 * bounded by its caller.
 */
#ifndef SBX_COMMON_BUF_H
#define SBX_COMMON_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data; /* owned; NULL while capacity is 0 */
    size_t size;
    size_t capacity;
};

void buf_done(struct buf *buf);
/* Forgets the content, keeps the memory. */
void buf_reset(struct buf *buf);
/* Makes room for `more` bytes beyond size and returns where they go; the caller then adds to `size`. */
uint8_t *buf_reserve(struct buf *buf, size_t more);
void buf_append(struct buf *buf, const void *data, size_t size);
void buf_append_str(struct buf *buf, const char *str);
void buf_append_char(struct buf *buf, char c);
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* NUL-terminates (the NUL is not counted in `size`) and returns the content as a string. */
const char *buf_str(struct buf *buf);

#endif
