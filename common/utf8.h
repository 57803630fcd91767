/* UTF-8 (RFC 3629) checked as it arrives, in any pieces: no overlong forms, no surrogates, nothing above U+10FFFF.
 *
 *     uint8_t state = UTF8_ACCEPT;
 *     state = utf8_check(state, first, first_size);
 *     state = utf8_check(state, second, second_size);
 *
 * Threading: pure functions. */
#ifndef SBX_COMMON_UTF8_H
#define SBX_COMMON_UTF8_H

#include <stddef.h>
#include <stdint.h>

enum utf8_state {
    UTF8_REJECT = 0, /* nothing that follows can make it valid; final */
    UTF8_ACCEPT = 1, /* valid so far and between two characters; where a check starts */
    /* Every other value: valid so far, inside a character. */
};

/* The state after `size` more bytes. Rejects at the first byte that no valid text could have there. */
uint8_t utf8_check(uint8_t state, const void *data, size_t size);

#endif
