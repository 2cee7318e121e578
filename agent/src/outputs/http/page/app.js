// The page: what is wrong now, what was, and how well this agent sees. See js/ for the parts.

import { byId, h, many, plain, say, sync } from './js/dom.js';
import { clock, duration, freeze, isUtc, readServerClock, serverNow, setUtc, stamp, thaw, timeElement } from './js/time.js';
import { Stream, ask, contact, incidents, isIncident } from './js/api.js';
import { MOST_HELD, Store, isOpen, title } from './js/store.js';
import { arrange } from './js/arrange.js';
import { List, ageText } from './js/list.js';
import { DAY, RANGES, Timeline, legend, rangeButtons, sayWindow } from './js/timeline.js';
import { Details } from './js/details.js';
import { Probes, renderRates } from './js/health.js';
import { leave, read, write } from './js/address.js';
import { keys } from './js/keys.js';

const POLL = 10000;
const SILENCE = 25000; // two polls and a bit: then the connection is dead, whatever the stream says
const AT_ONCE = 2000; // incidents of a window that are fetched without being asked to

const store = new Store();
const probes = new Probes();
const filter = { text: '', kind: '', severity: '', state: '' };
const view = { range: null, end: null };
const conn = { state: 'connecting', since: performance.now(), sinceServer: null };
const history = { run: 0, loading: false, error: null, next: null, reached: null, matching: {} };
const errors = new Map(); // what could not be asked → why
let rates = null;
let lagged = false;
let snapshotUntil = 0;

const openList = new List(byId('open-list'), byId('open-more'), 'card');
const pastList = new List(byId('past-list'), byId('past-more'), 'row');
const timeline = new Timeline(byId('timeline'), { view, moved: soon, settled: moved });
const sayRange = rangeButtons(byId('ranges'), view, (ms) => setRange(ms));
const details = new Details({
  store,
  fetchOne: async (id) => {
    const asked = performance.now();
    const found = await ask(`/api/v1/incidents/${encodeURIComponent(id)}`);
    if (!isIncident(found)) throw new Error('the server answered something that is no incident');
    store.put(found, { asked });
    soon();
    return found;
  },
  closed: () => {
    leave();
    if (document.activeElement === document.body) document.querySelector(`a[data-item][data-id="${CSS.escape(lastId)}"]`)?.focus();
  },
});
let lastId = '';
for (const list of [openList, pastList]) list.onmore = draw;

// ---- history -------------------------------------------------------------------------------------------------------

/** Fetches the window in view, newest first; `on`: goes on where it stopped, with the filter the server can apply. */
async function load(on = false) {
  const run = ++history.run;
  const { from, to } = stretch();
  const query = { since: new Date(from).toISOString(), until: new Date(to).toISOString() };
  // The server looks for one text, this page for each word: the longest leaves the least to look through.
  const [text] = filter.text.split(/\s+/).sort((a, b) => b.length - a.length);
  if (on) Object.assign(query, { ...filter, text, before: history.next });
  else Object.assign(history, { next: null, reached: null });
  history.loading = true;
  history.error = null;
  soon();
  let got = 0;
  try {
    const asked = performance.now();
    const next = await incidents(query, (list) => {
      if (run !== history.run) return false;
      for (const it of list) store.put(it, { asked });
      got += list.length;
      if (list.length && !on) history.reached = Math.min(...list.map((it) => Date.parse(it.began_at)));
      soon();
      return got < AT_ONCE && store.entries.size < MOST_HELD;
    });
    if (run !== history.run) return;
    history.next = next;
    if (!next && !on) history.reached = null;
    errors.delete('history');
  } catch (error) {
    if (run !== history.run) return;
    history.error = error.message;
    errors.set('history', `The history could not be read: ${error.message}`);
  }
  history.loading = false;
  soon();
}

/** The stretch of time that is asked for and held: of a window that fits, all it may be made of. */
function stretch() {
  const now = serverNow();
  return view.range === null ? { from: now - DAY, to: now + 60e3 } : timeline.window();
}

