/* Structured logging: one line per event that an operator would act on.
 *
 *     log_info("session_joined", log_str("sid", sid), log_int("members", n));
 *
 * The event name is a literal in snake_case, greppable and stable; fields are key and value. Text format:
 * `2026-01-01T12:00:00.123Z INFO session_joined sid=S.. members=3`; JSON: one object per line with ts, level, event and
 * the fields. Values that could be misread are written as JSON strings in either format, longer ones than 1 KB are cut,
 * and what is not UTF-8 becomes U+FFFD: a peer cannot forge lines. Secrets (tokens, keys, SDP) are never fields. Each
 * call site may log `LOG_BURST` lines at once and LOG_RATE a second after that; what is suppressed is counted and
 * reported with the next line that gets through.
 *
 * Ownership: fields are borrowed for the call. Threading: any thread. Output goes to stderr in one write per line.
 */
#ifndef SBX_COMMON_LOG_H
#define SBX_COMMON_LOG_H

#include "common/buf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };
enum { LOG_BURST = 20, LOG_RATE_PER_S = 5 };

struct log_field {
    const char *key; /* NULL ends the list */
    enum { LOG_FIELD_STR, LOG_FIELD_INT, LOG_FIELD_UINT, LOG_FIELD_HEX } type;
    size_t size; /* of str */
    union {
        const char *str;
        int64_t i;
        uint64_t u;
    };
};

/* Per call site; zeroed at start. */
struct log_site {
    int64_t tokens_milli;
    int64_t refilled_ms;
    uint32_t suppressed;
    uint32_t lock;
};

void log_setup(enum log_level level, enum log_format format);
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);
void log_write(struct log_site *site, enum log_level level, const char *event, const struct log_field *fields);

/* The parts of log_write() that depend on nothing but their arguments. */
bool log_site_take(struct log_site *site, int64_t now_ms, uint32_t *ret_suppressed);
void log_format_line(struct buf *out, enum log_format format, int64_t wall_ms, enum log_level level, const char *event,
                     const struct log_field *fields, uint32_t suppressed);

static inline struct log_field log_strn(const char *key, const char *str, size_t size)
{
    return (struct log_field){.key = key, .type = LOG_FIELD_STR, .size = size, .str = str};
}

struct log_field log_str(const char *key, const char *str); /* a NULL str is written as "-" */

static inline struct log_field log_int(const char *key, int64_t value)
{
    return (struct log_field){.key = key, .type = LOG_FIELD_INT, .i = value};
}

static inline struct log_field log_uint(const char *key, uint64_t value)
{
    return (struct log_field){.key = key, .type = LOG_FIELD_UINT, .u = value};
}

/* 16 hex digits: incarnations and the like. */
static inline struct log_field log_hex(const char *key, uint64_t value)
{
    return (struct log_field){.key = key, .type = LOG_FIELD_HEX, .u = value};
}

#define log_at(level, event, ...)                                                                                      \
    do {                                                                                                               \
        static struct log_site log_site_;                                                                              \
        if (log_enabled(level))                                                                                        \
            log_write(&log_site_, level, event, (const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){.key = NULL}});  \
    } while (0)
#define log_error(event, ...) log_at(LOG_ERROR, event, __VA_ARGS__)
#define log_warn(event, ...) log_at(LOG_WARN, event, __VA_ARGS__)
#define log_info(event, ...) log_at(LOG_INFO, event, __VA_ARGS__)
#define log_debug(event, ...) log_at(LOG_DEBUG, event, __VA_ARGS__)

#endif
