#include "common/config.h"
#include "common/config_private.h"
#include "common/mem.h"
#include <assert.h>
#include <errno.h>
#include <libconfig.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX_BYTES = 1024 * 1024 };

/* Where a value or the lack of one is to be reported: "file:line", "file" (line 0) or "command line". */
struct place {
    const char *path;
    unsigned line;
    bool in_file; /* settings have lines there; those parsed from a default or an override have none */
};

struct loader {
    const char *const *overrides;
    struct buf *problems;
    size_t count;
    bool some; /* names that the table lacks are no problem */
};

static const char command_line[] = "command line";

static struct place place_of(struct place within, const config_setting_t *setting)
{
    if (within.in_file)
        within.line = config_setting_source_line(setting);
    return within;
}

static void append_place(struct buf *problems, struct place place, const char *name)
{
    buf_append_str(problems, place.path);
    if (place.line)
        buf_printf(problems, ":%u", place.line);
    buf_append_str(problems, ": ");
    if (name)
        buf_printf(problems, "%s: ", name);
}

__attribute__((format(printf, 2, 0))) static void append_format(struct buf *out, const char *format, va_list args)
{
    char text[512];

    vsnprintf(text, sizeof(text), format, args);
    buf_append_str(out, text);
    buf_append_char(out, '\n');
}

__attribute__((format(printf, 4, 5))) static void problem(struct loader *loader, struct place place, const char *name,
                                                          const char *format, ...)
{
    va_list args;

    loader->count++;
    append_place(loader->problems, place, name);
    va_start(args, format);
    append_format(loader->problems, format, args);
    va_end(args);
}

static bool parse_text(const char *text, config_t *config, unsigned *ret_line, const char **ret_error)
{
    struct buf wide = {0};

    *ret_line = config_widen_integers(text, &wide);
    *ret_error = "@include is not supported; write everything in one file, secrets as ${VARIABLE}";
    bool ok = *ret_line == 0;
    if (ok && !config_read_string(config, buf_str(&wide))) {
        *ret_line = (unsigned)config_error_line(config);
        *ret_error = config_error_text(config);
        ok = false;
    }
    buf_done(&wide);
    return ok;
}

static void problem_expected(struct loader *loader, struct place place, const char *name, const struct config_key *key)
{
    struct buf text = {0};

    config_append_expected(&text, key);
    problem(loader, place, name, "%s", buf_str(&text));
    buf_done(&text);
}

/* NULL, with the problem reported, if it cannot be expanded. */
static char *load_string(struct loader *loader, struct place place, const char *name, const config_setting_t *setting)
{
    struct buf text = {0}, error = {0};
    char *value = NULL;

    if (config_expand(config_setting_get_string(setting), &text, &error))
        value = mem_strdup(buf_str(&text));
    else
        problem(loader, place, name, "%s", buf_str(&error));
    buf_done(&text);
    buf_done(&error);
    return value;
}

static void load_int(struct loader *loader, struct place place, const char *name, const struct config_key *key,
                     const config_setting_t *setting, int64_t *ret_value)
{
    long long value = config_setting_get_int64(setting);

    if (value < key->min || value > key->max)
        problem_expected(loader, place, name, key);
    else
        *ret_value = value;
}

static void load_enum(struct loader *loader, struct place place, const char *name, const struct config_key *key,
                      const config_setting_t *setting, int *ret_value)
{
    char *text = load_string(loader, place, name, setting);

    if (!text)
        return;
    for (int i = 0; key->choices[i]; i++) {
        if (strcmp(key->choices[i], text) == 0) {
            *ret_value = i;
            free(text);
            return;
        }
    }
    free(text);
    problem_expected(loader, place, name, key);
}

static void load_strings(struct loader *loader, struct place place, const char *name, const struct config_key *key,
                         const config_setting_t *setting, struct config_strings *strings)
{
    int count = config_setting_length(setting);

    strings->values = count ? mem_zalloc((size_t)count * sizeof(*strings->values)) : NULL;
    for (int i = 0; i < count; i++) {
        const config_setting_t *element = config_setting_get_elem(setting, (unsigned)i);
        char *value = NULL;

        if (config_setting_type(element) != CONFIG_TYPE_STRING)
            problem_expected(loader, place, name, key);
        else
            value = load_string(loader, place, name, element);
        if (value)
            strings->values[strings->count++] = value;
    }
}

