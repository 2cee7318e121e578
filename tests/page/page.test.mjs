// The page of a running culprit, in a real browser.
//
//   node page.test.mjs http://127.0.0.1:9877 http://127.0.0.1:9515 ADDRESS:PORT OTHER [DIRECTORY FOR SCREENSHOTS]
//
// An incident about ADDRESS:PORT must be open; others may come and go. Whoever runs this makes another when it says
// `ask: incident`, one about OTHER that is explained when it says `ask: chain`, and ends culprit when it says
// `ask: stop`.

import assert from 'node:assert/strict';

import { browser, ENTER, ESCAPE, until } from './browser.mjs';

const [, , page, driver, destination, explained, shots] = process.argv;
const { js, go, press, cdp, text, count, opened, shot, click, log, live, run } = await browser(driver, page, shots);

const steps = {
  async 'what is open is there, live, with the health of the probes'() {
    await go('/');
    await live();
    await until('an incident', () => count('incident'));
    assert.match(await text('headline-big'), /\d+ open incident/);
    await until('five probes', async () => (await count('probe')) === 5);
    assert.ok((await count('rate')) >= 6);
    assert.ok((await text('node')).length > 0);
    await until('the time line has it', () => count('tl-bar'));
    assert.ok(await js(`const [app] = performance.getEntriesByType('resource').filter((it) => it.name.endsWith('/app.js'));
      return app.encodedBodySize < app.decodedBodySize / 2;`), 'app.js came as it is');
    await shot('desktop-light');
  },
  async 'a new incident appears within two seconds of being told'() {
    const before = await count('incident');
    console.log('ask: incident');
    // 300 ms until it is a stall; the rest is the page's.
    await until('another incident', async () => (await count('incident')) > before, 4_000);
  },
  async 'a click opens it: evidence, remedies, JSON; Escape closes it'() {
    const { id, link } = await js(`
      const all = document.querySelectorAll('[data-testid=open-list] [data-testid=incident]');
      const link = [...all].find((one) => one.innerText.includes(arguments[0]));
      return { id: link.dataset.id, link };`, destination);
    await click(link);
    await until('the details', opened);
    assert.equal(await js('return location.hash'), `#${id}`);
    assert.ok((await count('evidence-line')) >= 1);
    assert.ok((await count('remedy')) >= 1);
    assert.ok((await text('details-summary')).length > 20);
    assert.match(await text('confidence'), /certain|likely|possible/);
    await js('document.querySelector("[data-testid=raw-toggle]").open = true');
    await until('its JSON', async () => (await text('raw')).includes(id));
    await shot('details');
    await press(ESCAPE);
    await until('it is closed', async () => !(await opened()));
  },
  async 'j and Enter open it too'() {
    await js('document.activeElement?.blur()');
    await press('j');
    assert.equal(await js('return document.activeElement.dataset.testid'), 'incident');
    await press(ENTER);
    await until('the details', opened);
    await press(ESCAPE);
    await until('it is closed', async () => !(await opened()));
  },
  async 'an address of its own opens an incident'() {
    const id = await js('return document.querySelector("[data-testid=incident]").dataset.id');
    await go('/?again');
    await go(`/#${id}`);
    await until('the details', opened);
    await press(ESCAPE);
  },
  async 'a cause is a link, both ways'() {
    console.log('ask: chain');
    const chip = (about, chip) => js(`
      const all = [...document.querySelectorAll('[data-testid=incident]')];
      const shows = (one) => one.querySelector('[data-testid="' + arguments[1] + '"]');
      const is = (one) => one.dataset.id === arguments[0] || one.innerText.includes(arguments[0]);
      return all.find((one) => is(one) && shows(one))?.dataset.id ?? null;`, about, chip);
    const id = await until('one that is explained', () => chip(explained, 'chip-caused-by'), 20_000);
    await js('document.querySelector(`[data-testid=incident][data-id="${arguments[0]}"]`).click()', id);
    await until('the details', opened);
    const link = await until('a link to the cause', () => js(
      'return document.querySelector("[data-testid=details] li a[data-id]")?.dataset.id'));
    await js('document.querySelector("[data-testid=details] li a[data-id]").click()');
    await until('the cause', async () => (await js('return location.hash')) === `#${link}`);
    await shot('chain');
    await press(ESCAPE);
    await until('the cause says that it explains', () => chip(link, 'chip-explains'));
  },
  async 'a filter hides the rest and says so'() {
    await press('/');
    assert.equal(await js('return document.activeElement.dataset.testid'), 'filter-text');
    for (const key of 'zzzznothing') await press(key);
    await until('nothing is left', async () => (await count('incident')) === 0);
    assert.ok((await text('hidden-note')).length > 0);
    await press(ESCAPE);
    await until('all are back', () => count('incident'));
  },
  async 'dark mode is dark'() {
    await cdp('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: 'dark' }] });
    const light = await js(`const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\\d+/g); return +r + +g + +b`);
    assert.ok(light < 150, `background ${light}`);
    await shot('desktop-dark');
    await cdp('Emulation.setEmulatedMedia', { features: [] });
  },
  async 'a phone needs no sideways scrolling'() {
    await cdp('Emulation.setDeviceMetricsOverride', { width: 360, height: 740, deviceScaleFactor: 2, mobile: true });
    await until('it fits', () => js('return document.documentElement.scrollWidth <= 360'));
    await shot('phone');
    await js('document.querySelector("[data-testid=incident]").click()');
    await until('the details', opened);
    assert.ok(await js('return document.documentElement.scrollWidth <= 360 && document.querySelector("[data-testid=details]").scrollWidth <= 360'));
    await shot('phone-details');
    await press(ESCAPE);
    await cdp('Emulation.clearDeviceMetricsOverride', {});
  },
  async 'nothing was asked of anybody else, and nothing failed'() {
    const errors = (await log('browser')).filter((entry) => entry.level === 'SEVERE');
    assert.deepEqual(errors, []);
    const asked = (await log('performance'))
      .map((entry) => JSON.parse(entry.message).message)
      .filter((message) => message.method === 'Network.requestWillBeSent')
      .map((message) => message.params.request.url);
    assert.ok(asked.length > 5);
    const elsewhere = asked.filter((url) => !url.startsWith(`${page}/`) && !/^(data|chrome|about):/.test(url));
    assert.deepEqual(elsewhere, []);
  },
  async 'a culprit that is gone is not shown as live'() {
    console.log('ask: stop');
    await until('it says so', async () => (await js('return document.querySelector("[data-testid=conn]").dataset.state')) !== 'live', 15_000);
    await until('in words', async () => (await count('banner-stale')) === 1, 30_000);
    await shot('gone');
  },
};

await run(steps);
