// node crowd.mjs KIND PORT COUNT SECRET
//
// COUNT clients join rooms of five, 64 at a time, and stay until standard input ends. Prints "joined" once all are there.
import { createHmac } from 'node:crypto';
import WebSocket from 'ws';

const [kind, port, count, secret] = process.argv.slice(2);
const IN_FLIGHT = 64;
const ROOM_SIZE = 5;
const run = Math.random().toString(36).slice(2);
const open = [];

function tokenOf(number) {
    const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signed = `${encode({ alg: 'HS256' })}.${encode({ sub: `p${number}`, room: `${run}-${Math.floor(number / ROOM_SIZE)}` })}`;
    return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

// Of each kind: the address, and what is said until the client is in its room.
const kinds = {
    ws: {
        path: (number) => `/?token=${tokenOf(number)}`,
        hear: (socket, text, number, done) => text.startsWith('{"roster"') && done(),
    },
    socketio: {
        path: () => '/socket.io/?EIO=4&transport=websocket',
        hear: (socket, text, number, done) => {
            if (text.startsWith('0')) socket.send(`40${JSON.stringify({ token: tokenOf(number) })}`);
            else if (text === '2') socket.send('3');
            else if (text.startsWith('42["roster"')) done();
        },
    },
    peerjs: {
        path: (number) => `/peerjs?key=peerjs&id=${run}${number}&token=${run}`,
        hear: (socket, text, number, done) => text.includes('"OPEN"') && done(),
    },
};

function join(number) {
    return new Promise((resolve, reject) => {
        // A few source addresses, as thousands from one would search long for a free port.
        const socket = new WebSocket(`wss://127.0.0.1:${port}${kinds[kind].path(number)}`, {
            rejectUnauthorized: false,
            perMessageDeflate: false,
            localAddress: `127.0.2.${1 + (number % 16)}`,
        });
        socket.on('message', (data) => kinds[kind].hear(socket, data.toString(), number, resolve));
        socket.on('error', reject);
        socket.on('close', () => reject(new Error(`connection ${number} was closed`)));
        open.push(socket);
    });
}

let next = 0;
async function worker() {
    while (next < Number(count)) await join(next++);
}
await Promise.all(Array.from({ length: IN_FLIGHT }, worker));
console.log('joined');
process.stdin.on('end', () => process.exit(0)).resume();
