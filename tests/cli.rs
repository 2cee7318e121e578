//! The command line as a user meets it: no root, no kernel.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

fn binary() -> Command {
    Command::new(std::env::var_os("CULPRIT_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_culprit").into()))
}

fn culprit(args: &[&str]) -> Output {
    binary().args(args).stdin(Stdio::null()).output().expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// Exit status of a wrong command line, as everywhere.
const USAGE: i32 = 2;
/// Exit status of what did not work.
const FAILED: i32 = 1;

#[test]
fn an_unknown_flag_is_a_usage_error_and_data_stays_empty() {
    let output = culprit(&["trace", "--no-such-flag"]);
    assert_eq!(output.status.code(), Some(USAGE));
    assert!(stdout(&output).is_empty());
    assert!(stderr(&output).contains("--no-such-flag"));
}

#[test]
fn an_unknown_probe_is_a_usage_error_that_lists_those_there_are() {
    let output = culprit(&["trace", "--probes", "conect"]);
    assert_eq!(output.status.code(), Some(USAGE));
    let said = stderr(&output);
    assert!(["conect", "connect", "tls", "dns"].iter().all(|name| said.contains(name)), "{said}");
}

#[test]
fn wrong_values_are_refused_with_the_right_ones() {
    for (args, hint) in [
        (&["trace", "--dest", "10.0.0.0/33"][..], "0 to 32"),
        (&["trace", "--for", "5 days"], "ms, s, m, h or d"),
        (&["trace", "--ring-mib", "3"], "power of two"),
        (&["trace", "--comm", "a-name-that-is-too-long"], "1 to 15 bytes"),
        (&["trace", "-p", "0"], "0 is not in"),
        (&["trace", "-4", "-6"], "cannot be used with"),
        (&["run", "--metrics-by", "container"], "unit, namespace, workload, pod, node"),
    ] {
        let output = culprit(args);
        assert_eq!(output.status.code(), Some(USAGE), "{args:?}");
        assert!(stderr(&output).contains(hint), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn no_command_is_a_usage_error_with_help() {
    let output = culprit(&[]);
    assert_eq!(output.status.code(), Some(USAGE));
    assert!(stderr(&output).contains("Usage:"), "{}", stderr(&output));
}

#[test]
fn help_and_version_are_data() {
    for args in [&["--help"][..], &["trace", "-h"], &["--version"]] {
        let output = culprit(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
    assert_eq!(stdout(&culprit(&["--version"])), format!("culprit {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_list_of_probes_is_the_table_in_both_forms() {
    let text = stdout(&culprit(&["list", "probes"]));
    let json = stdout(&culprit(&["list", "probes", "--format", "json"]));
    serde_json::from_str::<serde_json::Value>(&json).expect("JSON");
    for probe in ebpf_probes::probes::PROBES {
        assert!(text.contains(probe.name) && json.contains(probe.name), "{}", probe.name);
    }
}

#[test]
fn the_schema_describes_every_line_of_the_stream() {
    let schema = stdout(&culprit(&["schema"]));
    serde_json::from_str::<serde_json::Value>(&schema).expect("JSON");
    for kind in ["start", "summary", "connect_ended", "handshake_pending", "dns_failed"] {
        assert!(schema.contains(&format!("\"{kind}\"")), "{kind}");
    }
}

#[test]
fn completions_and_the_manual_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&culprit(&["completions", shell])).contains("culprit"), "{shell}");
    }
    assert!(stdout(&culprit(&["man"])).contains(".TH"));
}

#[test]
fn a_missing_or_invalid_recording_is_named() {
    let output = culprit(&["replay", "/no/such/recording"]);
    assert_eq!(output.status.code(), Some(FAILED));
    assert!(stderr(&output).contains("/no/such/recording"), "{}", stderr(&output));
    let output = culprit(&["replay", "/dev/null"]);
    assert_eq!(output.status.code(), Some(FAILED));
    assert!(stderr(&output).contains("/dev/null"), "{}", stderr(&output));
    let ourselves = std::env::current_exe().expect("known");
    let output = culprit(&["replay", ourselves.to_str().expect("a plain path")]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(FAILED), String::new()));
}

#[test]
fn a_reader_that_goes_away_is_a_normal_end() {
    let lists = ["probes", "rules"]
        .into_iter()
        .flat_map(|what| [["list", what, "--format", "text"], ["list", what, "--format", "json"]]);
    let others = [&["schema"][..], &["man"], &["completions", "bash"], &["--help"]];
    for args in lists.map(|args| args.to_vec()).chain(others.map(<[_]>::to_vec)) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output =
            binary().args(&args).stdout(writer).stderr(Stdio::piped()).output().expect("the binary runs");
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()), "{args:?}");
    }
}

#[test]
fn each_command_has_a_manual_page_of_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let into = directory.path().to_str().expect("a plain path");
    assert!(culprit(&["man", "--into", into]).status.success());
    for page in ["culprit.1", "culprit-trace.1", "culprit-run.1", "culprit-list-clocks.1"] {
        assert!(directory.path().join(page).exists(), "{page}");
    }
    let output = culprit(&["man", "--into", "/no/such/directory"]);
    assert_eq!(output.status.code(), Some(FAILED));
    assert!(stderr(&output).contains("/no/such/directory"), "{}", stderr(&output));
}

