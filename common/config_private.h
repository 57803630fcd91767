/* What the two halves of common/config.h, reading (config.c) and printing (config_print.c), share: texts as they stand
 * in a file. For those two alone. Threading: pure functions, but for the environment. */
#ifndef SBX_COMMON_CONFIG_PRIVATE_H
#define SBX_COMMON_CONFIG_PRIVATE_H

#include "common/config.h"

enum { CONFIG_NAME_MAX = 63 };

/* libconfig 1.5 silently truncates an integer to 32 bits unless it ends in L: gives every integer its L. Returns the
 * line of an @include, which would escape this, or 0. */
unsigned config_widen_integers(const char *text, struct buf *out);
/* Expands ${...} and $$. False with what is wrong appended to `error`. */
bool config_expand(const char *text, struct buf *out, struct buf *error);
/* A default or an override, whose quotes may be left out, as a file would have it. */
void config_append_value(struct buf *out, const struct config_key *key, const char *text);
/* "expected a string, for example ..." */
void config_append_expected(struct buf *out, const struct config_key *key);

#endif
