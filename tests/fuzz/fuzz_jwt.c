/* Access tokens. The input is tried as a token as it is, and, because no fuzzer guesses an HMAC, as the claims of a
 * token that is then properly signed. */
#include "common/jwt.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { NOW_S = 1900000000, LEEWAY_S = 10 };

#define SECRET "fuzz-secret-fuzz-secret-fuzz-secret"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void verify(const struct jwt_keyring *ring, const char *token, size_t size, bool is_signed)
{
    struct jwt_claims claims;
    enum jwt_result result = jwt_verify(ring, token, size, NOW_S, &claims);
    if (result == JWT_OK) {
        assert(strlen(claims.identity) <= IDENTITY_MAX && claims.expires_s + LEEWAY_S > NOW_S);
        jwt_claims_done(&claims);
    }
    assert(!is_signed || result != JWT_SIGNATURE);
    assert(*jwt_result_name(result) && *jwt_result_text(result));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct jwt_keyring *ring;
    char error[128];
    if (!ring) {
        ring = jwt_keyring_new(LEEWAY_S);
        jwt_keyring_add_secret(ring, "fuzz", "API", SECRET, error, sizeof error);
    }
    verify(ring, (const char *)data, size, false);
    json_t *claims = json_loadb((const char *)data, size, 0, NULL);
    if (json_is_object(claims)) {
        char *token = jwt_mint(SECRET, claims);
        verify(ring, token, strlen(token), true);
        free(token);
    }
    json_decref(claims);
    return 0;
}
