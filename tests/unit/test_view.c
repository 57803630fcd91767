#include "common/payload.h"
#include "common/view.h"
#include "proto/cluster.pb-c.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct score_seed seed = {{1, 2, 3}};

static struct view_node make_node(const char *id, uint64_t incarnation, const char *region, uint32_t weight)
{
    struct view_node node = {.incarnation = incarnation, .weight = weight, .full_weight = weight};

    snprintf(node.id, sizeof(node.id), "%s", id);
    snprintf(node.region, sizeof(node.region), "%s", region);
    return node;
}

static void put_shard(struct view *view, const char *id, uint64_t incarnation, const char *region, uint32_t weight)
{
    struct view_node node = make_node(id, incarnation, region, weight);

    view_put_shard(view, &node);
}

static void put_gateway(struct view *view, const char *id, uint64_t incarnation)
{
    struct view_node node = make_node(id, incarnation, "", 0);

    view_put_gateway(view, &node);
}

START_TEST(numbers_are_ordered_by_generation_then_seq)
{
    static const struct view_number ordered[] = {{0, 0}, {1, 1}, {1, 2}, {2, 1}, {2, UINT64_MAX}, {UINT64_MAX, 0}};
    enum { N = sizeof(ordered) / sizeof(ordered[0]) };

    for (int i = 0; i < N; i++) {
        for (int k = 0; k < N; k++)
            ck_assert_int_eq(view_number_compare(ordered[i], ordered[k]), (i > k) - (i < k));
    }
}
END_TEST

START_TEST(nodes_are_kept_in_order_and_replaced_by_id)
{
    struct view *view = view_copy(NULL);

    put_shard(view, "m", 1, "", 10);
    put_shard(view, "z", 2, "", 10);
    put_shard(view, "a", 3, "", 10);
    put_shard(view, "m", 4, "eu", 20);
    ck_assert_uint_eq(view->shard_count, 3);
    ck_assert_str_eq(view->shards[0].id, "a");
    ck_assert_str_eq(view->shards[1].id, "m");
    ck_assert_str_eq(view->shards[2].id, "z");
    ck_assert_uint_eq(view_find_shard(view, "m")->incarnation, 4);
    ck_assert_str_eq(view_find_shard(view, "m")->region, "eu");
    ck_assert_ptr_null(view_find_shard(view, "b"));
    ck_assert_ptr_null(view_find_gateway(view, "m"));

    put_gateway(view, "gw-1", 9);
    ck_assert_uint_eq(view_find_gateway(view, "gw-1")->incarnation, 9);
    view_unref(&view);
    ck_assert_ptr_null(view);
}
END_TEST

START_TEST(a_process_is_found_by_address_and_by_incarnation)
{
    struct view *view = view_copy(NULL);
    put_shard(view, "z", 2, "", 10);
    put_shard(view, "a", 3, "", 10);
    put_gateway(view, "a", 9);

    struct node_address address = {.kind = NODE_SHARD, .id = "a", .incarnation = 3};
    ck_assert(view_lists(view, &address));
    address.kind = NODE_GATEWAY;
    ck_assert_msg(!view_lists(view, &address), "the gateway of that name is another process");
    address.incarnation = 9;
    ck_assert(view_lists(view, &address));
    address.incarnation = 8;
    ck_assert_msg(!view_lists(view, &address), "an earlier start is not listed");

    ck_assert_str_eq(view_find_incarnation(view, NODE_SHARD, 2)->id, "z");
    ck_assert_ptr_null(view_find_incarnation(view, NODE_GATEWAY, 2));
    ck_assert_uint_eq(view_node_count(view), 3);
    static const uint64_t in_order[] = {3, 2, 9};
    for (size_t i = 0; i < 3; i++)
        ck_assert_uint_eq(view_node_at(view, i).incarnation, in_order[i]);
    ck_assert_int_eq(view_node_at(view, 2).kind, NODE_GATEWAY);
    view_unref(&view);
}
END_TEST

