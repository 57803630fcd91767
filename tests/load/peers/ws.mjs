// node ws.mjs PORT CERTIFICATE KEY: rooms over Node's `ws`, in the way its users write them: a set of sockets for each room,
// and a send() for each of them. A client's first message is the text "join ROOM".
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { WebSocket, WebSocketServer } from 'ws';

const [port, cert, key] = process.argv.slice(2);
const server = createServer({ cert: readFileSync(cert), key: readFileSync(key) });
const sockets = new WebSocketServer({ server, perMessageDeflate: false, clientTracking: false });
const rooms = new Map();

sockets.on('connection', (socket) => {
  let room;
  socket.on('message', (data, isBinary) => {
    if (room === undefined) {
      const name = data.toString().slice('join '.length);
      room = rooms.get(name) ?? new Set();
      rooms.set(name, room);
      room.add(socket);
      socket.send('joined');
      return;
    }
    for (const other of room) if (other.readyState === WebSocket.OPEN) other.send(data, { binary: isBinary });
  });
  socket.on('close', () => room?.delete(socket));
  socket.on('error', () => socket.terminate());
});
server.listen(Number(port), '127.0.0.1', 4096);
