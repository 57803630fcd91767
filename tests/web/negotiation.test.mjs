import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Negotiation, isPolite, offersFirst } from '../../gateway/web/sdk/negotiation.js';

const one = (sid, seq = 1, kind = 'STANDARD') => ({ sid, kind, join: { epoch: 'e', seq } });

test('exactly one of two is polite, and exactly one offers first', () => {
  const people = [one('AAA', 5), one('BBB', 3), one('aaa', 9), one('-_-', 7), one('VVV', 2, 'VIEWER'),
    one('SSS', 1, 'MEDIA_SERVER')];
  for (const a of people) {
    for (const b of people) {
      if (a === b) continue;
      assert.notEqual(isPolite(a, b), isPolite(b, a));
      assert.notEqual(offersFirst(a, b), offersFirst(b, a));
    }
  }
});

test('the smaller sid is polite, a media server never', () => {
  assert.equal(isPolite(one('A'), one('B')), true);
  assert.equal(isPolite(one('B'), one('A')), false);
  assert.equal(isPolite(one('Z'), one('A', 1, 'MEDIA_SERVER')), true);
  assert.equal(isPolite(one('A', 1, 'MEDIA_SERVER'), one('Z')), false);
});

test('the later join offers first, a viewer always', () => {
  assert.equal(offersFirst(one('A', 9), one('B', 3)), true);
  assert.equal(offersFirst(one('A', 1, 'VIEWER'), one('B', 3)), true);
});

test('crossing offers have different numbers and end in one negotiation', () => {
  const polite = new Negotiation(true);
  const impolite = new Negotiation(false);
  const a = polite.beginOffer(false);
  const b = impolite.beginOffer(false);
  assert.notEqual(a.negotiation, b.negotiation);
  assert.equal(impolite.receiveOffer(a), 'ignore');
  assert.equal(polite.receiveOffer(b), 'rollback');
  assert.equal(impolite.receiveAnswer(b), 'accept');
  assert.deepEqual([polite.current, impolite.current], [b.negotiation, b.negotiation]);
  const again = polite.beginOffer(false);
  assert.equal(impolite.receiveOffer(again), 'accept');
  assert.equal(polite.receiveAnswer(again), 'accept');
});

test('candidates of an ignored offer are stale', () => {
  const polite = new Negotiation(true);
  const impolite = new Negotiation(false);
  const a = polite.beginOffer(false);
  impolite.beginOffer(false);
  impolite.receiveOffer(a);
  assert.equal(impolite.receiveCandidate(a), 'stale');
  assert.equal(impolite.staleDropped, 1);
});

test('an ICE restart raises the generation, and candidates of the one before are stale', () => {
  const polite = new Negotiation(true);
  const impolite = new Negotiation(false);
  const first = impolite.beginOffer(false);
  polite.receiveOffer(first);
  impolite.receiveAnswer(first);
  assert.equal(polite.receiveCandidate(first), 'add');
  const restart = polite.beginOffer(true);
  assert.equal(restart.iceGeneration, 2);
  assert.equal(impolite.receiveOffer(restart), 'accept');
  assert.equal(impolite.receiveCandidate(first), 'stale');
  assert.equal(impolite.receiveCandidate(restart), 'add');
  assert.equal(polite.receiveCandidate(restart), 'wait');
  polite.receiveAnswer(restart);
  assert.equal(polite.receiveCandidate(restart), 'add');
});

test('answers to offers that were given up, and repeated offers, are stale', () => {
  const polite = new Negotiation(true);
  const impolite = new Negotiation(false);
  const mine = polite.beginOffer(false);
  const theirs = impolite.beginOffer(false);
  polite.receiveOffer(theirs);
  assert.equal(polite.receiveAnswer(mine), 'stale');
  assert.equal(polite.receiveOffer(theirs), 'stale');
});

test('numbers come as strings from the wire', () => {
  const polite = new Negotiation(true);
  assert.equal(polite.receiveOffer({ negotiation: '9', iceGeneration: 1 }), 'accept');
  assert.equal(polite.beginOffer(false).negotiation, 10);
});
