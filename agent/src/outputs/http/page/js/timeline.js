// The time line: a lane for each kind, a bar for each incident, and a line from each cause to what it explains. What does
// not fit into a lane's rows is drawn as one bar with a number, so that two thousand incidents stay a picture.

import { h, plain, say, severityClass, sign, svg, sync } from './dom.js';
import { duration, serverNow, stamp, tickLabel, zoneOffset } from './time.js';
import { called, gravity, isOpen, shortName, title } from './store.js';

export const DAY = 86400e3;
/** `null` fits what there was within a day. */
export const RANGES = [['Fit', null], ['15 m', 900e3], ['1 h', 3600e3], ['6 h', 6 * 3600e3], ['24 h', DAY], ['7 d', 7 * DAY]];
const STEPS = [10e3, 30e3, 60e3, 120e3, 300e3, 600e3, 1800e3, 3600e3, 3 * 3600e3, 6 * 3600e3, 12 * 3600e3, 86400e3, 2 * 86400e3, 7 * 86400e3];
const ROWS = 4;
const ROW = 22;
const BAR = 18;
const LEAST = 18; // a bar is never narrower: its sign must fit
const AXIS = 20;
const BRIEFEST = 120e3; // what a fitted window spans at least
const GAP = 1800e3;

const seconds = (ms) => Math.max(30e3, Math.round(ms / 1000) * 1000); // as the address has it

/**
 * The window that fits: from the last that happened back to where more of it would be gap than content, so that an hour's
 * trouble does not stand at the edge of an empty day. It ends now unless what there is, is long over.
 */
export function fit(entries, now) {
  const spans = entries.map((it) => [Math.max(it.began, now - DAY), Math.min(it.ended ?? now, now)])
    .filter(([began, ended]) => began <= ended).sort((a, b) => b[1] - a[1]);
  if (!spans.length) return { from: now - 900e3, to: now + 15e3 };
  let [[from, to]] = spans;
  for (const [began, ended] of spans) {
    if (from - ended > Math.max(GAP, to - from)) break;
    from = Math.min(from, began);
  }
  if (now - to <= Math.max(GAP, to - from)) to = now;
  from = Math.min(from, to - BRIEFEST);
  const edge = (to - from) * 0.03;
  return { from: from - edge, to: to + edge / 2 };
}

export class Timeline {
  constructor(parent, { view, moved, settled }) {
    this.view = view; // { range: null while it fits, end: null while it follows now }
    this.entries = [];
    this.moved = moved;
    this.settled = settled;
    this.made = new Map();
    this.grid = svg('g', { class: 'grid', 'aria-hidden': 'true' });
    this.links = svg('g', { class: 'links', 'aria-hidden': 'true' });
    this.names = svg('g', { class: 'names' });
    this.bars = svg('g', { class: 'bars' });
    this.svg = svg('svg', { class: 'tl', role: 'group', 'aria-label': 'Incidents by kind over time. Left and right move between them.' }, this.grid, this.links, this.names, this.bars);
    this.parent = parent;
    parent.append(this.svg);
    this.drags();
    for (const [type, on] of [['pointerover', true], ['pointerout', false], ['focusin', true], ['focusout', false]]) {
      this.bars.addEventListener(type, (event) => this.heat(event.target.closest?.('a')?.dataset.id, on));
    }
    this.svg.addEventListener('keydown', (event) => {
      if (event.key !== 'ArrowLeft' && event.key !== 'ArrowRight') return;
      const all = [...this.bars.querySelectorAll('a')].sort((a, b) => a.x - b.x);
      const at = all.indexOf(document.activeElement);
      const next = all[at + (event.key === 'ArrowLeft' ? -1 : 1)];
      if (at < 0 || !next) return;
      event.preventDefault();
      document.activeElement.setAttribute('tabindex', '-1');
      next.setAttribute('tabindex', '0');
      next.focus();
    });
  }

  /** What a window that fits is to fit. */
  contain(entries) { this.entries = entries; }

  window() {
    const now = serverNow();
    if (this.view.range === null) return { ...fit(this.entries, now), now };
    const to = this.view.end ?? now + this.view.range * 0.015;
    return { from: to - this.view.range, to, now };
  }

