/* A checker that cannot fail proves nothing: these break the promises on purpose. */
#include "common/clock.h"
#include "tests/load/participant.h"
#include "tests/load/roster.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SIZE = 3 };

static struct worker_stats stats;
static struct worker worker;
static struct room room;
static struct participant people[SIZE];
static unsigned sent;

void participant_send(struct participant *participant, const Signalbox__V1__ClientMessage *message)
{
    sent++;
}

void participant_arm(struct participant *participant, int64_t due_ms)
{
}

static void put(unsigned at, unsigned who, const struct sid *sid)
{
    Signalbox__V1__RoomEvent event = SIGNALBOX__V1__ROOM_EVENT__INIT;
    Signalbox__V1__Participant joined = SIGNALBOX__V1__PARTICIPANT__INIT;
    char identity[16], text[SID_TEXT_SIZE + 1];
    snprintf(identity, sizeof identity, "swarm-%u", people[0].number + who);
    sid_format(sid, text);
    joined.identity = identity;
    joined.sid = text;
    joined.version = 1;
    event.event_case = SIGNALBOX__V1__ROOM_EVENT__EVENT_JOINED;
    event.joined = &joined;
    roster_apply(&people[at], &event);
}

static void take_out(unsigned at, const struct sid *sid)
{
    Signalbox__V1__RoomEvent event = SIGNALBOX__V1__ROOM_EVENT__INIT;
    Signalbox__V1__ParticipantLeft gone = SIGNALBOX__V1__PARTICIPANT_LEFT__INIT;
    char text[SID_TEXT_SIZE + 1];
    sid_format(sid, text);
    gone.sid = text;
    event.event_case = SIGNALBOX__V1__ROOM_EVENT__EVENT_LEFT;
    event.left = &gone;
    roster_apply(&people[at], &event);
}

/* Everybody is joined and knows everybody. */
static void setup(void)
{
    memset(&stats, 0, sizeof stats);
    memset(&worker, 0, sizeof worker);
    worker.stats = &stats;
    room = (struct room){.first = people, .size = SIZE};
    sent = 0;
    for (unsigned i = 0; i < SIZE; i++) {
        people[i] = (struct participant){.worker = &worker, .room = &room, .number = 7 + i, .seat = (uint8_t)i};
        people[i].state = PARTICIPANT_JOINED;
        people[i].links = calloc(SIZE, sizeof *people[i].links);
        sid_random(&people[i].sid);
    }
    for (unsigned at = 0; at < SIZE; at++)
        for (unsigned who = 0; who < SIZE; who++)
            put(at, who, &people[who].sid);
}

static void teardown(void)
{
    for (unsigned i = 0; i < SIZE; i++)
        free(people[i].links);
}

START_TEST(a_right_roster_has_no_differences)
{
    for (unsigned i = 0; i < SIZE; i++)
        ck_assert_uint_eq(roster_count_differences(&people[i]), 0);
    ck_assert_uint_eq(stats.violations_roster, 0);
}
END_TEST

START_TEST(sees_who_is_missing_and_who_should_be_gone)
{
    take_out(0, &people[1].sid);
    ck_assert_uint_eq(roster_count_differences(&people[0]), 1);
    people[1].state = PARTICIPANT_AWAY;
    ck_assert_uint_eq(roster_count_differences(&people[0]), 0);
    ck_assert_uint_eq(roster_count_differences(&people[2]), 1);
}
END_TEST

START_TEST(sees_an_old_sid_and_a_wrong_mute)
{
    sid_random(&people[1].sid);
    people[2].muted = true;
    ck_assert_uint_eq(roster_count_differences(&people[0]), 2);
}
END_TEST

START_TEST(sees_a_sid_that_comes_back)
{
    take_out(0, &people[1].sid);
    put(0, 1, &people[1].sid);
    ck_assert_uint_eq(stats.violations_roster, 1);
}
END_TEST

START_TEST(sees_a_stranger)
{
    struct sid sid;
    sid_random(&sid);
    put(0, SIZE, &sid);
    ck_assert_uint_eq(stats.violations_roster, 1);
}
END_TEST

