import { Backoff, closeAction } from './backoff.js';
import { Connection } from './connection.js';
import { Emitter } from './emitter.js';
import { Links, ROOM } from './links.js';
import {
  DEFAULT_LIMITS, SDK_NAME, SDK_VERSION, SignalboxError, httpBase, mergeLimits, tokenExpiryMs, u64, webSocketBase,
  writePosition,
} from './protocol.js';
import { Roster } from './roster.js';

const BEHIND_PATIENCE_MS = 2000;
const SYNC_TIMEOUT_MS = 5000;
const STABLE_AFTER_MS = 5000;
const PROBE_TIMEOUT_MS = 3000;
const GREETED_MAX = 64; // whose rooms are larger is heard of by those who know it
const RETURNED_MS = 2000; // who joined meanwhile is in the roster by then
const OWN_REPLACEMENT_MS = 30000;
const STALE_ATTEMPT_MS = 2000;
const REFRESH_LEAD_MS = 60000;
const TIMEOUT_MAX_MS = 0x7fffffff;
const RETRY_LATER = new Set(['THROTTLED', 'RETRY', 'UNAVAILABLE', 'WOULD_BLOCK', 'NO_CAPACITY', 'INTERNAL']);

/**
 * One participant's place in a room over as many connections as it takes: joining, resuming, joining afresh, and what the
 * protocol asks of a client in between. Knows nothing of media.
 *
 * Events: state(state), moving({spreadMs}), hello(helloOk, {fresh}), synced(), changes(list), directed(peer, message), undeliverable(peer,
 * reason), drained(peer), signals(list), degraded({degraded, reason}), moved({shard, epoch}), throttled(info),
 * dropped(counts), iceServers(list), roundTrip(ms), ended(SignalboxError)
 */
export class Session extends Emitter {
  #options;
  #bases;
  #connection = null; // bound to the session
  #next = null; // on its way to replace it
  #backoff;
  #retryTimer = null;
  #stableTimer = null;
  #linkTimer = null;
  #syncTimer = null;
  #tokenTimer = null;
  #iceTimer = null;
  #resumeToken = '';
  #token = '';
  #requests = new Map();
  #nextRequestId = 1;
  #commands = Promise.resolve();
  #onlineWaiters = [];
  #synced = false;
  #syncing = false;
  #resumedAt = -Infinity; // when this client last opened a connection to resume on
  #returnedAt = -Infinity; // when it last had the cluster again
  #attemptedAt = -Infinity; // when it last opened one for whatever reason
  #serverClock = null; // { serverMs, atMs }: this machine's wall clock may be wrong, and may jump
  #resumes = 0; // connections opened to resume this session, whatever became of them

  /** 'idle' | 'connecting' | 'connected' | 'reconnecting' | 'closed' */
  state = 'idle';
  sid = '';
  helloOk = null;
  limits = DEFAULT_LIMITS;
  roster = new Roster();

  /**
   * @param {string | string[]} urls base URLs of the cluster
   * @param {object} options
   * @param {() => Promise<string>} options.getToken
   * @param {() => object} options.makeJoin the Join message for a connection that is made now
   */
  constructor(urls, options) {
    super();
    this.#options = options;
    this.#bases = [urls].flat().map(webSocketBase);
    this.#backoff = new Backoff();
    this.#makeLinks();
  }

  get online() {
    return this.#connection !== null;
  }

