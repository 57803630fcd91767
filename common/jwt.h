/* Access tokens: JSON Web Tokens (RFC 7519, JWS compact form RFC 7515) in the shape that LiveKit's server SDKs mint.
 *
 * Accepted: HS256 with a project's API key and secret (`iss` names the key); RS256, ES256 and EdDSA with keys from a
 * JWKS file (RFC 7517). The algorithm belongs to the key, never to the token's header: a token whose `alg` differs from
 * its key's is refused. `typ` and `kid` may be absent: a `kid` that names a JWKS key selects it, a token without one
 * (and any HS256 token) is looked up by its `iss`. A header with `crit` is refused. Required claims: iss, exp; `sub`
 * for a join, which the caller checks. `aud` is not judged: what a token allows comes from its `video` grants alone.
 *
 * Nothing but the key's name is read from the claims before the signature is good, so a forged token that has also
 * expired is JWT_SIGNATURE.
 *
 * Ownership: a keyring is not changed any more once it is shared, and is reference-counted; rotation makes a new one.
 * Threading: loop thread. Free of I/O except jwt_keyring_add_jwks_file().
 */
#ifndef SBX_COMMON_JWT_H
#define SBX_COMMON_JWT_H

#include "common/ids.h"
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    JWT_TOKEN_MAX = 8192,
    JWT_SECRET_MIN = 32,
    JWT_KEY_ID_MAX = 63,
    JWT_SOURCES_MAX = 16,
    JWT_REGIONS_MAX = 64,
    JWT_ATTRIBUTES_MAX = 64,
    JWT_RESUME_WINDOW_MAX_S = 86400,
    JWT_BUDGET_PERCENT_MAX = 10000,
};

enum jwt_result {
    JWT_OK = 0,
    JWT_MALFORMED = -1, /* not a compact JWS with JSON objects inside, or one that uses `crit` */
    JWT_TOO_LARGE = -2,
    JWT_ALGORITHM = -3, /* not the key's algorithm, "none", or unknown */
    JWT_UNKNOWN_KEY = -4,
    JWT_SIGNATURE = -5,
    JWT_EXPIRED = -6,
    JWT_NOT_YET_VALID = -7,
    JWT_CLAIMS = -8, /* a claim is missing, has the wrong type or is out of bounds */
};

/* Stable snake_case name, for metrics labels, problem bodies and logs. */
const char *jwt_result_name(enum jwt_result result);
/* One sentence for whoever minted the token, saying what would be right. */
const char *jwt_result_text(enum jwt_result result);

enum jwt_tristate { GRANT_ABSENT, GRANT_NO, GRANT_YES };

/* The `video` claim. Absent canPublish, canSubscribe and canPublishData mean allowed. */
struct jwt_grants {
    bool room_create, room_list, room_record, room_admin, room_join, hidden, recorder, agent, ingress_admin;
    bool sfu; /* Signalbox: may join as a media server over an agent connection */
    enum jwt_tristate can_publish, can_subscribe, can_publish_data, can_update_own_metadata;
    char room[ROOM_NAME_MAX + 1];
    char **can_publish_sources; /* NULL = all, which an empty array means too, as at LiveKit; owned */
    size_t can_publish_source_count;
    char **regions; /* Signalbox: region pins allowed; NULL = all, empty = none; owned */
    size_t region_count;
};

struct jwt_claims {
    char project[PROJECT_MAX + 1];   /* of the key that signed it */
    char key_id[JWT_KEY_ID_MAX + 1]; /* API key or JWKS kid */
    char identity[IDENTITY_MAX + 1]; /* sub; "" if absent (server tokens) */
    char *name;                      /* owned; NULL if absent */
    char *metadata;                  /* owned; NULL if absent */
    struct {
        char *key, *value;
    } * attributes; /* owned */
    size_t attribute_count;
    int64_t not_before_s, expires_s; /* Unix time; not_before_s is 0 if absent */
    uint32_t resume_window_s;        /* Signalbox: `resumeWindow`, 0 if absent */
    /* Signalbox: `budgetPercent`, `roomBudgetPercent`, of the configured limits; 0 if absent */
    uint32_t budget_percent, room_budget_percent;
    struct jwt_grants video;
};

struct jwt_keyring;

/* `leeway_s`: how far the minter's clock may differ from ours, for exp and nbf. */
struct jwt_keyring *jwt_keyring_new(int64_t leeway_s);
/* An HS256 key. -1 with a text in `error` if the secret is shorter than JWT_SECRET_MIN bytes, or the id repeats (in the
 * whole ring, whatever the project and kind of key) or is longer than JWT_KEY_ID_MAX. */
int jwt_keyring_add_secret(struct jwt_keyring *ring, const char *project, const char *key_id, const char *secret,
                           char *error, size_t error_size);
/* RSA (2048 to 8192 bits), P-256 and Ed25519 public keys. Keys of other kinds or uses are passed over, as RFC 7517
 * section 5 wants it. -1 with a text in `error`, and no key added, if the file cannot be read, a key is damaged, weak,
 * private or without a usable `kid`, or no key is left. */
int jwt_keyring_add_jwks_file(struct jwt_keyring *ring, const char *project, const char *path, char *error,
                              size_t error_size);
struct jwt_keyring *jwt_keyring_ref(struct jwt_keyring *ring);
void jwt_keyring_unref(struct jwt_keyring **ring);
bool jwt_keyring_has(const struct jwt_keyring *ring, const char *key_id);

/* Verifies `token` and fills `ret_claims` (untouched on failure). */
enum jwt_result jwt_verify(const struct jwt_keyring *ring, const char *token, size_t size, int64_t wall_s,
                           struct jwt_claims *ret_claims);
/* Leaves zeroes; a zeroed struct is fine. */
void jwt_claims_done(struct jwt_claims *claims);

/* Mints an HS256 token: signalboxctl, scripts/up, tests. `claims` is a JSON object (borrowed). Heap string. */
char *jwt_mint(const char *secret, const json_t *claims);

#endif
