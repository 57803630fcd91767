import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Links, ROOM } from '../../gateway/web/sdk/links.js';
import { mergeLimits } from '../../gateway/web/sdk/protocol.js';

const LIMITS = mergeLimits({ directedWindowMessages: 4, directedWindowBytes: 1000, sessionWindowBytes: 2000,
  ackDelayMs: 50, retransmitMs: 1000 });

function makeLinks({ ready = () => true } = {}) {
  const sent = [];
  const delivered = [];
  const drained = [];
  const links = new Links({
    transmit: (message) => sent.push(message),
    deliver: (peer, message) => delivered.push([peer, message.message?.text]),
    ready,
    drained: (peer) => drained.push(peer),
  });
  links.setLimits(LIMITS);
  links.resumed(0);
  return { links, sent, delivered, drained, take: () => sent.splice(0) };
}

const text = (value) => ({ send: { delivery: 'RELIABLE', text: value } });
const incoming = (peer, seq, value = `m${seq}`) => ({ route: { peer, seq: String(seq) }, message: { text: value } });
const seqs = (messages) => messages.map((message) => Number(message.route.seq));

test('numbers messages from 1 for each receiver', () => {
  const { links, sent } = makeLinks();
  links.send('A', text('a1'), 0);
  links.send('B', text('b1'), 0);
  links.send('A', text('a2'), 0);
  links.send(ROOM, text('r1'), 0);
  assert.deepEqual(sent.map(({ route }) => [route.peer, route.seq]),
    [['A', '1'], ['B', '1'], ['A', '2'], [undefined, '1']]);
});

test('delivers in order, whatever order messages come in, and each once', () => {
  const { links, delivered } = makeLinks();
  for (const seq of [2, 3, 1, 1, 3, 2, 4]) links.receive(incoming('A', seq), 0);
  assert.deepEqual(delivered, [['A', 'm1'], ['A', 'm2'], ['A', 'm3'], ['A', 'm4']]);
  assert.equal(links.stats.duplicates, 3);
});

test('drops what lies beyond the window without acknowledging it', () => {
  const { links, delivered, sent } = makeLinks();
  links.receive(incoming('A', 5), 0);
  links.tick(1000);
  assert.deepEqual([delivered.length, sent.length, links.stats.overflowed], [0, 0, 1]);
});

test('acknowledges cumulatively within the delay', () => {
  const { links, sent } = makeLinks();
  links.receive(incoming('A', 1), 0);
  links.receive(incoming('A', 2), 10);
  assert.equal(links.nextDeadline(), 50);
  links.tick(49);
  assert.equal(sent.length, 0);
  links.tick(50);
  assert.deepEqual(sent, [{ route: { peer: 'A', ack: '2' }, ack: {} }]);
  assert.equal(links.nextDeadline(), Infinity);
});

test('an acknowledgement rides on the next message to the same peer only', () => {
  const { links, take } = makeLinks();
  links.receive(incoming('A', 1), 0);
  links.send('B', text('b'), 1);
  links.send('A', text('a'), 1);
  assert.deepEqual(take().map(({ route }) => route), [{ seq: '1', peer: 'B' }, { seq: '1', peer: 'A', ack: '1' }]);
  links.acknowledged('A', 1, 2);
  links.acknowledged('B', 1, 2);
  assert.equal(links.nextDeadline(), Infinity);
});

test('a duplicate is acknowledged again at once, because its acknowledgement was lost', () => {
  const { links, take } = makeLinks();
  links.receive(incoming('A', 1), 0);
  links.tick(50);
  take();
  links.receive(incoming('A', 1), 100);
  assert.equal(links.nextDeadline(), 100);
  links.tick(100);
  assert.deepEqual(take(), [{ route: { peer: 'A', ack: '1' }, ack: {} }]);
});

test('goes back and sends again after a time that doubles up to eight times the first, until there is progress', () => {
  const { links, take } = makeLinks();
  links.send('A', text('1'), 0);
  links.send('A', text('2'), 0);
  take();
  const times = [];
  for (let i = 0; i < 6; i++) {
    const at = links.nextDeadline();
    times.push(at);
    links.tick(at);
    assert.deepEqual(seqs(take()), [1, 2]);
  }
  assert.deepEqual(times, [1000, 3000, 7000, 15000, 23000, 31000]);
  links.acknowledged('A', '1', 32000);
  assert.equal(links.nextDeadline(), 33000);
  links.tick(33000);
  assert.deepEqual(seqs(take()), [2]);
});

test('sends nothing while offline and everything at once after a resume', () => {
  const { links, take } = makeLinks();
  links.send('A', text('1'), 0);
  take();
  links.lost();
  links.send('A', text('2'), 0);
  links.tick(60000);
  assert.equal(links.nextDeadline(), Infinity);
  assert.deepEqual(take(), []);
  links.resumed(70000);
  assert.deepEqual(seqs(take()), [1, 2]);
});

