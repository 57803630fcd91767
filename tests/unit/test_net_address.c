/* Who a client is: addresses, the PROXY protocol, forwarding headers, and what one address may do. TURN's credentials
 * ride along. */
#include "gateway/net_address.h"

#include "gateway/forwarded.h"
#include "gateway/peers.h"
#include "gateway/proxy_protocol.h"
#include "gateway/turn.h"
#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

static struct net_address address_of(const char *text)
{
    struct net_address address;
    ck_assert_msg(net_address_parse(text, strlen(text), &address), "%s", text);
    return address;
}

static void assert_address(const struct net_address *address, const char *expected)
{
    char text[NET_ADDRESS_TEXT_SIZE];
    net_address_format(address, text);
    ck_assert_str_eq(text, expected);
}

START_TEST(address_has_one_form)
{
    struct net_address a = address_of("10.1.2.3"), b = address_of("::ffff:10.1.2.3");
    ck_assert_mem_eq(&a, &b, sizeof(a));
    assert_address(&b, "10.1.2.3");
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a010203)};
    ck_assert(net_address_from_sockaddr((struct sockaddr *)&v4, &b));
    ck_assert_mem_eq(&a, &b, sizeof(a));
    struct sockaddr unix_address = {.sa_family = AF_UNIX};
    ck_assert(!net_address_from_sockaddr(&unix_address, &b));
    static const char *const bad[] = {"",
                                      "10.1.2",
                                      "10.1.2.3.4",
                                      "10.1.2.300",
                                      "::g",
                                      "fe80::1%eth0",
                                      "[::1]",
                                      "1:2:3:4:5:6:7:8:9",
                                      "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(!net_address_parse(bad[i], strlen(bad[i]), &b), "%s", bad[i]);
}
END_TEST

