/* Users, nkeys and TLS: who a bus is to its servers, and they to it. */
#include "bus_fixture.h"
#include "common/nats_conn.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char users_conf[] = "authorization { users = [\n"
                                 "  {user: good, password: secret}\n"
                                 "  {user: deaf, password: secret, permissions: {subscribe: [\"test.>\"]}}\n"
                                 "  {user: mute, password: secret, permissions: {publish: [\"test.>\"]}}\n"
                                 "  {nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4}\n"
                                 "] }\n";
/* From the documentation of NATS, with its public key above. */
static const char nkey_seed[] = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";

static void open_as(struct peer *peer, const char *user, const char *password)
{
    const char *url = servers[0].url, *subject = "secret.subject";
    struct bus_options options = options_for(&url, 1);

    options.user = user;
    options.password = password;
    options.subscriptions = &subject;
    options.subscription_count = 1;
    open_peer(peer, &options);
}

static bool is_refused(const struct peer *peer)
{
    return peer->state == BUS_REFUSED;
}

START_TEST(is_refused_with_a_wrong_password)
{
    struct peer peer;

    nats_server_start(&servers[0], users_conf);
    open_as(&peer, "good", "wrong");
    run_until(is_refused, &peer);
    ck_assert_msg(strstr(peer.detail, "Authorization Violation"), "%s", peer.detail);
    bus_close(&peer.bus);
    open_as(&peer, "good", "secret");
    run_until(is_up, &peer);
    bus_close(&peer.bus);
}
END_TEST

START_TEST(recovers_when_the_server_is_what_gets_repaired)
{
    struct peer peer;

    nats_server_start(&servers[0], users_conf);
    open_as(&peer, "newcomer", "secret");
    run_until(is_refused, &peer);
    nats_server_stop(&servers[0]);
    nats_server_start(&servers[0], "authorization { user: newcomer, password: secret }\n");
    run_until(is_up, &peer);
    ck_assert_uint_eq(peer.state_changes, 2);
    bus_close(&peer.bus);
}
END_TEST

START_TEST(is_refused_a_subscription)
{
    struct peer peer;

    nats_server_start(&servers[0], users_conf);
    open_as(&peer, "deaf", "secret");
    run_until(is_refused, &peer);
    ck_assert_uint_eq(peer.state_changes, 1);
    ck_assert_msg(strstr(peer.detail, "secret.subject"), "%s", peer.detail);
    bus_close(&peer.bus);
}
END_TEST

START_TEST(is_refused_a_publish)
{
    struct peer peer;

    nats_server_start(&servers[0], users_conf);
    open_as(&peer, "mute", "secret");
    run_until(is_up, &peer);
    publish_number(&peer, "elsewhere", 1, 8, 0);
    run_until(is_refused, &peer);
    ck_assert_msg(strstr(peer.detail, "elsewhere"), "%s", peer.detail);
    bus_close(&peer.bus);
}
END_TEST

static void write_file(char *path, size_t path_size, const char *name, const char *text)
{
    snprintf(path, path_size, "%s/%s", servers[0].dir, name);
    FILE *file = fopen(path, "we");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
}

START_TEST(knows_itself_by_an_nkey)
{
    char path[192];
    struct peer peer;

    nats_server_start(&servers[0], users_conf);
    write_file(path, sizeof(path), "seed", nkey_seed);
    const char *url = servers[0].url;
    struct bus_options options = options_for(&url, 1);
    options.nkey_seed_file = path;
    open_peer(&peer, &options);
    run_until(is_up, &peer);
    bus_close(&peer.bus);

    write_file(path, sizeof(path), "seed", "SUnot a seed\n");
    open_peer(&peer, &options);
    run_until(is_refused, &peer);
    ck_assert_msg(strstr(peer.detail, "no user nkey seed"), "%s", peer.detail);
    bus_close(&peer.bus);
}
END_TEST

START_TEST(derives_the_public_nkey)
{
    char public[NKEY_PUBLIC_SIZE + 1], seed[sizeof(nkey_seed)];

    ck_assert(nkey_public_from_seed(nkey_seed, public));
    ck_assert_str_eq(public, "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4");
    for (size_t i = 0; i < sizeof(nkey_seed) - 1; i++) {
        memcpy(seed, nkey_seed, sizeof(seed));
        seed[i] = seed[i] == 'A' ? 'B' : 'A';
        ck_assert_msg(!nkey_public_from_seed(seed, public), "a changed character at %zu", i);
    }
    ck_assert(!nkey_public_from_seed("", public));
}
END_TEST

