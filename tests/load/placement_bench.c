/* What placement costs and how even it is: scripts/bench placement. */
#include "common/mem.h"
#include "common/view.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROOMS = 100000, SHARDS = 64, WEIGHT = 100, LOOKUP_BAR_NS = 10000 };

static const struct score_seed seed = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};
static bool all_ok = true;

static struct view *make_view(int shards)
{
    struct view *view = view_copy(NULL);
    for (int i = 0; i < shards; i++) {
        struct view_node node = {.incarnation = (uint64_t)i + 1, .weight = WEIGHT, .full_weight = WEIGHT};
        snprintf(node.id, sizeof node.id, "shard-%d", i);
        view_put_shard(view, &node);
    }
    return view;
}

/* `op` NULL: no bar. */
static void figure(FILE *json, const char *name, double value, const char *unit, const char *op, double bar)
{
    bool ok = op == NULL || (strcmp(op, "<=") == 0 ? value <= bar : value == bar);
    all_ok &= ok;
    printf("figure %s %.6g %s", name, value, unit);
    fprintf(json, "%s\n    {\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\"", ftell(json) > 40 ? "," : "", name,
            value, unit);
    if (op != NULL) {
        printf(" bar %s %.6g %s", op, bar, ok ? "ok" : "short");
        fprintf(json, ", \"bar\": {\"op\": \"%s\", \"value\": %.6g}, \"ok\": %s", op, bar, ok ? "true" : "false");
    }
    putchar('\n');
    fputc('}', json);
}

/* Of this process, so that whatever else runs on the machine does not count. */
static int64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The index of every room's owner; returns nanoseconds a look-up. */
static double look_up_all(const struct view *view, const struct room_key *keys, int *owners)
{
    int64_t begin_ns = cpu_ns();
    for (int i = 0; i < ROOMS; i++)
        owners[i] = (int)(view_owner(view, &seed, &keys[i], "")->incarnation - 1);
    return (double)(cpu_ns() - begin_ns) / ROOMS;
}

static double lookup_ns(int shards, const struct room_key *keys, int *owners)
{
    struct view *view = make_view(shards);
    double ns = look_up_all(view, keys, owners);
    view_unref(&view);
    return ns;
}

static double worst_share_percent(const int *owners, int shards)
{
    int counts[SHARDS] = {0}, most = 0;
    for (int i = 0; i < ROOMS; i++)
        counts[owners[i]]++;
    for (int i = 0; i < shards; i++)
        most = counts[i] > most ? counts[i] : most;
    return (double)most * shards * 100 / ROOMS;
}

int main(int argc, char **argv)
{
    struct room_key *keys = mem_zalloc(ROOMS * sizeof *keys);
    int *before = mem_zalloc(ROOMS * sizeof *before), *after = mem_zalloc(ROOMS * sizeof *after);
    FILE *json = argc == 2 ? fopen(argv[1], "w") : NULL;
    int moved = 0, astray = 0;
    if (json == NULL) {
        fprintf(stderr, "usage: placement-bench OUT.json\n");
        return 2;
    }
    for (int i = 0; i < ROOMS; i++) {
        char name[32];
        snprintf(name, sizeof name, "room-%d", i);
        keys[i] = room_key_make("default", name);
    }
    fprintf(json, "{\"name\": \"placement\", \"figures\": [");
    figure(json, "lookup_3_shards", lookup_ns(3, keys, after), "ns", NULL, 0);
    figure(json, "lookup_1024_shards", lookup_ns(1024, keys, after), "ns", NULL, 0);
    figure(json, "lookup_64_shards", lookup_ns(SHARDS, keys, before), "ns", "<=", LOOKUP_BAR_NS);
    figure(json, "largest_share_of_64", worst_share_percent(before, SHARDS), "percent", "<=", 110);
    lookup_ns(SHARDS + 1, keys, after);
    for (int i = 0; i < ROOMS; i++) {
        moved += after[i] != before[i];
        astray += after[i] != before[i] && after[i] != SHARDS;
    }
    figure(json, "moved_by_a_65th", (double)moved * (SHARDS + 1) * 100 / ROOMS, "percent", "<=", 110);
    figure(json, "moved_between_others", astray, "rooms", "==", 0);
    fprintf(json, "\n], \"ok\": %s}\n", all_ok ? "true" : "false");
    fclose(json);
    printf("placement: %s\n", all_ok ? "ok" : "short");
    free(keys);
    free(before);
    free(after);
    return all_ok ? 0 : 1;
}
