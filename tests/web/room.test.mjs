import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeMedia } from './fake_media.mjs';
import { makeNetwork } from './fake_network.mjs';
import { Room } from '../../gateway/web/sdk/room.js';

const ANN = 'AAAAAAAAAAAAAAAAAAAAAA';
const BOB = 'BBBBBBBBBBBBBBBBBBBBBB';
const ANN_AGAIN = 'CCCCCCCCCCCCCCCCCCCCCC';
const EPOCH = '1.1.1';

const wireOf = (sid, seq, tracks = []) => ({
  sid, identity: sid[0], kind: 'STANDARD', version: '1', tracks, join: { epoch: EPOCH, seq: String(seq) },
});

/** Ann's room, with Bob in it, who joined first: she offers. */
async function joined({ sid = ANN } = {}) {
  const network = makeNetwork();
  const media = makeMedia();
  const room = new Room('https://one.test', { getToken: async () => 'jwt', name: 'Ann' });
  const events = [];
  for (const type of ['resumed', 'rejoined', 'disconnected']) room.on(type, () => events.push(type));
  room.on('error', (error) => { throw error; });
  const tracks = { mic: media.track('audio'), cam: media.track('video') };
  await room.localParticipant.publish(tracks.mic, { id: 'mic', muted: true });
  await room.localParticipant.publish(tracks.cam, { id: 'cam' });
  const connected = room.connect();
  await network.advance(0);
  await welcome(network, sid);
  await connected;
  await network.advance(0);
  return { network, media, room, events, tracks };
}

/** The server takes the newest connection in: `self` is what the cluster holds of her. */
async function welcome(network, sid, { recovered = false, self = {} } = {}) {
  const { socket } = network;
  await socket.open();
  const position = { epoch: EPOCH, seq: '7' };
  const [hello] = socket.of('hello');
  const shown = { ...wireOf(sid, 7, hello.join.tracks), ...self };
  await socket.say({
    helloOk: { sid, resumeToken: 'token', position, join: position, self: shown, recovered, limits: {}, retryPolicy: {} },
  });
  if (!recovered) await socket.say({ snapshot: { position, participants: [wireOf(BOB, 3), shown] } });
  return hello;
}

async function dialled(network) {
  const before = network.sockets.length;
  while (network.sockets.length === before) await network.advance(20);
}

async function lose(network) {
  await network.socket.end();
  await dialled(network);
}

let seqOfBob;
/** Bob says something to her. */
async function say(network, body) {
  seqOfBob += 1;
  await network.socket.say({ route: { peer: BOB, seq: String(seqOfBob) }, ...body });
  await network.advance(0);
}

/** Ann has offered; Bob answers. */
async function negotiated() {
  const call = await joined();
  seqOfBob = 0;
  const offer = call.network.socket.of('offer').at(-1);
  await say(call.network, { answer: { sdp: 'remote answer', negotiation: offer.negotiation, iceGeneration: offer.iceGeneration } });
  return { ...call, offer, pc: call.media.connections[0] };
}

test('a resume that is refused becomes a join that brings the tracks along', async () => {
  const { network, media, room, events, tracks } = await joined();
  const [before] = media.connections;
  await lose(network);
  await network.socket.open();
  await network.socket.say({ leave: { reason: 'WINDOW_EXPIRED', action: 'REJOIN' } });
  await lose(network);
  const hello = await welcome(network, ANN_AGAIN);
  await network.advance(0);
  assert.equal(hello.resumeToken, undefined);
  assert.deepEqual(hello.join.tracks.map(({ id, kind, muted }) => [id, kind, muted]),
    [['mic', 'AUDIO', true], ['cam', 'VIDEO', false]]);
  assert.equal(hello.join.name, 'A'); // as the room knew her last
  assert.deepEqual(events, ['rejoined']);
  assert.equal(room.localParticipant.sid, ANN_AGAIN);
  // To Bob she is somebody new, with the same camera.
  assert.equal(before.isClosed, true);
  const after = media.connections.at(-1);
  assert.notEqual(after, before);
  assert.deepEqual(after.senders.map(({ track }) => track), [tracks.mic, tracks.cam]);
  assert.deepEqual(Object.values(tracks).map(({ isStopped, enabled }) => [isStopped, enabled]), [[false, false], [false, true]]);
});

