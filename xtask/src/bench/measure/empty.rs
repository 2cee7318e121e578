//! Programs that do nothing: what the kernel's own accounting of a program costs, and what it costs to have
//! programs where culprit has its own. aya loads object files, so one is written here, in memory.

use std::{collections::BTreeSet, fs::File, io};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError, trace_point::TracePointError},
    sys::SyscallError,
};
use ebpf_probes::{probes::PROBES, spec::Attach};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};

use super::{proc::Runs, tracefs};

/// `r0 = 1; exit`: let the packet or the call pass.
const PASS: [u8; 16] = [0xb7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
/// What the programs are called, and the sections that give them their types.
const INGRESS: (&str, &str) = ("empty_in", "cgroup_skb/ingress");
const EGRESS: (&str, &str) = ("empty_out", "cgroup_skb/egress");
const CONNECT4: (&str, &str) = ("empty_connect4", "cgroup/connect4");
const CONNECT6: (&str, &str) = ("empty_connect6", "cgroup/connect6");
const SENDMSG4: (&str, &str) = ("empty_sendmsg4", "cgroup/sendmsg4");
const SENDMSG6: (&str, &str) = ("empty_sendmsg6", "cgroup/sendmsg6");
const RAW_TRACEPOINT: (&str, &str) = ("empty_raw", "raw_tp");
const TRACEPOINT: (&str, &str) = ("empty_event", "tracepoint");
const ALL: [(&str, &str); 8] =
    [INGRESS, EGRESS, CONNECT4, CONNECT6, SENDMSG4, SENDMSG6, RAW_TRACEPOINT, TRACEPOINT];

/// Two empty programs, one a direction, attached until this is dropped.
pub(crate) struct Empty(Ebpf);

/// An empty program wherever culprit has one of its own, attached until this is dropped.
pub(crate) struct Everywhere(#[expect(dead_code, reason = "held while they are to be attached")] Ebpf);

impl Empty {
    /// Attaches to a cgroup, after the programs that are there.
    pub(crate) fn attach(cgroup: &File) -> Result<Self> {
        let mut programs = loaded()?;
        for hook in [Attach::CgroupIngress, Attach::CgroupEgress] {
            attach(&mut programs, cgroup, &hook)?;
        }
        Ok(Self(programs))
    }

    /// What they did so far, inwards and outwards.
    pub(crate) fn runs(&self) -> Result<[Runs; 2]> {
        let of = |name: &str| {
            let info = self.0.program(name).context("an empty program")?.info()?;
            anyhow::Ok(Runs { count: info.run_count(), nanoseconds: info.run_time().as_nanos() as u64 })
        };
        Ok([of(INGRESS.0)?, of(EGRESS.0)?])
    }
}

impl Everywhere {
    /// Attaches to each hook of all probes once, as `culprit run` does. What this kernel does not have is left
    /// out, as culprit leaves it out.
    pub(crate) fn attach(cgroup: &File) -> Result<Self> {
        let mut programs = loaded()?;
        let mut seen = BTreeSet::new();
        let hooks = PROBES.iter().flat_map(|probe| probe.hooks).map(|hook| hook.attach);
        let hooks: Vec<Attach> = hooks.filter(|hook| seen.insert(named(hook))).collect();
        let attached = tracefs::with(|| {
            hooks.iter().try_fold(0, |so_far, hook| {
                anyhow::Ok(so_far + usize::from(attach(&mut programs, cgroup, hook)?))
            })
        })?;
        let all = hooks.len();
        ensure!(attached * 2 > all, "only {attached} of culprit's {all} hooks are here");
        Ok(Self(programs))
    }
}

/// One place has one name, however typed the program there is.
fn named(hook: &Attach) -> String {
    match hook {
        Attach::BtfTracepoint(name, _) | Attach::RawTracepoint(name, _) => (*name).to_owned(),
        other => format!("{other:?}"),
    }
}

/// Attaches the empty program of a hook's type there; whether this kernel has such a hook.
fn attach(programs: &mut Ebpf, cgroup: &File, hook: &Attach) -> Result<bool> {
    let (name, _) = match hook {
        Attach::CgroupIngress => INGRESS,
        Attach::CgroupEgress => EGRESS,
        Attach::CgroupConnect4 => CONNECT4,
        Attach::CgroupConnect6 => CONNECT6,
        Attach::CgroupSendmsg4 => SENDMSG4,
        Attach::CgroupSendmsg6 => SENDMSG6,
        // Both are run in the same way.
        Attach::BtfTracepoint(..) | Attach::RawTracepoint(..) => RAW_TRACEPOINT,
        Attach::Tracepoint(..) => TRACEPOINT,
        // Attached nowhere.
        Attach::Iterator(_) => return Ok(false),
    };
    let program = programs.program_mut(name).context("an empty program")?;
    match attach_program(program, cgroup, hook) {
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("attaching an empty program to {hook:?}")),
        Ok(()) => Ok(true),
    }
}

fn attach_program(program: &mut Program, cgroup: &File, hook: &Attach) -> Result<(), ProgramError> {
    let mode = CgroupAttachMode::default();
    match (program, hook) {
        (Program::CgroupSkb(program), Attach::CgroupIngress) => {
            program.attach(cgroup, CgroupSkbAttachType::Ingress, mode).map(drop)
        }
        (Program::CgroupSkb(program), _) => {
            program.attach(cgroup, CgroupSkbAttachType::Egress, mode).map(drop)
        }
        (Program::CgroupSockAddr(program), _) => program.attach(cgroup, mode).map(drop),
        (
            Program::RawTracePoint(program),
            Attach::BtfTracepoint(name, _) | Attach::RawTracepoint(name, _),
        ) => program.attach(name).map(drop),
        (Program::TracePoint(program), Attach::Tracepoint(category, name)) => {
            program.attach(category, name).map(drop)
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// The empty programs, in the kernel.
fn loaded() -> Result<Ebpf> {
    let mut programs = Ebpf::load(&object()?).context("reading the empty programs")?;
    for (name, program) in programs.programs_mut() {
        let loaded = match program {
            Program::CgroupSkb(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::RawTracePoint(program) => program.load(),
            Program::TracePoint(program) => program.load(),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        loaded.with_context(|| format!("loading {name}"))?;
    }
    Ok(programs)
}

/// An object file with a program a section.
fn object() -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let license = object.add_section(vec![], b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"GPL\0", 1);
    for (name, section) in ALL {
        let section = object.add_section(vec![], section.as_bytes().to_vec(), SectionKind::Text);
        object.append_section_data(section, &PASS, 8);
        object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value: 0,
            size: PASS.len() as u64,
            kind: SymbolKind::Text,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
    }
    object.write().context("writing the empty programs")
}

/// Whether the kernel answered that it has no such hook.
fn is_missing(error: &ProgramError) -> bool {
    let error = match error {
        ProgramError::SyscallError(SyscallError { io_error, .. })
        | ProgramError::TracePointError(TracePointError::FileError { io_error, .. }) => io_error,
        _ => return false,
    };
    error.kind() == io::ErrorKind::NotFound
}
