// In which order incidents stand: a root before what it explains, which nests under it; and what many processes of one
// program suffer alike in one row that opens. Pure.

import { program } from './store.js';

const ALIKE = 10; // more of one kind and program fold

/**
 * Items in the order of `entries`, each `{ key, entry, under }` or `{ key, fold }`; a tree stands where the first of its
 * members would. What is explained by an incident that is not among `entries` stands alone.
 */
export function arrange(entries) {
  const by = new Map(entries.map((entry) => [entry.incident.id, entry]));
  const under = new Map(entries.map((entry) => [entry, []]));
  const cause = (entry) => (entry.incident.caused_by ?? []).map((id) => by.get(id)).find((it) => it && it !== entry);
  const roots = new Set();
  for (const entry of entries) {
    const root = rootOf(entry, cause);
    roots.add(root);
    if (root !== entry) under.get(root).push(entry);
  }
  return fold([...roots].map((entry) => ({ key: entry.incident.id, entry, under: fold(under.get(entry).map(alone), entry.incident.id) })), '');
}

const alone = (entry) => ({ key: entry.incident.id, entry, under: [] });

/** The last cause of a chain; of a chain that bites its tail always the same one. */
function rootOf(entry, cause) {
  const seen = new Set();
  for (let at = entry; ; ) {
    seen.add(at);
    const next = cause(at);
    if (!next) return at;
    if (seen.has(next)) return ring(next, cause);
    at = next;
  }
}

function ring(first, cause) {
  let least = first;
  for (let at = cause(first); at !== first; at = cause(at)) if (at.incident.id < least.incident.id) least = at;
  return least;
}

function fold(items, where) {
  const alike = new Map();
  for (const item of items) {
    const what = item.under.length ? null : program(item.entry.incident);
    if (!what) continue;
    item.group = `fold ${where} ${item.entry.incident.kind} ${what}`;
    if (!alike.has(item.group)) alike.set(item.group, []);
    alike.get(item.group).push(item.entry);
  }
  const done = new Set();
  return items.flatMap((item) => {
    const entries = alike.get(item.group) ?? [];
    if (entries.length <= ALIKE) return [item];
    if (done.has(item.group)) return [];
    done.add(item.group);
    return [{ key: item.group, fold: entries }];
  });
}
