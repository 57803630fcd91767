import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeNetwork } from './fake_network.mjs';
import { Session } from '../../gateway/web/sdk/session.js';

const SID = 'AAAAAAAAAAAAAAAAAAAAAA';
const EPOCH = '1.1.1';

function helloOk(more = {}) {
  return {
    helloOk: {
      sid: SID, resumeToken: 'token-1', position: { epoch: EPOCH, seq: '7' }, limits: { pingIntervalMs: 20000 },
      retryPolicy: { baseMs: 500, maxMs: 15000 }, self: { sid: SID }, ...more,
    },
  };
}

/** A session that has joined over the first socket. */
async function joined({ urls = ['https://one.test'], wallAheadMs = 0, more = () => ({}), ...options } = {}) {
  const network = makeNetwork();
  network.sleep(wallAheadMs);
  const states = [];
  const events = [];
  const session = new Session(urls, { getToken: async () => 'jwt', makeJoin: () => ({ room: 'r' }), ...options });
  session.on('state', (state) => states.push(state));
  session.on('moving', () => events.push('moving'));
  session.on('hello', (ok, { fresh }) => events.push(fresh ? 'joined' : 'resumed'));
  session.on('ended', (error) => events.push(`ended ${error.code}`));
  session.start();
  await network.advance(0);
  const { socket } = network;
  await socket.open();
  await socket.say(helloOk({ serverTimeMs: String(network.serverMs), ...more(network) }));
  await socket.say({ snapshot: { position: { epoch: EPOCH, seq: '7' }, participants: [{ sid: SID, version: '1' }] } });
  return { network, session, states, events, first: socket };
}

/** Lets time pass on a connection that answers its pings. */
async function hear(network, socket, ms) {
  for (let passedMs = 0; passedMs < ms; passedMs += 5000) {
    await network.advance(Math.min(5000, ms - passedMs));
    await socket.say({ pong: { nonce: String(socket.of('ping').at(-1).nonce) } });
  }
}

/** Waits for the next connection, however long the backoff is. */
async function dialled(network) {
  const before = network.sockets.length;
  while (network.sockets.length === before) await network.advance(20);
}

async function resume(network, token) {
  const { socket } = network;
  await socket.open();
  const [hello] = socket.of('hello');
  await socket.say(helloOk({ resumeToken: token, recovered: true }));
  return hello;
}

test('joins, and comes back with the newest token, its position and a number for each attempt', async () => {
  const { network, states, events, first } = await joined();
  assert.equal(first.of('hello')[0].token, 'jwt');
  assert.equal(first.of('hello')[0].attempt, undefined);
  assert.equal(first.of('ping').length, 1); // confirms the resume token
  await first.end();
  await dialled(network);
  await network.socket.end(); // nobody answers
  await dialled(network);
  const hello = await resume(network, 'token-2');
  assert.deepEqual([hello.resumeToken, hello.last.seq], ['token-1', '7']);
  const attempts = network.sockets.slice(1).flatMap((socket) => socket.of('hello')).map(({ attempt }) => attempt);
  assert.deepEqual(attempts, [1]); // the one that did not open never said hello
  await network.socket.end();
  await dialled(network);
  assert.equal((await resume(network, 'token-3')).attempt, 2);
  assert.deepEqual(events, ['joined', 'resumed', 'resumed']);
  assert.deepEqual(states, ['connecting', 'connected', 'reconnecting', 'connected', 'reconnecting', 'connected']);
});

test('says after a resume that it is back, also to who joined meanwhile, and to nobody later', async () => {
  const bob = 'BBBBBBBBBBBBBBBBBBBBBB';
  const { network, first } = await joined();
  await first.end();
  await dialled(network);
  await resume(network, 'token-2');
  const events = (seq, sid) => ({ roomEvents: { epoch: EPOCH, firstSeq: String(seq), lastSeq: String(seq),
    events: [{ joined: { sid, version: '1' } }] } });
  const greeted = () => network.socket.sent.filter(({ ack }) => ack).map(({ route }) => [route.peer, route.ack]);
  await network.socket.say(events(8, bob));
  await network.advance(10);
  assert.deepEqual(greeted(), [[bob, '0']]);
  await network.advance(3000);
  await network.socket.say(events(9, 'CCCCCCCCCCCCCCCCCCCCCC'));
  await network.advance(10);
  assert.deepEqual(greeted(), [[bob, '0']]);
});

test('waits longer and longer, and not at all once the network is back', async () => {
  const { network, first } = await joined();
  await first.end();
  for (let i = 0; i < 8; i += 1) {
    await network.advance(15000);
    await network.socket.end();
  }
  const tried = network.sockets.length;
  await network.fire('online');
  assert.equal(network.sockets.length, tried + 1);
});

test('waits no longer either when the page is seen again, or the network is another one', async () => {
  for (const type of ['visibilitychange', 'connection change']) {
    const { network, first } = await joined();
    await first.end();
    for (let i = 0; i < 8; i += 1) {
      await network.advance(15000);
      await network.socket.end();
    }
    const tried = network.sockets.length;
    network.document.visibilityState = 'hidden';
    await network.fire(type);
    assert.equal(network.sockets.length, tried, 'a page that nobody sees is in no hurry');
    network.document.visibilityState = 'visible';
    await network.fire(type);
    assert.equal(network.sockets.length, tried + 1, type);
  }
});

