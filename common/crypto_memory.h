/* Keeps what OpenSSL frees for what it allocates next.
 *
 * A TLS handshake makes and frees some two thousand small things, and a buffer of 16 KB for each record that comes.
 * With malloc's own per-thread caches off (docs/PERFORMANCE.md: what they keep never goes back, and pins pages) each of
 * them costs a lock and a search. What is kept here is bounded, and given back after a crowd (common/give_back.h).
 *
 * OpenSSL knows one set of functions for the whole process, without a context: hence the state of its own. Sanitizer
 * builds keep nothing.
 *
 * Threading: the thread that called crypto_memory_begin() keeps; other threads use malloc as ever, and memory may be
 * allocated by one and freed by another.
 */
#ifndef SBX_COMMON_CRYPTO_MEMORY_H
#define SBX_COMMON_CRYPTO_MEMORY_H

#include <stddef.h>

/* Once, before anything makes use of OpenSSL, in the thread of the loop. */
void crypto_memory_begin(void);
/* Frees what is kept. In that thread. */
void crypto_memory_give_back(void);
/* Bytes that are kept. In that thread. */
size_t crypto_memory_kept_bytes(void);

#endif
