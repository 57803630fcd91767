/* Resume tokens. The input is tried as a token as it is, and, because no fuzzer guesses a key, as the content of a
 * token that is then properly sealed. Whatever opens must survive being sealed and opened again. */
#include "common/token.h"
#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum { PREFIX_SIZE = 2, NONCE_SIZE = 24, TAG_SIZE = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void open_text(const struct token_keys *keys, const char *text, size_t size)
{
    struct resume_token token;
    enum resume_token_result result = resume_token_open(keys, text, size, 1900000000, &token);
    if (result != RESUME_TOKEN_OK)
        return;
    struct resume_token again;
    char *sealed = resume_token_seal(keys, &token);
    result = resume_token_open(keys, sealed, strlen(sealed), 1900000000, &again);
    assert(result == RESUME_TOKEN_OK && sid_equal(&token.sid, &again.sid) && strcmp(token.room, again.room) == 0 &&
           token.bind_generation == again.bind_generation && token.grants_size == again.grants_size);
    free(sealed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct token_keys keys;
    if (keys.count == 0)
        token_key_init(&keys, "fuzz secret", "older fuzz secret");
    open_text(&keys, (const char *)data, size);

    uint8_t sealed[RESUME_TOKEN_TEXT_MAX] = {1, keys.keys[0].id};
    if (size > sizeof sealed - PREFIX_SIZE - NONCE_SIZE - TAG_SIZE)
        return 0;
    unsigned long long cipher_size;
    crypto_aead_xchacha20poly1305_ietf_encrypt(sealed + PREFIX_SIZE + NONCE_SIZE, &cipher_size, data, size, sealed,
                                               PREFIX_SIZE, NULL, sealed + PREFIX_SIZE, keys.keys[0].bytes);
    char text[2 * RESUME_TOKEN_TEXT_MAX];
    sodium_bin2base64(text, sizeof text, sealed, PREFIX_SIZE + NONCE_SIZE + (size_t)cipher_size,
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    open_text(&keys, text, strlen(text));
    return 0;
}
