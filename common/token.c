#include "common/token.h"
#include "common/mem.h"
#include "proto/cluster.pb-c.h"
#include <assert.h>
#include <sodium.h>
#include <string.h>

enum {
    FORMAT_VERSION = 1,
    CONTENT_VERSION = 1,
    PREFIX_SIZE = 2, /* format version and key id: authenticated, not encrypted */
    NONCE_SIZE = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
    TAG_SIZE = crypto_aead_xchacha20poly1305_ietf_ABYTES,
    SEALED_MAX = RESUME_TOKEN_TEXT_MAX / 4 * 3,
    CONTENT_MAX = SEALED_MAX - PREFIX_SIZE - NONCE_SIZE - TAG_SIZE,
    BASE64URL = sodium_base64_VARIANT_URLSAFE_NO_PADDING,
};

static void key_derive(struct token_key *key, const char *secret)
{
    /* The label keeps this key apart from whatever else is derived from the cluster's secret. */
    static const char label[] = "signalbox resume token 1";
    uint8_t derived[TOKEN_KEY_SIZE + 1];
    crypto_generichash_state hash;
    crypto_generichash_init(&hash, NULL, 0, sizeof derived);
    crypto_generichash_update(&hash, (const uint8_t *)label, sizeof label);
    crypto_generichash_update(&hash, (const uint8_t *)secret, strlen(secret));
    crypto_generichash_final(&hash, derived, sizeof derived);
    memcpy(key->bytes, derived, TOKEN_KEY_SIZE);
    key->id = derived[TOKEN_KEY_SIZE];
    sodium_memzero(derived, sizeof derived);
}

void token_key_init(struct token_keys *keys, const char *current_secret, const char *previous_secret_or_null)
{
    int ready = sodium_init();
    assert(ready >= 0);
    *keys = (struct token_keys){.count = 1};
    key_derive(&keys->keys[0], current_secret);
    if (previous_secret_or_null)
        key_derive(&keys->keys[keys->count++], previous_secret_or_null);
}

/* Packs into `content`, which has CONTENT_MAX bytes. */
static size_t content_pack(const struct resume_token *token, uint8_t *content)
{
    Signalbox__Cluster__V1__Epoch epoch = SIGNALBOX__CLUSTER__V1__EPOCH__INIT;
    epoch.view_generation = token->epoch_view_generation;
    epoch.view_seq = token->epoch_view_seq;
    epoch.counter = token->epoch_counter;
    epoch.incarnation = token->epoch_incarnation;
    Signalbox__Cluster__V1__ResumeToken message = SIGNALBOX__CLUSTER__V1__RESUME_TOKEN__INIT;
    message.version = CONTENT_VERSION;
    message.sid = (ProtobufCBinaryData){sizeof token->sid.bytes, (uint8_t *)token->sid.bytes};
    message.project = (char *)token->project;
    message.room = (char *)token->room;
    message.identity = (char *)token->identity;
    message.epoch = &epoch;
    message.join_seq = token->join_seq;
    message.bind_generation = token->bind_generation;
    message.expires_s = token->expires_s;
    message.key_id = (char *)token->key_id;
    message.grants = (ProtobufCBinaryData){token->grants_size, (uint8_t *)token->grants};
    message.kind = (Signalbox__V1__Participant__Kind)token->kind;
    message.joined_at_ms = token->joined_at_ms;
    message.access_expires_s = token->access_expires_s;
    message.resume_window_ms = token->resume_window_ms;
    message.budget_percent = token->budget_percent;
    message.room_budget_percent = token->room_budget_percent;
    message.grants_version = token->grants_version;
    assert(signalbox__cluster__v1__resume_token__get_packed_size(&message) <= CONTENT_MAX);
    return signalbox__cluster__v1__resume_token__pack(&message, content);
}

char *resume_token_seal(const struct token_keys *keys, const struct resume_token *token)
{
    uint8_t content[CONTENT_MAX], sealed[SEALED_MAX];
    size_t content_size = content_pack(token, content);
    uint8_t *nonce = sealed + PREFIX_SIZE;
    unsigned long long cipher_size;
    sealed[0] = FORMAT_VERSION;
    sealed[1] = keys->keys[0].id;
    randombytes_buf(nonce, NONCE_SIZE);
    crypto_aead_xchacha20poly1305_ietf_encrypt(nonce + NONCE_SIZE, &cipher_size, content, content_size, sealed,
                                               PREFIX_SIZE, NULL, nonce, keys->keys[0].bytes);
    size_t sealed_size = PREFIX_SIZE + NONCE_SIZE + (size_t)cipher_size;
    size_t text_size = sodium_base64_encoded_len(sealed_size, BASE64URL);
    return sodium_bin2base64(mem_alloc(text_size), text_size, sealed, sealed_size, BASE64URL);
}

