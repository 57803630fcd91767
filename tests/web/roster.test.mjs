import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Roster, rosterDigest } from '../../gateway/web/sdk/roster.js';

const at = (seq, epoch = 'e1') => ({ epoch, seq: String(seq) });
const person = (sid, version = 1, more = {}) => ({ sid, identity: `id-${sid}`, version: String(version), ...more });
const snapshot = (seq, people, more = {}) => ({ position: at(seq, more.epoch), participants: people, ...more });
const range = (first, last, events = [], epoch = 'e1') => ({ epoch, firstSeq: String(first), lastSeq: String(last), events });
const types = ({ changes }) => changes.map((c) => `${c.type}:${c.participant?.sid ?? ''}`);
const sids = (roster) => [...roster.values()].map((p) => p.sid).sort();

function joined(...people) {
  const roster = new Roster();
  roster.applySnapshot(snapshot(10, people));
  return roster;
}

test('a snapshot in one page is the roster', () => {
  const roster = new Roster();
  const result = roster.applySnapshot(snapshot(10, [person('A'), person('B')]));
  assert.deepEqual(types(result), ['joined:A', 'joined:B']);
  assert.equal(result.sync, null);
  assert.deepEqual(roster.position, { epoch: 'e1', seq: 10 });
});

test('pages are pulled one by one and count only when the last has come', () => {
  const roster = new Roster();
  const first = roster.applySnapshot(snapshot(10, [person('A')], { nextCursor: 'c1' }));
  assert.deepEqual(first, { changes: [], sync: { cursor: 'c1' } });
  assert.equal(roster.size, 0);
  const last = roster.applySnapshot(snapshot(10, [person('B')]));
  assert.deepEqual(types(last), ['joined:A', 'joined:B']);
});

test('a page of another position begins anew', () => {
  const roster = new Roster();
  roster.applySnapshot(snapshot(10, [person('A')], { nextCursor: 'c1' }));
  roster.applySnapshot(snapshot(12, [person('B')]));
  assert.deepEqual(sids(roster), ['B']);
});

test('events move the position, also over numbers that hold no event', () => {
  const roster = joined(person('A'));
  const result = roster.applyEvents(range(11, 15, [{ joined: person('B') }, { left: { sid: 'A', reason: 'CLIENT_LEFT' } }]));
  assert.deepEqual(types(result), ['joined:B', 'left:A']);
  assert.equal(roster.position.seq, 15);
});

test('a gap asks for what is missing and changes nothing', () => {
  const roster = joined(person('A'));
  const result = roster.applyEvents(range(12, 12, [{ joined: person('B') }]));
  assert.deepEqual(result, { changes: [], sync: { position: at(10) } });
  assert.deepEqual(sids(roster), ['A']);
});

test('a range that was seen in part is applied as a whole, one that was seen whole is not', () => {
  const roster = joined(person('A'));
  roster.applyEvents(range(11, 12, [{ joined: person('B') }]));
  assert.deepEqual(types(roster.applyEvents(range(11, 13, [{ joined: person('B') }, { joined: person('C') }]))), ['joined:C']);
  assert.deepEqual(roster.applyEvents(range(11, 12, [{ left: { sid: 'C' } }])), { changes: [], sync: null });
  assert.deepEqual(sids(roster), ['A', 'B', 'C']);
});

test('events of an unknown epoch ask for what is missing', () => {
  const roster = joined(person('A'));
  assert.deepEqual(roster.applyEvents(range(11, 11, [{ joined: person('B') }], 'e2')).sync, { position: at(10) });
});

test('moved adopts the new epoch at the same place', () => {
  const roster = joined(person('A'));
  roster.moved('e2');
  assert.deepEqual(types(roster.applyEvents(range(11, 11, [{ joined: person('B') }], 'e2'))), ['joined:B']);
});

test('a recovered resume adopts the epoch of hello_ok and applies the rest', () => {
  const roster = joined(person('A'));
  roster.recovered(at(12, 'e2'));
  assert.equal(roster.applyEvents(range(11, 12, [{ joined: person('B') }], 'e2')).sync, null);
  assert.deepEqual(roster.position, { epoch: 'e2', seq: 12 });
});

