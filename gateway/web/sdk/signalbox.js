/**
 * @signalbox/client: joins rooms of a Signalbox cluster, keeps the session alive and connects its participants by WebRTC.
 *
 * The wire protocol is described in docs/PROTOCOL.md. Decisions live in classes that know no socket and no clock
 * (Links, Roster, Negotiation, Backoff); Room and Peer connect them to WebSocket and RTCPeerConnection.
 */
export { Room } from './room.js';
export { SignalboxError } from './protocol.js';
export { detectSpeaking } from './speaking.js';
export { Backoff, closeAction } from './backoff.js';
export { rosterDigest } from './roster.js';
export { isPolite, offersFirst } from './negotiation.js';
