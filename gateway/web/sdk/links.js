import { DEFAULT_LIMITS, SignalboxError, u64, utf8Size } from './protocol.js';

/** Messages that one session may hold back because they came early: out of order, or before their sender's join. */
const HELD_MAX = 1024;
/** Participants whose leaving is remembered, so that a straggler does not open a link again. */
const GONE_MAX = 1024;
const RETRANSMIT_DOUBLINGS_MAX = 3;

/** The link to "the room": reliable messages to everybody, acknowledged by the server. */
export const ROOM = '';

/**
 * Exactly-once, ordered delivery of directed messages over a middle that may lose, repeat and reorder (docs/PROTOCOL.md,
 * "Directed messages"). Knows no socket and no clock: `now` is passed in, output goes through the callbacks.
 */
export class Links {
  #io;
  #limits = DEFAULT_LIMITS;
  #outgoing = new Map();
  #incoming = new Map();
  #gone = new Set();
  #unackedBytes = 0;
  #held = 0;
  #online = false;

  /**
   * @param {object} io
   * @param {(message: object) => void} io.transmit puts a ClientMessage on the wire; called only while online
   * @param {(peer: string, message: object) => void} io.deliver gets each directed message once, in order
   * @param {(peer: string, join: object | undefined) => boolean} io.ready whether the roster knows this sender by now
   * @param {(peer: string) => void} [io.drained] the window to this peer has room again
   */
  constructor(io) {
    this.#io = io;
    this.stats = { sent: 0, retransmitted: 0, delivered: 0, duplicates: 0, overflowed: 0, undeliverable: 0 };
  }

  setLimits(limits) {
    this.#limits = limits;
  }

  get unackedBytes() {
    return this.#unackedBytes;
  }

