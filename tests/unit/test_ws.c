#include "gateway/ws.h"

#include "common/buf.h"
#include "common/mem.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>

enum { LIMIT = 100000 };

static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};

/* What the parser reported, as text: "text:hello ping: stop", "1002". */
struct outcome {
    struct buf log;
    int control_stop_after; /* the handler says stop at this many control frames; 0 = never */
    const uint8_t *last_message;
};

static void log_event(struct outcome *outcome, const char *kind, const uint8_t *data, size_t size)
{
    if (outcome->log.size > 0)
        buf_append_char(&outcome->log, ' ');
    buf_append_str(&outcome->log, kind);
    buf_append_char(&outcome->log, ':');
    if (size > 200)
        buf_printf(&outcome->log, "%zu bytes", size);
    else
        buf_append(&outcome->log, data, size);
}

static bool on_message(void *ctx, enum ws_opcode opcode, uint8_t *data, size_t size)
{
    struct outcome *outcome = ctx;
    outcome->last_message = data;
    log_event(outcome, opcode == WS_TEXT ? "text" : "binary", data, size);
    return true;
}

static bool on_control(void *ctx, enum ws_opcode opcode, const uint8_t *data, size_t size)
{
    struct outcome *outcome = ctx;
    if (opcode == WS_CLOSE)
        log_event(outcome, "close", size > 2 ? data + 2 : data, size > 2 ? size - 2 : 0);
    else
        log_event(outcome, opcode == WS_PING ? "ping" : "pong", data, size);
    return outcome->control_stop_after == 0 || --outcome->control_stop_after > 0;
}

static const struct ws_handlers handlers = {.message = on_message, .control = on_control};

/* A client's frame: `first` is FIN, RSV and opcode. */
static void add_frame(struct buf *stream, uint8_t first, const void *data, size_t size)
{
    uint8_t header[WS_HEADER_MAX];
    size_t header_size = ws_write_header(header, first & 0x0f, size);
    header[0] = first;
    header[1] |= 0x80;
    buf_append(stream, header, header_size);
    buf_append(stream, mask, sizeof(mask));
    for (size_t i = 0; i < size; i++)
        buf_append_char(stream, (char)(((const uint8_t *)data)[i] ^ mask[i % 4]));
}

/* Feeds the stream in pieces of `step` bytes, each a heap block of its own so that the sanitizer sees its ends. */
static int feed(const struct buf *stream, size_t step, size_t limit, struct outcome *outcome)
{
    struct ws_parser parser;
    const char *reason = NULL;
    int result = 0;

    ws_parser_init(&parser, limit);
    for (size_t pos = 0; pos < stream->size && result == 0; pos += step) {
        size_t size = stream->size - pos < step ? stream->size - pos : step;
        uint8_t *piece = mem_dup(stream->data + pos, size);
        result = ws_parser_feed(&parser, piece, size, &handlers, outcome, &reason);
        free(piece);
    }
    ck_assert_int_eq(reason != NULL, result >= 1000);
    ws_parser_done(&parser);
    return result;
}

/* The stream must come to the same end however it is split. */
static void expect_limited(struct buf *stream, size_t limit, int result, const char *log)
{
    static const size_t steps[] = {SIZE_MAX / 2, 1, 2, 3, 7, 64, 1000};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct outcome outcome = {0};
        ck_assert_int_eq(feed(stream, steps[i], limit, &outcome), result);
        ck_assert_str_eq(buf_str(&outcome.log), log);
        buf_done(&outcome.log);
    }
    buf_done(stream);
}

static void expect(struct buf *stream, int result, const char *log)
{
    expect_limited(stream, LIMIT, result, log);
}

static void expect_bytes(const char *bytes, size_t size, int result, const char *log)
{
    struct buf stream = {0};
    buf_append(&stream, bytes, size);
    expect(&stream, result, log);
}

static void expect_close(const char *body, size_t size, int result, const char *log)
{
    struct buf stream = {0};
    add_frame(&stream, 0x88, body, size);
    expect(&stream, result, log);
}

START_TEST(idle_parser_is_small)
{
    ck_assert_uint_le(sizeof(struct ws_parser), 40);
}
END_TEST

