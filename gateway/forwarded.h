/* Who is behind a chain of HTTP proxies: Forwarded (RFC 7239) and X-Forwarded-For.
 *
 * Each proxy appends the address that it was reached from; what stands before the first proxy of ours could have been
 * written by anybody. So the list is read from its end for as long as the addresses are trusted proxies', and the
 * first that is not is the client. Only one of the two headers is read, the one that the operator's proxies write: a
 * client may forge the other one, and most proxies pass it on.
 *
 * Threading: pure functions. Header sizes are bounded by whoever parsed the request.
 */
#ifndef SBX_GATEWAY_FORWARDED_H
#define SBX_GATEWAY_FORWARDED_H

#include "gateway/net_address.h"
#include "gateway/ws_handshake.h"

enum forwarded_form {
    FORWARDED_X_FORWARDED_FOR,
    FORWARDED_RFC7239,
};

/* The proxies of one chain that are looked at; a longer chain ends at the last of them. */
enum { FORWARDED_HOPS_MAX = 16 };

/* In lower case. */
const char *forwarded_header_name(enum forwarded_form form);
/* `peer` is who sent the request; `values` are those of every header of that name, in order of arrival. An element that
 * names no address ends the search: the proxy before it is the best that is known. */
struct net_address forwarded_client(const struct net_address *peer, const struct net_blocks *trusted,
                                    enum forwarded_form form, const struct ws_slice *values, size_t value_count);

#endif
