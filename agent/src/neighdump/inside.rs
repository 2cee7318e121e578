//! A network namespace entered by its number: by a process that lives there, or by what keeps it.

use std::{io, path::PathBuf, thread};

use ebpf_probes::abi::Netns;

use crate::namespaces::{enter, find, own};

/// Runs code in a thread inside a network namespace; what it gave, and the file by which the namespace was entered
/// (`None`: it is this process's own). `process` is one that lives there, 0 for none known.
///
/// # Errors
/// When the namespace is not found ([`io::ErrorKind::NotFound`]), may not be entered, or is another one by now.
pub fn within<T: Send + 'static>(
    netns: Netns,
    process: u32,
    code: impl FnOnce() -> T + Send + 'static,
) -> io::Result<(T, Option<PathBuf>)> {
    let own = own();
    let inside = move || {
        if own.is_some_and(|own| is(own, netns)) {
            return Ok((code(), None));
        }
        let of_process = PathBuf::from(format!("/proc/{process}/ns/net"));
        let path = if process != 0 && enter(&of_process, own).is_ok_and(|entered| is(entered, netns)) {
            of_process
        } else {
            // A process by which it was found may be gone when it is entered, and another one still be there.
            found(netns, own).or_else(|_| found(netns, own))?
        };
        Ok((code(), Some(path)))
    };
    let visitor = thread::Builder::new().name("netns".into()).spawn(inside)?;
    visitor.join().map_err(|_| io::Error::other("the thread that visits a network namespace panicked"))?
}

/// Looks for what keeps the namespace, and enters it.
fn found(netns: Netns, own: Option<Netns>) -> io::Result<PathBuf> {
    let path = find()?.remove(&netns.inode).ok_or(io::ErrorKind::NotFound)?.path;
    // The number may be another's by now.
    if is(enter(&path, own)?, netns) { Ok(path) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Whether the namespace that was entered is the one that was meant, whose generation may not be known.
fn is(entered: Netns, netns: Netns) -> bool {
    entered.inode == netns.inode && (netns.generation == 0 || entered.generation == netns.generation)
}