START_TEST(blocks_contain)
{
    static const struct {
        const char *block, *address;
        bool inside;
    } cases[] = {
        {"10.0.0.0/8", "10.255.0.1", true},
        {"10.0.0.0/8", "11.0.0.1", false},
        {"10.1.2.3", "10.1.2.3", true},
        {"10.1.2.3", "10.1.2.4", false},
        {"10.1.2.129/25", "10.1.2.200", true},
        {"10.1.2.129/25", "10.1.2.127", false},
        {"0.0.0.0/0", "1.2.3.4", true},
        {"0.0.0.0/0", "2001:db8::1", false},
        {"::/0", "1.2.3.4", true},
        {"2001:db8::/33", "2001:db8:7fff::1", true},
        {"2001:db8::/33", "2001:db8:8000::1", false},
        {"::ffff:10.0.0.0/104", "10.9.9.9", true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct net_block block;
        ck_assert(net_block_parse(cases[i].block, &block));
        const struct net_blocks blocks = {&block, 1};
        struct net_address address = address_of(cases[i].address);
        ck_assert_msg(net_blocks_contain(&blocks, &address) == cases[i].inside, "%s in %s", cases[i].address,
                      cases[i].block);
    }
    static const char *const bad[] = {"", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/8x", "::/129", "::/0001", "a/8"};
    struct net_block block;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(!net_block_parse(bad[i], &block), "%s", bad[i]);
}
END_TEST

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define TCP4 SIGNATURE "\x21\x11\x00\x0c\x0a\x01\x02\x03\x7f\x00\x00\x01\x30\x39\x01\xbb"

START_TEST(proxy_header)
{
    static const uint8_t tcp4[] = TCP4 "GET";
    static const uint8_t with_tlv[] =
        SIGNATURE "\x21\x11\x00\x10\x0a\x01\x02\x03\x7f\x00\x00\x01\x30\x39\x01\xbb\x04\x00\x01x";
    static const uint8_t tcp6[] = SIGNATURE "\x21\x21\x00\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"
                                            "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x30\x39\x01\xbb";
    static const uint8_t local[] = SIGNATURE "\x20\x00\x00\x00";
    struct proxy_header header;
    size_t size = sizeof(tcp4) - 1 - 3;

    for (size_t i = 0; i < size; i++)
        ck_assert_int_eq(proxy_protocol_parse(tcp4, i, &header), PROXY_INCOMPLETE);
    ck_assert_int_eq(proxy_protocol_parse(tcp4, sizeof(tcp4) - 1, &header), (int)size);
    ck_assert(header.has_source);
    assert_address(&header.source, "10.1.2.3");
    ck_assert_int_eq(proxy_protocol_parse(with_tlv, sizeof(with_tlv) - 1, &header), sizeof(with_tlv) - 1);
    ck_assert_int_eq(proxy_protocol_parse(tcp6, sizeof(tcp6) - 1, &header), sizeof(tcp6) - 1);
    assert_address(&header.source, "2001:db8::1");
    ck_assert_int_eq(proxy_protocol_parse(local, sizeof(local) - 1, &header), sizeof(local) - 1);
    ck_assert(!header.has_source);
}
END_TEST

START_TEST(proxy_header_refused)
{
    static const struct {
        const char *bytes;
        size_t size;
    } bad[] = {
#define BAD(bytes) {bytes, sizeof(bytes) - 1}
        BAD("G"),
        BAD("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"),
        BAD("\r\n\r\n\1"),
        BAD(SIGNATURE "\x11"),             /* version 1 */
        BAD(SIGNATURE "\x22"),             /* unknown command */
        BAD(SIGNATURE "\x21\x12\x00\x0c"), /* a datagram */
        BAD(SIGNATURE "\x21\x11\x00\x0b"), /* too short for its family */
        BAD(SIGNATURE "\x21\x21\x00\x23"), /* too short for its family */
        BAD(SIGNATURE "\x21\x11\x10\x00"), /* beyond PROXY_HEADER_MAX */
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct proxy_header header = {.has_source = true};
        ck_assert_msg(proxy_protocol_parse((const uint8_t *)bad[i].bytes, bad[i].size, &header) == PROXY_MALFORMED,
                      "case %zu", i);
        ck_assert(header.has_source);
    }
}
END_TEST

START_TEST(forwarded_finds_the_client)
{
    static const struct {
        enum forwarded_form form;
        const char *values[3];
        const char *client;
    } cases[] = {
        {FORWARDED_X_FORWARDED_FOR, {NULL}, "10.0.0.1"},
        {FORWARDED_X_FORWARDED_FOR, {"198.51.100.7"}, "198.51.100.7"},
        {FORWARDED_X_FORWARDED_FOR, {"198.51.100.7:4711"}, "198.51.100.7"},
        {FORWARDED_X_FORWARDED_FOR, {"2001:db8::7"}, "2001:db8::7"},
        {FORWARDED_X_FORWARDED_FOR, {"[2001:db8::7]:443"}, "2001:db8::7"},
        /* What the client wrote itself stands before what our proxy wrote. */
        {FORWARDED_X_FORWARDED_FOR, {"1.1.1.1, 198.51.100.7"}, "198.51.100.7"},
        {FORWARDED_X_FORWARDED_FOR, {"1.1.1.1", "198.51.100.7, 10.0.0.2"}, "198.51.100.7"},
        {FORWARDED_X_FORWARDED_FOR, {"10.0.0.3,10.0.0.2"}, "10.0.0.3"},
        {FORWARDED_X_FORWARDED_FOR, {"198.51.100.7, unknown, 10.0.0.2"}, "10.0.0.2"},
        {FORWARDED_X_FORWARDED_FOR, {"198.51.100.7:x"}, "10.0.0.1"},
        {FORWARDED_X_FORWARDED_FOR, {", ,"}, "10.0.0.1"},
        {FORWARDED_RFC7239, {"for=198.51.100.7"}, "198.51.100.7"},
        {FORWARDED_RFC7239, {"proto=https;For=\"198.51.100.7:80\" ; by=1.2.3.4"}, "198.51.100.7"},
        {FORWARDED_RFC7239, {"for=\"[2001:db8::7]:443\""}, "2001:db8::7"},
        {FORWARDED_RFC7239, {"for=1.1.1.1;host=\"a,b;for=2.2.2.2\", for=198.51.100.7"}, "198.51.100.7"},
        {FORWARDED_RFC7239, {"for=\"_hidden\""}, "10.0.0.1"},
        {FORWARDED_RFC7239, {"by=198.51.100.7"}, "10.0.0.1"},
        {FORWARDED_RFC7239, {"for=198.51.100.7, for=\"1.1.1.1"}, "10.0.0.1"},
        {FORWARDED_RFC7239, {"for=\"open", "for=198.51.100.7"}, "198.51.100.7"},
    };
    struct net_block block;
    ck_assert(net_block_parse("10.0.0.0/8", &block));
    const struct net_blocks trusted = {&block, 1};
    struct net_address proxy = address_of("10.0.0.1"), stranger = address_of("203.0.113.9");

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ws_slice values[3];
        size_t count = 0;
        for (; count < 3 && cases[i].values[count] != NULL; count++)
            values[count] = (struct ws_slice){cases[i].values[count], strlen(cases[i].values[count])};
        struct net_address client = forwarded_client(&proxy, &trusted, cases[i].form, values, count);
        char text[NET_ADDRESS_TEXT_SIZE];
        net_address_format(&client, text);
        ck_assert_msg(strcmp(text, cases[i].client) == 0, "case %zu: %s", i, text);
        client = forwarded_client(&stranger, &trusted, cases[i].form, values, count);
        ck_assert_mem_eq(&client, &stranger, sizeof(client));
    }
}
END_TEST

START_TEST(forwarded_long_chain_ends)
{
    char chain[64 * 10] = "198.51.100.7";
    for (int i = 0; i < 40; i++)
        strcat(chain, ",10.0.0.2");
    struct net_block block;
    ck_assert(net_block_parse("10.0.0.0/8", &block));
    const struct net_blocks trusted = {&block, 1};
    struct net_address proxy = address_of("10.0.0.1");
    struct ws_slice value = {chain, strlen(chain)};
    struct net_address client = forwarded_client(&proxy, &trusted, FORWARDED_X_FORWARDED_FOR, &value, 1);
    assert_address(&client, "10.0.0.2");
}
END_TEST

START_TEST(peers_are_counted_by_address)
{
    const struct peer_limits limits = {.connections = 2, .arrivals_per_s = 0};
    struct peers *peers = peers_new(16);
    struct peer *all[5] = {NULL};
    struct net_address v4 = address_of("192.0.2.1"), other = address_of("192.0.2.2");
    struct net_address v6 = address_of("2001:db8::1"), same_64 = address_of("2001:db8::ffff:1");

    ck_assert_int_eq(peers_enter(peers, &v4, &limits, 0, &all[0]), PEER_OK);
    ck_assert_int_eq(peers_enter(peers, &v4, &limits, 0, &all[1]), PEER_OK);
    ck_assert_int_eq(peers_enter(peers, &v4, &limits, 0, &all[4]), PEER_TOO_MANY);
    ck_assert_ptr_null(all[4]);
    ck_assert_int_eq(peers_enter(peers, &other, &limits, 0, &all[2]), PEER_OK);
    peers_leave(peers, &all[2]);
    ck_assert_int_eq(peers_enter(peers, &v6, &limits, 0, &all[2]), PEER_OK);
    ck_assert_int_eq(peers_enter(peers, &same_64, &limits, 0, &all[3]), PEER_OK);
    ck_assert_ptr_eq(all[2], all[3]);
    ck_assert_int_eq(peers_enter(peers, &v6, &limits, 0, &all[4]), PEER_TOO_MANY);
    peers_leave(peers, &all[0]);
    ck_assert_int_eq(peers_enter(peers, &v4, &limits, 0, &all[0]), PEER_OK);
    for (int i = 0; i < 5; i++)
        peers_leave(peers, &all[i]);
    peers_free(&peers);
    ck_assert_ptr_null(peers);
}
END_TEST

START_TEST(peers_are_paced)
{
    const struct peer_limits limits = {.arrivals_per_s = 2};
    struct peers *peers = peers_new(16);
    struct net_address address = address_of("192.0.2.1");
    struct peer *peer = NULL;

    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(peers_enter(peers, &address, &limits, 1000, &peer), PEER_OK);
        peers_leave(peers, &peer);
    }
    ck_assert_int_eq(peers_enter(peers, &address, &limits, 1000, &peer), PEER_TOO_FAST);
    ck_assert_int_eq(peers_enter(peers, &address, &limits, 1500, &peer), PEER_OK);
    peers_leave(peers, &peer);
    peers_free(&peers);
}
END_TEST

