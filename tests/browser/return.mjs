/**
 * Pages that go and come back: reloaded, crashed, cut off from the network for a while and for good. Another page watches: at
 * the end there is the one right participant, and nobody is a ghost for longer than the protocol says.
 */
import assert from 'node:assert/strict';
import { connect, createServer } from 'node:net';
import { check, figure, mint, open, sleep, until } from './harness.mjs';

const RELOAD_BAR_MS = 2000;
const CUT_MS = 15000;
const RETURN_BAR_MS = 3000;
const WINDOW_S = 5; // of the one who never comes back: its token says so
// A gateway's defaults. The proxy's TCP answers for the page, so that only the last of three intervals' ping finds out.
const PING_MS = 3 * 8000 + 2000;

/** A TCP proxy that can go dark, as a network does: nothing passes, nothing is closed. */
async function makeNetwork(url) {
  const target = new URL(url);
  const sockets = new Set();
  let isDark = false;
  const join = (from, to) => {
    sockets.add(from);
    if (isDark) from.pause();
    from.on('data', (data) => to.write(data));
    from.on('close', () => {
      sockets.delete(from);
      to.destroy();
    });
    from.on('error', () => {});
  };
  const server = createServer((client) => {
    const gateway = connect(Number(target.port), '127.0.0.1');
    join(client, gateway);
    join(gateway, client);
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return {
    url: `https://localhost:${server.address().port}`,
    cut() {
      isDark = true;
      sockets.forEach((socket) => socket.pause());
    },
    mend() {
      isDark = false;
      sockets.forEach((socket) => socket.resume());
    },
    close() {
      sockets.forEach((socket) => socket.destroy());
      server.close();
    },
  };
}

/** A page that is in the room through the SDK alone. */
async function enter(page, gateway, token, urls = [gateway]) {
  if (!page.url().startsWith(gateway)) await page.goto(`${gateway}/demo/`);
  await page.evaluate(async ([bases, jwt]) => {
    const { Room } = await import('/sdk/signalbox.js');
    window.room = new Room(bases, { token: jwt });
    window.events = [];
    for (const type of ['reconnecting', 'resumed', 'rejoined', 'disconnected']) {
      window.room.on(type, (info) => window.events.push({ type, at: Date.now(), ...info }));
    }
    for (const type of ['participantConnected', 'participantDisconnected']) {
      window.room.on(type, ({ sid, identity }) => {
        const present = [...window.room.participants.values()].filter((p) => p.identity === identity).length;
        window.events.push({ type, sid, identity, present, at: Date.now() });
      });
    }
    await window.room.connect();
  }, [urls, token]);
}

const sidOf = (page) => page.evaluate(() => window.room.localParticipant.sid);
const eventsOf = (page) => page.evaluate(() => window.events);
const crash = (page) => page.goto('chrome://crash').catch(() => {});

export async function comeBack(browser, gateways, { roomName }) {
  // A room of its own: a browser that is closed with its page takes the page's last word with it where that goes to another
  // gateway than the page's, and who was in the call before stays for a resume window.
  const token = (identity, more) => mint(identity, `${roomName}-return`, more);
  const watcher = await open(browser);
  const sees = (what, isWanted, timeoutMs) => until(
    watcher, what, () => [...window.room.participants.values()].map(({ sid, identity }) => `${identity} ${sid}`), isWanted, timeoutMs);
  await enter(watcher, gateways[0], token('watcher'));

  await check('a page that is reloaded is one participant, and the one before has gone', async () => {
    const page = await open(browser);
    await enter(page, gateways[1], token('bob'));
    const before = await sidOf(page);
    await sees('the first', (list) => list.length === 1);
    const reloadedAt = Date.now();
    await page.reload();
    await sees('nobody', (list) => list.length === 0);
    await enter(page, gateways[1], token('bob'));
    const after = await sidOf(page);
    await sees('the second', (list) => list.length === 1 && list[0] === `bob ${after}`);
    const events = await eventsOf(watcher);
    assert.deepEqual(events.map(({ type, sid }) => [type, sid]), [['participantConnected', before],
      ['participantDisconnected', before], ['participantConnected', after]]);
    figure('reload_ghost_ms', events[1].at - reloadedAt, 'ms', RELOAD_BAR_MS);
    await page.context().close();
    await sees('nobody', (list) => list.length === 0);
  });

  await check('a page that crashed and is opened again replaces its ghost', async () => {
    await watcher.evaluate(() => { window.events = []; });
    const page = await open(browser);
    await enter(page, gateways[1], token('carl'));
    await sees('the first', (list) => list.length === 1);
    await crash(page);
    const again = await open(browser);
    await enter(again, gateways[0], token('carl'));
    const sid = await sidOf(again);
    await sees('the second alone', (list) => list.length === 1 && list[0] === `carl ${sid}`, RELOAD_BAR_MS);
    assert.ok((await eventsOf(watcher)).every(({ present }) => present <= 1), 'two at a time were seen');
    await again.evaluate(() => window.room.disconnect());
    await sees('nobody', (list) => list.length === 0);
    await Promise.all([page, again].map((each) => each.context().close()));
  });

  await check(`a page without network for ${CUT_MS / 1000} s goes on where it was`, async () => {
    await watcher.evaluate(() => { window.events = []; });
    const network = await makeNetwork(gateways[1]);
    const page = await open(browser);
    await enter(page, gateways[1], token('dora'), [network.url]);
    const sid = await sidOf(page);
    await sees('her', (list) => list.length === 1);
    network.cut();
    await page.context().setOffline(true);
    await sleep(CUT_MS);
    await page.evaluate(() => { window.events = []; });
    network.mend();
    await page.context().setOffline(false);
    const backAt = Date.now();
    await until(page, 'resumed', () => window.events.some(({ type }) => type === 'resumed') && window.room.state === 'connected');
    const events = await eventsOf(page);
    const resumed = events.find(({ type }) => type === 'resumed');
    figure('network_back_to_resumed_ms', resumed.at - backAt, 'ms', RETURN_BAR_MS);
    assert.equal(resumed.recovered, true);
    assert.equal(await sidOf(page), sid);
    await watcher.evaluate(([to]) => window.room.send('still there?', { to }), [sid]);
    assert.deepEqual((await eventsOf(watcher)).map(({ type }) => type), ['participantConnected']);
    await page.evaluate(() => window.room.disconnect());
    await sees('nobody', (list) => list.length === 0);
    network.close();
    await page.context().close();
  });

  await check('a page that never comes back is gone when its window has passed', async () => {
    const network = await makeNetwork(gateways[1]);
    const page = await open(browser);
    await enter(page, gateways[1], token('emil', { resumeWindow: WINDOW_S }), [network.url]);
    await sees('him', (list) => list.length === 1);
    const cutAt = Date.now();
    network.cut();
    await sees('nobody', (list) => list.length === 0, 2 * (PING_MS + WINDOW_S * 1000));
    figure('lost_ghost_ms', Date.now() - cutAt, 'ms', PING_MS + WINDOW_S * 1000 + 1000);
    network.close();
    await page.context().close();
  });

  await watcher.context().close();
}
