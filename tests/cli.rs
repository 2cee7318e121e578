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
fn wrong_values_are_refused_with_what_would_be_right() {
    for (args, hint) in [
        (&["trace", "--dest", "10.0.0.0/33"][..], "0 to 32"),
        (&["trace", "--for", "5 days"], "ms, s, m, h or d"),
        (&["trace", "--ring-mib", "3"], "power of two"),
        (&["trace", "--comm", "a-name-that-is-too-long"], "1 to 15 bytes"),
        (&["trace", "-p", "0"], "0 is not in"),
        (&["trace", "-4", "-6"], "cannot be used with"),
    ] {
        let output = culprit(args);
        assert_eq!(output.status.code(), Some(USAGE), "{args:?}");
        assert!(stderr(&output).contains(hint), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn nothing_asked_for_is_a_usage_error_with_help() {
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
fn completions_and_the_manual_are_made_for_the_asking() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&culprit(&["completions", shell])).contains("culprit"), "{shell}");
    }
    assert!(stdout(&culprit(&["man"])).contains(".TH"));
}

#[test]
fn a_recording_that_is_not_there_or_is_none_is_named() {
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
fn without_root_it_says_what_is_missing_and_leaves_no_data() {
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    let mut command = binary();
    command.args(["trace", "--for", "1s"]);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().expect("the binary runs");
    assert_eq!((output.status.code(), stdout(&output)), (Some(FAILED), String::new()));
    assert!(stderr(&output).contains("run culprit as root"), "{}", stderr(&output));
}

#[test]
fn a_live_view_wants_a_terminal_and_names_what_needs_none() {
    let output = culprit(&["top"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(FAILED), String::new()));
    assert!(stderr(&output).contains("use `culprit trace`"), "{}", stderr(&output));
}
