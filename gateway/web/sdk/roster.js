import { readPosition, u64, writePosition } from './protocol.js';

/** Senders whose highest message number is remembered, so that a range received twice shows its messages once. */
const SENDERS_MAX = 4096;

const utf8 = new TextEncoder();

/** FNV-1a-64 and the last steps of MurmurHash3, as docs/PROTOCOL.md has it. */
function hash64(text) {
  let hash = 0xcbf29ce484222325n;
  for (const byte of utf8.encode(text)) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  }
  hash = BigInt.asUintN(64, (hash ^ (hash >> 33n)) * 0xff51afd7ed558ccdn);
  hash = BigInt.asUintN(64, (hash ^ (hash >> 33n)) * 0xc4ceb9fe1a85ec53n);
  return hash ^ (hash >> 33n);
}

/** Digest of a roster as `settled` carries it: the sum over participants of the hash of "<sid>:<version>". */
export function rosterDigest(participants) {
  let sum = 0n;
  for (const { sid, version, kind } of participants) {
    if (kind !== 'VIEWER') sum = BigInt.asUintN(64, sum + hash64(`${sid}:${version}`));
  }
  return sum.toString(16).padStart(16, '0');
}

function readParticipant(wire) {
  return {
    sid: wire.sid,
    identity: wire.identity ?? '',
    name: wire.name ?? '',
    metadata: wire.metadata ?? '',
    attributes: wire.attributes ?? {},
    kind: wire.kind ?? 'STANDARD',
    tracks: wire.tracks ?? [],
    permissions: wire.permissions ?? {},
    joinedAtMs: u64(wire.joinedAtMs),
    join: readPosition(wire.join),
    version: u64(wire.version),
  };
}

/**
 * A room as the server's snapshots and events describe it. Every method returns what changed and, if something is
 * missing, the sync_state to send:
 *
 *   { changes: [{type: 'joined' | 'updated', participant} | {type: 'left', participant, reason}
 *              | {type: 'message', message} | {type: 'room', info}],
 *     sync: null | {position?} | {cursor} }
 */
export class Roster {
  #participants = new Map();
  #pages = null; // a snapshot in the making: { position, participants, settling, room }
  #senders = new Map();

  /** @type {{epoch: string, seq: number} | null} */
  position = null;
  settling = false;
  info = null;

  get(sid) {
    return this.#participants.get(sid);
  }

  has(sid) {
    return this.#participants.has(sid);
  }

  values() {
    return this.#participants.values();
  }

  get size() {
    return this.#participants.size;
  }

  /** Whether the room's order has been followed up to `position`. Numbers go on from epoch to epoch, so they decide. */
  hasReached(position) {
    const wanted = readPosition(position);
    return wanted !== null && this.position !== null && this.position.seq >= wanted.seq;
  }

  /** A new session begins: who is known stays until its snapshot has come. */
  restart() {
    this.position = null;
    this.#pages = null;
  }

  /** hello_ok with recovered = true: nothing was missed, and what follows is in this epoch. */
  recovered(position) {
    const at = readPosition(position);
    if (at && this.position) this.position = { epoch: at.epoch, seq: this.position.seq };
    this.#pages = null;
  }

  /** The room has another owner, and what is known here still holds. */
  moved(epoch) {
    if (this.position && epoch) this.position = { epoch, seq: this.position.seq };
  }

  /** One page of a snapshot. */
  applySnapshot(page) {
    const position = readPosition(page.position);
    const pages = this.#pages;
    if (!pages || pages.position.epoch !== position?.epoch || pages.position.seq !== position?.seq) {
      if (!position) return { changes: [], sync: {} };
      this.#pages = { position, participants: new Map(), settling: false, info: null };
    }
    for (const wire of page.participants ?? []) this.#pages.participants.set(wire.sid, readParticipant(wire));
    this.#pages.settling = page.settling === true;
    this.#pages.info = page.room ?? this.#pages.info;
    if (page.nextCursor) return { changes: [], sync: { cursor: page.nextCursor } };
    return this.#replace();
  }

