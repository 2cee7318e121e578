// A culprit's page with incidents of a test's own: everything but the API is the real one's, whose address is given.

import { createServer } from 'node:http';

const TICKS = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
let made = 0;

/** An id as culprit makes them, newer than those before. */
export function id(at) {
  let [number, text] = [Math.round(at), ''];
  for (let i = 0; i < 10; i += 1) { text = TICKS[number % 32] + text; number = Math.floor(number / 32); }
  made += 1;
  return text + String(made).padStart(16, '0');
}

/** An incident that began `ago` milliseconds before now, and lasted so long or goes on. */
export function incident(ago, lasted, over = {}) {
  const began = Date.now() - ago;
  const at = (ms) => new Date(ms).toISOString();
  return {
    schema: 'culprit.incident/v1', id: id(began), kind: 'connect_stalled', state: lasted === null ? 'open' : 'resolved', severity: 'warning',
    began_at: at(began), opened_at: at(began + 300), resolved_at: lasted === null ? null : at(began + lasted), duration_ms: lasted ?? ago,
    count: 1, node: 'node-7', process: { pid: 4000 + made, tid: 4000 + made, comm: 'curl', exe: '/usr/bin/curl' },
    summary: 'curl’s connect to 192.0.2.64:80 is unanswered.', why: ['Three SYNs went out.'],
    cause: { kind: 'outbound_connect', confidence: 'certain', destination: { ip: '192.0.2.64', port: 80 } }, caused_by: [],
    remedies: ['ip route get 192.0.2.64'], evidence: [{ offset_ms: -300, text: 'connect to 192.0.2.64:80 began' }],
    details: { destination: { ip: '192.0.2.64', port: 80 }, pending_ms: 300, waiting: 1 },
    ...over,
  };
}

/** Serves `state.incidents` and `state.node`; `tell` streams one, and keeps it. */
export async function serve(culprit, state) {
  const readers = new Set();
  const event = (it) => `event: incident\ndata: ${JSON.stringify(it)}\n\n`;
  const json = (response, body, status = 200) => { response.writeHead(status, { 'content-type': 'application/json' }); response.end(JSON.stringify(body)); };
  const newest = () => [...state.incidents].sort((a, b) => (a.id < b.id ? 1 : -1));
  function list(query) {
    const moment = (name, otherwise) => Date.parse(query.get(name) ?? '') || otherwise;
    const [since, until] = [moment('since', 0), moment('until', Infinity)];
    const found = newest().filter((it) => (!query.get('before') || it.id < query.get('before'))
      && (!query.get('state') || (query.get('state') === 'open') === (it.state !== 'resolved'))
      && (it.state !== 'resolved' || Date.parse(it.resolved_at) >= since) && Date.parse(it.opened_at) <= until
      && JSON.stringify(it).toLowerCase().includes((query.get('text') ?? '').toLowerCase()));
    const page = found.slice(0, Number(query.get('limit') ?? 100));
    return { incidents: page, next: found.length > page.length ? page.at(-1).id : null };
  }
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, 'http://here');
    const [, , , what, which] = url.pathname.split('/');
    if (!url.pathname.startsWith('/api/')) {
      const answer = await fetch(culprit + url.pathname);
      // fetch has undone what was compressed.
      const headers = Object.fromEntries([...answer.headers].filter(([name]) => !['content-encoding', 'content-length', 'transfer-encoding', 'connection'].includes(name)));
      response.writeHead(answer.status, headers);
      response.end(Buffer.from(await answer.arrayBuffer()));
    } else if (what === 'stream') {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(`:\n\n${newest().filter((it) => it.state !== 'resolved').map(event).join('')}`);
      readers.add(response);
      response.on('close', () => readers.delete(response));
    } else if (which) {
      const found = state.incidents.filter((it) => it.id.endsWith(which));
      if (found.length === 1) json(response, found[0]);
      else json(response, { error: `there is no incident ${which}` }, 404);
    } else if (what === 'incidents') json(response, list(url.searchParams));
    else if (what === 'kinds') json(response, ['connect_stalled', 'connect_failing', 'neighbour_unresolved', 'tls_handshake_stalled']);
    else if (what === 'rates') json(response, { step_s: 10, now: new Date().toISOString(), series: [{ name: 'connects', label: 'Connects', unit: '/s', points: [1, 2, 3, 2] }] });
    else json(response, { node: state.node, version: '0.1.0', kernel: '6.12.0', started_at: new Date(Date.now() - 3600e3).toISOString(),
      probes: [{ name: 'connect', about: 'connects', attached: true, degraded: [], received: 10, lost: 0, hooks: [] }] });
  });
  await new Promise((done) => { server.listen(0, '127.0.0.1', done); });
  return {
    page: `http://127.0.0.1:${server.address().port}`,
    tell(it) {
      state.incidents = [...state.incidents.filter((one) => one.id !== it.id), it];
      for (const reader of readers) reader.write(event(it));
    },
    close() { for (const reader of readers) reader.destroy(); server.closeAllConnections(); server.close(); },
  };
}
