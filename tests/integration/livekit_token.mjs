// Mints tokens with LiveKit's own server SDK: reads a JSON list of {key, secret, options, grant} on standard input, prints
// the list of tokens.
import { AccessToken } from 'livekit-server-sdk';

let text = '';
for await (const chunk of process.stdin) text += chunk;
const tokens = [];
for (const { key, secret, options, grant } of JSON.parse(text)) {
  const token = new AccessToken(key, secret, options);
  token.addGrant(grant);
  tokens.push(await token.toJwt());
}
console.log(JSON.stringify(tokens));
