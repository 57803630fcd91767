/* Configuration text, against a table with every type of key. libconfig 1.5 loses a string token at some syntax errors:
 * fuzz with -detect_leaks=0. */
#include "common/config.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct item {
    char *id;
    struct config_strings tags;
};

struct settings {
    char *string;
    int64_t number;
    bool flag;
    int choice;
    struct config_strings strings;
    struct config_list list;
};

static const char *const choices[] = {"one", "two", NULL};

static const struct config_key item_table[] = {
    {.name = "id", .type = CONFIG_STRING, .offset = offsetof(struct item, id)},
    {.name = "tags", .type = CONFIG_STRINGS, .offset = offsetof(struct item, tags), .def = "[]"},
    {0},
};

static const struct config_key table[] = {
    {.name = "a.string", .type = CONFIG_STRING, .offset = offsetof(struct settings, string), .def = "x"},
    {.name = "a.number", .type = CONFIG_INT, .offset = offsetof(struct settings, number), .def = "1", .max = 10},
    {.name = "flag", .type = CONFIG_BOOL, .offset = offsetof(struct settings, flag), .def = "true"},
    {.name = "choice",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct settings, choice),
     .def = "one",
     .choices = choices},
    {.name = "strings", .type = CONFIG_STRINGS, .offset = offsetof(struct settings, strings), .def = "[]"},
    {.name = "list",
     .type = CONFIG_LIST,
     .offset = offsetof(struct settings, list),
     .item = item_table,
     .item_size = sizeof(struct item)},
    {0},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct settings settings = {0};
    struct buf problems = {0};
    char *text = malloc(size + 1);

    memcpy(text, data, size);
    text[size] = '\0';
    size_t count = config_load_text(table, text, "fuzz", NULL, &settings, &problems);
    assert((count == 0) == (problems.size == 0));
    assert(count > 0 || (settings.string && settings.number <= 10 && settings.choice <= 1));
    config_done(table, &settings);
    buf_done(&problems);
    free(text);
    return 0;
}
