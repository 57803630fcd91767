#include "common/program.h"
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECRET "0123456789abcdef0123456789abcdef"
#define SEED "000102030405060708090a0b0c0d0e0f"

enum { OUTPUT_SIZE = 64 * 1024, SHOWN_MAX = 4000 };

struct test_config {
    int64_t answer;
    struct cluster_config cluster;
};

static const struct config_key table[] = {
    CLUSTER_CONFIG_KEYS(struct test_config, cluster, "127.0.0.1:9999"),
    {.name = "test.answer",
     .type = CONFIG_INT,
     .offset = offsetof(struct test_config, answer),
     .def = "42",
     .min = 0,
     .max = 100},
    {.name = NULL},
};

static void check_config(const void *config, const char *path, struct buf *problems)
{
    if (((const struct test_config *)config)->answer == 13)
        config_problem(problems, path, "test.answer", "is unlucky");
}

static const struct program program = {.name = "signalbox-test",
                                       .summary = "A program for tests.",
                                       .table = table,
                                       .cluster_offset = offsetof(struct test_config, cluster),
                                       .check = check_config};

static struct test_config config;
static struct program_args args;
static struct buf problems;
static char path[] = "/tmp/signalbox-test-program-XXXXXX";

static void write_config(const char *text)
{
    FILE *file = fopen(path, "w");
    fputs(text, file);
    fclose(file);
}

static void setup(void)
{
    close(mkstemp(path));
    write_config("cluster = { secret = \"" SECRET "\"; placement_seed = \"" SEED "\"; };\n");
}

static void teardown(void)
{
    config_done(table, &config);
    program_args_done(&args);
    buf_done(&problems);
    unlink(path);
    strcpy(path, "/tmp/signalbox-test-program-XXXXXX");
}

/* The command line is "signalbox-test" and `words`; what it prints goes to `path`.out. */
static bool start(enum program_exit *ret_exit, const char *const *words, char output[OUTPUT_SIZE])
{
    char *argv[16] = {(char *)"signalbox-test"};
    char out_path[64];
    int argc = 1;

    while (*words != NULL)
        argv[argc++] = (char *)*words++;
    snprintf(out_path, sizeof out_path, "%s.out", path);
    fflush(NULL);
    int saved_out = dup(1), saved_err = dup(2);
    FILE *file = fopen(out_path, "w+");
    dup2(fileno(file), 1);
    dup2(fileno(file), 2);
    bool go_on = program_start(&program, argc, argv, &args, &config, ret_exit);
    fflush(NULL);
    dup2(saved_out, 1);
    dup2(saved_err, 2);
    close(saved_out);
    close(saved_err);
    rewind(file);
    output[fread(output, 1, OUTPUT_SIZE - 1, file)] = '\0';
    fclose(file);
    unlink(out_path);
    return go_on;
}
#define start(ret_exit, output, ...) start(ret_exit, (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL}, output)

static void assert_has(const char *text, const char *part)
{
    ck_assert_msg(strstr(text, part) != NULL, "no \"%s\" in: %.*s", part, SHOWN_MAX, text);
}

/* Loads what setup() wrote, with overrides, and expects one problem that has `part`. */
static void assert_problem(const char *part, const char *const *overrides)
{
    struct program_args with = {.config_path = path, .overrides = (const char **)overrides};
    struct test_config loaded = {0};
    struct buf found = {0};
    size_t count = program_load(&program, &with, &loaded, &found);

    ck_assert_msg(count == 1, "%zu problems: %s", count, buf_str(&found));
    assert_has(buf_str(&found), part);
    config_done(table, &loaded);
    buf_done(&found);
}
#define assert_problem(part, ...) assert_problem(part, (const char *const[]){__VA_ARGS__, NULL})

START_TEST(the_times_are_those_of_membership_by_default)
{
    struct node_options options;
    args.config_path = path;
    ck_assert_uint_eq(program_load(&program, &args, &config, &problems), 0);
    cluster_node_options(&config.cluster, NODE_SHARD, &options);
    ck_assert_mem_eq(&options.times, &membership_default_times, sizeof options.times);
}
END_TEST

START_TEST(times_that_are_unsafe_together_are_refused)
{
    write_config("cluster = { secret = \"" SECRET "\"; placement_seed = \"" SEED "\"; };\n"
                 "membership = {\n  fence_ms = 1400;\n};\n");
    args.config_path = path;
    ck_assert_uint_eq(program_load(&program, &args, &config, &problems), 1);
    ck_assert_ptr_nonnull(strstr(buf_str(&problems), "membership.notice_ms: must be at least membership.fence_ms and"));
}
END_TEST

