/** The demo: a small video call as an application of the SDK. */
import { Room, detectSpeaking } from '../sdk/signalbox.js';
import { Stage, PeopleList, hueOf } from './view.js';

const NOTICE_MS = 4000;
const RTT_INTERVAL_MS = 4000;
const TOKEN_SPARE_MS = 30000;

const $ = (id) => document.getElementById(id);
const fragment = new URLSearchParams(location.hash.slice(1));
const invite = fragment.get('token') ?? '';
const baseUrls = fragment.has('url') ? fragment.getAll('url') : [location.origin];

let room = null;
let stopSpeaking = null;
let rttTimer = null;
let unread = 0;
let notice = '';
let noticeTimer = null;
const media = { mic: null, cam: null }; // MediaStreamTracks
const wanted = { mic: true, cam: true };

const stage = new Stage($('grid'));
const people = new PeopleList($('people'));

// Devices

async function openDevices() {
  // One at a time as well, so that a missing camera does not cost the microphone.
  for (const request of [{ audio: true, video: { width: 1280, height: 720 } }, { audio: true }, { video: true }]) {
    try {
      const stream = await navigator.mediaDevices.getUserMedia(request);
      [media.mic] = stream.getAudioTracks();
      [media.cam] = stream.getVideoTracks();
      break;
    } catch {
      // None of this kind, or not allowed: the next request asks for less, and without any the page only watches.
    }
  }
  showDevices();
}

function showDevices() {
  $('preview').srcObject = media.cam ? new MediaStream([media.cam]) : null;
  const note = media.cam ? 'Camera is off' : 'No camera – you can still join';
  $('preview-off').textContent = note;
  $('preview-off').hidden = Boolean(media.cam && wanted.cam);
  for (const button of document.querySelectorAll('[data-toggle]')) {
    const kind = button.dataset.toggle;
    const on = wanted[kind] && Boolean(media[kind]);
    button.setAttribute('aria-pressed', String(on));
    button.disabled = !media[kind];
    button.querySelector('use').setAttribute('href', `#i-${kind}${on ? '' : '-off'}`);
  }
}

async function toggle(kind) {
  wanted[kind] = !wanted[kind];
  if (media[kind]) media[kind].enabled = wanted[kind];
  showDevices();
  const publication = room?.localParticipant.getTrack(kind === 'mic' ? 'MICROPHONE' : 'CAMERA');
  if (publication) await room.localParticipant.setMuted(publication, !wanted[kind]);
}

// Joining and leaving

let token = { value: '', expiresAtMs: 0 };