  /** Who moves a window that fits has one of that width. */
  fix() {
    const { from, to } = this.window();
    this.view.range ??= seconds(to - from);
    return to;
  }

  heat(id, on) {
    if (!id) return;
    for (const link of this.links.children) if (link.dataset.from === id || link.dataset.to === id) link.classList.toggle('hot', on);
  }

  drags() {
    let drag = null;
    this.svg.addEventListener('pointerdown', (event) => {
      if (event.button === 0) drag = { x: event.clientX, end: null, moved: false };
    });
    this.svg.addEventListener('pointermove', (event) => {
      if (!drag || !(event.buttons & 1)) { drag = null; return; }
      const dx = event.clientX - drag.x;
      if (!drag.moved && Math.abs(dx) < 5) return;
      if (!drag.moved) {
        this.svg.setPointerCapture(event.pointerId);
        drag.end = this.fix();
      }
      drag.moved = true;
      this.panTo(drag.end - (dx / (this.plot || 1)) * this.view.range);
      this.moved();
    });
    this.svg.addEventListener('pointerup', () => {
      if (drag?.moved) {
        this.svg.addEventListener('click', (event) => event.preventDefault(), { capture: true, once: true });
        this.settled();
      }
      drag = null;
    });
    this.svg.addEventListener('dragstart', (event) => event.preventDefault());
  }

  /** Beyond now there is nothing to see: there it follows. */
  panTo(end) { this.view.end = end >= serverNow() ? null : Math.round(end); }

  pan(share) {
    this.panTo(this.fix() + this.view.range * share);
    this.settled();
  }

  zoom(from, to) {
    this.view.range = seconds((to - from) * 1.3);
    this.panTo(to + (to - from) * 0.15);
    this.settled();
  }

  /** Draws `entries` (in the window, filtered). `unknownBefore`: what is older has not been fetched. */
  render(entries, unknownBefore) {
    const width = Math.floor(this.parent.clientWidth);
    if (!width) return;
    const { from, to, now } = this.window();
    const wide = width >= 640;
    const left = wide ? 168 : 0;
    this.plot = width - left;
    const x = (at) => left + ((at - from) / (to - from)) * this.plot;

    const lanes = new Map();
    for (const entry of entries) {
      const { kind } = entry.incident;
      if (!lanes.has(kind)) lanes.set(kind, []);
      lanes.get(kind).push(entry);
    }
    const grid = [];
    const names = [];
    const bars = [];
    const places = new Map();
    const seen = new Set();
    let y = AXIS + 4;
    // Causes stand above what they explain.
    const ids = new Set(entries.map((it) => it.incident.id));
    const explained = (kind) => lanes.get(kind).some((it) => it.incident.caused_by?.some((id) => ids.has(id)));
    for (const kind of [...lanes.keys()].sort((a, b) => explained(a) - explained(b) || (a < b ? -1 : 1))) {
      const lane = lanes.get(kind).sort((a, b) => a.began - b.began);
      names.push(svg('text', { x: wide ? 4 : 2, y: wide ? y + 15 : y + 11, class: 'lane' }, title(kind)));
      if (!wide) y += 16;
      const ends = [];
      let clusters = 0;
      let cluster = null;
      const put = (it) => { bars.push(this.cluster(it, y)); seen.add(it.key); };
      for (const entry of lane) {
        const end = entry.ended ?? Math.max(now, entry.began);
        const x0 = Math.min(Math.max(x(Math.min(entry.began, to)), left), width - LEAST);
        const x1 = Math.min(Math.max(x(Math.min(end, to)), x0 + LEAST), width);
        let row = ends.findIndex((last) => last + 3 <= x0);
        if (row < 0 && ends.length < ROWS) row = ends.push(0) - 1;
        if (row < 0) {
          clusters = 1;
          if (cluster && x0 <= cluster.x1 + 4) {
            cluster.x1 = Math.max(cluster.x1, x1);
            cluster.to = Math.max(cluster.to, end);
            cluster.entries.push(entry);
          } else {
            if (cluster) put(cluster);
            cluster = { key: `+${kind} ${entry.incident.id}`, kind, x0, x1, from: entry.began, to: end, entries: [entry] };
          }
          continue;
        }
        ends[row] = x1;
        const place = { x0, x1, y: y + row * ROW };
        places.set(entry.incident.id, place);
        seen.add(entry.incident.id);
        bars.push(this.bar(entry, place, entry.began < from, end > to || entry.ended === null));
      }
      if (cluster) put(cluster);
      y += (ends.length + clusters) * ROW + 8;
      grid.push(svg('line', { x1: 0, x2: width, y1: y - 5, y2: y - 5, class: 'rule' }));
    }
    if (lanes.size === 0) {
      grid.push(svg('text', { x: left + this.plot / 2, y: AXIS + 30, class: 'nothing', 'text-anchor': 'middle' }, 'No incidents in this window'));
      y = AXIS + 52;
    }
    this.ticks(grid, { from, to, now, left, width, height: y, x, wide });
    if (unknownBefore !== null && unknownBefore > from) {
      const edge = Math.min(x(unknownBefore), width);
      grid.push(svg('rect', { x: left, y: AXIS, width: Math.max(0, edge - left), height: y - AXIS, class: 'unknown' }),
        svg('text', { x: left + 6, y: y - 8, class: 'nothing' }, 'older ones are not loaded'));
    }
    this.svg.setAttribute('width', width);
    this.svg.setAttribute('height', y);
    this.svg.setAttribute('viewBox', `0 0 ${width} ${y}`);
    this.grid.replaceChildren(...grid);
    this.names.replaceChildren(...names);
    this.links.replaceChildren(...this.chains(entries, places));
    for (const id of [...this.made.keys()]) if (!seen.has(id)) this.made.delete(id);
    sync(this.bars, bars);
    if (bars.length && !bars.some((it) => it.getAttribute('tabindex') === '0')) bars[bars.length - 1].setAttribute('tabindex', '0');
    const hovered = this.bars.querySelector('a:hover, a:focus');
    if (hovered) this.heat(hovered.dataset.id, true);
  }

