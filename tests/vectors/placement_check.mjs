// An implementation of docs/PLACEMENT.md that shares nothing with the C code, checked against placement.json.
//
//   node placement_check.mjs           exit 0 if every vector holds
//   node placement_check.mjs --write   compute the expected values afresh from the inputs in placement.json
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import assert from 'node:assert/strict';

const MASK64 = (1n << 64n) - 1n;

function rotateLeft(x, n) {
  return ((x << n) | (x >> (64n - n))) & MASK64;
}

// https://131002.net/siphash/siphash.pdf with c = 2, d = 4.
function sipHash24(key, input) {
  const word = (bytes, at) => bytes.readBigUInt64LE(at);
  const k0 = word(key, 0);
  const k1 = word(key, 8);
  let v0 = k0 ^ 0x736f6d6570736575n;
  let v1 = k1 ^ 0x646f72616e646f6dn;
  let v2 = k0 ^ 0x6c7967656e657261n;
  let v3 = k1 ^ 0x7465646279746573n;
  const rounds = (n) => {
    for (; n > 0; n--) {
      v0 = (v0 + v1) & MASK64; v1 = rotateLeft(v1, 13n) ^ v0; v0 = rotateLeft(v0, 32n);
      v2 = (v2 + v3) & MASK64; v3 = rotateLeft(v3, 16n) ^ v2;
      v0 = (v0 + v3) & MASK64; v3 = rotateLeft(v3, 21n) ^ v0;
      v2 = (v2 + v1) & MASK64; v1 = rotateLeft(v1, 17n) ^ v2; v2 = rotateLeft(v2, 32n);
    }
  };
  // Padded with zeros to a multiple of 8; the last byte is the length modulo 256.
  const padded = Buffer.alloc(8 * (Math.floor(input.length / 8) + 1));
  input.copy(padded);
  padded[padded.length - 1] = input.length & 0xff;
  for (let at = 0; at < padded.length; at += 8) {
    v3 ^= word(padded, at);
    rounds(2);
    v0 ^= word(padded, at);
  }
  v2 ^= 0xffn;
  rounds(4);
  return v0 ^ v1 ^ v2 ^ v3;
}

const LN_TABLE = Array.from({ length: 257 }, (_, i) => BigInt(Math.round(Math.log(1 + i / 256) * 2 ** 32)));
const LN2 = LN_TABLE[256];

function negLn(hash) {
  const n = 2n * hash + 1n;
  const exponent = BigInt(n.toString(2).length - 1);
  const fraction = (n << (64n - exponent)) & MASK64;
  const i = Number(fraction >> 56n);
  const between = (fraction >> 24n) & 0xffffffffn;
  const ln = LN_TABLE[i] + (((LN_TABLE[i + 1] - LN_TABLE[i]) * between) >> 32n);
  const result = (65n - exponent) * LN2 - ln;
  return result > 0n ? result : 1n;
}

function roomKey(project, room) {
  return createHash('sha256').update(project).update('\0').update(room).digest().subarray(0, 16);
}

function roomRegion(room) {
  return /^([a-z0-9-]{1,31})\//.exec(room)?.[1] ?? '';
}

function score(seed, id, weight, key) {
  return (BigInt(weight) << 48n) / negLn(sipHash24(seed, Buffer.concat([Buffer.from(id), Buffer.of(0), key])));
}

function order(seed, shards, key, weightOf) {
  return shards
    .map((shard) => ({ shard: shard.id, score: score(seed, shard.id, weightOf(shard), key) }))
    .sort((a, b) => (a.score !== b.score ? (a.score > b.score ? -1 : 1) : a.shard < b.shard ? -1 : 1));
}

function owner(seed, shards, key, region) {
  const all = (shard) => true;
  const here = (shard) => region !== '' && shard.region === region;
  for (const weightOf of [(shard) => shard.weight, (shard) => shard.full_weight]) {
    for (const eligible of [here, all]) {
      const candidates = shards.filter((shard) => eligible(shard) && weightOf(shard) > 0);
      if (candidates.length > 0) return order(seed, candidates, key, weightOf)[0].shard;
    }
  }
  return shards.map((shard) => shard.id).sort()[0];
}

function expectations(vectors) {
  const seed = Buffer.from(vectors.seed, 'hex');
  return {
    ...vectors,
    neg_ln: vectors.neg_ln.map(({ hash }) => ({ hash, value: negLn(BigInt('0x' + hash)).toString() })),
    cases: vectors.cases.map(({ about, shards, rooms }) => ({
      about,
      shards,
      rooms: rooms.map(({ project, room }) => {
        const key = roomKey(project, room);
        return {
          project,
          room,
          key: key.toString('hex'),
          order: order(seed, shards, key, (shard) => shard.weight)
            .map((entry) => ({ shard: entry.shard, score: entry.score.toString() })),
          owner: owner(seed, shards, key, roomRegion(room)),
        };
      }),
    })),
  };
}

const path = new URL('placement.json', import.meta.url);
const vectors = JSON.parse(readFileSync(path, 'utf8'));

// The vector of the SipHash paper, so that a mistake here cannot hide behind the same mistake in the vectors.
const counting = (n) => Buffer.from(Array.from({ length: n }, (_, i) => i));
assert.equal(sipHash24(counting(16), counting(15)), 0xa129ca6149be45e5n);

if (process.argv.includes('--write')) {
  writeFileSync(path, JSON.stringify(expectations(vectors), null, 1) + '\n');
} else {
  assert.deepEqual(vectors, expectations(vectors));
  const rooms = vectors.cases.reduce((sum, { rooms }) => sum + rooms.length, 0);
  assert.ok(rooms > 0 && vectors.neg_ln.length > 0);
  console.log(`${vectors.neg_ln.length} logarithms and ${rooms} placements hold`);
}