/* Autobahn 1.*: every length form, text and binary. */
START_TEST(whole_messages_of_every_length_form)
{
    static const size_t sizes[] = {0, 1, 125, 126, 127, 128, 65535, 65536, LIMIT};
    char *text = mem_alloc(LIMIT);
    memset(text, '*', LIMIT);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct buf stream = {0};
        struct buf log = {0};
        add_frame(&stream, 0x81, text, sizes[i]);
        add_frame(&stream, 0x82, text, sizes[i]);
        if (sizes[i] > 200)
            buf_printf(&log, "text:%zu bytes binary:%zu bytes", sizes[i], sizes[i]);
        else
            buf_printf(&log, "text:%.*s binary:%.*s", (int)sizes[i], text, (int)sizes[i], text);
        expect(&stream, 0, buf_str(&log));
        buf_done(&log);
    }
    free(text);
}
END_TEST

START_TEST(whole_message_is_handed_over_without_a_copy)
{
    struct buf stream = {0};
    struct outcome outcome = {0};
    struct ws_parser parser;
    const char *reason;

    add_frame(&stream, 0x01, "", 0);
    add_frame(&stream, 0x80, "in place", 8);
    ws_parser_init(&parser, LIMIT);
    ck_assert_int_eq(ws_parser_feed(&parser, stream.data, stream.size, &handlers, &outcome, &reason), 0);
    ck_assert_ptr_eq(outcome.last_message, stream.data + stream.size - 8);
    ck_assert_str_eq(buf_str(&outcome.log), "text:in place");
    ck_assert_ptr_null(parser.partial);
    ws_parser_done(&parser);
    buf_done(&outcome.log);
    buf_done(&stream);
}
END_TEST

/* Whatever arrived in pieces, a parser between two messages holds no memory. */
START_TEST(idle_parser_holds_no_memory)
{
    struct buf stream = {0};
    struct outcome outcome = {0};
    struct ws_parser parser;
    const char *reason;

    add_frame(&stream, 0x89, "alone", 5);
    add_frame(&stream, 0x01, "a fragment", 10);
    add_frame(&stream, 0x89, "within", 6);
    add_frame(&stream, 0x80, " and its end", 12);
    ws_parser_init(&parser, LIMIT);
    for (size_t i = 0; i < stream.size; i++) {
        ck_assert_int_eq(ws_parser_feed(&parser, stream.data + i, 1, &handlers, &outcome, &reason), 0);
        if (i == 10)
            ck_assert_ptr_null(parser.partial);
    }
    ck_assert_str_eq(buf_str(&outcome.log), "ping:alone ping:within text:a fragment and its end");
    ck_assert_ptr_null(parser.partial);
    buf_done(&outcome.log);
    buf_done(&stream);
}
END_TEST

/* Autobahn 2.* */
START_TEST(pings_and_pongs)
{
    char body[126];
    struct buf stream = {0}, log = {0};
    memset(body, 'p', sizeof(body));
    add_frame(&stream, 0x89, "", 0);
    add_frame(&stream, 0x89, body, 125);
    add_frame(&stream, 0x8a, "\x00\xff", 2);
    buf_printf(&log, "ping: ping:%.125s pong:", body);
    buf_append(&log, "\x00\xff", 2);
    expect(&stream, 0, buf_str(&log));
    buf_done(&log);

    add_frame(&stream, 0x89, body, 126);
    expect(&stream, WS_CLOSE_PROTOCOL_ERROR, "");
}
END_TEST

/* Autobahn 3.* and 4.* */
START_TEST(reserved_bits_and_opcodes)
{
    for (unsigned first = 0; first < 256; first++) {
        unsigned rsv = first & 0x70, opcode = first & 0x0f;
        bool known = opcode <= WS_BINARY || (opcode >= WS_CLOSE && opcode <= WS_PONG);
        if (rsv == 0 && known)
            continue;
        struct buf stream = {0};
        add_frame(&stream, 0x81, "before", 6);
        add_frame(&stream, (uint8_t)first, "", 0);
        add_frame(&stream, 0x81, "after", 5);
        expect(&stream, WS_CLOSE_PROTOCOL_ERROR, "text:before");
    }
}
END_TEST

