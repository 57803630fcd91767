/* A shard's weight: it rises to the configured one in steps when the shard joins, falls to nothing in steps when it
 * drains, and gives way to load by a step at a time. Each step is an entry of the log that moves a small share of the
 * rooms; the next comes after the last has settled. */
#include "common/log.h"
#include "common/membership_private.h"
#include <string.h>

static uint32_t weight_of(const struct membership *m, uint32_t level)
{
    uint64_t weight = (uint64_t)m->node.full_weight * level / m->times.pace.steps;
    return level > 0 && weight == 0 ? 1 : (uint32_t)weight;
}

static uint32_t level_of(const struct membership *m, uint32_t weight)
{
    uint32_t level = 0;
    while (level < m->times.pace.steps && weight_of(m, level) < weight)
        level++;
    return level;
}

static bool is_other(const struct membership *m, const struct view_node *shard)
{
    return shard->incarnation != m->self.incarnation;
}

static bool is_alone(const struct membership *m, const struct view *view)
{
    for (size_t i = 0; i < view->shard_count; i++)
        if (is_other(m, &view->shards[i]) && view->shards[i].weight > 0)
            return false;
    return true;
}

/* More weight would bring this shard no room that another one holds. */
static bool takes_nothing(const struct membership *m, const struct view *view)
{
    return is_alone(m, view) || detector_is_idle(m->detector);
}

uint32_t weight_to_join(const struct membership *m, const struct view *view)
{
    return weight_of(m, takes_nothing(m, view) ? m->level : 1);
}

bool weight_wants(const struct membership *m, struct view_node *ret_node, int64_t now_ms)
{
    const struct view_node *listed = membership_find_self(m, m->view);
    if (listed == NULL)
        return false;
    *ret_node = *listed;
    ret_node->draining = m->draining;
    ret_node->full = m->full;
    uint32_t target = m->draining ? 0 : m->level, level = level_of(m, listed->weight);
    uint32_t pace_ms = m->draining ? m->drain_step_ms : m->times.pace.step_ms;
    bool at_once = target > level ? takes_nothing(m, m->view) : m->empty;
    if (level != target && (at_once || now_ms - m->stepped_ms >= pace_ms))
        ret_node->weight = weight_of(m, at_once ? target : target > level ? level + 1 : level - 1);
    return ret_node->weight != listed->weight || ret_node->draining != listed->draining ||
           ret_node->full != listed->full;
}

void weight_view(struct membership *m, const struct view *old, int64_t now_ms)
{
    const struct view_node *before = membership_find_self(m, old), *listed = membership_find_self(m, m->view);
    if (!membership_is_shard(m) || listed == NULL || (before != NULL && before->weight == listed->weight))
        return;
    m->stepped_ms = now_ms;
    log_info("weight", log_uint("weight", listed->weight), log_uint("full_weight", listed->full_weight),
             log_str("reason", m->draining                                        ? "drain"
                               : before != NULL && m->level < m->times.pace.steps ? "load"
                                                                                  : "join"));
}

void membership_set_load(struct membership *m, const struct membership_load *load, int64_t now_ms)
{
    const struct view_node *listed = membership_find_self(m, m->view);
    m->full = load->full;
    m->empty = load->empty;
    if (listed == NULL || now_ms - m->relieved_ms < m->times.pace.relief_ms)
        return;
    uint32_t level = level_of(m, listed->weight);
    if (load->pressure == PRESSURE_HIGH && level > 1 && !is_alone(m, m->view))
        m->level = level - 1;
    else if (load->pressure == PRESSURE_LOW && m->level < m->times.pace.steps)
        m->level++;
    else
        return;
    m->relieved_ms = now_ms;
}

void membership_drain(struct membership *m, uint32_t within_ms, int64_t now_ms)
{
    uint32_t pace_ms = within_ms / (2 * m->times.pace.steps);
    m->draining = true;
    m->drain_step_ms = pace_ms < m->times.pace.step_ms ? pace_ms : m->times.pace.step_ms;
    membership_step(m, now_ms);
}

enum drain_progress membership_drain_progress(const struct membership *m)
{
    const struct view_node *listed = membership_find_self(m, m->view);
    bool heir = false;
    if (listed == NULL || m->state != MEMBERSHIP_ACTIVE)
        return DRAIN_NO_HEIR;
    for (size_t i = 0; i < m->view->shard_count; i++)
        heir = heir || (is_other(m, &m->view->shards[i]) && !m->view->shards[i].draining);
    if (!heir)
        return DRAIN_NO_HEIR;
    return listed->weight == 0 && propose_is_settled(m) ? DRAIN_DONE : DRAIN_MOVING;
}
