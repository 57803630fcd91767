#include "common/jwt.h"
#include "common/buf.h"
#include "common/jwt-private.h"
#include "common/mem.h"
#include <assert.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    JSON_DEPTH_MAX = 16, /* jansson recurses: bounded before it starts */
    HMAC_SIZE = 32,
    ES256_SCALAR_SIZE = 32,
};

static const char *const ALGORITHM_NAMES[] = {
    [JWT_HS256] = "HS256",
    [JWT_RS256] = "RS256",
    [JWT_ES256] = "ES256",
    [JWT_EDDSA] = "EdDSA",
};

static const struct {
    const char *name, *text;
} RESULTS[] = {
    [-JWT_OK] = {"ok", "The token is valid."},
    [-JWT_MALFORMED] = {"malformed", "A token is three base64url parts without padding, joined by dots; header and "
                                     "claims are JSON objects without repeated names, the header has no `crit`."},
    [-JWT_TOO_LARGE] = {"too_large", "A token has at most 8192 bytes; keep metadata and attributes short."},
    [-JWT_ALGORITHM] = {"algorithm",
                        "The header's `alg` must be that of the key: HS256 for an API secret; RS256, ES256 "
                        "or EdDSA for a JWKS key."},
    [-JWT_UNKNOWN_KEY] = {"unknown_key",
                          "`iss` must be a configured API key, or `kid` the id of a key in the JWKS file."},
    [-JWT_SIGNATURE] = {"signature",
                        "The token must be signed with the secret or private key that belongs to its `iss` "
                        "or `kid`."},
    [-JWT_EXPIRED] = {"expired", "`exp` must lie in the future; fetch a new token and check the minting host's clock."},
    [-JWT_NOT_YET_VALID] = {"not_yet_valid", "`nbf` must not lie in the future; check the minting host's clock."},
    [-JWT_CLAIMS] = {"claims", "`iss` (string) and `exp` (seconds) are required, and every claim that Signalbox knows "
                               "must have its documented type and stay within its bounds."},
};

const char *jwt_result_name(enum jwt_result result)
{
    return RESULTS[-(int)result].name;
}

const char *jwt_result_text(enum jwt_result result)
{
    return RESULTS[-(int)result].text;
}

struct jwt_keyring *jwt_keyring_new(int64_t leeway_s)
{
    struct jwt_keyring *ring = mem_new(struct jwt_keyring);
    ring->refs = 1;
    ring->leeway_s = leeway_s;
    return ring;
}

static const struct jwt_key *keyring_find(const struct jwt_keyring *ring, const char *key_id)
{
    for (size_t i = 0; i < ring->key_count; i++)
        if (strcmp(ring->keys[i].id, key_id) == 0)
            return &ring->keys[i];
    return NULL;
}

struct jwt_key *jwt_keyring_add(struct jwt_keyring *ring, const char *project, const char *key_id,
                                enum jwt_algorithm algorithm, char *error, size_t error_size)
{
    assert(ring->refs == 1);
    if (!name_valid(project, PROJECT_MAX)) {
        snprintf(error, error_size, "the project's name must have 1 to %d bytes", PROJECT_MAX);
        return NULL;
    }
    if (!name_valid(key_id, JWT_KEY_ID_MAX)) {
        snprintf(error, error_size, "a key id must have 1 to %d bytes", JWT_KEY_ID_MAX);
        return NULL;
    }
    if (keyring_find(ring, key_id)) {
        snprintf(error, error_size, "there is already a key with the id '%s'", key_id);
        return NULL;
    }
    ring->keys = mem_realloc(ring->keys, (ring->key_count + 1) * sizeof *ring->keys);
    struct jwt_key *key = &ring->keys[ring->key_count++];
    *key = (struct jwt_key){.algorithm = algorithm};
    snprintf(key->id, sizeof key->id, "%s", key_id);
    snprintf(key->project, sizeof key->project, "%s", project);
    return key;
}

