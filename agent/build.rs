//! Builds the kernel object and leaves it in `$OUT_DIR/probes.o`, which `src/kernel/object.rs`
//! includes. `CULPRIT_PROBES=FILE` takes a given object instead, `CULPRIT_PROBES=none` builds an
//! agent that can replay but not trace.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, exit},
};

#[path = "../xtask/src/toolchain.rs"]
#[expect(unreachable_pub, reason = "shared with xtask, where more of it is used")]
mod toolchain;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("probes.o");
    for name in ["CULPRIT_PROBES", "CULPRIT_BPF_RUSTC", "CULPRIT_BPF_LINKER", "CULPRIT_TOOLS"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=../ebpf-probes/src");
    println!("cargo::rerun-if-changed=../ebpf-probes/Cargo.toml");
    println!("cargo::rerun-if-changed=../xtask/src/toolchain.rs");
    let done = match env::var("CULPRIT_PROBES").as_deref() {
        Ok("none") => fs::write(&out, []).map_err(|error| format!("{}: {error}", out.display())),
        Ok(path) => {
            println!("cargo::rerun-if-changed={path}");
            fs::copy(path, &out).map(drop).map_err(|error| format!("CULPRIT_PROBES={path}: {error}"))
        }
        Err(_) => build(&out),
    };
    if let Err(why) = done {
        println!("cargo::error={why}");
        exit(1);
    }
}

fn build(out: &Path) -> Result<(), String> {
    let tools =
        toolchain::find().map_err(|missing| format!("the kernel object cannot be built: {missing}"))?;
    let target_dir = out.with_file_name("bpf");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".into(),
        // `cargo xtask check` lints this face on the host.
        "-Awarnings".into(),
        "-Clink-arg=--btf".into(),
        format!("-Clinker={}", tools.linker.display()),
    ];
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    cargo
        .args(["build", "--quiet", "--locked", "--release", "--package=ebpf-probes", "--bins"])
        .args(["--target", toolchain::BPF_TARGET])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("RUSTC", &tools.rustc)
        // In many units the optimiser keeps more on the stack than the kernel allows.
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    for inherited in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(inherited);
    }
    if tools.prebuilt_core {
        // These two use BPF assembly, which is unstable; nothing else may.
        cargo.env("RUSTC_BOOTSTRAP", "aya_ebpf,ebpf_probes");
    } else {
        cargo.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=core");
    }
    let status = cargo.status().map_err(|error| format!("{cargo:?}: {error}"))?;
    if !status.success() {
        return Err(format!("building ebpf-probes with {} failed; see above", tools.rustc.display()));
    }
    let object = target_dir.join(toolchain::BPF_TARGET).join("release/culprit-probes");
    let built = fs::read(&object).map_err(|error| format!("{}: {error}", object.display()))?;
    let stripped = strip(&built).map_err(|error| format!("{}: {error}", object.display()))?;
    fs::write(out, stripped).map_err(|error| format!("{}: {error}", out.display()))
}

/// The object without its DWARF sections, which is five sixths of it: BTF is made from them, and no kernel reads them.
fn strip(object: &[u8]) -> Result<Vec<u8>, object::build::Error> {
    let mut builder = object::build::elf::Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.strip_prefix(b".rel").unwrap_or(&section.name);
        section.delete |= name.starts_with(b".debug");
    }
    builder.delete_orphans();
    // The linker keeps the names of sections and of symbols in one section.
    let names = builder.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = object::build::elf::SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}
