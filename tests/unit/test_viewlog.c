#include "common/clock.h"
#include "common/viewlog.h"
#include "nats_fixture.h"

#include <check.h>
#include <nats/nats.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD_MS = 30000, ROUNDS = 300 };

static struct nats_server server, other_server;
static struct loop *loop;

struct answer {
    bool came;
    unsigned place; /* among all answers */
    enum viewlog_result result;
    uint64_t seq;
    char data[64];
    char detail[256];
};

static unsigned answers;
static unsigned answers_awaited;

static void note(struct answer *answer, enum viewlog_result result, uint64_t seq, const char *detail)
{
    *answer = (struct answer){.came = true, .place = ++answers, .result = result, .seq = seq};
    snprintf(answer->detail, sizeof(answer->detail), "%s", detail);
    if (answers == answers_awaited)
        loop_stop(loop);
}

static void on_append(void *ctx, enum viewlog_result result, uint64_t seq, const char *detail)
{
    note(ctx, result, seq, detail);
}

static void on_read(void *ctx, enum viewlog_result result, uint64_t seq, const uint8_t *data, size_t size,
                    const char *detail)
{
    struct answer *answer = ctx;

    note(answer, result, seq, detail);
    ck_assert_uint_lt(size, sizeof(answer->data));
    if (size > 0)
        memcpy(answer->data, data, size);
}

static void on_guard(struct timer *timer, int64_t now_ms)
{
    loop_stop(loop);
}

static void run_until_answered(unsigned count)
{
    struct timer guard;

    timer_init(&guard, on_guard);
    timer_set(loop_timers(loop), &guard, clock_mono_ms() + GUARD_MS);
    answers = 0;
    answers_awaited = count;
    loop_run(loop);
    timer_cancel(loop_timers(loop), &guard);
    ck_assert_uint_eq(answers, count);
}

static void append(struct viewlog *log, const char *text, uint64_t expected, struct answer *answer)
{
    viewlog_append(log, text, strlen(text), expected, on_append, answer);
}

static struct answer append_now(struct viewlog *log, const char *text, uint64_t expected)
{
    struct answer answer;

    append(log, text, expected, &answer);
    run_until_answered(1);
    return answer;
}

static struct answer read_now(struct viewlog *log, uint64_t seq)
{
    struct answer answer;

    viewlog_read(log, seq, on_read, &answer);
    run_until_answered(1);
    return answer;
}

static struct answer read_last_now(struct viewlog *log)
{
    struct answer answer;

    viewlog_read_last(log, on_read, &answer);
    run_until_answered(1);
    return answer;
}

static struct viewlog *open_as(const char *user)
{
    const char *url = server.url;
    struct bus_options options = {
        .servers = &url, .server_count = 1, .name = "test", .user = user, .password = user ? "secret" : NULL};

    return viewlog_open(loop, &options, 0);
}

static void set_up(void)
{
    memset(&server, 0, sizeof(server));
    memset(&other_server, 0, sizeof(other_server));
    loop = loop_new();
}

static void tear_down(void)
{
    loop_free(&loop);
    nats_server_stop(&server);
    nats_server_stop(&other_server);
}

START_TEST(appends_and_reads)
{
    nats_server_start(&server, NULL);
    struct viewlog *log = open_as(NULL);
    struct answer answer = read_last_now(log);
    ck_assert_msg(answer.result == VIEWLOG_EMPTY, "%d %s", answer.result, answer.detail);
    ck_assert_int_eq(read_now(log, 1).result, VIEWLOG_GONE);
    ck_assert_int_eq(read_now(log, 0).result, VIEWLOG_GONE);

    answer = append_now(log, "one", 0);
    ck_assert_msg(answer.result == VIEWLOG_OK, "%d %s", answer.result, answer.detail);
    ck_assert_uint_eq(answer.seq, 1);
    ck_assert_uint_eq(append_now(log, "two", 1).seq, 2);
    answer = read_last_now(log);
    ck_assert_int_eq(answer.result, VIEWLOG_OK);
    ck_assert_uint_eq(answer.seq, 2);
    ck_assert_str_eq(answer.data, "two");
    ck_assert_str_eq(read_now(log, 1).data, "one");
    ck_assert_int_eq(read_now(log, 3).result, VIEWLOG_GONE);
    viewlog_close(&log);
    ck_assert_ptr_null(log);
}
END_TEST