  get stats() {
    return { ...this.links.stats, unackedBytes: this.links.unackedBytes, reconnectAttempts: this.#backoff.attempts };
  }

  start() {
    this.#setState('connecting');
    globalThis.addEventListener?.('online', this.#onNetwork);
    globalThis.navigator?.connection?.addEventListener?.('change', this.#onNetwork);
    globalThis.addEventListener?.('pagehide', this.#onPageHide);
    globalThis.document?.addEventListener('visibilitychange', this.#onNetwork);
    this.#attempt();
  }

  /** Leaves the room for good. */
  stop() {
    if (this.state === 'closed') return;
    this.#connection?.send({ leave: { reason: 'CLIENT_LEFT' } });
    this.#connection?.abandon(1000);
    if (!this.#connection) this.#leaveByHttp();
    this.#connection = null;
    this.#close(new SignalboxError('CLIENT_LEFT', 'left the room'));
  }

  /** A directed message, or to ROOM a reliable one to everybody. Kept until it is acknowledged. */
  send(peer, body, settle = () => {}) {
    if (this.state === 'closed') throw new SignalboxError('NOT_JOINED', 'not in a room');
    const requestId = this.#nextRequestId++;
    this.#requests.set(requestId, { peer });
    const done = (error) => {
      this.#requests.delete(requestId);
      settle(error);
    };
    try {
      this.links.send(peer, body, performance.now(), { requestId, settle: done });
    } catch (error) {
      this.#requests.delete(requestId);
      throw error;
    }
    this.#armLinks();
  }

  /** What nobody waits for: lost with the connection if there is none. */
  post(body) {
    this.#connection?.send(body);
    return this.#connection !== null;
  }

  /**
   * A change of this session's state: carried out in order, repeated over losses of the connection until the server has
   * said yes or a final no.
   */
  command(body) {
    const run = this.#commands.then(() => this.#carryOut(body));
    this.#commands = run.catch(() => {});
    return run;
  }

  probe() {
    this.#connection?.probe();
  }

  async #carryOut(body) {
    for (;;) {
      await this.#whenOnline();
      try {
        return await this.#request(body);
      } catch (error) {
        if (this.state === 'closed' || (error.code !== 'DISCONNECTED' && !RETRY_LATER.has(error.code))) throw error;
        await new Promise((resolve) => { setTimeout(resolve, error.retryAfterMs || this.#backoff.baseMs); });
      }
    }
  }

  #request(body) {
    return new Promise((resolve, reject) => {
      const requestId = this.#nextRequestId++;
      this.#requests.set(requestId, { resolve, reject });
      this.#connection.send({ requestId, ...body });
    });
  }

  #whenOnline() {
    if (this.state === 'closed') return Promise.reject(new SignalboxError('NOT_JOINED', 'not in a room'));
    if (this.#connection) return Promise.resolve();
    return new Promise((resolve, reject) => { this.#onlineWaiters.push({ resolve, reject }); });
  }

  // Connecting

  async #attempt() {
    clearTimeout(this.#retryTimer);
    this.#retryTimer = null;
    if (this.#next || this.state === 'closed') return;
    const fresh = this.#resumeToken === '';
    const pending = { leave: null, abandon() { this.abandoned = true; } };
    this.#next = pending; // keeps a second attempt away while the token is fetched
    if (fresh) {
      try {
        this.#token = await this.#options.getToken();
      } catch (error) {
        if (this.#next !== pending) return;
        this.#next = null;
        if (error instanceof SignalboxError) this.#close(error);
        else this.#retry(null);
        return;
      }
      if (this.#next !== pending) return;
    }
    const connection = new Connection(this.#bases[0], {
      hello: () => this.#makeHello(fresh),
      onMessage: (message) => this.#receive(connection, message, fresh),
      onRoundTrip: (rttMs) => this.emit('roundTrip', rttMs),
      onEnd: (code, reason) => this.#onEnd(connection, code, reason),
    });
    this.#next = connection;
    this.#attemptedAt = performance.now();
    if (!fresh) this.#resumedAt = performance.now();
  }

  #makeHello(fresh) {
    const clientInfo = {
      sdk: SDK_NAME, sdkVersion: SDK_VERSION, platform: (globalThis.navigator?.userAgent ?? '').slice(0, 128),
    };
    // With a resume token, `join` says what to restore if the cluster has lost the session, and what to hear.
    const join = this.#options.makeJoin();
    if (fresh) return { token: this.#token, join, clientInfo };
    this.#resumes += 1;
    return {
      resumeToken: this.#resumeToken, last: writePosition(this.roster.position), attempt: this.#resumes, join, clientInfo,
    };
  }

  #onEnd(connection, code, reason) {
    const end = closeAction(code, reason, connection.leave);
    // Replaced by our own newer connection, whose hello_ok is still on its way or was lost.
    if (end.reason === 'REPLACED' && performance.now() - this.#resumedAt < OWN_REPLACEMENT_MS) end.action = 'resume';
    if (connection === this.#next) this.#next = null;
    else if (connection === this.#connection) this.#connection = null;
    else return;
    // A planned move that failed changes nothing while the connection that it should replace still stands.
    if (this.#connection && end.action !== 'rejoin') {
      this.#rotateBases();
      this.#retry(end.delayMs);
      return;
    }
    this.#lost();
    if (end.action === 'stop') {
      this.#close(new SignalboxError(end.reason, end.message));
      return;
    }
    if (end.action === 'rejoin') this.#forgetSession();
    // A host that does not answer may be the one that is down: the others get their turn.
    if (code === 1006 || end.reason === 'GATEWAY_DRAINING') this.#rotateBases();
    this.#setState(this.state === 'connecting' ? 'connecting' : 'reconnecting');
    this.#retry(end.delayMs);
  }

  #lost() {
    clearTimeout(this.#stableTimer);
    clearTimeout(this.#syncTimer);
    this.#connection?.abandon();
    this.#connection = null;
    this.#syncing = false;
    this.links.lost();
    for (const [requestId, { reject }] of [...this.#requests]) {
      if (!reject) continue;
      this.#requests.delete(requestId);
      reject(new SignalboxError('DISCONNECTED', 'the connection was lost before the answer'));
    }
  }

  /** The server knows this session no more: the next connection joins as a new one. */
  #forgetSession() {
    this.#resumeToken = '';
    this.#resumes = 0;
    this.links.close();
    this.#requests.clear();
    this.#makeLinks();
    this.roster.restart();
    this.#synced = false;
  }

  #rotateBases() {
    this.#bases.push(this.#bases.shift());
  }

  #retry(delayMs) {
    clearTimeout(this.#retryTimer);
    const waitMs = (delayMs ?? 0) + this.#backoff.nextDelayMs();
    this.#retryTimer = setTimeout(() => this.#attempt(), waitMs);
  }

  #onNetwork = () => {
    if (globalThis.document?.visibilityState === 'hidden') return;
    if (this.#connection) {
      this.#connection.probe(PROBE_TIMEOUT_MS);
      return;
    }
    // What was begun without a network may hang for as long as its time-outs are.
    if (this.#next && performance.now() - this.#attemptedAt > STALE_ATTEMPT_MS) {
      this.#next.abandon();
      this.#next = null;
    }
    if (!this.#next && this.state !== 'closed') {
      this.#backoff.reset();
      this.#attempt();
    }
  };

  #onPageHide = (event) => {
    if (!event.persisted) this.#leaveByHttp();
  };

  #leaveByHttp() {
    if (!this.#resumeToken || !globalThis.navigator?.sendBeacon) return;
    navigator.sendBeacon(`${httpBase(this.#bases[0])}/v1/leave`, new Blob([this.#resumeToken], { type: 'text/plain' }));
  }

  #close(error) {
    this.#next?.abandon();
    this.#next = null;
    this.#lost();
    for (const timer of [this.#retryTimer, this.#linkTimer, this.#tokenTimer, this.#iceTimer]) clearTimeout(timer);
    globalThis.removeEventListener?.('online', this.#onNetwork);
    globalThis.navigator?.connection?.removeEventListener?.('change', this.#onNetwork);
    globalThis.removeEventListener?.('pagehide', this.#onPageHide);
    globalThis.document?.removeEventListener('visibilitychange', this.#onNetwork);
    this.#resumeToken = this.#token = '';
    this.#setState('closed');
    this.links.close();
    this.#onlineWaiters.splice(0).forEach(({ reject }) => reject(error));
    this.emit('ended', error);
  }

  #setState(state) {
    if (this.state === state) return;
    this.state = state;
    this.emit('state', state);
  }

  // Receiving

  #receive(connection, message, fresh) {
    if (connection === this.#next) {
      if (message.helloOk) this.#established(connection, message.helloOk, fresh);
      return;
    }
    if (connection !== this.#connection) return;
    if (message.roomEvents) this.#apply(this.roster.applyEvents(message.roomEvents));
    else if (message.route) this.#receiveRouted(message);
    else if (message.signals) this.emit('signals', message.signals.signals ?? []);
    else if (message.snapshot) this.#receiveSnapshot(message.snapshot);
    else if (message.pong) this.#checkPosition(message.pong.position);
    else if (message.result) this.#receiveResult(message.result);
    else if (message.tokenRefresh) this.#adoptResumeToken(message.tokenRefresh.resumeToken);
    else if (message.iceRefresh) this.#adoptIceServers(message.iceRefresh.iceServers ?? []);
    else if (message.throttled) this.emit('throttled', message.throttled);
    else if (message.dropped) this.emit('dropped', message.dropped.counts ?? []);
    else if (message.degraded) this.#receiveDegraded(message.degraded);
    else if (message.moved) this.#receiveMoved(message.moved);
    else if (message.reconnect) this.#receiveReconnect(message.reconnect);
    this.#armLinks();
  }

  #established(connection, helloOk, fresh) {
    this.#connection?.abandon();
    this.#next = null;
    this.#connection = connection;
    this.helloOk = helloOk;
    this.#serverClock = { serverMs: u64(helloOk.serverTimeMs) || Date.now(), atMs: performance.now() };
    this.sid = helloOk.sid;
    this.#resumeToken = helloOk.resumeToken;
    this.limits = mergeLimits(helloOk.limits);
    this.links.setLimits(this.limits);
    this.#backoff.setPolicy(helloOk.retryPolicy);
    // A server that takes us in and throws us out again must not be asked in a tight loop.
    clearTimeout(this.#stableTimer);
    this.#stableTimer = setTimeout(() => this.#backoff.reset(), STABLE_AFTER_MS);
    // The ping that starts the watch also confirms the new resume token, so that older ones are void.
    connection.established(this.limits.pingIntervalMs);
    this.#adoptIceServers(helloOk.iceServers ?? []);
    this.#scheduleTokenRefresh();
    this.emit('hello', helloOk, { fresh });
    if (helloOk.recovered) {
      this.roster.recovered(helloOk.position);
      this.#becomeSynced();
    }
    this.#returned();
    this.#armLinks();
    this.#onlineWaiters.splice(0).forEach(({ resolve }) => resolve());
  }

  /** Others may wait for this client, also those who have never heard of it: they need not wait for their timers. */
  #returned() {
    this.#returnedAt = performance.now();
    this.links.resumed(this.#returnedAt);
    this.#greet([...this.roster.values()]);
  }

  #greet(participants) {
    const now = performance.now();
    if (this.roster.size > GREETED_MAX || now - this.#returnedAt > RETURNED_MS) return;
    for (const { sid } of participants) {
      if (sid !== this.sid) this.links.greet(sid, now);
    }
  }

  #receiveRouted(message) {
    const now = performance.now();
    if (message.undeliverable) {
      this.links.peerGone(message.route.peer);
      this.emit('undeliverable', message.route.peer, message.undeliverable.reason);
    } else {
      this.links.receive(message, now);
    }
  }

  #receiveSnapshot(page) {
    const before = this.roster.position?.epoch;
    this.#apply(this.roster.applySnapshot(page));
    // Another owner knows nothing of what was under way.
    if (before && before !== this.roster.position.epoch) this.links.moved(performance.now());
  }

  #apply({ changes, sync }) {
    const now = performance.now();
    for (const change of changes) {
      if (change.type === 'left') this.links.peerGone(change.participant.sid);
      if (change.type === 'joined' && this.#resumes > 0) this.#greet([change.participant]);
    }
    if (changes.length > 0) this.emit('changes', changes);
    if (sync) {
      this.#sync(sync);
    } else {
      clearTimeout(this.#syncTimer);
      this.#syncing = false;
      if (this.roster.position) this.#becomeSynced();
    }
    this.links.flush(now);
  }

  #becomeSynced() {
    this.#setState('connected');
    if (this.#synced) return;
    this.#synced = true;
    this.emit('synced');
  }

  #sync(sync) {
    // While an answer is under way every further event shows the same gap: asking once is enough.
    if (this.#syncing && !sync.cursor) return;
    this.#syncing = true;
    clearTimeout(this.#syncTimer);
    this.#syncTimer = setTimeout(() => {
      this.#syncing = false;
      this.#sync(this.roster.missing());
    }, SYNC_TIMEOUT_MS);
    this.post({ syncState: sync });
  }

  #checkPosition(position) {
    if (!this.roster.isBehind(position)) return;
    setTimeout(() => {
      if (this.#connection && this.roster.isBehind(position)) this.#sync(this.roster.missing());
    }, BEHIND_PATIENCE_MS);
  }

  #receiveResult(result) {
    const pending = this.#requests.get(result.requestId ?? 0);
    if (!pending) return;
    const error = result.code === 'OK' ? null : new SignalboxError(result.code, result.message, result.retryAfterMs);
    const now = performance.now();
    if (pending.resolve) {
      this.#requests.delete(result.requestId);
      if (error) pending.reject(error);
      else pending.resolve(result);
    } else if (error && RETRY_LATER.has(error.code)) {
      this.links.pause(pending.peer, now + (error.retryAfterMs || this.limits.retransmitMs));
    } else if (error && pending.peer !== ROOM && (error.code === 'NOT_FOUND' || error.code === 'UNDELIVERABLE')) {
      this.links.peerGone(pending.peer, error.message);
      this.emit('undeliverable', pending.peer, 'LEAVE_REASON_UNSPECIFIED');
    } else if (error) {
      this.links.refuse(pending.peer, result.requestId, error, now);
    }
    // OK changes nothing for a message: only its acknowledgement says that it has arrived.
  }

  #receiveDegraded(degraded) {
    // What was sent meanwhile went nowhere, and would wait for its next turn.
    if (!degraded.degraded) this.#returned();
    this.emit('degraded', degraded);
  }

  #receiveMoved(moved) {
    this.roster.moved(moved.epoch);
    this.links.moved(performance.now());
    this.emit('moved', moved);
  }

  #receiveReconnect({ spreadMs = 0, alternates = [] }) {
    // This gateway's own address comes last: it takes nobody in any more.
    this.#rotateBases();
    if (alternates.length > 0) this.#bases = [...new Set([...alternates.map(webSocketBase), ...this.#bases])];
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => this.#attempt(), Math.random() * spreadMs);
    this.emit('moving', { spreadMs });
  }

  // Upkeep

  #makeLinks() {
    this.links = new Links({
      transmit: (message) => this.#connection?.send(message),
      deliver: (peer, message) => this.emit('directed', peer, message),
      ready: (peer, join) => this.roster.has(peer) || this.roster.hasReached(join),
      drained: (peer) => this.emit('drained', peer),
    });
    this.links.setLimits(this.limits);
  }

  #armLinks() {
    clearTimeout(this.#linkTimer);
    const at = this.links.nextDeadline();
    if (at === Infinity) return;
    this.#linkTimer = setTimeout(() => {
      this.links.tick(performance.now());
      this.#armLinks();
    }, Math.max(0, at - performance.now()));
  }

  #adoptResumeToken(resumeToken) {
    if (!resumeToken) return;
    this.#resumeToken = resumeToken;
    this.probe();
  }

  #adoptIceServers(servers) {
    this.emit('iceServers', servers);
    clearTimeout(this.#iceTimer);
    const expiries = servers.map((server) => u64(server.expiresAtS) * 1000).filter((ms) => ms > 0);
    if (expiries.length === 0) return;
    const delayMs = this.#leadTime(Math.min(...expiries) - this.#serverNowMs());
    this.#iceTimer = setTimeout(() => this.post({ refreshIce: {} }), delayMs);
  }

  #scheduleTokenRefresh() {
    clearTimeout(this.#tokenTimer);
    const expiryMs = tokenExpiryMs(this.#token);
    if (!expiryMs || !this.#options.canRefresh) return;
    this.#tokenTimer = setTimeout(async () => {
      try {
        this.#token = await this.#options.getToken();
        await this.command({ refreshToken: { token: this.#token } });
        this.#scheduleTokenRefresh();
      } catch (error) {
        if (this.state !== 'closed') this.#tokenTimer = setTimeout(() => this.#scheduleTokenRefresh(), 5000);
      }
    }, this.#leadTime(expiryMs - this.#serverNowMs()));
  }

  #serverNowMs() {
    return this.#serverClock.serverMs + performance.now() - this.#serverClock.atMs;
  }

  /** Early enough to try again, late enough not to do it all the time. */
  #leadTime(leftMs) {
    const lead = Math.min(REFRESH_LEAD_MS, leftMs / 2);
    return Math.min(TIMEOUT_MAX_MS, Math.max(1000, leftMs - lead));
  }
}
