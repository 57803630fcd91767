/* Subcommands that compute placement: where, explain. */
#include "common/ids.h"
#include "common/mem.h"
#include "ctl/look.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum ctl_exit print_owner(const struct look_options *look, struct ask *ask, const struct view *view)
{
    struct room_key key = room_key_make(look->project, look->argument);
    char region[REGION_MAX + 1];
    room_region(look->argument, region);
    const struct view_node *owner = view_owner(view, &look->placement_seed, &key, region);
    if (owner == NULL)
        return ctl_failed("the view has no shards");
    printf("%s\n", owner->id);
    return CTL_OK;
}

enum ctl_exit ctl_where(const struct ctl_command *command, int argc, char **argv)
{
    return look_run(command, argc, argv, LOOK_PLACEMENT, print_owner);
}

/* --- explain -------------------------------------------------------------------------------------------------------
 */

enum { REASON_MAX = 512 };

struct explanation {
    const char *project, *room;
    char region[REGION_MAX + 1];
    struct room_key key;
    struct score_seed seed;
    const struct view *view, *before; /* `before` is NULL where the log has no earlier entry */
    const struct view_node *owner, *owner_before;
};

struct scored {
    const struct view_node *shard;
    uint32_t weight; /* with which it competes; 0: it does not */
    uint64_t score;
};

static struct scored score_of(const struct explanation *why, const struct view *view, const struct view_node *shard)
{
    struct view_candidates candidates = view_candidates(view, why->region);
    struct scored scored = {.shard = shard, .weight = view_candidate_weight(&candidates, shard)};
    if (scored.weight > 0)
        scored.score = score_compute(&why->seed, shard->id, scored.weight, &why->key);
    return scored;
}

static int by_score(const void *a, const void *b)
{
    const struct scored *left = a, *right = b;
    if (left->score != right->score)
        return left->score > right->score ? -1 : 1;
    return strcmp(left->shard->id, right->shard->id);
}

static struct scored *score_all(const struct explanation *why)
{
    struct scored *scored = mem_zalloc((why->view->shard_count + 1) * sizeof *scored);
    for (size_t i = 0; i < why->view->shard_count; i++)
        scored[i] = score_of(why, why->view, &why->view->shards[i]);
    qsort(scored, why->view->shard_count, sizeof *scored, by_score);
    return scored;
}

__attribute__((format(printf, 2, 3))) static void add_reason(char *text, const char *format, ...)
{
    size_t used = strlen(text);
    va_list args;
    if (used > 0 && used + 2 < REASON_MAX)
        used += (size_t)snprintf(text + used, REASON_MAX - used, "; ");
    va_start(args, format);
    if (used < REASON_MAX)
        vsnprintf(text + used, REASON_MAX - used, format, args);
    va_end(args);
}

static void add_change(char *text, const struct view_node *before, const struct view_node *now)
{
    if (now == NULL || now->incarnation != before->incarnation)
        add_reason(text, "%s left the view", before->id);
    else if (now->weight != before->weight)
        add_reason(text, "the weight of %s went from %u to %u%s", now->id, before->weight, now->weight,
                   now->draining ? " (it drains)" : "");
}

/* Which shards compete, and what of the last entry could have moved rooms. */
static void fill_reason(const struct explanation *why, char *text)
{
    struct view_candidates candidates = view_candidates(why->view, why->region);
    text[0] = '\0';
    if (why->region[0] != '\0' && candidates.region[0] == '\0')
        add_reason(text, "no shard of region %s has weight, so all compete", why->region);
    else if (why->region[0] != '\0')
        add_reason(text, "only shards of region %s compete", why->region);
    if (candidates.full_weights)
        add_reason(text, "every shard drains, so full weights count");
    if (why->before == NULL)
        return;
    for (size_t i = 0; i < why->before->shard_count; i++)
        add_change(text, &why->before->shards[i], view_find_shard(why->view, why->before->shards[i].id));
    for (size_t i = 0; i < why->view->shard_count; i++) {
        const struct view_node *now = &why->view->shards[i], *old = view_find_shard(why->before, now->id);
        if (old == NULL || old->incarnation != now->incarnation)
            add_reason(text, "%s joined with weight %u", now->id, now->weight);
    }
    if (why->owner_before != NULL && strcmp(why->owner->id, why->owner_before->id) != 0)
        add_reason(text, "so the room moved from %s to %s", why->owner_before->id, why->owner->id);
    else
        add_reason(text, "the last entry left this room where it was");
}