/* A certificate authority, a certificate for 127.0.0.1 that serves both ends, and one for somebody else's name. */
static const char make_certificates[] =
    "cd %s && exec 2>openssl.log && ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes' &&"
    "openssl req -x509 $ec -keyout ca.key -out ca.crt -subj /CN=ca &&"
    "for n in 127.0.0.1 192.0.2.1; do "
    "openssl req $ec -keyout $n.key -out $n.csr -subj /CN=$n && printf 'subjectAltName=IP:%%s' $n >ext &&"
    "openssl x509 -req -in $n.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile ext -out $n.crt || exit 1; done";

static void start_tls_server(const char *certificate)
{
    char conf[1024];
    const char *dir = servers[0].dir;

    snprintf(conf, sizeof(conf),
             "tls { cert_file: \"%s/%s.crt\", key_file: \"%s/%s.key\", ca_file: \"%s/ca.crt\", verify: true }\n", dir,
             certificate, dir, certificate, dir);
    nats_server_start(&servers[0], conf);
}

START_TEST(speaks_tls_and_checks_the_name)
{
    char command[1024], ca[192], cert[192], key[192], url[64];
    const char *urls = url, *subject = "here", *dir = servers[0].dir;
    struct peer peer;

    nats_server_start(&servers[0], NULL);
    nats_server_stop(&servers[0]);
    snprintf(command, sizeof(command), make_certificates, dir);
    ck_assert_int_eq(system(command), 0);
    snprintf(ca, sizeof(ca), "%s/ca.crt", dir);
    snprintf(cert, sizeof(cert), "%s/127.0.0.1.crt", dir);
    snprintf(key, sizeof(key), "%s/127.0.0.1.key", dir);
    snprintf(url, sizeof(url), "tls://127.0.0.1:%d", servers[0].port);
    struct bus_options options = options_for(&urls, 1);
    options.tls_ca_file = ca;
    options.tls_cert_file = cert;
    options.tls_key_file = key;
    options.subscriptions = &subject;
    options.subscription_count = 1;

    start_tls_server("127.0.0.1");
    open_peer(&peer, &options);
    run_until(is_up, &peer);
    publish_number(&peer, "here", 1, 1 << 20, 0);
    run_until(got_one, &peer);
    ck_assert_uint_eq(peer.received_bytes, 1 << 20);

    /* The view log looks for another server while it is connected. */
    struct nats_options library;
    natsConnection *connections[3] = {NULL};
    char detail[NATS_DETAIL_MAX];
    ck_assert_int_eq(nats_options_init(&library, &options, detail), 0);
    for (int i = 0; i < 3; i++) {
        nats_options_next_server(&library);
        natsStatus s = natsConnection_Connect(&connections[i], library.library);
        ck_assert_msg(s == NATS_OK, "connection %d: %s", i, nats_GetLastError(NULL));
    }
    for (int i = 0; i < 3; i++)
        natsConnection_Destroy(connections[i]);
    nats_options_done(&library);

    nats_server_freeze(&servers[0]);
    publish_number(&peer, "here", 1, 1 << 20, 0);
    run_until(is_lost, &peer);
    bus_close(&peer.bus);
    nats_server_stop(&servers[0]);

    struct nats_conn *conn = NULL;
    start_tls_server("192.0.2.1");
    ck_assert_int_eq(nats_options_init(&library, &options, detail), 0);
    nats_options_next_server(&library);
    ck_assert_int_eq(nats_conn_open(&library, &conn, detail), NATS_CONN_LOST);
    ck_assert_msg(strstr(detail, "IP address mismatch"), "%s", detail);
    nats_options_done(&library);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("bus_security");
    tcase_add_test(tests, is_refused_with_a_wrong_password);
    tcase_add_test(tests, recovers_when_the_server_is_what_gets_repaired);
    tcase_add_test(tests, is_refused_a_subscription);
    tcase_add_test(tests, is_refused_a_publish);
    tcase_add_test(tests, derives_the_public_nkey);
    tcase_add_test(tests, knows_itself_by_an_nkey);
    tcase_add_test(tests, speaks_tls_and_checks_the_name);
    return run_bus_tests("bus_security", tests);
}
