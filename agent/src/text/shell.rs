//! A command as a person pastes it into a shell, often root's: an argument vector, quoted by a crate that
//! does nothing else. No command is ever put together from text.
//!
//! Where an argument holds what a terminal would not show, no quoting helps: what was pasted would not be
//! what was meant. Then no command is given, and it is said why.

use std::fmt;

use super::{hidden, shown};

/// The longest argument that is shown in a command, in bytes: no name that the kernel hands out is longer
/// than a path.
const LONGEST: usize = 4096;

/// An argument vector. Shown, it is one line for a POSIX shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    args: Vec<String>,
}

impl Command {
    /// A program without arguments.
    pub fn new(program: &str) -> Self {
        Self { args: vec![program.to_owned()] }
    }

    /// One more argument. Where it may begin with a dash, see that the program takes it for what it is
    /// (`--`, or as the value of an option).
    #[expect(clippy::needless_pass_by_value, reason = "addresses and numbers are given as they are")]
    pub fn arg(mut self, arg: impl ToString) -> Self {
        self.args.push(arg.to_string());
        self
    }

    /// More arguments.
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Arguments by their words: for what is written here and has no spaces in it.
    pub fn words(self, words: &'static str) -> Self {
        self.args(words.split(' '))
    }

    /// This command run by another: `nsenter …` before it.
    pub fn by(self, runner: Self) -> Self {
        runner.args(self.args)
    }

    /// The argument vector.
    pub fn argv(&self) -> &[String] {
        &self.args
    }

    /// The argument that keeps this command from being given: it cannot be typed as it is, it is not known
    /// as it is (bytes that are no UTF-8), or it is endless.
    pub fn refused(&self) -> Option<&str> {
        let untypable = |arg: &&String| {
            arg.len() > LONGEST || arg.chars().any(|c| hidden(c) || c == char::REPLACEMENT_CHARACTER)
        };
        self.args.iter().find(untypable).map(String::as_str)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = match self.refused() {
            None => shlex::try_join(self.args.iter().map(String::as_str)).ok(),
            Some(_) => None,
        };
        match quoted {
            Some(quoted) => out.write_str(&quoted),
            None => write!(
                out,
                "({} has no command here: {} cannot be typed as it is)",
                shown(&self.args[0]),
                shown(self.refused().unwrap_or_default())
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command as Process;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hostile_argument_is_one_argument() {
        let command = Command::new("ip").words("neigh del 192.0.2.1 dev").arg(";curl${IFS}a|sh");
        assert_eq!(command.to_string(), "ip neigh del 192.0.2.1 dev ';curl${IFS}a|sh'");
    }

    #[test]
    fn what_cannot_be_typed_is_no_command() {
        for device in ["a\x1b[2Jb", "\u{202e}0hte", "x\ny", "\u{fffd}"] {
            let said = Command::new("ip").words("link show dev").arg(device).to_string();
            assert!(said.starts_with("(ip has no command here: ") && !said.chars().any(hidden), "{said}");
        }
    }

    #[test]
    fn a_runner_stands_before_what_it_runs() {
        let command = Command::new("ip").arg("neigh").by(Command::new("nsenter").arg("--net=/proc/1/ns/net"));
        assert_eq!(command.to_string(), "nsenter '--net=/proc/1/ns/net' ip neigh");
    }

    proptest! {
        /// Another crate takes apart what one crate puts together.
        #[test]
        fn a_command_split_again_is_its_argument_vector(args in proptest::collection::vec(hostile(), 0..6)) {
            let command = Command::new("ip").args(args);
            prop_assume!(command.refused().is_none());
            let line = command.to_string();
            prop_assert!(!line.chars().any(hidden));
            prop_assert_eq!(shell_words::split(&line).expect("quotes in pairs"), command.argv());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// So do real shells: braces, globs and history are theirs alone.
        #[test]
        fn shells_agree(args in proptest::collection::vec(hostile(), 1..6)) {
            let command = Command::new("printf").arg("%s\\n").args(args);
            prop_assume!(command.refused().is_none());
            let wanted: String = command.argv()[2..].iter().map(|arg| format!("{arg}\n")).collect();
            for shell in ["sh", "bash"] {
                let got = Process::new(shell).arg("-c").arg(command.to_string()).output();
                let Ok(got) = got else { continue };
                prop_assert_eq!(String::from_utf8_lossy(&got.stdout), wanted.as_str(), "{} {}", shell, command);
            }
        }
    }

    fn hostile() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~]{0,24}",
            "\\PC{0,12}",
            "[;|&<>()$`\\\\\"' *?\\[\\]#~=%{},!^-]{1,12}",
            Just("{a,b}".to_owned()),
            Just("$(id)".to_owned()),
            Just("~root".to_owned()),
            Just(String::new()),
        ]
    }
}
