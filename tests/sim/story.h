/* What happened in one seed, for whoever has to understand why it failed: what befell the cluster and what the cluster
 * did about it, and, once it is known which room is concerned, every step of that room.
 *
 * Ownership: story_free() frees everything. Threading: one thread.
 */
#ifndef SBX_TESTS_SIM_STORY_H
#define SBX_TESTS_SIM_STORY_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct story;

enum { STORY_CLUSTER = -1, STORY_LINE_MAX = 200 };

/* `room`: whose steps are to be told as well; STORY_CLUSTER: none's. Verbose: everything is printed as it happens. */
struct story *story_new(int room, bool verbose);
void story_free(struct story **story);
/* Whether steps of this room are wanted: formatting those that are not costs more than the simulation. */
bool story_follows(const struct story *story, int room);
void story_add(struct story *story, int64_t now_ms, int room, const char *format, va_list args);
/* What does not hold; the first one counts. */
void story_break(struct story *story, int64_t now_ms, const char *invariant, int room, const char *format,
                 va_list args);
bool story_broken(const struct story *story);
/* Valid once it is broken. */
const char *story_invariant(const struct story *story);
const char *story_violation(const struct story *story);
int story_room(const struct story *story);
/* The steps that matter: the last minute before it broke, and at most so many lines of each kind. */
void story_print(const struct story *story, FILE *out);

#endif
