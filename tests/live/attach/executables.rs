//! Whose executable is named although nothing is left of the process by the time the agent looks at it: what the kernel
//! half notes at exec is what `/proc/PID/exe` would say.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    harness::{Culprit, Netns, Scratch, port, process::words},
    needs,
};

/// Which program is run by a name, symbolic links followed.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").expect("a path");
    let mut found = std::env::split_paths(&path).map(|directory| directory.join(name));
    let found = found.find(|file| file.is_file()).unwrap_or_else(|| panic!("there is no {name}"));
    found.canonicalize().expect("it is there")
}

/// Ports on which nothing listens.
fn closed<const N: usize>(netns: &Netns) -> [SocketAddr; N] {
    [(); N].map(|()| SocketAddr::new(netns.loopback(), port()))
}

/// As bash connects by itself.
fn by_bash(to: SocketAddr) -> String {
    format!("exec 3<>/dev/tcp/{}/{}", to.ip(), to.port())
}

/// Runs it to its end inside: nothing is left of it.
fn run_inside(netns: &Netns, command: Command) -> String {
    let mut running = netns.spawn(command);
    running.wait();
    running.stderr()
}

/// The executable of who connected there.
#[track_caller]
fn of_connect(culprit: &Culprit, to: SocketAddr) -> PathBuf {
    let end = culprit.wait_for("the connect", |fact| fact.is_to("connect_ended", to));
    PathBuf::from(end.owner("exe").as_str().unwrap_or_else(|| panic!("no executable: {}", end.json)))
}

fn make_executable(file: &Path) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("our own file");
}

#[test]
fn a_program_that_ends_at_once_is_named_by_the_file_behind_its_symbolic_link() {
    needs!(Curl);
    let (netns, scratch) = (Netns::make(), Scratch::make());
    fs::copy(program("curl"), scratch.join("probe")).expect("a copy");
    symlink("probe", scratch.join("check")).expect("a link");
    let culprit = Culprit::trace("");
    for to in closed::<5>(&netns) {
        let mut check = Command::new("sh");
        check.current_dir(scratch.path()).args(["-c", &format!("exec ./check -s http://{to}/")]);
        run_inside(&netns, check);
        assert_eq!(of_connect(&culprit, to), scratch.join("probe"));
    }
}

#[test]
fn a_script_that_ends_at_once_is_named_by_its_interpreter_and_so_is_the_child_it_forks() {
    needs!();
    let (netns, scratch) = (Netns::make(), Scratch::make());
    let culprit = Culprit::trace("");
    let bash = program("bash");
    let script = scratch.join("check");
    for [own, child] in [closed(&netns), closed(&netns), closed(&netns)] {
        let lines = format!("#!{}\n({}; true)\n{}; true\n", bash.display(), by_bash(child), by_bash(own));
        fs::write(&script, lines).expect("a script");
        make_executable(&script);
        let said = run_inside(&netns, Command::new(&script));
        assert_eq!(
            (of_connect(&culprit, own), of_connect(&culprit, child)),
            (bash.clone(), bash.clone()),
            "{said}"
        );
    }
}

#[test]
fn a_program_on_a_file_system_mounted_below_is_named_by_its_path_from_the_root() {
    needs!(Curl);
    let (netns, scratch) = (Netns::make(), Scratch::make());
    let (mount, curl) = (scratch.join("mounted"), program("curl"));
    fs::create_dir(&mount).expect("our own directory");
    let culprit = Culprit::trace("");
    for to in closed::<3>(&netns) {
        // Gone with the mount namespace, which is gone with the program.
        let check = format!(
            "mount -t tmpfs none {at} && mkdir {at}/bin && cp {curl} {at}/bin/probe && exec {at}/bin/probe -s http://{to}/",
            at = mount.display(),
            curl = curl.display(),
        );
        let mut shell = words("unshare --mount sh -c");
        shell.arg(check);
        let said = run_inside(&netns, shell);
        assert_eq!(of_connect(&culprit, to), mount.join("bin/probe"), "{said}");
    }
}