test('sends everything again when the room has moved', () => {
  const { links, take } = makeLinks();
  links.send('A', text('1'), 0);
  links.send(ROOM, text('2'), 0);
  take();
  links.moved(10);
  assert.equal(take().length, 2);
});

test('does not wait for its next turn when somebody is heard of again, but only once before it', () => {
  const { links, take } = makeLinks();
  links.send('A', text('1'), 0);
  links.send('B', text('1'), 0);
  take();
  links.receive({ route: { peer: 'A' } }, 500); // not overdue: it may be on its way
  assert.deepEqual(take(), []);
  links.tick(1000);
  take();
  links.receive(incoming('A', 1), 1500); // A was away and is back
  assert.deepEqual(take().map(({ route }) => [route.peer, route.seq, route.ack]), [['A', '1', undefined]]);
  links.receive(incoming('A', 2), 1600);
  assert.deepEqual(take(), []);
  assert.equal(links.nextDeadline(), 1550); // the acknowledgement; the next turn, for A, is at 3500
  links.receive({ route: { peer: 'A', ack: '1' } }, 1650);
  links.tick(3000);
  assert.deepEqual(take().filter(({ ack }) => !ack).map(({ route }) => route.peer), ['B']);
});

test('a throttled receiver that is heard of is left alone all the same', () => {
  const { links, take } = makeLinks();
  links.send('A', text('1'), 0);
  links.tick(1000);
  take();
  links.pause('A', 5000);
  links.receive({ route: { peer: 'A' } }, 1500);
  assert.deepEqual(take(), []);
});

test('after a resume everybody hears again what has arrived', () => {
  const { links, take } = makeLinks();
  links.receive(incoming('A', 1), 0);
  links.receive(incoming('B', 1), 0);
  links.receive(incoming('C', 2), 0); // nothing in order yet
  links.tick(50);
  links.send('B', text('1'), 60);
  take();
  links.lost();
  links.resumed(5000);
  links.tick(5000);
  assert.deepEqual(take().map(({ route }) => route),
    [{ seq: '1', peer: 'B', ack: '1' }, { peer: 'A', ack: '1' }, { peer: 'C', ack: '0' }]);
  // Somebody who may wait with a first message hears of this client as well, unless it has left.
  links.peerGone('E');
  links.greet('D', 5500);
  links.greet('E', 5500);
  links.tick(5500);
  assert.deepEqual(take().map(({ route }) => route), [{ peer: 'D', ack: '0' }]);
  // Another owner knows what it must: nobody was away.
  links.moved(6000);
  links.tick(6000);
  assert.deepEqual(take().map(({ route }) => route), [{ seq: '1', peer: 'B', ack: '1' }]);
});

test('two who were away at once do not repeat each other into a loop', () => {
  const wire = [];
  const make = (self, other) => {
    const links = new Links({ transmit: (message) => wire.push([other, { ...message, route: { ...message.route, peer: self } }]),
      deliver() {}, ready: () => false }); // nothing is ever acknowledged
    links.setLimits(LIMITS);
    links.resumed(0);
    return links;
  };
  const ends = { A: make('A', 'B'), B: make('B', 'A') };
  ends.A.send('B', text('1'), 0);
  ends.B.send('A', text('1'), 0);
  let carried = 0;
  for (let now = 0; now <= 3500; now += 10) {
    for (const end of Object.values(ends)) end.tick(now);
    while (wire.length > 0 && carried < 1000) {
      const [to, message] = wire.shift();
      carried += 1;
      ends[to].receive(message, now);
    }
  }
  assert.ok(carried <= 2 + 4 * 2, `${carried} messages`); // the first, and two for each of the turns at 1 and 3 s
});

test('refuses more than a window holds and says when there is room again', () => {
  const { links, drained } = makeLinks();
  for (let i = 0; i < 4; i++) links.send('A', text('x'), 0);
  assert.throws(() => links.send('A', text('x'), 0), { code: 'WOULD_BLOCK' });
  links.send('B', text('x'), 0);
  links.acknowledged('A', 1, 1);
  assert.deepEqual(drained, ['A']);
  assert.equal(links.send('A', text('x'), 1), 5);
});

test('bounds bytes per pair and per session, but lets a single message through', () => {
  const { links } = makeLinks();
  links.send('A', text('x'.repeat(1500)), 0);
  assert.throws(() => links.send('A', text('y'), 0), { code: 'WOULD_BLOCK' });
  links.send('B', text('x'.repeat(400)), 0);
  assert.throws(() => links.send('B', text('x'.repeat(400)), 0), { code: 'WOULD_BLOCK' });
});

