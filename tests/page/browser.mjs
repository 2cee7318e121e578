// A real browser, through WebDriver (https://www.w3.org/TR/webdriver2/), for the tests of the page.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const ELEMENT = 'element-6066-11e4-a52e-4f735466cecf';
export const ENTER = '\uE007';
export const ESCAPE = '\uE00C';

export async function until(what, holds, within = 10_000) {
  const begun = Date.now();
  for (;;) {
    const last = await holds();
    if (last) return last;
    if (Date.now() - begun > within) throw new Error(`never came true within ${within} ms: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

/** A browser that looks at `page`, by the chromedriver at `driver`; screenshots go to `shots`, when that is given. */
export async function browser(driver, page, shots) {
  const profile = mkdtempSync(join(tmpdir(), 'culprit-page-'));
  async function call(method, path, body) {
    const response = await fetch(driver + path, { method, body: body === undefined ? undefined : JSON.stringify(body) });
    const { value } = await response.json();
    if (!response.ok) throw new Error(`${method} ${path}: ${value?.error}: ${value?.message}`);
    return value;
  }
  const options = {
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--window-size=1280,900', `--user-data-dir=${profile}`],
  };
  const { sessionId } = await call('POST', '/session', {
    capabilities: { alwaysMatch: { 'goog:chromeOptions': options, 'goog:loggingPrefs': { browser: 'ALL', performance: 'ALL' } } },
  });
  const at = `/session/${sessionId}`;
  const js = (script, ...args) => call('POST', `${at}/execute/sync`, { script, args });
  const cdp = (cmd, params) => call('POST', `${at}/goog/cdp/execute`, { cmd, params });
  const press = (key) => call('POST', `${at}/actions`, {
    actions: [{ type: 'key', id: 'keys', actions: [{ type: 'keyDown', value: key }, { type: 'keyUp', value: key }] }],
  });
  const shot = async (name) => {
    if (shots) writeFileSync(join(shots, `${name}.png`), Buffer.from(await call('GET', `${at}/screenshot`), 'base64'));
  };
  return {
    js, cdp, press, shot,
    go: (path) => call('POST', `${at}/url`, { url: page + path }),
    back: () => call('POST', `${at}/back`, {}),
    forward: () => call('POST', `${at}/forward`, {}),
    click: (element) => call('POST', `${at}/element/${element[ELEMENT]}/click`, {}),
    log: (type) => call('POST', `${at}/se/log`, { type }),
    text: (testid) => js('return document.querySelector(`[data-testid="${arguments[0]}"]`)?.innerText ?? ""', testid),
    count: (testid) => js('return document.querySelectorAll(`[data-testid="${arguments[0]}"]`).length', testid),
    opened: () => js('return document.querySelector("[data-testid=details]").open'),
    live: () => until('it is live', async () => (await js('return document.querySelector("[data-testid=conn]")?.dataset.state')) === 'live'),
    dark: (on) => cdp('Emulation.setEmulatedMedia', { features: on ? [{ name: 'prefers-color-scheme', value: 'dark' }] : [] }),
    /** A screen so wide; without a width, the window's own. */
    wide: (width, height = 844) => (width ? cdp('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 2, mobile: width < 600 })
      : cdp('Emulation.clearDeviceMetricsOverride', {})),
    /** What axe has against the page as it is (https://github.com/dequelabs/axe-core), by the script at `axe`. */
    async accessible(axe) {
      await js(readFileSync(axe, 'utf8'));
      const found = await call('POST', `${at}/execute/async`, {
        script: 'const done = arguments[0]; axe.run().then((it) => done(it.violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.html.slice(0, 200)).join(" | ")}`)), (e) => done([String(e)]));',
        args: [],
      });
      assert.deepEqual(found, []);
    },
    /** Takes the steps one after the other, says what became of each, and ends the browser. Exits with 1 if one failed. */
    async run(steps) {
      let failed = 0;
      try {
        for (const [name, step] of Object.entries(steps)) {
          try {
            await step();
            console.log(`ok: ${name}`);
          } catch (error) {
            failed += 1;
            console.log(`FAILED: ${name}: ${error.stack}`);
            await shot(`failed-${failed}`);
          }
        }
      } finally {
        await call('DELETE', at);
        rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
      }
      console.log(failed ? `done: ${failed} failed` : 'done: all hold');
      process.exitCode = failed ? 1 : 0;
    },
  };
}
