// Writes server_api.json: messages of the server API as LiveKit's own library encodes them, for tests/unit/test_server_proto.c.
//
//     npm install --prefix /tmp/livekit livekit-server-sdk
//     node tests/vectors/make_server_api.mjs /tmp/livekit >tests/vectors/server_api.json
import { createRequire } from 'node:module';
import { resolve } from 'node:path';

if (process.argv.length !== 3) {
  console.error('usage: make_server_api.mjs DIRECTORY-WITH-NODE_MODULES');
  process.exit(2);
}
const directory = resolve(process.argv[2]);
const require = createRequire(directory + '/package.json');
const livekit = require('@livekit/protocol');
const versionOf = (name) => require(`${directory}/node_modules/${name}/package.json`).version;

const permission = { canSubscribe: true, canPublish: true, canPublishData: true, canPublishSources: [1, 3],
  canUpdateMetadata: true };
const camera = { sid: 'camera-1', type: 1, name: 'Kamera ä', muted: true, width: 1280, height: 720, simulcast: true, source: 1,
  mimeType: 'video/VP8' };
const room = { sid: 'RM_1', name: 'eu/standup', emptyTimeout: 300, departureTimeout: 20, maxParticipants: 50,
  creationTime: 1795362378n, creationTimeMs: 1795362378901n, metadata: '{"topic":"today"}', numParticipants: 3, numPublishers: 2 };
const alice = { sid: 'AAAAAAAAAAAAAAAAAAAAAA', identity: 'alice', state: 2, tracks: [camera, { sid: 'm', source: 2 }],
  metadata: 'm', joinedAt: 1795362379n, joinedAtMs: 1795362379012n, name: 'Alice', version: 4294967295, permission, region: 'eu',
  isPublisher: true, kind: 4, attributes: { role: 'host' } };

// `extra` is what LiveKit has and Signalbox leaves out: ignored when read. 'read_only': one encoder writes the empty value of
// a map's entry, the other does not, and both are right.
const messages = [
  ['CreateRoomRequest', { name: 'eu/standup', emptyTimeout: 300, departureTimeout: 20, maxParticipants: 50, metadata: 'm' },
    { roomPreset: 'large', nodeId: 'N1', minPlayoutDelay: 100, syncStreams: true, agents: [{ agentName: 'scribe' }] }],
  ['ListRoomsRequest', { names: ['eu/standup', 'lobby'] }],
  ['ListRoomsResponse', { rooms: [room, { name: 'lobby' }] }],
  ['DeleteRoomRequest', { room: 'lobby' }],
  ['DeleteRoomResponse', {}],
  ['ListParticipantsRequest', { room: 'lobby' }],
  ['ListParticipantsResponse', { participants: [alice, { identity: 'bob', state: 1, kind: 0 }] }],
  ['RoomParticipantIdentity', { room: 'lobby', identity: 'alice' }],
  ['RemoveParticipantResponse', {}],
  ['MuteRoomTrackRequest', { room: 'lobby', identity: 'alice', trackSid: 'camera-1', muted: true }],
  ['MuteRoomTrackResponse', { track: camera }, { track: { mid: '0', disableRed: true, stream: 'main', audioFeatures: [1] } }],
  ['UpdateParticipantRequest', { room: 'lobby', identity: 'alice', metadata: 'm', name: 'A', attributes: { role: 'guest' },
    permission: { ...permission, hidden: true } }, { permission: { canSubscribeMetrics: true } }],
  ['UpdateParticipantRequest', { attributes: { role: '' } }, null, 'read_only'],
  ['SendDataRequest', { room: 'lobby', data: new Uint8Array([0, 255, 16]), kind: 1, topic: 'chat',
    destinationIdentities: ['alice'], destinationSids: ['AAAAAAAAAAAAAAAAAAAAAA'], nonce: new Uint8Array([1, 2, 3]) }],
  ['SendDataResponse', {}],
  ['UpdateRoomMetadataRequest', { room: 'lobby', metadata: 'new' }],
  ['Room', room, { turnPassword: 'x', activeRecording: true, enabledCodecs: [{ mime: 'video/VP8' }] }],
  ['ParticipantInfo', { ...alice, disconnectReason: 14, state: 3 }, { clientProtocol: 16, kindDetails: [1] }],
  ['WebhookEvent', { event: 'track_published', room, participant: alice, track: camera, id: 'EV_1', createdAt: 1795362380n },
    { numDropped: 1 }],
];

const vectors = messages.map(([type, fields, extra, readOnly]) => {
  const Type = livekit[type];
  const known = new Type(fields);
  const vector = { message: type, json: known.toJson(), binary: Buffer.from(known.toBinary()).toString('base64') };
  if (readOnly)
    vector.read_only = true;
  if (extra) {
    const merged = { ...fields };
    for (const [name, value] of Object.entries(extra))
      merged[name] = name in fields ? { ...fields[name], ...value } : value;
    const all = new Type(merged);
    vector.with_more = { json: all.toJson(), binary: Buffer.from(all.toBinary()).toString('base64') };
  }
  return vector;
});

// Every name and number, so that none can differ in silence.
const fields = {};
for (const name of [...new Set(messages.map(([type]) => type)), 'ParticipantPermission', 'TrackInfo'])
  fields[name] = Object.fromEntries(livekit[name].fields.list().map((field) => [field.name, field.no]));
const enums = {};
for (const [name, object] of [['TrackType', livekit.TrackType], ['TrackSource', livekit.TrackSource],
  ['DisconnectReason', livekit.DisconnectReason], ['ParticipantInfo.State', livekit.ParticipantInfo_State],
  ['ParticipantInfo.Kind', livekit.ParticipantInfo_Kind], ['SendDataRequest.Kind', livekit.DataPacket_Kind]])
  enums[name] = Object.fromEntries(Object.entries(object).filter(([, number]) => typeof number === 'number'));

console.log(JSON.stringify({
  _comment: `Encoded by npm @livekit/protocol ${versionOf('@livekit/protocol')} (of livekit-server-sdk ` +
    `${versionOf('livekit-server-sdk')}) with toJson() and toBinary(): see make_server_api.mjs. "binary" is base64. ` +
    '"with_more" has fields besides that Signalbox does not know.',
  vectors,
  fields,
  enums,
}, null, 2));
