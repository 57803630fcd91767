/** Peer connections and tracks that do nothing but remember what was done to them. Install before a room connects. */
export function makeMedia() {
  const media = { connections: [] };

  class FakePeerConnection {
    signalingState = 'stable';
    connectionState = 'new';
    iceConnectionState = 'new';
    localDescription = null;
    remoteDescription = null;
    candidates = [];
    senders = [];
    restarts = 0;
    isClosed = false;

    constructor() {
      media.connections.push(this);
    }

    getTransceivers() {
      return this.senders.map((sender, i) => ({ sender, mid: String(i), receiver: { track: { kind: sender.track?.kind ?? 'audio' } } }));
    }

    addTransceiver() {
      this.senders.push({ track: null });
      queueMicrotask(() => this.onnegotiationneeded?.());
    }

    addTrack(track) {
      const sender = { track };
      this.senders.push(sender);
      queueMicrotask(() => this.onnegotiationneeded?.());
      return sender;
    }

    removeTrack(gone) {
      this.senders = this.senders.filter((sender) => sender !== gone);
    }

    async setLocalDescription() {
      const type = this.signalingState === 'have-remote-offer' ? 'answer' : 'offer';
      this.localDescription = { type, sdp: `local ${type}` };
      this.signalingState = type === 'answer' ? 'stable' : 'have-local-offer';
    }

    async setRemoteDescription(description) {
      this.remoteDescription = description;
      this.signalingState = description.type === 'answer' ? 'stable' : 'have-remote-offer';
    }

    async addIceCandidate(candidate) {
      this.candidates.push(candidate.candidate);
    }

    restartIce() {
      this.restarts += 1;
      queueMicrotask(() => this.onnegotiationneeded?.());
    }

    setConfiguration() {}

    close() {
      this.isClosed = true;
    }

    /** The network's side of it. */
    reach(state) {
      this.iceConnectionState = this.connectionState = state;
      this.oniceconnectionstatechange?.();
      this.onconnectionstatechange?.();
    }
  }

  globalThis.RTCPeerConnection = FakePeerConnection;
  globalThis.MediaStream = class {};
  media.track = (kind) => ({
    kind, enabled: true, isStopped: false, getSettings: () => ({}), stop() { this.isStopped = true; },
  });
  return media;
}