static void print_explanation(const struct explanation *why, const struct scored *scored)
{
    char reason[REASON_MAX];
    fill_reason(why, reason);
    printf("room     %s\nproject  %s\n", why->room, why->project);
    printf("view     %" PRIu64 ":%" PRIu64 ", settled up to %" PRIu64 ":%" PRIu64 "\n", why->view->number.generation,
           why->view->number.seq, why->view->settled.generation, why->view->settled.seq);
    printf("owner    %s\n", why->owner->id);
    if (why->before != NULL)
        printf("before   %s (view %" PRIu64 ":%" PRIu64 ")\n",
               why->owner_before != NULL ? why->owner_before->id : "none", why->before->number.generation,
               why->before->number.seq);
    printf("why      %s\n\n", reason[0] != '\0' ? reason : "the highest score");
    printf("%-20s %-10s %6s %6s %14s %14s  %s\n", "SHARD", "REGION", "WEIGHT", "OF", "SCORE", "BEFORE", "");
    for (size_t i = 0; i < why->view->shard_count; i++) {
        const struct view_node *shard = scored[i].shard;
        const struct view_node *old = why->before != NULL ? view_find_shard(why->before, shard->id) : NULL;
        printf("%-20s %-10s %6u %6u ", shard->id, shard->region[0] ? shard->region : "-", shard->weight,
               shard->full_weight);
        if (scored[i].weight > 0)
            printf("%14.3f ", (double)scored[i].score / 65536);
        else
            printf("%14s ", "-");
        if (old != NULL)
            printf("%14.3f", (double)score_of(why, why->before, old).score / 65536);
        else
            printf("%14s", "-");
        printf("  %s%s%s\n", shard == why->owner ? "owner" : "", shard->draining ? " draining" : "",
               shard->full ? " full" : "");
    }
}

static void print_explanation_json(const struct explanation *why, const struct scored *scored)
{
    char reason[REASON_MAX];
    json_t *shards = json_array();
    fill_reason(why, reason);
    for (size_t i = 0; i < why->view->shard_count; i++) {
        const struct view_node *shard = scored[i].shard;
        json_array_append_new(shards, json_pack("{s:s, s:s, s:i, s:i, s:i, s:f, s:b, s:b}", "id", shard->id, "region",
                                                shard->region, "weight", (int)shard->weight, "fullWeight",
                                                (int)shard->full_weight, "competesWith", (int)scored[i].weight, "score",
                                                (double)scored[i].score / 65536, "draining", shard->draining, "full",
                                                shard->full));
    }
    look_print_json(json_pack(
        "{s:s, s:s, s:I, s:I, s:s, s:s?, s:s, s:o}", "room", why->room, "project", why->project, "generation",
        (json_int_t)why->view->number.generation, "seq", (json_int_t)why->view->number.seq, "owner", why->owner->id,
        "ownerBefore", why->owner_before != NULL ? why->owner_before->id : NULL, "why", reason, "shards", shards));
}

static enum ctl_exit explain(struct explanation *why, bool json)
{
    room_region(why->room, why->region);
    why->owner = view_owner(why->view, &why->seed, &why->key, why->region);
    if (why->before != NULL)
        why->owner_before = view_owner(why->before, &why->seed, &why->key, why->region);
    if (why->owner == NULL)
        return ctl_failed("the view has no shards");
    struct scored *scored = score_all(why);
    if (json)
        print_explanation_json(why, scored);
    else
        print_explanation(why, scored);
    free(scored);
    return CTL_OK;
}

static enum ctl_exit explain_owner(const struct look_options *look, struct ask *ask, const struct view *view)
{
    struct view *before = ask_view_before(ask, view);
    struct explanation why = {.project = look->project,
                              .room = look->argument,
                              .key = room_key_make(look->project, look->argument),
                              .seed = look->placement_seed,
                              .view = view,
                              .before = before};
    enum ctl_exit code = explain(&why, look->json);
    view_unref(&before);
    return code;
}

enum ctl_exit ctl_explain(const struct ctl_command *command, int argc, char **argv)
{
    return look_run(command, argc, argv, LOOK_PLACEMENT, explain_owner);
}
