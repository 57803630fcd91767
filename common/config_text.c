#include "common/config_private.h"
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The end of the string or comment that begins at `p`; `p` itself if none does. */
static const char *skip_opaque(const char *p)
{
    const char *end;

    if (*p == '"') {
        for (p++; *p && *p != '"'; p++) {
            if (*p == '\\' && p[1])
                p++;
        }
        return *p ? p + 1 : p;
    }
    if (*p == '#' || (p[0] == '/' && p[1] == '/'))
        return p + strcspn(p, "\n");
    if (p[0] == '/' && p[1] == '*') {
        end = strstr(p + 2, "*/");
        return end ? end + 2 : p + strlen(p);
    }
    return p;
}

static const char *skip_integer(const char *p)
{
    if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
        for (p += 2; isxdigit((unsigned char)*p);)
            p++;
        return p;
    }
    while (isdigit((unsigned char)*p))
        p++;
    return p;
}

unsigned config_widen_integers(const char *text, struct buf *out)
{
    unsigned line = 1;

    for (const char *p = text; *p;) {
        const char *start = p;

        p = skip_opaque(p);
        if (p != start) {
            for (const char *c = start; c < p; c++)
                line += *c == '\n';
            buf_append(out, start, (size_t)(p - start));
        } else if (isalpha((unsigned char)*p) || *p == '*') {
            while (isalnum((unsigned char)*p) || *p == '_' || *p == '-' || *p == '*')
                p++;
            buf_append(out, start, (size_t)(p - start));
        } else if (isdigit((unsigned char)*p) || *p == '.') {
            p = skip_integer(p);
            bool whole = p != start && (*p == '\0' || !strchr(".eELl", *p));
            while (isalnum((unsigned char)*p) || *p == '.' || ((*p == '+' || *p == '-') && strchr("eE", p[-1])))
                p++;
            buf_append(out, start, (size_t)(p - start));
            if (whole)
                buf_append_char(out, 'L');
        } else {
            if (*p == '@')
                return line;
            line += *p == '\n';
            buf_append_char(out, *p++);
        }
    }
    return 0;
}

static bool is_name_char(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/* Expands one ${...} whose text, without the braces, is `size` bytes at `ref`. NULL or what is wrong. */
static const char *expand_reference(const char *ref, size_t size, struct buf *out, char name[CONFIG_NAME_MAX + 1])
{
    size_t name_size = 0;

    while (name_size < size && is_name_char(ref[name_size]))
        name_size++;
    bool has_default = size - name_size >= 2 && memcmp(ref + name_size, ":-", 2) == 0;
    if (name_size == 0 || name_size > CONFIG_NAME_MAX || isdigit((unsigned char)ref[0]) ||
        (!has_default && name_size != size))
        return "not of the form ${NAME} or ${NAME:-default}; a plain dollar is written $$";
    memcpy(name, ref, name_size);
    name[name_size] = '\0';

    const char *value = getenv(name);
    if (has_default && (!value || !value[0]))
        buf_append(out, ref + name_size + 2, size - name_size - 2);
    else if (value)
        buf_append_str(out, value);
    else
        return "is not set in the environment";
    return NULL;
}

bool config_expand(const char *text, struct buf *out, struct buf *error)
{
    for (const char *p = text; *p;) {
        size_t plain = strcspn(p, "$");
        char variable[CONFIG_NAME_MAX + 1] = "";
        const char *wrong = "a plain dollar is written $$, a variable ${NAME}";
        const char *end;

        buf_append(out, p, plain);
        p += plain;
        if (*p == '\0')
            break;
        if (p[1] == '$') {
            buf_append_char(out, '$');
            p += 2;
            continue;
        }
        end = p[1] == '{' ? strchr(p, '}') : NULL;
        if (end)
            wrong = expand_reference(p + 2, (size_t)(end - p - 2), out, variable);
        if (wrong) {
            if (variable[0])
                buf_printf(error, "${%s} ", variable);
            buf_append_str(error, wrong);
            return false;
        }
        p = end + 1;
    }
    return true;
}

void config_append_value(struct buf *out, const struct config_key *key, const char *text)
{
    bool bare_string = (key->type == CONFIG_STRING || key->type == CONFIG_ENUM) && text[0] != '"';
    bool bare_list = key->type == CONFIG_STRINGS && !strchr("[(", text[0]);
    bool quoted = bare_list && text[0] == '"';

    if (!bare_string && !bare_list) {
        buf_append_str(out, text);
        return;
    }
    buf_append_str(out, bare_list ? "[ " : "");
    buf_append_str(out, quoted ? "" : "\"");
    for (const char *p = text; *p; p++) {
        if (!quoted && (*p == '"' || *p == '\\'))
            buf_append_char(out, '\\');
        buf_append_char(out, *p);
    }
    buf_append_str(out, quoted ? "" : "\"");
    buf_append_str(out, bare_list ? " ]" : "");
}

void config_append_expected(struct buf *out, const struct config_key *key)
{
    switch (key->type) {
    case CONFIG_STRING:
        buf_append_str(out, "expected a string, for example ");
        config_append_value(out, key, key->def && !key->secret ? key->def : "text");
        break;
    case CONFIG_INT:
        buf_printf(out, "expected a whole number%s%s%s from %" PRId64 " to %" PRId64, key->unit ? " (" : "",
                   key->unit ? key->unit : "", key->unit ? ")" : "", key->min, key->max);
        if (key->def && !key->secret)
            buf_printf(out, ", for example %s", key->def);
        break;
    case CONFIG_BOOL:
        buf_append_str(out, "expected true or false");
        break;
    case CONFIG_ENUM:
        for (size_t i = 0; key->choices[i]; i++)
            buf_printf(out, "%s\"%s\"", i == 0 ? "expected one of " : ", ", key->choices[i]);
        break;
    case CONFIG_STRINGS:
        buf_append_str(out, "expected an array of strings, for example [ \"one\", \"two\" ]");
        break;
    case CONFIG_LIST:
        buf_printf(out, "expected a list of groups, for example ( { %s = ...; } )", key->item[0].name);
        break;
    }
}
