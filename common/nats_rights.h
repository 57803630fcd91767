/* Tries at start what the NATS user may do: a role that may too little cannot work, one that may too much could pass
 * for another (deploy/nats/roles.conf has the roles). A server of this age does not say what a user may do, so it is
 * tried, with subjects that nobody uses and whose name says why; what is denied shows in the server's log.
 *
 * Threading: blocks for about a second at most; the connector thread.
 */
#ifndef SBX_COMMON_NATS_RIGHTS_H
#define SBX_COMMON_NATS_RIGHTS_H

#include "common/nats_options.h"
#include <stdbool.h>
#include <stddef.h>

enum { NATS_RIGHTS_TEXT_MAX = 256 };

/* False if one that is needed is denied; `ret_detail` is then the server's word on it. What could not be found out
 * counts as right. `ret_excess` names those that are granted and should not be, "" if none is. */
bool nats_rights_check(struct nats_options *options, const char *echo_subject, const struct bus_right *rights,
                       size_t count, char ret_detail[NATS_DETAIL_MAX], char ret_excess[NATS_RIGHTS_TEXT_MAX]);

#endif
