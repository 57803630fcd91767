#include "common/jwt-private.h"
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <stdio.h>
#include <string.h>

enum {
    RSA_BITS_MIN = 2048,
    RSA_BITS_MAX = 8192, /* verification time grows with the square */
    RSA_EXPONENT_SIZE_MAX = 8,
    P256_COORDINATE_SIZE = 32,
    ED25519_KEY_SIZE = 32,
};

/* The kinds of keys that we can use, as RFC 7517, 7518 and 8037 name them. */
static const struct jwk_kind {
    const char *type, *curve, *algorithm_name;
    enum jwt_algorithm algorithm;
} KINDS[] = {
    {"RSA", NULL, "RS256", JWT_RS256},
    {"EC", "P-256", "ES256", JWT_ES256},
    {"OKP", "Ed25519", "EdDSA", JWT_EDDSA},
};

static const char *jwk_text(const json_t *jwk, const char *name)
{
    return json_string_value(json_object_get(jwk, name));
}

static bool jwk_bytes(const json_t *jwk, const char *name, uint8_t *data, size_t capacity, size_t *ret_size)
{
    const json_t *value = json_object_get(jwk, name);
    return json_is_string(value) &&
           base64url_decode(json_string_value(value), json_string_length(value), data, capacity, ret_size);
}

static bool jwk_may_verify(const json_t *jwk)
{
    const json_t *use = json_object_get(jwk, "use");
    const json_t *operations = json_object_get(jwk, "key_ops");
    bool verifies = operations == NULL;
    for (size_t i = 0; i < json_array_size(operations); i++) {
        const char *operation = json_string_value(json_array_get(operations, i));
        verifies = verifies || (operation && strcmp(operation, "verify") == 0);
    }
    return verifies && (!use || (json_is_string(use) && strcmp(json_string_value(use), "sig") == 0));
}

/* NULL for a key that is not for us. */
static const struct jwk_kind *jwk_kind(const json_t *jwk)
{
    const char *type = jwk_text(jwk, "kty"), *curve = jwk_text(jwk, "crv");
    const json_t *algorithm = json_object_get(jwk, "alg");
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS && type; i++) {
        const struct jwk_kind *kind = &KINDS[i];
        if (strcmp(type, kind->type) != 0 || (kind->curve && (!curve || strcmp(curve, kind->curve) != 0)))
            continue;
        const char *name = json_string_value(algorithm);
        if (!algorithm || (name && strcmp(name, kind->algorithm_name) == 0))
            return kind;
    }
    return NULL;
}

/* The key, or NULL if the parameters do not make a public key of that type. */
static EVP_PKEY *pkey_from_params(const char *type, OSSL_PARAM *params)
{
    EVP_PKEY *pkey = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    if (ctx && params && EVP_PKEY_fromdata_init(ctx) == 1)
        EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params);
    EVP_PKEY_CTX_free(ctx);
    ctx = pkey ? EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL) : NULL;
    if (ctx && EVP_PKEY_public_check(ctx) != 1) {
        EVP_PKEY_free(pkey);
        pkey = NULL;
    }
    EVP_PKEY_CTX_free(ctx);
    return pkey;
}

static EVP_PKEY *rsa_from_jwk(const json_t *jwk)
{
    uint8_t modulus[RSA_BITS_MAX / 8], exponent[RSA_EXPONENT_SIZE_MAX];
    size_t modulus_size, exponent_size;
    if (!jwk_bytes(jwk, "n", modulus, sizeof modulus, &modulus_size) ||
        !jwk_bytes(jwk, "e", exponent, sizeof exponent, &exponent_size))
        return NULL;
    EVP_PKEY *pkey = NULL;
    OSSL_PARAM *params = NULL;
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    BIGNUM *n = BN_bin2bn(modulus, (int)modulus_size, NULL);
    BIGNUM *e = BN_bin2bn(exponent, (int)exponent_size, NULL);
    if (build && n && e && OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n) == 1 &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e) == 1)
        params = OSSL_PARAM_BLD_to_param(build);
    if (params && BN_num_bits(n) >= RSA_BITS_MIN)
        pkey = pkey_from_params("RSA", params);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    BN_free(n);
    BN_free(e);
    return pkey;
}