  ticks(grid, { from, to, now, left, width, height, x, wide }) {
    const step = STEPS.find((it) => ((to - from) / it) * (wide ? 84 : 74) <= this.plot) ?? STEPS.at(-1);
    const zone = zoneOffset(from);
    for (let at = Math.ceil((from + zone) / step) * step - zone; at <= to; at += step) {
      const px = x(at);
      grid.push(svg('line', { x1: px, x2: px, y1: AXIS, y2: height, class: 'tick' }));
      const label = step < 60e3 ? stamp(at) : tickLabel(at, step);
      if (px > left + 18 && px < width - 18) grid.push(svg('text', { x: px, y: 13, class: 'tick-label', 'text-anchor': 'middle' }, label));
    }
    if (now <= to) {
      const px = x(now);
      grid.push(svg('line', { x1: px, x2: px, y1: AXIS - 4, y2: height, class: 'now' }));
    }
  }

  /** The link of a bar: made once and kept, so that focus and a click under way survive. */
  link(key, make) {
    if (!this.made.has(key)) this.made.set(key, make());
    return this.made.get(key);
  }

  bar(entry, { x0, x1, y }, cutLeft, goesOn) {
    const { incident } = entry;
    const open = isOpen(incident);
    const link = this.link(incident.id, () => svg('a', { href: `#${incident.id}`, tabindex: '-1', testid: 'tl-bar', data: { id: incident.id } }));
    link.x = x0;
    link.setAttribute('class', `tl-bar ${severityClass(incident.severity)}${open ? ' open' : ''}`);
    link.dataset.state = incident.state;
    const began = stamp(entry.began);
    const says = `${incident.severity}: ${called(incident).slice(0, 200)}, ${open ? `open since ${began}` : `${began}, lasted ${duration(incident.duration_ms)}`}`;
    link.setAttribute('aria-label', plain(says));
    const width = x1 - x0;
    const point = goesOn && width > LEAST + 6 ? 6 : 0;
    const l = cutLeft ? 0 : 3;
    const shape = point ? `M${x0 + l} ${y}H${x1 - point}L${x1} ${y + BAR / 2} ${x1 - point} ${y + BAR}H${x0 + l}q${-l} 0 ${-l} ${-l}V${y + l}q0 ${-l} ${l} ${-l}z`
      : `M${x0 + l} ${y}H${x1 - 3}q3 0 3 3V${y + BAR - 3}q0 3 -3 3H${x0 + l}q${-l} 0 ${-l} ${-l}V${y + l}q0 ${-l} ${l} ${-l}z`;
    const room = Math.floor((width - 26 - point) / 6.6);
    const name = shortName(incident);
    const glyph = sign(incident.severity, 12);
    glyph.setAttribute('x', x0 + 3);
    glyph.setAttribute('y', y + 3);
    link.replaceChildren(svg('title', {}, `${says}\n${incident.summary.slice(0, 600)}`), svg('path', { d: shape, class: 'bar-shape' }), glyph,
      ...(room >= 5 ? [svg('text', { x: x0 + 19, y: y + 13, class: 'bar-text' }, name.length > room ? `${name.slice(0, room - 1)}…` : name)] : []));
    return link;
  }

