import { Emitter } from './emitter.js';

/** What a participant has published: the track's description, and the media once it is here. */
export class TrackPublication {
  /** @type {MediaStreamTrack | null} */
  track = null;

  constructor(participant, info) {
    this.participant = participant;
    this.update(info);
  }

  update(info) {
    this.id = info.id;
    this.kind = info.kind ?? 'KIND_UNSPECIFIED';
    this.source = info.source ?? 'SOURCE_UNSPECIFIED';
    this.name = info.name ?? '';
    this.muted = info.muted === true;
    this.width = info.width ?? 0;
    this.height = info.height ?? 0;
  }

  get isSubscribed() {
    return this.track !== null;
  }
}

/**
 * Someone in the room. Events: trackSubscribed, trackUnsubscribed, trackPublished, trackUnpublished, trackMuted,
 * trackUnmuted (each with a publication), speakingChanged, profileChanged, connectionStateChanged.
 */
export class Participant extends Emitter {
  /** @type {Map<string, TrackPublication>} */
  tracks = new Map();
  isSpeaking = false;
  audioLevel = 0;
  /** 0 (lost) to 5 (excellent), or null. */
  quality = null;

  constructor(info) {
    super();
    this.updateProfile(info);
  }

  updateProfile(info) {
    this.sid = info.sid ?? '';
    this.identity = info.identity ?? '';
    this.name = info.name || this.identity;
    this.metadata = info.metadata ?? '';
    this.attributes = info.attributes ?? {};
    this.kind = info.kind ?? 'STANDARD';
    this.permissions = info.permissions ?? {};
    this.joinedAtMs = Number(info.joinedAtMs ?? 0);
    this.join = info.join ?? null;
  }

  /** The first publication of this source: 'CAMERA', 'MICROPHONE', ... */
  getTrack(source) {
    return [...this.tracks.values()].find((publication) => publication.source === source);
  }
}

export class RemoteParticipant extends Participant {
  isLocal = false;
  /** RTCPeerConnection.connectionState of the connection to this participant, or 'new'. */
  connectionState = 'new';
  #media = new Map(); // track id -> MediaStreamTrack, also of tracks that the roster does not show yet

  /** Takes over the roster's view of this participant and says what has changed, as [event, ...args]. */
  update(info) {
    const events = [];
    const before = JSON.stringify([this.name, this.metadata, this.attributes, this.permissions]);
    this.updateProfile(info);
    if (before !== JSON.stringify([this.name, this.metadata, this.attributes, this.permissions])) {
      events.push(['profileChanged']);
    }
    const ids = new Set(info.tracks.map((track) => track.id));
    for (const publication of [...this.tracks.values()]) {
      if (!ids.has(publication.id)) events.push(...this.#remove(publication));
    }
    for (const track of info.tracks) events.push(...this.#put(track));
    return events;
  }

  #put(info) {
    let publication = this.tracks.get(info.id);
    if (!publication) {
      publication = new TrackPublication(this, info);
      this.tracks.set(info.id, publication);
      return [['trackPublished', publication], ...this.#subscribe(publication)];
    }
    const wasMuted = publication.muted;
    publication.update(info);
    if (publication.muted === wasMuted) return [];
    return [[publication.muted ? 'trackMuted' : 'trackUnmuted', publication]];
  }

  #remove(publication) {
    this.tracks.delete(publication.id);
    this.#media.delete(publication.id);
    return [...this.#unsubscribe(publication), ['trackUnpublished', publication]];
  }

  /** Media has come; it shows once the roster has the publication too. */
  attach(trackId, track) {
    this.#media.set(trackId, track);
    const publication = this.tracks.get(trackId);
    return publication ? this.#subscribe(publication) : [];
  }

  /** The connection that brought the media has ended. */
  detach() {
    this.#media.clear();
    return [...this.tracks.values()].flatMap((publication) => this.#unsubscribe(publication));
  }

  #subscribe(publication) {
    const track = this.#media.get(publication.id);
    if (!track || publication.track === track) return [];
    const events = this.#unsubscribe(publication);
    publication.track = track;
    return [...events, ['trackSubscribed', publication]];
  }

  #unsubscribe(publication) {
    if (!publication.track) return [];
    const { track } = publication;
    publication.track = null;
    return [['trackUnsubscribed', publication, track]];
  }
}

export class LocalParticipant extends Participant {
  isLocal = true;
  #room;

  constructor(room) {
    super({});
    this.#room = room;
  }

  /**
   * Publishes a track to everybody. Resolves when the room knows of it; media flows as connections come up.
   *
   * @param {MediaStreamTrack} track
   * @param {{source?: string, name?: string, id?: string, muted?: boolean}} [options] source: CAMERA, MICROPHONE,
   *   SCREEN_SHARE or SCREEN_SHARE_AUDIO; CAMERA or MICROPHONE by default
   * @returns {Promise<TrackPublication>}
   */
  async publish(track, options = {}) {
    const settings = track.getSettings();
    const publication = new TrackPublication(this, {
      id: options.id ?? `${track.kind}-${crypto.randomUUID().slice(0, 8)}`,
      kind: track.kind === 'audio' ? 'AUDIO' : 'VIDEO',
      source: options.source ?? (track.kind === 'audio' ? 'MICROPHONE' : 'CAMERA'),
      name: options.name ?? '',
      muted: options.muted ?? false,
      width: settings.width ?? 0,
      height: settings.height ?? 0,
    });
    publication.track = track;
    track.enabled = !publication.muted;
    await this.#room.publish(publication);
    return publication;
  }

  /** @param {TrackPublication} publication */
  unpublish(publication) {
    return this.#room.unpublish(publication);
  }

  /** Muted tracks stay published and send silence or black. */
  setMuted(publication, muted) {
    return this.#room.setMuted(publication, muted);
  }

  /** Sends another track in its place, without negotiation: another camera, for example. */
  replaceTrack(publication, track) {
    return this.#room.replaceTrack(publication, track);
  }

  /** @param {{name?: string, metadata?: string, attributes?: Record<string, string>}} changes */
  setMetadata(changes) {
    return this.#room.setMetadata(changes);
  }

  /** Tells the others whether this participant speaks: the latest value counts. */
  setSpeaking(active, level = 0) {
    this.#room.setSpeaking(active, level);
  }
}

/** A publication as the wire describes it. */
export function writeTrack(publication) {
  const { id, kind, source, name, muted, width, height } = publication;
  return { id, kind, source, name, muted, width, height };
}