START_TEST(frames_must_be_masked)
{
    expect_bytes("\x81\x05hello", 7, WS_CLOSE_PROTOCOL_ERROR, "");
    expect_bytes("\x89\x00", 2, WS_CLOSE_PROTOCOL_ERROR, "");
}
END_TEST

START_TEST(lengths_must_be_shortest)
{
    expect_bytes("\x82\xfe\x00\x7d", 4, WS_CLOSE_PROTOCOL_ERROR, "");
    expect_bytes("\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff", 10, WS_CLOSE_PROTOCOL_ERROR, "");
    expect_bytes("\x82\xff\x80\x00\x00\x00\x00\x00\xff\xff", 10, WS_CLOSE_PROTOCOL_ERROR, "");
    expect_bytes("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff", 10, WS_CLOSE_TOO_BIG, "");
}
END_TEST

/* Autobahn 5.* */
START_TEST(fragments_are_assembled)
{
    struct buf stream = {0};
    add_frame(&stream, 0x01, "one ", 4);
    add_frame(&stream, 0x00, "", 0);
    add_frame(&stream, 0x89, "ping", 4);
    add_frame(&stream, 0x00, "two ", 4);
    add_frame(&stream, 0x8a, "", 0);
    add_frame(&stream, 0x80, "three", 5);
    add_frame(&stream, 0x02, "", 0);
    add_frame(&stream, 0x80, "", 0);
    expect(&stream, 0, "ping:ping pong: text:one two three binary:");
}
END_TEST

START_TEST(fragments_out_of_order)
{
    struct buf stream = {0};
    add_frame(&stream, 0x80, "nothing to continue", 19);
    expect(&stream, WS_CLOSE_PROTOCOL_ERROR, "");
    add_frame(&stream, 0x81, "whole", 5);
    add_frame(&stream, 0x00, "nothing to continue", 19);
    expect(&stream, WS_CLOSE_PROTOCOL_ERROR, "text:whole");
    add_frame(&stream, 0x01, "open", 4);
    add_frame(&stream, 0x81, "another", 7);
    expect(&stream, WS_CLOSE_PROTOCOL_ERROR, "");
    add_frame(&stream, 0x01, "", 0);
    add_frame(&stream, 0x02, "another", 7);
    expect(&stream, WS_CLOSE_PROTOCOL_ERROR, "");
    add_frame(&stream, 0x09, "fragmented ping", 15);
    add_frame(&stream, 0x80, "", 0);
    expect(&stream, WS_CLOSE_PROTOCOL_ERROR, "");
}
END_TEST

/* Autobahn 6.* */
START_TEST(text_is_utf8)
{
    struct buf stream = {0};
    add_frame(&stream, 0x01, "\xce\xba\xe1\xbd", 4);
    add_frame(&stream, 0x89, "", 0);
    add_frame(&stream, 0x80, "\xb9\xf0\x9f\x8e\xa5", 5);
    expect(&stream, 0, "ping: text:\xce\xba\xe1\xbd\xb9\xf0\x9f\x8e\xa5");
    add_frame(&stream, 0x81, "\xce\xba\xe1\xbd", 4);
    expect(&stream, WS_CLOSE_INVALID_DATA, "");
    add_frame(&stream, 0x81, "\xed\xa0\x80 surrogate", 13);
    expect(&stream, WS_CLOSE_INVALID_DATA, "");
    add_frame(&stream, 0x82, "\xed\xa0\x80", 3);
    expect(&stream, 0, "binary:\xed\xa0\x80");
    /* An unfinished character of one message is no part of the next. */
    add_frame(&stream, 0x82, "\xe1\xbd", 2);
    add_frame(&stream, 0x81, "a", 1);
    expect(&stream, 0, "binary:\xe1\xbd text:a");
}
END_TEST

/* Autobahn 6.4.*: with the frame, let alone the message, still unfinished. */
START_TEST(bad_text_fails_within_the_frame)
{
    static const char text[] = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80 and more";
    struct buf stream = {0};
    struct ws_parser parser;
    struct outcome outcome = {0};
    const char *reason;
    size_t good = 6 + 12;

    add_frame(&stream, 0x01, text, sizeof(text) - 1);
    ws_parser_init(&parser, LIMIT);
    ck_assert_int_eq(ws_parser_feed(&parser, stream.data, good, &handlers, &outcome, &reason), 0);
    ck_assert_int_eq(ws_parser_feed(&parser, stream.data + good, 1, &handlers, &outcome, &reason),
                     WS_CLOSE_INVALID_DATA);
    ws_parser_done(&parser);
    buf_done(&stream);
}
END_TEST

