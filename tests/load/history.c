#include "tests/load/history.h"
#include "common/clock.h"
#include "common/mem.h"
#include "tests/load/participant.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char HEADER[] = "signalbox history 1\n"
#define X(name, what) #name " "
    HISTORY_KINDS(X)
#undef X
    ;
_Static_assert(sizeof HEADER <= HISTORY_HEADER_SIZE, "the header must hold the names of all kinds");
_Static_assert(sizeof(struct history_record) == 32, "readers count on the size");

struct history {
    FILE *file;
};

struct history *history_open(const char *path)
{
    char header[HISTORY_HEADER_SIZE] = {0};
    FILE *file = fopen(path, "wbe");
    if (file == NULL) {
        perror(path);
        return NULL;
    }
    memcpy(header, HEADER, sizeof HEADER);
    fwrite(header, sizeof header, 1, file);
    struct history *history = mem_alloc(sizeof *history);
    history->file = file;
    return history;
}

bool history_close(struct history **history)
{
    if (*history == NULL)
        return true;
    bool good = !ferror((*history)->file);
    good = fclose((*history)->file) == 0 && good;
    if (!good)
        fputs("signalbox-swarm: the history could not be written\n", stderr);
    free(*history);
    *history = NULL;
    return good;
}

uint64_t history_tag(const struct sid *sid)
{
    uint64_t tag;
    memcpy(&tag, sid->bytes, sizeof tag);
    return tag;
}

void history_add(const struct participant *participant, enum history_kind kind, unsigned seat, uint64_t tag,
                 uint32_t number, int64_t value)
{
    struct history *history = participant->worker->history;
    if (history == NULL)
        return;
    if (value < 0)
        value = 0;
    struct history_record record = {.at_us = clock_mono_us(),
                                    .tag = tag,
                                    .who = participant->number,
                                    .number = number,
                                    .value = value < UINT32_MAX ? (uint32_t)value : UINT32_MAX,
                                    .kind = (uint8_t)kind,
                                    .seat = (uint8_t)seat};
    fwrite(&record, sizeof record, 1, history->file);
}

void history_add_own(const struct participant *participant, enum history_kind kind, uint32_t number, int64_t value)
{
    history_add(participant, kind, participant->seat, history_tag(&participant->sid), number, value);
}

void history_add_checkpoint(const struct participant *participant)
{
    history_add_own(participant, HISTORY_CHECKED, participant->state == PARTICIPANT_JOINED, participant->muted);
    for (unsigned seat = 0; seat < participant->room->size; seat++) {
        const struct link *link = &participant->links[seat];
        if (link->present)
            history_add(participant, HISTORY_LISTED, seat, history_tag(&link->sid), link->muted, 0);
    }
}
