// node server.mjs KIND PORT CERTIFICATE KEY SECRET [REDIS-PORT]
//
// What a team would write in place of Signalbox, with each library as its documentation recommends: TLS, a token that is
// checked, rooms, the roster for who comes and a word to who is there. Kinds: ws, socketio (with the Redis adapter),
// peerjs (which has no rooms: the connection is all there is). SIGUSR2 collects garbage, so that memory is what is held.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';

const [kind, port, certificate, key, secret, redisPort] = process.argv.slice(2);
const tls = { cert: readFileSync(certificate), key: readFileSync(key) };

function identityOf(token) {
    const [header, payload, signature] = token.split('.');
    const wanted = createHmac('sha256', secret).update(`${header}.${payload}`).digest();
    const given = Buffer.from(signature ?? '', 'base64url');
    if (given.length !== wanted.length || !timingSafeEqual(given, wanted)) throw new Error('token');
    return JSON.parse(Buffer.from(payload, 'base64url').toString());
}

async function serveWs() {
    const { WebSocketServer } = await import('ws');
    const rooms = new Map();
    const server = createServer(tls);
    // Compression is off by default, as ws's documentation advises for many connections.
    const sockets = new WebSocketServer({ server });
    sockets.on('connection', (socket, request) => {
        const { sub, room } = identityOf(new URL(request.url, 'https://x').searchParams.get('token'));
        const members = rooms.get(room) ?? new Map();
        rooms.set(room, members);
        socket.alive = true;
        socket.on('pong', () => { socket.alive = true; });
        socket.on('error', () => {});
        socket.on('close', () => {
            members.delete(sub);
            if (members.size === 0) rooms.delete(room);
            const left = JSON.stringify({ left: sub });
            for (const other of members.values()) other.send(left);
        });
        socket.send(JSON.stringify({ roster: [...members.keys()] }));
        const joined = JSON.stringify({ joined: sub });
        for (const other of members.values()) other.send(joined);
        members.set(sub, socket);
    });
    setInterval(() => {
        for (const socket of sockets.clients) {
            if (!socket.alive) socket.terminate();
            socket.alive = false;
            socket.ping();
        }
    }, 30000);
    server.listen(Number(port), '127.0.0.1');
}

async function serveSocketIo() {
    const { Server } = await import('socket.io');
    const { createAdapter } = await import('@socket.io/redis-adapter');
    const { createClient } = await import('redis');
    const publisher = createClient({ url: `redis://127.0.0.1:${redisPort}` });
    const subscriber = publisher.duplicate();
    await Promise.all([publisher.connect(), subscriber.connect()]);
    const server = createServer(tls);
    const io = new Server(server, { adapter: createAdapter(publisher, subscriber), transports: ['websocket'] });
    io.use((socket, next) => {
        try {
            socket.data = identityOf(socket.handshake.auth.token);
            next();
        } catch (error) {
            next(error);
        }
    });
    io.on('connection', async (socket) => {
        const { sub, room } = socket.data;
        const there = await io.in(room).fetchSockets();
        socket.join(room);
        socket.emit('roster', there.map((other) => other.data.sub));
        socket.to(room).emit('joined', sub);
        socket.on('disconnect', () => io.to(room).emit('left', sub));
    });
    server.listen(Number(port), '127.0.0.1');
}

async function servePeerJs() {
    const { PeerServer } = await import('peer');
    PeerServer({ port: Number(port), host: '127.0.0.1', path: '/', ssl: tls, concurrent_limit: 50000 });
}

process.on('SIGUSR2', () => globalThis.gc());
await { ws: serveWs, socketio: serveSocketIo, peerjs: servePeerJs }[kind]();
console.log('ready');
