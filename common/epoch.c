#include "common/epoch.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int compare_u64(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

int epoch_compare(const struct epoch *a, const struct epoch *b)
{
    int order = view_number_compare(a->view, b->view);
    if (order == 0)
        order = compare_u64(a->counter, b->counter);
    return order != 0 ? order : compare_u64(a->incarnation, b->incarnation);
}

bool epoch_equal(const struct epoch *a, const struct epoch *b)
{
    return epoch_compare(a, b) == 0;
}

void epoch_format(const struct epoch *epoch, char text[EPOCH_TEXT_MAX + 1])
{
    snprintf(text, EPOCH_TEXT_MAX + 1, "%" PRIu64 ".%" PRIu64 ".%" PRIu64 ".%" PRIx64, epoch->view.generation,
             epoch->view.seq, epoch->counter, epoch->incarnation);
}

bool epoch_parse(const char *text, struct epoch *ret_epoch)
{
    struct epoch epoch;
    char canonical[EPOCH_TEXT_MAX + 1];
    if (sscanf(text, "%20" SCNu64 ".%20" SCNu64 ".%20" SCNu64 ".%16" SCNx64, &epoch.view.generation, &epoch.view.seq,
               &epoch.counter, &epoch.incarnation) != 4)
        return false;
    epoch_format(&epoch, canonical);
    if (strcmp(text, canonical) != 0)
        return false;
    *ret_epoch = epoch;
    return true;
}

struct epoch epoch_from_proto(const Signalbox__Cluster__V1__Epoch *proto)
{
    if (proto == NULL)
        return (struct epoch){0};
    return (struct epoch){.view = {proto->view_generation, proto->view_seq},
                          .counter = proto->counter,
                          .incarnation = proto->incarnation};
}

Signalbox__Cluster__V1__Epoch epoch_to_proto(const struct epoch *epoch)
{
    Signalbox__Cluster__V1__Epoch proto = SIGNALBOX__CLUSTER__V1__EPOCH__INIT;
    proto.view_generation = epoch->view.generation;
    proto.view_seq = epoch->view.seq;
    proto.counter = epoch->counter;
    proto.incarnation = epoch->incarnation;
    return proto;
}
