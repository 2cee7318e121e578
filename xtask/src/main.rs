//! `cargo xtask COMMAND`.
mod toolchain;
fn main() {
    let _ = toolchain::find();
}