START_TEST(a_good_file_is_loaded_and_the_process_goes_on)
{
    enum program_exit code;
    char output[OUTPUT_SIZE];

    ck_assert(start(&code, output, "--config", path, "--set", "node.id=\"here\"", "--set", "test.answer=7"));
    ck_assert_int_eq(code, PROGRAM_EXIT_OK);
    ck_assert_str_eq(config.cluster.node_id, "here");
    ck_assert_str_eq(config.cluster.admin_listen, "127.0.0.1:9999");
    ck_assert_int_eq(config.answer, 7);
    ck_assert_uint_eq(config.cluster.nats_servers.count, 1);
}
END_TEST

START_TEST(empty_options_are_null_and_the_node_has_a_name)
{
    enum program_exit code;
    char output[OUTPUT_SIZE];
    struct node_options options;

    ck_assert(start(&code, output, "--config", path));
    ck_assert_ptr_null(config.cluster.previous_secret);
    ck_assert_ptr_null(config.cluster.nats_user);
    ck_assert_ptr_null(config.cluster.nats_tls_ca_file);
    ck_assert_str_eq(config.cluster.region, "");
    ck_assert(node_id_valid(config.cluster.node_id));

    cluster_node_options(&config.cluster, NODE_SHARD, &options);
    ck_assert_str_eq(options.self.id, config.cluster.node_id);
    ck_assert(options.self.incarnation != 0);
    ck_assert_ptr_null(options.bus.user);
    ck_assert_uint_eq(options.bus.server_count, 1);
    ck_assert_str_eq(options.bus.servers[0], "nats://127.0.0.1:4222");
}
END_TEST

START_TEST(all_problems_are_reported_with_their_lines)
{
    enum program_exit code;
    char output[OUTPUT_SIZE], place[96];

    write_config("cluster = {\n secret = \"short\";\n placement_seed = \"xyz\";\n};\nnode = { id = \"A_B\"; };\n");
    ck_assert(!start(&code, output, "--config", path));
    ck_assert_int_eq(code, PROGRAM_EXIT_USAGE);
    snprintf(place, sizeof place, "%s:2: cluster.secret: has 5 bytes", path);
    assert_has(output, place);
    snprintf(place, sizeof place, "%s:3: cluster.placement_seed: is not 32 hex digits", path);
    assert_has(output, place);
    snprintf(place, sizeof place, "%s:5: node.id: \"A_B\" is not", path);
    assert_has(output, place);
    assert_has(output, "3 problems");
    ck_assert_msg(strstr(output, "short") == NULL, "a secret was printed");
}
END_TEST

START_TEST(values_are_checked_beyond_their_types)
{
    assert_problem("node.region", "node.region=\"EU\"");
    assert_problem("cluster.previous_secret", "cluster.previous_secret=\"short\"");
    assert_problem("cluster.placement_seed", "cluster.placement_seed=\"" SEED "00\"");
    assert_problem("cluster.placement_seed", "cluster.placement_seed=\"g00102030405060708090a0b0c0d0e0f\"");
    assert_problem("nats.servers: names no server", "nats.servers=[]");
    assert_problem("number 2 does not begin", "nats.servers=[\"nats://a:1\",\"b:2\"]");
    assert_problem("nats.user: user and password go together", "nats.user=\"u\"");
    assert_problem("nats.password: user and password go together", "nats.password=\"p\"");
    assert_problem("nats.tls_ca_file: /nowhere/ca.pem cannot be read", "nats.tls_ca_file=\"/nowhere/ca.pem\"");
    assert_problem("nats.stream_replicas", "nats.stream_replicas=6");
    assert_problem("log.level", "log.level=\"loud\"");
    assert_problem("test.answer: is unlucky", "test.answer=13");
}
END_TEST

START_TEST(a_missing_file_and_missing_secrets_are_configuration_errors)
{
    enum program_exit code;
    char output[OUTPUT_SIZE];

    ck_assert(!start(&code, output, "--config", "/nowhere/x.conf"));
    ck_assert_int_eq(code, PROGRAM_EXIT_USAGE);
    assert_has(output, "/nowhere/x.conf: cannot be read");
    program_args_done(&args);
    ck_assert(!start(&code, output));
    ck_assert_int_eq(code, PROGRAM_EXIT_USAGE);
    assert_has(output, "cluster.secret: is required");
    assert_has(output, "cluster.placement_seed: is required");
}
END_TEST

