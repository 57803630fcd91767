#include "common/config.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct key_settings {
    char *id;
    char *secret;
    int64_t weight;
};

struct settings {
    char *listen;
    char *certificate_file;
    int64_t port;
    int64_t limit_bytes;
    bool strict;
    int level;
    struct config_strings origins;
    struct config_list keys;
    char *password;
};

static const char *const levels[] = {"error", "info", "debug", NULL};

static const struct config_key key_table[] = {
    {.name = "id", .type = CONFIG_STRING, .offset = offsetof(struct key_settings, id), .help = "Name of the key."},
    {.name = "secret",
     .type = CONFIG_STRING,
     .offset = offsetof(struct key_settings, secret),
     .secret = true,
     .help = "Shared secret."},
    {.name = "weight",
     .type = CONFIG_INT,
     .offset = offsetof(struct key_settings, weight),
     .def = "1",
     .max = 10,
     .help = "A number."},
    {0},
};

static const struct config_key table[] = {
    {.name = "listen",
     .type = CONFIG_STRING,
     .offset = offsetof(struct settings, listen),
     .def = "\"0.0.0.0:8443\"",
     .help = "Where clients connect. This help is long enough that printing it has to wrap it at a space somewhere, "
             "which it does so that an editor shows it whole."},
    {.name = "tls.certificate_file",
     .type = CONFIG_STRING,
     .offset = offsetof(struct settings, certificate_file),
     .help = "PEM file."},
    {.name = "limits.port",
     .type = CONFIG_INT,
     .offset = offsetof(struct settings, port),
     .def = "443",
     .min = 1,
     .max = 65535,
     .help = "A port."},
    {.name = "limits.frame_bytes",
     .type = CONFIG_INT,
     .offset = offsetof(struct settings, limit_bytes),
     .def = "65536",
     .max = INT64_MAX - 1,
     .unit = "bytes",
     .help = "Largest frame."},
    {.name = "strict", .type = CONFIG_BOOL, .offset = offsetof(struct settings, strict), .def = "true", .help = "On."},
    {.name = "log.level",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct settings, level),
     .def = "info",
     .choices = levels,
     .help = "What is logged."},
    {.name = "origins",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct settings, origins),
     .def = "[ \"https://a.example\" ]",
     .help = "Who may connect."},
    {.name = "keys",
     .type = CONFIG_LIST,
     .offset = offsetof(struct settings, keys),
     .item = key_table,
     .item_size = sizeof(struct key_settings),
     .help = "API keys."},
    {.name = "nats.password",
     .type = CONFIG_STRING,
     .offset = offsetof(struct settings, password),
     .def = "hunter2-default",
     .secret = true,
     .help = "Password."},
    {0},
};

#define REQUIRED "tls = { certificate_file = \"/etc/cert.pem\"; };"

static struct settings settings;
static struct buf problems;

static void setup(void)
{
    memset(&settings, 0, sizeof(settings));
    setenv("CONFIG_TEST_SET", "from-env", 1);
    setenv("CONFIG_TEST_EMPTY", "", 1);
    unsetenv("CONFIG_TEST_UNSET");
}

static void teardown(void)
{
    config_done(table, &settings);
    buf_done(&problems);
}

static size_t load(const char *text, const char *const *overrides)
{
    config_done(table, &settings);
    buf_reset(&problems);
    return config_load_text(table, text, "signalbox.conf", overrides, &settings, &problems);
}

/* The whole report must be `expected`. */
static void assert_problems(const char *text, const char *expected)
{
    load(text, NULL);
    ck_assert_str_eq(buf_str(&problems), expected);
}

static void assert_loads(const char *text)
{
    size_t count = load(text, NULL);

    ck_assert_msg(count == 0, "%s", buf_str(&problems));
}

START_TEST(defaults_apply)
{
    assert_loads(REQUIRED);
    ck_assert_str_eq(settings.listen, "0.0.0.0:8443");
    ck_assert_str_eq(settings.certificate_file, "/etc/cert.pem");
    ck_assert_int_eq(settings.port, 443);
    ck_assert_int_eq(settings.limit_bytes, 65536);
    ck_assert(settings.strict);
    ck_assert_int_eq(settings.level, 1);
    ck_assert_uint_eq(settings.origins.count, 1);
    ck_assert_str_eq(settings.origins.values[0], "https://a.example");
    ck_assert_uint_eq(settings.keys.count, 0);
    ck_assert_str_eq(settings.password, "hunter2-default");
}
END_TEST

