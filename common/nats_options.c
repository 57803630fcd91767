#include "common/nats_options.h"
#include "common/mem.h"
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* NKeys (github.com/nats-io/nkeys): base32 without padding of prefix bytes, key and a little-endian CRC-16/XMODEM. */
enum {
    NKEY_SEED_TEXT_SIZE = 58,
    NKEY_SEED_BYTES = 36,    /* 2 of prefix, 32 of seed, 2 of checksum */
    NKEY_PUBLIC_BYTES = 35,  /* 1 of prefix, 32 of key, 2 of checksum */
    NKEY_PREFIX_SEED = 0x90, /* 'S' */
    NKEY_PREFIX_USER = 0xa0, /* 'U' */
};
static const char base32_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

static uint16_t crc16(const uint8_t *data, size_t size)
{
    uint16_t crc = 0;

    for (size_t i = 0; i < size; i++) {
        crc ^= (uint16_t)(data[i] << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1);
    }
    return crc;
}

static bool base32_decode(const char *text, size_t text_size, uint8_t *data, size_t data_size)
{
    uint32_t bits = 0;
    unsigned bit_count = 0;
    size_t written = 0;

    for (size_t i = 0; i < text_size; i++) {
        const char *digit = text[i] ? strchr(base32_alphabet, text[i]) : NULL;
        if (!digit)
            return false;
        bits = (bits << 5 | (uint32_t)(digit - base32_alphabet)) & 0xfff;
        bit_count += 5;
        if (bit_count >= 8 && written < data_size) {
            bit_count -= 8;
            data[written++] = (uint8_t)(bits >> bit_count);
        }
    }
    return written == data_size;
}

static void base32_encode(const uint8_t *data, size_t data_size, char *text)
{
    uint32_t bits = 0;
    unsigned bit_count = 0;

    for (size_t i = 0; i < data_size; i++) {
        bits = (bits << 8 | data[i]) & 0xfff;
        bit_count += 8;
        while (bit_count >= 5) {
            bit_count -= 5;
            *text++ = base32_alphabet[bits >> bit_count & 31];
        }
    }
    *text = '\0';
}

bool nkey_public_from_seed(const char *seed, char ret_public[NKEY_PUBLIC_SIZE + 1])
{
    uint8_t raw[NKEY_SEED_BYTES], secret[crypto_sign_SECRETKEYBYTES], public[NKEY_PUBLIC_BYTES];
    bool valid = strlen(seed) == NKEY_SEED_TEXT_SIZE && base32_decode(seed, NKEY_SEED_TEXT_SIZE, raw, sizeof(raw));

    valid = valid && crc16(raw, 34) == (raw[34] | raw[35] << 8) && (raw[0] & 0xf8) == NKEY_PREFIX_SEED &&
            (((raw[0] & 7) << 5) | (raw[1] & 0xf8) >> 3) == NKEY_PREFIX_USER;
    if (valid) {
        public[0] = NKEY_PREFIX_USER;
        crypto_sign_seed_keypair(public + 1, secret, raw + 2);
        uint16_t crc = crc16(public, 33);
        public[33] = (uint8_t)crc;
        public[34] = (uint8_t)(crc >> 8);
        base32_encode(public, sizeof(public), ret_public);
        sodium_memzero(secret, sizeof(secret));
    }
    sodium_memzero(raw, sizeof(raw));
    return valid;
}

static natsStatus set_nkey(natsOptions *library, const char *path, char detail[NATS_DETAIL_MAX])
{
    char seed[NKEY_SEED_TEXT_SIZE + 2] = "", public[NKEY_PUBLIC_SIZE + 1];
    FILE *file = fopen(path, "re");

    if (!file) {
        snprintf(detail, NATS_DETAIL_MAX, "cannot read the nkey seed file %s: %s", path, strerror(errno));
        return NATS_ERR;
    }
    setbuf(file, NULL); /* stdio's buffer would keep the secret */
    bool valid = fgets(seed, sizeof(seed), file) != NULL;
    fclose(file);
    seed[strcspn(seed, "\r\n")] = '\0';
    valid = valid && nkey_public_from_seed(seed, public);
    sodium_memzero(seed, sizeof(seed));
    if (!valid) {
        snprintf(detail, NATS_DETAIL_MAX, "%s holds no user nkey seed (SU...)", path);
        return NATS_ERR;
    }
    return natsOptions_SetNKeyFromSeed(library, public, path);
}

static bool wants_tls(const struct bus_options *from)
{
    for (size_t i = 0; i < from->server_count; i++) {
        if (strncmp(from->servers[i], "tls://", 6) == 0)
            return true;
    }
    return from->tls_ca_file || from->tls_cert_file;
}