#[test]
fn a_recording_comes_from_a_pipe_too() {
    let mut command = binary();
    command.args(["replay", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    child.stdin.take().expect("piped").write_all(b"not a recording").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(FAILED));
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
}

#[test]
fn without_root_it_names_what_is_missing_and_leaves_no_data() {
    use std::os::unix::process::CommandExt;
    const UNPRIVILEGED: u32 = 65534;
    let mut command = binary();
    command.args(["trace", "--for", "1s"]);
    if rustix::process::geteuid().is_root() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    let output = command.output().expect("the binary runs");
    assert_eq!((output.status.code(), stdout(&output)), (Some(FAILED), String::new()));
    assert!(stderr(&output).contains("run culprit as root"), "{}", stderr(&output));
}

/// What a command prints on a terminal of so many columns: on standard output, and on standard error.
fn on_a_terminal(columns: u16, args: &[&str]) -> (String, String) {
    let size = nix::pty::Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let [out, talk] = [0, 1].map(|_| nix::pty::openpty(Some(&size), None).expect("a terminal"));
    let mut command = binary();
    command.args(args).stdin(Stdio::null()).stdout(out.slave).stderr(talk.slave);
    command.env("TERM", "xterm").env_remove("NO_COLOR").env_remove("RUST_LOG");
    let mut child = command.spawn().expect("the binary runs");
    // Its ends of the terminals: reading ends when it does.
    drop(command);
    let [out, talk] = [out.master, talk.master].map(|master| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // A terminal without writers is an error (EIO), not an end.
            let _ = std::io::Read::read_to_end(&mut std::fs::File::from(master), &mut bytes);
            String::from_utf8(bytes).expect("text").replace("\r\n", "\n")
        })
    });
    assert!(child.wait().expect("it ends").success(), "{args:?}");
    (out.join().expect("read"), talk.join().expect("read"))
}

const FETCH: &str = "tls_handshake_stalled/fetch_unanswered_tls12";
const STALE: &str = "neighbour_stale/unheard_client_of_stale_entry";

fn recording(case: &str) -> String {
    format!("{}/../tests/incidents/{case}/recording.culprit", env!("CARGO_MANIFEST_DIR"))
}

/// A line as it is seen: without colours.
fn seen(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |line, part| line + part.split_once('m').map_or("", |(_, rest)| rest))
}

