// The daemon's API: asking, and listening. Nothing here waits for ever, and nothing is believed without a look at its shape.

export const contact = { at: null }; // performance.now() when the server last said anything

/** Asks for JSON. Fails with the server's own words where it has some. */
export async function ask(path, wait = 8000) {
  const giveUp = new AbortController();
  const timer = setTimeout(() => giveUp.abort(), wait);
  try {
    const response = await fetch(path, { signal: giveUp.signal, headers: { accept: 'application/json' }, cache: 'no-store' });
    contact.at = performance.now();
    if (response.ok) return await response.json();
    let said = '';
    try { said = (await response.json()).error; } catch { said = ''; }
    throw Object.assign(new Error(said || `HTTP ${response.status}`), { status: response.status });
  } catch (error) {
    if (error.name === 'AbortError') throw new Error(`no answer within ${wait / 1000} s`);
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

export const isId = (id) => typeof id === 'string' && /^[\w.-]{1,64}$/.test(id);
export function isIncident(it) {
  return Boolean(it) && typeof it === 'object' && isId(it.id)
    && typeof it.kind === 'string' && typeof it.state === 'string' && Number.isFinite(Date.parse(it.began_at));
}

/** Pages through incidents, newest first. `got` is given each page and says whether to go on. Returns the next cursor. */
export async function incidents(query, got) {
  let before = query.before ?? null;
  for (;;) {
    const parameters = new URLSearchParams();
    for (const [name, value] of Object.entries({ limit: 200, ...query, before })) if (value) parameters.set(name, value);
    const page = await ask(`/api/v1/incidents?${parameters}`);
    const list = Array.isArray(page.incidents) ? page.incidents.filter(isIncident) : [];
    const next = typeof page.next === 'string' && page.next !== before ? page.next : null;
    const goOn = got(list);
    before = next;
    if (!next || !goOn) return next;
  }
}

/**
 * Listens to the stream. EventSource reconnects by itself after a cut, but not after an error status, and it cannot see
 * heartbeats: `reopen` is for the caller who has found the connection dead.
 */
export class Stream {
  constructor(path, { opened, lost, incident, lagged }) {
    Object.assign(this, { path, opened, lost, incident, lagged, source: null, timer: 0, backoff: 1000, openedAt: 0 });
    this.open();
  }

  open() {
    clearTimeout(this.timer);
    this.source?.close();
    const source = new EventSource(this.path);
    this.source = source;
    source.addEventListener('open', () => {
      contact.at = performance.now();
      this.openedAt = performance.now();
      this.backoff = 1000;
      this.opened();
    });
    source.addEventListener('incident', (event) => {
      contact.at = performance.now();
      let told = null;
      try { told = JSON.parse(event.data); } catch { return; }
      if (isIncident(told)) this.incident(told);
    });
    source.addEventListener('lagged', () => this.lagged());
    source.addEventListener('error', () => {
      if (source !== this.source) return;
      this.lost();
      if (source.readyState !== EventSource.CLOSED) return;
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.open(), this.backoff * (0.75 + Math.random() / 2));
      this.backoff = Math.min(this.backoff * 2, 30000);
    });
  }

  get isOpen() { return this.source?.readyState === EventSource.OPEN; }
}
