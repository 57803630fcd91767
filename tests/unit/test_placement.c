/* Placement as a whole: the published vectors, fair shares, and that nothing moves which need not. */
#include "common/score.h"
#include "common/view.h"
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROOMS = 100000, SHARDS_MAX = 8 };

static const struct score_seed seed = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};
static struct room_key keys[ROOMS];

static void make_rooms(void)
{
    for (int i = 0; i < ROOMS; i++) {
        char name[32];
        snprintf(name, sizeof(name), "room-%d", i);
        keys[i] = room_key_make("test", name);
    }
}

static void put(struct view *view, const char *id, const char *region, uint32_t weight, uint32_t full_weight)
{
    struct view_node node = {.incarnation = 1, .weight = weight, .full_weight = full_weight};

    snprintf(node.id, sizeof(node.id), "%s", id);
    snprintf(node.region, sizeof(node.region), "%s", region);
    view_put_shard(view, &node);
}

static struct view *make_view(const uint32_t *weights, int count)
{
    struct view *view = view_copy(NULL);

    for (int i = 0; i < count; i++) {
        char id[32];
        snprintf(id, sizeof(id), "shard-%d", i);
        put(view, id, "", weights[i], weights[i]);
    }
    return view;
}

START_TEST(shares_follow_weights)
{
    static const struct {
        uint32_t weights[SHARDS_MAX];
        int count;
    } cases[] = {
        {{1, 1, 2}, 3}, {{100, 100, 100, 100, 100}, 5}, {{1, 10, 100, 1000}, 4}, {{65535, 65535}, 2}, {{3, 0, 7}, 3},
    };

    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct view *view = make_view(cases[c].weights, cases[c].count);
        double counts[SHARDS_MAX] = {0}, sum = 0, chi_square = 0;

        for (int i = 0; i < ROOMS; i++)
            counts[view_owner(view, &seed, &keys[i], "") - view->shards]++;
        for (int i = 0; i < cases[c].count; i++)
            sum += cases[c].weights[i];
        for (int i = 0; i < cases[c].count; i++) {
            double expected = cases[c].weights[i] / sum * ROOMS;
            if (expected == 0)
                ck_assert(counts[i] == 0);
            else
                chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
        }
        /* 99.9 % of fair draws lie below 18.5 with four degrees of freedom, the most there are here. */
        ck_assert_msg(chi_square < 18.5, "case %zu: chi-square %f", c, chi_square);
        view_unref(&view);
    }
}
END_TEST

/* Counts the rooms whose owner differs; each of them must have gone from or to the shard `id`. */
static int count_moves(const struct view *before, const struct view *after, const char *id, bool from, bool to)
{
    int moves = 0;

    for (int i = 0; i < ROOMS; i++) {
        const char *old_id = view_owner(before, &seed, &keys[i], "")->id;
        const char *new_id = view_owner(after, &seed, &keys[i], "")->id;
        if (strcmp(old_id, new_id) == 0)
            continue;
        moves++;
        ck_assert((from && strcmp(old_id, id) == 0) || (to && strcmp(new_id, id) == 0));
    }
    return moves;
}

static void assert_near(int got, double expected)
{
    ck_assert_msg(got > 0.97 * expected && got < 1.03 * expected, "%d, expected about %f", got, expected);
}

START_TEST(only_rooms_that_must_move_do)
{
    static const uint32_t weights[] = {100, 100, 200, 100};
    struct view *view = make_view(weights, 4), *changed = view_copy(view);

    put(changed, "shard-9", "", 100, 100);
    assert_near(count_moves(view, changed, "shard-9", false, true), ROOMS / 6.0);
    assert_near(count_moves(changed, view, "shard-9", true, false), ROOMS / 6.0);
    view_unref(&changed);

    changed = view_copy(view);
    ck_assert(view_remove_shard(changed, "shard-2", 1));
    assert_near(count_moves(view, changed, "shard-2", true, false), ROOMS * 2 / 5.0);
    view_unref(&changed);

    changed = view_copy(view);
    put(changed, "shard-1", "", 150, 150);
    assert_near(count_moves(view, changed, "shard-1", false, true), ROOMS * (150 / 550.0 - 100 / 500.0));
    assert_near(count_moves(changed, view, "shard-1", true, false), ROOMS * (150 / 550.0 - 100 / 500.0));
    view_unref(&changed);
    view_unref(&view);
}
END_TEST