let settling = 0;
function moved() {
  clearTimeout(settling);
  settling = setTimeout(() => { write(filter, view, true); load(); }, 150);
  openList.reset();
  pastList.reset();
  draw();
}

function setRange(ms) {
  view.range = ms;
  if (ms === null) view.end = null;
  moved();
}

/** After a gap: what was open here and is not open there has ended meanwhile, or is forgotten. */
async function reconcile() {
  const asked = performance.now();
  try {
    const there = new Set();
    const next = await incidents({ state: 'open' }, (list) => {
      for (const it of list) { there.add(it.id); store.put(it, { asked }); }
      return there.size < MOST_HELD;
    });
    store.openBeyond = next !== null;
    for (const entry of store.open()) {
      const { id } = entry.incident;
      if (there.has(id) || entry.streamedAt >= asked) continue;
      try {
        store.put(await ask(`/api/v1/incidents/${encodeURIComponent(id)}`), { asked: performance.now() });
      } catch (error) {
        if (error.status === 404) store.drop(id);
      }
    }
    errors.delete('open');
  } catch (error) {
    errors.set('open', `Open incidents could not be compared with the server: ${error.message}`);
  }
  soon();
}

// ---- live ----------------------------------------------------------------------------------------------------------

function connection(state) {
  if (conn.state !== state) {
    Object.assign(conn, { state, since: performance.now(), sinceServer: serverNow() });
    if (state === 'live') thaw();
    else freeze();
    document.body.dataset.conn = state;
    soon();
  }
  sayConnection();
}

function sayConnection() {
  const box = byId('conn');
  box.dataset.state = conn.state;
  const ago = duration(Math.floor((performance.now() - conn.since) / 1000) * 1000);
  say(box, { live: 'live', connecting: 'connecting…' }[conn.state] ?? 'not live');
  box.title = conn.state === 'lost' ? `reconnecting since ${stamp(conn.sinceServer)}` : `${conn.state} for ${ago}`;
}

const fresh = [];
let announcing = 0;
function announce(incident) {
  fresh.push(incident);
  clearTimeout(announcing);
  announcing = setTimeout(() => {
    const texts = fresh.length > 3 ? [`${fresh.length} new incidents`] : fresh.map((it) => `New ${it.severity} incident: ${title(it.kind)}. ${it.summary}`);
    fresh.length = 0;
    byId('announce').replaceChildren(...texts.map((it) => h('p', {}, it)));
  }, 700);
}

const stream = new Stream('/api/v1/stream', {
  opened: () => {
    snapshotUntil = performance.now() + 1500;
    lagged = false;
    connection('live');
    poll();
    reconcile();
    load();
  },
  lost: () => connection('lost'),
  lagged: () => { lagged = true; soon(); },
  incident: (incident) => {
    const live = performance.now() > snapshotUntil;
    const taken = store.put(incident, { live });
    if (taken?.opened && live) announce(incident);
    soon();
  },
});

let polling = false;
async function poll() {
  if (polling) return;
  polling = true;
  const from = performance.now();
  const [told, health] = await Promise.allSettled([ask('/api/v1/rates'), ask('/api/v1/probes')]);
  if (told.status === 'fulfilled') {
    rates = told.value;
    readServerClock(rates.now, from, Math.min(performance.now(), from + 8000));
  }
  if (health.status === 'fulfilled') probes.take(health.value);
  else probes.error = health.reason.message;
  for (const [name, result, what] of [['rates', told, 'Rates'], ['probes', health, 'Probe health']]) {
    if (result.status === 'fulfilled') errors.delete(name);
    else errors.set(name, `${what} could not be read: ${result.reason.message}. What is shown is old.`);
  }
  renderRates(rates, told.reason?.message);
  probes.render();
  polling = false;
  soon();
}

// ---- drawing -------------------------------------------------------------------------------------------------------

let drawing = 0;
function soon() { drawing ||= setTimeout(draw, 120); }

