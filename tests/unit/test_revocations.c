/* Who may not come back: what processes say to each other of it, with nothing between them but this test. */
#include "common/revocations.h"

#include "common/metrics.h"
#include <check.h>
#include <string.h>

enum { PROCESSES = 6, SHARDS = 3, NOW_MS = 1000 };

/* Three shards and three gateways; gateways do not talk to gateways. */
static struct process {
    struct node_address address;
    struct revocations revocations;
    int told, asked; /* items that came */
    int ended;       /* sessions of others' revocations */
    bool deaf;       /* the bus loses what is said to it */
} processes[PROCESSES];

static void on_send(void *ctx, const struct node_address *to, Signalbox__Cluster__V1__Item *item)
{
    struct process *from = ctx;
    ck_assert_uint_ne(to->incarnation, from->address.incarnation);
    if (from->address.kind == NODE_GATEWAY && to->kind == NODE_GATEWAY)
        return;
    struct process *receiver = &processes[to->incarnation - 1];
    if (receiver->deaf)
        return;
    receiver->told += item->revocations->n_revoked > 0;
    receiver->asked += item->revocations->asks;
    revocations_receive(&receiver->revocations, &from->address, item->revocations, NOW_MS);
}

static void on_revoked(void *ctx, const struct sid *sid, Signalbox__V1__LeaveReason reason, int64_t now_ms)
{
    ((struct process *)ctx)->ended++;
}

static void setup(void)
{
    memset(processes, 0, sizeof processes);
    for (int i = 0; i < PROCESSES; i++) {
        struct process *process = &processes[i];
        process->address = (struct node_address){
            .kind = i < SHARDS ? NODE_SHARD : NODE_GATEWAY, .id = {(char)('a' + i)}, .incarnation = (uint64_t)i + 1};
        revocations_init(&process->revocations);
        process->revocations.send = on_send;
        process->revocations.revoked = on_revoked;
        process->revocations.ctx = process;
    }
}

static void teardown(void)
{
    for (int i = 0; i < PROCESSES; i++)
        revocations_done(&processes[i].revocations);
}

/* Of the processes whose bits are set. */
static struct view *view_of(unsigned members)
{
    struct view *view = view_copy(NULL);
    for (int i = 0; i < PROCESSES; i++) {
        struct view_node node = {.incarnation = (uint64_t)i + 1, .weight = 1, .full_weight = 1};
        memcpy(node.id, processes[i].address.id, sizeof node.id);
        if (members & 1u << i)
            (i < SHARDS ? view_put_shard : view_put_gateway)(view, &node);
    }
    return view;
}

static void make(int process, const struct sid *sid, struct view *take_view)
{
    revocations_make(&processes[process].revocations, sid, SIGNALBOX__V1__LEAVE_REASON__REMOVED, take_view,
                     processes[process].address.incarnation, NOW_MS);
    view_unref(&take_view);
}

static void change_view(unsigned before, unsigned after)
{
    struct view *old = view_of(before), *view = view_of(after);
    for (int i = 0; i < PROCESSES; i++)
        if (after & 1u << i)
            revocations_view(&processes[i].revocations, before & 1u << i ? old : NULL, view,
                             processes[i].address.incarnation, NOW_MS);
    view_unref(&old);
    view_unref(&view);
}

static Signalbox__V1__LeaveReason known(int process, const struct sid *sid, int64_t now_ms)
{
    return revocations_find(&processes[process].revocations, sid, now_ms);
}

START_TEST(everybody_is_told_once)
{
    struct sid sid;
    sid_random(&sid);
    make(0, &sid, view_of(0x3f));
    make(0, &sid, view_of(0x3f));
    for (int i = 0; i < PROCESSES; i++) {
        ck_assert_int_eq(known(i, &sid, NOW_MS), SIGNALBOX__V1__LEAVE_REASON__REMOVED);
        ck_assert_int_eq(processes[i].told, i > 0);
        ck_assert_int_eq(processes[i].ended, i > 0);
    }
    struct sid other;
    sid_random(&other);
    ck_assert_int_eq(known(0, &other, NOW_MS), SIGNALBOX__V1__LEAVE_REASON__LEAVE_REASON_UNSPECIFIED);
}
END_TEST

