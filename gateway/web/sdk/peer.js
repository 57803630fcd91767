import { Negotiation, isPolite, offersFirst } from './negotiation.js';
import { u64 } from './protocol.js';

const WAITING_CANDIDATES_MAX = 256;
const RESTART_BASE_MS = 1000;
const RESTART_MAX_MS = 30000;

/**
 * One RTCPeerConnection to one participant, by perfect negotiation. It lives from the moment both are in the room until
 * one of them has left it; the loss of signaling does not touch it.
 */
export class Peer {
  #io;
  #pc;
  #negotiation;
  #work = Promise.resolve();
  #closed = false;
  #restartWanted = false;
  #restarts = 0;
  #restartTimer = null;
  #outbox = []; // what did not fit the window to this participant
  #waiting = []; // candidates whose description has yet to come
  #senders = new Map(); // local track id -> RTCRtpSender
  #remoteTrackIds = new Map(); // mid -> track id
  #startedAt = 0;
  #active;

  /**
   * @param {object} io
   * @param {object} io.local this participant: sid, kind, join
   * @param {object} io.remote the other one
   * @param {RTCConfiguration} io.config
   * @param {(body: object) => void} io.send directed message; throws WOULD_BLOCK
   * @param {(state: object) => void} io.report ice_state, for the server's metrics
   * @param {(trackId: string, track: MediaStreamTrack) => void} io.onTrack
   * @param {(state: string) => void} io.onState connectionState
   * @param {(error: Error) => void} io.onError
   */
  constructor(io) {
    this.#io = io;
    this.#negotiation = new Negotiation(isPolite(io.local, io.remote));
    this.#pc = new RTCPeerConnection(io.config);
    // Until the one who offers first has done so, the other keeps quiet: no glare at the start of every call.
    this.#active = offersFirst(io.local, io.remote);
    const pc = this.#pc;
    pc.onnegotiationneeded = () => this.#enqueue(() => this.#offer());
    pc.onicecandidate = ({ candidate }) => this.#sendCandidate(candidate);
    pc.ontrack = ({ track, transceiver }) => this.#attach(transceiver.mid, track);
    pc.oniceconnectionstatechange = () => this.#onIceState();
    pc.onconnectionstatechange = () => io.onState(pc.connectionState);
  }

  get connectionState() {
    return this.#pc.connectionState;
  }

  get staleDropped() {
    return this.#negotiation.staleDropped;
  }

  getStats() {
    return this.#pc.getStats();
  }

  setConfiguration(config) {
    this.#pc.setConfiguration(config);
  }

