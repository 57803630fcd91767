/* Subcommand drain: asks a shard or gateway to go, and shows how it does until it is gone. */
#include "common/clock.h"
#include "ctl/look.h"
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

typedef Signalbox__Cluster__V1__AdminReply Reply;
typedef Signalbox__Cluster__V1__AdminRequest Request;

enum { POLL_MS = 500, PATIENCE_MS = 3600 * 1000 };

static const struct view_node *find_node(const struct view *view, const struct node_address *node)
{
    const struct view_node *found = view_find(view, node->kind, node->id);
    return found != NULL && (node->incarnation == 0 || found->incarnation == node->incarnation) ? found : NULL;
}

/* Where a shard and a gateway have one name, there is no telling which is meant. */
static enum ctl_exit name_node(const struct view *view, const char *id, struct node_address *ret_node)
{
    const struct view_node *shard = view_find_shard(view, id), *gateway = view_find_gateway(view, id);
    if (shard == NULL && gateway == NULL) {
        ctl_failed("the view has neither a shard nor a gateway '%s'; signalboxctl view lists them", id);
        return CTL_NOT_FOUND;
    }
    if (shard != NULL && gateway != NULL)
        return ctl_failed("both a shard and a gateway are called '%s': send SIGTERM to the one that is meant", id);
    *ret_node = shard != NULL ? view_node_address(NODE_SHARD, shard) : view_node_address(NODE_GATEWAY, gateway);
    return CTL_OK;
}

static enum ctl_exit request_drain(struct ask *ask, const struct node_address *node, uint32_t deadline_ms)
{
    Request request = SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__INIT;
    Signalbox__Cluster__V1__Drain drain = SIGNALBOX__CLUSTER__V1__DRAIN__INIT;
    Reply *reply = NULL;
    drain.deadline_ms = deadline_ms;
    request.request_case = SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__REQUEST_DRAIN;
    request.drain = &drain;
    if (ask_all(ask, node, 1, &request, &reply) == 0)
        return ctl_failed("%s did not answer within %d ms", node->id, ASK_TIMEOUT_MS);
    enum ctl_exit code = reply->code == SIGNALBOX__V1__CODE__OK ? CTL_OK : ctl_failed("%s", reply->message);
    signalbox__cluster__v1__admin_reply__free_unpacked(reply, NULL);
    return code;
}

/* One line of how far it is; nothing where it does not answer, which is what happens at the end. */
static void show_progress(struct ask *ask, const struct node_address *node, const struct view_node *listed)
{
    Request request = SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__INIT;
    Signalbox__Cluster__V1__GetNode get = SIGNALBOX__CLUSTER__V1__GET_NODE__INIT;
    Reply *reply = NULL;
    request.request_case = SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__REQUEST_GET_NODE;
    request.get_node = &get;
    if (ask_all(ask, node, 1, &request, &reply) == 0)
        return;
    if (reply->node != NULL && reply->node->load != NULL && reply->node->incarnation == node->incarnation) {
        if (node->kind == NODE_SHARD)
            printf("%s: weight %u of %u, %u rooms, %u participants\n", node->id, listed->weight, listed->full_weight,
                   reply->node->load->rooms, reply->node->load->participants);
        else
            printf("%s: %u connections\n", node->id, reply->node->load->connections);
        fflush(stdout);
    }
    signalbox__cluster__v1__admin_reply__free_unpacked(reply, NULL);
}

static enum ctl_exit watch(struct ask *ask, const struct node_address *node)
{
    const struct timespec pause = {.tv_nsec = POLL_MS * 1000000L};
    int64_t end_ms = clock_mono_ms() + PATIENCE_MS;
    while (clock_mono_ms() < end_ms) {
        struct view *view = ask_view(ask);
        if (view == NULL)
            return CTL_FAILED;
        const struct view_node *listed = find_node(view, node);
        if (listed != NULL)
            show_progress(ask, node, listed);
        bool gone = listed == NULL;
        view_unref(&view);
        if (gone) {
            printf("%s has left the view\n", node->id);
            return CTL_OK;
        }
        nanosleep(&pause, NULL);
    }
    return ctl_failed("%s is still in the view", node->id);
}

static enum ctl_exit drain_node(const struct look_options *look, struct ask *ask, const struct view *view)
{
    struct node_address node = {0};
    enum ctl_exit code = name_node(view, look->argument, &node);
    if (code == CTL_OK)
        code = request_drain(ask, &node, look->deadline_ms);
    if (code == CTL_OK)
        code = watch(ask, &node);
    return code;
}

enum ctl_exit ctl_drain(const struct ctl_command *command, int argc, char **argv)
{
    return look_run(command, argc, argv, LOOK_NODE, drain_node);
}
