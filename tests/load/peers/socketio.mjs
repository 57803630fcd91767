// node socketio.mjs PORT CERTIFICATE KEY REDIS_PORT: rooms over socket.io with its Redis adapter, one of several nodes. WebSocket
// alone, no compression. Events: "join" with the room's name, answered by "joined"; "m" goes to everybody in the room.
import { createAdapter } from '@socket.io/redis-adapter';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { createClient } from 'redis';
import { Server } from 'socket.io';

const [port, cert, key, redisPort] = process.argv.slice(2);
const publisher = createClient({ url: `redis://127.0.0.1:${redisPort}` });
const subscriber = publisher.duplicate();
await Promise.all([publisher.connect(), subscriber.connect()]);

const server = createServer({ cert: readFileSync(cert), key: readFileSync(key) });
const io = new Server(server, { transports: ['websocket'], perMessageDeflate: false, serveClient: false });
io.adapter(createAdapter(publisher, subscriber));

io.on('connection', (socket) => {
  let room;
  socket.on('join', async (name) => {
    room = name;
    await socket.join(room);
    socket.emit('joined');
  });
  socket.on('m', (payload) => io.to(room).emit('m', payload));
});
server.listen(Number(port), '127.0.0.1', 4096);
