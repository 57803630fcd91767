/* Subcommands that show what a running cluster holds: view, room. */
#include "common/epoch.h"
#include "common/mem.h"
#include "ctl/look.h"
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef Signalbox__Cluster__V1__AdminReply Reply;
typedef Signalbox__Cluster__V1__AdminRequest Request;
typedef Signalbox__Cluster__V1__RoomDetail RoomDetail;

/* --- view ----------------------------------------------------------------------------------------------------------
 */

/* Every process of the view, shards first. */
static struct node_address *list_nodes(const struct view *view, size_t *ret_count)
{
    size_t count = view_node_count(view);
    struct node_address *nodes = mem_zalloc((count + 1) * sizeof *nodes);

    for (size_t i = 0; i < count; i++)
        nodes[i] = view_node_at(view, i);
    *ret_count = count;
    return nodes;
}

static const struct view_node *node_at(const struct view *view, size_t i)
{
    return i < view->shard_count ? &view->shards[i] : &view->gateways[i - view->shard_count];
}

static void free_replies(Reply **replies, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (replies[i] != NULL)
            signalbox__cluster__v1__admin_reply__free_unpacked(replies[i], NULL);
    free(replies);
}

/* What a process says of itself, or NULL: silent, or another incarnation than the view's. */
static const Signalbox__Cluster__V1__NodeInfo *info_of(const Reply *reply, const struct view_node *node)
{
    bool same = reply != NULL && reply->node != NULL && reply->node->load != NULL &&
                reply->node->incarnation == node->incarnation;
    return same ? reply->node : NULL;
}

static void print_view(const struct view *view, Reply *const *replies)
{
    printf("view %" PRIu64 ":%" PRIu64 "\n\n", view->number.generation, view->number.seq);
    printf("%-20s %-16s %-10s %6s %-9s %8s %12s %8s\n", "SHARD", "INCARNATION", "REGION", "WEIGHT", "STATE", "ROOMS",
           "PARTICIPANTS", "QUEUE");
    for (size_t i = 0; i < view->shard_count; i++) {
        const struct view_node *node = &view->shards[i];
        const Signalbox__Cluster__V1__NodeInfo *info = info_of(replies[i], node);
        printf("%-20s %016" PRIx64 " %-10s %6u ", node->id, node->incarnation, node->region[0] ? node->region : "-",
               node->weight);
        if (info != NULL)
            printf("%-9s %8u %12u %8u\n", info->state, info->load->rooms, info->load->participants,
                   info->load->queue_depth);
        else
            printf("no answer within %d ms\n", ASK_TIMEOUT_MS);
    }
    printf("\n%-20s %-16s %-10s %6s %-9s %8s %12s %8s\n", "GATEWAY", "INCARNATION", "", "", "STATE", "", "CONNECTIONS",
           "QUEUE");
    for (size_t i = 0; i < view->gateway_count; i++) {
        const struct view_node *node = &view->gateways[i];
        const Signalbox__Cluster__V1__NodeInfo *info = info_of(replies[view->shard_count + i], node);
        printf("%-20s %016" PRIx64 " %-10s %6s ", node->id, node->incarnation, "", "");
        if (info != NULL)
            printf("%-9s %8s %12u %8u\n", info->state, "", info->load->connections, info->load->queue_depth);
        else
            printf("no answer within %d ms\n", ASK_TIMEOUT_MS);
    }
}

static json_t *node_json(const struct view_node *node, bool shard, const Signalbox__Cluster__V1__NodeInfo *info)
{
    char incarnation[17];

    snprintf(incarnation, sizeof incarnation, "%016" PRIx64, node->incarnation);
    json_t *object = json_pack("{s:s, s:s, s:s}", "id", node->id, "incarnation", incarnation, "state",
                               info != NULL ? info->state : "silent");
    if (shard) {
        json_object_set_new(object, "region", json_string(node->region));
        json_object_set_new(object, "weight", json_integer(node->weight));
        json_object_set_new(object, "fullWeight", json_integer(node->full_weight));
    }
    if (info == NULL)
        return object;
    json_object_set_new(object, "version", json_string(info->version));
    json_object_set_new(object, "natsServer", json_string(info->nats_server));
    json_object_set_new(object, "uptimeMs", json_integer(info->uptime_ms));
    json_object_set_new(object, "queueDepth", json_integer(info->load->queue_depth));
    if (shard)
        json_object_set_new(object, "rooms", json_integer(info->load->rooms));
    if (shard)
        json_object_set_new(object, "participants", json_integer(info->load->participants));
    else
        json_object_set_new(object, "connections", json_integer(info->load->connections));
    return object;
}

static void print_view_json(const struct view *view, Reply *const *replies)
{
    json_t *shards = json_array(), *gateways = json_array();

    for (size_t i = 0; i < view_node_count(view); i++) {
        bool shard = i < view->shard_count;
        const struct view_node *node = node_at(view, i);
        json_array_append_new(shard ? shards : gateways, node_json(node, shard, info_of(replies[i], node)));
    }
    look_print_json(json_pack("{s:I, s:I, s:o, s:o}", "generation", (json_int_t)view->number.generation, "seq",
                              (json_int_t)view->number.seq, "shards", shards, "gateways", gateways));
}

static enum ctl_exit show_view(const struct look_options *look, struct ask *ask, const struct view *view)
{
    size_t count;
    struct node_address *nodes = list_nodes(view, &count);
    Reply **replies = mem_zalloc((count + 1) * sizeof(Reply *));
    Request request = SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__INIT;
    Signalbox__Cluster__V1__GetNode get = SIGNALBOX__CLUSTER__V1__GET_NODE__INIT;

