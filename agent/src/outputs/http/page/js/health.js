// How well the agent itself sees: its probes, what they lost, and the rates of what passes by.

import { byId, h, plain, say, svg, sync } from './dom.js';
import { duration, serverNow, timeElement } from './time.js';

const count = (n) => Number(n || 0).toLocaleString('en-US');
const whys = (probe) => [...(probe.degraded ?? []), ...(probe.hooks ?? []).filter((hook) => !hook.attached && hook.why).map((hook) => `${hook.gives || hook.program}: ${hook.why}`)];

export class Probes {
  constructor() {
    this.said = null;
    this.error = null;
    this.losing = new Map(); // probe → { lost, grewAt }
    this.unfolded = new Set();
  }

  take(said) {
    this.said = said;
    this.error = null;
    const now = performance.now();
    for (const { name, lost = 0 } of said.probes ?? []) {
      const before = this.losing.get(name);
      const grew = before && lost > before.lost;
      this.losing.set(name, { lost, by: grew ? lost - before.lost : before?.by ?? 0, grewAt: grew ? now : before?.grewAt ?? null });
    }
  }

  /** { attached, of, degraded: [names], lost, losing } or null while nothing is known. */
  summary() {
    if (!Array.isArray(this.said?.probes)) return null;
    const { probes } = this.said;
    const now = performance.now();
    return {
      of: probes.length, attached: probes.filter((it) => it.attached).length,
      bad: probes.filter((it) => !it.attached || it.degraded?.length).map((it) => it.name),
      lost: probes.reduce((sum, it) => sum + (it.lost || 0), 0),
      lossy: probes.filter((it) => it.lost > 0).map((it) => `${it.name} ${count(it.lost)}`),
      losing: [...this.losing.values()].some((it) => it.grewAt !== null && now - it.grewAt < 60000),
      startedAt: Date.parse(this.said.started_at),
    };
  }

  render() {
    const list = byId('probes');
    if (!this.said) {
      sync(list, [h('li', { class: 'muted' }, this.error ? `unknown: ${this.error}` : 'asking…')]);
      return;
    }
    const { probes = [], node = '', version = '', kernel = '', started_at: started } = this.said;
    list.replaceChildren(...probes.map((probe) => {
      const state = !probe.attached ? 'off' : probe.degraded?.length ? 'degraded' : 'fine';
      const why = whys(probe);
      const loss = this.losing.get(probe.name);
      const growing = loss?.grewAt !== null && performance.now() - loss.grewAt < 60000;
      const unfold = h('details', {},
        h('summary', { data: { key: `probe ${probe.name}` } },
          h('span', { class: `dot dot-${state}`, 'aria-hidden': 'true' }, { off: '✕', degraded: '!', fine: '✓' }[state]),
          h('b', {}, probe.name), ' ',
          h('span', { class: `probe-state state-${state}`, testid: 'probe-state' }, { off: 'not attached', degraded: 'degraded', fine: 'attached' }[state]),
          h('span', { class: 'muted received', title: 'records received from the kernel' }, count(probe.received))),
        h('p', { class: 'muted' }, probe.about),
        h('ul', { class: 'hooks' }, (probe.hooks ?? []).map((hook) => h('li', {}, hook.attached ? '✓ ' : '✕ ', h('code', {}, hook.program), ' ', h('span', { class: 'muted' }, hook.gives),
          !hook.attached && hook.why && h('b', {}, ` ${hook.why}`)))));
      unfold.open = this.unfolded.has(probe.name);
      unfold.addEventListener('toggle', () => this.unfolded[unfold.open ? 'add' : 'delete'](probe.name));
      return h('li', { testid: 'probe', data: { probe: probe.name, state }, class: `probe probe-${state}` }, unfold,
        probe.lost > 0 && h('p', { class: 'lost', testid: 'probe-lost' }, `${count(probe.lost)} records lost${growing ? `, ${count(loss.by)} of them just now` : ''}`),
        why.slice(0, 6).map((it) => h('p', { class: 'why', testid: 'probe-why' }, it)));
    }));
    say(byId('node'), node);
    byId('about').replaceChildren(plain(`culprit ${version} on ${node}, Linux ${kernel}, watching since `), timeElement(started),
      ` (${duration(serverNow() - Date.parse(started))})`);
  }
}

const POINTS = 180;
const [W, H] = [220, 36];

function number(value) {
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  if (size >= 1e4) return `${(value / 1e3).toFixed(1)} k`;
  return size >= 100 ? value.toFixed(0) : size >= 1 ? value.toFixed(1) : value.toPrecision(2);
}

export function renderRates(said, error) {
  const box = byId('rates');
  if (!said) {
    sync(box, [h('p', { class: 'muted' }, error ? `unknown: ${error}` : 'asking…')]);
    return;
  }
  const step = said.step_s || 10;
  box.replaceChildren(...(said.series ?? []).slice(0, 24).map(({ name, label, unit = '', points = [] }) => {
    const shown = points.slice(-POINTS).map((it) => (Number.isFinite(it) ? it : null));
    const known = shown.filter((it) => it !== null);
    const most = Math.max(...known, 0);
    const last = shown.length ? shown[shown.length - 1] : null;
    // A gap in the points is a gap in the line.
    const d = shown.map((it, i) => {
      if (it === null) return '';
      const at = `${(W - 2 - (shown.length - 1 - i) * ((W - 4) / (POINTS - 1))).toFixed(1)} ${(H - 3 - (most ? it / most : 0) * (H - 8)).toFixed(1)}`;
      return (shown[i - 1] ?? null) === null ? `M${at}h.1` : `L${at}`;
    }).join('');
    const span = duration(shown.length * step * 1000);
    const now = last === null ? '–' : `${number(last)}${unit === '/s' ? '' : ' '}${unit}`;
    return h('div', { class: 'rate', testid: 'rate', data: { series: name } },
      h('div', { class: 'rate-head' }, h('span', {}, label || name), h('b', {}, now)),
      svg('svg', { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `${label || name}: ${now} now, at most ${number(most)}${unit} in ${span}` },
        svg('path', { class: 'spark-base', d: `M0 ${H - 2.5}H${W}` }), svg('path', { class: 'spark', d })),
      h('div', { class: 'rate-foot' }, known.length ? `at most ${number(most)}${unit === '/s' ? '' : ' '}${unit} in ${span}` : 'nothing measured yet'));
  }));
}