  #replace() {
    const { position, participants, settling, info } = this.#pages;
    this.#pages = null;
    const changes = [];
    if (!settling) {
      for (const participant of [...this.#participants.values()]) {
        if (!participants.has(participant.sid)) this.#remove(participant.sid, 'LEAVE_REASON_UNSPECIFIED', changes);
      }
    }
    for (const participant of participants.values()) {
      const known = this.#participants.get(participant.sid);
      if (settling && known && known.version > participant.version) continue;
      this.#put(participant, changes);
    }
    this.position = position;
    this.settling = settling;
    if (info) {
      this.info = info;
      changes.push({ type: 'room', info });
    }
    return { changes, sync: null };
  }

  applyEvents(range) {
    const firstSeq = u64(range.firstSeq);
    const lastSeq = u64(range.lastSeq);
    if (this.#pages) return { changes: [], sync: null };
    if (!this.position || range.epoch !== this.position.epoch || firstSeq > this.position.seq + 1) {
      return { changes: [], sync: this.missing() };
    }
    const changes = [];
    if (lastSeq <= this.position.seq) return { changes, sync: null };
    let sync = null;
    for (const event of range.events ?? []) {
      if (event.settled) sync = this.#settle(event.settled);
      else this.#applyEvent(event, changes);
    }
    // With a wrong roster there is no position to go on from, on this connection or the next: only a snapshot helps.
    this.position = sync ? null : { epoch: this.position.epoch, seq: lastSeq };
    return { changes, sync };
  }

  #applyEvent(event, changes) {
    if (event.joined) {
      const participant = readParticipant(event.joined);
      const known = this.#participants.get(participant.sid);
      if (!known || participant.version >= known.version) this.#put(participant, changes);
    } else if (event.left) {
      this.#remove(event.left.sid, event.left.reason ?? 'LEAVE_REASON_UNSPECIFIED', changes);
    } else if (event.updated) {
      this.#update(event.updated, changes);
    } else if (event.room) {
      this.info = event.room;
      changes.push({ type: 'room', info: event.room });
    } else if (event.message) {
      if (this.#isNewMessage(event.message)) changes.push({ type: 'message', message: event.message });
    }
  }

  #update(update, changes) {
    const known = this.#participants.get(update.sid);
    const version = u64(update.version);
    if (!known || version < known.version) return;
    const participant = { ...known, version };
    if (update.profile) {
      participant.name = update.profile.name ?? '';
      participant.metadata = update.profile.metadata ?? '';
      participant.attributes = update.profile.attributes ?? {};
    }
    if (update.tracks) participant.tracks = update.tracks.tracks ?? [];
    if (update.permissions) participant.permissions = update.permissions;
    this.#put(participant, changes);
  }

  /** Everybody has come back after a rebuild: whoever is still missing has gone, and only a snapshot tells who. */
  #settle(settled) {
    this.settling = false;
    return settled.digest === rosterDigest(this.#participants.values()) ? null : {};
  }

  /** Whether a pong's position shows events that have not come. */
  isBehind(position) {
    const newest = readPosition(position);
    if (!newest || !this.position) return false;
    return newest.epoch !== this.position.epoch || newest.seq > this.position.seq;
  }

  /** The sync_state that asks for what is missing. */
  missing() {
    this.#pages = null;
    return this.position ? { position: writePosition(this.position) } : {};
  }

  #put(participant, changes) {
    const known = this.#participants.get(participant.sid);
    this.#participants.set(participant.sid, participant);
    if (!known) changes.push({ type: 'joined', participant });
    else if (JSON.stringify(known) !== JSON.stringify(participant)) changes.push({ type: 'updated', participant });
  }

  #remove(sid, reason, changes) {
    const participant = this.#participants.get(sid);
    if (!participant) return;
    this.#participants.delete(sid);
    changes.push({ type: 'left', participant, reason });
  }

  #isNewMessage(message) {
    const seq = u64(message.senderSeq);
    if (!message.from || seq === 0) return true;
    if (seq <= (this.#senders.get(message.from) ?? 0)) return false;
    this.#senders.delete(message.from);
    this.#senders.set(message.from, seq);
    if (this.#senders.size > SENDERS_MAX) this.#senders.delete(this.#senders.keys().next().value);
    return true;
  }
}
