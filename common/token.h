/* Resume tokens: what a client shows to any gateway to get its session back.
 *
 * A token is a signalbox.cluster.v1.ResumeToken, encrypted and authenticated under the cluster's secret
 * (XChaCha20-Poly1305, random nonce) and written as base64url without padding:
 *
 *     format version (1 byte) | key id (1) | nonce (24) | ciphertext and tag
 *
 * Clients can neither read nor change it. The key id is derived from the secret, so that during a rotation tokens under
 * the current and the previous secret are both good; new ones are sealed under the current one.
 *
 * Ownership: struct token_keys is embedded and owns nothing. Threading: any thread once the keys are set.
 */
#ifndef SBX_COMMON_TOKEN_H
#define SBX_COMMON_TOKEN_H

#include "common/ids.h"
#include <stddef.h>
#include <stdint.h>

enum {
    RESUME_TOKEN_TEXT_MAX = 1024, /* a longer text is refused unread */
    RESUME_TOKEN_KEY_ID_MAX = 63,
    RESUME_TOKEN_GRANTS_MAX = 64,
    TOKEN_KEY_SIZE = 32,
};

enum resume_token_result {
    RESUME_TOKEN_OK = 0,
    RESUME_TOKEN_MALFORMED = -1, /* not a resume token at all */
    RESUME_TOKEN_FORGED = -2,    /* not sealed under the current or the previous secret, or changed since */
    RESUME_TOKEN_EXPIRED = -3,
    RESUME_TOKEN_VERSION = -4, /* sealed by a release that writes another form */
};

struct token_key {
    uint8_t bytes[TOKEN_KEY_SIZE];
    uint8_t id;
};

struct token_keys {
    struct token_key keys[2]; /* current, previous */
    size_t count;
};

struct resume_token {
    struct sid sid;
    char project[PROJECT_MAX + 1];
    char room[ROOM_NAME_MAX + 1];
    char identity[IDENTITY_MAX + 1];
    /* The room's epoch when the session joined, and the seq of the join in it. */
    uint64_t epoch_view_generation, epoch_view_seq, epoch_counter, epoch_incarnation, join_seq;
    uint64_t bind_generation;
    int64_t expires_s;                        /* Unix time */
    char key_id[RESUME_TOKEN_KEY_ID_MAX + 1]; /* of the access token: a withdrawn key ends its sessions */
    /* What a rebuilt owner needs to seat the session again. */
    uint8_t grants[RESUME_TOKEN_GRANTS_MAX]; /* packed signalbox.v1.Permissions */
    size_t grants_size;
    uint32_t kind; /* signalbox.v1.Participant.Kind */
    int64_t joined_at_ms, access_expires_s;
    uint32_t resume_window_ms;
    uint32_t budget_percent, room_budget_percent; /* 0: as configured */
    uint32_t grants_version;                      /* of `grants`: grows with each access token that changed them */
};

/* Derives the keys. The secrets are the operator's, their strength was checked with the configuration. */
void token_key_init(struct token_keys *keys, const char *current_secret, const char *previous_secret_or_null);

/* Heap string of at most RESUME_TOKEN_TEXT_MAX characters. */
char *resume_token_seal(const struct token_keys *keys, const struct resume_token *token);

/* Opens `text` (no NUL needed). ret_token is untouched on failure. */
enum resume_token_result resume_token_open(const struct token_keys *keys, const char *text, size_t size, int64_t wall_s,
                                           struct resume_token *ret_token);

#endif
