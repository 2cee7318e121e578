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
    fs::copy(&object, out).map(drop).map_err(|error| format!("{}: {error}", object.display()))
}