  /**
   * Takes a message for `peer` (or ROOM) and sends it at once if it can.
   *
   * @param {object} body one member of ClientMessage.body
   * @param {{requestId?: number, settle?: (error: SignalboxError | null) => void}} [options] settle is called once: null
   *   when acknowledged
   * @throws {SignalboxError} WOULD_BLOCK when a window is full, UNDELIVERABLE when the peer has gone
   */
  send(peer, body, now, { requestId = 0, settle = () => {} } = {}) {
    if (this.#gone.has(peer)) throw new SignalboxError('UNDELIVERABLE', 'the participant has left');
    const bytes = utf8Size(JSON.stringify(body));
    const link = this.#outgoingLink(peer);
    if (link.queue.length >= this.#limits.directedWindowMessages
      || (link.queue.length > 0 && link.bytes + bytes > this.#limits.directedWindowBytes)
      || (link.queue.length > 0 && this.#unackedBytes + bytes > this.#limits.sessionWindowBytes)) {
      link.blocked = true;
      throw new SignalboxError('WOULD_BLOCK', 'too many unacknowledged messages to this receiver');
    }
    const entry = { seq: link.nextSeq++, body, bytes, requestId, settle };
    link.queue.push(entry);
    link.bytes += bytes;
    this.#unackedBytes += bytes;
    if (link.queue.length === 1) this.#armRetransmit(link, now);
    if (now >= link.pausedUntil) this.#transmit(peer, entry);
    return entry.seq;
  }

  /** A directed message from `message.route.peer`. */
  receive(message, now) {
    const peer = message.route.peer ?? '';
    const seq = u64(message.route.seq);
    if (this.#gone.has(peer)) return;
    this.acknowledged(peer, message.route.ack, now);
    this.#repeatOverdue(peer, now);
    if (seq === 0) return;
    const link = this.#incomingLink(peer);
    if (seq < link.expected) {
      // Its acknowledgement was lost: say it again.
      this.stats.duplicates += 1;
      link.ackDueAt = Math.min(link.ackDueAt, now);
      return;
    }
    if (link.buffer.has(seq)) {
      this.stats.duplicates += 1;
      return;
    }
    if (seq >= link.expected + this.#limits.directedWindowMessages || this.#held >= HELD_MAX) {
      this.stats.overflowed += 1;
      return;
    }
    link.buffer.set(seq, message);
    this.#held += 1;
    this.#drain(peer, link, now);
  }

  /** The roster has changed: messages that waited for their sender may go on. */
  flush(now) {
    for (const [peer, link] of [...this.#incoming]) {
      if (link.buffer.size > 0) this.#drain(peer, link, now);
    }
  }

  /** Everything to `peer` up to `ack` has arrived. */
  acknowledged(peer, ack, now) {
    const link = this.#outgoing.get(peer);
    const upTo = u64(ack);
    if (!link || upTo === 0 || link.queue.length === 0 || link.queue[0].seq > upTo) return;
    const settled = [];
    while (link.queue.length > 0 && link.queue[0].seq <= upTo) {
      const entry = link.queue.shift();
      this.#forget(link, entry);
      settled.push(entry);
    }
    link.attempts = 0;
    link.overdue = false;
    this.#armRetransmit(link, now);
    settled.forEach((entry) => entry.settle(null));
    if (link.blocked) {
      link.blocked = false;
      this.#io.drained?.(peer);
    }
  }

  /**
   * The connection is bound to the session, or its gateway has the cluster again: everything unacknowledged goes out again.
   * So do the acknowledgements: peers who have waited for one in vain hear by them that this end is back.
   */
  resumed(now) {
    this.#online = true;
    for (const link of this.#incoming.values()) link.ackDueAt = now;
    this.moved(now);
  }

  /** The same for somebody of whom nothing may have come yet. */
  greet(peer, now) {
    if (!this.#gone.has(peer)) this.#incomingLink(peer).ackDueAt = now;
  }

  /** The room has another owner, which knows nothing of what was under way. */
  moved(now) {
    if (!this.#online) return;
    for (const [peer, link] of this.#outgoing) {
      link.attempts = 0;
      link.overdue = false;
      link.pausedUntil = 0;
      this.#resend(peer, link, now);
    }
  }

  lost() {
    this.#online = false;
  }

  /** `peer` has left, or the server said undeliverable: sids never come back. */
  peerGone(peer, message = 'the participant has left: not known to be delivered') {
    const incoming = this.#incoming.get(peer);
    if (incoming) this.#held -= incoming.buffer.size;
    this.#incoming.delete(peer);
    this.#gone.add(peer);
    if (this.#gone.size > GONE_MAX) this.#gone.delete(this.#gone.values().next().value);
    this.#fail(peer, message);
  }

  /** The session has ended: of whatever is unacknowledged nobody knows whether it arrived. */
  close(message = 'the session has ended: not known to be delivered') {
    this.#online = false;
    for (const peer of [...this.#outgoing.keys()]) this.#fail(peer, message);
    this.#incoming.clear();
    this.#held = 0;
  }

  /** The server refuses what goes to this peer for now: nothing more until then. */
  pause(peer, untilMs) {
    const link = this.#outgoing.get(peer);
    if (link) link.retransmitAt = link.pausedUntil = Math.max(link.pausedUntil, untilMs);
  }

  /**
   * The server refuses a message for good. To a participant its number must still arrive, so a message that every
   * receiver ignores takes its place; to the room, those behind it move up, because the server has taken nothing from
   * the refused one on.
   */
  refuse(peer, requestId, error, now) {
    const link = this.#outgoing.get(peer);
    const index = link ? link.queue.findIndex((entry) => entry.requestId === requestId) : -1;
    if (index < 0) return;
    const entry = link.queue[index];
    const settle = entry.settle;
    if (peer === ROOM) {
      link.queue.splice(index, 1);
      this.#forget(link, entry);
      link.nextSeq -= 1;
      for (let i = index; i < link.queue.length; i++) link.queue[i].seq -= 1;
      this.#resend(peer, link, now);
    } else {
      entry.body = { candidatesDone: {} };
      entry.requestId = 0;
      entry.settle = () => {};
      this.#transmit(peer, entry);
    }
    settle(error);
  }

  /** When tick() has something to do, or Infinity. */
  nextDeadline() {
    let at = Infinity;
    if (!this.#online) return at;
    for (const link of this.#incoming.values()) at = Math.min(at, link.ackDueAt);
    for (const link of this.#outgoing.values()) {
      if (link.queue.length > 0) at = Math.min(at, link.retransmitAt);
    }
    return at;
  }

  tick(now) {
    if (!this.#online) return;
    for (const [peer, link] of this.#outgoing) {
      if (link.queue.length > 0 && link.retransmitAt <= now) {
        link.attempts = Math.min(link.attempts + 1, RETRANSMIT_DOUBLINGS_MAX);
        link.overdue = true;
        this.#resend(peer, link, now);
      }
    }
    for (const [peer, link] of this.#incoming) {
      if (link.ackDueAt <= now) {
        this.#io.transmit({ route: { peer, ack: String(this.#takeAck(peer)) }, ack: {} });
      }
    }
  }

  #outgoingLink(peer) {
    let link = this.#outgoing.get(peer);
    if (!link) {
      link = {
        queue: [], bytes: 0, nextSeq: 1, retransmitAt: Infinity, attempts: 0, overdue: false, pausedUntil: 0, blocked: false,
      };
      this.#outgoing.set(peer, link);
    }
    return link;
  }

  #incomingLink(peer) {
    let link = this.#incoming.get(peer);
    if (!link) {
      link = { expected: 1, buffer: new Map(), ackDueAt: Infinity };
      this.#incoming.set(peer, link);
    }
    return link;
  }

  #drain(peer, link, now) {
    while (link.buffer.has(link.expected)) {
      const message = link.buffer.get(link.expected);
      if (!this.#io.ready(peer, message.route.senderJoin)) return;
      link.buffer.delete(link.expected);
      this.#held -= 1;
      link.expected += 1;
      link.ackDueAt = Math.min(link.ackDueAt, now + this.#limits.ackDelayMs);
      this.stats.delivered += 1;
      this.#io.deliver(peer, message);
      // The application may have ended the link from inside deliver().
      if (this.#incoming.get(peer) !== link) return;
    }
  }

  /** The acknowledgement that rides on the next message to `peer`. */
  #takeAck(peer) {
    const link = this.#incoming.get(peer);
    if (!link) return 0;
    link.ackDueAt = Infinity;
    return link.expected - 1;
  }

  #transmit(peer, entry) {
    if (!this.#online) return;
    const ack = peer === ROOM ? 0 : this.#takeAck(peer);
    const route = { seq: String(entry.seq) };
    if (peer !== ROOM) route.peer = peer;
    if (ack > 0) route.ack = String(ack);
    const message = { route, ...entry.body };
    if (entry.requestId) message.requestId = entry.requestId;
    this.stats.sent += 1;
    this.#io.transmit(message);
  }

  #resend(peer, link, now) {
    this.#armRetransmit(link, now);
    for (const entry of link.queue) {
      this.stats.retransmitted += 1;
      this.#transmit(peer, entry);
    }
  }

  /** Who is heard of again after a repetition in vain need not wait for the next one. Once between two, or loops would form. */
  #repeatOverdue(peer, now) {
    const link = this.#outgoing.get(peer);
    if (!link?.overdue || link.queue.length === 0 || now < link.pausedUntil) return;
    link.overdue = false;
    this.#resend(peer, link, now);
  }

  #armRetransmit(link, now) {
    const waitMs = this.#limits.retransmitMs * 2 ** link.attempts;
    link.retransmitAt = link.queue.length > 0 ? Math.max(now + waitMs, link.pausedUntil) : Infinity;
  }

  #forget(link, entry) {
    link.bytes -= entry.bytes;
    this.#unackedBytes -= entry.bytes;
  }

  #fail(peer, message) {
    const link = this.#outgoing.get(peer);
    if (!link) return;
    this.#outgoing.delete(peer);
    for (const entry of link.queue) {
      this.#forget(link, entry);
      this.stats.undeliverable += 1;
      entry.settle(new SignalboxError('UNDELIVERABLE', message));
    }
  }
}
