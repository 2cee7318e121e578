//! What a process ran that is gone: the path that the kernel half noted at exec, where the note is about that process.

use ebpf_probes::abi::executable::{Executable, flag};

use crate::records;

/// Who asks the kernel for its note of a process.
pub(super) type Noted = Box<dyn Fn(u32) -> Option<Executable> + Send>;

/// The executable of a process that acted at a moment (CLOCK_BOOTTIME in nanoseconds) under this name. `None`: what is
/// noted is of a later program, of another process of that number, or not certain.
pub(super) fn of(note: &Executable, acted_ns: u64, comm: &str) -> Option<String> {
    if acted_ns == 0 || note.since_ns > acted_ns {
        return None;
    }
    // An exec gives a process the name of the file.
    if note.flags & flag::UNSURE != 0 && records::comm(&note.comm) != comm {
        return None;
    }
    path(note)
}

/// `/usr/bin/curl`; `…/bin/curl` when there is more than was kept.
fn path(note: &Executable) -> Option<String> {
    let names = note.names.get(..note.len as usize)?.strip_suffix(&[0])?;
    let mut names: Vec<_> = names.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
    names.reverse();
    let above = if note.flags & flag::CUT == 0 { "" } else { "…" };
    Some(format!("{above}/{}", names.join("/")))
}

#[cfg(test)]
mod tests {
    use ebpf_probes::abi::executable::PATH;

    use super::*;

    fn note(names: &[u8], flags: u32) -> Executable {
        let mut note =
            Executable { since_ns: 100, len: names.len() as u32, flags, comm: [0; 16], names: [b'x'; PATH] };
        note.comm[..4].copy_from_slice(b"curl");
        note.names[..names.len()].copy_from_slice(names);
        note
    }

    #[test]
    fn a_path_is_put_together_from_its_names_and_one_that_was_cut_says_so() {
        let path = |names: &[u8], flags| path(&note(names, flags));
        assert_eq!(path(b"curl\0bin\0usr\0", 0).as_deref(), Some("/usr/bin/curl"));
        assert_eq!(path(b"curl\0", 0).as_deref(), Some("/curl"));
        assert_eq!(path(b"curl\0bin\0", flag::CUT).as_deref(), Some("…/bin/curl"));
        assert_eq!(path(b"", flag::CUT), None);
        assert_eq!(super::path(&Executable { len: u32::MAX, ..note(b"curl\0", 0) }), None);
    }

    #[test]
    fn a_note_from_after_a_process_acted_is_of_another_program() {
        let noted = note(b"curl\0", 0);
        assert_eq!(of(&noted, 100, "other").as_deref(), Some("/curl"));
        assert_eq!((of(&noted, 99, "curl"), of(&noted, 0, "curl")), (None, None));
    }

    #[test]
    fn a_note_that_may_be_outdated_holds_as_long_as_the_process_has_the_name_of_then() {
        let noted = note(b"curl\0", flag::UNSURE);
        assert_eq!(of(&noted, 200, "curl").as_deref(), Some("/curl"));
        assert_eq!(of(&noted, 200, "sh"), None);
    }
}