test('a resume touches no peer connection, and says again what the cluster has lost of her', async () => {
  const { network, events, pc, offer } = await negotiated();
  await lose(network);
  await welcome(network, ANN, { recovered: true, self: { tracks: [{ id: 'mic', kind: 'AUDIO' }, { id: 'old', kind: 'VIDEO' }] } });
  for (let i = 0; i < 4; i += 1) {
    await network.advance(0);
    const requestId = network.socket.sent.findLast((message) => message.publishTrack ?? message.unpublishTrack)?.requestId;
    await network.socket.say({ result: { requestId, code: 'OK' } });
  }
  assert.deepEqual(events, ['resumed']);
  assert.deepEqual([pc.isClosed, pc.restarts, pc.localDescription.sdp], [false, 0, 'local offer']);
  const offers = network.socket.of('offer').map(({ negotiation }) => negotiation);
  assert.deepEqual(offers, [offer.negotiation]); // the one that Bob has not acknowledged, again
  assert.deepEqual(network.socket.of('publishTrack').map(({ track }) => [track.id, track.muted]), [['mic', true], ['cam', false]]);
  assert.deepEqual(network.socket.of('unpublishTrack').map(({ trackId }) => trackId), ['old']);
});

test('candidates of another generation are dropped or wait for their description', async () => {
  const { network, room, pc, offer } = await negotiated();
  const candidate = (text, iceGeneration, negotiation) => say(network, {
    candidate: { candidate: text, sdpMid: '0', negotiation: String(negotiation), iceGeneration },
  });
  const current = Number(offer.negotiation);
  await candidate('now', 1, current);
  await candidate('ahead', 2, current + 1);
  assert.deepEqual(pc.candidates, ['now']);
  await say(network, { offer: { sdp: 'remote offer', negotiation: String(current + 1), iceGeneration: 2 } });
  assert.deepEqual(pc.candidates, ['now', 'ahead']);
  await candidate('late', 1, current);
  assert.deepEqual(pc.candidates, ['now', 'ahead']);
  pc.getStats = async () => new Map();
  assert.equal((await room.getStats()).peers[BOB].staleDropped, 1);
});

test('another network restarts ICE everywhere, the same one come back only where it has suffered', async () => {
  const { network, pc } = await negotiated();
  pc.reach('connected');
  await network.fire('online');
  assert.equal(pc.restarts, 0);
  pc.reach('disconnected');
  await network.fire('online');
  assert.equal(pc.restarts, 1);
  pc.reach('connected');
  network.connection.type = 'cellular';
  await network.fire('connection change');
  assert.equal(pc.restarts, 2);
  await network.advance(0);
  assert.equal(network.socket.of('offer').at(-1).iceGeneration, 2);
});

test('failures restart ICE, at once and then less and less often', async () => {
  const { network, pc } = await negotiated();
  for (const [least, most] of [[0, 0], [1900, 2000], [3900, 4000]]) {
    const before = pc.restarts;
    pc.reach('failed');
    await network.advance(least);
    if (least > 0) assert.equal(pc.restarts, before);
    await network.advance(most - least);
    assert.equal(pc.restarts, before + 1);
  }
  pc.reach('connected');
  pc.reach('failed');
  await network.advance(0);
  assert.equal(pc.restarts, 4);
  assert.deepEqual(network.socket.of('iceState').map(({ state }) => state),
    ['FAILED', 'FAILED', 'FAILED', 'CONNECTED', 'FAILED']);
});
