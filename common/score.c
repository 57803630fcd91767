#include "common/score.h"
#include "common/score_table.h"
#include <assert.h>
#include <sodium.h>
#include <string.h>

_Static_assert(SCORE_SEED_SIZE == crypto_shorthash_KEYBYTES, "the seed is the SipHash key");

uint64_t score_neg_ln(uint64_t hash)
{
    const uint64_t ln2 = score_ln_table[256];
    unsigned zeros = hash ? (unsigned)__builtin_clzll(hash) : 64;
    /* u = (2 * hash + 1) / 2^65 = (1 + fraction / 2^64) / 2^(zeros + 1). The leading 1 of 2 * hash + 1 is shifted out
     * at the top; for hash 0 nothing else is left. */
    uint64_t fraction = zeros < 64 ? (hash << 1 | 1) << zeros : 0;
    unsigned i = (unsigned)(fraction >> 56);
    uint64_t between = fraction >> 24 & UINT32_MAX;
    uint64_t step = score_ln_table[i + 1] - score_ln_table[i];
    uint64_t ln = score_ln_table[i] + (step * between >> 32);
    uint64_t neg_ln = (zeros + 1) * ln2 - ln;

    return neg_ln ? neg_ln : 1;
}

uint64_t score_compute(const struct score_seed *seed, const char *shard_id, uint32_t weight,
                       const struct room_key *room)
{
    uint8_t input[NODE_ID_MAX + 1 + sizeof(room->bytes)];
    uint8_t out[crypto_shorthash_BYTES];
    size_t id_size = strlen(shard_id);
    uint64_t hash = 0;

    assert(id_size <= NODE_ID_MAX && weight <= SCORE_WEIGHT_MAX);
    memcpy(input, shard_id, id_size + 1);
    memcpy(input + id_size + 1, room->bytes, sizeof(room->bytes));
    crypto_shorthash(out, input, id_size + 1 + sizeof(room->bytes), seed->bytes);
    for (int i = crypto_shorthash_BYTES - 1; i >= 0; i--)
        hash = hash << 8 | out[i];
    /* 16 bits of weight shifted by 48 just fit, and since 2^48 is far above the greatest divisor, more weight is always
     * a higher score. */
    return ((uint64_t)weight << 48) / score_neg_ln(hash);
}