static bool copy_text(char *target, size_t capacity, const char *text)
{
    size_t size = strlen(text);
    if (size >= capacity)
        return false;
    memcpy(target, text, size + 1);
    return true;
}

static bool content_read(const Signalbox__Cluster__V1__ResumeToken *message, struct resume_token *token)
{
    if (!message->epoch || message->sid.len != sizeof token->sid.bytes || message->grants.len > sizeof token->grants ||
        !copy_text(token->project, sizeof token->project, message->project) ||
        !copy_text(token->room, sizeof token->room, message->room) ||
        !copy_text(token->identity, sizeof token->identity, message->identity) ||
        !copy_text(token->key_id, sizeof token->key_id, message->key_id))
        return false;
    memcpy(token->sid.bytes, message->sid.data, message->sid.len);
    if (message->grants.len > 0)
        memcpy(token->grants, message->grants.data, message->grants.len);
    token->grants_size = message->grants.len;
    token->epoch_view_generation = message->epoch->view_generation;
    token->epoch_view_seq = message->epoch->view_seq;
    token->epoch_counter = message->epoch->counter;
    token->epoch_incarnation = message->epoch->incarnation;
    token->join_seq = message->join_seq;
    token->bind_generation = message->bind_generation;
    token->expires_s = message->expires_s;
    token->kind = (uint32_t)message->kind;
    token->joined_at_ms = message->joined_at_ms;
    token->access_expires_s = message->access_expires_s;
    token->resume_window_ms = message->resume_window_ms;
    token->budget_percent = message->budget_percent;
    token->room_budget_percent = message->room_budget_percent;
    token->grants_version = message->grants_version;
    return true;
}

static enum resume_token_result content_unpack(const uint8_t *content, size_t size, struct resume_token *token)
{
    Signalbox__Cluster__V1__ResumeToken *message = signalbox__cluster__v1__resume_token__unpack(NULL, size, content);
    if (!message)
        return RESUME_TOKEN_MALFORMED;
    enum resume_token_result result = RESUME_TOKEN_OK;
    if (message->version != CONTENT_VERSION)
        result = RESUME_TOKEN_VERSION;
    else if (!content_read(message, token))
        result = RESUME_TOKEN_MALFORMED;
    signalbox__cluster__v1__resume_token__free_unpacked(message, NULL);
    return result;
}

enum resume_token_result resume_token_open(const struct token_keys *keys, const char *text, size_t size, int64_t wall_s,
                                           struct resume_token *ret_token)
{
    uint8_t sealed[SEALED_MAX], content[CONTENT_MAX];
    size_t sealed_size;
    if (size > RESUME_TOKEN_TEXT_MAX ||
        sodium_base642bin(sealed, sizeof sealed, text, size, NULL, &sealed_size, NULL, BASE64URL) != 0 ||
        sealed_size < PREFIX_SIZE + NONCE_SIZE + TAG_SIZE)
        return RESUME_TOKEN_MALFORMED;
    if (sealed[0] != FORMAT_VERSION)
        return RESUME_TOKEN_VERSION;

    const uint8_t *nonce = sealed + PREFIX_SIZE, *cipher = nonce + NONCE_SIZE;
    unsigned long long content_size = 0;
    bool opened = false;
    for (size_t i = 0; i < keys->count && !opened; i++)
        opened = keys->keys[i].id == sealed[1] &&
                 crypto_aead_xchacha20poly1305_ietf_decrypt(content, &content_size, NULL, cipher,
                                                            sealed_size - PREFIX_SIZE - NONCE_SIZE, sealed, PREFIX_SIZE,
                                                            nonce, keys->keys[i].bytes) == 0;
    if (!opened)
        return RESUME_TOKEN_FORGED;

    struct resume_token token = {0};
    enum resume_token_result result = content_unpack(content, (size_t)content_size, &token);
    if (result == RESUME_TOKEN_OK && wall_s >= token.expires_s)
        result = RESUME_TOKEN_EXPIRED;
    if (result == RESUME_TOKEN_OK)
        *ret_token = token;
    return result;
}