START_TEST(every_type_is_read)
{
    assert_loads(REQUIRED "listen = \"[::1]:1\"; limits : { port = 8080; frame_bytes = 1L }; strict = false;\n"
                          "log = { level = \"debug\"; }; origins = [ \"x\", \"y\" ];\n"
                          "keys = ( { id = \"a\"; secret = \"s\"; }, { id = \"b\"; secret = \"t\"; weight = 7; } );");
    ck_assert_str_eq(settings.listen, "[::1]:1");
    ck_assert_int_eq(settings.port, 8080);
    ck_assert_int_eq(settings.limit_bytes, 1);
    ck_assert(!settings.strict);
    ck_assert_int_eq(settings.level, 2);
    ck_assert_uint_eq(settings.origins.count, 2);
    ck_assert_str_eq(settings.origins.values[1], "y");
    ck_assert_uint_eq(settings.keys.count, 2);
    const struct key_settings *keys = settings.keys.items;
    ck_assert_str_eq(keys[0].id, "a");
    ck_assert_int_eq(keys[0].weight, 1);
    ck_assert_str_eq(keys[1].secret, "t");
    ck_assert_int_eq(keys[1].weight, 7);
}
END_TEST

/* libconfig by itself would make 705032704 of the first. */
START_TEST(integers_are_never_truncated)
{
    static const struct {
        const char *text;
        int64_t value;
    } cases[] = {
        {"5000000000", 5000000000},   {"5000000000L", 5000000000},   {"5000000000LL", 5000000000},
        {"0x1ffffffff", 0x1ffffffff}, {"0x1ffffffffL", 0x1ffffffff},
    };
    char text[256];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(text, sizeof(text), REQUIRED "limits = { frame_bytes = %s; }", cases[i].text);
        assert_loads(text);
        ck_assert_int_eq(settings.limit_bytes, cases[i].value);
    }
    assert_problems(REQUIRED "limits = { frame_bytes = 99999999999999999999; }",
                    "signalbox.conf:1: limits.frame_bytes: expected a whole number (bytes) from 0 to "
                    "9223372036854775806, for example 65536\n");
    /* Digits elsewhere are left alone. */
    assert_loads("# 1 \"2\n/* 3 \" */ // 4\n" REQUIRED "listen = \"\\\"5 # 6\"; log = { level = \"info\" };");
    ck_assert_str_eq(settings.listen, "\"5 # 6");
}
END_TEST

START_TEST(variables_are_expanded)
{
    assert_loads(REQUIRED "listen = \"<${CONFIG_TEST_SET}|${CONFIG_TEST_UNSET:-a:b-c}|${CONFIG_TEST_EMPTY:-d}|"
                          "${CONFIG_TEST_EMPTY}|$$|$${x}>\"; origins = [ \"${CONFIG_TEST_SET}\" ];");
    ck_assert_str_eq(settings.listen, "<from-env|a:b-c|d||$|${x}>");
    ck_assert_str_eq(settings.origins.values[0], "from-env");
}
END_TEST

START_TEST(bad_variables_are_problems)
{
    assert_problems(REQUIRED "\nlisten = \"${CONFIG_TEST_UNSET}\";",
                    "signalbox.conf:2: listen: ${CONFIG_TEST_UNSET} is not set in the environment\n");
    assert_problems(REQUIRED "listen = \"a$b\";",
                    "signalbox.conf:1: listen: a plain dollar is written $$, a variable ${NAME}\n");
    assert_problems(REQUIRED "listen = \"${A\";",
                    "signalbox.conf:1: listen: a plain dollar is written $$, a variable ${NAME}\n");
    assert_problems(REQUIRED "listen = \"${}\";", "signalbox.conf:1: listen: not of the form ${NAME} or "
                                                  "${NAME:-default}; a plain dollar is written $$\n");
    assert_problems(REQUIRED "listen = \"${1A}\";", "signalbox.conf:1: listen: not of the form ${NAME} or "
                                                    "${NAME:-default}; a plain dollar is written $$\n");
}
END_TEST

