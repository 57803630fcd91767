#include "tests/sim/story.h"

#include "common/mem.h"
#include <stdlib.h>
#include <string.h>

enum { PRINTED_MS = 60 * 1000, PRINTED_LINES = 70 };

struct line {
    int64_t at_ms;
    int room;
    char text[STORY_LINE_MAX];
};

struct story {
    int room;
    bool verbose;
    struct line *lines;
    size_t count, capacity;
    bool broken;
    int64_t broken_ms;
    int broken_room;
    char invariant[48];
    char violation[320];
};

struct story *story_new(int room, bool verbose)
{
    struct story *story = mem_new(struct story);
    story->room = room;
    story->verbose = verbose;
    return story;
}

void story_free(struct story **story_ptr)
{
    struct story *story = *story_ptr;
    if (story == NULL)
        return;
    free(story->lines);
    free(story);
    *story_ptr = NULL;
}

bool story_follows(const struct story *story, int room)
{
    return story->verbose || room == STORY_CLUSTER || room == story->room;
}

void story_add(struct story *story, int64_t now_ms, int room, const char *format, va_list args)
{
    if (!story_follows(story, room))
        return;
    if (story->count == story->capacity) {
        story->capacity = story->capacity * 2 + 256;
        story->lines = mem_realloc(story->lines, story->capacity * sizeof *story->lines);
    }
    struct line *line = &story->lines[story->count++];
    line->at_ms = now_ms;
    line->room = room;
    vsnprintf(line->text, sizeof line->text, format, args);
    if (story->verbose)
        printf("%9.3f %s\n", (double)now_ms / 1000, line->text);
}

void story_break(struct story *story, int64_t now_ms, const char *invariant, int room, const char *format, va_list args)
{
    if (story->broken)
        return;
    story->broken = true;
    story->broken_ms = now_ms;
    story->broken_room = room;
    snprintf(story->invariant, sizeof story->invariant, "%s", invariant);
    vsnprintf(story->violation, sizeof story->violation, format, args);
    if (story->verbose)
        printf("%9.3f VIOLATION of \"%s\": %s\n", (double)now_ms / 1000, story->invariant, story->violation);
}

bool story_broken(const struct story *story)
{
    return story->broken;
}

const char *story_invariant(const struct story *story)
{
    return story->invariant;
}

const char *story_violation(const struct story *story)
{
    return story->violation;
}

int story_room(const struct story *story)
{
    return story->broken_room;
}

/* The index from which on lines of this kind are printed. */
static size_t first_printed(const struct story *story, bool of_cluster)
{
    size_t first = story->count, found = 0;
    while (first > 0 && found < PRINTED_LINES && story->broken_ms - story->lines[first - 1].at_ms <= PRINTED_MS)
        found += (story->lines[--first].room == STORY_CLUSTER) == of_cluster;
    return first;
}

void story_print(const struct story *story, FILE *out)
{
    size_t cluster_first = first_printed(story, true), room_first = first_printed(story, false);
    for (size_t i = 0; i < story->count; i++) {
        const struct line *line = &story->lines[i];
        bool of_cluster = line->room == STORY_CLUSTER;
        if (line->at_ms <= story->broken_ms && i >= (of_cluster ? cluster_first : room_first))
            fprintf(out, "  %9.3f %s%s\n", (double)line->at_ms / 1000, of_cluster ? "" : "    ", line->text);
    }
    fprintf(out, "  %9.3f VIOLATION of \"%s\": %s\n", (double)story->broken_ms / 1000, story->invariant,
            story->violation);
}
