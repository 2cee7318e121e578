// One incident, whole, in a dialog.

import { byId, copyButton, exact, h, many, named, severityClass, sign, visible } from './dom.js';
import { duration, timeElement } from './time.js';
import { called, endpointName, isOpen, processName, title, unitName } from './store.js';
import { isId } from './api.js';
import { ageText } from './list.js';

const CAUSES = {
  outbound_connect: 'a connect to somewhere else', dns_lookup: 'a DNS lookup', neighbour: 'a neighbour (ARP, NDP)', clock: 'the clock',
  peer: 'a peer that accepted and does not answer', path: 'the way to the peer', filter: 'a packet filter of this host', unread: 'no thread reads the ClientHello', listen_limit: 'an accept queue at its limit', none_seen: 'nothing on the network: see what its threads do',
  local_service: 'a process of this host that waits for another server',
  certificate: 'a certificate that is refused, or missing',
  parameters: 'what one side offers and the other does not accept',
  file_system: 'a file system that does not answer',
  pipe: 'a pipe whose other end is idle',
  resource_limit: 'a limit of the process',
  throttled: 'its control group is throttled',
  frozen: 'its control group is frozen',
};
const CONFIDENCE = { certain: 'it was seen to wait for exactly this', likely: 'it fits in time and place', possible: 'it fits, and so may other things' };

const section = (name, testid, ...inside) => h('section', { testid }, h('h3', {}, name), ...inside);
const words = (key) => key.replace(/_(ms|ns)$/, '').replaceAll('_', ' ');

const LONG = 300; // letters of a name; the JSON has all
const SENTENCE = 4000;

function facts(pairs) {
  const rows = pairs.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return rows.length ? h('dl', { class: 'facts' }, rows.map(([name, value]) => [h('dt', {}, name), h('dd', {}, value instanceof Node ? value : named(value, LONG))])) : null;
}

function offset(ms) {
  const sign = ms < 0 ? '−' : '+';
  return Math.abs(ms) < 60000 ? `${sign}${(Math.abs(ms) / 1000).toFixed(3)} s` : `${sign}${duration(Math.abs(ms))}`;
}

function identity(process, name) {
  if (!process) return null;
  return facts([
    [name, h('b', {}, named(processName(process), LONG))], ['executable', process.exe], ['unit', unitName(process)],
    ['container', [process.container, process.container_id].filter(Boolean).join(' · ')],
    ['pod', [process.namespace, process.pod].filter(Boolean).join('/')], ['network namespace', process.netns],
  ]);
}

const item = (value) => (value === null || value instanceof Node ? value : named(value, LONG));

/** Any value of `details`, readable: durations as such, endpoints as addresses, lists as lists. */
function readable(key, value, depth = 0) {
  if (value === null || value === undefined) return null;
  if (typeof value === 'number' && key.endsWith('_ms')) return duration(value);
  if (typeof value === 'number' && key.endsWith('_ns')) return `${value < 0 ? '−' : ''}${duration(Math.abs(value) / 1e6)}`;
  if (typeof value !== 'object') return String(value);
  if (depth > 4) return JSON.stringify(value).slice(0, 400);
  if (typeof value.ip === 'string') return endpointName(value);
  if (typeof value.comm === 'string' && typeof value.pid === 'number') return processName(value);
  if (Array.isArray(value)) {
    if (!value.length) return null;
    if (value.every((it) => typeof it !== 'object')) return named(value.join(key === 'stack' ? ' ← ' : ', '), SENTENCE);
    const shown = value.slice(0, 20).map((it) => h('li', {}, item(readable('', it, depth + 1))));
    return h('ol', { class: 'facts-list' }, shown, value.length > 20 && h('li', {}, `and ${value.length - 20} more: see the JSON`));
  }
  return facts(Object.entries(value).map(([name, it]) => [words(name), readable(name, it, depth + 1)]));
}

export class Details {
  constructor({ store, fetchOne, closed }) {
    Object.assign(this, { store, fetchOne, closed, id: null, drawn: null, failed: new Map() });
    this.dialog = byId('details');
    this.dialog.addEventListener('close', () => { this.id = null; this.drawn = null; this.dialog.replaceChildren(); this.closed(); });
    this.dialog.addEventListener('click', (event) => { if (event.target === this.dialog) this.dialog.close(); });
  }

