/** A video call of two Chromium pages on two gateways, of which one is killed under the call, as is the room's shard. */
import assert from 'node:assert/strict';
import {
  STEP_TIMEOUT_MS, check, decodedFrames, figure, isLocal, kill, link, open, say, shoot, statusOf, testId, until,
} from './harness.mjs';

const VIDEO_BAR_MS = 3000;
const SHARD_DEATH_BAR_MS = 4000; // the worst case; a loaded machine is late itself

/** Writes down whatever a lost connection could do to a call. */
const watchCall = () => {
  const isWatched = Boolean(window.seen);
  window.seen = [];
  for (const type of ['reconnecting', 'connected', 'resumed', 'rejoined', 'participantConnected',
    'participantDisconnected', 'trackSubscribed', 'trackUnsubscribed', 'connectionStateChanged', 'error']) {
    if (!isWatched) window.signalbox.room.on(type, () => window.seen.push(type));
  }
};

/** What must not change: who is who, who is there, and how many messages negotiation has taken. */
const callState = async () => {
  const { room } = window.signalbox;
  const { signaling } = await room.getStats();
  return { sid: room.serverInfo.sid, others: [...room.participants.keys()], delivered: signaling.delivered, sent: signaling.sent };
};

async function loseParts(ann, bob) {
  await check('the death of the room\'s shard touches neither the call nor the roster', async () => {
    for (const page of [ann, bob]) {
      await until(page, 'all acknowledged', async () => (await window.signalbox.room.getStats()).signaling.unackedBytes,
        (bytes) => bytes === 0);
      await page.evaluate(watchCall);
    }
    const before = { bob: await bob.evaluate(callState), ann: await ann.evaluate(callState) };
    const { shard: killed } = await statusOf(ann);
    const killedAt = Date.now();
    kill(killed);
    for (const page of [ann, bob]) {
      await until(page, 'shard', () => document.querySelector('[data-testid="status-shard"]').textContent,
        (shard) => shard !== killed);
    }
    figure('shard_death_to_new_owner_ms', Date.now() - killedAt, 'ms', SHARD_DEATH_BAR_MS);
    const after = { bob: await bob.evaluate(callState), ann: await ann.evaluate(callState) };
    assert.deepEqual(after, before);
    for (const page of [ann, bob]) assert.deepEqual(await page.evaluate(() => window.seen), []);
    const frames = await bob.evaluate(decodedFrames);
    await until(bob, 'frames', decodedFrames, (count) => count > frames);
    await say(ann, bob, 'Still there?');
  });

  await check('the death of a gateway touches neither the call nor the roster', async () => {
    await until(bob, 'all acknowledged', async () => (await window.signalbox.room.getStats()).signaling.unackedBytes,
      (bytes) => bytes === 0);
    for (const page of [ann, bob]) await page.evaluate(watchCall);
    const before = { bob: await bob.evaluate(callState), ann: await ann.evaluate(callState) };
    kill('gateway-2');
    await until(bob, 'gateway', () => window.signalbox.room.serverInfo.gateway, (name) => name === 'gateway-1');
    await until(bob, 'state', () => window.signalbox.room.state, (state) => state === 'connected');
    const after = { bob: await bob.evaluate(callState), ann: await ann.evaluate(callState) };
    assert.deepEqual(after, before);
    assert.deepEqual(await bob.evaluate(() => window.seen), ['reconnecting', 'resumed', 'connected']);
    assert.deepEqual(await ann.evaluate(() => window.seen), []);
    const frames = await bob.evaluate(decodedFrames);
    await until(bob, 'further frames', decodedFrames, (count) => count > frames + 10);
    bob.errors = bob.errors.filter((text) => !text.includes('WebSocket connection')); // browsers report each attempt
  });
}