START_TEST(all_problems_are_reported_with_their_lines)
{
    assert_problems("listen = 5;\n"
                    "limits = {\n"
                    "  port = 65536;\n"
                    "  frame_bytes = 1.5;\n"
                    "};\n"
                    "strict = 1;\n"
                    "log = { level = \"loud\"; };\n"
                    "origins = \"x\";\n"
                    "keys = ( { id = \"a\" },\n"
                    "  { id = \"b\";\n"
                    "    secret = \"x\";\n"
                    "    wieght = 3 } );\n"
                    "tls = \"yes\";\n"
                    "lisen = \"x\";\n",
                    "signalbox.conf:13: tls: expected a group, for example tls = { ... };\n"
                    "signalbox.conf:14: lisen: unknown name; did you mean listen?\n"
                    "signalbox.conf:1: listen: expected a string, for example \"0.0.0.0:8443\"\n"
                    "signalbox.conf: tls.certificate_file: is required: expected a string, for example \"text\"\n"
                    "signalbox.conf:3: limits.port: expected a whole number from 1 to 65535, for example 443\n"
                    "signalbox.conf:4: limits.frame_bytes: expected a whole number (bytes) from 0 to "
                    "9223372036854775806, for example 65536\n"
                    "signalbox.conf:6: strict: expected true or false\n"
                    "signalbox.conf:7: log.level: expected one of \"error\", \"info\", \"debug\"\n"
                    "signalbox.conf:8: origins: expected an array of strings, for example [ \"one\", \"two\" ]\n"
                    "signalbox.conf:9: keys[0].secret: is required: expected a string, for example \"text\"\n"
                    "signalbox.conf:12: keys[1].wieght: unknown name; did you mean keys[1].weight?\n");
}
END_TEST

START_TEST(the_count_is_the_number_of_lines)
{
    ck_assert_uint_eq(load("", NULL), 1);
    ck_assert_uint_eq(load("a = 1; b = 2; strict = 3;", NULL), 4);
}
END_TEST

START_TEST(unknown_names_get_a_suggestion_only_if_one_is_near)
{
    assert_problems(REQUIRED "entirely_different = 1;", "signalbox.conf:1: entirely_different: unknown name\n");
    assert_problems(REQUIRED "certificate_file = 1;",
                    "signalbox.conf:1: certificate_file: unknown name; did you mean tls.certificate_file?\n");
    assert_problems(REQUIRED "limits = { prot = 1; };",
                    "signalbox.conf:1: limits.prot: unknown name; did you mean limits.port?\n");
}
END_TEST

START_TEST(syntax_errors_have_lines)
{
    assert_problems("listen = \"a\";\n\nlimits = { port = ; };", "signalbox.conf:3: syntax error\n");
    assert_problems("strict = true;\nstrict = true;", "signalbox.conf:2: duplicate setting name\n");
    assert_problems("\n@include \"other.conf\"\n",
                    "signalbox.conf:2: @include is not supported; write everything in one "
                    "file, secrets as ${VARIABLE}\n");
}
END_TEST

START_TEST(overrides_win_and_are_checked)
{
    const char *good[] = {"listen=1.2.3.4:5",
                          "limits.port=80",
                          "log.level=debug",
                          "strict=false",
                          "origins=https://b",
                          "tls.certificate_file=\"/quoted\"",
                          "keys=({id=\"a\";secret=\"b\";})",
                          "nats.password=a=\"b\\c",
                          "limits.port=81",
                          NULL};
    const char *bad[] = {"lisen=x",
                         "strict",
                         "limits.port=0",
                         "limits.frame_bytes=5; strict = true",
                         "strict=?",
                         "keys=({id=\"a\";x=1;})",
                         "log.level=${CONFIG_TEST_UNSET}",
                         NULL};

    ck_assert_msg(load("listen = \"file\"; limits = { port = 1; };", good) == 0, "%s", buf_str(&problems));
    ck_assert_str_eq(settings.listen, "1.2.3.4:5");
    ck_assert_int_eq(settings.port, 81);
    ck_assert_int_eq(settings.level, 2);
    ck_assert(!settings.strict);
    ck_assert_uint_eq(settings.origins.count, 1);
    ck_assert_str_eq(settings.origins.values[0], "https://b");
    ck_assert_str_eq(settings.certificate_file, "/quoted");
    ck_assert_str_eq(settings.password, "a=\"b\\c");
    ck_assert_uint_eq(settings.keys.count, 1);

    load(REQUIRED, bad);
    ck_assert_str_eq(buf_str(&problems),
                     "command line: lisen: unknown name; did you mean listen?\n"
                     "command line: strict: expected name=value\n"
                     "command line: limits.port: expected a whole number from 1 to 65535, for example 443\n"
                     "command line: limits.frame_bytes: expected a whole number (bytes) from 0 to "
                     "9223372036854775806, for example 65536\n"
                     "command line: strict: expected true or false\n"
                     "command line: log.level: ${CONFIG_TEST_UNSET} is not set in the environment\n"
                     "command line: keys[0].x: unknown name\n"
                     "command line: keys[0].secret: is required: expected a string, for example \"text\"\n");
}
END_TEST