START_TEST(removal_is_of_one_incarnation)
{
    struct view *view = view_copy(NULL);

    put_shard(view, "a", 1, "", 10);
    put_shard(view, "b", 2, "", 10);
    put_gateway(view, "a", 3);
    ck_assert(!view_remove_shard(view, "a", 2));
    ck_assert(!view_remove_shard(view, "c", 1));
    ck_assert(view_remove_shard(view, "a", 1));
    ck_assert(!view_remove_shard(view, "a", 1));
    ck_assert_uint_eq(view->shard_count, 1);
    ck_assert_str_eq(view->shards[0].id, "b");
    ck_assert(view_remove_gateway(view, "a", 3));
    ck_assert_uint_eq(view->gateway_count, 0);
    view_unref(&view);
}
END_TEST

START_TEST(a_copy_is_independent_and_references_are_counted)
{
    struct view *view = view_copy(NULL);

    view->number = (struct view_number){3, 4};
    put_shard(view, "a", 1, "", 10);
    struct view *other = view_ref(view);
    struct view *copy = view_copy(view);
    put_shard(copy, "b", 2, "", 10);
    view_unref(&view);
    ck_assert_uint_eq(other->shard_count, 1);
    ck_assert_uint_eq(copy->shard_count, 2);
    ck_assert_uint_eq(copy->number.seq, 4);
    view_unref(&other);
    view_unref(&copy);
    view_unref(&copy);
}
END_TEST

START_TEST(owner_is_in_the_region_while_it_has_weight)
{
    struct view *view = view_copy(NULL);

    put_shard(view, "any", 1, "", 60000);
    put_shard(view, "eu-0", 2, "eu", 1);
    put_shard(view, "us-0", 3, "us", 0);
    for (int i = 0; i < 200; i++) {
        char name[32];
        snprintf(name, sizeof(name), "room-%d", i);
        struct room_key key = room_key_make("p", name);
        const struct view_node *anywhere = view_owner(view, &seed, &key, "");

        ck_assert_str_eq(view_owner(view, &seed, &key, "eu")->id, "eu-0");
        ck_assert_ptr_eq(view_owner(view, &seed, &key, "us"), anywhere);
        ck_assert_ptr_eq(view_owner(view, &seed, &key, "mars"), anywhere);
    }
    view_unref(&view);
}
END_TEST

START_TEST(full_is_when_all_that_could_own_are)
{
    struct view *view = view_copy(NULL);

    ck_assert(!view_is_full(view, ""));
    put_shard(view, "a", 1, "", 10);
    put_shard(view, "eu-0", 2, "eu", 10);
    put_shard(view, "eu-1", 3, "eu", 10);
    view->shards[1].full = true;
    ck_assert(!view_is_full(view, "eu"));
    view->shards[2].full = true;
    ck_assert(view_is_full(view, "eu"));
    ck_assert(!view_is_full(view, ""));
    ck_assert(!view_is_full(view, "us")); /* falls back to all */
    view->shards[2].weight = 0;
    view->shards[2].full = false; /* drains: could not own it */
    ck_assert(view_is_full(view, "eu"));
    view->shards[0].full = true;
    ck_assert(view_is_full(view, "us"));
    view_unref(&view);
}
END_TEST

START_TEST(somebody_owns_a_room_while_there_is_a_shard)
{
    struct view *view = view_copy(NULL);
    struct room_key key = room_key_make("p", "r");

    ck_assert_ptr_null(view_owner(view, &seed, &key, ""));
    put_gateway(view, "gw", 1);
    ck_assert_ptr_null(view_owner(view, &seed, &key, "eu"));
    put_shard(view, "b", 1, "", 0);
    put_shard(view, "a", 2, "", 0);
    ck_assert_str_eq(view_owner(view, &seed, &key, "")->id, "a");
    view->shards[1].full_weight = 5;
    ck_assert_str_eq(view_owner(view, &seed, &key, "eu")->id, "b");
    view->shards[0].weight = 1;
    ck_assert_str_eq(view_owner(view, &seed, &key, "")->id, "a");
    view_unref(&view);
}
END_TEST

static struct view *make_view(void)
{
    struct view *view = view_copy(NULL);

    view->number = (struct view_number){1767225600, 17};
    view->settled = (struct view_number){1767225600, 15};
    put_shard(view, "shard-0", 0xfedcba9876543210, "eu-west-1", 100);
    put_shard(view, "shard-1", 2, "", SCORE_WEIGHT_MAX);
    view->shards[1].full_weight = 7;
    view->shards[1].draining = true;
    view->shards[0].full = true;
    put_gateway(view, "gw-0", 3);
    put_gateway(view, "gw-1", UINT64_MAX);
    return view;
}

