/* What the parts of the token code share: common/jwt.c (keyring, signatures), common/jwks.c (key files) and
 * common/jwt_claims.c (what a verified token says). For those three only.
 */
#ifndef SBX_COMMON_JWT_PRIVATE_H
#define SBX_COMMON_JWT_PRIVATE_H

#include "common/jwt.h"
#include <openssl/evp.h>

enum jwt_algorithm { JWT_HS256, JWT_RS256, JWT_ES256, JWT_EDDSA };

struct jwt_key {
    char id[JWT_KEY_ID_MAX + 1];
    char project[PROJECT_MAX + 1];
    enum jwt_algorithm algorithm;
    EVP_MAC_CTX *mac;     /* HS256: keyed, never updated itself; each verification works on a duplicate */
    EVP_PKEY *public_key; /* all others */
};

struct jwt_keyring {
    unsigned refs;
    int64_t leeway_s;
    struct jwt_key *keys;
    size_t key_count;
};

/* A new key of that id, with neither secret nor public key in it yet. NULL with a text in `error` if the project or id
 * has a bad length or the id repeats. Valid until the next key is added. */
struct jwt_key *jwt_keyring_add(struct jwt_keyring *ring, const char *project, const char *key_id,
                                enum jwt_algorithm algorithm, char *error, size_t error_size);
/* Removes the newest keys until `key_count` remain. */
void jwt_keyring_truncate(struct jwt_keyring *ring, size_t key_count);

/* Strict base64url (RFC 4648 section 5): no padding, no spaces, unused bits zero. False too if it does not fit. */
bool base64url_decode(const char *text, size_t text_size, uint8_t *data, size_t capacity, size_t *ret_size);

/* Reads the claims of a token whose signature is good; judges types, lengths and counts, but no times. JWT_OK or
 * JWT_CLAIMS; ret_claims is untouched on failure. `project` and `key_id` are left empty. */
enum jwt_result jwt_claims_read(const json_t *json, struct jwt_claims *ret_claims);

#endif
