/* TURN credentials that expire by themselves, in coturn's shared-secret form (its `use-auth-secret`; after
 * draft-uberti-behave-turn-rest): the username is `<unix expiry>:<user>`, the password
 * base64(HMAC-SHA1(secret, username)). Gateway and TURN server share nothing but the secret.
 *
 * Threading: pure functions.
 */
#ifndef SBX_GATEWAY_TURN_H
#define SBX_GATEWAY_TURN_H

#include <stddef.h>
#include <stdint.h>

enum {
    TURN_USER_MAX = 128,                             /* longer ones are cut */
    TURN_USERNAME_SIZE = 20 + 1 + TURN_USER_MAX + 1, /* with the NUL */
    TURN_PASSWORD_SIZE = 28 + 1,
};

/* The buffers have at least the sizes above. */
void turn_credentials(const char *secret, const char *user, int64_t expires_s, char *username, size_t username_size,
                      char *password, size_t password_size);

#endif
