#include "ws_client.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OPCODE_CLOSE = 8 };

void ws_client_make_certificate(const char *certificate_file, const char *key_file)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)"localhost", -1, -1, 0);
    X509_set_issuer_name(certificate, name);
    ck_assert_int_gt(X509_sign(certificate, key, EVP_sha256()), 0);

    FILE *file = fopen(certificate_file, "w");
    ck_assert(file != NULL && PEM_write_X509(file, certificate) == 1);
    fclose(file);
    file = fopen(key_file, "w");
    ck_assert(file != NULL && PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1);
    fclose(file);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

struct ws_client *ws_client_dial(unsigned port)
{
    struct ws_client *client = calloc(1, sizeof(*client));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(client->fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return client;
}

bool ws_client_handshake(struct ws_client *client, SSL_CTX *tls, SSL_SESSION *session)
{
    client->ssl = SSL_new(tls);
    SSL_set_fd(client->ssl, client->fd);
    if (session != NULL)
        SSL_set_session(client->ssl, session);
    return SSL_connect(client->ssl) == 1;
}

struct ws_client *ws_client_connect(unsigned port, SSL_CTX *tls, SSL_SESSION *session)
{
    struct ws_client *client = ws_client_dial(port);
    if (tls != NULL && !ws_client_handshake(client, tls, session))
        ws_client_close(&client);
    return client;
}

void ws_client_close(struct ws_client **client_ptr)
{
    struct ws_client *client = *client_ptr;
    *client_ptr = NULL;
    if (client == NULL)
        return;
    /* Without it OpenSSL holds the session for bad and does not resume it. */
    if (client->ssl != NULL)
        SSL_shutdown(client->ssl);
    SSL_free(client->ssl);
    close(client->fd);
    free(client);
}

void ws_client_write(struct ws_client *client, const void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        const uint8_t *at = (const uint8_t *)data + done;
        ssize_t n = client->ssl != NULL ? SSL_write(client->ssl, at, (int)(size - done))
                                        : send(client->fd, at, size - done, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* the server has closed; what it said is still to be read */
        done += (size_t)n;
    }
}

/* False at the end of the connection. */
static bool fill(struct ws_client *client, size_t wanted)
{
    while (client->input_size < wanted) {
        uint8_t *at = client->input + client->input_size;
        size_t room = sizeof(client->input) - client->input_size;
        ssize_t n = client->ssl != NULL ? SSL_read(client->ssl, at, (int)room) : recv(client->fd, at, room, 0);
        if (n <= 0)
            return false;
        client->input_size += (size_t)n;
    }
    return true;
}

static void take(struct ws_client *client, void *data, size_t size)
{
    if (data != NULL)
        memcpy(data, client->input, size);
    client->input_size -= size;
    memmove(client->input, client->input + size, client->input_size);
}

const char *ws_client_request(struct ws_client *client, const char *request)
{
    static _Thread_local char response[65536];
    const uint8_t *end;

    ws_client_write(client, request, strlen(request));
    while ((end = memmem(client->input, client->input_size, "\r\n\r\n", 4)) == NULL)
        if (!fill(client, client->input_size + 1))
            return "";
    size_t size = (size_t)(end - client->input) + 4;
    take(client, response, size);
    response[size] = '\0';
    const char *length = strcasestr(response, "\r\ncontent-length: ");
    size_t body_size = length != NULL ? (size_t)atoi(length + strlen("\r\ncontent-length: ")) : 0;
    ck_assert_uint_lt(size + body_size, sizeof(response));
    if (fill(client, body_size)) {
        take(client, response + size, body_size);
        response[size + body_size] = '\0';
    }
    return response;
}

const char *ws_client_upgrade_request(const char *path, const char *subprotocols, const char *headers)
{
    static _Thread_local char request[4096];
    snprintf(request, sizeof(request),
             "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
             "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
             "Sec-WebSocket-Protocol: %s\r\n%s\r\n",
             path, subprotocols, headers);
    return request;
}

void ws_client_upgrade(struct ws_client *client, const char *subprotocols)
{
    const char *response = ws_client_request(client, ws_client_upgrade_request("/v1/connect", subprotocols, ""));
    ck_assert_msg(strncmp(response, "HTTP/1.1 101 ", 13) == 0, "%s", response);
}

void ws_client_send(struct ws_client *client, int opcode, const void *data, size_t size)
{
    static const uint8_t mask[4] = {1, 2, 3, 4};
    uint8_t *frame = malloc(size + 14);
    size_t header = 2;

    frame[0] = (uint8_t)(0x80 | opcode);
    if (size < 126) {
        frame[1] = (uint8_t)(0x80 | size);
    } else {
        frame[1] = size <= UINT16_MAX ? 0x80 | 126 : 0x80 | 127;
        for (size_t left = size <= UINT16_MAX ? 2 : 8; left > 0; left--)
            frame[header++] = (uint8_t)((uint64_t)size >> 8 * (left - 1));
    }
    memcpy(frame + header, mask, sizeof(mask));
    header += sizeof(mask);
    for (size_t i = 0; i < size; i++)
        frame[header + i] = ((const uint8_t *)data)[i] ^ mask[i % 4];
    ws_client_write(client, frame, header + size);
    free(frame);
}

int ws_client_receive(struct ws_client *client, uint8_t *data, size_t capacity, size_t *ret_size)
{
    uint8_t header[10];
    if (!fill(client, 2))
        return -1;
    take(client, header, 2);
    ck_assert_uint_eq(header[1] & 0x80, 0); /* servers do not mask */
    size_t size = header[1], more = size == 126 ? 2 : size == 127 ? 8 : 0;
    if (more > 0) {
        ck_assert(fill(client, more));
        take(client, header + 2, more);
        size = 0;
        for (size_t i = 0; i < more; i++)
            size = size << 8 | header[2 + i];
    }
    ck_assert_uint_lt(size, capacity);
    if (!fill(client, size))
        return -1;
    take(client, data, size);
    data[size] = '\0';
    *ret_size = size;
    return header[0] & 0x0f;
}

int ws_client_close_code(struct ws_client *client)
{
    static _Thread_local uint8_t data[1 << 17];
    size_t size;
    for (int opcode; (opcode = ws_client_receive(client, data, sizeof(data), &size)) != -1;)
        if (opcode == OPCODE_CLOSE)
            return size >= 2 ? data[0] << 8 | data[1] : 1005;
    return 1006;
}

bool ws_client_at_end(struct ws_client *client)
{
    return client->input_size == 0 && !fill(client, 1);
}
