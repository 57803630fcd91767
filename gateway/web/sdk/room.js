import { Emitter } from './emitter.js';
import { ROOM } from './links.js';
import { LocalParticipant, RemoteParticipant, writeTrack } from './participants.js';
import { Peer } from './peer.js';
import { SignalboxError, readData, u64, writeData } from './protocol.js';
import { Session } from './session.js';

const CONNECT_TIMEOUT_MS = 30000;

/**
 * A room: its people, their media and messages.
 *
 *   const room = new Room('https://rtc.example.com', { getToken: () => fetchToken() });
 *   room.on('trackSubscribed', (track, publication, participant) => ...);
 *   await room.connect();
 *   await room.localParticipant.publish(cameraTrack);
 *
 * Events
 *   connecting, connected, reconnecting, moving({spreadMs}), resumed({recovered}), rejoined, degraded({reason}), restored,
 *   disconnected({reason, message}), stateChanged(state)
 *   participantConnected(p), participantDisconnected(p, reason), participantUpdated(p)
 *   trackPublished / trackUnpublished / trackMuted / trackUnmuted (publication, participant)
 *   trackSubscribed / trackUnsubscribed (track, publication, participant)
 *   message({from, data, topic, direct}), signal({from, key, topic, data, speaking, quality}),
 *   speakingChanged(participant), connectionStateChanged(participant), roomChanged(info)
 *   moved({shard, epoch}), throttled(info), dropped(counts), roundTrip(ms), error(error)
 */
export class Room extends Emitter {
  #url;
  #options;
  #session = null;
  #peers = new Map();
  #iceServers = [];
  #stream = null;
  #publications = new Map(); // by track id
  #networkType = globalThis.navigator?.connection?.type;

  /** @type {Map<string, RemoteParticipant>} everybody else who is listed, by sid */
  participants = new Map();
  localParticipant = new LocalParticipant(this);
  isDegraded = false;
  rttMs = null;
  info = null;

  /**
   * @param {string | string[]} url base URL of the cluster, https or wss; several if no load balancer stands before the
   *   gateways: a gateway that does not answer makes room for the next
   * @param {object} options
   * @param {string} [options.token] access token
   * @param {() => Promise<string>} [options.getToken] asked for a token at each join and before one expires
   * @param {boolean} [options.autoRefresh] false: getToken gives another identity each time, so ask at joins alone
   * @param {string} [options.room] if the token leaves it open
   * @param {string} [options.name] display name, metadata and attributes: instead of the token's
   * @param {string} [options.metadata]
   * @param {Record<string, string>} [options.attributes]
   * @param {object} [options.interest] see Interest in client.proto
   * @param {RTCConfiguration} [options.rtcConfig] laid over what the server gives
   */
  constructor(url, options = {}) {
    super();
    this.#url = url;
    this.#options = options;
  }

  /** 'idle' | 'connecting' | 'connected' | 'reconnecting' | 'closed' */
  get state() {
    return this.#session?.state ?? 'idle';
  }

  /** Who serves this session: for status lines and support. */
  get serverInfo() {
    const hello = this.#session?.helloOk ?? {};
    return {
      gateway: hello.gateway ?? '', shard: hello.shard ?? '', room: hello.room ?? '', sid: this.#session?.sid ?? '',
      epoch: this.#session?.roster.position?.epoch ?? '', seq: this.#session?.roster.position?.seq ?? 0,
    };
  }