  /** Starts the connection if it is this side's turn. */
  start() {
    if (!this.#active) return;
    // A connection for both kinds from the beginning: what is published later needs no new transport.
    for (const kind of ['audio', 'video']) {
      const has = this.#pc.getTransceivers().some((t) => t.receiver.track.kind === kind);
      if (!has) this.#pc.addTransceiver(kind, { direction: 'recvonly' });
    }
  }

  addTrack(trackId, track, stream) {
    if (this.#senders.has(trackId)) return;
    this.#senders.set(trackId, this.#pc.addTrack(track, stream));
  }

  removeTrack(trackId) {
    const sender = this.#senders.get(trackId);
    if (!sender) return;
    this.#senders.delete(trackId);
    this.#pc.removeTrack(sender);
  }

  /** @returns {Promise<void>} */
  replaceTrack(trackId, track) {
    return this.#senders.get(trackId)?.replaceTrack(track) ?? Promise.resolve();
  }

  /** A directed message from the other side. */
  receive(message) {
    if (message.offer) this.#enqueue(() => this.#receiveOffer(message.offer));
    else if (message.answer) this.#enqueue(() => this.#receiveAnswer(message.answer));
    else if (message.candidate) this.#enqueue(() => this.#receiveCandidate(message.candidate));
    // candidates_done only ends a generation: browsers need no call for it.
  }

  /** New addresses on this side: connectivity is checked again. */
  restartIce() {
    if (this.#closed || !this.#pc.remoteDescription) return;
    this.#restartWanted = true;
    this.#pc.restartIce();
  }

  /** The window to this participant has room again. */
  flush() {
    const outbox = this.#outbox;
    this.#outbox = [];
    outbox.forEach((body) => this.#send(body));
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#restartTimer);
    const pc = this.#pc;
    pc.onnegotiationneeded = pc.onicecandidate = pc.ontrack = null;
    pc.oniceconnectionstatechange = pc.onconnectionstatechange = null;
    pc.close();
  }

  /** One step at a time: descriptions and candidates are applied in the order in which they came. */
  #enqueue(step) {
    this.#work = this.#work.then(() => (this.#closed ? undefined : step())).catch((error) => {
      if (!this.#closed) this.#io.onError(error);
    });
  }

  #send(body) {
    if (this.#outbox.length > 0) {
      this.#outbox.push(body);
      return;
    }
    try {
      this.#io.send(body);
    } catch (error) {
      if (error.code === 'WOULD_BLOCK') this.#outbox.push(body);
      else if (error.code !== 'UNDELIVERABLE') throw error;
    }
  }

  async #offer() {
    const pc = this.#pc;
    if (!this.#active || pc.signalingState !== 'stable') return; // fires again once it is stable
    this.#startedAt ||= performance.now();
    const numbers = this.#negotiation.beginOffer(this.#restartWanted);
    this.#restartWanted = false;
    await pc.setLocalDescription();
    this.#send({ offer: this.#describe(numbers) });
  }

  async #receiveOffer(offer) {
    const pc = this.#pc;
    const verdict = this.#negotiation.receiveOffer(offer);
    if (verdict === 'ignore' || verdict === 'stale') return;
    this.#active = true;
    this.#startedAt ||= performance.now();
    this.#learnTracks(offer.tracks);
    // Rolls our own offer back by itself when there is one; what it was for makes negotiationneeded fire again.
    await pc.setRemoteDescription({ type: 'offer', sdp: offer.sdp });
    await pc.setLocalDescription();
    this.#send({
      answer: this.#describe({ negotiation: u64(offer.negotiation), iceGeneration: offer.iceGeneration ?? 0 }),
    });
    await this.#addWaiting();
    this.#attachAll();
  }

  async #receiveAnswer(answer) {
    if (this.#negotiation.receiveAnswer(answer) === 'stale') return;
    this.#learnTracks(answer.tracks);
    await this.#pc.setRemoteDescription({ type: 'answer', sdp: answer.sdp });
    await this.#addWaiting();
    this.#attachAll();
  }

  #describe({ negotiation, iceGeneration }) {
    return {
      sdp: this.#pc.localDescription.sdp,
      negotiation: String(negotiation),
      iceGeneration,
      tracks: this.#mapTracks(),
    };
  }

  #mapTracks() {
    const mapping = [];
    for (const [trackId, sender] of this.#senders) {
      const transceiver = this.#pc.getTransceivers().find((t) => t.sender === sender);
      if (transceiver?.mid) mapping.push({ mid: transceiver.mid, trackId });
    }
    return mapping;
  }

  #learnTracks(mapping = []) {
    this.#remoteTrackIds = new Map(mapping.map(({ mid, trackId }) => [mid, trackId]));
  }

  #attach(mid, track) {
    const trackId = this.#remoteTrackIds.get(mid);
    if (trackId) this.#io.onTrack(trackId, track);
  }

  /** A mapping may name a section whose media began earlier: `track` does not fire again for it. */
  #attachAll() {
    for (const { mid, currentDirection, receiver } of this.#pc.getTransceivers()) {
      if (currentDirection === 'sendrecv' || currentDirection === 'recvonly') this.#attach(mid, receiver.track);
    }
  }

  #sendCandidate(candidate) {
    const { negotiation, iceGeneration } = this.#negotiation.candidateNumbers();
    const numbers = { negotiation: String(negotiation), iceGeneration };
    if (!candidate || candidate.candidate === '') {
      // Chromium gives one empty candidate for each section and then null; one end is enough.
      if (!candidate) this.#send({ candidatesDone: numbers });
      return;
    }
    this.#send({
      candidate: {
        candidate: candidate.candidate,
        sdpMid: candidate.sdpMid ?? '',
        sdpMlineIndex: candidate.sdpMLineIndex ?? 0,
        usernameFragment: candidate.usernameFragment ?? '',
        ...numbers,
      },
    });
  }

  async #receiveCandidate(candidate) {
    if (!candidate.candidate) return; // the end of candidates
    const verdict = this.#negotiation.receiveCandidate(candidate);
    if (verdict === 'add') await this.#addCandidate(candidate);
    else if (verdict === 'wait' && this.#waiting.length < WAITING_CANDIDATES_MAX) this.#waiting.push(candidate);
  }

  async #addWaiting() {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const candidate of waiting) await this.#receiveCandidate(candidate);
  }

  async #addCandidate(candidate) {
    try {
      await this.#pc.addIceCandidate({
        candidate: candidate.candidate,
        sdpMid: candidate.sdpMid ?? '',
        sdpMLineIndex: candidate.sdpMlineIndex ?? 0,
        usernameFragment: candidate.usernameFragment || undefined,
      });
    } catch {
      // Of a description that a rollback has taken away: stale, as the numbers cannot always tell.
      this.#negotiation.staleDropped += 1;
    }
  }

  #onIceState() {
    const states = {
      checking: 'CHECKING', connected: 'CONNECTED', completed: 'CONNECTED', disconnected: 'DISCONNECTED',
      failed: 'FAILED', closed: 'CLOSED',
    };
    const state = states[this.#pc.iceConnectionState];
    if (!state) return;
    const report = { negotiation: String(this.#negotiation.current), state };
    if (state === 'CONNECTED') {
      this.#restarts = 0;
      clearTimeout(this.#restartTimer);
      report.timeToConnectedMs = Math.round(performance.now() - this.#startedAt);
    }
    this.#io.report(report);
    if (state === 'FAILED') this.#scheduleRestart();
  }

  #scheduleRestart() {
    clearTimeout(this.#restartTimer);
    const delayMs = this.#restarts === 0 ? 0 : Math.min(RESTART_MAX_MS, RESTART_BASE_MS * 2 ** this.#restarts);
    this.#restarts += 1;
    this.#restartTimer = setTimeout(() => this.restartIce(), delayMs);
  }
}
