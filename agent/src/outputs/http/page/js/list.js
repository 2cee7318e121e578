// The incidents as links: cards for those that are open, rows for those that are over. What explains others has them
// below itself, and many alike are one row that opens.

import { h, many, named, say, severityClass, sign, sync } from './dom.js';
import { age, duration, isUtc, timeElement } from './time.js';
import { called, endpointName, gravity, isOpen, processName, title, unitName } from './store.js';

export const STEP = 50;

export function ageText(store, entry) {
  return isOpen(entry.incident) ? age(store.age(entry)) : duration(entry.incident.duration_ms);
}

/** Names, each bounded by itself, or what was joined of them. */
const joined = (parts, by) => parts.filter(Boolean).flatMap((part, at) => [at > 0 && by, Array.isArray(part) ? part : named(part)]);

function where({ process, cause, node }) {
  const pod = joined([process?.namespace, process?.pod, process?.container], '/');
  return joined([processName(process) || endpointName(cause?.destination) || node, process && unitName(process), pod.length && pod], ' · ');
}

/** What explains it, by name; what is not held has none. */
function explainedBy(store, incident) {
  const causes = (incident.caused_by ?? []).map((id) => store.get(id)?.incident).filter(Boolean);
  if (!causes.length) return 'explained by an incident that is not shown';
  return ['explained by ', named(called(causes[0]), 100), !isOpen(causes[0]) && ', which is resolved',
    causes.length > 1 && ` and ${many(causes.length - 1, 'other')}`];
}

function inside(store, entry, explains) {
  const { incident } = entry;
  const open = isOpen(incident);
  return [
    h('span', { class: 'line' },
      sign(incident.severity),
      h('span', { class: `severity ${severityClass(incident.severity)}`, testid: 'severity' }, incident.severity),
      h('strong', { class: 'kind' }, title(incident.kind)),
      incident.count > 1 && h('span', { class: 'count' }, many(incident.count, 'time')),
      h('span', { class: 'where' }, where(incident)),
      h('span', { class: 'age' }, open ? 'open for ' : 'lasted ', h('b', { testid: 'age', data: { age: incident.id } }, ageText(store, entry)))),
    h('span', { class: 'summary', testid: 'summary' }, named(incident.summary, 600)),
    h('span', { class: 'line small' },
      h('span', {}, 'since ', timeElement(entry.began)),
      incident.caused_by?.length > 0 && h('span', { class: 'chip', testid: 'chip-caused-by' }, '↳ ', explainedBy(store, incident)),
      explains > 0 && h('span', { class: 'chip', testid: 'chip-explains' }, `explains ${many(explains, 'other')}`)),
  ];
}

export class List {
  /** `onmore`, to be set: draws again, at once. */
  constructor(parent, more, className) {
    Object.assign(this, { parent, more, className, made: new Map(), shown: STEP, limits: new Map(), unfolded: new Set() });
  }

  /** Back to the first ones, and everything folded. */
  reset() {
    this.shown = STEP;
    this.limits.clear();
    this.unfolded.clear();
  }

  /** `beyond` is the text of the button when everything held is shown and the server has more; `load` fetches that. */
  render(store, items, explained, beyond, load) {
    this.seen = new Set();
    this.store = store;
    this.explained = explained;
    const rest = items.length - this.shown;
    sync(this.parent, items.slice(0, this.shown).map((item) => this.item(item)));
    for (const key of [...this.made.keys()]) if (!this.seen.has(key)) this.made.delete(key);
    this.more.hidden = rest <= 0 && !beyond;
    say(this.more, rest > 0 ? `Show ${Math.min(rest, STEP)} more of ${rest}` : beyond || '');
    this.more.onclick = () => {
      if (rest <= 0) { load(); return; }
      const last = this.parent.lastElementChild;
      this.shown += STEP;
      this.onmore();
      last?.nextElementSibling?.querySelector('[data-item]')?.focus();
    };
  }

  make(key, build) {
    this.seen.add(key);
    if (!this.made.has(key)) this.made.set(key, build());
    return this.made.get(key);
  }