  /** Resolves once the room's people are known. Rejects if the server refuses, or cannot be reached in time. */
  connect({ timeoutMs = CONNECT_TIMEOUT_MS } = {}) {
    if (this.#session && this.state !== 'closed') return Promise.reject(new Error('already connected'));
    const { token, getToken } = this.#options;
    const session = new Session(this.#url, {
      getToken: getToken ?? (() => Promise.resolve(token)),
      canRefresh: Boolean(getToken) && this.#options.autoRefresh !== false,
      makeJoin: () => this.#makeJoin(),
    });
    this.#session = session;
    this.#listen(session);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new SignalboxError('UNAVAILABLE', 'the server cannot be reached'));
        session.stop();
      }, timeoutMs);
      session.once('synced', () => {
        clearTimeout(timer);
        resolve();
      });
      session.once('ended', (error) => {
        clearTimeout(timer);
        reject(error);
      });
      session.start();
    });
  }

  /** Leaves the room for good. Local tracks are left as they are: stop them if they are no longer needed. */
  disconnect() {
    this.#session?.stop();
  }

  /**
   * Sends application data.
   *
   * @param {string | ArrayBuffer | ArrayBufferView} data
   * @param {object} [options]
   * @param {string} [options.to] a participant's sid; everybody if absent
   * @param {boolean} [options.reliable] default true. Reliable: exactly once and in order, or the promise says that it
   *   is not known. Otherwise the latest value per `key` counts, and any may be lost.
   * @param {string} [options.topic]
   * @param {string} [options.key]
   * @returns {Promise<'acknowledged' | 'sent' | 'lost'>} rejects with a SignalboxError: WOULD_BLOCK (too much on its
   *   way: try again), UNDELIVERABLE (gone; not known to be delivered), FORBIDDEN, TOO_LARGE, ...
   */
  send(data, { to = ROOM, reliable = true, topic = '', key = '' } = {}) {
    const content = writeData(data);
    if (!reliable) return Promise.resolve(this.#postSignal({ topic, key, ...content }, to) ? 'sent' : 'lost');
    return new Promise((resolve, reject) => {
      const session = this.#requireSession();
      const size = typeof data === 'string' ? new TextEncoder().encode(data).length : data.byteLength;
      if (size > session.limits.sendBytes) {
        throw new SignalboxError('TOO_LARGE', `at most ${session.limits.sendBytes} bytes`);
      }
      session.send(to, { send: { delivery: 'RELIABLE', topic, ...content } }, (error) => {
        if (error) reject(error);
        else resolve('acknowledged');
      });
    });
  }

  /** Measures the round trip to the gateway; the answer comes as the event roundTrip. */
  ping() {
    this.#session?.probe();
  }

  async getStats() {
    const peers = {};
    for (const [sid, peer] of this.#peers) {
      peers[sid] = {
        state: peer.connectionState, staleDropped: peer.staleDropped,
        reports: [...(await peer.getStats()).values()],
      };
    }
    return { rttMs: this.rttMs, signaling: this.#session?.stats ?? null, peers };
  }

  // For LocalParticipant

  async publish(publication) {
    this.#publications.set(publication.id, publication);
    this.localParticipant.tracks.set(publication.id, publication);
    this.#stream ??= new MediaStream();
    for (const peer of this.#peers.values()) peer.addTrack(publication.id, publication.track, this.#stream);
    this.emit('trackPublished', publication, this.localParticipant);
    if (!this.#session || this.state === 'closed') return; // goes with the join
    try {
      await this.#session.command({ publishTrack: { track: writeTrack(publication) } });
    } catch (error) {
      this.#withdraw(publication);
      throw error;
    }
  }

  async unpublish(publication) {
    if (!this.#withdraw(publication)) return;
    await this.#session?.command({ unpublishTrack: { trackId: publication.id } });
  }

  #withdraw(publication) {
    if (!this.#publications.delete(publication.id)) return false;
    this.localParticipant.tracks.delete(publication.id);
    for (const peer of this.#peers.values()) peer.removeTrack(publication.id);
    this.emit('trackUnpublished', publication, this.localParticipant);
    return true;
  }

  async setMuted(publication, muted) {
    publication.muted = muted;
    publication.track.enabled = !muted;
    this.emit(muted ? 'trackMuted' : 'trackUnmuted', publication, this.localParticipant);
    await this.#session?.command({ mute: { trackId: publication.id, muted } });
  }

  async replaceTrack(publication, track) {
    track.enabled = !publication.muted;
    publication.track = track;
    await Promise.all([...this.#peers.values()].map((peer) => peer.replaceTrack(publication.id, track)));
  }

  async setMetadata({ name, metadata, attributes }) {
    await this.#requireSession().command({
      setMetadata: {
        name: name ?? '', metadata: metadata ?? '', setMetadata: metadata !== undefined, attributes: attributes ?? {},
      },
    });
  }

  setSpeaking(active, level) {
    this.#postSignal({ key: 'speaking', speaking: { active, level } });
    this.#setSpeaking(this.localParticipant, { active, level });
  }

  #postSignal(content, to = ROOM) {
    const message = { send: { delivery: 'EPHEMERAL', ...content } };
    if (to !== ROOM) message.route = { peer: to };
    return this.#session?.post(message) ?? false;
  }

  #requireSession() {
    if (!this.#session) throw new SignalboxError('NOT_JOINED', 'not in a room');
    return this.#session;
  }

  // From the session

  #makeJoin() {
    // Once joined, this participant's own state is what counts: it may have changed since.
    const joined = this.localParticipant.sid !== '';
    const { name = '', metadata = '', attributes = {} } = joined ? this.localParticipant : this.#options;
    const { room = '', interest } = this.#options;
    const tracks = [...this.#publications.values()].map(writeTrack);
    return { room, name, metadata, attributes, interest, tracks };
  }

  #listen(session) {
    session.on('state', (state) => this.#onState(state));
    session.on('hello', (helloOk, info) => this.#onHello(helloOk, info));
    session.on('synced', () => this.#connectPeers());
    session.on('changes', (changes) => changes.forEach((change) => this.#applyChange(change)));
    session.on('directed', (sid, message) => this.#onDirected(sid, message));
    session.on('undeliverable', (sid) => this.#closePeer(sid));
    session.on('drained', (sid) => this.#peers.get(sid)?.flush());
    session.on('signals', (signals) => signals.forEach((signal) => this.#onSignal(signal)));
    session.on('degraded', ({ degraded = false, reason = '' }) => this.#setDegraded(degraded, reason));
    session.on('moved', (moved) => this.#onMoved(moved));
    session.on('moving', (info) => this.emit('moving', info));
    session.on('iceServers', (servers) => this.#onIceServers(servers));
    session.on('roundTrip', (rttMs) => {
      this.rttMs = rttMs;
      this.emit('roundTrip', rttMs);
    });
    session.on('throttled', (info) => this.emit('throttled', info));
    session.on('dropped', (counts) => this.emit('dropped', counts));
    session.on('ended', (error) => this.#onEnded(error));
    globalThis.addEventListener?.('online', this.#onOnline);
    globalThis.navigator?.connection?.addEventListener?.('change', this.#onOnline);
  }

  #onState(state) {
    this.emit('stateChanged', state);
    if (state !== 'closed') this.emit(state);
  }

  #onHello(helloOk, { fresh }) {
    this.#setDegraded(false, '');
    const known = this.localParticipant.sid;
    this.localParticipant.updateProfile({ ...helloOk.self, sid: helloOk.sid, join: this.#joinOf(helloOk) });
    if (!fresh) {
      this.#restoreState(helloOk.self ?? {});
      this.emit('resumed', { recovered: helloOk.recovered === true });
    } else if (known) {
      // A new session has a new sid: to the others it is someone new, so every connection begins anew.
      for (const sid of [...this.#peers.keys()]) this.#closePeer(sid);
      this.emit('rejoined');
    }
  }

  #joinOf({ join }) {
    return join ? { epoch: join.epoch, seq: u64(join.seq) } : null;
  }

  /** After a resume: what the cluster has lost of this participant is said again. */
  #restoreState(self) {
    const listed = new Map((self.tracks ?? []).map((track) => [track.id, track]));
    for (const publication of this.#publications.values()) {
      const track = listed.get(publication.id);
      listed.delete(publication.id);
      if (!track || (track.muted === true) !== publication.muted) {
        this.#session.command({ publishTrack: { track: writeTrack(publication) } }).catch(this.#onError);
      }
    }
    for (const trackId of listed.keys()) {
      this.#session.command({ unpublishTrack: { trackId } }).catch(this.#onError);
    }
  }

  #applyChange(change) {
    if (change.type === 'message') this.#onRoomMessage(change.message);
    else if (change.type === 'room') {
      this.info = change.info;
      this.emit('roomChanged', change.info);
      this.#connectPeers();
    } else if (change.participant.sid === this.localParticipant.sid) {
      if (change.type === 'updated') this.#applyOwn(change.participant);
    } else if (change.type === 'left') this.#onLeft(change.participant.sid, change.reason);
    else this.#onParticipant(change.participant);
  }

  /** What the server says about this participant, when it was not said here: muted by a moderator, for example. */
  #applyOwn(info) {
    const { join } = this.localParticipant;
    this.localParticipant.updateProfile({ ...info, join });
    for (const track of info.tracks) {
      const publication = this.#publications.get(track.id);
      if (publication && track.muted === true && !publication.muted) {
        publication.muted = true;
        publication.track.enabled = false;
        this.emit('trackMuted', publication, this.localParticipant);
      }
    }
    this.emit('participantUpdated', this.localParticipant);
  }

  #onParticipant(info) {
    let participant = this.participants.get(info.sid);
    const isNew = !participant;
    if (isNew) {
      participant = new RemoteParticipant(info);
      this.participants.set(info.sid, participant);
      this.emit('participantConnected', participant);
    }
    const events = participant.update(info);
    this.#emitAll(participant, events);
    if (isNew) this.#connectPeer(info);
    else this.emit('participantUpdated', participant);
  }

  #onLeft(sid, reason) {
    const participant = this.participants.get(sid);
    this.#closePeer(sid);
    if (!participant) return;
    this.participants.delete(sid);
    this.emit('participantDisconnected', participant, reason);
  }

  #emitAll(participant, events) {
    for (const [type, ...args] of events) {
      participant.emit(type, ...args);
      const [publication, track] = args;
      if (type === 'trackSubscribed') this.emit(type, publication.track, publication, participant);
      else if (type === 'trackUnsubscribed') this.emit(type, track, publication, participant);
      else if (publication) this.emit(type, publication, participant);
    }
  }

  #onDirected(sid, message) {
    if (message.message) {
      this.#emitMessage(sid, message.message, true);
    } else {
      // A viewer may not be listed here and still needs media: its offer is what makes it known.
      const peer = this.#peers.get(sid) ?? (message.offer && this.#openPeer({ sid, kind: 'VIEWER' }));
      peer?.receive(message);
    }
  }

  #onRoomMessage(message) {
    this.#emitMessage(message.from ?? '', message, false);
  }

  #emitMessage(sid, message, direct) {
    const from = this.#participantOf(sid);
    this.emit('message', { from, sid, topic: message.topic ?? '', data: readData(message), direct });
  }

  #onSignal(signal) {
    const from = this.#participantOf(signal.from);
    if (from && signal.speaking) this.#setSpeaking(from, signal.speaking);
    if (from && signal.quality) from.quality = signal.quality.score ?? 0;
    this.emit('signal', {
      from, sid: signal.from, key: signal.key ?? '', topic: signal.topic ?? '', data: readData(signal),
      speaking: signal.speaking, quality: signal.quality,
    });
  }

  #setSpeaking(participant, { active = false, level = 0 }) {
    participant.isSpeaking = active;
    participant.audioLevel = level;
    participant.emit('speakingChanged', active);
    this.emit('speakingChanged', participant);
  }

  #participantOf(sid) {
    if (sid && sid === this.localParticipant.sid) return this.localParticipant;
    return this.participants.get(sid) ?? null;
  }

  #setDegraded(degraded, reason) {
    if (degraded === this.isDegraded) return;
    this.isDegraded = degraded;
    if (degraded) this.emit('degraded', { reason });
    else this.emit('restored');
  }

  #onMoved(moved) {
    if (moved.shard) this.#session.helloOk.shard = moved.shard;
    this.emit('moved', moved);
  }

  #onEnded(error) {
    globalThis.removeEventListener?.('online', this.#onOnline);
    globalThis.navigator?.connection?.removeEventListener?.('change', this.#onOnline);
    for (const sid of [...this.#peers.keys()]) this.#closePeer(sid);
    this.participants.clear();
    this.localParticipant.sid = '';
    this.emit('disconnected', { reason: error.code, message: error.message });
  }

  #onError = (error) => this.emit('error', error);

  // Peer connections

  /** In a mesh everybody, with a media server that one alone; viewers have nothing to say to each other. */
  #wantsPeer(info) {
    const hello = this.#session.helloOk;
    const topology = this.info?.topology ?? hello.topology;
    if (topology === 'SFU') return info.sid === (this.info?.sfuSid ?? hello.sfuSid);
    return !(info.kind === 'VIEWER' && this.localParticipant.kind === 'VIEWER');
  }

  #connectPeers() {
    for (const sid of [...this.#peers.keys()]) {
      const info = this.#session.roster.get(sid);
      if (info && !this.#wantsPeer(info)) this.#closePeer(sid);
    }
    for (const info of this.#session.roster.values()) {
      if (this.participants.has(info.sid)) this.#connectPeer(info);
    }
  }

  #connectPeer(info) {
    if (this.#peers.has(info.sid) || !this.#wantsPeer(info)) return;
    this.#openPeer(info).start();
  }

  #openPeer(info) {
    const { sid } = info;
    const peer = new Peer({
      local: this.localParticipant,
      remote: info,
      config: this.#rtcConfig(),
      send: (body) => this.#session.send(sid, body),
      report: (state) => this.#session.post({ iceState: { peer: sid, ...state } }),
      onTrack: (trackId, track) => {
        const participant = this.#publisherOf(trackId, info);
        if (participant) this.#emitAll(participant, participant.attach(trackId, track));
      },
      onState: (state) => this.#onPeerState(sid, state),
      onError: this.#onError,
    });
    this.#peers.set(sid, peer);
    this.#stream ??= new MediaStream();
    for (const publication of this.#publications.values()) {
      peer.addTrack(publication.id, publication.track, this.#stream);
    }
    return peer;
  }

  /** A media server brings the tracks of others. */
  #publisherOf(trackId, { sid, kind }) {
    if (kind !== 'MEDIA_SERVER') return this.participants.get(sid);
    return [...this.participants.values()].find((participant) => participant.tracks.has(trackId));
  }

  #onPeerState(sid, state) {
    const participant = this.participants.get(sid);
    if (participant) {
      participant.connectionState = state;
      participant.emit('connectionStateChanged', state);
      this.emit('connectionStateChanged', participant);
    } else if (state === 'failed') {
      this.#closePeer(sid); // nobody will say that an unlisted viewer has left
    }
  }

  #closePeer(sid) {
    const peer = this.#peers.get(sid);
    if (!peer) return;
    this.#peers.delete(sid);
    peer.close();
    const participant = this.participants.get(sid);
    if (participant) participant.connectionState = 'closed';
    const sources = participant?.kind === 'MEDIA_SERVER' ? [...this.participants.values()] : [participant];
    for (const source of sources) {
      if (source) this.#emitAll(source, source.detach());
    }
  }

  #rtcConfig() {
    const iceServers = this.#iceServers.map(({ urls, username, credential }) => ({ urls, username, credential }));
    return { iceServers, bundlePolicy: 'max-bundle', ...this.#options.rtcConfig };
  }

  #onIceServers(servers) {
    this.#iceServers = servers;
    for (const peer of this.#peers.values()) peer.setConfiguration(this.#rtcConfig());
  }

  /** Another network: connections that have suffered look for new paths at once instead of waiting for the timeout. */
  #onOnline = () => {
    const type = globalThis.navigator?.connection?.type;
    const changed = type !== this.#networkType;
    this.#networkType = type;
    for (const peer of this.#peers.values()) {
      if (changed || peer.connectionState === 'disconnected' || peer.connectionState === 'failed') peer.restartIce();
    }
  };
}