static void assert_nodes_equal(const struct view_node *a, const struct view_node *b)
{
    ck_assert_str_eq(a->id, b->id);
    ck_assert_uint_eq(a->incarnation, b->incarnation);
    ck_assert_str_eq(a->region, b->region);
    ck_assert_uint_eq(a->weight, b->weight);
    ck_assert_uint_eq(a->full_weight, b->full_weight);
    ck_assert(a->draining == b->draining);
    ck_assert(a->full == b->full);
}

START_TEST(pack_and_unpack_round_trip)
{
    struct view *view = make_view();
    struct payload *payload = view_pack(view);
    struct view *back = view_unpack(payload->data, payload->size, 17);

    ck_assert_ptr_nonnull(back);
    ck_assert_int_eq(view_number_compare(back->number, view->number), 0);
    ck_assert_int_eq(view_number_compare(back->settled, view->settled), 0);
    ck_assert_uint_eq(back->shard_count, 2);
    ck_assert_uint_eq(back->gateway_count, 2);
    for (int i = 0; i < 2; i++) {
        assert_nodes_equal(&back->shards[i], &view->shards[i]);
        assert_nodes_equal(&back->gateways[i], &view->gateways[i]);
    }
    view_unref(&back);
    payload_unref(&payload);
    view_unref(&view);
}
END_TEST

START_TEST(the_empty_and_the_largest_view_round_trip)
{
    struct view *view = view_copy(NULL);

    view->number.generation = 1;
    struct payload *payload = view_pack(view);
    struct view *back = view_unpack(payload->data, payload->size, 1);
    ck_assert_ptr_nonnull(back);
    ck_assert_uint_eq(back->shard_count, 0);
    view_unref(&back);
    payload_unref(&payload);

    for (int i = 0; i < VIEW_GATEWAYS_MAX; i++) {
        char id[NODE_ID_MAX + 1], region[REGION_MAX + 1];
        snprintf(id, sizeof(id), "%063d", i);
        snprintf(region, sizeof(region), "%031d", i);
        put_gateway(view, id, UINT64_MAX);
        if (i < VIEW_SHARDS_MAX)
            put_shard(view, id, UINT64_MAX, region, SCORE_WEIGHT_MAX);
    }
    payload = view_pack(view);
    back = view_unpack(payload->data, payload->size, 1);
    ck_assert_ptr_nonnull(back);
    ck_assert_uint_eq(back->gateway_count, VIEW_GATEWAYS_MAX);
    ck_assert_uint_eq(back->shard_count, VIEW_SHARDS_MAX);
    view_unref(&back);
    payload_unref(&payload);
    view_unref(&view);
}
END_TEST

typedef Signalbox__Cluster__V1__ViewEntry EntryMessage;

static bool unpacks(const EntryMessage *entry)
{
    struct payload *payload = payload_pack(&entry->base);
    struct view *view = view_unpack(payload->data, payload->size, 17);
    bool ok = view != NULL;

    view_unref(&view);
    payload_unref(&payload);
    return ok;
}