/* Every process is replaced in its turn, the shard that made it first: shards and gateways carry it for each other. */
START_TEST(it_outlives_every_process_in_turn)
{
    struct sid sid;
    sid_random(&sid);
    make(0, &sid, view_of(0x09)); /* shard a, gateway d */
    change_view(0x09, 0x08);      /* the only shard dies: the gateway alone knows */
    change_view(0x08, 0x0a);
    ck_assert_int_eq(processes[1].told, 1);
    change_view(0x0a, 0x1a); /* a second gateway hears it from the shard */
    ck_assert_int_eq(processes[4].told, 1);
    change_view(0x1a, 0x12);
    change_view(0x12, 0x14); /* another shard comes as the old one goes: from the gateway that the shard told */
    ck_assert_int_eq(known(2, &sid, NOW_MS), SIGNALBOX__V1__LEAVE_REASON__REMOVED);
}
END_TEST

START_TEST(newcomers_hear_it_from_a_few)
{
    struct sid sid;
    sid_random(&sid);
    make(0, &sid, view_of(0x1f));
    change_view(0x1f, 0x3f); /* gateway f comes: of two gateways and three shards, the shards tell it */
    ck_assert_int_eq(processes[5].told, REVOCATION_TELLERS);
    ck_assert_int_eq(processes[5].ended, 1);
}
END_TEST

START_TEST(what_was_lost_is_asked_for)
{
    struct sid sid;
    sid_random(&sid);
    processes[4].deaf = true;
    make(0, &sid, view_of(0x3f));
    processes[4].deaf = false;
    ck_assert_int_eq(known(4, &sid, NOW_MS), SIGNALBOX__V1__LEAVE_REASON__LEAVE_REASON_UNSPECIFIED);
    revocations_ask(&processes[4].revocations, &processes[0].address);
    ck_assert_int_eq(known(4, &sid, NOW_MS), SIGNALBOX__V1__LEAVE_REASON__REMOVED);
    ck_assert_int_eq(processes[4].told, 1);
    revocations_ask(&processes[4].revocations, &processes[0].address); /* nothing is missing: nothing is said */
    ck_assert_int_eq(processes[0].asked, 2);
    ck_assert_int_eq(processes[4].told, 1);
}
END_TEST

START_TEST(many_are_said_in_parts_and_the_oldest_give_way)
{
    struct sid first, last;
    uint64_t before = metric_value(M_REVOCATIONS_FORGOTTEN);
    for (int i = 0; i < REVOCATIONS_MAX + 1; i++) {
        sid_random(&last);
        if (i == 0)
            first = last;
        make(0, &last, NULL);
    }
    ck_assert_uint_eq(metric_value(M_REVOCATIONS_FORGOTTEN) - before, 1);
    ck_assert_int_eq(known(0, &first, NOW_MS), SIGNALBOX__V1__LEAVE_REASON__LEAVE_REASON_UNSPECIFIED);
    change_view(0x01, 0x03);
    ck_assert_int_eq(processes[1].ended, REVOCATIONS_MAX);
    ck_assert_int_eq(processes[1].told, REVOCATIONS_MAX / 1000);
    ck_assert_uint_eq(processes[0].revocations.digest, processes[1].revocations.digest);
}
END_TEST

START_TEST(its_time_ends_it_and_nobody_prolongs_it)
{
    struct sid sid;
    int64_t end_ms = NOW_MS + REVOCATION_KEEP_S * (int64_t)1000;
    sid_random(&sid);
    make(0, &sid, view_of(0x03));
    ck_assert_int_eq(known(1, &sid, end_ms - 1), SIGNALBOX__V1__LEAVE_REASON__REMOVED);
    ck_assert_int_eq(known(1, &sid, end_ms), SIGNALBOX__V1__LEAVE_REASON__LEAVE_REASON_UNSPECIFIED);

    Signalbox__Cluster__V1__Revocation entry = SIGNALBOX__CLUSTER__V1__REVOCATION__INIT, *list[] = {&entry};
    Signalbox__Cluster__V1__Revocations said = SIGNALBOX__CLUSTER__V1__REVOCATIONS__INIT;
    entry.sid = (ProtobufCBinaryData){.len = sizeof sid.bytes, .data = sid.bytes};
    entry.reason = SIGNALBOX__V1__LEAVE_REASON__REMOVED;
    entry.left_s = UINT32_MAX;
    said.revoked = list;
    said.n_revoked = 1;
    revocations_receive(&processes[2].revocations, &processes[0].address, &said, NOW_MS);
    ck_assert_int_eq(known(2, &sid, end_ms), SIGNALBOX__V1__LEAVE_REASON__LEAVE_REASON_UNSPECIFIED);
}
END_TEST

