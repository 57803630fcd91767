const WALL_BASE_MS = 1700000000000;

/** A clock that moves when a test says so, and WebSockets whose other end is the test. Install before the SDK is used. */
export function makeNetwork() {
  const listeners = new Map();
  const network = {
    nowMs: 1000,
    asleepMs: 0, // which the wall clock has seen and the monotonic one has not
    timers: new Map(),
    sockets: [],
    /** Lets time pass, timer by timer, and whatever they make happen. */
    async advance(ms) {
      const endMs = network.nowMs + ms;
      await settle();
      for (;;) {
        const due = [...network.timers.entries()].filter(([, { at }]) => at <= endMs).sort((a, b) => a[1].at - b[1].at)[0];
        if (!due) break;
        network.timers.delete(due[0]);
        network.nowMs = Math.max(network.nowMs, due[1].at);
        due[1].run();
        await settle();
      }
      network.nowMs = endMs;
    },
    /** The machine sleeps: timers and the monotonic clock stand still. */
    sleep(ms) {
      network.asleepMs += ms;
    },
    /** What a server whose clock is right says now. */
    get serverMs() {
      return WALL_BASE_MS + network.nowMs;
    },
    async fire(type, event = {}) {
      for (const listener of [...(listeners.get(type) ?? [])]) listener(event);
      await settle();
    },
    get socket() {
      return network.sockets.at(-1);
    },
  };
  // Several turns: answers come through promises.
  const settle = async () => { for (let i = 0; i < 10; i += 1) await Promise.resolve(); };

  class FakeWebSocket {
    static OPEN = 1;

    readyState = 0;
    sent = [];
    closedWith = null;

    constructor(url) {
      this.url = url;
      network.sockets.push(this);
    }

    send(text) {
      this.sent.push(JSON.parse(text));
    }

    close(code = 1005) {
      this.closedWith = code;
      this.readyState = 3;
    }

    // The other end

    async open() {
      this.readyState = 1;
      this.onopen?.();
      await settle();
    }

    async say(message) {
      this.onmessage?.({ data: JSON.stringify(message) });
      await settle();
    }

    async end(code = 1006, reason = '') {
      this.readyState = 3;
      this.onclose?.({ code, reason });
      await settle();
    }

    of(kind) {
      return this.sent.filter((message) => message[kind]).map((message) => message[kind]);
    }
  }

  let nextId = 1;
  globalThis.WebSocket = FakeWebSocket;
  globalThis.setTimeout = (run, ms = 0) => {
    network.timers.set(nextId, { at: network.nowMs + ms, run });
    nextId += 1;
    return nextId - 1;
  };
  globalThis.clearTimeout = (id) => { network.timers.delete(id); };
  // A plain assignment is refused by Node 18, where it is read-only.
  Object.defineProperty(performance, 'now', { value: () => network.nowMs, configurable: true, writable: true });
  Date.now = () => WALL_BASE_MS + network.nowMs + network.asleepMs;
  const addEventListener = (type, listener) => {
    listeners.set(type, (listeners.get(type) ?? new Set()).add(listener));
  };
  const removeEventListener = (type, listener) => listeners.get(type)?.delete(listener);
  network.document = { visibilityState: 'visible', addEventListener, removeEventListener };
  network.connection = {
    addEventListener: (type, listener) => addEventListener(`connection ${type}`, listener),
    removeEventListener: (type, listener) => removeEventListener(`connection ${type}`, listener),
  };
  Object.assign(globalThis, { addEventListener, removeEventListener, document: network.document });
  // From Node 21 on there is one, read-only.
  Object.defineProperty(globalThis, 'navigator', { value: { connection: network.connection }, configurable: true });
  return network;
}