/* Autobahn 7.* */
START_TEST(close_ends_everything)
{
    struct buf stream = {0};
    add_frame(&stream, 0x01, "unfinished", 10);
    add_frame(&stream, 0x88, "\x03\xe8good bye", 10);
    add_frame(&stream, 0x89, "", 0);
    add_frame(&stream, 0xff, "", 0);
    expect(&stream, WS_STOPPED, "close:good bye");
}
END_TEST

START_TEST(close_bodies)
{
    char body[126] = "\x03\xe8";
    struct buf log = {0};
    memset(body + 2, 'r', sizeof(body) - 2);
    buf_printf(&log, "close:%.123s", body + 2);
    expect_close("", 0, WS_STOPPED, "close:");
    expect_close("\x03", 1, WS_CLOSE_PROTOCOL_ERROR, "");
    expect_close("\x03\xe8", 2, WS_STOPPED, "close:");
    expect_close(body, 125, WS_STOPPED, buf_str(&log));
    expect_close(body, 126, WS_CLOSE_PROTOCOL_ERROR, "");
    expect_close("\x03\xe8\xce\xba\xe1", 5, WS_CLOSE_INVALID_DATA, "");
    buf_done(&log);
}
END_TEST

START_TEST(close_codes)
{
    static const struct {
        unsigned first, last;
        bool valid;
    } ranges[] = {
        {0, 999, false},     {1000, 1003, true}, {1004, 1006, false},  {1007, 1011, true},
        {1012, 2999, false}, {3000, 4999, true}, {5000, 65535, false},
    };
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        for (unsigned code = ranges[i].first; code <= ranges[i].last; code++) {
            const char body[2] = {(char)(code >> 8), (char)code};
            struct buf stream = {0};
            struct outcome outcome = {0};
            add_frame(&stream, 0x88, body, 2);
            ck_assert_int_eq(feed(&stream, 100, LIMIT, &outcome),
                             ranges[i].valid ? WS_STOPPED : WS_CLOSE_PROTOCOL_ERROR);
            buf_done(&outcome.log);
            buf_done(&stream);
        }
    }
}
END_TEST

START_TEST(message_limit_counts_all_fragments)
{
    struct buf stream = {0};
    add_frame(&stream, 0x81, "12345678", 8);
    expect_limited(&stream, 8, 0, "text:12345678");
    add_frame(&stream, 0x81, "123456789", 9);
    expect_limited(&stream, 8, WS_CLOSE_TOO_BIG, "");
    add_frame(&stream, 0x01, "1234", 4);
    add_frame(&stream, 0x89, "a ping does not count", 21);
    add_frame(&stream, 0x00, "5678", 4);
    add_frame(&stream, 0x80, "", 0);
    expect_limited(&stream, 8, 0, "ping:a ping does not count text:12345678");
    add_frame(&stream, 0x01, "1234", 4);
    add_frame(&stream, 0x80, "56789", 5);
    expect_limited(&stream, 8, WS_CLOSE_TOO_BIG, "");
}
END_TEST

START_TEST(handler_stops_the_parser)
{
    struct buf stream = {0};
    struct outcome outcome = {.control_stop_after = 2};
    for (int i = 0; i < 4; i++)
        add_frame(&stream, 0x89, "", 0);
    ck_assert_int_eq(feed(&stream, 100, LIMIT, &outcome), WS_STOPPED);
    ck_assert_str_eq(buf_str(&outcome.log), "ping: ping:");
    buf_done(&outcome.log);
    buf_done(&stream);
}
END_TEST

static bool done_and_stop(void *ctx, enum ws_opcode opcode, uint8_t *data, size_t size)
{
    struct ws_parser **parser = ctx;
    ck_assert_uint_eq(size, 12);
    ws_parser_done(*parser);
    free(*parser);
    ck_assert_mem_eq(data, "in fragments", 12);
    return false;
}

