// Types of @signalbox/client.

export type State = 'idle' | 'connecting' | 'connected' | 'reconnecting' | 'closed';
export type TrackSource = 'SOURCE_UNSPECIFIED' | 'CAMERA' | 'MICROPHONE' | 'SCREEN_SHARE' | 'SCREEN_SHARE_AUDIO';
export type TrackKind = 'KIND_UNSPECIFIED' | 'AUDIO' | 'VIDEO' | 'DATA';
export type ParticipantKind = 'STANDARD' | 'VIEWER' | 'MEDIA_SERVER' | 'AGENT';

export interface Permissions {
  canPublish?: boolean;
  canSubscribe?: boolean;
  canPublishData?: boolean;
  canUpdateMetadata?: boolean;
  hidden?: boolean;
  canPublishSources?: TrackSource[];
  roomAdmin?: boolean;
}

export interface Interest {
  viewers?: boolean;
  muteKeys?: string[];
  signalSids?: string[];
}

export interface RoomInfo {
  name?: string;
  metadata?: string;
  participants?: number;
  viewers?: number;
  topology?: 'MESH' | 'SFU';
  sfuSid?: string;
  createdAtMs?: string;
}

export interface Position {
  epoch: string;
  seq: number;
}

/** An operation that was refused, or whose outcome is not known. */
export class SignalboxError extends Error {
  constructor(code: string, message?: string, retryAfterMs?: number);
  /** A value of the enum Code in client.proto, or of LeaveReason. */
  readonly code: string;
  readonly retryAfterMs: number;
}

declare class Emitter<Events extends Record<string, unknown[]>> {
  on<E extends keyof Events>(type: E, listener: (...args: Events[E]) => void): this;
  once<E extends keyof Events>(type: E, listener: (...args: Events[E]) => void): this;
  off<E extends keyof Events>(type: E, listener: (...args: Events[E]) => void): this;
}

export interface TrackPublication {
  readonly id: string;
  readonly kind: TrackKind;
  readonly source: TrackSource;
  readonly name: string;
  readonly muted: boolean;
  readonly width: number;
  readonly height: number;
  readonly track: MediaStreamTrack | null;
  readonly participant: Participant;
  readonly isSubscribed: boolean;
}

export type ParticipantEvents = {
  trackPublished: [publication: TrackPublication];
  trackUnpublished: [publication: TrackPublication];
  trackMuted: [publication: TrackPublication];
  trackUnmuted: [publication: TrackPublication];
  trackSubscribed: [publication: TrackPublication];
  trackUnsubscribed: [publication: TrackPublication, track: MediaStreamTrack];
  speakingChanged: [speaking: boolean];
  profileChanged: [];
  connectionStateChanged: [state: RTCPeerConnectionState];
};

export interface Participant extends Emitter<ParticipantEvents> {
  readonly isLocal: boolean;
  readonly sid: string;
  readonly identity: string;
  readonly name: string;
  readonly metadata: string;
  readonly attributes: Record<string, string>;
  readonly kind: ParticipantKind;
  readonly permissions: Permissions;
  readonly joinedAtMs: number;
  readonly join: Position | null;
  readonly tracks: ReadonlyMap<string, TrackPublication>;
  readonly isSpeaking: boolean;
  /** 0 to 100. */
  readonly audioLevel: number;
  /** 0 (lost) to 5 (excellent); null = not known. */
  readonly quality: number | null;
  getTrack(source: TrackSource): TrackPublication | undefined;
}

export interface RemoteParticipant extends Participant {
  readonly isLocal: false;
  readonly connectionState: RTCPeerConnectionState;
}

export interface PublishOptions {
  source?: TrackSource;
  name?: string;
  id?: string;
  muted?: boolean;
}

export interface LocalParticipant extends Participant {
  readonly isLocal: true;
  publish(track: MediaStreamTrack, options?: PublishOptions): Promise<TrackPublication>;
  unpublish(publication: TrackPublication): Promise<void>;
  setMuted(publication: TrackPublication, muted: boolean): Promise<void>;
  replaceTrack(publication: TrackPublication, track: MediaStreamTrack): Promise<void>;
  setMetadata(changes: { name?: string; metadata?: string; attributes?: Record<string, string> }): Promise<void>;
  setSpeaking(active: boolean, level?: number): void;
}

export interface RoomOptions {
  /** An access token, or a function that gets one: asked at each join and before a token expires. */
  token?: string;
  getToken?: () => Promise<string>;
  /** Default true. False if getToken gives another identity each time: then it is asked at joins alone. */
  autoRefresh?: boolean;
  /** If the token leaves the room open. */
  room?: string;
  /** Instead of the token's. */
  name?: string;
  metadata?: string;
  attributes?: Record<string, string>;
  interest?: Interest;
  /** Laid over the configuration that the server gives. */
  rtcConfig?: RTCConfiguration;
}