START_TEST(check_config_says_so_and_ends)
{
    enum program_exit code;
    char output[OUTPUT_SIZE];

    ck_assert(!start(&code, output, "--check-config", "--config", path));
    ck_assert_int_eq(code, PROGRAM_EXIT_OK);
    assert_has(output, "no problem found");
}
END_TEST

START_TEST(what_is_printed_needs_no_configuration)
{
    static const struct {
        const char *option;
        const char *part;
    } cases[] = {{"--help", "Exit codes: 0"},
                 {"--version", "signalbox-test " SBX_VERSION},
                 {"--print-config", "placement_seed"},
                 {"--print-metrics", "fanout_queue_depth"}};
    enum program_exit code;
    char output[OUTPUT_SIZE];

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert(!start(&code, output, cases[i].option));
        ck_assert_int_eq(code, PROGRAM_EXIT_OK);
        assert_has(output, cases[i].part);
        program_args_done(&args);
    }
}
END_TEST

START_TEST(a_wrong_command_line_is_refused)
{
    static const char *const cases[] = {"--nonsense", "stray", "--config"};
    enum program_exit code;
    char output[OUTPUT_SIZE];

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert(!start(&code, output, cases[i]));
        ck_assert_int_eq(code, PROGRAM_EXIT_USAGE);
        assert_has(output, "signalbox-test");
        program_args_done(&args);
    }
}
END_TEST

/* What --print-config prints, with the secrets filled in, is a good configuration. */
START_TEST(the_printed_configuration_loads)
{
    struct test_config loaded = {0};
    struct buf text = {0};
    const char *overrides[] = {"cluster.secret=\"" SECRET "\"", "cluster.placement_seed=\"" SEED "\"", NULL};
    struct program_args with = {.config_path = path, .overrides = overrides};

    config_print(table, &text);
    write_config(buf_str(&text));
    ck_assert_msg(program_load(&program, &with, &loaded, &problems) == 0, "%s", buf_str(&problems));
    config_done(table, &loaded);
    buf_done(&text);
}
END_TEST

struct heard {
    struct loop *loop;
    unsigned stops, reloads;
    bool at_once[2];
};

static void on_stop(void *ctx, bool at_once)
{
    struct heard *heard = ctx;
    heard->at_once[heard->stops++] = at_once;
    if (at_once)
        loop_stop(heard->loop);
    else
        kill(getpid(), SIGINT);
}

static void on_reload(void *ctx)
{
    struct heard *heard = ctx;
    heard->reloads++;
    kill(getpid(), SIGTERM);
}

static bool ready(void *ctx, char *reason, size_t size)
{
    return true;
}

START_TEST(signals_reload_drain_and_end)
{
    struct heard heard = {.loop = loop_new()};
    struct program_signals signals = {.stop = on_stop, .reload = on_reload, .ready = ready, .ctx = &heard};

    program_watch_signals(heard.loop, &signals);
    kill(getpid(), SIGHUP);
    loop_run(heard.loop);
    ck_assert_uint_eq(heard.reloads, 1);
    ck_assert_uint_eq(heard.stops, 2);
    ck_assert(!heard.at_once[0]);
    ck_assert(heard.at_once[1]);
    program_unwatch_signals(&signals);
    loop_free(&heard.loop);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("program");
    TCase *tcase = tcase_create("program");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, the_times_are_those_of_membership_by_default);
    tcase_add_test(tcase, times_that_are_unsafe_together_are_refused);
    tcase_add_test(tcase, a_good_file_is_loaded_and_the_process_goes_on);
    tcase_add_test(tcase, empty_options_are_null_and_the_node_has_a_name);
    tcase_add_test(tcase, all_problems_are_reported_with_their_lines);
    tcase_add_test(tcase, values_are_checked_beyond_their_types);
    tcase_add_test(tcase, a_missing_file_and_missing_secrets_are_configuration_errors);
    tcase_add_test(tcase, check_config_says_so_and_ends);
    tcase_add_test(tcase, what_is_printed_needs_no_configuration);
    tcase_add_test(tcase, a_wrong_command_line_is_refused);
    tcase_add_test(tcase, the_printed_configuration_loads);
    tcase_add_test(tcase, signals_reload_drain_and_end);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
