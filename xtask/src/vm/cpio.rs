//! Writes the archive format the kernel unpacks an initramfs from: cpio, "newc" flavour.
//!
//! Source: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.

/// An archive in the making. Parents must be added before what is in them.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

impl Archive {
    pub(crate) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, &[]);
    }

    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.entry(path, FILE | permissions, content);
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, SYMLINK | 0o777, target.as_bytes());
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("an initramfs file is far below 4 GiB");
        let name = u32::try_from(path.len() + 1).expect("a path is short");
        let links = if mode & DIRECTORY != 0 { 2 } else { 1 };
        // ino, mode, uid, gid, nlink, mtime, filesize, dev ×2, rdev ×2, namesize, check
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_an_entry_starts_on_a_multiple_of_four() {
        let mut archive = Archive::default();
        archive.directory("a");
        archive.file("a/odd", 0o644, b"12345");
        archive.symlink("l", "a/odd");
        let bytes = archive.finish();
        let magic: Vec<_> = (0..bytes.len()).filter(|&i| bytes[i..].starts_with(b"070701")).collect();
        assert_eq!(magic.len(), 4);
        assert!(magic.iter().all(|at| at % 4 == 0));
        let file = magic[1];
        assert_eq!(&bytes[file + 14..file + 22], b"000081a4");
        assert_eq!(&bytes[file + 54..file + 62], b"00000005");
        // 110 bytes of header, "a/odd\0", padded to 116.
        assert_eq!(&bytes[file + 110..file + 124], b"a/odd\x0012345\0\0\0");
        assert_eq!(bytes.len() % 4, 0);
    }
}