/** Exchanges the invitation of the link for an access token with an identity of its own. */
async function getToken() {
  if (token.expiresAtMs - Date.now() > TOKEN_SPARE_MS) return token.value;
  const response = await fetch('/demo/token', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ invite, room: $('room').value, name: $('name').value }),
  });
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.detail || `the gateway answered ${response.status}`);
  }
  const { token: value } = await response.json();
  const { exp } = JSON.parse(atob(value.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')));
  token = { value, expiresAtMs: exp * 1000 };
  return value;
}

async function join() {
  $('join-button').disabled = true;
  $('join-button').textContent = 'Joining…';
  $('join-error').hidden = true;
  try {
    token = { value: '', expiresAtMs: 0 };
    await getToken();
    room = new Room(baseUrls, { getToken, autoRefresh: false, room: $('room').value, name: $('name').value });
    window.signalbox = { room };
    listen(room);
    await publishAll();
    await room.connect();
  } catch (error) {
    room = null;
    stopSpeaking?.();
    show('prejoin');
    $('join-error').textContent = `Could not join: ${error.message}`;
    $('join-error').hidden = false;
  }
  $('join-button').disabled = false;
  $('join-button').textContent = 'Join room';
}

/** Before the join, so that the others see the tracks from the first moment. */
async function publishAll() {
  if (media.mic) {
    await room.localParticipant.publish(media.mic, { source: 'MICROPHONE', muted: !wanted.mic });
    stopSpeaking = detectSpeaking(media.mic, (active, level) => room?.localParticipant.setSpeaking(active, level));
  }
  if (media.cam) await room.localParticipant.publish(media.cam, { source: 'CAMERA', muted: !wanted.cam });
}

function onJoined() {
  if (document.body.dataset.view === 'call') return;
  localStorage.setItem('signalbox-demo-name', $('name').value);
  $('room-title').textContent = $('room').value;
  document.title = `${$('room').value} · Signalbox`;
  stage.clear();
  people.clear();
  showMessageHint();
  show('call');
  refresh(room.localParticipant);
  room.participants.forEach(refresh);
  clearInterval(rttTimer);
  rttTimer = setInterval(() => room?.ping(), RTT_INTERVAL_MS);
}

function onDisconnected({ reason, message }) {
  clearInterval(rttTimer);
  stopSpeaking?.();
  stopSpeaking = null;
  room = null;
  if (document.body.dataset.view !== 'call') return;
  const titles = {
    CLIENT_LEFT: 'You left the room', REMOVED: 'You were removed', ROOM_CLOSED: 'The room was closed',
    DUPLICATE_IDENTITY: 'You joined from somewhere else', TOKEN_EXPIRED: 'Your invitation ran out',
  };
  $('ended-title').textContent = titles[reason] ?? 'The call has ended';
  $('ended-text').textContent = reason === 'CLIENT_LEFT' ? 'See you soon.' : message;
  show('ended');
}

function show(view) {
  document.body.dataset.view = view;
  if (view === 'call') stage.layout();
}

// What the room tells

function refresh(participant) {
  stage.show(participant);
  people.show(participant);
  $('people-count').textContent = String(1 + (room?.participants.size ?? 0));
}

function listen(of) {
  of.on('stateChanged', showState);
  of.on('connected', onJoined);
  of.on('degraded', showState);
  of.on('restored', showState);
  of.on('moved', showState);
  of.on('moving', () => showNotice('Moving to another gateway… your call goes on.'));
  of.on('resumed', ({ recovered }) => showNotice(recovered ? 'Back, and nothing was missed.' : 'Back.'));
  of.on('rejoined', () => {
    showNotice('Back as a new participant: the room had let go of you.');
    refresh(room.localParticipant);
  });
  of.on('roundTrip', showState);
  of.on('roomChanged', showState);
  of.on('disconnected', onDisconnected);
  of.on('error', (error) => console.warn('signalbox:', error));
  of.on('participantConnected', refresh);
  of.on('participantUpdated', refresh);
  of.on('participantDisconnected', (participant) => {
    stage.remove(participant);
    people.remove(participant);
    $('people-count').textContent = String(1 + room.participants.size);
  });
  for (const type of ['trackPublished', 'trackUnpublished', 'trackMuted', 'trackUnmuted']) {
    of.on(type, (publication, participant) => refresh(participant));
  }
  for (const type of ['trackSubscribed', 'trackUnsubscribed']) {
    of.on(type, (track, publication, participant) => refresh(participant));
  }
  of.on('speakingChanged', refresh);
  of.on('connectionStateChanged', refresh);
  of.on('message', ({ from, topic, data }) => {
    if (topic === 'chat' && typeof data === 'string') showMessage(from, data);
  });
}

function showState() {
  if (!room) return;
  const state = room.state === 'connected' && room.isDegraded ? 'degraded' : room.state;
  const { gateway, shard, epoch } = room.serverInfo;
  $('s-gateway').textContent = gateway || '–';
  $('s-shard').textContent = shard || '–';
  $('s-epoch').textContent = epoch || '–';
  $('s-epoch').title = epoch; // may be cut
  $('s-rtt').textContent = room.rttMs === null ? '–' : `${room.rttMs < 10 ? room.rttMs.toFixed(1) : Math.round(room.rttMs)} ms`;
  for (const element of [$('s-state'), $('state-pill')]) element.dataset.state = state;
  $('s-state').textContent = state;
  $('state-pill').querySelector('span').textContent = state;
  const banners = {
    degraded: 'Part of the service is recovering. Your call goes on; messages wait until it is back.',
    reconnecting: 'Reconnecting… your call goes on meanwhile.',
  };
  const text = banners[state] ?? notice;
  $('banner').textContent = text;
  $('banner').hidden = !text;
}

/** What has happened, for a few seconds. */
function showNotice(text) {
  notice = text;
  clearTimeout(noticeTimer);
  if (text) noticeTimer = setTimeout(() => showNotice(''), NOTICE_MS);
  showState();
}

// Chat

function showMessageHint() {
  const hint = document.createElement('li');
  hint.className = 'none';
  hint.textContent = 'Messages to everyone in the room appear here.';
  $('messages').replaceChildren(hint);
}

function addMessage(from, text, own) {
  $('messages').querySelector('.none')?.remove();
  const item = document.createElement('li');
  item.dataset.testid = 'chat-message';
  item.className = own ? 'own' : '';
  const who = document.createElement('small');
  const time = new Date().toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  who.textContent = own ? time : `${from} · ${time}`;
  const body = document.createElement('p');
  body.textContent = text;
  item.append(who, body);
  $('messages').append(item);
  item.scrollIntoView({ block: 'end' });
  return item;
}

function showMessage(from, text) {
  // Our own messages come back in the room's order too; they are shown when they are sent.
  if (from?.isLocal) return;
  addMessage(from?.name ?? 'Somebody who has left', text, false);
  if ($('panel').hidden || $('chat').hidden) {
    unread += 1;
    $('chat-unread').textContent = String(unread);
    $('chat-unread').hidden = false;
  }
}

async function sendMessage(text) {
  const item = addMessage('', text, true);
  item.classList.add('pending');
  try {
    await room.send(text, { topic: 'chat' });
  } catch (error) {
    item.classList.add('failed');
    item.querySelector('small').textContent = `not delivered: ${error.message}`;
  }
  item.classList.remove('pending');
}

// The panel

function openPanel(tab) {
  const isOpen = !$('panel').hidden && !$(tab).hidden;
  $('panel').hidden = isOpen;
  $('people').hidden = tab !== 'people';
  $('chat').hidden = tab !== 'chat';
  for (const button of document.querySelectorAll('[data-tab]')) {
    button.setAttribute('aria-selected', String(button.dataset.tab === tab));
  }
  for (const button of document.querySelectorAll('[data-panel]')) {
    button.classList.toggle('on', !isOpen && button.dataset.panel === tab);
  }
  if (!isOpen && tab === 'chat') {
    unread = 0;
    $('chat-unread').hidden = true;
    $('chat-text').focus();
  }
}

// Wiring

for (const button of document.querySelectorAll('[data-toggle]')) {
  button.addEventListener('click', () => toggle(button.dataset.toggle));
}
for (const button of document.querySelectorAll('[data-panel]')) {
  button.addEventListener('click', () => openPanel(button.dataset.panel));
}
for (const button of document.querySelectorAll('[data-tab]')) {
  button.addEventListener('click', () => { if ($(button.dataset.tab).hidden) openPanel(button.dataset.tab); });
}
$('panel-close').addEventListener('click', () => openPanel($('chat').hidden ? 'people' : 'chat'));
$('join-form').addEventListener('submit', (event) => {
  event.preventDefault();
  join();
});
$('leave').addEventListener('click', () => room?.disconnect());
$('rejoin').addEventListener('click', () => join());
$('chat-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const text = $('chat-text').value.trim();
  if (!text || !room) return;
  $('chat-text').value = '';
  sendMessage(text);
});

$('room').value = fragment.get('room') ?? '';
$('name').value = fragment.get('name') ?? localStorage.getItem('signalbox-demo-name') ?? '';
document.documentElement.style.setProperty('--hue', String(hueOf($('name').value)));
await openDevices();
if (fragment.get('autojoin') === '1' && $('name').value && $('room').value) join();