START_TEST(what_is_malformed_or_no_revocation_is_dropped)
{
    struct sid sid;
    sid_random(&sid);
    uint64_t before = metric_value(M_ITEMS_INVALID);
    Signalbox__Cluster__V1__Revocation entries[2] = {SIGNALBOX__CLUSTER__V1__REVOCATION__INIT,
                                                     SIGNALBOX__CLUSTER__V1__REVOCATION__INIT};
    Signalbox__Cluster__V1__Revocation *list[] = {&entries[0], &entries[1]};
    Signalbox__Cluster__V1__Revocations said = SIGNALBOX__CLUSTER__V1__REVOCATIONS__INIT;
    entries[0].sid = (ProtobufCBinaryData){.len = 15, .data = sid.bytes};
    entries[0].reason = SIGNALBOX__V1__LEAVE_REASON__REMOVED;
    entries[1].sid = (ProtobufCBinaryData){.len = sizeof sid.bytes, .data = sid.bytes};
    entries[1].reason = SIGNALBOX__V1__LEAVE_REASON__DISCONNECTED;
    entries[0].left_s = entries[1].left_s = 60;
    said.revoked = list;
    said.n_revoked = 2;
    revocations_receive(&processes[1].revocations, &processes[0].address, &said, NOW_MS);
    ck_assert_uint_eq(metric_value(M_ITEMS_INVALID) - before, 2);
    ck_assert_int_eq(processes[1].ended, 0);
    ck_assert_int_eq(known(1, &sid, NOW_MS), SIGNALBOX__V1__LEAVE_REASON__LEAVE_REASON_UNSPECIFIED);
}
END_TEST

START_TEST(who_is_named_beyond_the_bound_is_not_taken)
{
    enum { NAMED = 1001 };
    static Signalbox__Cluster__V1__Revocation entries[NAMED], *list[NAMED];
    static struct sid sids[NAMED];
    Signalbox__Cluster__V1__Revocations said = SIGNALBOX__CLUSTER__V1__REVOCATIONS__INIT;
    for (int i = 0; i < NAMED; i++) {
        sid_random(&sids[i]);
        signalbox__cluster__v1__revocation__init(&entries[i]);
        entries[i].sid = (ProtobufCBinaryData){.len = sizeof sids[i].bytes, .data = sids[i].bytes};
        entries[i].reason = SIGNALBOX__V1__LEAVE_REASON__REMOVED;
        entries[i].left_s = 60;
        list[i] = &entries[i];
    }
    said.revoked = list;
    said.n_revoked = NAMED;
    uint64_t invalid = metric_value(M_ITEMS_INVALID);
    revocations_receive(&processes[1].revocations, &processes[0].address, &said, NOW_MS);
    ck_assert_int_eq(processes[1].ended, NAMED - 1);
    ck_assert_uint_eq(metric_value(M_ITEMS_INVALID), invalid + 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("revocations");
    TCase *tcase = tcase_create("revocations");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, everybody_is_told_once);
    tcase_add_test(tcase, it_outlives_every_process_in_turn);
    tcase_add_test(tcase, newcomers_hear_it_from_a_few);
    tcase_add_test(tcase, what_was_lost_is_asked_for);
    tcase_add_test(tcase, many_are_said_in_parts_and_the_oldest_give_way);
    tcase_add_test(tcase, its_time_ends_it_and_nobody_prolongs_it);
    tcase_add_test(tcase, what_is_malformed_or_no_revocation_is_dropped);
    tcase_add_test(tcase, who_is_named_beyond_the_bound_is_not_taken);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
