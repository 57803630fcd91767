#include "common/config.h"
#include "common/config_private.h"
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

enum { COLUMNS = 100, INDENT = 4 };

struct printer {
    struct buf *out;
    unsigned depth;
    bool commented; /* an example of a list's item */
};

static void begin_line(struct printer *printer, const char *start)
{
    if (printer->commented)
        buf_append_str(printer->out, "# ");
    buf_printf(printer->out, "%*s%s", (int)(printer->depth * INDENT), "", start);
}

/* Wraps at spaces; each line begins with "# ". */
static void print_comment(struct printer *printer, const char *text)
{
    size_t width = COLUMNS - 4 - printer->depth * INDENT;

    while (*text) {
        size_t size = strcspn(text, "\n");

        if (size > width) {
            for (size = width; size > 0 && text[size] != ' ';)
                size--;
            if (size == 0)
                size = strcspn(text, " \n");
        }
        begin_line(printer, "# ");
        buf_append(printer->out, text, size);
        buf_append_char(printer->out, '\n');
        text += size;
        if (*text == ' ' || *text == '\n')
            text++;
    }
}

static void print_facts(struct printer *printer, const struct config_key *key)
{
    struct buf facts = {0};

    if (key->type == CONFIG_INT) {
        buf_printf(&facts, "%" PRId64 " to %" PRId64 "%s%s. ", key->min, key->max, key->unit ? " " : "",
                   key->unit ? key->unit : "");
    } else if (key->type == CONFIG_ENUM) {
        buf_append_str(&facts, "One of ");
        for (size_t i = 0; key->choices[i]; i++)
            buf_printf(&facts, "%s\"%s\"", i ? ", " : "", key->choices[i]);
        buf_append_str(&facts, ". ");
    } else if (key->unit) {
        buf_printf(&facts, "Unit: %s. ", key->unit);
    }
    if (key->secret) {
        buf_append_str(&facts, key->def ? "Secret; optional." : "Secret; required.");
    } else if (key->def) {
        buf_append_str(&facts, "Default: ");
        config_append_value(&facts, key, key->def);
    } else {
        buf_append_str(&facts, key->type == CONFIG_LIST ? "Default: empty. Each item is of this form:" : "Required.");
    }
    print_comment(printer, buf_str(&facts));
    buf_done(&facts);
}

/* A value of the right form where there is no default to show. */
static void append_placeholder(struct buf *out, const struct config_key *key)
{
    switch (key->type) {
    case CONFIG_STRING:
        if (!key->secret) {
            buf_append_str(out, "\"...\"");
            break;
        }
        buf_append_str(out, "\"${");
        for (const char *p = key->name; *p; p++)
            buf_append_char(out, (char)(*p == '.' ? '_' : toupper((unsigned char)*p)));
        buf_append_str(out, "}\"");
        break;
    case CONFIG_INT:
        buf_printf(out, "%" PRId64, key->min);
        break;
    case CONFIG_BOOL:
        buf_append_str(out, "true");
        break;
    case CONFIG_ENUM:
        buf_printf(out, "\"%s\"", key->choices[0]);
        break;
    case CONFIG_STRINGS:
        buf_append_str(out, "[ \"...\" ]");
        break;
    case CONFIG_LIST:
        buf_append_str(out, "( )");
        break;
    }
}

static void print_group(struct printer *printer, const struct config_key *table, const char *prefix,
                        size_t prefix_size);

static void print_key(struct printer *printer, const struct config_key *key, const char *name)
{
    bool shown = !key->secret && (key->def || key->type == CONFIG_LIST);

    if (key->help)
        print_comment(printer, key->help);
    print_facts(printer, key);
    if (key->type == CONFIG_LIST) {
        struct printer item = {.out = printer->out, .depth = printer->depth + 1, .commented = true};
        begin_line(&item, "{\n");
        item.depth++;
        print_group(&item, key->item, "", 0);
        item.depth--;
        begin_line(&item, "}\n");
    }
    begin_line(printer, shown || printer->commented ? "" : "# ");
    buf_printf(printer->out, "%s = ", name);
    if (key->def && shown)
        config_append_value(printer->out, key, key->def);
    else
        append_placeholder(printer->out, key);
    buf_append_str(printer->out, ";\n");
}

/* True if a key before `key` is in the same group `size` bytes of its name: the group has then been printed. */
static bool is_group_printed(const struct config_key *table, const struct config_key *key, size_t size)
{
    for (const struct config_key *earlier = table; earlier != key; earlier++) {
        if (strncmp(earlier->name, key->name, size) == 0)
            return true;
    }
    return false;
}

/* The keys whose names begin with the first `prefix_size` bytes of `prefix`, groups and all. */
static void print_group(struct printer *printer, const struct config_key *table, const char *prefix, size_t prefix_size)
{
    bool first = true;

    for (const struct config_key *key = table; key->name; key++) {
        const char *rest = key->name + prefix_size;
        if (strncmp(key->name, prefix, prefix_size) != 0)
            continue;

        const char *dot = strchr(rest, '.');
        size_t group_size = dot ? (size_t)(dot + 1 - key->name) : 0;
        if (dot && is_group_printed(table, key, group_size))
            continue;
        if (!first && !printer->commented)
            buf_append_char(printer->out, '\n');
        first = false;
        if (!dot) {
            print_key(printer, key, rest);
            continue;
        }
        begin_line(printer, "");
        buf_printf(printer->out, "%.*s = {\n", (int)(dot - rest), rest);
        printer->depth++;
        print_group(printer, table, key->name, group_size);
        printer->depth--;
        begin_line(printer, "};\n");
    }
}

void config_print(const struct config_key *table, struct buf *out)
{
    struct printer printer = {.out = out};

    print_group(&printer, table, "", 0);
}
