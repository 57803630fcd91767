/** What the demo shows of participants: tiles on a stage and a list of people. */

const GAP_PX = 12;
const ASPECT = 16 / 9;

/** A colour for a name, the same everywhere. */
export function hueOf(text) {
  let hash = 7;
  for (const char of text) hash = (hash * 31 + char.codePointAt(0)) % 360;
  return hash;
}

function initialsOf(name) {
  return name.trim().split(/\s+/).slice(0, 2).map((word) => [...word][0] ?? '').join('').toUpperCase() || '?';
}

function icon(name, className = '') {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', `#i-${name}`);
  if (className) svg.setAttribute('class', className);
  svg.append(use);
  return svg;
}

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  node.className = className;
  node.append(...children);
  return node;
}

/** Whether media of this source flows, as far as the room says. */
function isOn(participant, source) {
  const publication = participant.getTrack(source);
  return Boolean(publication) && !publication.muted;
}

/** One entry per participant: this one's is 'local', because its sid changes with a rejoin. */
const keyOf = (participant) => (participant.isLocal ? 'local' : participant.sid);

/** Tiles of one size, as large as fits. */
export class Stage {
  #grid;
  #tiles = new Map();

  constructor(grid) {
    this.#grid = grid;
    new ResizeObserver(() => this.layout()).observe(grid);
  }

  show(participant) {
    let tile = this.#tiles.get(keyOf(participant));
    if (!tile) {
      tile = this.#make(participant);
      this.#tiles.set(keyOf(participant), tile);
      this.#grid.append(tile.root);
      this.layout();
    }
    this.#update(tile, participant);
  }

  remove(participant) {
    const tile = this.#tiles.get(keyOf(participant));
    if (!tile) return;
    this.#tiles.delete(keyOf(participant));
    tile.video.srcObject = null;
    tile.audio.srcObject = null;
    tile.root.remove();
    this.layout();
  }

  clear() {
    this.#tiles.clear();
    this.#grid.replaceChildren();
  }

  /** The number of columns that gives the largest tiles. */
  layout() {
    const { clientWidth: width, clientHeight: height } = this.#grid;
    const count = this.#tiles.size;
    if (!count || !width || !height) return;
    let best = { area: 0 };
    for (let columns = 1; columns <= count; columns++) {
      const rows = Math.ceil(count / columns);
      const boxWidth = (width - GAP_PX * (columns - 1)) / columns;
      const boxHeight = (height - GAP_PX * (rows - 1)) / rows;
      // Tiles may be squarer than their video where that makes them larger, most of all on narrow screens.
      const aspect = Math.max(width < 600 ? 0.8 : 4 / 3, Math.min(ASPECT, boxWidth / boxHeight));
      const tileWidth = Math.min(boxWidth, boxHeight * aspect);
      const area = tileWidth * (tileWidth / aspect);
      if (area > best.area) best = { area, width: tileWidth, height: tileWidth / aspect };
    }
    for (const { root } of this.#tiles.values()) {
      root.style.width = `${Math.floor(best.width)}px`;
      root.style.height = `${Math.floor(best.height)}px`;
    }
  }

  #make(participant) {
    const video = element('video', '');
    Object.assign(video, { autoplay: true, playsInline: true, muted: true });
    const audio = element('audio', '');
    audio.autoplay = true;
    const initials = element('b', '');
    const name = element('span', '');
    const mic = icon('mic-off');
    const link = element('div', 'link');
    const root = element('div', 'tile', video, audio, element('div', 'avatar', initials), element('div', 'label', mic, name), link);
    root.dataset.testid = 'tile';
    root.dataset.local = String(participant.isLocal);
    return { root, video, audio, initials, name, mic, link };
  }

  #update(tile, participant) {
    const { root } = tile;
    const camera = participant.getTrack('CAMERA')?.track ?? null;
    root.dataset.sid = participant.sid;
    root.dataset.name = participant.name;
    root.dataset.camera = camera && isOn(participant, 'CAMERA') ? 'on' : 'off';
    root.dataset.mic = isOn(participant, 'MICROPHONE') ? 'on' : 'off';
    root.dataset.speaking = String(participant.isSpeaking && isOn(participant, 'MICROPHONE'));
    root.style.setProperty('--hue', String(hueOf(participant.name)));
    tile.initials.textContent = initialsOf(participant.name);
    tile.name.textContent = participant.isLocal ? `${participant.name} (you)` : participant.name;
    tile.mic.style.display = isOn(participant, 'MICROPHONE') ? 'none' : '';
    this.#play(tile.video, camera);
    if (!participant.isLocal) {
      this.#play(tile.audio, participant.getTrack('MICROPHONE')?.track ?? null);
      const connected = participant.connectionState === 'connected';
      tile.link.hidden = connected;
      tile.link.textContent = { disconnected: 'weak connection', failed: 'reconnecting media' }[participant.connectionState]
        ?? 'connecting…';
    } else {
      tile.link.hidden = true;
    }
  }

  #play(player, track) {
    const playing = player.srcObject?.getTracks()[0] ?? null;
    if (playing === track) return;
    player.srcObject = track ? new MediaStream([track]) : null;
    // Refused until the page has been used; the joining click usually has done that.
    if (track) player.play().catch(() => {});
  }
}

export class PeopleList {
  #list;
  #items = new Map();

  constructor(list) {
    this.#list = list;
  }

  show(participant) {
    let item = this.#items.get(keyOf(participant));
    if (!item) {
      item = element('li', '');
      item.dataset.testid = 'people-item';
      this.#items.set(keyOf(participant), item);
      this.#list.append(item);
    }
    item.dataset.name = participant.name;
    item.dataset.speaking = String(participant.isSpeaking && isOn(participant, 'MICROPHONE'));
    item.style.setProperty('--hue', String(hueOf(participant.name)));
    const who = element('b', '');
    who.textContent = participant.isLocal ? `${participant.name} (you)` : participant.name;
    const state = element('small', '');
    state.textContent = this.#describe(participant);
    const dot = element('span', 'dot');
    dot.textContent = initialsOf(participant.name);
    const microphone = isOn(participant, 'MICROPHONE');
    const camera = isOn(participant, 'CAMERA');
    item.replaceChildren(
      dot,
      element('div', 'who', who, state),
      icon(microphone ? 'mic' : 'mic-off', microphone ? '' : 'off'),
      icon(camera ? 'cam' : 'cam-off', camera ? '' : 'off'),
    );
  }

  remove(participant) {
    this.#items.get(keyOf(participant))?.remove();
    this.#items.delete(keyOf(participant));
  }

  clear() {
    this.#items.clear();
    this.#list.replaceChildren();
  }

  #describe(participant) {
    if (participant.isSpeaking && isOn(participant, 'MICROPHONE')) return 'speaking';
    if (participant.isLocal) return 'in the room';
    const states = { connected: 'connected', disconnected: 'weak connection', failed: 'reconnecting media' };
    return states[participant.connectionState] ?? 'connecting…';
  }
}
