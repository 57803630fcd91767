import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backoff, closeAction } from '../../gateway/web/sdk/backoff.js';

test('full jitter: between nothing and a ceiling that doubles up to the maximum', () => {
  const highest = new Backoff({ baseMs: 100, maxMs: 1000 }, () => 1);
  assert.deepEqual(Array.from({ length: 6 }, () => highest.nextDelayMs()), [100, 200, 400, 800, 1000, 1000]);
  highest.reset();
  assert.equal(highest.nextDelayMs(), 100);
  assert.equal(new Backoff({ baseMs: 100, maxMs: 1000 }, () => 0).nextDelayMs(), 0);
});

test('without a policy from the server: base 500 ms, at most 15 s', () => {
  const backoff = new Backoff({}, () => 1);
  const delays = Array.from({ length: 8 }, () => backoff.nextDelayMs());
  assert.deepEqual([delays[0], delays.at(-1)], [500, 15000]);
});

test('close codes say what to do', () => {
  const expected = {
    1000: 'resume', 1001: 'resume', 1002: 'resume', 1006: 'resume', 4000: 'resume', 4001: 'resume', 4004: 'resume',
    4099: 'resume', 4100: 'resume', 4101: 'resume', 4200: 'rejoin', 4201: 'rejoin', 4300: 'stop', 4310: 'stop',
    4399: 'stop', 4400: 'resume', 4999: 'resume',
  };
  for (const [code, action] of Object.entries(expected)) assert.equal(closeAction(Number(code)).action, action, code);
});

test('the leave message knows more than the code', () => {
  const end = closeAction(4002, '', { reason: 'SESSION_GONE', action: 'REJOIN', retryAfterMs: 700, message: 'gone' });
  assert.deepEqual(end, { action: 'rejoin', reason: 'SESSION_GONE', delayMs: 700, message: 'gone' });
});

test('an overloaded server ends no session', () => {
  const end = closeAction(4100, '', { reason: 'CAPACITY', action: 'REJOIN', retryAfterMs: 700 });
  assert.deepEqual([end.action, end.delayMs], ['resume', 700]);
  assert.equal(closeAction(4100, '', { action: 'STOP' }).action, 'stop');
});

test('the delay of an overloaded server is in the close reason too', () => {
  assert.equal(closeAction(4100, 'overloaded retry_after_ms=2500').delayMs, 2500);
  assert.equal(closeAction(4000, 'retry_after_ms=2500').delayMs, null);
});