START_TEST(a_new_incarnation_moves_nothing)
{
    static const uint32_t weights[] = {1, 2, 3};
    struct view *view = make_view(weights, 3), *changed = view_copy(view);

    changed->shards[1].incarnation = 77;
    ck_assert_int_eq(count_moves(view, changed, "", false, false), 0);
    view_unref(&changed);
    view_unref(&view);
}
END_TEST

static void parse_hex(const char *text, uint8_t *bytes, size_t size)
{
    ck_assert_uint_eq(strlen(text), 2 * size);
    for (size_t i = 0; i < size; i++)
        ck_assert_int_eq(sscanf(text + 2 * i, "%2hhx", &bytes[i]), 1);
}

static const char *get_string(json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    ck_assert_msg(text != NULL, "placement.json: no string %s", name);
    return text;
}

static uint64_t get_number(json_t *object, const char *name)
{
    return strtoull(get_string(object, name), NULL, 10);
}

static void check_room(const struct view *view, const struct score_seed *vector_seed, json_t *room)
{
    struct room_key key = room_key_make(get_string(room, "project"), get_string(room, "room")), expected_key;
    json_t *order = json_object_get(room, "order"), *entry;
    char region[REGION_MAX + 1];
    uint64_t above = UINT64_MAX;
    const char *id_above = "";
    size_t i;

    parse_hex(get_string(room, "key"), expected_key.bytes, sizeof(expected_key.bytes));
    ck_assert(room_key_equal(&key, &expected_key));
    ck_assert_uint_eq(json_array_size(order), view->shard_count);
    json_array_foreach(order, i, entry)
    {
        const struct view_node *shard = view_find_shard(view, get_string(entry, "shard"));
        uint64_t score = get_number(entry, "score");

        ck_assert_uint_eq(score_compute(vector_seed, shard->id, shard->weight, &key), score);
        ck_assert(score < above || (score == above && strcmp(id_above, shard->id) < 0));
        above = score;
        id_above = shard->id;
    }
    room_region(get_string(room, "room"), region);
    ck_assert_str_eq(view_owner(view, vector_seed, &key, region)->id, get_string(room, "owner"));
}

START_TEST(published_vectors_hold)
{
    json_error_t error;
    json_t *vectors = json_load_file(SBX_TEST_SOURCE_DIR "/vectors/placement.json", 0, &error), *item;
    struct score_seed vector_seed;
    size_t i, rooms = 0;

    ck_assert_msg(vectors != NULL, "%s", error.text);
    parse_hex(get_string(vectors, "seed"), vector_seed.bytes, sizeof(vector_seed.bytes));
    json_array_foreach(json_object_get(vectors, "neg_ln"), i, item)
    {
        ck_assert_uint_eq(score_neg_ln(strtoull(get_string(item, "hash"), NULL, 16)), get_number(item, "value"));
    }
    ck_assert_uint_gt(i, 0);
    json_array_foreach(json_object_get(vectors, "cases"), i, item)
    {
        struct view *view = view_copy(NULL);
        json_t *shard, *room;
        size_t k;

        json_array_foreach(json_object_get(item, "shards"), k, shard)
        {
            put(view, get_string(shard, "id"), get_string(shard, "region"),
                (uint32_t)json_integer_value(json_object_get(shard, "weight")),
                (uint32_t)json_integer_value(json_object_get(shard, "full_weight")));
        }
        json_array_foreach(json_object_get(item, "rooms"), k, room)
        {
            check_room(view, &vector_seed, room);
            rooms++;
        }
        view_unref(&view);
    }
    ck_assert_uint_gt(rooms, 0);
    json_decref(vectors);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("placement");
    TCase *tcase = tcase_create("placement");

    make_rooms();
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, shares_follow_weights);
    tcase_add_test(tcase, only_rooms_that_must_move_do);
    tcase_add_test(tcase, a_new_incarnation_moves_nothing);
    tcase_add_test(tcase, published_vectors_hold);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
