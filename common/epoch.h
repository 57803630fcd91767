/* Epochs: which owner's word on a room counts.
 *
 * Ordered by (view, counter, incarnation): grows each time a room is created, installed or rebuilt, and fences every
 * earlier owner. Clients see an epoch as opaque text.
 * Pure functions; any thread.
 */
#ifndef SBX_COMMON_EPOCH_H
#define SBX_COMMON_EPOCH_H

#include "common/view.h"
#include "proto/cluster.pb-c.h"
#include <stdbool.h>
#include <stdint.h>

enum { EPOCH_TEXT_MAX = 80 };

struct epoch {
    struct view_number view; /* in which the owner took the room */
    uint64_t counter;        /* per process */
    uint64_t incarnation;    /* of the owner */
};

int epoch_compare(const struct epoch *a, const struct epoch *b);
bool epoch_equal(const struct epoch *a, const struct epoch *b);
/* "<generation>.<seq>.<counter>.<incarnation>" with lower-case hex digits in the last. */
void epoch_format(const struct epoch *epoch, char text[EPOCH_TEXT_MAX + 1]);
/* False for anything that epoch_format() does not write. */
bool epoch_parse(const char *text, struct epoch *ret_epoch);

/* Zero for NULL. */
struct epoch epoch_from_proto(const Signalbox__Cluster__V1__Epoch *proto);
Signalbox__Cluster__V1__Epoch epoch_to_proto(const struct epoch *epoch);

#endif
