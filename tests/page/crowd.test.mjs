// The page with incidents of every shape: chains, crowds, names that strangers chose, addresses that are passed on.
//
//   node crowd.test.mjs http://127.0.0.1:9877 http://127.0.0.1:9515 AXE.JS [DIRECTORY FOR SCREENSHOTS]
//
// The page is that of the culprit at the first address; what the API says is made up here.

import assert from 'node:assert/strict';

import { incident, serve } from './api.mjs';
import { browser, ENTER, ESCAPE, until } from './browser.mjs';

const [, , culprit, driver, axe, shots] = process.argv;

const MINUTE = 60e3;
const HOUR = 60 * MINUTE;
const DIGEST = '3f4b1c0d9a8e7f6a5b4c3d2e1f00112233445566778899aabbccddeeff001122';
const NASTY = `<script>window.pwned=1</script><img src=x onerror=window.pwned=1>\u202e\u2066gnp.exe\u200b\u0007${'A'.repeat(140)}`;
const by = (pid, comm, more = {}) => ({ pid, tid: pid, comm, exe: `/usr/bin/${comm}`, ...more });

const root = incident(6 * MINUTE, null, {
  kind: 'neighbour_unresolved', process: null, summary: '10.0.1.90 does not answer ARP on eth0.',
  cause: { kind: 'neighbour', confidence: 'certain', destination: { ip: '10.0.1.90', port: 0 } }, details: { address: '10.0.1.90', device: 'eth0', waiters: [] },
});
const symptoms = ['nginx', 'redis', 'backup'].map((comm, at) => incident(5 * MINUTE - at * 1000, null, {
  severity: 'critical', process: by(100 + at, comm, { unit: `${comm}.service` }), caused_by: [root.id], summary: `${comm}[${100 + at}]’s connect to 10.0.1.90:5432 is unanswered.`,
}));
const alike = Array.from({ length: 24 }, (_, at) => incident(3 * MINUTE + at * 1000, null, { kind: 'connect_failing', process: by(500 + at, 'worker') }));
const ten = Array.from({ length: 10 }, (_, at) => incident(2 * MINUTE + at * 1000, null, { severity: 'info', process: by(800 + at, 'cron') }));
const nasty = incident(4 * MINUTE, null, {
  kind: 'tls_handshake_stalled', severity: 'critical', summary: `${NASTY} did not answer the ClientHello.`, why: [NASTY],
  process: by(666, NASTY, {
    exe: `/${NASTY}`, unit: `run-r${DIGEST.slice(0, 32)}.scope`, container_id: DIGEST, runtime: 'docker', namespace: NASTY, pod: NASTY, container: `k8s_${DIGEST}`, netns: NASTY,
  }),
  details: { role: 'server', sni: NASTY, cgroup: `/docker/${DIGEST}`, threads: [{ comm: NASTY, pid: 666, tid: 667, stack: [NASTY] }] },
  evidence: [{ offset_ms: 0, text: NASTY }], remedies: ['ss -tnp'],
});
const recent = Array.from({ length: 5 }, (_, at) => incident(8 * MINUTE + at * 1000, 4000, { process: by(900 + at, `job${at}`) }));
const yesterday = Array.from({ length: 2 }, (_, at) => incident(20 * HOUR + at * 1000, 4000, { process: by(950 + at, `night${at}`) }));

const state = { node: 'node-7', incidents: [root, ...symptoms, ...alike, ...ten, nasty, ...recent, ...yesterday] };
const OPEN = 1 + 3 + 24 + 10 + 1;
const api = await serve(culprit, state);
const { js, go, back, forward, press, text, count, opened, shot, wide, dark, live, accessible, run } = await browser(driver, api.page, shots);

const fresh = async (path) => { await go('/nothing'); await go(path); await live(); };
const search = () => js('return location.search');
/** What stands in the list as open: links, and what is folded. */
const listed = () => js(`const list = document.querySelector('[data-testid=open-list]');
  const folded = [...list.querySelectorAll('details:not([open]) [data-testid=fold-count]')].reduce((sum, it) => sum + parseInt(it.innerText, 10), 0);
  return list.querySelectorAll('[data-testid=incident]').length + folded;`);
const fold = () => js('return document.querySelector("[data-testid=open-list] [data-testid=fold]")?.innerText ?? ""');
const shown = () => js('return [...document.querySelectorAll("[data-testid=incident]")].map((it) => it.dataset.id)');
const pressed = () => js('return [...document.querySelectorAll("#ranges [aria-pressed=true]")].map((it) => it.innerText)');
const sideways = () => js('return document.documentElement.scrollWidth - document.documentElement.clientWidth');
/** Everything that is shown, or said to those who do not see. */
const said = () => js(`return document.body.innerText + [...document.querySelectorAll('*')].flatMap((it) => ['title', 'aria-label', 'placeholder'].map((name) => it.getAttribute(name) ?? '')
  .concat(it.tagName === 'title' ? it.textContent : '')).join('\\n') + document.title`);