/* Neither an empty log nor one of the same entries lets a second first entry in. */
START_TEST(refuses_an_append_that_expects_another_sequence)
{
    nats_server_start(&server, NULL);
    struct viewlog *log = open_as(NULL);
    ck_assert_int_eq(append_now(log, "early", 1).result, VIEWLOG_CONFLICT);
    ck_assert_int_eq(append_now(log, "one", 0).result, VIEWLOG_OK);
    ck_assert_int_eq(append_now(log, "one", 0).result, VIEWLOG_CONFLICT);
    ck_assert_int_eq(append_now(log, "two", 1).result, VIEWLOG_OK);
    ck_assert_int_eq(append_now(log, "late", 1).result, VIEWLOG_CONFLICT);
    ck_assert_int_eq(append_now(log, "early", 3).result, VIEWLOG_CONFLICT);
    ck_assert_uint_eq(read_last_now(log).seq, 2);
    viewlog_close(&log);
}
END_TEST

START_TEST(has_one_winner_per_sequence)
{
    nats_server_start(&server, NULL);
    struct viewlog *logs[2] = {open_as(NULL), open_as(NULL)};
    const char *const names[2] = {"a", "b"};
    unsigned wins[2] = {0, 0};
    char winners[ROUNDS];

    for (unsigned round = 0; round < ROUNDS; round++) {
        struct answer results[2];
        /* Who asks first alternates. */
        append(logs[round % 2], names[round % 2], round, &results[round % 2]);
        append(logs[!(round % 2)], names[!(round % 2)], round, &results[!(round % 2)]);
        run_until_answered(2);
        unsigned winner = results[1].result == VIEWLOG_OK;
        const struct answer *won = &results[winner], *lost = &results[!winner];
        ck_assert_msg(won->result == VIEWLOG_OK, "round %u: %d %s", round, won->result, won->detail);
        ck_assert_uint_eq(won->seq, round + 1);
        /* A server shows a new stream to others before it listens to the stream's subject: nothing is stored then. */
        bool is_new = round == 0 && lost->result == VIEWLOG_FAILED;
        ck_assert_msg(lost->result == VIEWLOG_CONFLICT || is_new, "round %u: %d %s", round, lost->result, lost->detail);
        winners[round] = *names[winner];
        wins[winner]++;
    }
    printf("%u and %u wins\n", wins[0], wins[1]);
    for (unsigned round = 0; round < ROUNDS; round++)
        ck_assert_int_eq(read_now(logs[0], round + 1).data[0], winners[round]);
    ck_assert_uint_eq(read_last_now(logs[1]).seq, ROUNDS);
    viewlog_close(&logs[0]);
    viewlog_close(&logs[1]);
}
END_TEST

START_TEST(answers_in_the_order_of_the_calls)
{
    struct answer results[4];

    nats_server_start(&server, NULL);
    struct viewlog *log = open_as(NULL);
    append(log, "one", 0, &results[0]);
    viewlog_read_last(log, on_read, &results[1]);
    append(log, "two", 1, &results[2]);
    viewlog_read(log, 2, on_read, &results[3]);
    run_until_answered(4);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_eq(results[i].place, i + 1);
        ck_assert_int_eq(results[i].result, VIEWLOG_OK);
    }
    ck_assert_str_eq(results[1].data, "one");
    ck_assert_str_eq(results[3].data, "two");
    viewlog_close(&log);
}
END_TEST