function banner(kind, id, ...text) { return h('p', { class: `banner banner-${kind}`, testid: `banner-${id}`, data: { id } }, ...text); }

function banners(health) {
  const list = [];
  if (conn.state === 'lost') {
    list.push(banner('bad', 'stale', h('b', {}, 'Not live. '), 'The connection to culprit was lost at ', timeElement(conn.sinceServer ?? serverNow()), '. What is shown is how things stood then.'));
  }
  if (health?.lost > 0) {
    list.push(banner(health.losing ? 'bad' : 'warn', 'lost', h('b', {}, health.losing ? 'Losing events now. ' : 'Events were lost. '),
      `${health.lossy.join(', ')} since it started: incidents may be missing or late.`));
  }
  if (health?.bad.length) list.push(banner('warn', 'probes', h('b', {}, 'Not everything is watched. '), `See the probes: ${health.bad.join(', ')}.`));
  if (clock.offset !== null && Math.abs(clock.offset) > 5000 + clock.rtt) {
    list.push(banner('warn', 'clock', h('b', {}, 'Two clocks. '), `The server’s clock is ${duration(Math.abs(clock.offset))} ${clock.offset > 0 ? 'ahead of' : 'behind'} this browser’s. `
      + 'Times and ages here go by the server’s; either may be wrong.'));
  }
  if (lagged) list.push(banner('warn', 'lagged', 'This page was too slow for the stream and was cut off; it is catching up.'));
  if (conn.state !== 'lost') for (const [name, text] of errors) list.push(banner('warn', `error-${name}`, text));
  const key = list.map((it) => it.dataset.id + it.textContent).join('\n');
  if (banners.key !== key) { banners.key = key; sync(byId('banners'), list); }
}

/** How many are open; of more than are held nobody knows. */
const opened = (n) => `${store.openBeyond ? 'at least ' : ''}${many(n, 'open incident')}`;

function headline(open, health) {
  const count = (severity) => open.filter((it) => it.incident.severity === severity).length;
  const by = ['critical', 'warning', 'info'].map((it) => [count(it), it]).filter(([n]) => n).map(([n, it]) => (it === 'warning' ? many(n, it) : `${n} ${it}`)).join(', ');
  const all = opened(open.length);
  const watching = health ? [`${health.attached} of ${health.of} probes attached`, health.bad.length ? `degraded: ${health.bad.join(', ')}` : 'none degraded',
    health.lost ? `records lost: ${health.lossy.join(', ')}` : 'nothing lost'].join(', ') : `probe health unknown${probes.error ? `: ${probes.error}` : ''}`;
  let state; let big; let small;
  if (conn.state === 'connecting') [state, big, small] = ['connecting', 'Connecting…', ''];
  else if (conn.state === 'lost') [state, big, small] = ['lost', 'Unknown: the connection is lost', open.length ? `Last known: ${all} (${by}).` : 'Last known: nothing was wrong.'];
  else if (open.length) [state, big, small] = [count('critical') ? 'critical' : count('warning') ? 'warning' : 'info', all, `${by}. ${watching}.`];
  else {
    const fine = health && !health.bad.length && !health.lost;
    state = fine ? 'fine' : 'blind';
    big = fine ? 'Nothing is wrong.' : 'No open incidents, but not everything is seen.';
    const since = health && Number.isFinite(health.startedAt) ? `Watching since ${stamp(health.startedAt)}${isUtc() ? ' UTC' : ''} (${duration(serverNow() - health.startedAt)}). ` : '';
    small = `${since}${fine ? `All ${health.of} probes are attached and fine; nothing lost.` : `${watching[0].toUpperCase()}${watching.slice(1)}.`}`;
  }
  byId('headline').dataset.state = state;
  say(byId('headline-big'), big);
  say(byId('headline-small'), small);
  const bad = conn.state === 'live' ? open.length : 0;
  document.title = plain(`${conn.state === 'lost' ? '(not live) ' : bad ? `(${bad}) ` : ''}culprit${probes.said?.node ? ` · ${probes.said.node}` : ''}`);
}