/** @param {{invite: string, roomName: string}} invitation */
export async function call(browser, gateways, invitation) {
  const ann = await open(browser);
  const bob = await open(browser);

  await check('the page before the call shows the camera', async () => {
    await ann.goto(link(gateways[0], invitation));
    await testId(ann, 'name-input').fill('Ann Lee');
    await until(ann, 'preview', () => document.getElementById('preview').videoWidth > 0);
    await shoot(ann, 'prejoin');
  });

  await check('the first one joins', async () => {
    await testId(ann, 'join-button').click();
    const stateOrError = () => document.getElementById('join-error').textContent || window.signalbox?.room.state;
    await until(ann, 'state', stateOrError, (state) => state === 'connected');
  }, { isFatal: true });

  await check('video flows both ways soon after the second join', async () => {
    await bob.goto(link(gateways[1], invitation, {}, [gateways[1], gateways[0]]));
    await testId(bob, 'name-input').fill('Bob Moreno');
    await until(bob, 'preview', () => document.getElementById('preview').videoWidth > 0);
    const start = Date.now();
    await testId(bob, 'join-button').click();
    await Promise.all([
      until(ann, 'frames decoded by the first', decodedFrames, (frames) => frames > 0),
      until(bob, 'frames decoded by the second', decodedFrames, (frames) => frames > 0),
    ]);
    const tookMs = Date.now() - start;
    figure('video_both_ways_ms', tookMs, 'ms', VIDEO_BAR_MS);
  });

  await check('the room is on one shard, its people on two gateways', async () => {
    const [a, b] = [await statusOf(ann), await statusOf(bob)];
    console.log(`    ${a.gateway} and ${b.gateway}, ${a.shard} and ${b.shard}, epoch ${a.epoch}`);
    if (gateways[0] !== gateways[1]) assert.notEqual(a.gateway, b.gateway); // a balancer decides
    assert.equal(a.shard, b.shard);
    assert.match(a.shard, /\w/);
    assert.deepEqual([a.state, b.state], ['connected', 'connected']);
  });

  await check('both see the same people', async () => {
    const people = () => window.signalbox.room.participants.size;
    await until(ann, 'people', people, (size) => size === 1);
    await until(bob, 'people', people, (size) => size === 1);
    assert.equal(await testId(ann, 'tile').count(), 2);
    assert.equal(await testId(bob, 'tile').count(), 2);
    await testId(ann, 'tile').and(ann.locator('[data-name="Bob Moreno"]')).waitFor({ timeout: STEP_TIMEOUT_MS });
  });

  await check('chat goes both ways', async () => {
    for (const [from, to, text] of [[ann, bob, 'Hello Bob, can you see me?'], [bob, ann, 'Loud and clear, Ann!']]) {
      await say(from, to, text);
    }
    await until(bob, 'frames to look at', decodedFrames, (frames) => frames > 30);
    await shoot(bob, 'call-chat');
  });

  await check('a speaker is marked for the other', async () => {
    await testId(ann, 'tile').and(ann.locator('[data-name="Bob Moreno"][data-speaking="true"]'))
      .waitFor({ timeout: STEP_TIMEOUT_MS });
    await testId(ann, 'people-button').click();
    await shoot(ann, 'call-people');
    await testId(ann, 'people-button').click();
    await shoot(ann, 'call');
  });

  await check('mute is seen by the other, and unmute', async () => {
    const bobsTile = (mic) => testId(ann, 'tile').and(ann.locator(`[data-name="Bob Moreno"][data-mic="${mic}"]`));
    await testId(bob, 'mic-button').click();
    await bobsTile('off').waitFor({ timeout: STEP_TIMEOUT_MS });
    await testId(bob, 'camera-button').click();
    await testId(ann, 'tile').and(ann.locator('[data-name="Bob Moreno"][data-camera="off"]'))
      .waitFor({ timeout: STEP_TIMEOUT_MS });
    await shoot(ann, 'muted');
    await testId(bob, 'mic-button').click();
    await testId(bob, 'camera-button').click();
    await bobsTile('on').waitFor({ timeout: STEP_TIMEOUT_MS });
  });

  await check('who has no camera and no microphone joins all the same', async () => {
    // A page without the permission, on a phone's screen.
    const mobile = await open(browser, { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true });
    await mobile.addInitScript(() => {
      navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('none', 'NotFoundError'));
    });
    await mobile.goto(link(gateways[0], invitation, { name: 'Cleo', autojoin: '1' }));
    await until(mobile, 'state', () => window.signalbox?.room.state, (state) => state === 'connected');
    await until(mobile, 'frames from two', decodedFrames, (frames) => frames > 20);
    await testId(ann, 'tile').and(ann.locator('[data-name="Cleo"]')).waitFor({ timeout: STEP_TIMEOUT_MS });
    await shoot(mobile, 'mobile');
    await shoot(ann, 'three');
    await mobile.context().close();
    await testId(ann, 'tile').and(ann.locator('[data-name="Cleo"]')).waitFor({ state: 'detached', timeout: STEP_TIMEOUT_MS });
  });

  if (isLocal) await loseParts(ann, bob);

  await check('leaving is seen by the other, and the last one leaves', async () => {
    await testId(bob, 'leave-button').click();
    await testId(bob, 'ended').waitFor({ timeout: STEP_TIMEOUT_MS });
    await testId(ann, 'tile').and(ann.locator('[data-name="Bob Moreno"]')).waitFor({ state: 'detached', timeout: STEP_TIMEOUT_MS });
    await shoot(bob, 'left');
    await testId(ann, 'leave-button').click();
    await testId(ann, 'ended').waitFor({ timeout: STEP_TIMEOUT_MS });
  });

  await check('no page reported an error', async () => assert.deepEqual([...ann.errors, ...bob.errors], []));
  await Promise.all([ann, bob].map((page) => page.context().close()));
}
