/* Keys from a JWKS file, and tokens signed with them. */
#include "common/mem.h"
#include "jwt_fixture.h"
#include "suite.h"
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pair {
    const char *kid, *algorithm;
    EVP_PKEY *pkey;
};

static struct pair rsa, p256, ed25519;

static char *bn_text(const EVP_PKEY *pkey, const char *param, size_t size)
{
    uint8_t bytes[512];
    char text[1024];
    BIGNUM *number = NULL;
    ck_assert_int_eq(EVP_PKEY_get_bn_param(pkey, param, &number), 1);
    if (size == 0)
        size = (size_t)BN_num_bytes(number);
    BN_bn2binpad(number, bytes, (int)size);
    BN_free(number);
    return mem_strdup(sodium_bin2base64(text, sizeof text, bytes, size, BASE64URL));
}

static json_t *jwk_make(const struct pair *pair)
{
    json_t *jwk = json_pack("{s:s}", "kid", pair->kid);
    char *a = NULL, *b = NULL;
    if (EVP_PKEY_is_a(pair->pkey, "RSA")) {
        a = bn_text(pair->pkey, OSSL_PKEY_PARAM_RSA_N, 0);
        b = bn_text(pair->pkey, OSSL_PKEY_PARAM_RSA_E, 0);
        json_object_update_new(jwk, json_pack("{s:s, s:s, s:s, s:s}", "kty", "RSA", "n", a, "e", b, "use", "sig"));
    } else if (EVP_PKEY_is_a(pair->pkey, "EC")) {
        a = bn_text(pair->pkey, OSSL_PKEY_PARAM_EC_PUB_X, 32);
        b = bn_text(pair->pkey, OSSL_PKEY_PARAM_EC_PUB_Y, 32);
        json_object_update_new(
            jwk, json_pack("{s:s, s:s, s:s, s:s, s:s}", "kty", "EC", "crv", "P-256", "x", a, "y", b, "alg", "ES256"));
    } else {
        uint8_t point[32];
        char text[64];
        size_t size = sizeof point;
        EVP_PKEY_get_raw_public_key(pair->pkey, point, &size);
        json_object_update_new(jwk, json_pack("{s:s, s:s, s:s, s:[s]}", "kty", "OKP", "crv", "Ed25519", "x",
                                              sodium_bin2base64(text, sizeof text, point, size, BASE64URL), "key_ops",
                                              "verify"));
    }
    free(a);
    free(b);
    return jwk;
}

/* Writes `text` to a file, adds it to the ring, removes it. */
static int add_jwks_text(const char *text)
{
    char path[] = "/tmp/sbx-test-jwks-XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    error[0] = '\0';
    int result = jwt_keyring_add_jwks_file(ring, "idp", path, error, sizeof error);
    ck_assert_msg(result == 0 || strstr(error, path), "the error names no file: %s", error);
    unlink(path);
    return result;
}

/* Takes the reference to `keys`. */
static int add_jwks(json_t *keys)
{
    json_t *set = json_pack("{s:o}", "keys", keys);
    char *text = json_dumps(set, 0);
    int result = add_jwks_text(text);
    free(text);
    json_decref(set);
    return result;
}

static struct buf signed_token(const struct pair *pair, const char *header, const char *claims)
{
    struct buf token = unsigned_token(header, claims);
    uint8_t signature[512];
    size_t size = sizeof signature;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    const EVP_MD *digest = EVP_PKEY_is_a(pair->pkey, "ED25519") ? NULL : EVP_sha256();
    ck_assert_int_eq(EVP_DigestSignInit(md, NULL, digest, NULL, pair->pkey), 1);
    ck_assert_int_eq(EVP_DigestSign(md, signature, &size, token.data, token.size), 1);
    EVP_MD_CTX_free(md);
    if (EVP_PKEY_is_a(pair->pkey, "EC")) {
        const uint8_t *der = signature;
        ECDSA_SIG *rs = d2i_ECDSA_SIG(NULL, &der, (long)size);
        uint8_t raw[64];
        BN_bn2binpad(ECDSA_SIG_get0_r(rs), raw, 32);
        BN_bn2binpad(ECDSA_SIG_get0_s(rs), raw + 32, 32);
        ECDSA_SIG_free(rs);
        memcpy(signature, raw, sizeof raw);
        size = sizeof raw;
    }
    buf_append_char(&token, '.');
    append_part(&token, signature, size);
    return token;
}

