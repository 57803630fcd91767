#include "common/utf8.h"
#include <string.h>

/* A deterministic automaton over classes of bytes, as in Björn Höhrmann's "Flexible and Economical UTF-8 Decoder"
 * (https://bjoern.hoehrmann.de/utf-8/decoder/dfa/). Both tables leave out what is not valid: absent is REJECT. */
enum {
    CLASS_INVALID,
    CLASS_ASCII,
    CLASS_TAIL_80, /* three classes of continuation bytes, because the byte after E0, ED, F0 and F4 is restricted */
    CLASS_TAIL_90,
    CLASS_TAIL_A0,
    CLASS_LEAD_2,
    CLASS_LEAD_E0,
    CLASS_LEAD_3,
    CLASS_LEAD_ED,
    CLASS_LEAD_F0,
    CLASS_LEAD_4,
    CLASS_LEAD_F4,
    CLASS_COUNT,
};

enum {
    STATE_TAIL_1 = UTF8_ACCEPT + 1, /* one continuation byte to go */
    STATE_TAIL_2,
    STATE_TAIL_3,
    STATE_AFTER_E0, /* overlong below E0 A0 */
    STATE_AFTER_ED, /* surrogates from ED A0 */
    STATE_AFTER_F0, /* overlong below F0 90 */
    STATE_AFTER_F4, /* beyond U+10FFFF from F4 90 */
    STATE_COUNT,
};

static const uint8_t byte_classes[256] = {
    [0x00 ... 0x7f] = CLASS_ASCII,   [0x80 ... 0x8f] = CLASS_TAIL_80, [0x90 ... 0x9f] = CLASS_TAIL_90,
    [0xa0 ... 0xbf] = CLASS_TAIL_A0, [0xc2 ... 0xdf] = CLASS_LEAD_2,  [0xe0] = CLASS_LEAD_E0,
    [0xe1 ... 0xec] = CLASS_LEAD_3,  [0xed] = CLASS_LEAD_ED,          [0xee ... 0xef] = CLASS_LEAD_3,
    [0xf0] = CLASS_LEAD_F0,          [0xf1 ... 0xf3] = CLASS_LEAD_4,  [0xf4] = CLASS_LEAD_F4,
};

static const uint8_t next_states[STATE_COUNT][CLASS_COUNT] = {
    [UTF8_ACCEPT] = {[CLASS_ASCII] = UTF8_ACCEPT,
                     [CLASS_LEAD_2] = STATE_TAIL_1,
                     [CLASS_LEAD_E0] = STATE_AFTER_E0,
                     [CLASS_LEAD_3] = STATE_TAIL_2,
                     [CLASS_LEAD_ED] = STATE_AFTER_ED,
                     [CLASS_LEAD_F0] = STATE_AFTER_F0,
                     [CLASS_LEAD_4] = STATE_TAIL_3,
                     [CLASS_LEAD_F4] = STATE_AFTER_F4},
    [STATE_TAIL_1] = {[CLASS_TAIL_80... CLASS_TAIL_A0] = UTF8_ACCEPT},
    [STATE_TAIL_2] = {[CLASS_TAIL_80... CLASS_TAIL_A0] = STATE_TAIL_1},
    [STATE_TAIL_3] = {[CLASS_TAIL_80... CLASS_TAIL_A0] = STATE_TAIL_2},
    [STATE_AFTER_E0] = {[CLASS_TAIL_A0] = STATE_TAIL_1},
    [STATE_AFTER_ED] = {[CLASS_TAIL_80... CLASS_TAIL_90] = STATE_TAIL_1},
    [STATE_AFTER_F0] = {[CLASS_TAIL_90... CLASS_TAIL_A0] = STATE_TAIL_2},
    [STATE_AFTER_F4] = {[CLASS_TAIL_80] = STATE_TAIL_2},
};

uint8_t utf8_check(uint8_t state, const void *data, size_t size)
{
    const uint8_t *pos = data, *end = pos + size;

    while (pos < end && state != UTF8_REJECT) {
        uint64_t word;
        if (state == UTF8_ACCEPT && end - pos >= (ptrdiff_t)sizeof(word)) {
            memcpy(&word, pos, sizeof(word));
            if ((word & 0x8080808080808080) == 0) {
                pos += sizeof(word);
                continue;
            }
        }
        state = next_states[state][byte_classes[*pos++]];
    }
    return state;
}