  cluster({ key, kind, x0, x1, from, to, entries }, y) {
    const at = y + ROWS * ROW;
    const worst = entries.reduce((a, b) => (gravity(a.incident) <= gravity(b.incident) ? a : b)).incident.severity;
    const link = this.link(key, () => {
      const made = svg('a', { href: '#', tabindex: '-1', testid: 'tl-cluster' });
      made.addEventListener('click', (event) => { event.preventDefault(); this.zoom(made.from, made.to); });
      return made;
    });
    Object.assign(link, { x: x0, from, to });
    link.setAttribute('class', `tl-bar cluster ${severityClass(worst)}`);
    const says = `${entries.length} more: ${title(kind)}, ${worst} and below. Opens this stretch of time.`;
    link.setAttribute('aria-label', says);
    const text = `+${entries.length}`;
    link.replaceChildren(svg('title', {}, says), svg('rect', { x: x0, y: at, width: x1 - x0, height: BAR, rx: 3, class: 'bar-shape' }),
      svg('text', { x: (x0 + x1) / 2, y: at + 13, class: 'bar-text', 'text-anchor': 'middle' }, text.length * 7 > x1 - x0 ? '+' : text));
    return link;
  }

  chains(entries, places) {
    const paths = [];
    for (const { incident } of entries) {
      const effect = places.get(incident.id);
      for (const id of effect ? incident.caused_by ?? [] : []) {
        const cause = places.get(id);
        if (!cause) continue;
        const down = effect.y >= cause.y ? 1 : -1;
        const [sx, sy] = [cause.x0 + 9, cause.y + (down > 0 ? BAR : 0)];
        const [ex, ey] = [effect.x0 + 9, effect.y + (down > 0 ? 0 : BAR)];
        const bow = Math.max(14, Math.abs(ey - sy) / 2) * down;
        paths.push(svg('g', { class: 'chain', testid: 'tl-chain', data: { from: id, to: incident.id } },
          svg('path', { class: 'chain-line', d: `M${sx} ${sy}C${sx} ${sy + bow} ${ex} ${ey - bow - 5 * down} ${ex} ${ey - 5 * down}` }),
          svg('path', { class: 'chain-end', d: `M${ex - 4} ${ey - 7 * down}L${ex + 4} ${ey - 7 * down} ${ex} ${ey}z` })));
      }
    }
    return paths;
  }
}

export function legend(parent) {
  sync(parent, [sign('critical', 14), ' critical ', sign('warning', 14), ' warning ', sign('info', 14), ' info · a pointed end: still going · an arrow: from a cause to what it explains']
    .map((it) => (typeof it === 'string' ? h('span', {}, it) : it)));
}

export function rangeButtons(parent, view, changed) {
  const buttons = RANGES.map(([name, ms]) => {
    const button = h('button', { type: 'button', testid: `range-${name.replace(' ', '')}` }, name);
    button.addEventListener('click', () => changed(ms));
    return [button, ms];
  });
  sync(parent, buttons.map(([button]) => button));
  return () => { for (const [button, ms] of buttons) button.setAttribute('aria-pressed', String(view.range === ms)); };
}

export function sayWindow(element, { from, to }, follows) {
  say(element, follows ? `from ${stamp(from, false)} to now` : `${stamp(from, false)} – ${stamp(to, false)}`);
}
