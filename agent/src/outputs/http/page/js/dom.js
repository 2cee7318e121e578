// Building the page. Everything a server or a process says goes in as text nodes, never as markup.

const SVG = 'http://www.w3.org/2000/svg';

// What a browser shows nothing for, or turns around: controls, formatting, separators, marks, odd blanks.
const HIDDEN = /[\p{C}\p{Zl}\p{Zp}\p{M}\u115f\u1160\u3164\uffa0\u2800]|(?! )\p{Zs}/gu;

/** Text with everything hidden in it escaped, as culprit's own text has it; line breaks of ours stay. */
export const visible = (text) => String(text).replace(HIDDEN, (c) => (c === '\n' ? c : `\\u{${c.codePointAt(0).toString(16)}}`));

// Ids of containers, cgroups and scopes: nobody reads 64 digits, and engines list the first twelve.
const DIGEST = /(?=[a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{32,}/g;
const brief = (text) => String(text).replace(DIGEST, (id) => id.slice(0, 12));
export const plain = (text) => visible(brief(text));

/** Text that must stay what it is, for copying: a command, JSON. */
export const exact = (text) => document.createTextNode(visible(text));

/** A name somebody else chose, with its direction kept to itself, and no longer than a line can bear. */
export function named(name, most = 64) {
  const letters = [...brief(name)];
  return h('bdi', {}, letters.length > most ? `${letters.slice(0, most).join('')}… (${letters.length} characters)` : letters.join(''));
}

// Attributes that are read to people.
const SPOKEN = ['title', 'aria-label', 'placeholder'];

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'on') for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    else if (name === 'data') for (const [key, text] of Object.entries(value)) element.dataset[key] = text;
    else if (name === 'testid') element.dataset.testid = value;
    else element.setAttribute(name, value === true ? '' : SPOKEN.includes(name) ? plain(value) : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child instanceof Node ? child : plain(child));
  }
  return element;
}

export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);
export const svg = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);
export const byId = (id) => document.getElementById(id);

/** Sets text only where it differs, so that nothing is selected away or announced twice. */
export function say(element, text) {
  const shown = plain(text);
  if (element.textContent !== shown) element.textContent = shown;
}

/** Makes `wanted` the children of `parent` and leaves those alone that stand right: focus and clicks survive. */
export function sync(parent, wanted) {
  const keep = new Set(wanted);
  for (const child of [...parent.childNodes]) if (!keep.has(child)) child.remove();
  let at = parent.firstChild;
  for (const child of wanted) {
    if (child === at) at = at.nextSibling;
    else parent.insertBefore(child, at);
  }
}

/** The sign of a severity: told by shape as well as by colour. */
export function sign(severity, size = 16) {
  const shape = {
    critical: ['M5 .5h6L15.5 5v6L11 15.5H5L.5 11V5z', 'M8 3.6v5.2M8 11.2v1.2'],
    warning: ['M8 1 15.6 14.7H.4z', 'M8 5.6v4.4M8 11.7v1.2'],
  }[severity] || ['M8 .7a7.3 7.3 0 1 0 0 14.6A7.3 7.3 0 0 0 8 .7z', 'M8 7.2v5M8 3.8v1.3'];
  return svg('svg', { class: `sign ${severityClass(severity)}`, viewBox: '0 0 16 16', width: size, height: size, 'aria-hidden': 'true' },
    svg('path', { class: 'sign-shape', d: shape[0] }), svg('path', { class: 'sign-mark', d: shape[1] }));
}

export function severityClass(severity) {
  return ['critical', 'warning', 'info'].includes(severity) ? `sev-${severity}` : 'sev-info';
}

/** Copies, also where the page did not come over HTTPS and the clipboard API is withheld. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h('textarea', { class: 'vh', readonly: true, 'aria-hidden': 'true' });
    area.value = text;
    const before = document.activeElement;
    (document.querySelector('dialog[open]') || document.body).append(area);
    area.select();
    let done = false;
    try { done = document.execCommand('copy'); } catch { done = false; }
    area.remove();
    before?.focus?.({ preventScroll: true });
    return done;
  }
}

export function copyButton(text, label) {
  const button = h('button', { type: 'button', class: 'copy', testid: 'copy', 'aria-label': label, data: { key: label } }, 'Copy');
  button.addEventListener('click', async () => {
    say(button, await copy(text) ? 'Copied' : 'Select it');
    setTimeout(() => say(button, 'Copy'), 2000);
  });
  return button;
}

/** One of so many: `1 incident`, `2 incidents`. */
export const many = (n, one, more = `${one}s`) => `${n.toLocaleString('en-US')} ${n === 1 ? one : more}`;

/** What the viewer chose, kept where the browser allows it. */
export const choice = {
  get(name, otherwise) {
    try { return localStorage.getItem(`culprit.${name}`) ?? otherwise; } catch { return otherwise; }
  },
  set(name, value) {
    try { localStorage.setItem(`culprit.${name}`, value); } catch { /* a private window */ }
  },
};
