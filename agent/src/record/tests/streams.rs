//! Disks that fill up, pipes that come in pieces, items that are kept.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
};

use super::*;

/// A disk with room for so many bytes; once it was full, room is made.
struct Disk {
    room: usize,
    written: Vec<u8>,
}

impl Write for &mut Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.room);
        if count == 0 && !bytes.is_empty() {
            self.room = usize::MAX;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room -= count;
        self.written.extend(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_leaves_every_block_before() {
    let room = header_only().len() + 100;
    let mut disk = Disk { room, written: Vec::new() };
    let mut writer = Writer::new(&mut disk, &start()).unwrap();
    writer.record(b"kept").unwrap();
    writer.flush().unwrap();
    writer.record(&[3; 5]).unwrap();
    writer.record(b"0123456789abcdefghijklmnopqrstuvwxyz").unwrap();
    assert!(matches!(writer.flush(), Err(WriteError::Io(_))));
    // There is room again, but nothing may follow a torn block.
    assert!(matches!(writer.record(b"later"), Err(WriteError::Ended)));
    assert!(matches!(writer.flush(), Err(WriteError::Ended)));
    assert!(matches!(writer.finish(0), Err(WriteError::Ended)));
    let read = drain(&*disk.written).unwrap();
    assert_eq!(read.items, [record("kept")]);
    assert!(matches!(read.tail, Some(Tail::Torn { .. })));
}

/// A pipe: a few bytes at a time, sometimes an interruption, an error at the end if there is one.
struct Pipe {
    chunks: VecDeque<Vec<u8>>,
    interrupt: bool,
    error: Option<io::ErrorKind>,
}

impl Pipe {
    fn new(file: &[u8], error: Option<io::ErrorKind>) -> Self {
        Self { chunks: file.chunks(3).map(<[u8]>::to_vec).collect(), interrupt: false, error }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt = !self.interrupt;
        if self.interrupt {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match (self.chunks.pop_front(), self.error) {
            (Some(chunk), _) => {
                let count = chunk.len().min(buffer.len());
                buffer[..count].copy_from_slice(&chunk[..count]);
                if count < chunk.len() {
                    self.chunks.push_front(chunk[count..].to_vec());
                }
                Ok(count)
            }
            (None, Some(kind)) => Err(kind.into()),
            (None, None) => Ok(0),
        }
    }
}

#[test]
fn a_pipe_is_as_good_as_a_file() {
    let file = recording(&groups());
    let read = drain(Pipe::new(&file, None)).unwrap();
    assert_eq!(read.items, groups().concat());
    assert!(read.errors.is_empty());
}

#[test]
fn a_read_that_fails_is_an_error_and_not_a_torn_tail() {
    let file = recording(&groups());
    let cut = block_offsets(&file)[1] + 5;
    let read = drain(Pipe::new(&file[..cut], Some(io::ErrorKind::ConnectionReset))).unwrap();
    assert_eq!(read.items, groups()[0]);
    assert!(matches!(read.errors[..], [Error::Io { at_byte, .. }] if at_byte == cut as u64));
    assert_eq!(read.tail, None);
}

#[test]
fn an_item_outlives_the_block_it_came_in() {
    let groups: Vec<_> = (0..20u8).map(|n| vec![record(vec![n; 5000])]).collect();
    // All are held until the end, so no block's memory may be used again.
    assert_eq!(drain(&*recording(&groups)).unwrap().items, groups.concat());
}