function draw() {
  clearTimeout(drawing);
  drawing = 0;
  const held = stretch();
  store.prune(held.from, held.to);
  const open = store.open();
  const past = store.past(held.from, held.to);
  const explained = store.explained();
  const health = probes.summary();
  banners(health);
  headline(open, health);
  kindsSeen(store.entries.values());

  const passes = (entry) => store.matches(entry, filter);
  const openShown = open.filter(passes);
  const pastPassing = past.filter(passes);
  timeline.contain([...openShown, ...pastPassing]);
  const { from, to } = timeline.window();
  const pastShown = pastPassing.filter((it) => it.ended >= from && it.began <= to);
  sayFilter(open, openShown, past, pastPassing);

  byId('open-section').hidden = openShown.length === 0;
  say(byId('open-count'), openShown.length < open.length ? `${openShown.length} of ${open.length}` : String(open.length));
  openList.render(store, arrange(openShown), explained, '', () => {});
  const full = store.entries.size >= MOST_HELD;
  const filtering = Object.values(filter).some(Boolean);
  const outside = view.range === null ? pastPassing.length - pastShown.length : 0; // of a day, of which the window is a part
  const older = !history.next || history.loading || full ? '' : `Load older ones${filtering ? ' that match' : ''}`;
  say(byId('past-count'), `${pastShown.length}${history.next ? ' loaded' : ''}`);
  pastList.render(store, arrange(pastShown), explained, outside ? `Show ${outside} older of the last 24 h` : older, () => (outside ? setRange(DAY) : load(true)));
  byId('past-empty').hidden = pastShown.length > 0 && !full;
  const span = view.end !== null || outside ? 'in this window' : `in the last ${duration(view.range ?? DAY)}`;
  say(byId('past-empty'), full ? `This page holds ${many(store.entries.size, 'incident')} and takes no more: narrow the range to look further.`
    : history.loading ? 'Loading…' : history.error ? `Unknown: ${history.error}` : filtering && past.length ? `None ${span} passes the filter.` : `No incident was resolved ${span}.`);

  timeline.render([...pastShown, ...openShown.filter((it) => it.began <= to || view.end === null)], history.next ? history.reached : null);
  const follows = view.end === null && to >= serverNow();
  sayWindow(byId('window'), { from, to }, follows);
  byId('pan-now').setAttribute('aria-pressed', String(follows));
  byId('pan-on').disabled = view.end === null;
  sayRange();
  details.render();
}

function tick() {
  if (conn.state === 'live' && performance.now() - (contact.at ?? 0) > SILENCE) { connection('lost'); stream.open(); }
  sayConnection();
  for (const element of document.querySelectorAll('[data-age]')) {
    const entry = store.get(element.dataset.age);
    if (entry && isOpen(entry.incident)) say(element, ageText(store, entry));
  }
  const now = serverNow();
  byId('now').replaceChildren('server ', timeElement(now));
  // A browser that slept has missed things, and its monotonic clock may not have counted.
  const lag = Date.now() - performance.now();
  if (tick.lag !== undefined && Math.abs(lag - tick.lag) > 5000) { connection('lost'); stream.open(); }
  tick.lag = lag;
  tick.n = (tick.n ?? 0) + 1;
  if (!document.hidden && conn.state === 'live' && tick.n % ((view.range ?? 0) > 2 * 3600e3 ? 15 : 5) === 0) soon();
}

// ---- the viewer ----------------------------------------------------------------------------------------------------

const known = new Set();
function kindsSeen(entries) {
  const before = known.size;
  for (const { incident } of entries) if (known.size < 64) known.add(incident.kind);
  if (known.size === before) return;
  const select = byId('f-kind');
  select.replaceChildren(h('option', { value: '' }, 'All kinds'), ...[...known].sort().map((it) => h('option', { value: it }, title(it))));
  select.value = filter.kind;
}
function options(select, list) { select.replaceChildren(...list.map(([value, text]) => h('option', { value }, text))); }