  get isOpen() { return this.dialog.open; }

  show(id) {
    if (this.id !== id) { this.drawn = null; this.failed.delete(id); }
    this.id = id;
    if (isId(id)) this.store.pin(id);
    else this.failed.set(id, 'no incident has such an id.');
    this.render();
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    this.dialog.querySelector('h2')?.focus();
  }

  /** An incident that is not held is asked for once; the answer draws again. */
  want(id) {
    if (this.failed.has(id)) return;
    this.failed.set(id, 'asking the server…');
    this.store.pin(id);
    this.fetchOne(id).then((found) => {
      this.failed.delete(id);
      // Asked for by the end of its id, as `culprit incidents` lists it.
      if (found.id !== id && this.id === id) { history.replaceState(null, '', `#${found.id}`); this.show(found.id); }
    }, (error) => this.failed.set(id, error.status === 404 ? `${error.message}. It may be forgotten by now, or be another machine’s.` : error.message))
      .then(() => this.render(true));
    if (this.failed.size > 200) this.failed.delete(this.failed.keys().next().value);
  }

  render(again = false) {
    if (!this.id) return;
    const entry = this.store.get(this.id);
    const explains = this.store.explained().get(this.id) ?? [];
    const linked = [...(entry?.incident.caused_by ?? []), ...explains];
    const key = `${this.id} ${entry?.version} ${linked.map((id) => this.store.get(id)?.version)}`;
    if (!again && key === this.drawn) return;
    this.drawn = key;
    const focused = this.dialog.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const jsonOpen = this.dialog.querySelector('.raw')?.open;
    const factsOpen = this.dialog.querySelector('.more-facts')?.open;
    const scroll = this.dialog.scrollTop;
    this.dialog.replaceChildren(...(entry ? this.whole(entry, explains) : this.missing()).filter(Boolean));
    if (jsonOpen) this.dialog.querySelector('.raw').open = true;
    if (factsOpen && this.dialog.querySelector('.more-facts')) this.dialog.querySelector('.more-facts').open = true;
    this.dialog.scrollTop = scroll;
    if (focused) [...this.dialog.querySelectorAll('[data-key]')].find((it) => it.dataset.key === focused)?.focus({ preventScroll: true });
  }

  head(...inside) {
    const close = h('button', { type: 'button', class: 'close', testid: 'details-close', 'aria-label': 'Close', data: { key: 'close' } }, '✕');
    close.addEventListener('click', () => this.dialog.close());
    return h('header', {}, h('div', { class: 'grow' }, ...inside), close);
  }

  missing() {
    this.want(this.id);
    return [this.head(h('h2', { id: 'details-title', testid: 'details-title', tabindex: '-1', data: { key: 'title' } }, 'Incident')),
      h('p', { testid: 'details-missing' }, named(this.id), ': ', this.failed.get(this.id))];
  }

  linkTo(id, testid) {
    const entry = this.store.get(id);
    if (!entry) this.want(id);
    const { incident } = entry ?? {};
    return h('li', {}, h('a', { href: `#${id}`, testid, data: { id, key: `link ${id}` }, class: incident ? severityClass(incident.severity) : '' },
      incident ? [sign(incident.severity, 14), ' ', h('b', {}, named(called(incident), 100)), ` · ${isOpen(incident) ? 'open' : 'resolved'}: `, named(incident.summary, 300)]
        : `${id}: ${this.failed.get(id)}`));
  }

