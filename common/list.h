/* Intrusive, circular, doubly linked list. An embedded `struct list` is either an anchor or a link; removal is
 * idempotent, so a destructor may remove what was never inserted after list_init().
 * Model: h2o's linklist.h. */
#ifndef SBX_COMMON_LIST_H
#define SBX_COMMON_LIST_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next, *prev;
};

#define LIST_INIT(name)                                                                                                \
    {                                                                                                                  \
        &(name), &(name)                                                                                               \
    }
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static inline void list_init(struct list *list)
{
    list->next = list->prev = list;
}

static inline bool list_empty(const struct list *anchor)
{
    return anchor->next == anchor;
}

/* True while the link is on some list. */
static inline bool list_linked(const struct list *link)
{
    return link->next != link;
}

static inline void list_insert_before(struct list *pos, struct list *link)
{
    assert(pos->prev != NULL); /* an anchor that was never initialised */
    link->prev = pos->prev;
    link->next = pos;
    pos->prev->next = link;
    pos->prev = link;
}

static inline void list_append(struct list *anchor, struct list *link)
{
    list_insert_before(anchor, link);
}

static inline void list_prepend(struct list *anchor, struct list *link)
{
    list_insert_before(anchor->next, link);
}

static inline void list_remove(struct list *link)
{
    link->next->prev = link->prev;
    link->prev->next = link->next;
    list_init(link);
}

/* Moves everything from `from` to the end of `to`; `from` is empty afterwards. */
static inline void list_splice(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#define list_first(anchor, type, member) container_of((anchor)->next, type, member)
#define list_last(anchor, type, member) container_of((anchor)->prev, type, member)
#define list_for_each(pos, anchor) for (struct list *pos = (anchor)->next; pos != (anchor); pos = pos->next)
/* Survives removal of `pos` itself, and of nothing else. */
#define list_for_each_safe(pos, anchor)                                                                                \
    for (struct list *pos = (anchor)->next, *pos##_next = pos->next; pos != (anchor);                                  \
         pos = pos##_next, pos##_next = pos->next)

#endif