test('an update replaces the parts that it has and ignores what is older', () => {
  const roster = joined(person('A', 5, { name: 'Ann', tracks: [{ id: 't1' }] }));
  roster.applyEvents(range(11, 11, [{ updated: { sid: 'A', version: '6', tracks: { tracks: [{ id: 't2' }] } } }]));
  assert.equal(roster.get('A').name, 'Ann');
  assert.deepEqual(roster.get('A').tracks, [{ id: 't2' }]);
  roster.applyEvents(range(12, 12, [{ updated: { sid: 'A', version: '4', profile: { name: 'old' } } }]));
  assert.equal(roster.get('A').name, 'Ann');
});

test('a snapshot reports the difference to what was known', () => {
  const roster = joined(person('A'), person('B'), person('C', 1));
  const result = roster.applySnapshot(snapshot(20, [person('B'), person('C', 2), person('D')], { epoch: 'e2' }));
  assert.deepEqual(types(result), ['left:A', 'updated:C', 'joined:D']);
});

test('while a room settles nobody is removed; settled with another digest asks for a snapshot', () => {
  const roster = joined(person('A'), person('B'));
  const result = roster.applySnapshot(snapshot(20, [person('B', 2)], { epoch: 'e2', settling: true }));
  assert.deepEqual(types(result), ['updated:B']);
  assert.deepEqual(sids(roster), ['A', 'B']);
  const digest = rosterDigest([{ sid: 'B', version: 2 }]);
  const settled = roster.applyEvents({ ...range(21, 21, [{ settled: { digest } }]), epoch: 'e2' });
  assert.deepEqual(settled.sync, {});
  assert.equal(roster.settling, false);
  // The request may be lost, alone or with the connection: nothing goes on from a wrong roster.
  assert.equal(roster.position, null);
  assert.deepEqual(roster.applyEvents({ ...range(22, 22), epoch: 'e2' }).sync, {});
  roster.applySnapshot(snapshot(21, [person('B', 2)], { epoch: 'e2' }));
  assert.deepEqual(sids(roster), ['B']);
});

test('settled with our own digest asks for nothing', () => {
  const roster = joined(person('A', 3), person('B', 7));
  const digest = rosterDigest(roster.values());
  assert.equal(roster.applyEvents(range(11, 11, [{ settled: { digest } }])).sync, null);
  assert.equal(roster.position.seq, 11);
});

test('a settled that was lost is asked for like any event, and counts in its turn', () => {
  const roster = new Roster();
  roster.applySnapshot(snapshot(10, [person('A', 3)], { settling: true }));
  const digest = rosterDigest([{ sid: 'A', version: 3 }, { sid: 'B', version: 1 }]);
  assert.deepEqual(roster.applyEvents(range(13, 13)).sync, { position: { epoch: 'e1', seq: '10' } });
  assert.equal(roster.settling, true);
  roster.applyEvents(range(11, 11, [{ joined: person('B') }]));
  assert.equal(roster.applyEvents(range(12, 12, [{ settled: { digest } }])).sync, null);
  assert.equal(roster.settling, false);
});

test('the digest matches the published vectors and leaves viewers out', () => {
  // Computed by the definition in docs/PROTOCOL.md, in another language.
  assert.equal(rosterDigest([]), '0000000000000000');
  assert.equal(rosterDigest([{ sid: 'AAAAAAAAAAAAAAAAAAAAAA', version: 1 }]), 'a2cf229d17ca78d5');
  assert.equal(rosterDigest([{ sid: 'AAAAAAAAAAAAAAAAAAAAAA', version: 1 }, { sid: 'u9Zr1Yw0Tq2b7cXk3LmN4A', version: 42 },
    { sid: 'viewer', version: 1, kind: 'VIEWER' }]), '68ac6487c60c3c40');
});

test('a reliable message to the room shows once, also when its range comes twice in part', () => {
  const roster = joined(person('A'));
  const message = { message: { from: 'A', text: 'hi', senderSeq: '1' } };
  assert.equal(roster.applyEvents(range(11, 11, [message])).changes.length, 1);
  assert.equal(roster.applyEvents(range(11, 12, [message])).changes.length, 0);
});

test('a pong shows events that never came', () => {
  const roster = joined(person('A'));
  assert.equal(roster.isBehind(at(10)), false);
  assert.equal(roster.isBehind(at(11)), true);
  assert.equal(roster.isBehind(at(9)), false);
  assert.equal(roster.isBehind(undefined), false);
});

test('positions are reached by number, because numbers go on from epoch to epoch', () => {
  const roster = joined(person('A'));
  assert.equal(roster.hasReached(at(10)), true);
  assert.equal(roster.hasReached(at(7, 'e0')), true);
  assert.equal(roster.hasReached(at(11)), false);
});
