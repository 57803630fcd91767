#include "common/ids.h"
#include "common/utf8.h"
#include <assert.h>
#include <sodium.h>
#include <string.h>

static const char base64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void fill_random(void *data, size_t size)
{
    /* Idempotent and cheap after the first call; it only fails where the kernel has no source of randomness at all. */
    int rc = sodium_init();
    assert(rc >= 0);
    (void)rc;
    randombytes_buf(data, size);
}

void sid_random(struct sid *ret_sid)
{
    fill_random(ret_sid->bytes, sizeof(ret_sid->bytes));
}

void sid_format(const struct sid *sid, char text[SID_TEXT_SIZE + 1])
{
    uint32_t acc = 0;
    unsigned bits = 0;
    char *out = text;

    for (size_t i = 0; i < sizeof(sid->bytes); i++) {
        acc = acc << 8 | sid->bytes[i];
        for (bits += 8; bits >= 6; bits -= 6)
            *out++ = base64url[acc >> (bits - 6) & 63];
    }
    *out++ = base64url[acc << (6 - bits) & 63];
    *out = '\0';
}

static int base64url_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '-')
        return 62;
    return c == '_' ? 63 : -1;
}

bool sid_parse(const char *text, struct sid *ret_sid)
{
    struct sid sid;
    uint32_t acc = 0;
    unsigned bits = 0;
    size_t n = 0;

    for (size_t i = 0; i < SID_TEXT_SIZE; i++) {
        int value = base64url_value(text[i]); /* the NUL of a short text is no base64url either */
        if (value < 0)
            return false;
        acc = acc << 6 | (uint32_t)value;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            sid.bytes[n++] = (uint8_t)(acc >> bits);
        }
    }
    /* 22 characters carry 132 bits; a text with any of the last 4 set would be a second name for the same sid. */
    if (text[SID_TEXT_SIZE] != '\0' || (acc & 15) != 0)
        return false;
    *ret_sid = sid;
    return true;
}

bool sid_equal(const struct sid *a, const struct sid *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

uint64_t session_digest(const struct sid *sid, uint64_t bind_generation)
{
    uint64_t half[2];
    memcpy(half, sid->bytes, sizeof half);
    /* MurmurHash3's last steps, so that two generations that grow at once do not cancel each other out. */
    uint64_t hash = half[0] ^ (half[1] * 0x9e3779b97f4a7c15) ^ (bind_generation * 0xbf58476d1ce4e5b9);
    hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccd;
    hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53;
    return hash ^ (hash >> 33);
}

uint64_t incarnation_random(void)
{
    uint64_t incarnation;

    do
        fill_random(&incarnation, sizeof(incarnation));
    while (incarnation == 0);
    return incarnation;
}

/* [a-z0-9-]{1,max}, the first `size` bytes of `text`. */
static bool label_valid(const char *text, size_t size, size_t max)
{
    if (size == 0 || size > max)
        return false;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
            return false;
    }
    return true;
}

bool node_id_valid(const char *id)
{
    return label_valid(id, strnlen(id, NODE_ID_MAX + 1), NODE_ID_MAX);
}

bool region_valid(const char *region)
{
    return label_valid(region, strnlen(region, REGION_MAX + 1), REGION_MAX);
}

bool name_valid(const char *text, size_t max_bytes)
{
    size_t size = strnlen(text, max_bytes + 1);

    if (size == 0 || size > max_bytes)
        return false;
    for (size_t i = 0; i < size; i++) {
        uint8_t c = (uint8_t)text[i];
        if (c < 0x20 || c == 0x7f)
            return false;
    }
    return utf8_valid(text, size);
}

struct room_key room_key_make(const char *project, const char *room)
{
    struct room_key key;
    uint8_t digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256_state state;

    crypto_hash_sha256_init(&state);
    /* The project's own NUL is the separator: "a" + "bc" and "ab" + "c" must differ. */
    crypto_hash_sha256_update(&state, (const uint8_t *)project, strlen(project) + 1);
    crypto_hash_sha256_update(&state, (const uint8_t *)room, strlen(room));
    crypto_hash_sha256_final(&state, digest);
    memcpy(key.bytes, digest, sizeof(key.bytes));
    return key;
}

bool room_key_equal(const struct room_key *a, const struct room_key *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

void room_region(const char *room, char ret_region[REGION_MAX + 1])
{
    const char *slash = strchr(room, '/');
    size_t size = slash ? (size_t)(slash - room) : 0;

    if (!label_valid(room, size, REGION_MAX))
        size = 0;
    memcpy(ret_region, room, size);
    ret_region[size] = '\0';
}

uint64_t table_hash(const void *data, size_t size)
{
    /* Per thread, so that drawing it needs no lock; tables belong to one loop thread. */
    static __thread bool drawn;
    static __thread uint8_t key[crypto_shorthash_KEYBYTES];
    uint8_t out[crypto_shorthash_BYTES];
    uint64_t hash;

    if (!drawn) {
        fill_random(key, sizeof(key));
        drawn = true;
    }
    crypto_shorthash(out, data, size, key);
    memcpy(&hash, out, sizeof(hash));
    return hash;
}

bool utf8_valid(const void *data, size_t size)
{
    return utf8_check(UTF8_ACCEPT, data, size) == UTF8_ACCEPT;
}
