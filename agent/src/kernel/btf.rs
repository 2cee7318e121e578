//! What the running kernel says of its own types: where a field is, what a tracepoint hands over,
//! what an enum's numbers mean. Read lazily from the bytes of `/sys/kernel/btf/vmlinux`.
//!
//! Our own reader because of the budgets: the crates at hand build an object per type (300 ms and
//! 50 MiB here), this keeps four bytes per type and eight per name, and looks only at what is asked for. Format:
//! <https://docs.kernel.org/bpf/btf.html>. Depends on nothing but `std`; `cargo xtask hooks` includes it.

use std::{fmt, ops::Range};

/// Types of one kernel.
pub struct Btf {
    data: Vec<u8>,
    /// Where each type begins; index 0 is `void`.
    types: Vec<u32>,
    /// Hash of the name, and id, of each type that is looked up by name, in order: recent kernels sort their types so
    /// that the named ones come last, and a scan for each of some two hundred names takes a second under emulation.
    named: Vec<(u32, u32)>,
    strings: Range<usize>,
}

/// Where a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Bytes from the start of the outermost structure.
    pub offset: u32,
    /// Its size in bytes.
    pub size: u32,
}

/// Why something could not be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The data is no BTF, or breaks off.
    Malformed(&'static str),
    /// There is no structure of that name.
    NoStruct(String),
    /// The structure has no such member.
    NoMember(String),
    /// The member is a bit field, which cannot be loaded by address.
    BitField(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "malformed BTF: {what}"),
            Self::NoStruct(name) => write!(f, "this kernel has no struct {name}"),
            Self::NoMember(path) => write!(f, "this kernel has no field {path}"),
            Self::BitField(path) => write!(f, "{path} is a bit field on this kernel"),
        }
    }
}

impl std::error::Error for Error {}

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FWD: u32 = 7;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const FLOAT: u32 = 16;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// Types reach others through at most this many steps; more is a loop.
const DEPTH: usize = 32;

struct Type<'a> {
    name: u32,
    kind: u32,
    flag: bool,
    len: u32,
    /// Size in bytes, or the id of the type referred to.
    size_or_type: u32,
    tail: &'a [u8],
}

impl Btf {
    /// Reads raw BTF.
    pub fn parse(data: Vec<u8>) -> Result<Self, Error> {
        let word = |at: usize| u32_at(&data, at).ok_or(Error::Malformed("no header"));
        if word(0)? & 0xffff != 0xeb9f {
            return Err(Error::Malformed("wrong magic or byte order"));
        }
        let header = word(4)? as usize;
        let section = |at: usize| -> Result<Range<usize>, Error> {
            let start = header + word(at)? as usize;
            let end = start + word(at + 4)? as usize;
            if end > data.len() {
                Err(Error::Malformed("a section ends after the data"))
            } else {
                Ok(start..end)
            }
        };
        let (all, strings) = (section(8)?, section(16)?);
        let mut types = vec![0];
        let mut at = all.start;
        while at < all.end {
            types.push(u32::try_from(at).map_err(|_| Error::Malformed("too large"))?);
            let info = u32_at(&data, at + 4).ok_or(Error::Malformed("a type breaks off"))?;
            at += 12 + tail_len(info).ok_or(Error::Malformed("a type of unknown kind"))?;
        }
        if at != all.end {
            return Err(Error::Malformed("the last type breaks off"));
        }
        let mut btf = Self { data, types, named: Vec::new(), strings };
        btf.named = btf.index();
        Ok(btf)
    }

    /// Offset and size of `struct.member.member`; members of anonymous structs and unions count.
    pub fn field(&self, path: &str) -> Result<Field, Error> {
        let mut names = path.split('.');
        let root = names.next().unwrap_or_default();
        let mut id = self.find(root, STRUCT).ok_or_else(|| Error::NoStruct(root.to_owned()))?;
        let mut bits = 0;
        for name in names {
            let (member, offset, bit_field) =
                self.member(id, name, 0).ok_or_else(|| Error::NoMember(path.to_owned()))?;
            if bit_field || offset % 8 != 0 {
                return Err(Error::BitField(path.to_owned()));
            }
            bits += offset;
            id = member;
        }
        Ok(Field { offset: bits / 8, size: self.size(id, 0).unwrap_or(0) })
    }

