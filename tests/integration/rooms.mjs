// Many small rooms at once, for test_rooms.py: joins every participant over TLS, in turn through each gateway, and waits
// until each of them has the whole roster of its room, in positions without a gap.
//
// Arguments: one JSON object {ports, ca, key, secret, rooms, size}. Commands on standard input, one a line: "join",
// "leave", "end". Each is answered with one line of JSON on standard output.

import { createHmac, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { connect } from 'node:tls';

const CONNECTING_MAX = 100;
const options = JSON.parse(process.argv[2]);
const ca = readFileSync(options.ca);
// One TLS session for each gateway is resumed by all, as a browser would.
const sessions = new Map();
const base64url = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

function mint(identity, room) {
  const claims = { iss: options.key, sub: identity, exp: Math.floor(Date.now() / 1000) + 3600, video: { roomJoin: true, room } };
  const text = `${base64url({ alg: 'HS256' })}.${base64url(claims)}`;
  return `${text}.${createHmac('sha256', options.secret).update(text).digest('base64url')}`;
}

function frame(text) {
  const payload = Buffer.from(text);
  const mask = randomBytes(4);
  const head = payload.length < 126 ? Buffer.from([0x81, 0x80 | payload.length])
    : Buffer.from([0x81, 0x80 | 126, payload.length >> 8, payload.length & 255]);
  for (let i = 0; i < payload.length; i++) payload[i] ^= mask[i & 3];
  return Buffer.concat([head, mask, payload]);
}

class Participant {
  constructor(number) {
    this.room = `room-${Math.floor(number / options.size)}`;
    this.identity = `p${number % options.size}`;
    this.port = options.ports[number % options.ports.length];
    this.address = `127.0.0.${1 + number % 50}`;
    this.roster = new Map();
    this.upgraded = false;
    this.full = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    this.left = new Promise((resolve) => { this.onLeft = resolve; });
  }

  join() {
    this.comeBackMs = 0;
    this.input = Buffer.alloc(0);
    this.socket = connect({ host: '127.0.0.1', port: this.port, localAddress: this.address, ca, servername: 'localhost',
      session: sessions.get(this.port) });
    this.socket.on('session', (session) => sessions.has(this.port) || sessions.set(this.port, session));
    this.socket.on('error', (error) => this.reject(error));
    this.socket.on('close', () => {
      if (this.comeBackMs > 0) return void setTimeout(() => this.join(), this.comeBackMs);
      this.reject(new Error(`closed: ${this.said}`));
      this.onLeft();
    });
    this.socket.on('data', (data) => this.read(data));
    this.socket.write('GET /v1/connect HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n' +
      `sec-websocket-version: 13\r\nsec-websocket-key: ${randomBytes(16).toString('base64')}\r\n` +
      'sec-websocket-protocol: signalbox.v1.json\r\n\r\n');
    return this.full;
  }

  send(message) {
    this.socket.write(frame(JSON.stringify(message)));
  }

  leave() {
    this.send({ leave: {} });
    return this.left;
  }

  read(data) {
    this.input = Buffer.concat([this.input, data]);
    if (!this.upgraded) {
      const end = this.input.indexOf('\r\n\r\n');
      if (end < 0) return;
      this.said = this.input.subarray(0, end).toString();
      // On a busy machine a gateway may lose sight of the bus for a moment; the protocol says when to come back.
      if (this.said.startsWith('HTTP/1.1 503')) {
        this.comeBackMs = 1000 * Number(/^retry-after: (\d+)$/m.exec(this.said)[1]);
        comeBacks++;
        return void this.socket.destroy();
      }
      if (!this.said.startsWith('HTTP/1.1 101')) return void this.reject(new Error(this.said));
      this.upgraded = true;
      this.input = this.input.subarray(end + 4);
      this.send({ hello: { token: mint(this.identity, this.room) } });
    }
    for (let size, head; this.input.length >= 2; this.input = this.input.subarray(head + size)) {
      [size, head] = [this.input[1], 2];
      if (size === 126 && this.input.length >= 4) [size, head] = [this.input.readUInt16BE(2), 4];
      if (this.input.length < head + size) return;
      const payload = this.input.subarray(head, head + size);
      if (this.input[0] === 0x81) this.handle(JSON.parse(payload.toString()));
      else if (this.input[0] === 0x89) this.socket.write(Buffer.from([0x8a, 0x80, 0, 0, 0, 0]));
      else if (this.input[0] === 0x88) { this.said = payload.subarray(2).toString(); this.socket.end(); }
    }
  }

  handle(message) {
    if (message.helloOk) this.sid = message.helloOk.sid;
    else if (message.snapshot) {
      if (message.snapshot.nextCursor) this.reject(new Error('a small room came in pages'));
      this.position = message.snapshot.position;
      this.roster = new Map((message.snapshot.participants ?? []).map((p) => [p.sid, p.identity]));
    } else if (message.roomEvents) {
      const { epoch, firstSeq, lastSeq, events = [] } = message.roomEvents;
      if (epoch !== this.position?.epoch || BigInt(firstSeq) > BigInt(this.position.seq) + 1n) {
        this.send({ syncState: { position: this.position } });
        return;
      }
      if (BigInt(lastSeq) <= BigInt(this.position.seq)) return;
      for (const { joined, left } of events) {
        if (joined) this.roster.set(joined.sid, joined.identity);
        if (left) this.roster.delete(left.sid);
      }
      this.position.seq = lastSeq;
    }
    if (this.roster.size === options.size) this.resolve();
  }
}

let participants = [];
let comeBacks = 0;

async function join() {
  const begin = performance.now();
  comeBacks = 0;
  participants = Array.from({ length: options.rooms * options.size }, (_, number) => new Participant(number));
  const waiting = participants.values();
  const all = Promise.all(participants.map((p) => p.full));
  all.catch(() => {}); // told below, where it is awaited
  // As many in flight as a busy minute has; whoever is in a room that is not complete yet waits on.
  const inFlight = new Set();
  for (const participant of waiting) {
    const helloed = participant.join();
    helloed.catch(() => {});
    const began = new Promise((resolve) => { participant.socket.once('data', resolve); participant.socket.once('close', resolve); })
      .then(() => inFlight.delete(began));
    inFlight.add(began);
    if (inFlight.size >= CONNECTING_MAX) await Promise.race(inFlight);
  }
  await all;
  let wrong = 0;
  for (let at = 0; at < participants.length; at += options.size) {
    const room = participants.slice(at, at + options.size);
    const wanted = JSON.stringify(room.map((p) => [p.sid, p.identity]).sort());
    for (const participant of room)
      if (JSON.stringify([...participant.roster].sort()) !== wanted) wrong++;
  }
  return { seconds: (performance.now() - begin) / 1000, full: participants.length - wrong, wrong, comeBacks };
}

async function leave() {
  await Promise.all(participants.map((p) => p.leave()));
  const closed = participants.length;
  participants = [];
  return { closed };
}

for await (const command of createInterface({ input: process.stdin })) {
  if (command === 'end') break;
  try {
    console.log(JSON.stringify(await (command === 'join' ? join() : leave())));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
    break;
  }
}
process.exit(0);
