/** What the browser's tests share: counting checks and figures, opening pages, looking into a call, moving a cluster. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { chromium } from 'playwright-core';

export const STEP_TIMEOUT_MS = 15000;
export const root = fileURLToPath(new URL('../..', import.meta.url));
const artifacts = process.env.SIGNALBOX_ARTIFACTS ?? join(root, 'build/screenshots');
mkdirSync(artifacts, { recursive: true });

// Checks

const counts = { passed: 0, failed: 0 };
const figures = [];

export async function check(name, step, { isFatal = false } = {}) {
  try {
    await step();
    counts.passed += 1;
    console.log(`ok ${name}`);
  } catch (error) {
    counts.failed += 1;
    console.log(`FAILED ${name}\n    ${error.message.split('\n').slice(0, 8).join('\n    ')}`);
    if (isFatal) throw new Error('without this nothing else can be seen');
  }
}

/** Prints a measurement against its bar; a short one fails the check. */
export function figure(name, value, unit, bar, { isAtLeast = false } = {}) {
  const verdict = (isAtLeast ? value >= bar : value <= bar) ? 'ok' : 'short';
  const operator = isAtLeast ? '>=' : '<=';
  figures.push({ name, value, unit, operator, bar, verdict });
  console.log(`figure ${name} ${value} ${unit} bar ${operator} ${bar} ${verdict}`);
  assert.equal(verdict, 'ok', `${name} is short: ${value} ${unit}`);
}

/** Writes the figures down, prints the last line and gives the exit status. */
export function finish() {
  writeFileSync(join(artifacts, 'figures.json'), `${JSON.stringify({ ...counts, figures }, null, 2)}\n`);
  console.log(`${counts.passed} passed, ${counts.failed} failed`);
  return counts.failed === 0 ? 0 : 1;
}

export const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** Evaluates until the value is as wanted: playwright's waitForFunction does not wait for asynchronous predicates. */
export async function until(page, what, evaluate, isWanted = Boolean, timeoutMs = STEP_TIMEOUT_MS) {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const value = await page.evaluate(evaluate);
    if (isWanted(value)) return value;
    if (Date.now() > deadline) throw new Error(`${what}: still ${JSON.stringify(value)} after ${timeoutMs} ms`);
    await sleep(50);
  }
}

// Pages

export const launch = () => chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream', '--no-sandbox',
    '--autoplay-policy=no-user-gesture-required', '--allow-loopback-in-peer-connection', '--disable-quic',
    '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run',
  ],
});

export async function open(browser, options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.errors = [];
  page.on('pageerror', (error) => page.errors.push(error.message));
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') page.errors.push(message.text());
  });
  return page;
}

export const shoot = (page, name) => page.screenshot({ path: join(artifacts, `${name}.png`) });
export const testId = (page, id) => page.locator(`[data-testid="${id}"]`);
export const statusOf = (page) => page.evaluate(() => Object.fromEntries(
  ['gateway', 'shard', 'epoch', 'state'].map((name) => [
    name, document.querySelector(`[data-testid="status-${name}"]`).textContent,
  ]),
));

/** Frames of remote video that this page has decoded, over all its peer connections. */
export const decodedFrames = async () => {
  const { room } = window.signalbox ?? {};
  if (!room) return 0;
  const { peers } = await room.getStats();
  return Object.values(peers).flatMap((peer) => peer.reports)
    .filter((report) => report.type === 'inbound-rtp' && report.kind === 'video')
    .reduce((sum, report) => sum + (report.framesDecoded ?? 0), 0);
};

/** A message that arrives at the other and is acknowledged. */
export async function say(from, to, text, timeoutMs = STEP_TIMEOUT_MS) {
  if (await testId(from, 'chat-input').isHidden()) await testId(from, 'chat-button').click();
  await testId(from, 'chat-input').fill(text);
  await testId(from, 'chat-send').click();
  await testId(to, 'chat-message').filter({ hasText: text }).waitFor({ state: 'attached', timeout: timeoutMs });
  await from.locator('[data-testid="chat-message"].own:not(.pending):not(.failed)').filter({ hasText: text })
    .waitFor({ timeout: timeoutMs });
}

export const link = (gateway, { invite, roomName }, more = {}, urls = []) => {
  const fragment = new URLSearchParams({ token: invite, room: roomName, ...more });
  urls.forEach((url) => fragment.append('url', url));
  return `${gateway}/demo/#${fragment}`;
};

// The cluster: scripts/up started it and starts again what is missing

const run = promisify(execFile);
const stateDirectory = process.env.SIGNALBOX_RUN;
/** Without, it is somebody else's cluster, whose processes cannot be killed. */
export const isLocal = Boolean(stateDirectory);

/** NAME: gateway-1, shard-2, nats. */
export function kill(name) {
  process.kill(Number(readFileSync(join(stateDirectory, `${name}.pid`), 'utf8')), 'SIGKILL');
}

export const down = (name) => run(join(root, 'scripts/down'), [name, '--timeout', '60']);
export const up = () => isLocal && run(join(root, 'scripts/up'), ['--no-build', '--gateways', '2', '--shards', '3']);

/** An access token of the cluster's development key. */
export function mint(identity, roomName, more = {}) {
  const text = readFileSync(join(stateDirectory, 'secrets.env'), 'utf8');
  const secrets = Object.fromEntries(text.trim().split('\n').map((line) => line.split('=')));
  const nowS = Math.floor(Date.now() / 1000);
  const claims = {
    iss: secrets.SIGNALBOX_API_KEY, sub: identity, name: identity, nbf: nowS - 5, exp: nowS + 3600,
    video: { roomJoin: true, room: roomName }, ...more,
  };
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${encode({ alg: 'HS256' })}.${encode(claims)}`;
  return `${signed}.${createHmac('sha256', secrets.SIGNALBOX_API_SECRET).update(signed).digest('base64url')}`;
}