    /// The arguments a tracepoint hands to raw and BTF-typed programs, as C types; `None` when there
    /// is no such tracepoint.
    pub fn tracepoint(&self, name: &str) -> Option<Vec<String>> {
        let typedef = self.find(&format!("btf_trace_{name}"), TYPEDEF)?;
        let pointer = self.get(self.get(typedef)?.size_or_type)?;
        let proto = self.get(pointer.size_or_type)?;
        if proto.kind != FUNC_PROTO {
            return None;
        }
        // The first argument is the tracepoint's private pointer.
        (1..proto.len as usize).map(|i| Some(self.c_name(u32_at(proto.tail, i * 8 + 4)?, 0))).collect()
    }

    /// The names and numbers of an enum; `None` when there is no such enum.
    pub fn enumerators(&self, name: &str) -> Option<Vec<(String, u32)>> {
        let ty = self.get(self.find(name, ENUM)?)?;
        (0..ty.len as usize)
            .map(|i| Some((self.name(u32_at(ty.tail, i * 8)?)?.to_owned(), u32_at(ty.tail, i * 8 + 4)?)))
            .collect()
    }

    fn index(&self) -> Vec<(u32, u32)> {
        let named = (1..self.types.len() as u32).filter_map(|id| {
            let ty = self.get(id)?;
            let name = matches!(ty.kind, STRUCT | TYPEDEF | ENUM).then(|| self.bytes(ty.name))??;
            (!name.is_empty()).then(|| (hash(name), id))
        });
        let mut named: Vec<_> = named.collect();
        named.sort_unstable();
        named
    }

    /// The first type of that name and kind; of the kinds that [`Btf::index`] holds.
    fn find(&self, name: &str, kind: u32) -> Option<u32> {
        let hash = hash(name.as_bytes());
        let from = self.named.partition_point(|&(other, _)| other < hash);
        let same = self.named[from..].iter().take_while(|&&(other, _)| other == hash).map(|&(_, id)| id);
        same.into_iter()
            .find(|&id| self.get(id).is_some_and(|ty| ty.kind == kind && self.name(ty.name) == Some(name)))
    }

    fn get(&self, id: u32) -> Option<Type<'_>> {
        if id == 0 {
            return None;
        }
        let at = *self.types.get(id as usize)? as usize;
        let info = u32_at(&self.data, at + 4)?;
        Some(Type {
            name: u32_at(&self.data, at)?,
            kind: info >> 24 & 0x1f,
            flag: info >> 31 != 0,
            len: info & 0xffff,
            size_or_type: u32_at(&self.data, at + 8)?,
            tail: self.data.get(at + 12..at + 12 + tail_len(info)?)?,
        })
    }

    fn name(&self, at: u32) -> Option<&str> {
        std::str::from_utf8(self.bytes(at)?).ok()
    }

    fn bytes(&self, at: u32) -> Option<&[u8]> {
        let from = self.data.get(self.strings.start + at as usize..self.strings.end)?;
        Some(&from[..from.iter().position(|&byte| byte == 0)?])
    }

    /// Type, offset in bits, and whether it is a bit field.
    fn member(&self, id: u32, name: &str, depth: usize) -> Option<(u32, u32, bool)> {
        let ty = self.get(self.strip(id)?)?;
        if depth > DEPTH || (ty.kind != STRUCT && ty.kind != UNION) {
            return None;
        }
        for i in 0..ty.len as usize {
            let member = u32_at(ty.tail, i * 12 + 4)?;
            let raw = u32_at(ty.tail, i * 12 + 8)?;
            let (offset, bits) = if ty.flag { (raw & 0xff_ffff, raw >> 24) } else { (raw, 0) };
            match self.name(u32_at(ty.tail, i * 12)?)? {
                "" => {
                    if let Some((found, inner, bit_field)) = self.member(member, name, depth + 1) {
                        return Some((found, offset + inner, bit_field));
                    }
                }
                this if this == name => return Some((member, offset, bits != 0)),
                _ => {}
            }
        }
        None
    }

    /// The type behind typedefs and qualifiers.
    fn strip(&self, mut id: u32) -> Option<u32> {
        for _ in 0..DEPTH {
            let ty = self.get(id)?;
            match ty.kind {
                TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => id = ty.size_or_type,
                _ => return Some(id),
            }
        }
        None
    }

    fn size(&self, id: u32, depth: usize) -> Option<u32> {
        let ty = self.get(self.strip(id)?)?;
        match ty.kind {
            PTR => Some(8),
            ARRAY if depth < DEPTH => {
                Some(self.size(u32_at(ty.tail, 0)?, depth + 1)?.saturating_mul(u32_at(ty.tail, 8)?))
            }
            INT | STRUCT | UNION | ENUM | ENUM64 | FLOAT => Some(ty.size_or_type),
            _ => None,
        }
    }

    fn c_name(&self, id: u32, depth: usize) -> String {
        let Some(ty) = self.get(id) else { return "void".into() };
        let own = self.name(ty.name).unwrap_or_default();
        if depth > DEPTH {
            return own.to_owned();
        }
        let inner = || self.c_name(ty.size_or_type, depth + 1);
        match ty.kind {
            PTR => {
                let target = inner();
                if target.ends_with('*') { format!("{target}*") } else { format!("{target} *") }
            }
            CONST => format!("const {}", inner()),
            VOLATILE => format!("volatile {}", inner()),
            RESTRICT | TYPE_TAG => inner(),
            STRUCT => format!("struct {own}"),
            UNION => format!("union {own}"),
            ENUM | ENUM64 => format!("enum {own}"),
            FWD => format!("{} {own}", if ty.flag { "union" } else { "struct" }),
            _ => own.to_owned(),
        }
    }
}