static natsStatus set_all(natsOptions *library, const struct bus_options *from, char detail[NATS_DETAIL_MAX])
{
    natsStatus s = natsOptions_SetAllowReconnect(library, false);

    if (s == NATS_OK)
        s = natsOptions_SetPingInterval(library, 0);
    if (s == NATS_OK)
        s = natsOptions_SetSendAsap(library, true);
    if (s == NATS_OK)
        s = natsOptions_SetIgnoreDiscoveredServers(library, true);
    if (s == NATS_OK)
        s = natsOptions_SetTimeout(library, NATS_CONNECT_TIMEOUT_MS);
    if (s == NATS_OK && from->name)
        s = natsOptions_SetName(library, from->name);
    if (s == NATS_OK && from->user)
        s = natsOptions_SetUserInfo(library, from->user, from->password);
    if (s == NATS_OK && from->nkey_seed_file)
        s = set_nkey(library, from->nkey_seed_file, detail);
    return s;
}

/* Whatever is set of TLS while a connection made with these options lives, the library sets in a context of its own and
 * new: without the authority and the certificate, and for good. So all of it is set before each connect. That takes
 * renewed files, too. */
static natsStatus set_tls(struct nats_options *options, const char *host)
{
    natsStatus s = natsOptions_SetSecure(options->library, true);

    /* The name that the server's certificate must bear: the library may check none unless it is told one. */
    if (s == NATS_OK && host)
        s = natsOptions_SetExpectedHostname(options->library, host);
    if (s == NATS_OK && options->tls_ca_file)
        s = natsOptions_LoadCATrustedCertificates(options->library, options->tls_ca_file);
    if (s == NATS_OK && options->tls_cert_file)
        s = natsOptions_LoadCertificatesChain(options->library, options->tls_cert_file, options->tls_key_file);
    return s;
}

int nats_options_init(struct nats_options *options, const struct bus_options *from, char ret_detail[NATS_DETAIL_MAX])
{
    sigset_t all, before;

    assert(from->server_count > 0);
    *options = (struct nats_options){.servers = mem_zalloc(from->server_count * sizeof(char *))};
    for (size_t i = 0; i < from->server_count; i++)
        options->servers[i] = mem_strdup(from->servers[i]);
    options->server_count = from->server_count;
    options->secure = wants_tls(from);
    options->tls_ca_file = from->tls_ca_file ? mem_strdup(from->tls_ca_file) : NULL;
    options->tls_cert_file = from->tls_cert_file ? mem_strdup(from->tls_cert_file) : NULL;
    options->tls_key_file = from->tls_key_file ? mem_strdup(from->tls_key_file) : NULL;
    options->server_next = arc4random_uniform((uint32_t)from->server_count);
    ret_detail[0] = '\0';

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    natsStatus s = natsOptions_Create(&options->library);
    pthread_sigmask(SIG_SETMASK, &before, NULL);

    if (s == NATS_OK)
        s = set_all(options->library, from, ret_detail);
    if (s == NATS_OK && options->secure)
        s = set_tls(options, NULL);
    if (s == NATS_OK)
        return 0;
    if (ret_detail[0] == '\0') {
        const char *text = nats_GetLastError(NULL);
        snprintf(ret_detail, NATS_DETAIL_MAX, "%s", text && *text ? text : natsStatus_GetText(s));
    }
    return -1;
}

void nats_options_done(struct nats_options *options)
{
    natsOptions_Destroy(options->library);
    for (size_t i = 0; i < options->server_count; i++)
        free(options->servers[i]);
    free(options->servers);
    free(options->tls_ca_file);
    free(options->tls_cert_file);
    free(options->tls_key_file);
    *options = (struct nats_options){0};
}

const char *nats_options_next_server(struct nats_options *options)
{
    const char *url = options->servers[options->server_next];
    const char *scheme_end = strstr(url, "://");
    const char *start = scheme_end ? scheme_end + 3 : url;
    const char *at = strrchr(start, '@');

    snprintf(options->address, sizeof(options->address), "%s", at ? at + 1 : start);
    options->server_next = (options->server_next + 1) % options->server_count;
    natsOptions_SetServers(options->library, &url, 1);
    if (options->secure) {
        char host[sizeof(options->address)];
        bool bracketed = options->address[0] == '[';
        int size = (int)strcspn(options->address + bracketed, bracketed ? "]" : ":/");
        snprintf(host, sizeof(host), "%.*s", size, options->address + bracketed);
        set_tls(options, host); /* a file that cannot be read now fails the handshake, which says so */
    }
    return options->address;
}
