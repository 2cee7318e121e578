//! What a VM boots into: busybox, the kernel modules that reach the host's files, and two scripts
//! (`init.sh` assembles the root file system, `guest.sh` runs the command in it).

use std::{
    collections::{BTreeSet, HashMap},
    io::Cursor,
    path::{self, Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use cpio::{
    newc::{Builder, ModeFileType},
    write_cpio,
};
use fs_err as fs;

use super::kernels::Kernel;
use crate::{cmd, setup};

/// The drivers without which the host cannot be seen.
const MODULES: &[&str] = &["virtio_pci", "virtio_console", "virtiofs", "overlay"];
/// What the two scripts call by its own name.
const APPLETS: &[&str] = &["sh", "mount", "mkdir", "insmod", "cp", "switch_root", "poweroff"];

/// The entries of an archive in the making. Parents must be added before what is in them.
#[derive(Default)]
struct Archive(Vec<(Builder, Cursor<Vec<u8>>)>);

impl Archive {
    fn directory(&mut self, path: &str) {
        self.entry(path, ModeFileType::Directory, 0o755, b"");
    }

    fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.entry(path, ModeFileType::Regular, permissions, content);
    }

    fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, ModeFileType::Symlink, 0o777, target.as_bytes());
    }

    fn entry(&mut self, path: &str, kind: ModeFileType, permissions: u32, content: &[u8]) {
        let builder = Builder::new(path).mode(permissions).set_mode_file_type(kind);
        self.0.push((builder, Cursor::new(content.to_vec())));
    }
}

/// Builds the initramfs. `shares` and `command` are the two files of one run: the file systems to
/// mount (`TAG PATH` per line) and the shell script to execute.
///
/// With `carried`, these programs and their libraries are all the machine has, in memory.
pub(crate) fn build(kernel: &Kernel, shares: &str, command: &str, carried: &[PathBuf]) -> Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path);
    let mut archive = Archive::default();
    for dir in ["bin", "modules", "vm", "proc", "sys", "dev", "host", "overlay", "root"] {
        archive.directory(dir);
    }
    archive.file("bin/busybox", 0o755, &read(setup::busybox()?)?);
    for applet in APPLETS {
        archive.symlink(&format!("bin/{applet}"), "busybox");
    }
    let tree = kernel.modules();
    let dependencies = tree.join("modules.dep");
    let table = String::from_utf8_lossy(&read(&dependencies)?).into_owned();
    let mut order = String::new();
    for module in closure(&table, MODULES) {
        let name = module.rsplit('/').next().unwrap_or(module);
        archive.file(&format!("modules/{name}"), 0o644, &read(&tree.join(module))?);
        order.push_str(name);
        order.push('\n');
    }
    archive.file("modules/order", 0o644, order.as_bytes());
    archive.file("init", 0o755, include_bytes!("init.sh"));
    archive.file("vm/guest", 0o755, include_bytes!("guest.sh"));
    archive.file("vm/pause", 0o755, include_bytes!("pause.sh"));
    archive.file("vm/shares", 0o644, shares.as_bytes());
    archive.file("vm/command", 0o755, command.as_bytes());
    if !carried.is_empty() {
        archive.file("vm/carried", 0o644, b"");
        carry(&mut archive, carried)?;
    }
    write_cpio(archive.0.into_iter(), Vec::new()).context("putting the initramfs together")
}

/// Adds programs, and the libraries they load at start, where this machine has them.
fn carry(archive: &mut Archive, programs: &[PathBuf]) -> Result<()> {
    let mut files = BTreeSet::new();
    for program in programs {
        let program = path::absolute(program).context("finding the current directory")?;
        // Fails for what is no dynamic program, which needs none.
        let libraries = cmd::output(Command::new("ldd").arg(&program)).unwrap_or_default();
        files.extend(libraries.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
        files.insert(program);
    }
    let mut made = BTreeSet::from([PathBuf::from("bin")]);
    for file in files {
        let inside = file.strip_prefix("/").unwrap_or(&file);
        let mut parents: Vec<_> = inside.ancestors().skip(1).filter(|dir| *dir != Path::new("")).collect();
        parents.reverse();
        for dir in parents {
            if made.insert(dir.to_owned()) {
                archive.directory(&dir.to_string_lossy());
            }
        }
        let content = fs::read(&file)?;
        archive.file(&inside.to_string_lossy(), 0o755, &content);
    }
    Ok(())
}

/// The script that a run executes: its environment, its directory, its command.
pub(crate) fn command(
    env: &[(String, std::ffi::OsString)],
    dir: &Path,
    words: &[std::ffi::OsString],
) -> String {
    let mut script = String::new();
    for (name, value) in env {
        script += &format!("export {name}={}\n", cmd::quoted(value));
    }
    script += "PATH=$PATH:/usr/sbin:/sbin:/run/vm/bin\n";
    script += &format!("cd {} 2>/dev/null || cd /\n", cmd::quoted(dir.as_os_str()));
    let words: Vec<_> = words.iter().map(|word| cmd::quoted(word)).collect();
    script + &format!("exec {}\n", words.join(" "))
}

/// The module files that `names` need, dependencies first, from the text of `modules.dep`. A name
/// that is not there is built into the kernel.
fn closure<'a>(table: &'a str, names: &[&str]) -> Vec<&'a str> {
    let mut needs = HashMap::new();
    let mut files = HashMap::new();
    for (file, needed) in table.lines().filter_map(|line| line.split_once(':')) {
        let name = file.rsplit('/').next().unwrap_or(file).split(".ko").next().unwrap_or(file);
        files.insert(name.replace('-', "_"), file);
        needs.insert(file, needed);
    }
    fn visit<'a>(file: &'a str, needs: &HashMap<&'a str, &'a str>, order: &mut Vec<&'a str>) {
        if order.contains(&file) {
            return;
        }
        // depmod lists a module's direct dependency first and the deepest last.
        for needed in needs.get(file).copied().unwrap_or_default().split_whitespace().rev() {
            visit(needed, needs, order);
        }
        order.push(file);
    }
    let mut order = Vec::new();
    for file in names.iter().filter_map(|name| files.get(*name)) {
        visit(file, &needs, &mut order);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_load_after_what_they_need_and_once() {
        let table = "k/virtio-pci.ko: k/ring.ko k/virtio.ko\nk/ring.ko: k/virtio.ko\nk/virtio.ko:\n\
                     k/fuse.ko:\nk/virtiofs.ko: k/fuse.ko k/ring.ko k/virtio.ko\n";
        assert_eq!(
            closure(table, &["virtio_pci", "virtiofs", "built_in"]),
            ["k/virtio.ko", "k/ring.ko", "k/virtio-pci.ko", "k/fuse.ko", "k/virtiofs.ko"]
        );
    }

    #[test]
    fn a_command_keeps_its_words_and_its_environment() {
        let env = [("A".to_owned(), "x y".into())];
        let script = command(&env, Path::new("/a b"), &["echo".into(), "it's".into()]);
        assert!(script.starts_with("export A='x y'\n"));
        assert!(script.contains("cd '/a b' 2>/dev/null || cd /\n"));
        assert!(script.ends_with("exec echo 'it'\\''s'\n"));
    }
}
