#include "membership_fixture.h"

#include <stdio.h>

struct membership_fixture f;

static void on_read_last(void *ctx)
{
    f.reads++;
}

static void on_read(void *ctx, uint64_t seq)
{
    f.entry_reads++;
    f.entry_seq = seq;
}

static void on_append(void *ctx, const struct view *entry, uint64_t expected_last_seq)
{
    f.appends++;
    f.expected_seq = expected_last_seq;
    view_unref(&f.proposed);
    f.proposed = view_copy(entry);
}

static void on_announce(void *ctx, const struct view *view)
{
    f.announcements++;
}

static void on_heartbeat(void *ctx)
{
    f.heartbeats++;
}

static void on_probe(void *ctx, const struct node_address *node)
{
    f.probes++;
}

static void on_ask(void *ctx, const struct node_address *whom, struct view_number after)
{
    f.questions++;
    ck_assert_uint_eq(after.seq, membership_view(f.membership)->number.seq);
}

static void on_view(void *ctx, struct view *old, struct view *view, int64_t at_ms)
{
    f.seen[f.seen_count++] = view->number.seq;
}

static void on_state(void *ctx, enum membership_state state, int64_t at_ms)
{
}

static int64_t on_wall_s(void *ctx)
{
    return WALL_S;
}

/* As a shard without rooms does. */
static void on_progress(void *ctx, int64_t at_ms)
{
    membership_set_marker(f.membership, membership_reported(f.membership), at_ms);
}

void begin(enum node_kind kind)
{
    static const struct membership_actions actions = {.read_last = on_read_last,
                                                      .read = on_read,
                                                      .append = on_append,
                                                      .announce = on_announce,
                                                      .heartbeat = on_heartbeat,
                                                      .probe = on_probe,
                                                      .ask = on_ask,
                                                      .view = on_view,
                                                      .state = on_state,
                                                      .wall_s = on_wall_s,
                                                      .progress = on_progress};
    struct node_address self = {.kind = kind, .id = "self", .incarnation = SELF};
    f.membership = membership_new(&self, "eu", 70, &membership_default_times, &f.wheel, &actions, NULL);
}

void setup(void)
{
    f = (struct membership_fixture){.now_ms = 1000};
    timer_wheel_init(&f.wheel, f.now_ms);
}

void teardown(void)
{
    membership_free(&f.membership);
    view_unref(&f.proposed);
}

void pass(int64_t ms)
{
    for (int64_t end_ms = f.now_ms + ms; f.now_ms < end_ms;) {
        f.now_ms += 10;
        timer_wheel_advance(&f.wheel, f.now_ms);
    }
}

struct view *make_view(uint64_t generation, uint64_t seq, const char *shards)
{
    struct view *view = view_copy(NULL);
    view->number = (struct view_number){generation, seq};
    for (const char *c = shards; *c != '\0'; c++) {
        struct view_node node = {.incarnation = (uint64_t)*c, .weight = 100, .full_weight = 100};
        snprintf(node.id, sizeof node.id, "%c", *c);
        view_put_shard(view, &node);
    }
    return view;
}

void put_self(struct view *view, enum node_kind kind, uint64_t incarnation)
{
    struct view_node node = {.id = "self", .incarnation = incarnation, .weight = 1, .full_weight = 1};
    if (kind == NODE_SHARD)
        view_put_shard(view, &node);
    else
        view_put_gateway(view, &node);
}

void read_done(struct view *take_view)
{
    membership_read_done(f.membership, VIEWLOG_OK, take_view, f.now_ms);
    view_unref(&take_view);
}

void learn(struct view *take_view)
{
    membership_learn(f.membership, take_view, f.now_ms);
    view_unref(&take_view);
}

void hear(const char *id, uint64_t generation, uint64_t seq)
{
    Signalbox__Cluster__V1__Heartbeat beat = SIGNALBOX__CLUSTER__V1__HEARTBEAT__INIT;
    Signalbox__Cluster__V1__ViewNumber number = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    Signalbox__Cluster__V1__Load load = SIGNALBOX__CLUSTER__V1__LOAD__INIT;
    number.generation = generation;
    number.seq = seq;
    load.rooms = f.rooms_of_others;
    beat.load = &load;
    beat.node = (char *)id;
    beat.incarnation = (uint64_t)id[0];
    beat.kind = SIGNALBOX__CLUSTER__V1__NODE_KIND__SHARD;
    beat.view = beat.settled = &number;
    membership_heartbeat(f.membership, &beat, f.now_ms);
}

void assert_state(enum membership_state state)
{
    ck_assert_str_eq(membership_state_name(membership_state(f.membership)), membership_state_name(state));
}

void pass_heard(int64_t ms, bool settled)
{
    for (int64_t end_ms = f.now_ms + ms; f.now_ms < end_ms;) {
        struct view_number number = membership_view(f.membership)->number;
        hear("a", number.generation, number.seq);
        hear("b", number.generation, settled ? number.seq : number.seq - 1);
        pass(50);
        if (f.reads > f.reads_answered) {
            membership_read_done(f.membership, VIEWLOG_FAILED, NULL, f.now_ms);
            f.reads_answered = f.reads;
        }
    }
}

void begin_alone(void)
{
    begin(NODE_SHARD);
    membership_start(f.membership, f.now_ms);
    membership_read_done(f.membership, VIEWLOG_EMPTY, NULL, f.now_ms);
    pass(membership_default_times.listen_ms);
    ck_assert_uint_eq(f.reads, 1);
    ck_assert_uint_eq(f.appends, 1);
}

void join(enum node_kind kind)
{
    begin(kind);
    membership_start(f.membership, f.now_ms);
    read_done(make_view(9, 20, "ab"));
    hear("a", 9, 20);
    hear("b", 9, 20);
    pass(membership_default_times.listen_ms);
    ck_assert_uint_eq(f.appends, 1);
    membership_append_done(f.membership, VIEWLOG_OK, 21, f.now_ms);
    assert_state(MEMBERSHIP_ACTIVE);
}

void mark_self(void)
{
    membership_set_marker(f.membership, membership_view(f.membership)->number, f.now_ms);
}
