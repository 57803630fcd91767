/* What a participant sent, received and saw, written down as it happened: one file per worker, which
 * tests/faults/history.py judges after the run, apart from the checks that the swarm makes while it runs. A room's
 * members belong to one worker, so each file tells its rooms' whole story.
 *
 * Format: HISTORY_HEADER_SIZE bytes of text that name the kinds in their order, padded with NUL; then records, in the
 * machine's byte order. Times are CLOCK_MONOTONIC, so that whoever injects a fault on this machine can place it.
 * Threading: the worker's loop. A full disk ends the run: half a history proves nothing. */
#ifndef SBX_LOAD_HISTORY_H
#define SBX_LOAD_HISTORY_H

#include "common/ids.h"
#include <stdint.h>

enum { HISTORY_HEADER_SIZE = 512 };

/* X(name, what it says). `seat` and `tag` are the other's, unless said otherwise; the tag is the head of a sid. */
#define HISTORY_KINDS(X)                                                                                               \
    X(SEAT, "who sits where: own seat, number = room, value = the room's size; first of all")                          \
    X(SESSION, "hello_ok of a new session: own seat and sid")                                                          \
    X(RESUMED, "hello_ok of a resume: own seat and sid, number = recovered, value = us since it was due")              \
    X(WHOLE, "joined and knows who is there: own seat and sid")                                                        \
    X(LOST, "a joined connection ended: own seat and sid, value = close code, or 0")                                   \
    X(ENDED, "the session is over: own seat and sid, number = left of its own will")                                   \
    X(OWNER, "the room's epoch changed: tag = the owner's incarnation, number = the view's seq")                       \
    X(SENT, "directed message: number = its number, value = us since it was due")                                      \
    X(DELIVERED, "directed message: number = what its text says, value = us since it was due")                         \
    X(GARBLED, "directed message whose text was changed")                                                              \
    X(UNDELIVERABLE, "the server says that the receiver has gone")                                                     \
    X(SAW_JOIN, "somebody is in the room now")                                                                         \
    X(SAW_LEAVE, "somebody is no longer")                                                                              \
    X(MUTED, "told its mute state: own seat and sid, number = muted")                                                  \
    X(ANSWERED, "the result of a request: own seat and sid, number = code")                                            \
    X(SAW_MUTE, "another's changed: number = muted")                                                                   \
    X(CHECKED, "a checkpoint: own seat and sid, number = joined, value = muted; the LISTED follow at once")            \
    X(LISTED, "an entry of the roster at the checkpoint: number = muted")

enum history_kind {
#define X(name, what) HISTORY_##name,
    HISTORY_KINDS(X)
#undef X
        HISTORY_KIND_COUNT
};

struct history_record {
    int64_t at_us;
    uint64_t tag;
    uint32_t who; /* number within the worker */
    uint32_t number;
    uint32_t value;
    uint8_t kind; /* enum history_kind */
    uint8_t seat;
    uint16_t reserved;
};

struct participant;
struct history;

/* NULL, after saying why on standard error. */
struct history *history_open(const char *path);
/* False if not everything reached the file; NULL-safe. */
bool history_close(struct history **history);

uint64_t history_tag(const struct sid *sid);
/* All do nothing where no history is kept. */
void history_add(const struct participant *participant, enum history_kind kind, unsigned seat, uint64_t tag,
                 uint32_t number, int64_t value);
/* About the participant itself. */
void history_add_own(const struct participant *participant, enum history_kind kind, uint32_t number, int64_t value);
void history_add_checkpoint(const struct participant *participant);

#endif