void jwt_keyring_truncate(struct jwt_keyring *ring, size_t key_count)
{
    while (ring->key_count > key_count) {
        struct jwt_key *key = &ring->keys[--ring->key_count];
        EVP_MAC_CTX_free(key->mac);
        EVP_PKEY_free(key->public_key);
    }
}

/* Keyed once, so that a verification costs no key schedule. NULL if OpenSSL has no HMAC or no memory. */
static EVP_MAC_CTX *hmac_new(const char *secret)
{
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *mac = EVP_MAC_CTX_new(hmac);
    EVP_MAC_free(hmac);
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {OSSL_PARAM_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, sizeof digest - 1),
                                 OSSL_PARAM_END};
    if (mac && EVP_MAC_init(mac, (const uint8_t *)secret, strlen(secret), params) == 1)
        return mac;
    EVP_MAC_CTX_free(mac);
    return NULL;
}

static bool hmac_compute(const EVP_MAC_CTX *keyed, const char *data, size_t size, uint8_t ret_mac[HMAC_SIZE])
{
    EVP_MAC_CTX *mac = EVP_MAC_CTX_dup(keyed);
    size_t mac_size = 0;
    bool done = mac && EVP_MAC_update(mac, (const uint8_t *)data, size) == 1 &&
                EVP_MAC_final(mac, ret_mac, &mac_size, HMAC_SIZE) == 1 && mac_size == HMAC_SIZE;
    EVP_MAC_CTX_free(mac);
    return done;
}

int jwt_keyring_add_secret(struct jwt_keyring *ring, const char *project, const char *key_id, const char *secret,
                           char *error, size_t error_size)
{
    if (strlen(secret) < JWT_SECRET_MIN) {
        snprintf(error, error_size, "the secret of key '%s' must have at least %d bytes", key_id, JWT_SECRET_MIN);
        return -1;
    }
    size_t keep_count = ring->key_count;
    struct jwt_key *key = jwt_keyring_add(ring, project, key_id, JWT_HS256, error, error_size);
    if (!key)
        return -1;
    key->mac = hmac_new(secret);
    if (!key->mac) {
        snprintf(error, error_size, "OpenSSL offers no HMAC-SHA256");
        jwt_keyring_truncate(ring, keep_count);
        return -1;
    }
    return 0;
}

struct jwt_keyring *jwt_keyring_ref(struct jwt_keyring *ring)
{
    ring->refs++;
    return ring;
}

void jwt_keyring_unref(struct jwt_keyring **ring)
{
    if (!*ring)
        return;
    if (--(*ring)->refs == 0) {
        jwt_keyring_truncate(*ring, 0);
        free((*ring)->keys);
        free(*ring);
    }
    *ring = NULL;
}

bool jwt_keyring_has(const struct jwt_keyring *ring, const char *key_id)
{
    return keyring_find(ring, key_id) != NULL;
}