static EVP_PKEY *p256_from_jwk(const json_t *jwk)
{
    uint8_t point[1 + 2 * P256_COORDINATE_SIZE] = {POINT_CONVERSION_UNCOMPRESSED};
    size_t x_size, y_size;
    if (!jwk_bytes(jwk, "x", point + 1, P256_COORDINATE_SIZE, &x_size) ||
        !jwk_bytes(jwk, "y", point + 1 + P256_COORDINATE_SIZE, P256_COORDINATE_SIZE, &y_size) ||
        x_size != P256_COORDINATE_SIZE || y_size != P256_COORDINATE_SIZE)
        return NULL;
    char group[] = "P-256";
    OSSL_PARAM params[] = {OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, sizeof group - 1),
                           OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point), OSSL_PARAM_END};
    return pkey_from_params("EC", params);
}

static EVP_PKEY *ed25519_from_jwk(const json_t *jwk)
{
    uint8_t point[ED25519_KEY_SIZE];
    size_t size;
    if (!jwk_bytes(jwk, "x", point, sizeof point, &size) || size != sizeof point)
        return NULL;
    return EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, point, size);
}

static int jwk_add(struct jwt_keyring *ring, const char *project, const json_t *jwk, const struct jwk_kind *kind,
                   char *error, size_t error_size)
{
    const char *kid = jwk_text(jwk, "kid");
    if (!kid) {
        snprintf(error, error_size, "a key without `kid`, which tokens need to name it");
        return -1;
    }
    if (json_object_get(jwk, "d")) {
        snprintf(error, error_size, "key '%s' is a private key; only its public half belongs here", kid);
        return -1;
    }
    struct jwt_key *key = jwt_keyring_add(ring, project, kid, kind->algorithm, error, error_size);
    if (!key)
        return -1;
    key->public_key = kind->algorithm == JWT_RS256   ? rsa_from_jwk(jwk)
                      : kind->algorithm == JWT_ES256 ? p256_from_jwk(jwk)
                                                     : ed25519_from_jwk(jwk);
    ERR_clear_error();
    if (!key->public_key) {
        snprintf(error, error_size, "key '%s' is not a valid %s public key%s", kid, kind->algorithm_name,
                 kind->algorithm == JWT_RS256 ? " of 2048 to 8192 bits" : "");
        return -1;
    }
    return 0;
}

int jwt_keyring_add_jwks_file(struct jwt_keyring *ring, const char *project, const char *path, char *error,
                              size_t error_size)
{
    size_t keep_count = ring->key_count;
    json_error_t parse_error;
    json_t *set = json_load_file(path, JSON_REJECT_DUPLICATES, &parse_error);
    const json_t *keys = json_object_get(set, "keys");
    char reason[256];
    if (!set && parse_error.line < 0)
        snprintf(reason, sizeof reason, "%s", parse_error.text);
    else if (!set)
        snprintf(reason, sizeof reason, "line %d: %s", parse_error.line, parse_error.text);
    else
        snprintf(reason, sizeof reason, "no array `keys` with an RSA, P-256 or Ed25519 key for signatures in it");
    int result = 0;
    for (size_t i = 0; i < json_array_size(keys) && result == 0; i++) {
        const json_t *jwk = json_array_get(keys, i);
        const struct jwk_kind *kind = jwk_may_verify(jwk) ? jwk_kind(jwk) : NULL;
        if (kind)
            result = jwk_add(ring, project, jwk, kind, reason, sizeof reason);
    }
    json_decref(set);
    if (result == 0 && ring->key_count > keep_count)
        return 0;
    jwt_keyring_truncate(ring, keep_count);
    snprintf(error, error_size, "%s: %s", path, reason);
    return -1;
}
