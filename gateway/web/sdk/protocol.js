/** What the wire needs: names, numbers and the shapes of canonical protobuf JSON. */

export const SUBPROTOCOL = 'signalbox.v1.json';
export const SDK_NAME = 'signalbox-js';
export const SDK_VERSION = '0.1.0';

/** In force until the first hello_ok brings the server's own. */
export const DEFAULT_LIMITS = Object.freeze({
  messageBytes: 65536,
  metadataBytes: 4096,
  attributes: 32,
  tracks: 16,
  sendBytes: 16384,
  directedWindowMessages: 64,
  directedWindowBytes: 256 * 1024,
  sessionWindowBytes: 4 * 1024 * 1024,
  ackDelayMs: 50,
  retransmitMs: 1000,
  pingIntervalMs: 20000,
  resumeWindowMs: 30000,
});

/** Lays the server's limits over the defaults; what it does not say stays. */
export function mergeLimits(limits = {}) {
  const merged = { ...DEFAULT_LIMITS };
  for (const name of Object.keys(merged)) {
    if (limits[name] > 0) merged[name] = limits[name];
  }
  return merged;
}

/** An operation that the server or the protocol refused. `code` is a name of the enum Code in client.proto, or a
 *  LeaveReason for a session that has ended. */
export class SignalboxError extends Error {
  constructor(code, message, retryAfterMs = 0) {
    super(message || code);
    this.name = 'SignalboxError';
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}

/** 64-bit integers are strings in protobuf JSON. Ours are counters, far below 2^53. */
export function u64(value) {
  return value === undefined || value === null ? 0 : Number(value);
}

/** @returns {{epoch: string, seq: number} | null} */
export function readPosition(position) {
  return position && position.epoch ? { epoch: position.epoch, seq: u64(position.seq) } : null;
}

export function writePosition(position) {
  return position ? { epoch: position.epoch, seq: String(position.seq) } : undefined;
}

/** @param {Uint8Array} bytes */
export function base64Encode(bytes) {
  let text = '';
  for (let i = 0; i < bytes.length; i += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  }
  return btoa(text);
}

export function base64Decode(text) {
  return Uint8Array.from(atob(text.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
}

const utf8 = new TextEncoder();

export function utf8Size(text) {
  return utf8.encode(text).length;
}

/** Application data as a member of the oneof `data`: strings travel as text, everything else as bytes. */
export function writeData(data) {
  if (typeof data === 'string') return { text: data };
  const bytes = data instanceof ArrayBuffer
    ? new Uint8Array(data)
    : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return { payload: base64Encode(bytes) };
}

/** @returns {string | Uint8Array | undefined} */
export function readData(message) {
  if (message.text !== undefined) return message.text;
  return message.payload === undefined ? undefined : base64Decode(message.payload);
}

/** Base URL of a cluster in the form that WebSocket wants, without a trailing slash. */
export function webSocketBase(url) {
  return String(url).replace(/^http/, 'ws').replace(/\/+$/, '');
}

export function httpBase(url) {
  return String(url).replace(/^ws/, 'http').replace(/\/+$/, '');
}

/** `exp` of a JWT in milliseconds, or 0: only to know when to ask for a new one. */
export function tokenExpiryMs(token) {
  try {
    const claims = JSON.parse(new TextDecoder().decode(base64Decode(token.split('.')[1])));
    return Number.isFinite(claims.exp) ? claims.exp * 1000 : 0;
  } catch {
    return 0;
  }
}
