#include "gateway/tls.h"

#include "common/clock.h"
#include "common/mem.h"
#include <assert.h>
#include <errno.h>
#include <h2o.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TICKET_NAME_SIZE = 16, TICKET_AES_SIZE = 32, TICKET_MAC_SIZE = 32, DIGEST_SIZE = 32 };

struct ticket_key {
    uint8_t name[TICKET_NAME_SIZE];
    uint8_t aes[TICKET_AES_SIZE];
    uint8_t mac[TICKET_MAC_SIZE];
};

static const char cipher_list[] = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
                                  "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
                                  "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
static const char cipher_suites[] = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
/* HTTP/2 is off: this H2O has no defence against rapid resets, and WebSockets gain nothing from it. */
static char http_1_1[] = "http/1.1";
static const h2o_iovec_t alpn_protocols[] = {{http_1_1, sizeof(http_1_1) - 1}, {NULL}};

static void derive(const char *secret, const char *purpose, int64_t period, uint8_t digest[DIGEST_SIZE])
{
    char label[64];
    unsigned size = DIGEST_SIZE;
    int label_size = snprintf(label, sizeof(label), "signalbox tls ticket %s %lld", purpose, (long long)period);
    const uint8_t *made =
        HMAC(EVP_sha256(), secret, (int)strlen(secret), (const uint8_t *)label, (size_t)label_size, digest, &size);
    assert(made != NULL && size == DIGEST_SIZE);
}

static struct ticket_key ticket_key_of(const char *secret, int64_t period)
{
    struct ticket_key key;
    uint8_t name[DIGEST_SIZE];
    derive(secret, "name", period, name);
    memcpy(key.name, name, sizeof(key.name));
    derive(secret, "encryption", period, key.aes);
    derive(secret, "authentication", period, key.mac);
    return key;
}

static int ticket_init(const struct ticket_key *key, const EVP_CIPHER *aes, uint8_t *iv, EVP_CIPHER_CTX *cipher,
                       EVP_MAC_CTX *mac, int encrypt)
{
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)key->mac, sizeof(key->mac)),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_end()};
    return EVP_CipherInit_ex2(cipher, aes, key->aes, iv, encrypt, NULL) == 1 && EVP_MAC_CTX_set_params(mac, params) == 1
               ? 1
               : -1;
}

/* A ticket of the next period may come, too, because another gateway's clock may be a little ahead. */
enum { KEY_NEXT, KEY_NOW, KEY_BEFORE, TICKET_KEYS };

struct ticket_secret {
    char *text; /* NULL: there is none */
    struct ticket_key keys[TICKET_KEYS];
};

struct ticket_secrets {
    struct ticket_secret current, previous;
    int64_t period; /* of KEY_NOW */
    EVP_CIPHER *aes;
};

static void free_secrets(void *parent, void *ptr, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
    struct ticket_secrets *secrets = ptr;
    if (secrets == NULL)
        return;
    EVP_CIPHER_free(secrets->aes);
    free(secrets->current.text);
    free(secrets->previous.text);
    free(secrets);
}

static int secrets_index(void)
{
    static int index = -1;
    if (index < 0)
        index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_secrets);
    return index;
}

static void derive_keys(struct ticket_secret *secret, int64_t period)
{
    for (int i = 0; secret->text != NULL && i < TICKET_KEYS; i++)
        secret->keys[i] = ticket_key_of(secret->text, period + KEY_NOW - i);
}

/* Once a period, as each handshake would pay for it. */
static struct ticket_secrets *secrets_now(SSL *ssl)
{
    struct ticket_secrets *secrets = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), secrets_index());
    int64_t period = clock_wall_s() / TLS_TICKET_PERIOD_S;
    if (secrets->period != period) {
        derive_keys(&secrets->current, period);
        derive_keys(&secrets->previous, period);
        secrets->period = period;
    }
    return secrets;
}

/* Which of the keys that still count has made the ticket of this name; TICKET_KEYS: none. */
static int find_key(const struct ticket_secret *secret, const unsigned char *name)
{
    int i = secret->text != NULL ? 0 : TICKET_KEYS;
    while (i < TICKET_KEYS && memcmp(name, secret->keys[i].name, sizeof(secret->keys[i].name)) != 0)
        i++;
    return i;
}

static int ticket_cb(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                     int encrypt)
{
    const struct ticket_secrets *secrets = secrets_now(ssl);
    const struct ticket_secret *made_with = &secrets->current;

    if (encrypt) {
        const struct ticket_key *key = &secrets->current.keys[KEY_NOW];
        if (RAND_bytes(iv, EVP_MAX_IV_LENGTH) != 1)
            return -1;
        memcpy(name, key->name, sizeof(key->name));
        return ticket_init(key, secrets->aes, iv, cipher, mac, 1);
    }
    int made = find_key(made_with, name);
    if (made == TICKET_KEYS) {
        made_with = &secrets->previous;
        made = find_key(made_with, name);
    }
    if (made == TICKET_KEYS)
        return 0;
    int result = ticket_init(&made_with->keys[made], secrets->aes, iv, cipher, mac, 0);
    /* 2: and give the client a new ticket */
    return result == 1 && (made_with == &secrets->previous || made == KEY_BEFORE) ? 2 : result;
}

static void set_up_tickets(SSL_CTX *context, const struct tls_options *options)
{
    SSL_CTX_set_num_tickets(context, 1);
    if (options->ticket_secret == NULL)
        return;
    struct ticket_secrets *secrets = mem_new(struct ticket_secrets);
    secrets->period = INT64_MIN;
    secrets->current.text = mem_strdup(options->ticket_secret);
    if (options->previous_ticket_secret != NULL)
        secrets->previous.text = mem_strdup(options->previous_ticket_secret);
    secrets->aes = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    assert(secrets->aes != NULL);
    SSL_CTX_set_ex_data(context, secrets_index(), secrets);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(context, ticket_cb);
}

static SSL_CTX *fail(SSL_CTX *context, const char *key, const char *file, const char *advice, char *error,
                     size_t error_size)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = access(file, R_OK) != 0 ? strerror(errno) : ERR_reason_error_string(code);
    snprintf(error, error_size, "%s %s: %s; %s", key, file, reason ? reason : "not usable", advice);
    ERR_clear_error();
    SSL_CTX_free(context);
    return NULL;
}

SSL_CTX *tls_context_new(const struct tls_options *options, char *error, size_t error_size)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    assert(context != NULL);
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    /* The file holds the whole chain; without the second flag OpenSSL would look for the rest of it at each handshake.
     */
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    static const unsigned char session_context[] = "signalbox";
    SSL_CTX_set_session_id_context(context, session_context, sizeof(session_context) - 1);
    int set = SSL_CTX_set_cipher_list(context, cipher_list) == 1 &&
              SSL_CTX_set_ciphersuites(context, cipher_suites) == 1 &&
              SSL_CTX_set1_groups_list(context, "X25519:P-256") == 1;
    assert(set);
    h2o_ssl_register_alpn_protocols(context, alpn_protocols);
    set_up_tickets(context, options);

    ERR_clear_error();
    if (SSL_CTX_use_certificate_chain_file(context, options->certificate_file) != 1)
        return fail(context, "tls.certificate_file", options->certificate_file,
                    "it must be readable and hold the certificate and its chain in PEM", error, error_size);
    if (SSL_CTX_use_PrivateKey_file(context, options->key_file, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context) != 1)
        return fail(context, "tls.key_file", options->key_file,
                    "it must be readable and hold the certificate's private key in PEM", error, error_size);
    return context;
}