START_TEST(secrets_do_not_show_in_problems)
{
    assert_problems(REQUIRED "nats = { password = 5; };",
                    "signalbox.conf:1: nats.password: expected a string, for example \"text\"\n");
}
END_TEST

static void write_file(const char *path, const char *text, size_t size)
{
    FILE *file = fopen(path, "w");

    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(text, 1, size, file), size);
    fclose(file);
}

START_TEST(files_are_read_and_located)
{
    char path[] = "/tmp/test_config_XXXXXX", expected[256];
    int fd = mkstemp(path);
    static const char text[] = REQUIRED "\nkeys = (\n  { id = \"a\";\n    secret = \"b\"; } );\nstrict = 7;\n";

    ck_assert_int_ge(fd, 0);
    close(fd);
    write_file(path, text, sizeof(text) - 1);
    ck_assert_uint_eq(config_load(table, path, NULL, &settings, &problems), 1);
    snprintf(expected, sizeof(expected), "%s:5: strict: expected true or false\n", path);
    ck_assert_str_eq(buf_str(&problems), expected);

    buf_reset(&problems);
    config_problem(&problems, path, "keys[0].secret", "is %d bytes, must be at least 32", 1);
    config_problem(&problems, path, "listen", "is taken");
    config_problem(&problems, NULL, "listen", "is taken");
    snprintf(expected, sizeof(expected),
             "%s:4: keys[0].secret: is 1 bytes, must be at least 32\n%s: listen: is taken\n"
             "configuration: listen: is taken\n",
             path, path);
    ck_assert_str_eq(buf_str(&problems), expected);

    buf_reset(&problems);
    config_done(table, &settings);
    write_file(path, "a\0b", 3);
    ck_assert_uint_eq(config_load(table, path, NULL, &settings, &problems), 1);
    unlink(path);
    buf_reset(&problems);
    ck_assert_uint_eq(config_load(table, path, NULL, &settings, &problems), 1);
    snprintf(expected, sizeof(expected), "%s: cannot be read: No such file or directory\n", path);
    ck_assert_str_eq(buf_str(&problems), expected);

    buf_reset(&problems);
    ck_assert_uint_eq(config_load(table, "/", NULL, &settings, &problems), 1);
    ck_assert_str_eq(buf_str(&problems), "/: cannot be read: Is a directory\n");
}
END_TEST

START_TEST(a_tool_reads_some_keys_of_anothers_file)
{
    char path[] = "/tmp/test_config_XXXXXX", expected[256];
    int fd = mkstemp(path);
    static const char text[] = REQUIRED "\nnobody = { knows = 1; };\nlisten = \"here\";\nstrict = 7;\n";

    ck_assert_int_ge(fd, 0);
    close(fd);
    write_file(path, text, sizeof(text) - 1);
    ck_assert_uint_eq(config_load_some(table, path, &settings, &problems), 1);
    snprintf(expected, sizeof(expected), "%s:4: strict: expected true or false\n", path);
    ck_assert_str_eq(buf_str(&problems), expected);
    ck_assert_str_eq(settings.listen, "here");
    unlink(path);
}
END_TEST