static void load_group(struct loader *loader, const struct config_key *table, const char *prefix,
                       config_setting_t *group, struct place place, void *target);

static void load_list(struct loader *loader, struct place place, const char *name, const struct config_key *key,
                      const config_setting_t *setting, struct config_list *list)
{
    int count = config_setting_length(setting);

    list->items = count ? mem_zalloc((size_t)count * key->item_size) : NULL;
    for (int i = 0; i < count; i++) {
        config_setting_t *element = config_setting_get_elem(setting, (unsigned)i);
        char prefix[CONFIG_NAME_MAX + 16];

        if (!config_setting_is_group(element)) {
            problem_expected(loader, place, name, key);
            continue;
        }
        snprintf(prefix, sizeof(prefix), "%s[%d].", name, i);
        load_group(loader, key->item, prefix, element, place_of(place, element),
                   (char *)list->items + list->count++ * key->item_size);
    }
}

static bool type_fits(const struct config_key *key, const config_setting_t *setting)
{
    int type = config_setting_type(setting);

    switch (key->type) {
    case CONFIG_STRING:
    case CONFIG_ENUM:
        return type == CONFIG_TYPE_STRING;
    case CONFIG_INT:
        return type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64;
    case CONFIG_BOOL:
        return type == CONFIG_TYPE_BOOL;
    case CONFIG_STRINGS:
        return type == CONFIG_TYPE_ARRAY || type == CONFIG_TYPE_LIST;
    case CONFIG_LIST:
        return type == CONFIG_TYPE_LIST;
    }
    return false;
}

static void load_value(struct loader *loader, struct place place, const char *name, const struct config_key *key,
                       const config_setting_t *setting, void *target)
{
    void *field = (char *)target + key->offset;

    if (!type_fits(key, setting)) {
        problem_expected(loader, place, name, key);
        return;
    }
    switch (key->type) {
    case CONFIG_STRING:
        *(char **)field = load_string(loader, place, name, setting);
        break;
    case CONFIG_INT:
        load_int(loader, place, name, key, setting, field);
        break;
    case CONFIG_BOOL:
        *(bool *)field = config_setting_get_bool(setting);
        break;
    case CONFIG_ENUM:
        load_enum(loader, place, name, key, setting, field);
        break;
    case CONFIG_STRINGS:
        load_strings(loader, place, name, key, setting, field);
        break;
    case CONFIG_LIST:
        load_list(loader, place, name, key, setting, field);
        break;
    }
}

/* A default or an override: parsed as a file of one setting, by the same code as any other. */
static void load_value_text(struct loader *loader, struct place place, const char *name, const struct config_key *key,
                            const char *text, void *target)
{
    struct buf file = {0};
    config_t config;
    const char *error;
    unsigned line;

    config_init(&config);
    buf_append_str(&file, "value = ");
    config_append_value(&file, key, text);
    buf_append_str(&file, ";");
    /* More than one setting: the text closed the value and went on. */
    if (parse_text(buf_str(&file), &config, &line, &error) && config_setting_length(config_root_setting(&config)) == 1)
        load_value(loader, place, name, key, config_setting_get_elem(config_root_setting(&config), 0), target);
    else
        problem_expected(loader, place, name, key);
    config_destroy(&config);
    buf_done(&file);
}

static size_t edit_distance(const char *a, const char *b)
{
    size_t row[CONFIG_NAME_MAX + 1];
    size_t b_size = strlen(b);

    assert(b_size <= CONFIG_NAME_MAX);
    for (size_t k = 0; k <= b_size; k++)
        row[k] = k;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t k = 1; k <= b_size; k++) {
            size_t best = diagonal + (a[i - 1] != b[k - 1]);
            diagonal = row[k];
            if (row[k] + 1 < best)
                best = row[k] + 1;
            if (row[k - 1] + 1 < best)
                best = row[k - 1] + 1;
            row[k] = best;
        }
    }
    return row[b_size];
}

static const char *leaf(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot ? dot + 1 : name;
}