/* Changes one thing in a good entry, sees it refused, and changes it back. */
#define ASSERT_REFUSED_WITH(field, value)                                                                              \
    do {                                                                                                               \
        __typeof__(field) good_ = field;                                                                               \
        field = value;                                                                                                 \
        ck_assert_msg(!unpacks(entry), #field " = " #value);                                                           \
        field = good_;                                                                                                 \
        ck_assert(unpacks(entry));                                                                                     \
    } while (0)

START_TEST(unpack_refuses_what_no_writer_would_write)
{
    struct view *view = make_view();
    struct payload *payload = view_pack(view);
    EntryMessage *entry = signalbox__cluster__v1__view_entry__unpack(NULL, payload->size, payload->data);
    char too_long[NODE_ID_MAX + 2];

    memset(too_long, 'z', sizeof(too_long));
    too_long[NODE_ID_MAX + 1] = '\0';
    ck_assert(unpacks(entry));
    ASSERT_REFUSED_WITH(entry->schema_version, 0);
    ASSERT_REFUSED_WITH(entry->schema_version, VIEW_SCHEMA_VERSION + 2);
    ASSERT_REFUSED_WITH(entry->generation, 0);
    ASSERT_REFUSED_WITH(entry->settled->generation, entry->generation + 1);
    ASSERT_REFUSED_WITH(entry->settled->seq, 18);
    ASSERT_REFUSED_WITH(entry->shards[1]->id, (char *)"");
    ASSERT_REFUSED_WITH(entry->shards[1]->id, (char *)"SHARD");
    ASSERT_REFUSED_WITH(entry->shards[1]->id, too_long);
    ASSERT_REFUSED_WITH(entry->shards[1]->id, entry->shards[0]->id);
    ASSERT_REFUSED_WITH(entry->shards[1]->id, (char *)"a");
    ASSERT_REFUSED_WITH(entry->gateways[1]->id, entry->gateways[0]->id);
    ASSERT_REFUSED_WITH(entry->gateways[1]->id, (char *)"a");
    ASSERT_REFUSED_WITH(entry->gateways[0]->incarnation, 0);
    ASSERT_REFUSED_WITH(entry->shards[0]->incarnation, 0);
    ASSERT_REFUSED_WITH(entry->shards[0]->region, (char *)"EU");
    ASSERT_REFUSED_WITH(entry->shards[0]->region, too_long);
    ASSERT_REFUSED_WITH(entry->shards[0]->weight, SCORE_WEIGHT_MAX + 1);
    ASSERT_REFUSED_WITH(entry->shards[0]->full_weight, SCORE_WEIGHT_MAX + 1);

    /* One byte short, whichever way it is cut, is either refused or the smaller entry that it spells. */
    for (size_t size = 0; size < payload->size; size++) {
        struct view *cut = view_unpack(payload->data, size, 17);
        view_unref(&cut);
    }
    ck_assert_ptr_null(view_unpack("", 0, 17));
    signalbox__cluster__v1__view_entry__free_unpacked(entry, NULL);
    payload_unref(&payload);
    view_unref(&view);
}
END_TEST

START_TEST(unpack_refuses_more_nodes_than_a_view_has)
{
    Signalbox__Cluster__V1__ViewNode *nodes[VIEW_GATEWAYS_MAX + 1];
    static Signalbox__Cluster__V1__ViewNode storage[VIEW_GATEWAYS_MAX + 1];
    static char ids[VIEW_GATEWAYS_MAX + 1][8];
    EntryMessage entry = SIGNALBOX__CLUSTER__V1__VIEW_ENTRY__INIT;

    entry.schema_version = VIEW_SCHEMA_VERSION;
    entry.generation = 1;
    for (int i = 0; i <= VIEW_GATEWAYS_MAX; i++) {
        nodes[i] = &storage[i];
        signalbox__cluster__v1__view_node__init(nodes[i]);
        snprintf(ids[i], sizeof(ids[i]), "%05d", i);
        nodes[i]->id = ids[i];
        nodes[i]->incarnation = 1;
    }
    entry.gateways = nodes;
    entry.n_gateways = VIEW_GATEWAYS_MAX;
    ck_assert(unpacks(&entry));
    entry.n_gateways++;
    ck_assert(!unpacks(&entry));
    entry.n_gateways = 0;
    entry.shards = nodes;
    entry.n_shards = VIEW_SHARDS_MAX;
    ck_assert(unpacks(&entry));
    entry.n_shards++;
    ck_assert(!unpacks(&entry));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("view");
    TCase *tcase = tcase_create("view");

    tcase_add_test(tcase, numbers_are_ordered_by_generation_then_seq);
    tcase_add_test(tcase, nodes_are_kept_in_order_and_replaced_by_id);
    tcase_add_test(tcase, a_process_is_found_by_address_and_by_incarnation);
    tcase_add_test(tcase, removal_is_of_one_incarnation);
    tcase_add_test(tcase, a_copy_is_independent_and_references_are_counted);
    tcase_add_test(tcase, owner_is_in_the_region_while_it_has_weight);
    tcase_add_test(tcase, full_is_when_all_that_could_own_are);
    tcase_add_test(tcase, somebody_owns_a_room_while_there_is_a_shard);
    tcase_add_test(tcase, pack_and_unpack_round_trip);
    tcase_add_test(tcase, the_empty_and_the_largest_view_round_trip);
    tcase_add_test(tcase, unpack_refuses_what_no_writer_would_write);
    tcase_add_test(tcase, unpack_refuses_more_nodes_than_a_view_has);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
