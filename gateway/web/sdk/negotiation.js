import { u64 } from './protocol.js';

/**
 * Who gives way when two offers cross: a pure function, so that nothing about it needs to survive a failover. Sids are
 * ASCII, so comparing strings compares bytes.
 *
 * @param {{sid: string, kind: string}} local
 * @param {{sid: string, kind: string}} remote
 */
export function isPolite(local, remote) {
  if (local.kind === 'MEDIA_SERVER') return false;
  if (remote.kind === 'MEDIA_SERVER') return true;
  return local.sid < remote.sid;
}

/** Who makes the first offer: a viewer (whom the others may not see), else the one who joined later. */
export function offersFirst(local, remote) {
  if (local.kind !== remote.kind) {
    if (local.kind === 'VIEWER') return true;
    if (remote.kind === 'VIEWER') return false;
  }
  const here = local.join?.seq ?? 0;
  const there = remote.join?.seq ?? 0;
  return here === there ? local.sid > remote.sid : here > there;
}

/**
 * Numbers of one pair's negotiations: which description or candidate counts and which is stale. Says what to do with an
 * RTCPeerConnection without touching one.
 */
export class Negotiation {
  /** The negotiation of the last description exchange that was completed or accepted. */
  current = 0;
  /** Our offer that waits for its answer, or 0. */
  outstanding = 0;
  /** ICE generation of the remote description in force. */
  iceGeneration = 0;
  staleDropped = 0;

  #highest = 0;
  #ignored = 0;
  #offeredGeneration = 0;

  constructor(polite) {
    this.polite = polite;
  }

  /** Numbers for a new offer. The polite side takes even ids, the impolite one odd ids, so that crossing offers differ. */
  beginOffer(restartIce) {
    let id = this.#highest + 1;
    if ((id % 2 === 0) !== this.polite) id += 1;
    this.#highest = id;
    this.outstanding = id;
    this.#offeredGeneration = Math.max(1, this.iceGeneration + (restartIce ? 1 : 0));
    return { negotiation: id, iceGeneration: this.#offeredGeneration };
  }

  /** @returns {'accept' | 'rollback' | 'ignore' | 'stale'} rollback = accept, and our own offer is given up */
  receiveOffer(offer) {
    const id = u64(offer.negotiation);
    this.#highest = Math.max(this.#highest, id);
    if (id <= this.current) return this.#stale();
    if (this.outstanding && !this.polite) {
      this.#ignored = id;
      return 'ignore';
    }
    const verdict = this.outstanding ? 'rollback' : 'accept';
    this.outstanding = 0;
    this.current = id;
    this.iceGeneration = offer.iceGeneration ?? 0;
    return verdict;
  }

  /** @returns {'accept' | 'stale'} */
  receiveAnswer(answer) {
    if (!this.outstanding || u64(answer.negotiation) !== this.outstanding) return this.#stale();
    this.current = this.outstanding;
    this.outstanding = 0;
    this.iceGeneration = this.#offeredGeneration;
    return 'accept';
  }

  /** @returns {'add' | 'wait' | 'stale'} wait = its description has yet to come */
  receiveCandidate(candidate) {
    const id = u64(candidate.negotiation);
    const generation = candidate.iceGeneration ?? 0;
    if (id === 0 || id === this.#ignored || generation < this.iceGeneration) return this.#stale();
    if (generation > this.iceGeneration || this.current === 0) return 'wait';
    return 'add';
  }

  /** Numbers that a candidate of ours repeats: those of the local description that it belongs to. */
  candidateNumbers() {
    return this.outstanding
      ? { negotiation: this.outstanding, iceGeneration: this.#offeredGeneration }
      : { negotiation: this.current, iceGeneration: this.iceGeneration };
  }

  #stale() {
    this.staleDropped += 1;
    return 'stale';
  }
}