/// FNV-1a.
fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Bytes that follow the twelve every type begins with.
fn tail_len(info: u32) -> Option<usize> {
    let len = (info & 0xffff) as usize;
    Some(match info >> 24 & 0x1f {
        INT | VAR | DECL_TAG => 4,
        ARRAY => 12,
        STRUCT | UNION | DATASEC | ENUM64 => len * 12,
        ENUM | FUNC_PROTO => len * 8,
        PTR | FWD | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | FLOAT | TYPE_TAG => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Option<Btf> {
        Some(
            Btf::parse(std::fs::read("/sys/kernel/btf/vmlinux").ok()?)
                .expect("the kernel's own BTF is well formed"),
        )
    }

    #[test]
    fn fields_inside_anonymous_unions_are_found() {
        let Some(btf) = running() else { return };
        assert_eq!(btf.field("sock.__sk_common.skc_daddr"), Ok(Field { offset: 0, size: 4 }));
        assert_eq!(btf.field("sock.__sk_common.skc_cookie").map(|place| place.size), Ok(8));
        assert_eq!(btf.field("sock.__sk_common.skc_net.net").map(|place| place.size), Ok(8));
    }

    #[test]
    fn what_is_missing_is_named() {
        let Some(btf) = running() else { return };
        assert_eq!(btf.field("sock.nothing"), Err(Error::NoMember("sock.nothing".into())));
        assert_eq!(btf.field("no_such_struct.x"), Err(Error::NoStruct("no_such_struct".into())));
        assert_eq!(
            btf.field("sock.__sk_common.skc_ipv6only"),
            Err(Error::BitField("sock.__sk_common.skc_ipv6only".into()))
        );
    }

    #[test]
    fn tracepoints_list_their_arguments_as_c_types() {
        let Some(btf) = running() else { return };
        let args = btf.tracepoint("inet_sock_set_state").expect("every kernel has it");
        assert_eq!(args, ["const struct sock *", "const int", "const int"]);
        assert_eq!(btf.tracepoint("no_such_tracepoint"), None);
    }

    #[test]
    fn broken_data_is_an_error_and_never_a_panic() {
        assert!(matches!(Btf::parse(vec![]), Err(Error::Malformed(_))));
        let Some(btf) = running() else { return };
        for cut in (0..4096).chain([btf.data.len() / 2, btf.data.len() - 1]) {
            if let Ok(short) = Btf::parse(btf.data[..cut].to_vec()) {
                let _ = short.field("sock.sk_err");
            }
        }
    }
}