    request.request_case = SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__REQUEST_GET_NODE;
    request.get_node = &get;
    ask_all(ask, nodes, count, &request, replies);
    if (look->json)
        print_view_json(view, replies);
    else
        print_view(view, replies);
    free_replies(replies, count);
    free(nodes);
    return CTL_OK;
}

enum ctl_exit ctl_view(const struct ctl_command *command, int argc, char **argv)
{
    return look_run(command, argc, argv, LOOK_NOTHING, show_view);
}

/* --- room ----------------------------------------------------------------------------------------------------------
 */

static void print_room(const RoomDetail *room)
{
    struct epoch epoch = epoch_from_proto(room->epoch);
    char epoch_text[EPOCH_TEXT_MAX + 1];

    epoch_format(&epoch, epoch_text);
    printf("room     %s\nproject  %s\nowner    %s\nepoch    %s\nseq      %" PRIu64 "\nstate    %s\n", room->info->name,
           room->project, room->shard, epoch_text, room->seq, room->state);
    printf("people   %u participants, %u viewers\n\n", room->info->participants, room->info->viewers);
    printf("%-22s %-24s %-20s %10s %s\n", "SID", "IDENTITY", "GATEWAY", "GENERATION", "STATE");
    for (size_t i = 0; i < room->n_members; i++) {
        const Signalbox__Cluster__V1__MemberDetail *member = room->members[i];
        printf("%-22s %-24s %-20s %10" PRIu64 " %s", member->participant->sid, member->participant->identity,
               member->gateway, member->bind_generation, member->state);
        if (member->window_left_ms > 0)
            printf(" (%u ms left)", member->window_left_ms);
        putchar('\n');
    }
}

static json_t *room_json(const RoomDetail *room)
{
    struct epoch epoch = epoch_from_proto(room->epoch);
    char epoch_text[EPOCH_TEXT_MAX + 1];
    json_t *members = json_array();

    epoch_format(&epoch, epoch_text);
    for (size_t i = 0; i < room->n_members; i++) {
        const Signalbox__Cluster__V1__MemberDetail *member = room->members[i];
        json_array_append_new(members, json_pack("{s:s, s:s, s:s, s:I, s:s, s:i, s:i}", "sid", member->participant->sid,
                                                 "identity", member->participant->identity, "gateway", member->gateway,
                                                 "bindGeneration", (json_int_t)member->bind_generation, "state",
                                                 member->state, "windowLeftMs", (int)member->window_left_ms, "tracks",
                                                 (int)member->participant->n_tracks));
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:s, s:i, s:i, s:o}", "room", room->info->name, "project",
                     room->project, "owner", room->shard, "epoch", epoch_text, "seq", (json_int_t)room->seq, "state",
                     room->state, "participants", (int)room->info->participants, "viewers", (int)room->info->viewers,
                     "members", members);
}

/* What came over the bus has all that is printed. */
static bool is_whole(const RoomDetail *room)
{
    for (size_t i = 0; i < room->n_members; i++)
        if (room->members[i]->participant == NULL)
            return false;
    return room->info != NULL;
}

static enum ctl_exit print_rooms(const struct look_options *look, Reply *const *replies, size_t count)
{
    json_t *rooms = json_array();
    size_t found = 0;

    for (size_t i = 0; i < count; i++) {
        if (replies[i] != NULL && replies[i]->code == SIGNALBOX__V1__CODE__INVALID)
            ctl_failed("%s", replies[i]->message);
        for (size_t k = 0; replies[i] != NULL && k < replies[i]->n_rooms; k++) {
            const RoomDetail *room = replies[i]->rooms[k];
            if (!is_whole(room))
                continue;
            if (look->json)
                json_array_append_new(rooms, room_json(room));
            else
                print_room(room);
            if (replies[i]->message[0] != '\0')
                fprintf(stderr, "%s\n", replies[i]->message);
            found++;
        }
    }
    if (look->json)
        look_print_json(rooms);
    else
        json_decref(rooms);
    return found > 0 ? CTL_OK : CTL_NOT_FOUND;
}

/* Every shard is asked, not only the one that should have the room: what is, not what ought to be. */
static enum ctl_exit show_room(const struct look_options *look, struct ask *ask, const struct view *view)
{
    size_t count;
    struct node_address *nodes = list_nodes(view, &count);
    Reply **replies = mem_zalloc((count + 1) * sizeof(Reply *));
    Request request = SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__INIT;
    Signalbox__Cluster__V1__GetRoom get = SIGNALBOX__CLUSTER__V1__GET_ROOM__INIT;
    enum ctl_exit code = CTL_FAILED;

    count = view->shard_count;
    request.request_case = SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__REQUEST_GET_ROOM;
    request.get_room = &get;
    get.room = (char *)look->argument;
    get.project = (char *)(look->project != NULL ? look->project : "");
    size_t answered = ask_all(ask, nodes, count, &request, replies);
    if (count == 0) {
        ctl_failed("the view has no shards");
    } else if (answered == 0) {
        ctl_failed("none of %zu shards answered within %d ms: is NATS at %s the cluster's?", count, ASK_TIMEOUT_MS,
                   ask_server(ask));
    } else {
        code = print_rooms(look, replies, count);
        if (answered < count)
            fprintf(stderr, "signalboxctl: %zu of %zu shards did not answer\n", count - answered, count);
        if (code == CTL_NOT_FOUND)
            ctl_failed("no shard has a room '%s'; a room exists while somebody is in it", look->argument);
    }
    free_replies(replies, count);
    free(nodes);
    return code;
}

enum ctl_exit ctl_room(const struct ctl_command *command, int argc, char **argv)
{
    return look_run(command, argc, argv, LOOK_ROOM, show_room);
}