START_TEST(works_again_after_the_server_returns)
{
    nats_server_start(&server, NULL);
    struct viewlog *log = open_as(NULL);
    ck_assert_int_eq(append_now(log, "one", 0).result, VIEWLOG_OK);
    nats_server_stop(&server);
    struct answer answer = append_now(log, "two", 1);
    ck_assert_msg(answer.result == VIEWLOG_FAILED || answer.result == VIEWLOG_UNKNOWN, "%d", answer.result);
    ck_assert_int_eq(read_last_now(log).result, VIEWLOG_FAILED);
    nats_server_start(&server, NULL);
    answer = read_last_now(log);
    ck_assert_msg(answer.result == VIEWLOG_OK, "%d %s", answer.result, answer.detail);
    ck_assert_str_eq(answer.data, "one");
    ck_assert_uint_eq(append_now(log, "two", 1).seq, 2);
    viewlog_close(&log);
}
END_TEST

START_TEST(does_not_know_what_became_of_an_unanswered_append)
{
    nats_server_start(&server, NULL);
    struct viewlog *log = open_as(NULL);
    ck_assert_int_eq(append_now(log, "one", 0).result, VIEWLOG_OK);
    nats_server_freeze(&server);
    ck_assert_int_eq(append_now(log, "two", 1).result, VIEWLOG_UNKNOWN);
    nats_server_thaw(&server);
    struct answer answer = read_last_now(log);
    ck_assert_int_eq(answer.result, VIEWLOG_OK);
    ck_assert_int_eq(append_now(log, "next", answer.seq).result, VIEWLOG_OK);
    viewlog_close(&log);
}
END_TEST

START_TEST(closes_with_requests_in_flight)
{
    struct answer results[20] = {0};

    nats_server_start(&server, NULL);
    struct viewlog *log = open_as(NULL);
    for (unsigned i = 0; i < 20; i++)
        append(log, "x", i, &results[i]);
    viewlog_close(&log);
    loop_free(&loop);
    loop = loop_new();
    for (unsigned i = 0; i < 20; i++)
        ck_assert(!results[i].came);
}
END_TEST

START_TEST(denies_purging_and_deleting)
{
    natsConnection *nc = NULL;
    jsCtx *js = NULL;
    jsErrCode error = 0;

    nats_server_start(&server, NULL);
    struct viewlog *log = open_as(NULL);
    ck_assert_int_eq(append_now(log, "one", 0).result, VIEWLOG_OK);
    ck_assert_int_eq(natsConnection_ConnectTo(&nc, server.url), NATS_OK);
    ck_assert_int_eq(natsConnection_JetStream(&js, nc, NULL), NATS_OK);
    ck_assert_int_ne(js_PurgeStream(js, VIEWLOG_STREAM, NULL, &error), NATS_OK);
    ck_assert_int_ne(js_DeleteMsg(js, VIEWLOG_STREAM, 1, NULL, &error), NATS_OK);
    ck_assert_uint_eq(read_last_now(log).seq, 1);
    jsCtx_Destroy(js);
    natsConnection_Destroy(nc);
    viewlog_close(&log);
}
END_TEST

START_TEST(is_refused_without_permission)
{
    nats_server_start(&server, "authorization { users = [\n"
                               "  {user: all, password: secret}\n"
                               "  {user: reader, password: secret, permissions: {publish: [\"$JS.API.>\"]}}\n"
                               "  {user: none, password: secret, permissions: {publish: [\"nothing\"]}}\n"
                               "] }\n");
    struct viewlog *log = open_as("nobody");
    ck_assert_int_eq(read_last_now(log).result, VIEWLOG_REFUSED);
    viewlog_close(&log);
    log = open_as("none");
    ck_assert_int_eq(read_last_now(log).result, VIEWLOG_REFUSED);
    viewlog_close(&log);
    log = open_as("reader");
    struct answer answer = append_now(log, "one", 0);
    ck_assert_int_eq(answer.result, VIEWLOG_REFUSED);
    ck_assert_msg(strstr(answer.detail, VIEWLOG_SUBJECT), "%s", answer.detail);
    viewlog_close(&log);
    log = open_as("all");
    ck_assert_int_eq(append_now(log, "one", 0).result, VIEWLOG_OK);
    viewlog_close(&log);
}
END_TEST