bool base64url_decode(const char *text, size_t text_size, uint8_t *data, size_t capacity, size_t *ret_size)
{
    return sodium_base642bin(data, capacity, text, text_size, NULL, ret_size, NULL,
                             sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0;
}

/* Whether the text can be given to a recursive parser. Text that is not JSON may pass; the parser refuses it. */
static bool json_is_shallow(const uint8_t *text, size_t size)
{
    bool in_string = false;
    int depth = 0;
    for (size_t i = 0; i < size; i++) {
        uint8_t c = text[i];
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (!in_string && (c == '{' || c == '[') && ++depth > JSON_DEPTH_MAX)
            return false;
        else if (!in_string && (c == '}' || c == ']'))
            depth--;
    }
    return true;
}

/* One base64url part that holds a JSON object; NULL for anything else. */
static json_t *part_object(const char *part, size_t part_size)
{
    uint8_t text[JWT_TOKEN_MAX];
    size_t size;
    if (!base64url_decode(part, part_size, text, sizeof text, &size) || !json_is_shallow(text, size))
        return NULL;
    json_t *json = json_loadb((const char *)text, size, JSON_REJECT_DUPLICATES, NULL);
    if (json && !json_is_object(json)) {
        json_decref(json);
        return NULL;
    }
    return json;
}

/* A token taken apart: nothing in it is trusted. */
struct jws {
    json_t *header, *claims; /* owned */
    const char *signed_text; /* header and claims as they were sent, with the dot between them */
    size_t signed_size;
    uint8_t signature[JWT_TOKEN_MAX];
    size_t signature_size;
};

static void jws_done(struct jws *jws)
{
    json_decref(jws->header);
    json_decref(jws->claims);
}

static bool jws_split(struct jws *jws, const char *token, size_t size)
{
    jws->header = jws->claims = NULL;
    const char *end = token + size;
    const char *dot1 = memchr(token, '.', size);
    const char *dot2 = dot1 ? memchr(dot1 + 1, '.', (size_t)(end - dot1 - 1)) : NULL;
    if (!dot2)
        return false;
    jws->signed_text = token;
    jws->signed_size = (size_t)(dot2 - token);
    /* A third dot would not be base64url. */
    if (!base64url_decode(dot2 + 1, (size_t)(end - dot2 - 1), jws->signature, sizeof jws->signature,
                          &jws->signature_size))
        return false;
    jws->header = part_object(token, (size_t)(dot1 - token));
    jws->claims = jws->header ? part_object(dot1 + 1, (size_t)(dot2 - dot1 - 1)) : NULL;
    return jws->claims != NULL;
}

/* Finds the key that the token names and checks that the token's algorithm is the key's own. */
static enum jwt_result jws_select_key(const struct jws *jws, const struct jwt_keyring *ring,
                                      const struct jwt_key **ret_key)
{
    const json_t *kid = json_object_get(jws->header, "kid");
    const json_t *algorithm = json_object_get(jws->header, "alg");
    const json_t *type = json_object_get(jws->header, "typ");
    if (json_object_get(jws->header, "crit") || (kid && !json_is_string(kid)) || (type && !json_is_string(type)))
        return JWT_MALFORMED;
    const char *name = json_string_value(algorithm);
    size_t wanted = 0, algorithm_count = sizeof ALGORITHM_NAMES / sizeof *ALGORITHM_NAMES;
    while (name && wanted < algorithm_count && strcmp(name, ALGORITHM_NAMES[wanted]) != 0)
        wanted++;
    if (!name || wanted == algorithm_count)
        return JWT_ALGORITHM;

    const struct jwt_key *key = kid ? keyring_find(ring, json_string_value(kid)) : NULL;
    if (key && key->algorithm == JWT_HS256)
        key = NULL;
    if (!key && (!kid || wanted == JWT_HS256)) {
        const char *issuer = json_string_value(json_object_get(jws->claims, "iss"));
        if (!issuer)
            return JWT_CLAIMS;
        key = keyring_find(ring, issuer);
    }
    if (!key)
        return JWT_UNKNOWN_KEY;
    if (key->algorithm != wanted)
        return JWT_ALGORITHM;
    *ret_key = key;
    return JWT_OK;
}

/* JWS writes an ECDSA signature as r and s, 32 bytes each (RFC 7518 section 3.4); OpenSSL wants DER. Returns the size
 * of the DER form or 0; the caller frees *ret_der with OPENSSL_free. */
static size_t es256_to_der(const uint8_t *signature, size_t size, uint8_t **ret_der)
{
    if (size != 2 * ES256_SCALAR_SIZE)
        return 0;
    ECDSA_SIG *pair = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(signature, ES256_SCALAR_SIZE, NULL);
    BIGNUM *s = BN_bin2bn(signature + ES256_SCALAR_SIZE, ES256_SCALAR_SIZE, NULL);
    int der_size = 0;
    if (pair && r && s && ECDSA_SIG_set0(pair, r, s) == 1) {
        r = s = NULL; /* now the pair's */
        der_size = i2d_ECDSA_SIG(pair, ret_der);
    }
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(pair);
    return der_size > 0 ? (size_t)der_size : 0;
}

static bool verify_public(const struct jwt_key *key, const struct jws *jws)
{
    const uint8_t *signature = jws->signature;
    size_t signature_size = jws->signature_size;
    uint8_t *der = NULL;
    if (key->algorithm == JWT_ES256) {
        signature_size = es256_to_der(jws->signature, jws->signature_size, &der);
        if (signature_size == 0)
            return false;
        signature = der;
    }
    const EVP_MD *digest = key->algorithm == JWT_EDDSA ? NULL : EVP_sha256();
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool good =
        md && EVP_DigestVerifyInit(md, NULL, digest, NULL, key->public_key) == 1 &&
        EVP_DigestVerify(md, signature, signature_size, (const uint8_t *)jws->signed_text, jws->signed_size) == 1;
    EVP_MD_CTX_free(md);
    OPENSSL_free(der);
    /* What a bad signature leaves in the thread's error queue would be blamed on the next TLS connection. */
    ERR_clear_error();
    return good;
}

static bool jws_verify(const struct jws *jws, const struct jwt_key *key)
{
    if (key->algorithm != JWT_HS256)
        return verify_public(key, jws);
    uint8_t mac[HMAC_SIZE];
    return jws->signature_size == HMAC_SIZE && hmac_compute(key->mac, jws->signed_text, jws->signed_size, mac) &&
           CRYPTO_memcmp(mac, jws->signature, HMAC_SIZE) == 0;
}

enum jwt_result jwt_verify(const struct jwt_keyring *ring, const char *token, size_t size, int64_t wall_s,
                           struct jwt_claims *ret_claims)
{
    if (size > JWT_TOKEN_MAX)
        return JWT_TOO_LARGE;
    struct jws jws;
    struct jwt_claims claims = {0};
    const struct jwt_key *key = NULL;
    enum jwt_result result = JWT_MALFORMED;
    if (!jws_split(&jws, token, size))
        goto out;
    result = jws_select_key(&jws, ring, &key);
    if (result != JWT_OK)
        goto out;
    if (!jws_verify(&jws, key)) {
        result = JWT_SIGNATURE;
        goto out;
    }
    result = jwt_claims_read(jws.claims, &claims);
    if (result != JWT_OK)
        goto out;
    if (wall_s - ring->leeway_s >= claims.expires_s)
        result = JWT_EXPIRED;
    else if (wall_s + ring->leeway_s < claims.not_before_s)
        result = JWT_NOT_YET_VALID;
    if (result != JWT_OK) {
        jwt_claims_done(&claims);
        goto out;
    }
    memcpy(claims.project, key->project, sizeof claims.project);
    memcpy(claims.key_id, key->id, sizeof claims.key_id);
    *ret_claims = claims;
out:
    jws_done(&jws);
    return result;
}

static void append_base64url(struct buf *buf, const void *data, size_t size)
{
    size_t encoded_size = sodium_base64_ENCODED_LEN(size, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    char *text = (char *)buf_reserve(buf, encoded_size);
    sodium_bin2base64(text, encoded_size, data, size, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    buf->size += encoded_size - 1; /* all but the NUL */
}

char *jwt_mint(const char *secret, const json_t *claims)
{
    static const char header[] = "{\"alg\":\"HS256\"}";
    char *body = json_dumps(claims, JSON_COMPACT);
    EVP_MAC_CTX *keyed = hmac_new(secret);
    assert(body && keyed); /* the claims are ours */
    struct buf token = {0};
    append_base64url(&token, header, sizeof header - 1);
    buf_append_char(&token, '.');
    append_base64url(&token, body, strlen(body));
    uint8_t mac[HMAC_SIZE];
    bool done = hmac_compute(keyed, (const char *)token.data, token.size, mac);
    assert(done);
    buf_append_char(&token, '.');
    append_base64url(&token, mac, sizeof mac);
    char *text = mem_strdup(buf_str(&token));
    buf_done(&token);
    EVP_MAC_CTX_free(keyed);
    free(body);
    return text;
}