test('gives up an attempt that began without network when the network is back', async () => {
  const { network, first } = await joined();
  await first.end();
  await dialled(network);
  const hanging = network.socket; // its handshake gets no answer
  await network.advance(3000);
  await network.fire('online');
  assert.notEqual(network.socket, hanging);
  assert.notEqual(hanging.closedWith, null);
  await resume(network, 'token-2');
  // One that has only just begun gets its chance.
  const { network: other, first: begun } = await joined();
  await begun.end();
  await dialled(other);
  const young = other.socket;
  await other.fire('online');
  assert.equal(other.socket, young);
});

test('probes a connection that stands when the network is back, and when the machine has slept', async () => {
  const wakes = ['online', 'visibilitychange', 'connection change'].map((type) => (network) => network.fire(type));
  for (const wake of [...wakes, (network) => network.sleep(3600000)]) {
    const { network, states, first } = await joined();
    await first.say({ pong: { nonce: String(first.of('ping').at(-1).nonce) } });
    await wake(network);
    await network.advance(20000); // the watch's next look
    await network.advance(4000); // nobody answers
    assert.equal(states.at(-1), 'reconnecting');
    assert.ok(network.sockets.length > 1);
  }
});

test('finds a half-open socket by its silence', async () => {
  const { network, states, first } = await joined();
  await first.say({ pong: { nonce: String(first.of('ping').at(-1).nonce) } });
  await network.advance(29000);
  assert.equal(states.at(-1), 'connected');
  await network.advance(2000);
  assert.equal(states.at(-1), 'reconnecting');
});

test('moves to another gateway when told, and keeps the first connection until it has', async () => {
  const { network, states, events, first } = await joined({ urls: ['https://one.test', 'https://two.test'] });
  await first.say({ reconnect: { spreadMs: 1000 } });
  await network.advance(1000);
  assert.match(network.socket.url, /^wss:\/\/two/);
  assert.equal(first.closedWith, null);
  await network.socket.end(); // not this one either
  await network.advance(1000);
  assert.match(network.socket.url, /^wss:\/\/one/);
  await network.socket.end();
  assert.equal(first.closedWith, null);
  await network.advance(4000);
  await resume(network, 'token-2');
  assert.notEqual(first.closedWith, null);
  assert.notEqual(first.closedWith, 1000); // which would leave the room
  assert.deepEqual(events, ['joined', 'moving', 'resumed']);
  assert.deepEqual(states, ['connecting', 'connected']);
});

test('goes to the alternates that it is given', async () => {
  const { network, first } = await joined();
  await first.say({ reconnect: { spreadMs: 10, alternates: ['https://three.test'] } });
  await network.advance(10);
  assert.match(network.socket.url, /^wss:\/\/three/);
});

test('joins afresh when the session is gone, under numbers that begin anew', async () => {
  const { network, events, first } = await joined();
  await first.end();
  await dialled(network);
  await network.socket.open();
  await network.socket.say({ leave: { reason: 'SESSION_GONE', action: 'REJOIN' } });
  await network.socket.end(4200);
  await dialled(network);
  await network.socket.open();
  assert.equal(network.socket.of('hello')[0].token, 'jwt');
  await network.socket.say(helloOk({ sid: 'BBBBBBBBBBBBBBBBBBBBBB', resumeToken: 'other' }));
  await network.socket.end();
  await dialled(network);
  assert.equal((await resume(network, 'next')).attempt, 1);
  assert.deepEqual(events, ['joined', 'joined', 'resumed']);
});

const jwt = (claims) => `h.${btoa(JSON.stringify(claims))}.s`;

test('asks for fresh tokens and credentials by the server\'s clock, whatever its own says', async () => {
  for (const wallAheadMs of [-86400000, 0, 86400000]) {
    let network;
    let tokens = 0;
    const getToken = async () => {
      tokens += 1;
      return jwt({ exp: Math.floor(network?.serverMs ?? 1700000000000 + 1000) / 1000 + 600 });
    };
    const server = (ttlS) => [{ urls: ['turn:x'], expiresAtS: String(Math.floor(network.serverMs / 1000) + ttlS) }];
    const more = (made) => {
      network = made;
      return { iceServers: server(600) };
    };
    const { first } = await joined({ getToken, canRefresh: true, wallAheadMs, more });
    const answer = async () => {
      const { requestId } = first.sent.findLast((message) => message.refreshToken);
      await first.say({ result: { requestId, code: 'OK' } });
      await first.say({ iceRefresh: { iceServers: server(600) } });
    };
    // Sixty seconds before each would expire, the second time too.
    for (const times of [1, 2]) {
      await hear(network, first, 520000);
      assert.deepEqual([tokens, first.of('refreshIce').length], [times, times - 1]);
      await hear(network, first, 30000);
      assert.deepEqual([tokens, first.of('refreshIce').length], [times + 1, times]);
      network.sleep(7200000); // the clock jumps
      await answer();
    }
  }
});

test('stops for good when told to, but not for its own older connection', async () => {
  const { network, events, first } = await joined();
  await first.say({ leave: { reason: 'REMOVED', action: 'STOP' } });
  await first.end(4300);
  await network.advance(60000);
  assert.equal(network.sockets.length, 1);
  assert.deepEqual(events, ['joined', 'ended REMOVED']);
});
