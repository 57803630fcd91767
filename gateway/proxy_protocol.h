/* The PROXY protocol, version 2 (https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt, section 2.2): how a load
 * balancer that passes TCP through says whose connection it is. Version 1 is not accepted.
 *
 * Threading: pure functions. Extensions (TLVs) are skipped.
 */
#ifndef SBX_GATEWAY_PROXY_PROTOCOL_H
#define SBX_GATEWAY_PROXY_PROTOCOL_H

#include "gateway/net_address.h"
#include <sys/types.h>

/* With all extensions; a longer header is malformed. */
enum { PROXY_HEADER_MAX = 4096 };

enum proxy_error {
    PROXY_INCOMPLETE = 0, /* as far as it goes it is a header */
    PROXY_MALFORMED = -1,
};

struct proxy_header {
    bool has_source; /* false for the proxy's own connections (LOCAL) and where it does not say */
    struct net_address source;
};

/* The size of the header at the start of `data`, or an enum proxy_error; ret_header is filled on success alone. Says
 * PROXY_MALFORMED at the first byte that allows it. */
ssize_t proxy_protocol_parse(const uint8_t *data, size_t size, struct proxy_header *ret_header);

#endif