START_TEST(handler_may_free_the_connection)
{
    const struct ws_handlers freeing = {.message = done_and_stop, .control = on_control};
    struct ws_parser *parser = mem_alloc(sizeof(*parser));
    struct buf stream = {0};
    const char *reason;

    add_frame(&stream, 0x02, "in ", 3);
    add_frame(&stream, 0x80, "fragments", 9);
    ws_parser_init(parser, LIMIT);
    ck_assert_int_eq(ws_parser_feed(parser, stream.data, stream.size, &freeing, &parser, &reason), WS_STOPPED);
    buf_done(&stream);
}
END_TEST

static void expect_frame(struct payload *frame, const void *bytes, size_t size)
{
    ck_assert_uint_eq(frame->size, size);
    ck_assert_mem_eq(frame->data, bytes, size);
    payload_unref(&frame);
}

START_TEST(frames_are_built)
{
    uint8_t header[WS_HEADER_MAX];
    ck_assert_uint_eq(ws_write_header(header, WS_BINARY, 125), 2);
    ck_assert_mem_eq(header, "\x82\x7d", 2);
    ck_assert_uint_eq(ws_write_header(header, WS_BINARY, 126), 4);
    ck_assert_mem_eq(header, "\x82\x7e\x00\x7e", 4);
    ck_assert_uint_eq(ws_write_header(header, WS_TEXT, 65535), 4);
    ck_assert_mem_eq(header, "\x81\x7e\xff\xff", 4);
    ck_assert_uint_eq(ws_write_header(header, WS_TEXT, 65536), 10);
    ck_assert_mem_eq(header, "\x81\x7f\0\0\0\0\0\x01\0\0", 10);
    expect_frame(ws_frame(WS_TEXT, "hello", 5), "\x81\x05hello", 7);
    expect_frame(ws_frame(WS_PONG, NULL, 0), "\x8a\x00", 2);
    expect_frame(ws_close_frame(1001, "drained"),
                 "\x88\x09\x03\xe9"
                 "drained",
                 11);
    expect_frame(ws_close_frame(1000, NULL), "\x88\x02\x03\xe8", 4);
}
END_TEST

START_TEST(close_reason_is_cut_between_characters)
{
    char reason[WS_REASON_MAX + 10] = {0};
    memset(reason, 'r', WS_REASON_MAX + 5);
    struct payload *frame = ws_close_frame(1002, reason);
    ck_assert_uint_eq(frame->size, 2 + WS_CONTROL_MAX);
    payload_unref(&frame);
    memcpy(reason + WS_REASON_MAX - 2, "\xe1\xbd\xb9\xe1\xbd\xb9", 7);
    frame = ws_close_frame(1002, reason);
    ck_assert_uint_eq(frame->size, 2 + WS_CONTROL_MAX - 2);
    ck_assert_uint_eq(frame->data[1], WS_CONTROL_MAX - 2);
    payload_unref(&frame);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ws");
    TCase *tc = tcase_create("ws");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, idle_parser_is_small);
    tcase_add_test(tc, whole_messages_of_every_length_form);
    tcase_add_test(tc, whole_message_is_handed_over_without_a_copy);
    tcase_add_test(tc, idle_parser_holds_no_memory);
    tcase_add_test(tc, pings_and_pongs);
    tcase_add_test(tc, reserved_bits_and_opcodes);
    tcase_add_test(tc, frames_must_be_masked);
    tcase_add_test(tc, lengths_must_be_shortest);
    tcase_add_test(tc, fragments_are_assembled);
    tcase_add_test(tc, fragments_out_of_order);
    tcase_add_test(tc, text_is_utf8);
    tcase_add_test(tc, bad_text_fails_within_the_frame);
    tcase_add_test(tc, close_ends_everything);
    tcase_add_test(tc, close_bodies);
    tcase_add_test(tc, close_codes);
    tcase_add_test(tc, message_limit_counts_all_fragments);
    tcase_add_test(tc, handler_stops_the_parser);
    tcase_add_test(tc, handler_may_free_the_connection);
    tcase_add_test(tc, frames_are_built);
    tcase_add_test(tc, close_reason_is_cut_between_characters);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
