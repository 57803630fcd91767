import { SUBPROTOCOL } from './protocol.js';

const HELLO_TIMEOUT_MS = 10000;
const PONG_TIMEOUT_MS = 10000;
const AWAKE_TIMEOUT_MS = 3000;
const SLEPT_MS = 5000; // later than it should be by the wall clock: the machine was asleep

/** One WebSocket from its opening to its end, and the watch over whether it is alive. Ends exactly once, by onEnd. */
export class Connection {
  #socket;
  #handlers;
  #ended = false;
  #established = false;
  #openTimer;
  #aliveTimer = null;
  #heardAt = 0;
  #pingIntervalMs = 0;
  #watchAtWallMs = 0;
  #ping = null; // { nonce, sentAt, deadlineAt }
  #nonce = 0;

  /** The `leave` message that came before the close, if any. */
  leave = null;

  /**
   * @param {string} url
   * @param {object} handlers
   * @param {() => object} handlers.hello the first message
   * @param {(message: object) => void} handlers.onMessage
   * @param {(rttMs: number) => void} handlers.onRoundTrip
   * @param {(code: number, reason: string) => void} handlers.onEnd
   */
  constructor(url, handlers) {
    this.#handlers = handlers;
    this.#openTimer = setTimeout(() => this.#end(1006, 'no hello_ok in time'), HELLO_TIMEOUT_MS);
    this.#socket = new WebSocket(`${url}/v1/connect`, SUBPROTOCOL);
    this.#socket.onopen = () => this.send({ hello: handlers.hello() });
    this.#socket.onmessage = ({ data }) => this.#receive(data);
    this.#socket.onclose = ({ code, reason }) => this.#end(code, reason);
  }

  send(message) {
    if (!this.#ended && this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /** hello_ok has come: from now on silence is watched. */
  established(pingIntervalMs) {
    clearTimeout(this.#openTimer);
    this.#established = true;
    this.#pingIntervalMs = pingIntervalMs;
    this.probe(PONG_TIMEOUT_MS);
  }

  /** Asks for a sign of life now: no answer in time is the end. */
  probe(timeoutMs = PONG_TIMEOUT_MS) {
    if (this.#ended || !this.#established) return;
    const now = performance.now();
    this.#nonce += 1;
    this.#ping = { nonce: this.#nonce, sentAt: now, deadlineAt: now + timeoutMs };
    this.send({ ping: { nonce: String(this.#nonce) } });
    this.#watch();
  }

  /** Ends the connection without onEnd. */
  abandon(code = 1001) {
    this.#handlers = null;
    this.#end(code, '');
  }

  #receive(data) {
    this.#heardAt = performance.now();
    if (this.#ended || typeof data !== 'string') return;
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      this.#end(1007, 'the server sent something that is not JSON');
      return;
    }
    if (message.leave) this.leave = message.leave;
    if (message.pong) this.#receivePong(message.pong);
    this.#handlers.onMessage(message);
  }

  #receivePong(pong) {
    if (!this.#ping || Number(pong.nonce) !== this.#ping.nonce) return;
    const rttMs = performance.now() - this.#ping.sentAt;
    this.#ping = null;
    this.#watch();
    this.#handlers.onRoundTrip(rttMs);
  }

  #watch() {
    clearTimeout(this.#aliveTimer);
    if (this.#ended) return;
    const dueAt = this.#ping ? this.#ping.deadlineAt : this.#heardAt + this.#pingIntervalMs;
    const delayMs = Math.max(0, dueAt - performance.now());
    this.#watchAtWallMs = Date.now() + delayMs;
    this.#aliveTimer = setTimeout(() => this.#onWatch(), delayMs);
  }

  #onWatch() {
    const now = performance.now();
    if (Date.now() - this.#watchAtWallMs > SLEPT_MS) {
      this.probe(AWAKE_TIMEOUT_MS);
      return;
    }
    if (this.#ping && this.#heardAt >= this.#ping.sentAt) {
      // Whatever has come is a sign of life; the pong stands in a queue somewhere.
      this.#ping.deadlineAt = this.#heardAt + PONG_TIMEOUT_MS;
    }
    if (this.#ping && now >= this.#ping.deadlineAt) this.#end(1006, 'no answer to a ping');
    else if (!this.#ping && now >= this.#heardAt + this.#pingIntervalMs) this.probe();
    else this.#watch();
  }

  #end(code, reason) {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#openTimer);
    clearTimeout(this.#aliveTimer);
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = null;
    // Only 1000 and 3000-4999 may be given; closing without a code detaches the session, 1000 leaves the room.
    if (code === 1000) socket.close(1000);
    else socket.close();
    this.#handlers?.onEnd(code, reason);
  }
}
