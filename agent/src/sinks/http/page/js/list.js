// The incidents as links: cards for those that are open, rows for those that are over.

import { h, say, severityClass, sign, sync } from './dom.js';
import { age, duration, isUtc, timeElement } from './time.js';
import { endpointName, isOpen, processName, title } from './store.js';

export const STEP = 50;

export function ageText(store, entry) {
  return isOpen(entry.incident) ? age(store.age(entry)) : duration(entry.incident.duration_ms);
}

function where({ process, cause, node }) {
  const place = [process?.unit, [process?.namespace, process?.pod, process?.container].filter(Boolean).join('/')].filter(Boolean).join(' · ');
  return [processName(process) || endpointName(cause?.destination) || node, place].filter(Boolean).join(' · ');
}

function inside(store, entry, explains) {
  const { incident } = entry;
  const open = isOpen(incident);
  const causes = (incident.caused_by ?? []).length;
  return [
    h('span', { class: 'line' },
      sign(incident.severity),
      h('span', { class: `severity ${severityClass(incident.severity)}`, testid: 'severity' }, incident.severity),
      h('strong', { class: 'kind' }, title(incident.kind)),
      incident.count > 1 && h('span', { class: 'count', title: `happened ${incident.count} times` }, `×${incident.count}`),
      h('span', { class: 'where' }, where(incident)),
      h('span', { class: 'age' }, open ? 'open for ' : 'lasted ', h('b', { testid: 'age', data: { age: incident.id } }, ageText(store, entry)))),
    h('span', { class: 'summary', testid: 'summary' }, incident.summary),
    h('span', { class: 'line small' },
      h('span', {}, 'since ', timeElement(entry.began)),
      causes > 0 && h('span', { class: 'chip', testid: 'chip-caused-by' }, `↳ explained by ${causes === 1 ? 'another incident' : `${causes} others`}`),
      explains > 0 && h('span', { class: 'chip', testid: 'chip-explains' }, `explains ${explains === 1 ? 'another incident' : `${explains} others`}`)),
  ];
}

export class List {
  constructor(parent, more, className) {
    Object.assign(this, { parent, more, className, made: new Map(), shown: STEP });
  }

  /** `beyond` is the text of the button when everything held is shown and the server has more; `load` fetches that. */
  render(store, entries, explained, beyond, load) {
    const seen = new Set();
    const items = entries.slice(0, this.shown).map((entry) => {
      const { id } = entry.incident;
      seen.add(id);
      const explains = explained.get(id)?.length ?? 0;
      const key = `${entry.version} ${explains} ${isUtc()}`;
      let made = this.made.get(id);
      if (!made) {
        const link = h('a', { href: `#${id}`, data: { id, item: '' }, testid: 'incident' });
        made = { key: null, link, item: h('li', {}, link) };
        this.made.set(id, made);
      }
      if (made.key !== key) {
        made.key = key;
        made.link.className = `${this.className} ${severityClass(entry.incident.severity)}`;
        made.link.dataset.kind = entry.incident.kind;
        made.link.dataset.severity = entry.incident.severity;
        made.link.dataset.state = entry.incident.state;
        made.link.replaceChildren(...inside(store, entry, explains).flat().filter(Boolean));
      }
      return made.item;
    });
    for (const id of [...this.made.keys()]) if (!seen.has(id)) this.made.delete(id);
    sync(this.parent, items);
    const rest = entries.length - items.length;
    this.more.hidden = rest === 0 && !beyond;
    say(this.more, rest > 0 ? `Show ${Math.min(rest, STEP)} more of ${rest}` : beyond || '');
    this.more.onclick = () => {
      if (rest === 0) { load(); return; }
      const last = this.parent.lastElementChild;
      this.shown += STEP;
      this.onmore?.();
      last?.nextElementSibling?.querySelector('a')?.focus();
    };
  }
}
