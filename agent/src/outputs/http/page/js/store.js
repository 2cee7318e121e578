// The incidents this page holds: those that are open, those of the window in view, and those looked at. Bounded, so that
// the page can be left open for weeks.

import { serverNow, ticks } from './time.js';

export const MOST_HELD = 5000;
const MOST_PINNED = 64;

export const isOpen = (incident) => incident.state !== 'resolved';
const GRAVITY = { critical: 0, warning: 1, info: 2 };
export const gravity = (incident) => GRAVITY[incident.severity] ?? 3;
export const title = (kind) => { const words = kind.replaceAll('_', ' ').replace(/^tls/, 'TLS'); return words[0].toUpperCase() + words.slice(1); };

export function processName(process) {
  if (!process) return '';
  const thread = process.tid && process.tid !== process.pid ? `·${process.tid}` : '';
  return `${process.comm}[${process.pid}${thread}]${process.netns ? `@${process.netns}` : ''}`;
}
export function endpointName(endpoint) {
  if (!endpoint) return '';
  const port = endpoint.port ? `:${endpoint.port}` : '';
  const ip = endpoint.ip?.includes(':') && port ? `[${endpoint.ip}]${port}` : `${endpoint.ip}${port}`;
  return endpoint.name ? `${endpoint.name} (${ip})` : ip;
}
/** The unit a process runs in; a scope that is named by a digest says nothing. */
export const unitName = ({ unit } = {}) => (unit && !/[0-9a-f]{12,}.*\.scope$/i.test(unit) ? unit : '');

/** The few words by which an incident is known on the time line. */
export function shortName(incident) {
  const { process, details, cause } = incident;
  return process ? `${process.comm}[${process.pid}]` : details?.address || endpointName(cause?.destination) || details?.family
    || details?.reference?.name || title(incident.kind);
}

/** What an incident is called where another names it: `Neighbour stale 10.0.1.90 on eth0`. */
export function called(incident) {
  const { process, details } = incident;
  const who = process ? `${process.comm}[${process.pid}]` : '';
  const place = details?.address ? `${details.address}${details.device ? ` on ${details.device}` : ''}` : '';
  const to = details?.destination ? endpointName(details.destination) : '';
  return [title(incident.kind), place || [who, to].filter(Boolean).join(' to ') || details?.family || details?.reference?.name].filter(Boolean).join(' ');
}

/** The program that suffers, by which incidents fold: what one program does in a hundred processes is one line. */
export const program = ({ process }) => (process ? `${process.exe ?? ''} ${process.comm}` : null);

export class Store {
  constructor() {
    this.entries = new Map(); // id → { incident, began, ended, age, ageAt, streamedAt, hay, version }
    this.pinned = new Map();
    this.version = 0;
    this.openBeyond = false; // more are open than are held
  }

  get(id) { return this.entries.get(id); }

  /**
   * Takes an incident in. `live`: it was told as it happened, so its duration is of now. `asked`: performance.now() when
   * it was asked for, for one from the history: what was streamed since is newer.
   */
  put(incident, { live = false, asked = null } = {}) {
    const before = this.entries.get(incident.id);
    if (before && asked !== null && before.streamedAt !== null && before.streamedAt >= asked) return null;
    const began = Date.parse(incident.began_at);
    const resolved = Date.parse(incident.resolved_at ?? '');
    const lasted = Number.isFinite(incident.duration_ms) ? incident.duration_ms : 0;
    let sofar = lasted;
    if (!live && isOpen(incident)) sofar = Math.max(lasted, serverNow() - began);
    const entry = {
      incident, began, sofar, sofarAt: ticks(),
      // The clock may have been set while it lasted: then its length is what is known, and its end follows from it.
      ended: isOpen(incident) ? null : (resolved >= began ? resolved : began + lasted),
      streamedAt: asked === null ? performance.now() : before?.streamedAt ?? null,
      hay: null,
      version: ++this.version,
    };
    if (before && isOpen(before.incident) && isOpen(incident) && !live) {
      const counted = this.age(before);
      if (counted > entry.sofar) entry.sofar = counted;
    }
    this.entries.set(incident.id, entry);
    return { entry, isNew: !before, opened: isOpen(incident) && !(before && isOpen(before.incident)) };
  }

  age(entry) {
    return isOpen(entry.incident) ? entry.sofar + ticks() - entry.sofarAt : entry.incident.duration_ms;
  }

  drop(id) {
    if (this.entries.delete(id)) this.version++;
  }

  pin(id) {
    this.pinned.delete(id);
    this.pinned.set(id, true);
    if (this.pinned.size > MOST_PINNED) this.pinned.delete(this.pinned.keys().next().value);
  }

  /** Forgets what is neither open nor pinned nor in the window; then, beyond the bound, the oldest that is over. */
  prune(from, to) {
    for (const [id, entry] of this.entries) {
      if (entry.ended === null || this.pinned.has(id)) continue;
      if (entry.ended < from || entry.began > to) this.drop(id);
    }
    const excess = this.entries.size - MOST_HELD;
    if (excess <= 0) return;
    const candidates = [...this.entries.values()].filter((entry) => !this.pinned.has(entry.incident.id))
      .sort((a, b) => (a.ended === null) - (b.ended === null) || a.began - b.began);
    for (const entry of candidates.slice(0, excess)) {
      this.openBeyond ||= entry.ended === null;
      this.drop(entry.incident.id);
    }
  }

  open() {
    return [...this.entries.values()].filter((entry) => entry.ended === null)
      .sort((a, b) => gravity(a.incident) - gravity(b.incident) || b.began - a.began || (a.incident.id < b.incident.id ? 1 : -1));
  }

  past(from, to) {
    return [...this.entries.values()].filter((entry) => entry.ended !== null && entry.ended >= from && entry.began <= to)
      .sort((a, b) => b.began - a.began || (a.incident.id < b.incident.id ? 1 : -1));
  }

  /** Who names whom as its cause: id of the cause → ids of what it explains. */
  explained() {
    const by = new Map();
    for (const { incident } of this.entries.values()) {
      for (const cause of incident.caused_by ?? []) {
        if (!by.has(cause)) by.set(cause, []);
        by.get(cause).push(incident.id);
      }
    }
    return by;
  }

  matches(entry, filter) {
    const { incident } = entry;
    if (filter.kind && incident.kind !== filter.kind) return false;
    if (filter.severity && incident.severity !== filter.severity) return false;
    if (filter.state && (filter.state === 'open') !== isOpen(incident)) return false;
    if (!filter.text) return true;
    entry.hay ??= hay(incident);
    return filter.text.toLowerCase().split(/\s+/).every((word) => entry.hay.includes(word));
  }
}

function hay(incident) {
  const { process: p, cause } = incident;
  return [incident.id, incident.kind, called(incident), incident.severity, incident.summary, ...(incident.why ?? []), incident.node,
    ...[p, cause?.process].filter(Boolean).flatMap((it) => [processName(it), it.exe, it.unit, it.namespace, it.pod, it.container, it.container_id]),
    endpointName(cause?.destination), cause?.query, cause?.kind, incident.details?.sni,
  ].filter(Boolean).join('\n').toLowerCase();
}