static void keys_make(void)
{
    rsa = (struct pair){"rsa-1", "RS256", EVP_RSA_gen(2048)};
    p256 = (struct pair){"ec-1", "ES256", EVP_EC_gen("P-256")};
    ed25519 = (struct pair){"ed-1", "EdDSA", EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")};
}

static void keys_free(void)
{
    EVP_PKEY_free(rsa.pkey);
    EVP_PKEY_free(p256.pkey);
    EVP_PKEY_free(ed25519.pkey);
}

static void setup_jwks(void)
{
    setup();
    ck_assert_msg(add_jwks(json_pack("[o,o,o]", jwk_make(&rsa), jwk_make(&p256), jwk_make(&ed25519))) == 0, "%s",
                  error);
}

static const struct pair *const PAIRS[] = {&rsa, &p256, &ed25519};

START_TEST(jwks_accepts)
{
    const struct pair *pair = PAIRS[_i];
    char header[128], claims_text[128];
    snprintf(header, sizeof header, "{\"alg\":\"%s\",\"kid\":\"%s\",\"typ\":\"JWT\"}", pair->algorithm, pair->kid);
    struct buf token = signed_token(pair, header, "{\"iss\":\"https://idp\",\"exp\":1900000100,\"sub\":\"bob\"}");
    struct jwt_claims claims;
    ck_assert_int_eq(jwt_verify(ring, (char *)token.data, token.size, NOW_S, &claims), JWT_OK);
    ck_assert_str_eq(claims.project, "idp");
    ck_assert_str_eq(claims.key_id, pair->kid);
    ck_assert_str_eq(claims.identity, "bob");
    jwt_claims_done(&claims);
    buf_done(&token);

    /* Without a kid the issuer names the key. */
    snprintf(header, sizeof header, "{\"alg\":\"%s\"}", pair->algorithm);
    snprintf(claims_text, sizeof claims_text, "{\"iss\":\"%s\",\"exp\":1900000100}", pair->kid);
    ck_assert_int_eq(verify_buf(signed_token(pair, header, claims_text)), JWT_OK);
    ck_assert_int_eq(verify_buf(signed_token(pair, header, "{\"iss\":\"https://idp\",\"exp\":1900000100}")),
                     JWT_UNKNOWN_KEY);
    /* A kid does not replace the required issuer. */
    snprintf(header, sizeof header, "{\"alg\":\"%s\",\"kid\":\"%s\"}", pair->algorithm, pair->kid);
    ck_assert_int_eq(verify_buf(signed_token(pair, header, "{\"exp\":1900000100}")), JWT_CLAIMS);
}
END_TEST

START_TEST(jwks_signature_refused)
{
    const struct pair *pair = PAIRS[_i];
    char header[128];
    snprintf(header, sizeof header, "{\"alg\":\"%s\",\"kid\":\"%s\"}", pair->algorithm, pair->kid);
    struct buf token = signed_token(pair, header, GOOD_CLAIMS);
    size_t middle = token.size - 20;
    token.data[middle] = token.data[middle] == 'A' ? 'B' : 'A';
    ck_assert_int_eq(verify_buf(token), JWT_SIGNATURE);

    /* Four characters are three bytes: a shorter signature that is still good base64url, or none at all. */
    token = signed_token(pair, header, GOOD_CLAIMS);
    token.size -= 4;
    token.data[token.size - 1] = 'A';
    ck_assert_int_eq(verify_buf(token), JWT_SIGNATURE);
    token = unsigned_token(header, GOOD_CLAIMS);
    buf_append_char(&token, '.');
    ck_assert_int_eq(verify_buf(token), JWT_SIGNATURE);
}
END_TEST

START_TEST(jwks_algorithm_is_the_keys)
{
    const struct pair *pair = PAIRS[_i];
    static const char *const algorithms[] = {"HS256", "RS256", "ES256", "EdDSA", "none"};
    for (size_t i = 0; i < sizeof algorithms / sizeof *algorithms; i++) {
        if (strcmp(algorithms[i], pair->algorithm) == 0)
            continue;
        char header[128], claims[128];
        snprintf(header, sizeof header, "{\"alg\":\"%s\",\"kid\":\"%s\"}", algorithms[i], pair->kid);
        ck_assert_int_eq(verify_buf(signed_token(pair, header, GOOD_CLAIMS)), JWT_ALGORITHM);
        snprintf(header, sizeof header, "{\"alg\":\"%s\"}", algorithms[i]);
        snprintf(claims, sizeof claims, "{\"iss\":\"%s\",\"exp\":1900000100}", pair->kid);
        ck_assert_int_eq(verify_buf(signed_token(pair, header, claims)), JWT_ALGORITHM);
    }
}
END_TEST

START_TEST(hs256_with_the_public_key_as_secret)
{
    /* The classic confusion: the public key, which everybody has, used as an HMAC secret. */
    BIO *bio = BIO_new(BIO_s_mem());
    ck_assert_int_eq(PEM_write_bio_PUBKEY(bio, rsa.pkey), 1);
    char *pem;
    long size = BIO_get_mem_data(bio, &pem);
    char *secret = mem_strndup(pem, (size_t)size);
    BIO_free(bio);
    ck_assert_int_eq(verify_buf(hs256_token("{\"alg\":\"HS256\",\"kid\":\"rsa-1\"}", GOOD_CLAIMS, secret)),
                     JWT_ALGORITHM);
    ck_assert_int_eq(verify_buf(hs256_token(HS256_HEADER, "{\"iss\":\"rsa-1\",\"exp\":1900000100}", secret)),
                     JWT_ALGORITHM);
    free(secret);
}
END_TEST

START_TEST(es256_der_refused)
{
    struct buf token = unsigned_token("{\"alg\":\"ES256\",\"kid\":\"ec-1\"}", GOOD_CLAIMS);
    uint8_t signature[128];
    size_t size = sizeof signature;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    ck_assert_int_eq(EVP_DigestSignInit(md, NULL, EVP_sha256(), NULL, p256.pkey), 1);
    ck_assert_int_eq(EVP_DigestSign(md, signature, &size, token.data, token.size), 1);
    EVP_MD_CTX_free(md);
    buf_append_char(&token, '.');
    append_part(&token, signature, size);
    ck_assert_int_eq(verify_buf(token), JWT_SIGNATURE);

    /* r and s with a zero byte behind them: 64 bytes are 86 characters, 65 are 87. */
    token = signed_token(&p256, "{\"alg\":\"ES256\",\"kid\":\"ec-1\"}", GOOD_CLAIMS);
    buf_append_char(&token, 'A');
    ck_assert_int_eq(verify_buf(token), JWT_SIGNATURE);

    /* r = s = 0, the signature that broken verifiers take for any message. */
    token = unsigned_token("{\"alg\":\"ES256\",\"kid\":\"ec-1\"}", GOOD_CLAIMS);
    memset(signature, 0, 64);
    buf_append_char(&token, '.');
    append_part(&token, signature, 64);
    ck_assert_int_eq(verify_buf(token), JWT_SIGNATURE);
}
END_TEST

static json_t *without(json_t *jwk, const char *name)
{
    json_object_del(jwk, name);
    return jwk;
}

static json_t *with(json_t *jwk, const char *name, const char *value)
{
    json_object_set_new(jwk, name, json_string(value));
    return jwk;
}

START_TEST(jwks_refuses)
{
    ck_assert_int_eq(jwt_keyring_add_jwks_file(ring, "idp", "/nonexistent/jwks.json", error, sizeof error), -1);
    ck_assert_ptr_nonnull(strstr(error, "No such file"));
    ck_assert_int_eq(add_jwks_text("{\"keys\":[\n}"), -1);
    ck_assert_ptr_nonnull(strstr(error, "line 2"));
    ck_assert_int_eq(add_jwks_text("{}"), -1);
    ck_assert_int_eq(add_jwks_text("[]"), -1);
    ck_assert_int_eq(add_jwks_text("{\"keys\":[]}"), -1);
    ck_assert_int_eq(add_jwks_text("{\"keys\":[7]}"), -1);

    ck_assert_int_eq(add_jwks(json_pack("[o]", without(jwk_make(&rsa), "kid"))), -1);
    ck_assert_ptr_nonnull(strstr(error, "kid"));
    ck_assert_int_eq(add_jwks(json_pack("[o]", with(jwk_make(&rsa), "kid", ""))), -1);
    ck_assert_int_eq(add_jwks(json_pack("[o]", with(jwk_make(&rsa), "kid", "API1"))), -1);
    ck_assert_int_eq(add_jwks(json_pack("[o]", with(jwk_make(&p256), "d", "AA"))), -1);
    ck_assert_ptr_nonnull(strstr(error, "private"));
    ck_assert_int_eq(add_jwks(json_pack("[o]", without(jwk_make(&rsa), "n"))), -1);
    ck_assert_int_eq(add_jwks(json_pack("[o]", with(jwk_make(&rsa), "e", "AA"))), -1);
    ck_assert_int_eq(add_jwks(json_pack("[o]", with(jwk_make(&rsa), "n", "not base64"))), -1);
    ck_assert_int_eq(add_jwks(json_pack("[o]", with(jwk_make(&p256), "x", "AA"))), -1);
    ck_assert_int_eq(add_jwks(json_pack("[o]", without(jwk_make(&p256), "y"))), -1);
    ck_assert_int_eq(add_jwks(json_pack("[o]", with(jwk_make(&ed25519), "x", "AAAA"))), -1);
    json_t *off_curve = jwk_make(&p256);
    json_object_set(off_curve, "y", json_object_get(off_curve, "x"));
    ck_assert_int_eq(add_jwks(json_pack("[o]", off_curve)), -1);

    struct pair weak = {"weak", "RS256", EVP_RSA_gen(1024)};
    ck_assert_int_eq(add_jwks(json_pack("[o]", jwk_make(&weak))), -1);
    ck_assert_ptr_nonnull(strstr(error, "2048"));
    /* All or nothing: the good key before the bad one is not kept. */
    ck_assert_int_eq(add_jwks(json_pack("[o,o]", jwk_make(&ed25519), jwk_make(&weak))), -1);
    ck_assert(!jwt_keyring_has(ring, "ed-1"));
    ck_assert(jwt_keyring_has(ring, "API1"));
    EVP_PKEY_free(weak.pkey);
}
END_TEST

START_TEST(jwks_passes_over_other_keys)
{
    json_t *others =
        json_pack("[o,o,o,{s:s,s:s,s:s}]", with(jwk_make(&rsa), "use", "enc"), with(jwk_make(&rsa), "alg", "RS512"),
                  with(jwk_make(&p256), "crv", "P-384"), "kty", "oct", "kid", "shared", "k", "c2VjcmV0");
    json_t *signs_only = jwk_make(&ed25519);
    json_object_set_new(signs_only, "key_ops", json_pack("[s]", "sign"));
    json_array_append_new(others, signs_only);
    ck_assert_int_eq(add_jwks(json_incref(others)), -1);
    ck_assert_ptr_nonnull(strstr(error, "no array `keys` with"));
    json_array_append_new(others, jwk_make(&ed25519));
    ck_assert_msg(add_jwks(others) == 0, "%s", error);
    ck_assert(jwt_keyring_has(ring, "ed-1"));
    ck_assert(!jwt_keyring_has(ring, "rsa-1"));
    ck_assert(!jwt_keyring_has(ring, "shared"));
}
END_TEST

int main(void)
{
    TCase *jwks = tcase_create("jwks");
    tcase_set_timeout(jwks, 60); /* RSA keys under a sanitizer */
    tcase_add_unchecked_fixture(jwks, keys_make, keys_free);
    tcase_add_checked_fixture(jwks, setup_jwks, teardown);
    tcase_add_loop_test(jwks, jwks_accepts, 0, 3);
    tcase_add_loop_test(jwks, jwks_signature_refused, 0, 3);
    tcase_add_loop_test(jwks, jwks_algorithm_is_the_keys, 0, 3);
    tcase_add_test(jwks, hs256_with_the_public_key_as_secret);
    tcase_add_test(jwks, es256_der_refused);

    TCase *files = tcase_create("files");
    tcase_set_timeout(files, 60);
    tcase_add_unchecked_fixture(files, keys_make, keys_free);
    tcase_add_checked_fixture(files, setup, teardown);
    tcase_add_test(files, jwks_refuses);
    tcase_add_test(files, jwks_passes_over_other_keys);
    return suite_run("jwks", jwks, files, NULL);
}