export interface SendOptions {
  /** A participant's sid; everybody if absent. */
  to?: string;
  /** Default true. */
  reliable?: boolean;
  topic?: string;
  /** Not reliable: a later value of the same key replaces an earlier one. */
  key?: string;
}

export interface ReceivedMessage {
  from: Participant | null;
  sid: string;
  topic: string;
  data: string | Uint8Array | undefined;
  /** Sent to this participant alone. */
  direct: boolean;
}

export interface ReceivedSignal {
  from: Participant | null;
  sid: string;
  key: string;
  topic: string;
  data: string | Uint8Array | undefined;
  speaking?: { active?: boolean; level?: number };
  quality?: { score?: number };
}

export type RoomEvents = {
  stateChanged: [state: State];
  connecting: [];
  connected: [];
  reconnecting: [];
  resumed: [info: { recovered: boolean }];
  rejoined: [];
  /** This gateway is going away: the session moves to another one within this time, without an interruption. */
  moving: [info: { spreadMs: number }];
  degraded: [info: { reason: string }];
  restored: [];
  disconnected: [info: { reason: string; message: string }];
  participantConnected: [participant: RemoteParticipant];
  participantDisconnected: [participant: RemoteParticipant, reason: string];
  participantUpdated: [participant: Participant];
  trackPublished: [publication: TrackPublication, participant: Participant];
  trackUnpublished: [publication: TrackPublication, participant: Participant];
  trackMuted: [publication: TrackPublication, participant: Participant];
  trackUnmuted: [publication: TrackPublication, participant: Participant];
  trackSubscribed: [track: MediaStreamTrack, publication: TrackPublication, participant: RemoteParticipant];
  trackUnsubscribed: [track: MediaStreamTrack, publication: TrackPublication, participant: RemoteParticipant];
  message: [message: ReceivedMessage];
  signal: [signal: ReceivedSignal];
  speakingChanged: [participant: Participant];
  connectionStateChanged: [participant: RemoteParticipant];
  roomChanged: [info: RoomInfo];
  moved: [info: { shard?: string; epoch?: string }];
  throttled: [info: { scope?: string; budget?: string; retryAfterMs?: number }];
  dropped: [counts: { className?: string; count?: string }[]];
  roundTrip: [rttMs: number];
  error: [error: Error];
};

export interface RoomStats {
  rttMs: number | null;
  signaling: Record<string, number> | null;
  peers: Record<string, { state: RTCPeerConnectionState; staleDropped: number; reports: unknown[] }>;
}

export class Room extends Emitter<RoomEvents> {
  /** Several base URLs if no load balancer stands before the gateways: they are tried in turn. */
  constructor(url: string | string[], options?: RoomOptions);
  readonly state: State;
  readonly participants: ReadonlyMap<string, RemoteParticipant>;
  readonly localParticipant: LocalParticipant;
  readonly isDegraded: boolean;
  readonly rttMs: number | null;
  readonly info: RoomInfo | null;
  readonly serverInfo: { gateway: string; shard: string; room: string; sid: string; epoch: string; seq: number };
  connect(options?: { timeoutMs?: number }): Promise<void>;
  disconnect(): void;
  send(data: string | ArrayBuffer | ArrayBufferView, options?: SendOptions): Promise<'acknowledged' | 'sent' | 'lost'>;
  ping(): void;
  getStats(): Promise<RoomStats>;
}

/** Calls back when speech begins and ends in a track; returns a function that stops it. */
export function detectSpeaking(
  track: MediaStreamTrack,
  callback: (speaking: boolean, level: number) => void,
  options?: { threshold?: number; holdMs?: number; intervalMs?: number },
): () => void;

// The decision logic, free of sockets and clocks: for tests and for other transports.

export class Backoff {
  constructor(policy?: { baseMs?: number; maxMs?: number }, random?: () => number);
  setPolicy(policy?: { baseMs?: number; maxMs?: number }): void;
  nextDelayMs(): number;
  reset(): void;
  readonly attempts: number;
}

export function closeAction(code: number, text?: string, leave?: object | null): {
  action: 'resume' | 'rejoin' | 'stop';
  reason: string;
  delayMs: number | null;
  message: string;
};

export function rosterDigest(participants: Iterable<{ sid: string; version: number; kind?: string }>): string;
export function isPolite(local: { sid: string; kind: string }, remote: { sid: string; kind: string }): boolean;
type Joined = { sid: string; kind: string; join: Position | null };
export function offersFirst(local: Joined, remote: Joined): boolean;
