/* Configuration: one table per program is the only source of names, types, defaults, ranges and help.
 *
 * Files are libconfig; strings expand ${ENV} (an unset variable is a problem, `${VAR:-default}` gives a default; $$ is
 * a dollar). Every problem is reported with file and line, all of them at once, never just the first. Unknown names are
 * problems: a misspelt limit must not silently be a default. Integers may be written with or without libconfig's L
 * suffix; @include is refused.
 *
 * Ownership: the caller's struct receives the values; strings are owned by it and freed by config_done().
 */
#ifndef SBX_COMMON_CONFIG_H
#define SBX_COMMON_CONFIG_H

#include "common/buf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum config_type {
    CONFIG_STRING,  /* char * */
    CONFIG_INT,     /* int64_t, within min..max */
    CONFIG_BOOL,    /* bool */
    CONFIG_ENUM,    /* int: index into `choices` */
    CONFIG_STRINGS, /* struct config_strings: an array of strings */
    CONFIG_LIST,    /* struct config_list: a list of groups, each by the table `item` */
};

struct config_strings {
    char **values;
    size_t count;
};

struct config_list {
    void *items; /* array of `item_size` */
    size_t count;
};

struct config_key {
    const char *name; /* dotted path, e.g. "tls.certificate_file", of at most 63 bytes; NULL ends the table */
    enum config_type type;
    size_t offset;
    const char *def; /* as it would be written in a file, a string's quotes left out at will; NULL = required
                      * (CONFIG_LIST: empty) */
    int64_t min, max;
    const char *unit;           /* for the help; may be NULL */
    const char *const *choices; /* CONFIG_ENUM: NULL-terminated */
    const struct config_key *item;
    size_t item_size;
    bool secret; /* no value is printed, not even the default */
    const char *help;
};

/* Fills `target` (zeroed by the caller) from `path` (NULL: defaults alone). `overrides` are "name=value" from the
 * command line, NULL-terminated or NULL; values are written as in a file, or without the quotes if there is one string.
 * Appends one line per problem to `problems` ("file:line: name: what is wrong, what would be right") and returns how
 * many there were. config_done() is right in any case. */
size_t config_load(const struct config_key *table, const char *path, const char *const *overrides, void *target,
                   struct buf *problems);
/* The same from a text; `path` is only what it is called in problems. */
size_t config_load_text(const struct config_key *table, const char *text, const char *path,
                        const char *const *overrides, void *target, struct buf *problems);
/* For a tool that needs a few keys of a program's file: names that the table lacks are passed over. */
size_t config_load_some(const struct config_key *table, const char *path, void *target, struct buf *problems);
/* Adds a problem found by the program's own checks, at the line where `name` was set. */
void config_problem(struct buf *problems, const char *path, const char *name, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void config_done(const struct config_key *table, void *target);
/* Appends a complete, commented file with every key at its default: --print-config. */
void config_print(const struct config_key *table, struct buf *out);

#endif