/* The known name that `name` was most likely meant to be, or NULL. */
static const char *nearest_name(const struct config_key *table, const char *name)
{
    const char *nearest = NULL;
    size_t size = strlen(name);
    size_t least = size / 4 + 2; /* one slip, or two in a longer name */

    if (size > CONFIG_NAME_MAX)
        return NULL;
    for (const struct config_key *key = table; key->name; key++) {
        size_t distance = edit_distance(name, key->name);
        /* The right name in the wrong group. */
        if (strcmp(leaf(name), leaf(key->name)) == 0)
            distance = 1;
        if (distance < least) {
            least = distance;
            nearest = key->name;
        }
    }
    return nearest;
}

static void problem_unknown(struct loader *loader, const struct config_key *table, struct place place,
                            const char *prefix, const char *name)
{
    const char *nearest = nearest_name(table, name);
    char full_name[2 * CONFIG_NAME_MAX + 16];

    snprintf(full_name, sizeof(full_name), "%s%s", prefix, name);
    if (nearest)
        problem(loader, place, full_name, "unknown name; did you mean %s%s?", prefix, nearest);
    else
        problem(loader, place, full_name, "unknown name");
}

static const struct config_key *find_key(const struct config_key *table, const char *name)
{
    for (const struct config_key *key = table; key->name; key++) {
        if (strcmp(key->name, name) == 0)
            return key;
    }
    return NULL;
}

static bool is_group_name(const struct config_key *table, const char *name)
{
    size_t size = strlen(name);

    for (const struct config_key *key = table; key->name; key++) {
        if (strncmp(key->name, name, size) == 0 && key->name[size] == '.')
            return true;
    }
    return false;
}

/* Reports the settings of `group` (named `path` within the table, "" for the whole of it) that no key asks for. */
static void check_names(struct loader *loader, const struct config_key *table, const char *prefix,
                        const config_setting_t *group, struct place within, const char *path)
{
    for (int i = 0; i < config_setting_length(group); i++) {
        const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
        struct place place = place_of(within, setting);
        char name[2 * CONFIG_NAME_MAX];

        snprintf(name, sizeof(name), "%s%s%s", path, path[0] ? "." : "", config_setting_name(setting));
        if (find_key(table, name))
            continue;
        if (!is_group_name(table, name))
            problem_unknown(loader, table, place, prefix, name);
        else if (config_setting_is_group(setting))
            check_names(loader, table, prefix, setting, within, name);
        else
            problem(loader, place, name, "expected a group, for example %s = { ... };", leaf(name));
    }
}

static const char *find_override(const struct loader *loader, const char *name)
{
    const char *value = NULL;
    size_t size = strlen(name);

    for (size_t i = 0; loader->overrides && loader->overrides[i]; i++) {
        if (strncmp(loader->overrides[i], name, size) == 0 && loader->overrides[i][size] == '=')
            value = loader->overrides[i] + size + 1;
    }
    return value;
}

static void check_overrides(struct loader *loader, const struct config_key *table)
{
    struct place place = {.path = command_line};

    for (size_t i = 0; loader->overrides && loader->overrides[i]; i++) {
        const char *override = loader->overrides[i];
        size_t size = strcspn(override, "=");
        char *name = mem_strndup(override, size);

        if (override[size] != '=')
            problem(loader, place, name, "expected name=value");
        else if (!find_key(table, name))
            problem_unknown(loader, table, place, "", name);
        free(name);
    }
}

/* Loads a table from `group` (NULL: nothing is set); `prefix` is "" or names the item of a list that this is, and
 * `place` is where to report what is missing. */
static void load_group(struct loader *loader, const struct config_key *table, const char *prefix,
                       config_setting_t *group, struct place place, void *target)
{
    if (group && !loader->some)
        check_names(loader, table, prefix, group, place, "");
    for (const struct config_key *key = table; key->name; key++) {
        config_setting_t *setting = group ? config_setting_lookup(group, key->name) : NULL;
        const char *override = prefix[0] ? NULL : find_override(loader, key->name);
        char name[2 * CONFIG_NAME_MAX + 16];

        snprintf(name, sizeof(name), "%s%s", prefix, key->name);
        if (override) {
            load_value_text(loader, (struct place){.path = command_line}, name, key, override, target);
        } else if (setting) {
            load_value(loader, place_of(place, setting), name, key, setting, target);
        } else if (key->def) {
            load_value_text(loader, (struct place){place.path, place.line, false}, name, key, key->def, target);
        } else if (key->type != CONFIG_LIST) {
            struct buf expected = {0};
            config_append_expected(&expected, key);
            problem(loader, place, name, "is required: %s", buf_str(&expected));
            buf_done(&expected);
        }
    }
}

