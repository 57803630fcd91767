/**
 * The browser's tests, against a cluster that scripts/up started (tests/browser/run) or another one.
 *
 *   SIGNALBOX_INVITE=JWT SIGNALBOX_ROOM=demo SIGNALBOX_RUN=DIR node main.mjs GATEWAY-URL [GATEWAY-URL] [call|survive|return]...
 *
 * With one URL, a balancer's, it decides who gets to which gateway. With SIGNALBOX_RUN (the state directory of scripts/up)
 * processes are killed and restarted; without, there is only the call. Screenshots and figures.json go to
 * $SIGNALBOX_ARTIFACTS (default build/screenshots). Ends with "N passed, N failed".
 */
import { call } from './call.mjs';
import { check, finish, isLocal, launch, up } from './harness.mjs';
import { comeBack } from './return.mjs';
import { survive } from './survive.mjs';

const suites = { call, survive, return: comeBack };
const isUrl = (text) => text.startsWith('https://');
const urls = process.argv.slice(2).filter(isUrl);
const named = process.argv.slice(2).filter((text) => !isUrl(text));
const { SIGNALBOX_INVITE: invite = '', SIGNALBOX_ROOM: roomName = 'demo' } = process.env;
if (urls.length < 1 || !invite || named.some((name) => !(name in suites))) {
  console.error('usage: SIGNALBOX_INVITE=JWT node main.mjs GATEWAY-URL [GATEWAY-URL] [call|survive|return]...');
  process.exit(2);
}
const gateways = [urls[0], urls[1] ?? urls[0]];
const wanted = isLocal ? Object.keys(suites) : ['call'];

const browser = await launch();
try {
  for (const name of named.length > 0 ? named : wanted) {
    await up(); // what the suite before has killed
    await suites[name](browser, gateways, { invite, roomName });
  }
} catch (error) {
  await check('all of it was run', () => Promise.reject(error));
} finally {
  await browser.close();
}
process.exit(finish());