START_TEST(a_snapshot_removes_who_is_not_in_it)
{
    Signalbox__V1__Snapshot page = SIGNALBOX__V1__SNAPSHOT__INIT;
    roster_snapshot_begin(&people[0]);
    roster_snapshot_page(&people[0], &page);
    ck_assert_uint_eq(roster_count_differences(&people[0]), 0);
    roster_snapshot_end(&people[0]);
    ck_assert_uint_eq(roster_count_differences(&people[0]), SIZE);
}
END_TEST

/* The examples of docs/PROTOCOL.md section 4. */
START_TEST(computes_the_digest_of_the_protocol)
{
    struct link *links = people[0].links;
    roster_reset(&people[0]);
    ck_assert_uint_eq(roster_digest(&people[0]), 0);
    links[0] = (struct link){.present = true, .version = 1};
    ck_assert_uint_eq(roster_digest(&people[0]), 0xa2cf229d17ca78d5u);
    links[2] = (struct link){.present = true, .version = 42};
    ck_assert(sid_parse("u9Zr1Yw0Tq2b7cXk3LmN4A", &links[2].sid));
    ck_assert_uint_eq(roster_digest(&people[0]), 0x68ac6487c60c3c40u);
}
END_TEST

/* Number `number` from people[1] reaches people[0], with the text of number `text_number`. */
static void receive(unsigned number, unsigned text_number, size_t size)
{
    Signalbox__V1__ServerMessage message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Route route = SIGNALBOX__V1__ROUTE__INIT;
    Signalbox__V1__Offer offer = SIGNALBOX__V1__OFFER__INIT;
    char peer[SID_TEXT_SIZE + 1], text[4096];
    sid_format(&people[1].sid, peer);
    memset(text, 'x', sizeof text);
    int n = snprintf(text, sizeof text, "swarm %u 1000 ", text_number);
    text[n] = 'x';
    text[size] = '\0';
    route.peer = peer;
    route.seq = number;
    offer.sdp = text;
    message.route = &route;
    message.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_OFFER;
    message.offer = &offer;
    directed_receive(&people[0], &message);
}

enum { OFFER_SIZE = 2500 };

START_TEST(delivers_once_and_in_order)
{
    receive(2, 2, OFFER_SIZE);
    ck_assert_uint_eq(stats.directed_early, 1);
    receive(1, 1, OFFER_SIZE);
    receive(1, 1, OFFER_SIZE);
    receive(2, 2, OFFER_SIZE);
    ck_assert_uint_eq(stats.directed_delivered, 2);
    ck_assert_uint_eq(stats.directed_duplicates, 1);
    ck_assert_uint_eq(stats.violations_order, 0);
}
END_TEST

START_TEST(sees_another_message_in_the_place_of_one)
{
    receive(1, 2, OFFER_SIZE);
    ck_assert_uint_eq(stats.violations_order, 1);
}
END_TEST

START_TEST(sees_a_message_that_was_cut)
{
    receive(1, 1, OFFER_SIZE - 1);
    ck_assert_uint_eq(stats.violations_order, 1);
}
END_TEST

START_TEST(sees_a_message_that_never_came)
{
    directed_send(&people[1], 0, 1000);
    ck_assert_uint_eq(sent, 1);
    ck_assert_uint_eq(directed_count_open(&people[1]), 1);
    ck_assert_uint_eq(directed_count_lost(&people[1]), 1);
    receive(1, 1, OFFER_SIZE);
    ck_assert_uint_eq(directed_count_lost(&people[1]), 0);
}
END_TEST

START_TEST(sees_a_message_that_nobody_sent)
{
    receive(1, 1, OFFER_SIZE);
    ck_assert_uint_eq(directed_count_lost(&people[1]), 1);
}
END_TEST

START_TEST(keeps_to_its_window)
{
    for (unsigned i = 0; i <= LINK_WINDOW; i++)
        directed_send(&people[1], 0, 1000);
    ck_assert_uint_eq(sent, LINK_WINDOW);
    ck_assert_uint_eq(stats.directed_blocked, 1);
    directed_repeat_all(&people[1]);
    ck_assert_uint_eq(sent, 2 * LINK_WINDOW);
    ck_assert_uint_eq(stats.directed_repeats, LINK_WINDOW);
}
END_TEST

