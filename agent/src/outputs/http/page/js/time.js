// Times. The server's clock counts, not the browser's, and between two of its readings the browser's monotonic one.
// While the connection is lost time stands still here: an age that counts up would look live.

import { choice, h } from './dom.js';

let base = null; // the server's reading…
let baseAt = 0; // …and performance.now() then
let frozenAt = null;
let utc = choice.get('zone', 'local') === 'utc';

export const clock = { offset: null, rtt: 0 };

export const ticks = () => frozenAt ?? performance.now();
export const freeze = () => { frozenAt ??= performance.now(); };
export const thaw = () => { frozenAt = null; };
export const serverNow = () => (base === null ? Date.now() - (performance.now() - ticks()) : base + ticks() - baseAt);

/** Takes a reading of the server's clock, asked for at `from` and here at `to` (performance.now()). */
export function readServerClock(text, from, to) {
  const read = Date.parse(text);
  if (!Number.isFinite(read)) return;
  base = read + (to - from) / 2;
  baseAt = to;
  clock.offset = base - Date.now();
  clock.rtt = to - from;
}

export const isUtc = () => utc;
export function setUtc(on) {
  utc = on;
  choice.set('zone', on ? 'utc' : 'local');
}

const formats = new Map();
function format(timeZone, options) {
  const key = timeZone + JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat('en-GB', { ...options, timeZone, hourCycle: 'h23' }));
  return formats.get(key);
}
const zone = () => (utc ? 'UTC' : undefined);
const HMS = { hour: '2-digit', minute: '2-digit', second: '2-digit' };
const HM = { hour: '2-digit', minute: '2-digit' };
const DAY = { day: 'numeric', month: 'short' };
const YEAR = { day: 'numeric', month: 'short', year: 'numeric' };

function day(at, now) {
  const full = format(zone(), YEAR);
  if (full.format(at) === full.format(now)) return '';
  return (Math.abs(now - at) > 300 * 86400e3 ? full : format(zone(), DAY)).format(at) + ' ';
}

/** 03:58:03, with the day before it unless it is today. */
export function stamp(at, seconds = true) {
  if (!Number.isFinite(at)) return '?';
  return day(at, serverNow()) + format(zone(), seconds ? HMS : HM).format(at);
}
export const tickLabel = (at, step) => (step >= 86400e3 ? format(zone(), DAY).format(at)
  : (format(zone(), HM).format(at) === '00:00' ? format(zone(), DAY).format(at) : format(zone(), HM).format(at)));

/** How far the viewer's zone is from UTC at that moment, milliseconds: ticks begin at its hours and midnights. */
export const zoneOffset = (at) => (utc ? 0 : -new Date(at).getTimezoneOffset() * 60e3);

const other = (at) => (utc ? `${format(undefined, { ...YEAR, ...HMS }).format(at)} in this browser's zone`
  : `${new Date(at).toISOString().replace('T', ' ').slice(0, 19)} UTC`);

/** A time element: the viewer's zone in sight, UTC on hover; the other way round after the toggle. */
export function timeElement(text, props = {}) {
  const at = typeof text === 'number' ? text : Date.parse(text);
  if (!Number.isFinite(at)) return h('span', props, String(text));
  return h('time', { datetime: new Date(at).toISOString(), title: other(at), ...props }, stamp(at) + (utc ? ' UTC' : ''));
}

/** 0.4 s, 12 s, 3 min 20 s, 2 h 5 min, 4 d 3 h. */
export function duration(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 59.5) return `${Math.round(s)} s`;
  const whole = Math.floor(s + 0.5);
  const [d, hours, min, sec] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60, whole % 60];
  if (d) return hours ? `${d} d ${hours} h` : `${d} d`;
  if (hours) return min ? `${hours} h ${min} min` : `${hours} h`;
  return sec ? `${min} min ${sec} s` : `${min} min`;
}
/** As above without tenths: what counts up once a second. */
export const age = (ms) => (ms < 9950 ? `${Math.max(0, Math.floor(ms / 1000))} s` : duration(ms));
