import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RemoteParticipant } from '../../gateway/web/sdk/participants.js';
import { base64Decode, base64Encode, httpBase, readData, tokenExpiryMs, webSocketBase, writeData } from '../../gateway/web/sdk/protocol.js';

const info = (tracks) => ({ sid: 'A', identity: 'ann', tracks });
const names = (events) => events.map(([type]) => type);

test('a track is subscribed when both its media and its publication are here, in either order', () => {
  const media = { id: 'm' };
  const first = new RemoteParticipant(info([]));
  assert.deepEqual(names(first.attach('t1', media)), []);
  assert.deepEqual(names(first.update(info([{ id: 't1' }]))), ['trackPublished', 'trackSubscribed']);
  const second = new RemoteParticipant(info([]));
  second.update(info([{ id: 't1' }]));
  assert.deepEqual(names(second.attach('t1', media)), ['trackSubscribed']);
  assert.deepEqual(names(second.attach('t1', media)), []);
});

test('unpublishing and losing the connection unsubscribe', () => {
  const participant = new RemoteParticipant(info([]));
  participant.update(info([{ id: 't1' }]));
  participant.attach('t1', {});
  assert.deepEqual(names(participant.detach()), ['trackUnsubscribed']);
  participant.attach('t1', {});
  assert.deepEqual(names(participant.update(info([]))), ['trackUnsubscribed', 'trackUnpublished']);
});

test('mute and unmute are events of their own', () => {
  const participant = new RemoteParticipant(info([]));
  participant.update(info([{ id: 't1' }]));
  assert.deepEqual(names(participant.update(info([{ id: 't1', muted: true }]))), ['trackMuted']);
  assert.deepEqual(names(participant.update(info([{ id: 't1' }]))), ['trackUnmuted']);
});

test('data travels as text or bytes and comes back as it was', () => {
  assert.deepEqual(writeData('hé'), { text: 'hé' });
  const bytes = Uint8Array.from({ length: 70000 }, (_, i) => i % 256);
  assert.deepEqual(readData(writeData(bytes)), bytes);
  assert.deepEqual(readData(writeData(bytes.subarray(3, 9))), bytes.subarray(3, 9));
  assert.deepEqual(base64Decode('_-8'), Uint8Array.from([255, 239]));
  assert.equal(base64Encode(new Uint8Array()), '');
});

test('base URLs come in any of the usual forms', () => {
  assert.equal(webSocketBase('https://a.example:8443/'), 'wss://a.example:8443');
  assert.equal(httpBase('wss://a.example'), 'https://a.example');
});

test('the expiry of a token is read, and a token that is none has no expiry', () => {
  const token = `x.${Buffer.from(JSON.stringify({ exp: 1700000000 })).toString('base64url')}.y`;
  assert.equal(tokenExpiryMs(token), 1700000000000);
  assert.equal(tokenExpiryMs('nonsense'), 0);
  assert.equal(tokenExpiryMs(undefined), 0);
});