START_TEST(repeats_to_whom_it_hears_of_again_once)
{
    int64_t now_ms = clock_mono_ms();
    worker.retransmit_ms = 1000;
    directed_send(&people[0], 1, 1000);
    receive(1, 1, OFFER_SIZE);
    ck_assert_uint_eq(stats.directed_repeats, 0); /* it is not overdue */
    directed_upkeep(&people[0], now_ms + 2000);
    ck_assert_uint_eq(stats.directed_repeats, 1);
    receive(2, 2, OFFER_SIZE);
    receive(3, 3, OFFER_SIZE);
    ck_assert_uint_eq(stats.directed_repeats, 2);
}
END_TEST

START_TEST(says_after_a_return_what_has_arrived)
{
    receive(1, 1, OFFER_SIZE);
    directed_upkeep(&people[0], clock_mono_ms() + 1000);
    ck_assert_uint_eq(sent, 1);
    directed_repeat_all(&people[0]);
    directed_upkeep(&people[0], clock_mono_ms() + 1000);
    ck_assert_uint_eq(sent, 1);
    directed_return(&people[0]); /* to both, though nothing has come from one of them */
    directed_upkeep(&people[0], clock_mono_ms() + 1000);
    ck_assert_uint_eq(sent, 3);
}
END_TEST

/* What tests/faults/history.py goes by. */
START_TEST(writes_down_what_it_saw)
{
    char path[] = "/tmp/signalbox-history-XXXXXX", header[HISTORY_HEADER_SIZE];
    struct history_record record;
    close(mkstemp(path));
    worker.history = history_open(path);
    ck_assert_ptr_nonnull(worker.history);
    take_out(0, &people[1].sid);
    people[2].muted = true;
    history_add_own(&people[2], HISTORY_WHOLE, 5, -1);
    ck_assert(history_close(&worker.history));
    ck_assert_ptr_null(worker.history);

    FILE *file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fread(header, sizeof header, 1, file), 1);
    ck_assert(strncmp(header, "signalbox history 1\nSEAT SESSION ", 33) == 0);
    ck_assert_uint_eq(fread(&record, sizeof record, 1, file), 1);
    ck_assert_int_eq(record.kind, HISTORY_SAW_LEAVE);
    ck_assert_uint_eq(record.who, people[0].number);
    ck_assert_uint_eq(record.seat, 1);
    ck_assert_uint_eq(record.tag, history_tag(&people[1].sid));
    ck_assert_uint_eq(fread(&record, sizeof record, 1, file), 1);
    ck_assert_int_eq(record.kind, HISTORY_WHOLE);
    ck_assert_uint_eq(record.seat, 2);
    ck_assert_uint_eq(record.number, 5);
    ck_assert_uint_eq(record.value, 0);
    ck_assert_uint_eq(fread(&record, sizeof record, 1, file), 0);
    fclose(file);
    unlink(path);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swarm_checks");
    TCase *tests = tcase_create("swarm_checks");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, a_right_roster_has_no_differences);
    tcase_add_test(tests, sees_who_is_missing_and_who_should_be_gone);
    tcase_add_test(tests, sees_an_old_sid_and_a_wrong_mute);
    tcase_add_test(tests, sees_a_sid_that_comes_back);
    tcase_add_test(tests, sees_a_stranger);
    tcase_add_test(tests, a_snapshot_removes_who_is_not_in_it);
    tcase_add_test(tests, computes_the_digest_of_the_protocol);
    tcase_add_test(tests, delivers_once_and_in_order);
    tcase_add_test(tests, sees_another_message_in_the_place_of_one);
    tcase_add_test(tests, sees_a_message_that_was_cut);
    tcase_add_test(tests, sees_a_message_that_never_came);
    tcase_add_test(tests, sees_a_message_that_nobody_sent);
    tcase_add_test(tests, keeps_to_its_window);
    tcase_add_test(tests, repeats_to_whom_it_hears_of_again_once);
    tcase_add_test(tests, says_after_a_return_what_has_arrived);
    tcase_add_test(tests, writes_down_what_it_saw);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
