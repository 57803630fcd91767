#include "common/metrics.h"

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct buf page;

static void assert_rendered(const char *lines)
{
    buf_reset(&page);
    metrics_render(&page, TIER_BOTH);
    ck_assert_msg(strstr(buf_str(&page), lines) != NULL, "missing:\n%s\nin:\n%s", lines, buf_str(&page));
}

static void forget_page(void)
{
    buf_done(&page);
}

START_TEST(counter)
{
    metric_add(M_BUS_SENT, 1);
    metric_add(M_BUS_SENT, 41);
    ck_assert_uint_eq(metric_value(M_BUS_SENT), 42);
    assert_rendered("# HELP signalbox_bus_messages_sent_total Messages published on the bus\n"
                    "# TYPE signalbox_bus_messages_sent_total counter\n"
                    "signalbox_bus_messages_sent_total 42\n");
}
END_TEST

START_TEST(labelled_counter)
{
    metric_add_at(M_BUS_LOSSES, 0, 1);
    metric_add_at(M_BUS_LOSSES, 3, 4);
    ck_assert_uint_eq(metric_value_at(M_BUS_LOSSES, 3), 4);
    ck_assert_uint_eq(metric_value_at(M_BUS_LOSSES, 1), 0);
    assert_rendered("signalbox_bus_losses_total{reason=\"closed\"} 1\n"
                    "signalbox_bus_losses_total{reason=\"echo_timeout\"} 0\n"
                    "signalbox_bus_losses_total{reason=\"outgoing_full\"} 0\n"
                    "signalbox_bus_losses_total{reason=\"error\"} 4\n");
}
END_TEST

START_TEST(label_value_out_of_range_is_our_bug)
{
    metric_add_at(M_BUS_LOSSES, 4, 1);
}
END_TEST

START_TEST(label_forgotten_is_our_bug)
{
    metric_add(M_BUS_LOSSES, 1);
}
END_TEST

START_TEST(gauge)
{
    metric_set(M_BUS_UP, 1);
    assert_rendered("# TYPE signalbox_bus_up gauge\nsignalbox_bus_up 1\n");
    metric_add(M_BUS_UP, (uint64_t)-3);
    assert_rendered("\nsignalbox_bus_up -2\n");
}
END_TEST

START_TEST(histogram)
{
    const int64_t observed_us[] = {-5, 500, 501, 1000, 59999999, 60000000, 60000001};
    for (size_t i = 0; i < sizeof(observed_us) / sizeof(observed_us[0]); i++)
        metric_observe_us(M_LOOP_LAG, observed_us[i]);
    ck_assert_uint_eq(metric_value(M_LOOP_LAG), 7);
    assert_rendered("# TYPE signalbox_loop_lag_seconds histogram\n"
                    "signalbox_loop_lag_seconds_bucket{le=\"0.0005\"} 2\n"
                    "signalbox_loop_lag_seconds_bucket{le=\"0.001\"} 4\n"
                    "signalbox_loop_lag_seconds_bucket{le=\"0.0025\"} 4\n");
    assert_rendered("signalbox_loop_lag_seconds_bucket{le=\"30\"} 4\n"
                    "signalbox_loop_lag_seconds_bucket{le=\"60\"} 6\n"
                    "signalbox_loop_lag_seconds_bucket{le=\"+Inf\"} 7\n"
                    "signalbox_loop_lag_seconds_sum 180.002001\n"
                    "signalbox_loop_lag_seconds_count 7\n");
}
END_TEST

static double rendered_value(const char *name)
{
    buf_reset(&page);
    metrics_render(&page, TIER_SHARD);
    char start[100];
    snprintf(start, sizeof(start), "\n%s ", name);
    const char *at = strstr(buf_str(&page), start);
    ck_assert_msg(at != NULL, "%s is not rendered", name);
    return strtod(at + strlen(start), NULL);
}

START_TEST(process_metrics)
{
    assert_rendered("signalbox_build_info{version=\"" SBX_VERSION "\"} 1\n");
    ck_assert(rendered_value("process_resident_memory_bytes") > 100000);
    ck_assert(rendered_value("process_start_time_seconds") > 1700000000);
    ck_assert(rendered_value("process_cpu_seconds_total") > 0);
    ck_assert(rendered_value("process_max_fds") > 3);
    double before = rendered_value("process_open_fds");
    FILE *file = fopen("/dev/null", "r");
    ck_assert(rendered_value("process_open_fds") == before + 1);
    fclose(file);
    ck_assert(rendered_value("process_open_fds") == before);
}
END_TEST

/* Every metric of the table is on the page of its tier and on no other, and is documented. */
START_TEST(the_table_is_rendered_by_tier_and_documented)
{
    static const struct {
        enum metric_tier tier;
        const char *name;
    } table[] = {
#define METRIC(id, tier, type, name, label, values, help) {tier, name},
#include "common/metrics_table.h"
#undef METRIC
    };
    struct buf pages[2] = {{0}, {0}}, document = {0};
    metrics_render(&pages[0], TIER_GATEWAY);
    metrics_render(&pages[1], TIER_SHARD);
    metrics_document(&document);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        char head[200], row[200];
        snprintf(head, sizeof(head), "# HELP %s ", table[i].name);
        snprintf(row, sizeof(row), "\n| `%s` | ", table[i].name);
        ck_assert_int_eq(strstr(buf_str(&pages[0]), head) != NULL, (table[i].tier & TIER_GATEWAY) != 0);
        ck_assert_int_eq(strstr(buf_str(&pages[1]), head) != NULL, (table[i].tier & TIER_SHARD) != 0);
        ck_assert_msg(strstr(buf_str(&document), row) != NULL, "%s is not documented", table[i].name);
    }
    ck_assert_ptr_nonnull(strstr(
        buf_str(&document), "| `signalbox_bus_losses_total` | counter | `reason`: `closed`, `echo_timeout`, "
                            "`outgoing_full`, `error` | both | Connections to NATS that were lost or given up |\n"));
    buf_done(&pages[0]);
    buf_done(&pages[1]);
    buf_done(&document);
}
END_TEST

static void *count(void *arg)
{
    for (int i = 0; i < 20000; i++) {
        metric_add_at(M_BUS_DROPPED, 4, 1);
        metric_observe_us(M_BUS_ECHO, 700);
    }
    return NULL;
}

START_TEST(threads_lose_nothing)
{
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, count, NULL), 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(metric_value_at(M_BUS_DROPPED, 4), 80000);
    ck_assert_uint_eq(metric_value(M_BUS_ECHO), 80000);
    assert_rendered("signalbox_bus_echo_seconds_sum 56.000000\n");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("metrics");
    TCase *tcase = tcase_create("metrics");
    tcase_add_checked_fixture(tcase, NULL, forget_page);
    tcase_add_test(tcase, counter);
    tcase_add_test(tcase, labelled_counter);
    tcase_add_test_raise_signal(tcase, label_value_out_of_range_is_our_bug, SIGABRT);
    tcase_add_test_raise_signal(tcase, label_forgotten_is_our_bug, SIGABRT);
    tcase_add_test(tcase, gauge);
    tcase_add_test(tcase, histogram);
    tcase_add_test(tcase, process_metrics);
    tcase_add_test(tcase, the_table_is_rendered_by_tier_and_documented);
    tcase_add_test(tcase, threads_lose_nothing);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
