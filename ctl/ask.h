/* The tool's way to the cluster: a plain, blocking connection to NATS; requests by sbx.admin, replies to a subject of
 * its own, and the view log's last entry.
 *
 * Threading: the caller's. Errors are printed by ctl_failed().
 */
#ifndef SBX_CTL_ASK_H
#define SBX_CTL_ASK_H

#include "common/link.h"
#include "common/view.h"
#include "ctl/ctl.h"
#include "proto/cluster.pb-c.h"
#include <stddef.h>

enum { ASK_TIMEOUT_MS = 2000 };

struct ask;

/* `servers`: URLs separated by commas; NULL: those of the configuration at `config_path`, else $SIGNALBOX_NATS, else
 * the local one. Credentials are the configuration's, or in the URLs. NULL with the reason printed. */
struct ask *ask_open(const char *servers, const char *config_path);
void ask_close(struct ask **ask);
/* Where it is connected, for messages. */
const char *ask_server(const struct ask *ask);
/* The log's last entry; NULL with the reason printed. */
struct view *ask_view(struct ask *ask);
/* The entry before `view`'s in the log; NULL if there is none any more. */
struct view *ask_view_before(struct ask *ask, const struct view *view);
/* Puts a request to many processes at once and waits for their replies, ASK_TIMEOUT_MS at most. `ret_replies` has
 * `count` entries, NULL for each that has not answered; free those that have by
 * signalbox__cluster__v1__admin_reply__free_unpacked(). Returns how many have. */
size_t ask_all(struct ask *ask, const struct node_address *nodes, size_t count,
               Signalbox__Cluster__V1__AdminRequest *request, Signalbox__Cluster__V1__AdminReply **ret_replies);

#endif
