/**
 * Media isolation: two pages hold a call while the signaling under it is taken away and comes back. Whatever happens to
 * it, the call's peer connections are not touched: ICE stays connected, its credentials stay the same, frames go on.
 */
import assert from 'node:assert/strict';
import { check, decodedFrames, down, figure, kill, link, open, say, sleep, statusOf, testId, until, up } from './harness.mjs';

const STILL_BAR_MS = 3000; // for which a page may decode no frame
const OUTAGE_MS = 20000;
/* Everything began anew: the new cluster listens for 15 s before it gives up the old one, clients back off up to 15 s. */
const WHOLE_BAR_MS = 20000;
const PROCESSES = ['gateway-1', 'gateway-2', 'shard-1', 'shard-2', 'shard-3', 'nats'];

/** Before the page's scripts: keeps every peer connection in sight, so that the SDK's word is not needed for them. */
const keepPeerConnections = () => {
  window.peerConnections = [];
  window.RTCPeerConnection = class extends window.RTCPeerConnection {
    constructor(...args) {
      super(...args);
      window.peerConnections.push(this);
    }
  };
};

/** From now on: the longest time without a decoded frame, and everything that happens to the peer connections. */
const watch = () => {
  const seen = { stillMs: 0, changes: [], events: [] };
  window.watched = seen;
  let frames = -1;
  let movedAt = performance.now();
  clearInterval(window.watchTimer);
  window.watchTimer = setInterval(async () => {
    let decoded = 0;
    for (const pc of window.peerConnections) {
      for (const report of (await pc.getStats()).values()) {
        if (report.type === 'inbound-rtp' && report.kind === 'video') decoded += report.framesDecoded ?? 0;
      }
    }
    const now = performance.now();
    seen.stillMs = Math.max(seen.stillMs, now - movedAt);
    if (decoded > frames) movedAt = now;
    frames = decoded;
  }, 100);
  for (const pc of window.peerConnections) {
    for (const name of ['iceConnectionState', 'connectionState', 'signalingState']) {
      pc.addEventListener(`${name.toLowerCase()}change`, () => seen.changes.push(`${name} ${pc[name]}`));
    }
  }
  if (window.isHeard) return;
  window.isHeard = true;
  for (const type of ['reconnecting', 'moving', 'resumed', 'rejoined', 'degraded', 'restored', 'participantConnected',
    'participantDisconnected', 'trackSubscribed', 'trackUnsubscribed', 'error']) {
    window.signalbox.room.on(type, () => window.watched.events.push(type));
  }
};

/** Who is who and who is there, how many connections there are, and under which ICE credentials. */
const identity = () => {
  const { room } = window.signalbox;
  const credentials = (description) => description.sdp.match(/^a=ice-(ufrag|pwd):.*$/gm);
  return {
    sid: room.serverInfo.sid,
    others: [...room.participants.keys()],
    ice: window.peerConnections.map((pc) => [credentials(pc.localDescription), credentials(pc.remoteDescription)]),
  };
};

const isWhole = () => window.signalbox.room.state === 'connected' && !window.signalbox.room.isDegraded;

async function withstands(what, pages, fault, { wholeBarMs, isResumed }) {
  await check(`${what} touches neither the media nor who is who`, async () => {
    const before = [];
    for (const page of pages) {
      await until(page, 'all acknowledged', async () => (await window.signalbox.room.getStats()).signaling.unackedBytes,
        (bytes) => bytes === 0);
      before.push(await page.evaluate(identity));
      await page.evaluate(watch);
    }
    const name = what.replace(/\W+/g, '_');
    await fault();
    const start = Date.now();
    for (const page of pages) await until(page, 'signaling', isWhole, Boolean, 2 * wholeBarMs);
    await say(pages[0], pages[1], `after ${what}`, wholeBarMs);
    await say(pages[1], pages[0], `and back after ${what}`, wholeBarMs);
    const wholeMs = Date.now() - start;
    const watched = await Promise.all(pages.map((page) => page.evaluate(() => window.watched)));
    const after = await Promise.all(pages.map((page) => page.evaluate(identity)));
    console.log(`    events: ${watched.map(({ events }) => events.join(' ') || 'none').join(' | ')}`);
    assert.deepEqual(after, before);
    for (const { changes, events } of watched) {
      assert.deepEqual(changes, []);
      for (const type of ['rejoined', 'participantConnected', 'participantDisconnected', 'trackUnsubscribed']) {
        assert.ok(!events.includes(type), `${type} was seen`);
      }
      if (isResumed) assert.ok(events.includes('resumed'), 'the session was not resumed');
    }
    figure(`${name}_frames_still_ms`, Math.round(Math.max(...watched.map(({ stillMs }) => stillMs))), 'ms', STILL_BAR_MS);
    figure(`${name}_signaling_whole_ms`, wholeMs, 'ms', wholeBarMs);
  });
}

/** @param {{invite: string, roomName: string}} invitation */
export async function survive(browser, gateways, invitation) {
  const pages = [];
  await check('two pages are in a call', async () => {
    for (const [index, name] of ['Ann', 'Bob'].entries()) {
      const page = await open(browser);
      pages.push(page);
      await page.addInitScript(keepPeerConnections);
      const urls = index === 0 ? gateways : [...gateways].reverse();
      await page.goto(link(urls[0], invitation, { name, autojoin: '1' }, urls));
      await testId(page, 'tile').first().waitFor();
    }
    for (const page of pages) await until(page, 'frames', decodedFrames, (frames) => frames > 30);
  }, { isFatal: true });

  await withstands('the death of the room\'s shard', pages, async () => {
    const { shard } = await statusOf(pages[0]);
    kill(shard);
    for (const page of pages) {
      await until(page, 'another shard', () => document.querySelector('[data-testid="status-shard"]').textContent,
        (now) => now !== shard);
    }
    await up();
  }, { wholeBarMs: 5000, isResumed: false });

  await withstands(`the death of everything for ${OUTAGE_MS / 1000} s`, pages, async () => {
    PROCESSES.forEach(kill);
    await sleep(OUTAGE_MS);
    await up();
  }, { wholeBarMs: WHOLE_BAR_MS, isResumed: true });

  await withstands('a rolling restart of everything', pages, async () => {
    for (const name of PROCESSES) {
      await down(name);
      await up();
    }
  }, { wholeBarMs: 15000, isResumed: true });

  await Promise.all(pages.map((page) => page.context().close()));
}