#[test]
fn lines_fit_the_terminal_and_continue_indented() {
    let others = ["neighbour_table_full/bound_reached", "tls_handshake_stalled/clients_give_up_and_return"];
    for case in [FETCH, STALE].into_iter().chain(others) {
        let (text, _) = on_a_terminal(80, &["replay", &recording(case)]);
        for line in text.lines().map(seen) {
            // What is to be pasted is never broken, whatever its length.
            let is_command = ["ip ", "sysctl ", "nft "].iter().any(|word| line.contains(word));
            assert!(is_command || line.chars().count() <= 80, "{case}: {line}");
            let is_fact = line.as_bytes().get(2) == Some(&b':');
            assert!(is_fact || line.is_empty() || line.starts_with("  "), "{case}: {line}");
        }
    }
    for args in [&["list", "probes"][..], &["list", "rules"]] {
        let (text, _) = on_a_terminal(80, args);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}

#[test]
fn a_terminal_is_coloured_and_a_pipe_has_whole_lines_without() {
    let file = recording(FETCH);
    let (coloured, _) = on_a_terminal(200, &["replay", &file]);
    let piped = stdout(&culprit(&["replay", &file]));
    assert!(coloured.contains("\x1b[2m") && !piped.contains('\x1b'));
    assert_eq!(seen(&coloured).lines().next(), piped.lines().next());
    let (plain, _) = on_a_terminal(200, &["replay", "--color", "never", &file]);
    assert!(!plain.contains('\x1b'), "{plain}");
}

#[test]
fn an_update_of_an_incident_is_one_line_on_a_narrow_terminal() {
    let (text, _) = on_a_terminal(80, &["replay", "-i", &recording(FETCH)]);
    let updates: Vec<String> =
        text.lines().map(seen).filter(|line| line.ends_with(", still going")).collect();
    assert!(matches!(&updates[..], [one] if one.starts_with("  TLS HANDSHAKE STALLED   python3[")), "{text}");
}

#[test]
fn verbose_lines_show_this_hosts_port() {
    let text = stdout(&culprit(&["replay", "-v", &recording(FETCH)]));
    assert!(
        text.contains(" :10068 ← 10.177.15.1:57258") && text.contains(" :60528 → 192.0.2.64:80"),
        "{text}"
    );
    let text = stdout(&culprit(&["replay", &recording(FETCH)]));
    assert!(!text.contains(":10068 ←"), "{text}");
}

#[test]
fn a_replay_takes_the_filters_of_a_live_session() {
    let file = recording(STALE);
    let replay = |args: &[&str]| culprit(&[&["replay"], args, &[&file]].concat());
    let all = stdout(&replay(&[]));
    let facts = |output: &Output| -> Vec<String> {
        let text = stdout(output);
        text.lines().filter(|line| line.as_bytes().get(2) == Some(&b':')).map(str::to_owned).collect()
    };
    let port = replay(&["--port", "10125", "-e", "connect"]);
    assert!(!facts(&port).is_empty() && facts(&port).iter().all(|line| line.contains(":10125")), "{port:?}");
    assert!(stdout(&port).contains("10.15.46.10:10125 is unanswered"), "{port:?}");
    assert!(!stdout(&port).contains("10.15.46.90:10124 is unanswered"), "{port:?}");
    assert!(all.contains("10.15.46.90:10124 is unanswered"));
    let dest = replay(&["--dest", "10.15.46.10", "-e", "connect"]);
    assert!(
        !facts(&dest).is_empty() && facts(&dest).iter().all(|line| line.contains("10.15.46.10:")),
        "{dest:?}"
    );
    let failed = replay(&["-Z", "-i", "-e", "neigh"]);
    assert!(stdout(&failed).contains("NEIGHBOUR STALE") && !stdout(&failed).contains("CONNECT STALLED   "));
    // The recording is older than the probe's name.
    let renamed = replay(&["-Z", "-i", "-e", "neighbour"]);
    assert_eq!((stdout(&renamed), stderr(&renamed)), (stdout(&failed), stderr(&failed)));
    assert!(!stderr(&renamed).contains("was not recorded"), "{renamed:?}");
    let process = replay(&["-p", "5237", "--comm", "inside", "-e", "connect"]);
    assert_eq!(facts(&process), facts(&replay(&["-e", "connect"])));
    let summary = stderr(&port);
    assert!(summary.contains("incident, none lost") || summary.contains("incidents, none lost"), "{summary}");
}

#[test]
fn a_filter_of_a_replay_that_nothing_matches_is_pointed_out() {
    let file = recording(STALE);
    for (args, wanted) in [
        (&["-p", "77"][..], "-p 77: no such process is in the recording"),
        (&["--comm", "absent"], "--comm \"absent\": no thread in the recording has this name"),
        (&["--dest", "203.0.113.0/24"], "--dest 203.0.113.0/24: nothing in the recording goes there"),
        (&["--port", "9"], "--port 9: nothing in the recording uses this port"),
        (&["--pod", "x"], "--pod \"x\": no process in the recording is there"),
        (&["--cgroup", "a.slice"], "--cgroup \"/a.slice\": this recording is older"),
    ] {
        let output = culprit(&[&["replay"], args, &[&file]].concat());
        assert!(output.status.success() && stderr(&output).contains(wanted), "{args:?}: {}", stderr(&output));
    }
    let nothing = culprit(&["replay", "-p", "77", "-e", "connect", &file]);
    assert!(
        stdout(&nothing).is_empty()
            && stderr(&nothing).contains("nothing in the recording passed the filters")
    );
    assert!(!stderr(&culprit(&["replay", "--port", "10125", &file])).contains("nothing in"));
    assert_eq!(culprit(&["replay", "--mode", "full", &file]).status.code(), Some(USAGE));
}

#[test]
fn a_long_replay_shows_progress_and_clears_it() {
    let bytes = std::fs::read(recording(FETCH)).expect("a recording");
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    let terminal = nix::pty::openpty(None, None).expect("a terminal");
    let mut command = binary();
    command.args(["replay", "-i", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(terminal.slave);
    command.env("TERM", "xterm").env_remove("RUST_LOG");
    let mut child = command.spawn().expect("the binary runs");
    drop(command);
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(first).expect("it reads");
    let mut seen = Vec::new();
    let mut talk = std::fs::File::from(terminal.master);
    while !String::from_utf8_lossy(&seen).contains("replaying") {
        let mut some = [0; 256];
        let len = std::io::Read::read(&mut talk, &mut some).expect("it shows progress before it ends");
        seen.extend(&some[..len]);
    }
    stdin.write_all(rest).expect("it reads");
    drop(stdin);
    let _ = std::io::Read::read_to_end(&mut talk, &mut seen);
    assert!(child.wait_with_output().expect("it ends").status.success());
    let seen = String::from_utf8(seen).expect("text");
    // The line is erased before anything else is said.
    let (_, last) = seen.rsplit_once("\x1b[2K").unwrap_or_else(|| panic!("{seen:?}"));
    assert!(last.contains("culprit: ") && !last.contains("replaying"), "{seen:?}");
}

#[test]
fn no_progress_is_shown_without_a_terminal() {
    let output = culprit(&["replay", "-i", &recording("tls_handshake_stalled/sixty_clients_one_fetch")]);
    assert!(output.status.success());
    let said = stderr(&output);
    assert!(said.lines().count() == 1 && said.contains(" events, ") && !said.contains('\x1b'), "{said:?}");
}

#[test]
fn a_live_view_requires_a_terminal_and_names_what_needs_none() {
    let output = culprit(&["top"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(FAILED), String::new()));
    assert!(stderr(&output).contains("use `culprit trace`"), "{}", stderr(&output));
}