async function holdsNothingHidden() {
  const all = await said();
  assert.doesNotMatch(all, /[\u202a-\u202e\u2066-\u2069\u200b\u0007]/u);
  assert.doesNotMatch(all, /[0-9a-f]{32}/);
  assert.doesNotMatch(all, /\.scope/);
  assert.equal(await js('return window.pwned ?? null'), null);
  assert.equal(await js('return document.querySelectorAll("img, main script, dialog script").length'), 0);
  assert.equal(await sideways(), 0);
}

const steps = {
  async 'a root stands before what it explains, which nests under it and names it'() {
    await fresh('/');
    await until('all that is open', async () => (await text('open-count')) === String(OPEN));
    const found = await js(`const link = document.querySelector('[data-testid=open-list] [data-id="' + arguments[0] + '"]');
      const under = link.parentElement.querySelector('[data-testid=under]');
      return { below: link.compareDocumentPosition(under) & Node.DOCUMENT_POSITION_FOLLOWING, ids: [...under.querySelectorAll('[data-testid=incident]')].map((it) => it.dataset.id),
        names: [...under.querySelectorAll('[data-testid=chip-caused-by]')].map((it) => it.innerText), explains: link.querySelector('[data-testid=chip-explains]').innerText };`, root.id);
    assert.ok(found.below);
    assert.deepEqual(found.ids.sort(), symptoms.map((it) => it.id).sort());
    for (const name of found.names) assert.equal(name, '↳ explained by Neighbour unresolved 10.0.1.90 on eth0');
    assert.equal(found.explains, 'explains 3 others');
    assert.equal((await shown()).filter((id) => id === symptoms[0].id).length, 1);
    await shot('crowd-1280-light');
  },
  async 'sentence, counter, title and list agree, and an end is counted by all of them'() {
    const agree = async (n) => {
      await until(`${n} are open`, async () => (await text('open-count')) === String(n));
      assert.equal(await text('headline-big'), n === 1 ? '1 open incident' : `${n} open incidents`);
      assert.match(await js('return document.title'), new RegExp(`^\\(${n}\\) culprit`));
      assert.equal(await listed(), n);
      const sum = (await text('headline-small')).match(/\d+ (critical|warning|info)/g).reduce((all, it) => all + parseInt(it, 10), 0);
      assert.equal(sum, n);
      assert.match(await text('headline-small'), /25 warnings, /);
    };
    await agree(OPEN);
    api.tell({ ...ten[9], state: 'resolved', resolved_at: new Date().toISOString() });
    await agree(OPEN - 1);
    api.tell(ten[9]);
    await agree(OPEN);
  },
  async 'more than ten of one kind and program are one row that opens, by keyboard too; ten are ten rows'() {
    assert.match(await fold(), /Connect failing\s+worker\s+24 incidents/);
    assert.equal(await count('fold'), 1);
    const rows = (await shown()).length;
    await js('document.activeElement?.blur(); window.scrollTo(0, 0)');
    for (let i = 0; i < 60 && (await js('return document.activeElement.dataset?.testid')) !== 'fold'; i += 1) await press('j');
    assert.equal(await js('return document.activeElement.dataset.testid'), 'fold');
    await press(ENTER);
    await until('they are there', async () => (await shown()).length === rows + 24);
    assert.equal(await listed(), OPEN);
    await press('j');
    assert.ok(alike.map((it) => it.id).includes(await js('return document.activeElement.dataset.id')));
    await accessible(axe);
    await shot('fold-open');
    await js('document.querySelector("[data-testid=fold]").click()');
    await until('they are folded', async () => (await shown()).length === rows);
  },
  async 'the range fits what there is'() {
    assert.deepEqual(await pressed(), ['Fit']);
    const first = await js(`const bars = [...document.querySelectorAll('.tl-bar')].map((it) => it.getBBox().x);
      const plot = document.querySelector('[data-testid=timeline]').clientWidth; return (Math.min(...bars) - 168) / (plot - 168);`);
    assert.ok(first >= 0 && first < 0.15, `the first bar stands at ${first} of the width`);
    assert.equal(await text('past-count'), '5');
    await until('the older ones are offered', async () => (await text('past-more')) === 'Show 2 older of the last 24 h');
    await js('document.querySelector("[data-testid=past-more]").click()');
    await until('they are there', async () => (await text('past-count')) === '7');
    assert.deepEqual(await pressed(), ['24 h']);
    await until('the address has it', async () => (await search()) === '?range=24h');
    await back();
    await until('it fits again', async () => (await pressed())[0] === 'Fit');
    assert.equal(await text('past-count'), '5');
    await press('2');
    await until('one hour', async () => (await search()) === '?range=1h');
    await press('0');
    await until('what fits', async () => (await search()) === '');
    await press('[');
    await until('earlier, as wide as it was', async () => /^\?range=\d+s&end=/.test(await search()));
    assert.deepEqual(await pressed(), []);
    await press('n');
    await until('now again', async () => /^\?range=\d+s$/.test(await search()));
    await press('0');
    await until('what fits again', async () => (await search()) === '');
  },
  async 'a filter says what it hides, and is in the address'() {
    await press('/');
    for (const key of 'nginx') await press(key);
    await until('one is left', async () => (await text('open-count')) === `1 of ${OPEN}`);
    assert.equal(await text('headline-big'), `${OPEN} open incidents`);
    assert.equal(await text('hidden-note'), `The filter hides ${OPEN - 1} of ${OPEN} open incidents and 7 of 7 earlier ones.`);
    assert.deepEqual(await shown(), [symptoms[0].id]);
    assert.match(await text('chip-caused-by'), /explained by Neighbour unresolved 10\.0\.1\.90 on eth0/);
    assert.equal(await search(), '?text=nginx');
    await press(ESCAPE);
    await until('all are back', async () => (await text('open-count')) === String(OPEN));
    await js('document.activeElement?.blur()');
    await js('const it = document.querySelector("[data-testid=filter-severity]"); it.value = "info"; it.dispatchEvent(new Event("input", { bubbles: true }))');
    await until('ten are left', async () => (await text('open-count')) === `10 of ${OPEN}`);
    assert.equal(await search(), '?severity=info');
    await back();
    await until('Back undoes it', async () => (await text('open-count')) === String(OPEN));
    await forward();
    await until('Forward does it again', async () => (await text('open-count')) === `10 of ${OPEN}`);
    assert.equal(await js('return document.querySelector("[data-testid=filter-severity]").value'), 'info');
    await fresh('/');
  },
  async 'an address that is passed on shows the same'() {
    await fresh(`/?text=connect&kind=connect_stalled&severity=critical&state=open&range=6h#${symptoms[1].id}`);
    await until('the details', opened);
    await until('the incident', async () => (await text('details-summary')).includes('redis'));
    assert.deepEqual(await pressed(), ['6 h']);
    await press(ESCAPE);
    await until('it is closed', async () => !(await opened()));
    await until('three are left', async () => (await text('open-count')) === `3 of ${OPEN}`);
    assert.equal(await js('return location.hash'), '');
    await back();
    await until('Back opens it again', opened);
    await back();
    await go(`/?range=1h&end=${new Date(Date.now() - 19.5 * HOUR).toISOString()}`);
    await until('the night', async () => (await text('past-count')) === '2');
    await fresh(`/#${root.id.slice(-6)}`);
    await until('by the end of its id', async () => (await js('return location.hash')) === `#${root.id}`);
    assert.match(await text('details-summary'), /10\.0\.1\.90/);
    // Nobody has chosen what cannot be chosen.
    await fresh('/?severity=wibble&range=wibble&end=wibble');
    await until('everything', async () => (await text('open-count')) === String(OPEN));
  },
  async 'an id that nothing has is said to be nothing’s'() {
    await fresh('/#01ZZZZZZZZZZZZZZZZZZZZZZZZ');
    await until('it says so', async () => (await text('details-missing')).includes('there is no incident 01ZZZZZZZZZZZZZZZZZZZZZZZZ'));
    await accessible(axe);
    await press(ESCAPE);
    await fresh(`/#${encodeURIComponent('<img src=x onerror=window.pwned=1>')}`);
    await until('it says so', async () => (await text('details-missing')).includes('no incident has such an id'));
    await holdsNothingHidden();
    await press(ESCAPE);
  },
  async 'names that strangers chose are escaped, bounded and in their place; digests are not shown'() {
    await fresh('/');
    await until('it is there', async () => (await shown()).includes(nasty.id));
    await holdsNothingHidden();
    const card = await js('return document.querySelector(`[data-id="${arguments[0]}"]`).innerText', nasty.id);
    assert.match(card, /<script>window\.pwned=1<\/script>/);
    assert.match(card, /… \(\d+ characters\)/);
    assert.match(card, /k8s_3f4b1c0d9a8e/);
    await js('document.querySelector(`a[data-item][data-id="${arguments[0]}"]`).click()', nasty.id);
    await until('the details', opened);
    await js('document.querySelector(".more-facts").open = true');
    await holdsNothingHidden();
    assert.match(await text('identity'), /k8s_3f4b1c0d9a8e · 3f4b1c0d9a8e/);
    assert.match(await text('details-summary'), /\\u\{202e\}\\u\{2066\}gnp\.exe\\u\{200b\}\\u\{7\}/);
    await accessible(axe);
    await shot('hostile-details-light');
    await press(ESCAPE);
  },
  async 'light and dark, on a desk and in a hand, axe has nothing against it and the head is one row'() {
    state.node = `node-${'x'.repeat(200)}.\u202eexample`;
    await fresh('/');
    for (const scheme of ['light', 'dark']) {
      await dark(scheme === 'dark');
      for (const width of [1280, 390]) {
        await wide(width);
        await until('the node is named', async () => (await text('node')).startsWith('node-xxx'));
        const [tops, bottoms, height] = await js(`const boxes = [...document.querySelector('header').children].map((it) => it.getBoundingClientRect()).filter((it) => it.width > 1);
          return [boxes.map((it) => it.top), boxes.map((it) => it.bottom), document.querySelector('header').offsetHeight];`);
        assert.ok(Math.max(...tops) < Math.min(...bottoms) && height < 64, `${tops} ${bottoms} ${height}`);
        await holdsNothingHidden();
        await accessible(axe);
        await shot(`page-${width}-${scheme}`);
        await js('document.querySelector("[data-testid=timeline]").scrollIntoView({ block: "center" })');
        await shot(`timeline-${width}-${scheme}`);
        await js('document.querySelector(`a[data-item][data-id="${arguments[0]}"]`).click()', nasty.id);
        await until('the details', opened);
        assert.ok(await js('const it = document.querySelector("[data-testid=details]"); return it.scrollWidth <= it.clientWidth'));
        await holdsNothingHidden();
        await accessible(axe);
        await shot(`details-${width}-${scheme}`);
        await press(ESCAPE);
        await until('it is closed', async () => !(await opened()));
      }
    }
    await dark(false);
    await wide();
    state.node = 'node-7';
  },
  async 'thousands are a bounded page that goes on answering'() {
    const crowd = Array.from({ length: 3000 }, (_, at) => incident(at * 2000 + 1000, 500, { process: by(at + 10_000, `prog${at % 400}`) }));
    const going = Array.from({ length: 600 }, (_, at) => incident(at * 100, null, { process: by(at + 20_000, `many${at % 300}`) }));
    state.incidents = [...crowd, ...going];
    await fresh('/');
    await until('they are counted', async () => (await text('headline-big')) === '600 open incidents', 20_000);
    await until('some are loaded', async () => parseInt(await text('past-count'), 10) > 1000, 20_000);
    const elements = await js('return document.querySelectorAll("*").length');
    assert.ok(elements < 6000, `${elements} elements`);
    assert.match(await text('open-more'), /Show 50 more of 550/);
    // Drawing is done when the click is.
    const took = await js('const at = performance.now(); document.querySelector("[data-testid=open-more]").click(); return performance.now() - at');
    assert.ok(took < 1000, `${took} ms for fifty more`);
    assert.equal(await js('return document.querySelectorAll("[data-testid=open-list] [data-testid=incident]").length'), 100);
    await until('older ones are offered', async () => /Show 50 more/.test(await text('past-more')));
    await accessible(axe);
    await shot('thousands');
    // One program in six hundred processes.
    state.incidents = going.map((it) => ({ ...it, process: by(it.process.pid, 'one') }));
    await fresh('/');
    await until('one row', async () => /600 incidents/.test(await fold()), 20_000);
    await js('document.querySelector("[data-testid=fold]").click()');
    await until('fifty of them', async () => (await shown()).length === 50);
    await js('document.querySelector(".fold .more").click()');
    await until('a hundred', async () => (await shown()).length === 100);
  },
  async 'one is one, and none is none'() {
    state.incidents = [incident(MINUTE, null)];
    await fresh('/');
    await until('one', async () => (await text('headline-big')) === '1 open incident');
    assert.equal(await text('open-count'), '1');
    api.tell({ ...state.incidents[0], state: 'resolved', resolved_at: new Date().toISOString() });
    await until('none', async () => !/open incident/.test(await text('headline-big')) && (await js('return document.querySelector("#open-section").hidden')));
    assert.doesNotMatch(await js('return document.title'), /^\(/);
    await until('it was', async () => (await text('past-count')) === '1');
    await shot('none');
  },
};

await run(steps);
api.close();