static void load_text(struct loader *loader, const struct config_key *table, const char *text, const char *path,
                      void *target)
{
    struct place place = {.path = path, .in_file = true};
    const char *error;
    config_t config;

    config_init(&config);
    check_overrides(loader, table);
    if (parse_text(text, &config, &place.line, &error))
        load_group(loader, table, "", config_root_setting(&config), place, target);
    else
        problem(loader, place, NULL, "%s", error);
    config_destroy(&config);
}

size_t config_load_text(const struct config_key *table, const char *text, const char *path,
                        const char *const *overrides, void *target, struct buf *problems)
{
    struct loader loader = {.overrides = overrides, .problems = problems};

    load_text(&loader, table, text, path, target);
    return loader.count;
}

/* 0, or -1 with the reason in errno. */
static int read_file(const char *path, struct buf *out)
{
    FILE *file = fopen(path, "re");
    size_t got;

    if (!file)
        return -1;
    do {
        got = fread(buf_reserve(out, 4096), 1, 4096, file);
        out->size += got;
    } while (got > 0 && out->size <= FILE_MAX_BYTES);
    int error = ferror(file) ? errno : out->size > FILE_MAX_BYTES ? EFBIG : 0;
    fclose(file);
    /* It would silently end there. */
    if (!error && memchr(buf_str(out), '\0', out->size))
        error = EILSEQ;
    errno = error;
    return error ? -1 : 0;
}

static void load_file(struct loader *loader, const struct config_key *table, const char *path, void *target)
{
    struct buf text = {0};

    if (path && read_file(path, &text) != 0)
        problem(loader, (struct place){.path = path}, NULL, "cannot be read: %s", strerror(errno));
    else
        load_text(loader, table, buf_str(&text), path ? path : "configuration", target);
    buf_done(&text);
}

size_t config_load(const struct config_key *table, const char *path, const char *const *overrides, void *target,
                   struct buf *problems)
{
    struct loader loader = {.overrides = overrides, .problems = problems};

    load_file(&loader, table, path, target);
    return loader.count;
}

size_t config_load_some(const struct config_key *table, const char *path, void *target, struct buf *problems)
{
    struct loader loader = {.problems = problems, .some = true};

    load_file(&loader, table, path, target);
    return loader.count;
}

static unsigned find_line(const char *path, const char *name)
{
    struct buf text = {0}, lookup = {0};
    config_setting_t *setting = NULL;
    const char *error;
    config_t config;
    unsigned line;

    /* keys[1].id is keys.[1].id to libconfig. */
    for (const char *p = name; *p; p++) {
        if (*p == '[')
            buf_append_char(&lookup, '.');
        buf_append_char(&lookup, *p);
    }
    config_init(&config);
    if (read_file(path, &text) == 0 && parse_text(buf_str(&text), &config, &line, &error))
        setting = config_lookup(&config, buf_str(&lookup));
    line = setting ? config_setting_source_line(setting) : 0;
    config_destroy(&config);
    buf_done(&text);
    buf_done(&lookup);
    return line;
}

void config_problem(struct buf *problems, const char *path, const char *name, const char *format, ...)
{
    struct place place = {.path = path ? path : "configuration"};
    va_list args;

    if (path)
        place.line = find_line(path, name);
    append_place(problems, place, name);
    va_start(args, format);
    append_format(problems, format, args);
    va_end(args);
}

void config_done(const struct config_key *table, void *target)
{
    for (const struct config_key *key = table; key->name; key++) {
        void *field = (char *)target + key->offset;

        if (key->type == CONFIG_STRING) {
            free(*(char **)field);
            *(char **)field = NULL;
        } else if (key->type == CONFIG_STRINGS) {
            struct config_strings *strings = field;
            for (size_t i = 0; i < strings->count; i++)
                free(strings->values[i]);
            free(strings->values);
            *strings = (struct config_strings){0};
        } else if (key->type == CONFIG_LIST) {
            struct config_list *list = field;
            for (size_t i = 0; i < list->count; i++)
                config_done(key->item, (char *)list->items + i * key->item_size);
            free(list->items);
            *list = (struct config_list){0};
        }
    }
}
