#include "common/log.h"

#include "common/buf.h"
#include "common/clock.h"
#include "common/metrics.h"
#include "common/utf8.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Values may come from peers: more than this of one is noise. */
enum { VALUE_MAX_BYTES = 1024 };

static int current_level = LOG_INFO;
static int current_format = LOG_FORMAT_TEXT;

static const char *const level_upper[] = {"ERROR", "WARN", "INFO", "DEBUG"};
static const char *const level_lower[] = {"error", "warn", "info", "debug"};

void log_setup(enum log_level level, enum log_format format)
{
    log_set_level(level);
    __atomic_store_n(&current_format, (int)format, __ATOMIC_RELAXED);
}

void log_set_level(enum log_level level)
{
    __atomic_store_n(&current_level, (int)level, __ATOMIC_RELAXED);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= __atomic_load_n(&current_level, __ATOMIC_RELAXED);
}

struct log_field log_str(const char *key, const char *str)
{
    return str != NULL ? log_strn(key, str, strlen(str)) : log_strn(key, "-", 1);
}

bool log_site_take(struct log_site *site, int64_t now_ms, uint32_t *ret_suppressed)
{
    enum { FULL_MILLI = LOG_BURST * 1000 };
    while (__atomic_exchange_n(&site->lock, 1, __ATOMIC_ACQUIRE) != 0)
        ;
    int64_t elapsed_ms = now_ms - site->refilled_ms;
    if (site->refilled_ms == 0 || elapsed_ms > FULL_MILLI / LOG_RATE_PER_S)
        site->tokens_milli = FULL_MILLI;
    else if (elapsed_ms > 0)
        site->tokens_milli += elapsed_ms * LOG_RATE_PER_S;
    if (site->tokens_milli > FULL_MILLI)
        site->tokens_milli = FULL_MILLI;
    site->refilled_ms = now_ms;
    bool taken = site->tokens_milli >= 1000;
    if (taken) {
        site->tokens_milli -= 1000;
        *ret_suppressed = site->suppressed;
        site->suppressed = 0;
    } else {
        site->suppressed++;
    }
    __atomic_store_n(&site->lock, 0, __ATOMIC_RELEASE);
    return taken;
}

/* Bytes of the UTF-8 character at `text`, 0 if there is none. */
static size_t utf8_length(const uint8_t *text, size_t size)
{
    uint8_t state = UTF8_ACCEPT;
    for (size_t i = 0; i < size && state != UTF8_REJECT; i++) {
        state = utf8_check(state, text + i, 1);
        if (state == UTF8_ACCEPT)
            return i + 1;
    }
    return 0;
}

static void append_char_escaped(struct buf *out, uint8_t c)
{
    switch (c) {
    case '"':
    case '\\':
        buf_append_char(out, '\\');
        buf_append_char(out, (char)c);
        break;
    case '\n':
        buf_append_str(out, "\\n");
        break;
    case '\r':
        buf_append_str(out, "\\r");
        break;
    case '\t':
        buf_append_str(out, "\\t");
        break;
    default:
        if (c < 0x20 || c == 0x7f)
            buf_printf(out, "\\u%04x", c);
        else
            buf_append_char(out, (char)c);
    }
}

/* A JSON string (RFC 8259), in both formats. C1 control characters are escaped too: terminals obey them. */
static void append_quoted(struct buf *out, const char *str, size_t size)
{
    const uint8_t *text = (const uint8_t *)str;
    bool cut = size > VALUE_MAX_BYTES;
    if (cut) {
        size = VALUE_MAX_BYTES;
        while (size > VALUE_MAX_BYTES - 3 && (text[size] & 0xc0) == 0x80)
            size--;
    }
    buf_append_char(out, '"');
    for (size_t i = 0; i < size;) {
        size_t length = utf8_length(text + i, size - i);
        if (length == 1)
            append_char_escaped(out, text[i]);
        else if (length == 2 && text[i] == 0xc2 && text[i + 1] < 0xa0)
            buf_printf(out, "\\u%04x", text[i + 1]);
        else if (length > 1)
            buf_append(out, text + i, length);
        else
            buf_append_str(out, "\xef\xbf\xbd"); /* U+FFFD, the replacement character */
        i += length != 0 ? length : 1;
    }
    buf_append_str(out, cut ? "...\"" : "\"");
}

static bool is_bare(const char *str, size_t size)
{
    if (size == 0 || size > VALUE_MAX_BYTES)
        return false;
    for (size_t i = 0; i < size; i++)
        if (str[i] <= ' ' || str[i] > '~' || str[i] == '"' || str[i] == '\\' || str[i] == '=')
            return false;
    return true;
}

static void append_field(struct buf *out, enum log_format format, const struct log_field *field)
{
    bool json = format == LOG_FORMAT_JSON;
    buf_printf(out, json ? ",\"%s\":" : " %s=", field->key);
    switch (field->type) {
    case LOG_FIELD_STR:
        if (!json && is_bare(field->str, field->size))
            buf_append(out, field->str, field->size);
        else
            append_quoted(out, field->str, field->size);
        break;
    case LOG_FIELD_INT:
        buf_printf(out, "%" PRId64, field->i);
        break;
    case LOG_FIELD_UINT:
        buf_printf(out, "%" PRIu64, field->u);
        break;
    case LOG_FIELD_HEX:
        buf_printf(out, json ? "\"%016" PRIx64 "\"" : "%016" PRIx64, field->u);
        break;
    }
}

void log_format_line(struct buf *out, enum log_format format, int64_t wall_ms, enum log_level level, const char *event,
                     const struct log_field *fields, uint32_t suppressed)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    char stamp[40];
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
    int milliseconds = (int)(wall_ms % 1000);
    if (format == LOG_FORMAT_JSON)
        buf_printf(out, "{\"ts\":\"%s.%03dZ\",\"level\":\"%s\",\"event\":\"%s\"", stamp, milliseconds,
                   level_lower[level], event);
    else
        buf_printf(out, "%s.%03dZ %s %s", stamp, milliseconds, level_upper[level], event);
    for (const struct log_field *field = fields; field->key != NULL; field++)
        append_field(out, format, field);
    if (suppressed != 0)
        append_field(out, format, (const struct log_field[]){log_uint("suppressed", suppressed)});
    buf_append_str(out, format == LOG_FORMAT_JSON ? "}\n" : "\n");
}

void log_write(struct log_site *site, enum log_level level, const char *event, const struct log_field *fields)
{
    uint32_t suppressed;
    if (!log_site_take(site, clock_mono_ms(), &suppressed)) {
        metric_add(M_LOG_SUPPRESSED, 1);
        return;
    }
    enum log_format format = (enum log_format)__atomic_load_n(&current_format, __ATOMIC_RELAXED);
    struct buf line = {0};
    log_format_line(&line, format, clock_wall_ms(), level, event, fields, suppressed);
    /* A log that cannot be written has nobody to complain to. */
    ssize_t written = write(STDERR_FILENO, line.data, line.size);
    (void)written;
    buf_done(&line);
}
