//! How often what happened, and how long it took: the numbers the programs count whatever is reported, summed over
//! processors. Says what they are, not how they are shown.

use aya::maps::PerCpuArray;
use ebpf_probes::metrics::{
    BUCKETS_USED, COUNTERS, COUNTERS_MAP, Ended, HISTOGRAMS_MAP, Histogram as Row, NeighEvent, Timed, counter,
};

use super::load::{Error, Kernel};

/// Everything that was counted since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    counts: [u64; COUNTERS],
    durations: Vec<Durations>,
}

/// How long something took, as often as it happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Durations {
    /// All of them together, nanoseconds.
    pub sum_ns: u64,
    /// How many fell into each bucket; of bounds see [`ebpf_probes::metrics::bound_ns`].
    pub buckets: [u64; BUCKETS_USED],
}

impl Durations {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    fn add(&mut self, row: &Row) {
        self.sum_ns = self.sum_ns.wrapping_add(row.sum_ns);
        for (sum, count) in self.buckets.iter_mut().zip(row.buckets) {
            *sum = sum.wrapping_add(count);
        }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self { counts: [0; COUNTERS], durations: vec![Durations::default(); Timed::ALL.len()] }
    }
}

impl Counters {
    /// Reads them: one system call, and one more for each thing that is timed.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn read(kernel: &Kernel) -> Result<Self, Error> {
        let mut all = Self::default();
        let error = |source| Error::Map { name: COUNTERS_MAP, source };
        if let Some(map) = kernel.map(COUNTERS_MAP) {
            let map: PerCpuArray<_, Columns> = PerCpuArray::try_from(map).map_err(error)?;
            for columns in map.get(&0, 0).map_err(error)?.iter() {
                for (sum, count) in all.counts.iter_mut().zip(columns.0) {
                    *sum = sum.wrapping_add(count);
                }
            }
        }
        let error = |source| Error::Map { name: HISTOGRAMS_MAP, source };
        if let Some(map) = kernel.map(HISTOGRAMS_MAP) {
            let map: PerCpuArray<_, RowValue> = PerCpuArray::try_from(map).map_err(error)?;
            for (at, durations) in (0u32..).zip(&mut all.durations) {
                for row in map.get(&at, 0).map_err(error)?.iter() {
                    durations.add(&row.0);
                }
            }
        }
        Ok(all)
    }

    /// Connects that failed where no program sees it: [`super::sweep::Seen::given_up`].
    pub fn add_given_up(&mut self, connects: u64) {
        let at = (counter::CONNECTS + Ended::Other as u32) as usize;
        self.counts[at] = self.counts[at].wrapping_add(connects);
    }

    fn count(&self, number: u32) -> u64 {
        self.counts.get(number as usize).copied().unwrap_or(0)
    }

    /// TCP connects that ended so.
    pub fn connects(&self, ended: Ended) -> u64 {
        self.count(counter::CONNECTS + ended as u32)
    }

    /// SYNs sent again.
    pub fn syn_retransmits(&self) -> u64 {
        self.count(counter::SYN_RETRANSMITS)
    }

    /// SYN-ACKs sent again.
    pub fn synack_retransmits(&self) -> u64 {
        self.count(counter::SYNACK_RETRANSMITS)
    }

    /// Handshakes of a role that ended in this stage; 0 for a role or a stage that is none or no end.
    pub fn handshakes(&self, role: u32, stage: u32) -> u64 {
        use ebpf_probes::probes::tls::{CLIENT, SERVER, ended, stage};
        let is_end = (CLIENT..=SERVER).contains(&role) && (stage::DONE..=stage::NOT_TLS).contains(&stage);
        if is_end { self.count(ended(role, stage)) } else { 0 }
    }

    /// DNS questions sent.
    pub fn dns_queries(&self) -> u64 {
        self.count(counter::DNS_QUERIES)
    }

    /// DNS answers by response code.
    pub fn dns_responses(&self) -> impl Iterator<Item = (u32, u64)> {
        (0..counter::DNS_RCODES).map(|rcode| (rcode, self.count(counter::DNS_RESPONSES + rcode)))
    }

    /// What happened to neighbours of a family.
    pub fn neighbours(&self, event: NeighEvent, v6: bool) -> u64 {
        self.count(counter::neigh(event, v6))
    }

    /// How long something took.
    pub fn durations(&self, timed: Timed) -> Durations {
        self.durations.get(timed as usize).copied().unwrap_or_default()
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Columns([u64; COUNTERS]);
// SAFETY: an array of integers; any bytes are valid.
unsafe impl aya::Pod for Columns {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct RowValue(Row);
// SAFETY: `#[repr(C)]` integers without padding; any bytes are valid.
unsafe impl aya::Pod for RowValue {}

#[cfg(test)]
mod tests {
    use ebpf_probes::{
        metrics::BUCKETS,
        probes::tls::{CLIENT, stage},
    };

    use super::*;

    #[test]
    fn rows_of_all_processors_add_up_and_room_that_is_not_used_does_not_count() {
        let mut row = Row { sum_ns: 5, buckets: [0; BUCKETS] };
        row.buckets[0] = 1;
        row.buckets[BUCKETS_USED - 1] = 2;
        row.buckets[BUCKETS_USED] = 100;
        let mut durations = Durations::default();
        durations.add(&row);
        durations.add(&row);
        assert_eq!((durations.sum_ns, durations.count(), durations.buckets[0]), (10, 6, 2));
    }

    #[test]
    fn connects_no_program_sees_are_of_another_outcome_and_a_stage_that_is_no_end_counts_nothing() {
        let mut counters = Counters::default();
        counters.add_given_up(3);
        assert_eq!((counters.connects(Ended::Other), counters.connects(Ended::Established)), (3, 0));
        assert_eq!(counters.handshakes(CLIENT, stage::HELLO), 0);
        assert_eq!(counters.handshakes(0, stage::DONE), 0);
    }
}
