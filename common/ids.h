/* Identifiers: how they are made, written and checked.
 *
 * sid          128 random bits, written as 22 characters of base64url (RFC 4648 section 5, no padding)
 * incarnation  64 random bits, one per start of a process, written as 16 hex digits
 * node id      what the operator calls a gateway or shard: [a-z0-9-]{1,63}, a NATS subject token and a DNS label
 * room key     the first 128 bits of SHA-256(project, 0, room name): what rooms are hashed and found by; full names are
 *              compared too
 *
 * Threading: any thread. Randomness is libsodium's; a host that has none ends the process.
 */
#ifndef SBX_COMMON_IDS_H
#define SBX_COMMON_IDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SID_TEXT_SIZE = 22,
    NODE_ID_MAX = 63,
    ROOM_NAME_MAX = 128,
    IDENTITY_MAX = 128,
    PROJECT_MAX = 63,
    REGION_MAX = 31,
};

struct sid {
    uint8_t bytes[16];
};

struct room_key {
    uint8_t bytes[16];
};

void sid_random(struct sid *ret_sid);
/* Writes 22 characters and a NUL. */
void sid_format(const struct sid *sid, char text[SID_TEXT_SIZE + 1]);
/* False unless `text` is exactly 22 characters in canonical base64url. */
bool sid_parse(const char *text, struct sid *ret_sid);
bool sid_equal(const struct sid *a, const struct sid *b);

/* One session's share in a digest of which sessions are bound, and how often each has been: summed up in any order. */
uint64_t session_digest(const struct sid *sid, uint64_t bind_generation);

/* Never 0, which stands for "none". */
uint64_t incarnation_random(void);
bool node_id_valid(const char *id);
/* [a-z0-9-]{1,31}; false for "". */
bool region_valid(const char *region);
/* UTF-8, 1..max_bytes bytes, no control characters (U+0000..U+001F, U+007F). For rooms, identities and names. */
bool name_valid(const char *text, size_t max_bytes);

struct room_key room_key_make(const char *project, const char *room);
bool room_key_equal(const struct room_key *a, const struct room_key *b);
/* The region pin: copies the part of `room` before the first '/' to ret_region, "" if there is none or it is not a
 * valid region name ([a-z0-9-]{1,31}). */
void room_region(const char *room, char ret_region[REGION_MAX + 1]);

/* Keyed hash for in-memory tables of peer-chosen keys, against flooding: SipHash-2-4 under a key that each thread draws
 * at its first call, so a table belongs to one thread. */
uint64_t table_hash(const void *data, size_t size);

/* Strict UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF. */
bool utf8_valid(const void *data, size_t size);

#endif