  whole(entry, explains) {
    const { incident } = entry;
    const { cause } = incident;
    const open = isOpen(incident);
    const causes = incident.caused_by ?? [];
    return [
      this.head(
        h('p', { class: `line ${severityClass(incident.severity)}` }, sign(incident.severity, 18),
          h('span', { class: `severity ${severityClass(incident.severity)}` }, incident.severity),
          h('span', { class: 'badge', testid: 'details-state' }, open ? 'open' : 'resolved'),
          incident.count > 1 && h('span', { class: 'count' }, many(incident.count, 'time'))),
        h('h2', { id: 'details-title', testid: 'details-title', tabindex: '-1', data: { key: 'title' } }, title(incident.kind))),
      h('p', { class: 'summary big', testid: 'details-summary' }, named(incident.summary, SENTENCE)),
      h('p', { class: 'line small' },
        // One that came back has begun again since it was opened.
        ...(incident.began_at > incident.opened_at
          ? [h('span', {}, 'first opened ', timeElement(incident.opened_at)), h('span', {}, 'again since ', timeElement(incident.began_at))]
          : [h('span', {}, 'since ', timeElement(incident.began_at)), h('span', {}, 'opened ', timeElement(incident.opened_at))]),
        incident.resolved_at && h('span', {}, 'resolved ', timeElement(incident.resolved_at)),
        h('span', {}, open ? 'open for ' : 'lasted ', h('b', { data: { age: incident.id } }, ageText(this.store, entry)))),
      incident.why?.length && section('Why', 'why', h('ul', {}, incident.why.map((it) => h('li', {}, named(it, SENTENCE))))),
      cause && section('Cause', 'cause',
        h('p', {}, h('b', {}, CAUSES[cause.kind] ?? words(cause.kind)), ' — ',
          h('span', { class: `confidence conf-${['certain', 'likely'].includes(cause.confidence) ? cause.confidence : 'possible'}`, testid: 'confidence' }, cause.confidence),
          CONFIDENCE[cause.confidence] && h('span', { class: 'muted' }, ` (${CONFIDENCE[cause.confidence]})`)),
        facts([['to', endpointName(cause.destination)], ['looked up', cause.query], ['outcome', cause.outcome?.replaceAll('_', ' ')],
          ['SYN retries', cause.syn_retransmits || null], ['dropped by this host', cause.dropped_by_host || null], ['drop reason', cause.drop_reason],
          ['for', cause.elapsed_ms ? duration(cause.elapsed_ms) : null]]),
        identity(cause.process, 'by')),
      causes.length > 0 && section('Caused by', 'caused-by', h('ul', { class: 'links-list' }, causes.map((id) => this.linkTo(id, 'caused-by-link')))),
      explains.length > 0 && section('Explains', 'explains', h('ul', { class: 'links-list' }, explains.slice(0, 50).map((id) => this.linkTo(id, 'explains-link'))),
        explains.length > 50 && h('p', {}, `and ${explains.length - 50} more`)),
      incident.remedies?.length && section('Try', 'remedies', h('ol', { class: 'remedies' }, incident.remedies.map((it, i) => h('li', { testid: 'remedy' },
        h('code', {}, exact(it)), copyButton(it, `Copy remedy ${i + 1}`))))),
      incident.evidence?.length && section('Evidence', 'evidence',
        h('p', { class: 'muted small' }, 'offsets from the moment it was opened, ', timeElement(incident.opened_at)),
        h('ol', { class: 'evidence' }, incident.evidence.map((it) => h('li', { testid: 'evidence-line' }, h('span', { class: 'offset' }, offset(it.offset_ms)), h('span', {}, named(it.text, SENTENCE)))))),
      incident.process && section('Who suffers', 'identity', identity(incident.process, 'process')),
      h('details', { class: 'more-facts' }, h('summary', { data: { key: 'facts' } }, 'More facts'), readable('', incident.details), facts([['node', incident.node], ['id', incident.id]])),
      this.raw(incident),
    ];
  }

  raw(incident) {
    const pre = h('pre', { testid: 'raw', tabindex: '0' });
    const raw = h('details', { class: 'raw', testid: 'raw-toggle' }, h('summary', { data: { key: 'raw' } }, 'Raw JSON'),
      h('p', { class: 'line small' }, copyButton(JSON.stringify(incident, null, 2), 'Copy the JSON'),
        h('a', { href: `/api/v1/incidents/${encodeURIComponent(incident.id)}`, target: '_blank', rel: 'noopener' }, 'from the API'),
        h('a', { href: `/api/v1/incidents/${encodeURIComponent(incident.id)}?format=text`, target: '_blank', rel: 'noopener' }, 'as text')),
      pre);
    raw.addEventListener('toggle', () => { if (raw.open && !pre.textContent) pre.textContent = visible(JSON.stringify(incident, null, 2)); });
    return raw;
  }
}