START_TEST(without_a_file_there_are_defaults_alone)
{
    const char *overrides[] = {"tls.certificate_file=/c", NULL};

    ck_assert_uint_eq(config_load(table, NULL, overrides, &settings, &problems), 0);
    ck_assert_str_eq(settings.certificate_file, "/c");
    config_done(table, &settings);
    ck_assert_uint_eq(config_load(table, NULL, NULL, &settings, &problems), 1);
    ck_assert_str_eq(buf_str(&problems), "configuration: tls.certificate_file: is required: expected a string, for "
                                         "example \"text\"\n");
}
END_TEST

START_TEST(the_printed_file_loads)
{
    struct buf printed = {0};

    config_print(table, &printed);
    assert_problems(buf_str(&printed), "signalbox.conf: tls.certificate_file: is required: expected a string, for "
                                       "example \"text\"\n");
    ck_assert_str_eq(settings.listen, "0.0.0.0:8443");
    ck_assert_int_eq(settings.level, 1);
    for (const struct config_key *key = table; key->name; key++) {
        const char *dot = strrchr(key->name, '.');
        ck_assert_msg(strstr(buf_str(&printed), dot ? dot + 1 : key->name) != NULL, "%s", key->name);
    }
    ck_assert_ptr_null(strstr(buf_str(&printed), "hunter2"));
    for (const char *line = buf_str(&printed); *line;) {
        size_t size = strcspn(line, "\n");
        ck_assert_msg(size <= 100, "%.*s", (int)size, line);
        line += size + (line[size] == '\n');
    }
    buf_done(&printed);
}
END_TEST

START_TEST(the_printed_file_reads_well)
{
    static const struct config_key small[] = {
        {.name = "tls.certificate_file", .type = CONFIG_STRING, .help = "PEM file."},
        {.name = "listen", .type = CONFIG_STRING, .def = ":80", .help = "Where."},
        {.name = "tls.tickets", .type = CONFIG_INT, .def = "2", .max = 4, .unit = "tickets", .help = "How many."},
        {.name = "keys", .type = CONFIG_LIST, .item = key_table, .help = "API keys."},
        {0},
    };
    struct buf printed = {0};

    config_print(small, &printed);
    ck_assert_str_eq(buf_str(&printed), "tls = {\n"
                                        "    # PEM file.\n"
                                        "    # Required.\n"
                                        "    # certificate_file = \"...\";\n"
                                        "\n"
                                        "    # How many.\n"
                                        "    # 0 to 4 tickets. Default: 2\n"
                                        "    tickets = 2;\n"
                                        "};\n"
                                        "\n"
                                        "# Where.\n"
                                        "# Default: \":80\"\n"
                                        "listen = \":80\";\n"
                                        "\n"
                                        "# API keys.\n"
                                        "# Default: empty. Each item is of this form:\n"
                                        "#     {\n"
                                        "#         # Name of the key.\n"
                                        "#         # Required.\n"
                                        "#         id = \"...\";\n"
                                        "#         # Shared secret.\n"
                                        "#         # Secret; required.\n"
                                        "#         secret = \"${SECRET}\";\n"
                                        "#         # A number.\n"
                                        "#         # 0 to 10. Default: 1\n"
                                        "#         weight = 1;\n"
                                        "#     }\n"
                                        "keys = ( );\n");
    buf_done(&printed);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *tcase = tcase_create("config");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, defaults_apply);
    tcase_add_test(tcase, every_type_is_read);
    tcase_add_test(tcase, integers_are_never_truncated);
    tcase_add_test(tcase, variables_are_expanded);
    tcase_add_test(tcase, bad_variables_are_problems);
    tcase_add_test(tcase, all_problems_are_reported_with_their_lines);
    tcase_add_test(tcase, the_count_is_the_number_of_lines);
    tcase_add_test(tcase, unknown_names_get_a_suggestion_only_if_one_is_near);
    tcase_add_test(tcase, syntax_errors_have_lines);
    tcase_add_test(tcase, overrides_win_and_are_checked);
    tcase_add_test(tcase, secrets_do_not_show_in_problems);
    tcase_add_test(tcase, files_are_read_and_located);
    tcase_add_test(tcase, a_tool_reads_some_keys_of_anothers_file);
    tcase_add_test(tcase, without_a_file_there_are_defaults_alone);
    tcase_add_test(tcase, the_printed_file_loads);
    tcase_add_test(tcase, the_printed_file_reads_well);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
