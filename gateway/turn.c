#include "gateway/turn.h"

#include <assert.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

enum { SHA1_SIZE = 20 };

void turn_credentials(const char *secret, const char *user, int64_t expires_s, char *username, size_t username_size,
                      char *password, size_t password_size)
{
    uint8_t digest[SHA1_SIZE];
    unsigned digest_size = sizeof(digest);

    assert(username_size >= TURN_USERNAME_SIZE && password_size >= TURN_PASSWORD_SIZE);
    snprintf(username, username_size, "%" PRId64 ":%.*s", expires_s, TURN_USER_MAX, user);
    const uint8_t *made = HMAC(EVP_sha1(), secret, (int)strlen(secret), (const uint8_t *)username, strlen(username),
                               digest, &digest_size);
    assert(made != NULL && digest_size == SHA1_SIZE);
    EVP_EncodeBlock((uint8_t *)password, digest, SHA1_SIZE);
}
