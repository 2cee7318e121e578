// The address: what is filtered, which stretch of time is in view, and which incident is open. Copied, it shows another
// viewer the same.

import { RANGES } from './timeline.js';

const UNITS = { s: 1e3, m: 60e3, h: 3600e3, d: 86400e3 };
const FILTERS = ['text', 'kind', 'severity', 'state'];

function range(text) {
  const [, number, unit] = /^(\d{1,6})([smhd])$/.exec(text ?? '') ?? [];
  const ms = Number(number) * UNITS[unit];
  return ms >= 30e3 && ms <= 400 * 86400e3 ? ms : null;
}

/** { filter, range, end, id }: `range` null fits what there is, `end` null follows now, `id` '' is no incident. */
export function read() {
  const query = new URLSearchParams(location.search);
  const end = Date.parse(query.get('end') ?? '');
  let id = location.hash.slice(1);
  try { id = decodeURIComponent(id); } catch { /* as it is */ }
  return {
    filter: Object.fromEntries(FILTERS.map((name) => [name, (query.get(name) ?? '').slice(0, 200)])),
    range: range(query.get('range')),
    end: Number.isFinite(end) && range(query.get('range')) !== null ? end : null,
    id: id === 'main' ? '' : id,
  };
}

/** Puts filter and view into the address; `add`: as a step that Back undoes. */
export function write(filter, view, add) {
  const query = new URLSearchParams();
  for (const name of FILTERS) if (filter[name]) query.set(name, filter[name]);
  if (view.range !== null) {
    const [name] = RANGES.find(([, ms]) => ms === view.range) ?? [];
    query.set('range', name ? name.replace(' ', '') : `${Math.round(view.range / 1000)}s`);
    if (view.end !== null) query.set('end', new Date(view.end).toISOString());
  }
  const search = query.size ? `?${query}` : '';
  if (search === location.search) return;
  history[add ? 'pushState' : 'replaceState'](null, '', location.pathname + search + location.hash);
}

/** The address of the page without an incident. */
export function leave() {
  if (location.hash) history.pushState(null, '', location.pathname + location.search);
}
