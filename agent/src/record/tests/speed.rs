//! How fast, by hand.

use std::time::Instant;

use super::*;

/// Records like those of a busy host: 150 bytes, a handful of processes, addresses that repeat,
/// ports and times that do not.
fn busy_host(count: u64) -> impl Iterator<Item = [u8; 150]> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..count).map(move |n| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = (state >> 32) as u32;
        let process = 1000 + (random >> 28) * 17;
        let mut record = [0; 150];
        record[..8].copy_from_slice(&(42_000_000_000 + n * 4_800 + u64::from(random & 0xfff)).to_le_bytes());
        record[8..12].copy_from_slice(&(1 + (n % 3) as u32).to_le_bytes());
        record[12..16].copy_from_slice(&150u32.to_le_bytes());
        record[16..24].copy_from_slice(&(n / 3).to_le_bytes());
        record[24..28].copy_from_slice(&process.to_le_bytes());
        record[28..32].copy_from_slice(&(process + (random >> 24 & 7)).to_le_bytes());
        record[32..36].copy_from_slice(&4_026_531_840u32.to_le_bytes());
        record[40..48].copy_from_slice(&(7000 + u64::from(random >> 28)).to_le_bytes());
        record[48..53].copy_from_slice(b"raven");
        for (at, host) in [(64, 2), (80, random >> 16 & 0x3f)] {
            record[at + 10..at + 14].copy_from_slice(&[0xff, 0xff, 10, 0]);
            record[at + 15] = host as u8;
        }
        record[96..98].copy_from_slice(&(random as u16).to_le_bytes());
        record[98..100].copy_from_slice(&443u16.to_le_bytes());
        record[100..104].copy_from_slice(&[2, 0, 6, 0]);
        record[104..108].copy_from_slice(&(random & 0xf_ffff).to_le_bytes());
        record
    })
}

#[test]
#[ignore = "a measurement: cargo test --release -p culprit record -- --ignored --nocapture"]
fn a_million_records_are_read_in_less_than_a_second() {
    const COUNT: u64 = 1_000_000;
    let records: Vec<_> = busy_host(COUNT).collect();
    let began = Instant::now();
    let mut writer = Writer::new(Vec::new(), &start()).unwrap();
    for record in &records {
        writer.record(record).unwrap();
    }
    let file = writer.finish(0).unwrap();
    let writing = began.elapsed();

    let began = Instant::now();
    let mut bytes = 0;
    for item in Reader::open(&*file).unwrap() {
        let (Item::Record(item) | Item::Context(item)) = item.unwrap();
        bytes += std::hint::black_box(&item).len();
    }
    let reading = began.elapsed();
    assert_eq!(bytes, records.len() * 150);
    let rate = |took: std::time::Duration| COUNT as f64 / took.as_secs_f64() / 1e6;
    eprintln!(
        "{COUNT} records of 150 bytes: written at {:.1} M/s, read at {:.1} M/s; {:.1} bytes each, ratio {:.1}",
        rate(writing),
        rate(reading),
        file.len() as f64 / COUNT as f64,
        bytes as f64 / file.len() as f64,
    );
    assert!(reading.as_secs_f64() < 1.0);
}