test('a peer that has gone makes everything to it undeliverable and stays gone', () => {
  const { links, delivered } = makeLinks();
  const outcomes = [];
  links.send('A', text('1'), 0, { settle: (error) => outcomes.push(error?.code ?? null) });
  links.send('A', text('2'), 0, { settle: (error) => outcomes.push(error?.code ?? null) });
  links.acknowledged('A', 1, 1);
  links.peerGone('A');
  assert.deepEqual(outcomes, [null, 'UNDELIVERABLE']);
  assert.throws(() => links.send('A', text('3'), 2), { code: 'UNDELIVERABLE' });
  links.receive(incoming('A', 1), 3);
  assert.deepEqual(delivered, []);
  assert.equal(links.unackedBytes, 0);
});

test('holds messages until their sender is in the roster, and acknowledges them only then', () => {
  const known = new Set();
  const { links, delivered, sent } = makeLinks({ ready: (peer) => known.has(peer) });
  links.receive(incoming('A', 1), 0);
  links.receive(incoming('A', 2), 0);
  links.tick(1000);
  assert.deepEqual([delivered.length, sent.length], [0, 0]);
  known.add('A');
  links.flush(1000);
  links.tick(1050);
  assert.equal(delivered.length, 2);
  assert.equal(sent[0].route.ack, '2');
});

test('a message to a participant that is refused for good leaves no gap behind', () => {
  const { links, take } = makeLinks();
  let outcome;
  links.send('A', text('1'), 0, { requestId: 7, settle: (error) => { outcome = error.code; } });
  links.send('A', text('2'), 0, { requestId: 8 });
  take();
  links.refuse('A', 7, { code: 'FORBIDDEN' }, 1);
  assert.equal(outcome, 'FORBIDDEN');
  assert.deepEqual(take(), [{ route: { seq: '1', peer: 'A' }, candidatesDone: {} }]);
});

test('a message to the room that is refused for good lets those behind it move up', () => {
  const { links, take } = makeLinks();
  links.send(ROOM, text('1'), 0, { requestId: 7 });
  links.send(ROOM, text('2'), 0, { requestId: 8 });
  links.send(ROOM, text('3'), 0, { requestId: 9 });
  take();
  links.refuse(ROOM, 8, { code: 'TOO_LARGE' }, 1);
  assert.deepEqual(take().map(({ route, send }) => [route.seq, send.text]), [['1', '1'], ['2', '3']]);
  assert.equal(links.send(ROOM, text('4'), 2), 3);
});

test('a throttled receiver gets nothing until the time is up', () => {
  const { links, take } = makeLinks();
  links.send(ROOM, text('1'), 0);
  take();
  links.pause(ROOM, 5000);
  links.send(ROOM, text('2'), 10);
  assert.deepEqual(take(), []);
  assert.equal(links.nextDeadline(), 5000);
  links.tick(5000);
  assert.deepEqual(seqs(take()), [1, 2]);
});

test('two ends over a middle that loses, repeats and reorders: exactly once, in order', () => {
  let random = 12345;
  const next = () => { random = (random * 1103515245 + 12345) & 0x7fffffff; return random / 0x7fffffff; };
  const wire = [];
  const got = { A: [], B: [] };
  const ends = {};
  for (const [self, other] of [['A', 'B'], ['B', 'A']]) {
    ends[self] = new Links({
      transmit: (message) => {
        const { send, ...rest } = message;
        const relayed = { ...rest, route: { ...message.route, peer: self }, ...(send && { message: send }) };
        for (let copies = next() < 0.2 ? 2 : 1; copies > 0; copies--) if (next() > 0.3) wire.push([other, relayed]);
      },
      deliver: (peer, message) => got[self].push(message.message.text),
      ready: () => true,
    });
    ends[self].setLimits(LIMITS);
    ends[self].resumed(0);
  }
  const sent = { A: 0, B: 0 };
  let settled = 0;
  let now = 0;
  while (settled < 400 && now < 1e7) {
    for (const self of ['A', 'B']) {
      const to = self === 'A' ? 'B' : 'A';
      try {
        while (sent[self] < 200) {
          ends[self].send(to, text(`${self}${sent[self]}`), now, { settle: () => { settled += 1; } });
          sent[self] += 1;
        }
      } catch (error) {
        assert.equal(error.code, 'WOULD_BLOCK');
      }
    }
    while (wire.length > 0 && next() > 0.1) {
      const [to, message] = wire.splice(Math.floor(next() * wire.length), 1)[0];
      ends[to].receive(message, now);
    }
    now += 20;
    ends.A.tick(now);
    ends.B.tick(now);
  }
  const expected = (name) => Array.from({ length: 200 }, (_, i) => `${name}${i}`);
  assert.deepEqual(got.B, expected('A'));
  assert.deepEqual(got.A, expected('B'));
  assert.equal(settled, 400);
  assert.equal(ends.A.unackedBytes + ends.B.unackedBytes, 0);
});
