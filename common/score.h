/* Weighted rendezvous hashing, exact on every platform.
 *
 * score(shard, room) = weight / -ln(u), u = (hash + 0.5) / 2^64, hash = SipHash-2-4 under the cluster's secret seed
 * over exactly (the bytes of the shard id, one zero byte, the 16 bytes of the room key). The highest score owns the
 * room; ties go to the smaller shard id. A change of one weight moves only rooms from or to that shard, in proportion
 * (Schindelhauer & Schomaker 2005; Thaler & Ravishankar 1998). -ln(u) comes from a fixed-point table with linear
 * interpolation in 64-bit integers: every platform, compiler and language gives the same bits. docs/PLACEMENT.md has
 * the algorithm in words; tests/vectors/placement.json the published vectors.
 *
 * Threading: pure functions.
 */
#ifndef SBX_COMMON_SCORE_H
#define SBX_COMMON_SCORE_H

#include "common/ids.h"
#include <stdint.h>

enum { SCORE_SEED_SIZE = 16, SCORE_WEIGHT_MAX = 65535 };

struct score_seed {
    uint8_t bytes[SCORE_SEED_SIZE];
};

/* -ln((hash + 0.5) / 2^64) in Q32.32, never increasing with `hash`: at least 1, at most 65 ln 2 < 46 << 32. The
 * relative error is below 0.1 percent, or two units. */
uint64_t score_neg_ln(uint64_t hash);
/* weight / -ln(u) in units of 2^-16: (weight << 48) / score_neg_ln(hash), rounded down; weight 0 gives 0, and a shard
 * of weight 0 owns nothing while another has weight. */
uint64_t score_compute(const struct score_seed *seed, const char *shard_id, uint32_t weight,
                       const struct room_key *room);

#endif