function filters() {
  // Kinds of which nothing is known yet can be asked for; without an answer the others still can.
  ask('/api/v1/kinds').then((kinds) => kindsSeen(kinds.map((kind) => ({ incident: { kind } }))), () => {});
  options(byId('f-severity'), [['', 'All severities'], ['critical', 'Critical'], ['warning', 'Warning'], ['info', 'Info']]);
  options(byId('f-state'), [['', 'Open and resolved'], ['open', 'Open'], ['resolved', 'Resolved']]);
  let typing = false; // what is typed in one go is one step for Back
  const changed = (event) => {
    for (const name of Object.keys(filter)) filter[name] = byId(`f-${name}`).value.trim();
    const goesOn = typing;
    typing = event?.target === byId('f-text');
    write(filter, view, !(typing && goesOn));
    openList.reset();
    pastList.reset();
    draw();
  };
  byId('filters').addEventListener('input', changed);
  byId('filters').addEventListener('submit', (event) => event.preventDefault());
  byId('f-text').addEventListener('blur', () => { typing = false; });
  byId('f-clear').addEventListener('click', () => {
    for (const name of Object.keys(filter)) byId(`f-${name}`).value = '';
    changed();
    byId('f-text').focus();
  });
}

/** What the filter hides, said; loudly when that is open. */
function sayFilter(open, openShown, past, pastShown) {
  const filtering = Object.values(filter).some(Boolean);
  byId('f-clear').hidden = !filtering;
  const note = byId('hidden-note');
  note.hidden = !filtering;
  const [hidden, earlier] = [open.length - openShown.length, past.length - pastShown.length];
  say(note, hidden + earlier === 0 ? 'The filter hides nothing.'
    : `The filter hides ${hidden ? `${hidden} of ${many(open.length, 'open incident')}` : 'none that is open'} and ${earlier ? `${earlier} of ${many(past.length, 'earlier one')}` : 'no earlier one'}.`);
  note.classList.toggle('loud', hidden > 0);
}

/** Shows what the address says; its own steps as well as those of Back and Forward. */
function showAddress(first = false) {
  const said = read();
  if (/^\w{1,64}$/.test(said.filter.kind)) kindsSeen([{ incident: { kind: said.filter.kind } }]);
  for (const name of Object.keys(filter)) {
    byId(`f-${name}`).value = said.filter[name];
    filter[name] = byId(`f-${name}`).value.trim(); // what cannot be chosen is not filtered by
  }
  if (first || said.range !== view.range || said.end !== view.end) {
    Object.assign(view, { range: said.range, end: said.end });
    if (!first) moved();
  }
  draw();
  if (said.id) { lastId = said.id; details.show(said.id); } else if (details.isOpen) byId('details').close();
}

function zone() {
  setUtc(!isUtc());
  sayZone();
  details.render(true);
  probes.render();
  draw();
}
function sayZone() {
  byId('zone').setAttribute('aria-pressed', String(isUtc()));
  byId('zone').title = isUtc() ? 'Times are UTC: show this browser’s zone' : 'Times are in this browser’s zone: show UTC';
}

const toNow = () => {
  if (view.range === null && timeline.window().to < serverNow()) view.range = DAY; // what fits ended long ago
  view.end = null;
  moved();
};
byId('zone').addEventListener('click', zone);
byId('pan-back').addEventListener('click', () => timeline.pan(-0.5));
byId('pan-on').addEventListener('click', () => timeline.pan(0.5));
byId('pan-now').addEventListener('click', toNow);
window.addEventListener('popstate', () => showAddress());
window.addEventListener('hashchange', () => showAddress());
window.addEventListener('resize', soon);
document.addEventListener('visibilitychange', () => { if (!document.hidden) { tick(); soon(); } });
keys({ timeline, now: toNow, zone, range: (i) => setRange(RANGES[i][1]) });
filters();
legend(byId('legend'));
sayZone();
setInterval(poll, POLL);
setInterval(tick, 1000);
poll();
showAddress(true);
tick();