  item(item) { return item.fold ? this.fold(item) : this.single(item); }

  single({ entry, under }) {
    const { incident } = entry;
    const { id } = incident;
    const made = this.make(id, () => {
      const link = h('a', { href: `#${id}`, data: { id, item: '' }, testid: 'incident' });
      return { key: null, link, item: h('li', {}, link), below: null };
    });
    const explains = this.explained.get(id)?.length ?? 0;
    const causes = (incident.caused_by ?? []).map((it) => this.store.get(it)?.version);
    const key = `${entry.version} ${explains} ${causes} ${isUtc()}`;
    if (made.key !== key) {
      made.key = key;
      made.link.className = `${this.className} ${severityClass(incident.severity)}`;
      Object.assign(made.link.dataset, { kind: incident.kind, severity: incident.severity, state: incident.state });
      made.link.replaceChildren(...inside(this.store, entry, explains));
    }
    if (under.length) {
      made.below ??= h('ol', { class: 'under', testid: 'under', 'aria-label': `Explained by ${called(incident)}` });
      if (!made.below.isConnected) made.item.append(made.below);
      this.fill(made.below, id, under);
    } else {
      made.below?.remove();
    }
    return made.item;
  }

  /** One row for many alike; what is in it is made when it is opened. */
  fold({ key, fold: entries }) {
    const made = this.make(key, () => {
      const summary = h('summary', { testid: 'fold', data: { item: '' } });
      const inner = h('ol', { class: 'under' });
      const row = h('details', { class: 'fold' }, summary, inner);
      summary.addEventListener('click', (event) => {
        event.preventDefault(); // it opens as it is drawn
        this.unfolded[row.open ? 'delete' : 'add'](key);
        this.onmore();
      });
      return { row, summary, inner, item: h('li', {}, row) };
    });
    const worst = entries.reduce((a, b) => (gravity(a.incident) <= gravity(b.incident) ? a : b)).incident;
    const says = `${entries.length} ${Math.max(...entries.map((it) => it.version))} ${isUtc()}`;
    if (made.says !== says) {
      made.says = says;
      made.summary.className = `${this.className} ${severityClass(worst.severity)}`;
      const open = entries.filter((entry) => isOpen(entry.incident)).length;
      made.summary.replaceChildren(h('span', { class: 'line' }, sign(worst.severity),
        h('span', { class: `severity ${severityClass(worst.severity)}` }, worst.severity),
        h('strong', { class: 'kind' }, title(worst.kind)), h('span', { class: 'where' }, named(worst.process.comm)),
        h('b', { testid: 'fold-count' }, many(entries.length, 'incident'))),
      h('span', { class: 'line small' }, h('span', {}, open ? 'first since ' : 'first began ', timeElement(Math.min(...entries.map((it) => it.began)))),
        h('span', {}, 'last ', timeElement(Math.max(...entries.map((it) => it.began))))));
    }
    made.row.open = this.unfolded.has(key);
    if (made.row.open) this.fill(made.inner, key, entries.map((entry) => ({ entry, under: [] })));
    else made.inner.replaceChildren();
    return made.item;
  }

  /** The first ones of a list within the list, and a button for the rest. */
  fill(parent, key, items) {
    const limit = this.limits.get(key) ?? STEP;
    const wanted = items.slice(0, limit).map((item) => this.item(item));
    const rest = items.length - limit;
    if (rest > 0) {
      const { item, button } = this.make(`more ${key}`, () => {
        const button = h('button', { type: 'button', class: 'more' });
        return { button, item: h('li', {}, button) };
      });
      say(button, `Show ${Math.min(rest, STEP)} more of ${rest}`);
      button.onclick = () => {
        this.limits.set(key, limit + STEP);
        const last = item.previousElementSibling;
        this.onmore();
        last?.nextElementSibling?.querySelector('[data-item]')?.focus();
      };
      wanted.push(item);
    }
    sync(parent, wanted);
  }
}
