#include "jwt_fixture.h"

#include "common/mem.h"
#include <check.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

struct jwt_keyring *ring;
char error[512];

void setup(void)
{
    ring = jwt_keyring_new(LEEWAY_S);
    ck_assert_int_eq(jwt_keyring_add_secret(ring, "acme", "API1", SECRET, error, sizeof error), 0);
}

void teardown(void)
{
    jwt_keyring_unref(&ring);
}

void append_part(struct buf *buf, const void *data, size_t size)
{
    char text[2 * JWT_TOKEN_MAX];
    buf_append_str(buf, sodium_bin2base64(text, sizeof text, data, size, BASE64URL));
}

struct buf unsigned_token(const char *header, const char *claims)
{
    struct buf token = {0};
    append_part(&token, header, strlen(header));
    buf_append_char(&token, '.');
    append_part(&token, claims, strlen(claims));
    return token;
}

struct buf hs256_token(const char *header, const char *claims, const char *secret)
{
    struct buf token = unsigned_token(header, claims);
    uint8_t mac[32];
    HMAC(EVP_sha256(), secret, (int)strlen(secret), token.data, token.size, mac, NULL);
    buf_append_char(&token, '.');
    append_part(&token, mac, sizeof mac);
    return token;
}

enum jwt_result verify_at(const char *token, size_t size, int64_t wall_s)
{
    /* A heap copy without a NUL, so that the sanitizer sees any read past the end. */
    char *copy = mem_dup(token, size);
    struct jwt_claims claims, before;
    memset(&claims, 0x5a, sizeof claims);
    before = claims;
    enum jwt_result result = jwt_verify(ring, copy, size, wall_s, &claims);
    if (result == JWT_OK)
        jwt_claims_done(&claims);
    else
        ck_assert_msg(memcmp(&claims, &before, sizeof claims) == 0, "claims touched on failure");
    free(copy);
    return result;
}

enum jwt_result verify_text(const char *token)
{
    return verify_at(token, strlen(token), NOW_S);
}

enum jwt_result verify_buf(struct buf token)
{
    enum jwt_result result = verify_at((const char *)token.data, token.size, NOW_S);
    buf_done(&token);
    return result;
}

enum jwt_result verify_claims_at(const char *claims, int64_t wall_s)
{
    struct buf token = hs256_token(HS256_HEADER, claims, SECRET);
    enum jwt_result result = verify_at((const char *)token.data, token.size, wall_s);
    buf_done(&token);
    return result;
}

enum jwt_result verify_with(const char *more)
{
    struct buf claims = {0};
    buf_printf(&claims, "{\"iss\":\"API1\",\"exp\":1900000100,%s}", more);
    enum jwt_result result = verify_claims_at(buf_str(&claims), NOW_S);
    buf_done(&claims);
    return result;
}
