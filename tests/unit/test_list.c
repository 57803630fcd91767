#include "common/list.h"

#include <check.h>
#include <stdlib.h>

struct item {
    int value;
    struct list link;
};

static int digits(const struct list *anchor)
{
    int all = 0;
    list_for_each(pos, anchor)
        all = all * 10 + container_of(pos, struct item, link)->value;
    return all;
}

START_TEST(keeps_order)
{
    struct list anchor = LIST_INIT(anchor);
    struct item items[4];
    for (int i = 0; i < 4; i++) {
        items[i].value = i + 1;
        list_init(&items[i].link);
        ck_assert(!list_linked(&items[i].link));
    }
    ck_assert(list_empty(&anchor));
    list_append(&anchor, &items[1].link);
    list_append(&anchor, &items[3].link);
    list_prepend(&anchor, &items[0].link);
    list_insert_before(&items[3].link, &items[2].link);
    ck_assert_int_eq(digits(&anchor), 1234);
    ck_assert_int_eq(list_first(&anchor, struct item, link)->value, 1);
    ck_assert_int_eq(list_last(&anchor, struct item, link)->value, 4);
    list_remove(&items[1].link);
    list_remove(&items[1].link);
    ck_assert(!list_linked(&items[1].link));
    ck_assert_int_eq(digits(&anchor), 134);
}
END_TEST

START_TEST(may_remove_the_current_one)
{
    struct list anchor = LIST_INIT(anchor);
    struct item items[4];
    for (int i = 0; i < 4; i++) {
        items[i].value = i + 1;
        list_append(&anchor, &items[i].link);
    }
    list_for_each_safe(pos, &anchor)
        if (container_of(pos, struct item, link)->value % 2 == 0)
            list_remove(pos);
    ck_assert_int_eq(digits(&anchor), 13);
}
END_TEST

START_TEST(splices)
{
    struct list to = LIST_INIT(to), from = LIST_INIT(from);
    struct item items[4];
    for (int i = 0; i < 4; i++) {
        items[i].value = i + 1;
        list_append(i < 2 ? &to : &from, &items[i].link);
    }
    list_splice(&to, &from);
    ck_assert(list_empty(&from));
    ck_assert_int_eq(digits(&to), 1234);
    list_splice(&to, &from);
    ck_assert_int_eq(digits(&to), 1234);
    list_splice(&from, &to);
    ck_assert(list_empty(&to));
    ck_assert_int_eq(digits(&from), 1234);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("list");
    TCase *tcase = tcase_create("list");
    tcase_add_test(tcase, keeps_order);
    tcase_add_test(tcase, may_remove_the_current_one);
    tcase_add_test(tcase, splices);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
