/** When and how to come back after a connection has ended. */

/** Full jitter: a random time between 0 and min(max, base * 2^attempt). */
export class Backoff {
  #random;
  #attempt = 0;

  constructor(policy = {}, random = Math.random) {
    this.#random = random;
    this.setPolicy(policy);
  }

  /** @param {{baseMs?: number, maxMs?: number}} policy hello_ok.retryPolicy */
  setPolicy(policy = {}) {
    this.baseMs = policy.baseMs || 500;
    this.maxMs = policy.maxMs || 15000;
  }

  nextDelayMs() {
    const ceilingMs = Math.min(this.maxMs, this.baseMs * 2 ** Math.min(this.#attempt, 30));
    this.#attempt += 1;
    return Math.round(this.#random() * ceilingMs);
  }

  reset() {
    this.#attempt = 0;
  }

  get attempts() {
    return this.#attempt;
  }
}

const REASONS = {
  4000: 'SLOW_CONSUMER', 4001: 'GATEWAY_DRAINING', 4002: 'SERVER_ERROR', 4003: 'DISCONNECTED', 4004: 'SERVER_ERROR',
  4100: 'CAPACITY', 4101: 'CAPACITY',
  4200: 'SESSION_GONE', 4201: 'WINDOW_EXPIRED',
  4300: 'REMOVED', 4301: 'REPLACED', 4302: 'DUPLICATE_IDENTITY', 4303: 'ROOM_CLOSED', 4304: 'TOKEN_EXPIRED',
  4305: 'TOKEN_REVOKED', 4306: 'PROTOCOL_ERROR', 4307: 'ABUSE', 4308: 'UNAUTHENTICATED', 4309: 'FORBIDDEN',
  4310: 'PROTOCOL_ERROR',
};

/**
 * What the end of a connection asks of the client.
 *
 * @param {number} code close code; 1006 if there was none
 * @param {string} text close reason
 * @param {object | null} leave the `leave` message before the close, if one came: it knows more than the code
 * @returns {{action: 'resume' | 'rejoin' | 'stop', reason: string, delayMs: number | null, message: string}}
 *   delayMs: the server's own delay, or null for the usual backoff
 */
export function closeAction(code, text = '', leave = null) {
  const reason = leave?.reason ?? REASONS[code] ?? 'DISCONNECTED';
  const message = leave?.message || text;
  let action = 'resume';
  if (code >= 4200 && code <= 4299) action = 'rejoin';
  if (code >= 4300 && code <= 4399) action = 'stop';
  const said = { RESUME: 'resume', REJOIN: 'rejoin', STOP: 'stop' }[leave?.action];
  const isOverload = code >= 4100 && code <= 4199;
  // An overloaded server has not looked at the session: only one that has can say that it is gone.
  if (said && !(isOverload && said === 'rejoin')) action = said;

  let delayMs = leave?.retryAfterMs || null;
  if (delayMs === null && isOverload) {
    const match = /retry_after_ms=(\d+)/.exec(text);
    if (match) delayMs = Number(match[1]);
  }
  return { action, reason, delayMs, message };
}
