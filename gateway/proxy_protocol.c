#include "gateway/proxy_protocol.h"

#include <string.h>

enum { SIGNATURE_SIZE = 12, FIXED_SIZE = 16 };
enum { VERSION_2 = 0x20, COMMAND_LOCAL = 0, COMMAND_PROXY = 1 };
enum { FAMILY_UNSPEC = 0x00, FAMILY_TCP4 = 0x11, FAMILY_TCP6 = 0x21, FAMILY_UNIX_STREAM = 0x31 };
/* Source and destination address and port. */
enum { ADDRESSES_TCP4 = 12, ADDRESSES_TCP6 = 36, ADDRESSES_UNIX = 216 };

static const uint8_t signature[SIGNATURE_SIZE] = "\r\n\r\n\0\r\nQUIT\n";

/* -1 for what cannot be the family of a TCP connection's far end. */
static int addresses_size(uint8_t family)
{
    switch (family) {
    case FAMILY_UNSPEC:
        return 0;
    case FAMILY_TCP4:
        return ADDRESSES_TCP4;
    case FAMILY_TCP6:
        return ADDRESSES_TCP6;
    case FAMILY_UNIX_STREAM:
        return ADDRESSES_UNIX;
    default:
        return -1;
    }
}

ssize_t proxy_protocol_parse(const uint8_t *data, size_t size, struct proxy_header *ret_header)
{
    size_t seen = size < SIGNATURE_SIZE ? size : SIGNATURE_SIZE;
    if (seen > 0 && memcmp(data, signature, seen) != 0)
        return PROXY_MALFORMED;
    if (size > SIGNATURE_SIZE && data[12] != (VERSION_2 | COMMAND_LOCAL) && data[12] != (VERSION_2 | COMMAND_PROXY))
        return PROXY_MALFORMED;
    if (size < FIXED_SIZE)
        return PROXY_INCOMPLETE;

    bool local = data[12] == (VERSION_2 | COMMAND_LOCAL);
    size_t rest = (size_t)data[14] << 8 | data[15];
    int addresses = addresses_size(data[13]);
    if (rest > PROXY_HEADER_MAX - FIXED_SIZE || (!local && (addresses < 0 || rest < (size_t)addresses)))
        return PROXY_MALFORMED;
    if (size < FIXED_SIZE + rest)
        return PROXY_INCOMPLETE;

    struct proxy_header header = {0};
    if (!local && data[13] == FAMILY_TCP4) {
        header.has_source = true;
        header.source = net_address_from_ipv4(data + FIXED_SIZE);
    } else if (!local && data[13] == FAMILY_TCP6) {
        header.has_source = true;
        memcpy(header.source.bytes, data + FIXED_SIZE, sizeof(header.source.bytes));
    }
    *ret_header = header;
    return (ssize_t)(FIXED_SIZE + rest);
}
