// The keyboard, and the page that explains it.

import { byId, h } from './dom.js';

const KEYS = [
  ['j  ↓', 'next incident'], ['k  ↑', 'the one before'], ['Enter', 'open it, or what is folded'], ['Esc', 'close; leave the filter'], ['/', 'filter'],
  ['[  ]', 'earlier, later'], ['n', 'back to now'], ['0 … 5', 'range: what fits, 15 min, 1 h, 6 h, 24 h, 7 d'], ['u', 'UTC or this browser’s zone'], ['?', 'this help'],
];

export function help() {
  const dialog = byId('help');
  if (dialog.open) return;
  const close = h('button', { type: 'button', class: 'close', 'aria-label': 'Close' }, '✕');
  close.addEventListener('click', () => dialog.close());
  dialog.replaceChildren(h('header', {}, h('h2', { id: 'help-title', class: 'grow' }, 'Keys'), close),
    h('dl', { class: 'keys' }, KEYS.map(([key, does]) => [h('dt', {}, key.split('  ').map((it) => [h('kbd', {}, it), ' '])), h('dd', {}, does)])),
    h('p', { class: 'muted' }, 'Drag the time line to move in time. Every incident has an address of its own: copy the one in the address bar.'));
  dialog.showModal();
}

const visible = () => [...document.querySelectorAll('[data-item]')].filter((it) => it.checkVisibility());

function step(by) {
  const items = visible();
  if (!items.length) return;
  const at = items.indexOf(document.activeElement);
  const next = items[at < 0 ? (by > 0 ? 0 : items.length - 1) : Math.min(Math.max(at + by, 0), items.length - 1)];
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: 'nearest' });
}

export function keys({ timeline, range, now, zone }) {
  byId('help-open').addEventListener('click', help);
  byId('help').addEventListener('click', (event) => { if (event.target === byId('help')) byId('help').close(); });
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (document.querySelector('dialog[open]')) return; // Esc is the dialog's own
    const field = event.target.closest?.('input, select, textarea');
    if (field) {
      if (event.key !== 'Escape') return;
      if (field.id === 'f-text' && field.value) { field.value = ''; field.dispatchEvent(new Event('input', { bubbles: true })); }
      else field.blur();
      event.preventDefault();
      return;
    }
    const on = {
      j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1), '/': () => byId('f-text').focus(), '?': help,
      '[': () => timeline.pan(-0.5), ']': () => timeline.pan(0.5), n: now, u: zone, Escape: () => document.activeElement?.blur(),
      0: () => range(0), 1: () => range(1), 2: () => range(2), 3: () => range(3), 4: () => range(4), 5: () => range(5),
    }[event.key];
    // Arrows scroll the page until an incident has the focus.
    if (!on || (event.key.startsWith('Arrow') && !document.activeElement?.matches?.('[data-item]'))) return;
    event.preventDefault();
    on();
  });
}
