/* A roster of any size as pages that all belong to one position: the packed participants are immutable and counted, so
 * pinning a roster costs a pointer for each. Those who ask for page 1 of the same position share the snapshot. */
#include "common/mem.h"
#include "shard/frames.h"
#include "shard/internal.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Enough for those who page through a large room while others keep on joining it. */
enum { SNAPSHOTS_PER_ROOM_MAX = 64, CURSOR_MAX = 48 };

struct snapshot {
    struct list link; /* room->snapshots, least recently used first */
    uint64_t id;
    uint64_t seq;
    bool with_viewers;
    bool settling; /* at that position: what ended it comes as an event */
    bool paged;    /* somebody holds a cursor into it */
    int64_t used_ms;
    size_t count;
    struct payload *participants[];
};

static void snapshot_free(struct snapshot *snapshot)
{
    list_remove(&snapshot->link);
    for (size_t i = 0; i < snapshot->count; i++)
        payload_unref(&snapshot->participants[i]);
    free(snapshot);
}

void snapshot_drop_all(struct room *room)
{
    list_for_each_safe(pos, &room->snapshots)
        snapshot_free(container_of(pos, struct snapshot, link));
    timer_cancel(room->shard->wheel, &room->snapshot_timer);
}

static void drop_old(struct room *room, int64_t now_ms, size_t most)
{
    size_t count = 0;
    list_for_each(pos, &room->snapshots)
        count++;
    while (count > 0) {
        struct snapshot *oldest = list_first(&room->snapshots, struct snapshot, link);
        if (count <= most && now_ms - oldest->used_ms < room->shard->options.limits.snapshot_ttl_ms)
            break;
        snapshot_free(oldest);
        count--;
    }
}

static void set_timer(struct room *room)
{
    if (list_empty(&room->snapshots))
        return;
    struct snapshot *oldest = list_first(&room->snapshots, struct snapshot, link);
    timer_set(room->shard->wheel, &room->snapshot_timer, oldest->used_ms + room->shard->options.limits.snapshot_ttl_ms);
}

static void on_snapshots_old(struct timer *timer, int64_t now_ms)
{
    struct room *room = container_of(timer, struct room, snapshot_timer);
    drop_old(room, now_ms, SNAPSHOTS_PER_ROOM_MAX);
    set_timer(room);
}

void snapshot_init(struct room *room)
{
    list_init(&room->snapshots);
    timer_init(&room->snapshot_timer, on_snapshots_old);
}

/* Somebody goes on to page through it. */
static void keep(struct room *room, struct snapshot *snapshot, int64_t now_ms)
{
    snapshot->paged = true;
    snapshot->used_ms = now_ms;
    list_remove(&snapshot->link);
    list_append(&room->snapshots, &snapshot->link);
    if (!timer_pending(&room->snapshot_timer))
        set_timer(room);
}

static struct snapshot *take(struct room *room, bool with_viewers, int64_t now_ms)
{
    drop_old(room, now_ms, SNAPSHOTS_PER_ROOM_MAX - 1);
    list_for_each(pos, &room->snapshots) {
        struct snapshot *snapshot = container_of(pos, struct snapshot, link);
        if (snapshot->seq == room->seq && snapshot->with_viewers == with_viewers)
            return snapshot;
    }
    struct snapshot *snapshot = mem_zalloc(sizeof *snapshot + room->total * sizeof snapshot->participants[0]);
    snapshot->id = ++room->shard->snapshot_counter;
    snapshot->seq = room->seq;
    snapshot->with_viewers = with_viewers;
    snapshot->settling = room_is_settling(room);
    list_for_each(pos, &room->members) {
        struct member *member = container_of(pos, struct member, link);
        if (member->listed || (with_viewers && member->viewer))
            snapshot->participants[snapshot->count++] = payload_ref(member->participant);
    }
    list_append(&room->snapshots, &snapshot->link);
    return snapshot;
}

static struct snapshot *find(struct room *room, const char *cursor, size_t *ret_offset)
{
    uint64_t id;
    size_t offset;
    if (sscanf(cursor, "%20" SCNu64 "-%9zu", &id, &offset) != 2)
        return NULL;
    list_for_each(pos, &room->snapshots) {
        struct snapshot *snapshot = container_of(pos, struct snapshot, link);
        if (snapshot->id == id && offset <= snapshot->count) {
            *ret_offset = offset;
            return snapshot;
        }
    }
    return NULL;
}

/* How many participants from `offset` fit a page. */
static size_t page_end(const struct room *room, const struct snapshot *snapshot, size_t offset, uint32_t page_size)
{
    size_t bytes = 0;
    size_t end = offset;
    while (end < snapshot->count && (page_size == 0 || end - offset < page_size)) {
        bytes += snapshot->participants[end]->size;
        if (end > offset && bytes > room->shard->options.limits.snapshot_page_bytes)
            break;
        end++;
    }
    return end;
}

struct payload *snapshot_page(struct room *room, const struct snapshot_request *request, uint64_t *ret_seq,
                              bool *ret_last, int64_t now_ms)
{
    size_t offset = 0;
    struct snapshot *snapshot =
        request->cursor[0] == '\0' ? take(room, request->want_viewers, now_ms) : find(room, request->cursor, &offset);
    if (snapshot == NULL)
        return NULL;
    size_t end = page_end(room, snapshot, offset, request->page_size);
    bool last = end == snapshot->count;

    char next[CURSOR_MAX] = "";
    if (!last)
        snprintf(next, sizeof next, "%" PRIu64 "-%zu", snapshot->id, end);
    Signalbox__V1__Position position = SIGNALBOX__V1__POSITION__INIT;
    Signalbox__V1__RoomInfo info;
    Signalbox__V1__Snapshot header = SIGNALBOX__V1__SNAPSHOT__INIT;
    position.epoch = room->epoch_text;
    position.seq = snapshot->seq;
    room_info(room, &info);
    header.position = &position;
    header.next_cursor = next;
    header.room = &info;
    header.settling = snapshot->settling;

    struct buf *body = &room->shard->buf;
    buf_reset(body);
    body->size +=
        signalbox__v1__snapshot__pack(&header, buf_reserve(body, signalbox__v1__snapshot__get_packed_size(&header)));
    for (size_t i = offset; i < end; i++)
        frames_append(body, FIELD_SNAPSHOT_PARTICIPANTS, snapshot->participants[i]->data,
                      snapshot->participants[i]->size);
    *ret_seq = snapshot->seq;
    *ret_last = last;
    /* A roster that fits one page needs no pinning. */
    if (!last || snapshot->paged)
        keep(room, snapshot, now_ms);
    else
        snapshot_free(snapshot);
    return frames_wrap(FIELD_SERVER_SNAPSHOT, body);
}
