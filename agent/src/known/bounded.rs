//! A map that forgets its oldest entries: memory bounded by construction.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// How full some bounded memory is, for those who watch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// What it remembers.
    pub name: &'static str,
    /// Entries there are.
    pub entries: u64,
    /// Entries there can be.
    pub capacity: u64,
    /// Live entries that had to give way so far.
    pub evictions: u64,
}

/// At most `limit` entries; the oldest insertion gives way.
#[derive(Debug)]
pub struct Bounded<K, V> {
    entries: HashMap<K, (V, u64)>,
    order: VecDeque<(K, u64)>,
    limit: usize,
    next: u64,
    evicted: u64,
}

impl<K: Hash + Eq + Clone, V> Bounded<K, V> {
    /// An empty map for at most `limit` entries.
    pub fn new(limit: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), limit, next: 0, evicted: 0 }
    }

    /// Inserts, making room if needed.
    pub fn insert(&mut self, key: K, value: V) {
        self.next += 1;
        self.order.push_back((key.clone(), self.next));
        self.entries.insert(key, (value, self.next));
        // Entries replaced or removed leave stale marks behind; they go first and for free.
        while self.entries.len() > self.limit || self.order.len() > self.limit * 2 {
            let Some((key, mark)) = self.order.pop_front() else { break };
            if self.entries.get(&key).is_some_and(|(_, live)| *live == mark) {
                self.entries.remove(&key);
                self.evicted += 1;
            }
        }
    }

    /// The entry.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// The entry, to change.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(value, _)| value)
    }

    /// Takes the entry out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key).map(|(value, _)| value)
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (value, _))| (key, value))
    }

    /// All values, in no particular order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values().map(|(value, _)| value)
    }

    /// All entries, to change, in no particular order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|(key, (value, _))| (key, value))
    }

    /// Entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Live entries that had to give way so far.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// How full it is.
    pub fn table(&self, name: &'static str) -> Table {
        Table {
            name,
            entries: self.entries.len() as u64,
            capacity: self.limit as u64,
            evictions: self.evicted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_way_and_is_counted() {
        let mut map = Bounded::new(2);
        for i in 0..5 {
            map.insert(i, i);
        }
        assert_eq!((map.len(), map.evicted(), map.get(&4), map.get(&2)), (2, 3, Some(&4), None));
        assert_eq!(map.table("t"), Table { name: "t", entries: 2, capacity: 2, evictions: 3 });
    }

    #[test]
    fn a_replaced_entry_is_as_young_as_its_replacement() {
        let mut map = Bounded::new(2);
        map.insert("a", 1);
        map.insert("b", 1);
        map.insert("a", 2);
        map.insert("c", 1);
        assert_eq!((map.get(&"a"), map.get(&"b"), map.get(&"c")), (Some(&2), None, Some(&1)));
    }

    #[test]
    fn removal_and_reinsertion_stay_within_bounds() {
        let mut map = Bounded::new(4);
        for i in 0..1000 {
            map.insert(i % 3, i);
            map.remove(&(i % 3));
        }
        assert!(map.is_empty() && map.order.len() <= 8);
    }
}