START_TEST(speaks_over_its_own_connection)
{
    natsConnection *nc = NULL;
    natsSubscription *sub = NULL;
    natsMsg *msg = NULL;
    char id[64];
    struct payload *lost = payload_from("lost", 4), *said = payload_from("said", 4);

    nats_server_start(&server, NULL);
    ck_assert_int_eq(natsConnection_ConnectTo(&nc, server.url), NATS_OK);
    ck_assert_int_eq(natsConnection_SubscribeSync(&sub, nc, "sbx.hb.shard.a"), NATS_OK);
    ck_assert_int_eq(natsConnection_Flush(nc), NATS_OK);
    ck_assert_int_eq(natsConnection_GetConnectedServerId(nc, id, sizeof(id)), NATS_OK);
    struct viewlog *log = open_as(NULL);
    ck_assert_str_eq(viewlog_server(log), "");
    viewlog_publish(log, "sbx.hb.shard.a", lost); /* there is no connection yet, and none is made for it */
    read_last_now(log);
    ck_assert_str_eq(viewlog_server(log), id);
    viewlog_publish(log, "sbx.hb.shard.a", said);
    ck_assert_int_eq(natsSubscription_NextMsg(&msg, sub, GUARD_MS), NATS_OK);
    ck_assert_mem_eq(natsMsg_GetData(msg), "said", 4);
    natsMsg_Destroy(msg);
    natsSubscription_Destroy(sub);
    natsConnection_Destroy(nc);
    payload_unref(&lost);
    payload_unref(&said);
    viewlog_close(&log);
}
END_TEST

static void id_of(const struct nats_server *of, char ret_id[64])
{
    natsConnection *nc = NULL;
    ck_assert_int_eq(natsConnection_ConnectTo(&nc, of->url), NATS_OK);
    ck_assert_int_eq(natsConnection_GetConnectedServerId(nc, ret_id, 64), NATS_OK);
    natsConnection_Destroy(nc);
}

START_TEST(keeps_off_the_server_of_the_bus)
{
    char ids[2][64];

    nats_server_start(&server, NULL);
    nats_server_start(&other_server, NULL);
    id_of(&server, ids[0]);
    id_of(&other_server, ids[1]);
    const char *urls[] = {server.url, other_server.url};
    struct bus_options options = {.servers = urls, .server_count = 2, .name = "test"};
    struct viewlog *log = viewlog_open(loop, &options, 0);
    for (int i = 0; i < 4; i++) {
        viewlog_set_bus_server(log, ids[i % 2]);
        ck_assert_int_eq(read_last_now(log).result, VIEWLOG_EMPTY);
        ck_assert_str_eq(viewlog_server(log), ids[(i + 1) % 2]);
    }
    /* Better the same one than none. */
    nats_server_stop(&other_server);
    viewlog_set_bus_server(log, ids[0]);
    struct answer answer = read_last_now(log);
    for (int i = 0; i < 3 && answer.result != VIEWLOG_EMPTY; i++)
        answer = read_last_now(log);
    ck_assert_int_eq(answer.result, VIEWLOG_EMPTY);
    ck_assert_str_eq(viewlog_server(log), ids[0]);
    viewlog_close(&log);
}
END_TEST

static Suite *viewlog_suite(void)
{
    Suite *suite = suite_create("viewlog");
    TCase *tcase = tcase_create("viewlog");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, appends_and_reads);
    tcase_add_test(tcase, refuses_an_append_that_expects_another_sequence);
    tcase_add_test(tcase, has_one_winner_per_sequence);
    tcase_add_test(tcase, answers_in_the_order_of_the_calls);
    tcase_add_test(tcase, works_again_after_the_server_returns);
    tcase_add_test(tcase, does_not_know_what_became_of_an_unanswered_append);
    tcase_add_test(tcase, closes_with_requests_in_flight);
    tcase_add_test(tcase, denies_purging_and_deleting);
    tcase_add_test(tcase, is_refused_without_permission);
    tcase_add_test(tcase, speaks_over_its_own_connection);
    tcase_add_test(tcase, keeps_off_the_server_of_the_bus);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    nats_fixture_init();
    SRunner *runner = srunner_create(viewlog_suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    nats_fixture_done();
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