START_TEST(peers_table_is_bounded)
{
    const struct peer_limits limits = {.arrivals_per_s = 1};
    struct peers *peers = peers_new(16);
    struct peer *held = NULL, *peer = NULL;
    struct net_address address = address_of("192.0.2.1");
    ck_assert_int_eq(peers_enter(peers, &address, &limits, 0, &held), PEER_OK);
    for (uint32_t i = 0; i < 3 * PEERS_IDLE_MAX; i++) {
        uint32_t bytes = htonl(0x0a000000 + i);
        address = net_address_from_ipv4((const uint8_t *)&bytes);
        ck_assert_int_eq(peers_enter(peers, &address, &limits, 0, &peer), PEER_OK);
        peers_leave(peers, &peer);
    }
    ck_assert_uint_eq(peers_count(peers), PEERS_IDLE_MAX + 1);
    peers_leave(peers, &held);
    peers_free(&peers);
}
END_TEST

START_TEST(turn_as_coturn_computes_it)
{
    char username[TURN_USERNAME_SIZE], password[TURN_PASSWORD_SIZE];
    turn_credentials("north", "alice", 1735689600, username, sizeof(username), password, sizeof(password));
    ck_assert_str_eq(username, "1735689600:alice");
    /* printf 1735689600:alice | openssl dgst -sha1 -hmac north -binary | base64 */
    ck_assert_str_eq(password, "HbvWA6hGDtdv3wflBolXLhvzs0w=");
    char longest[300];
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    turn_credentials("north", longest, INT64_MIN, username, sizeof(username), password, sizeof(password));
    ck_assert_uint_eq(strlen(username), TURN_USERNAME_SIZE - 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("net_address");
    TCase *tcase = tcase_create("net_address");
    tcase_add_test(tcase, address_has_one_form);
    tcase_add_test(tcase, blocks_contain);
    tcase_add_test(tcase, proxy_header);
    tcase_add_test(tcase, proxy_header_refused);
    tcase_add_test(tcase, forwarded_finds_the_client);
    tcase_add_test(tcase, forwarded_long_chain_ends);
    tcase_add_test(tcase, peers_are_counted_by_address);
    tcase_add_test(tcase, peers_are_paced);
    tcase_add_test(tcase, peers_table_is_bounded);
    tcase_add_test(tcase, turn_as_coturn_computes_it);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
