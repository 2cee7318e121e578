//! Examples that close each command's help and manual page. A test parses every line of them.

/// Of `culprit`.
pub(super) const CULPRIT: &str = "\
Examples:
  culprit trace                      watch this machine until ^C
  culprit trace -p 4711              watch one process and its children
  culprit doctor                     check what works on this machine
  culprit trace --help               all filters and options";

/// Of `culprit trace`.
pub(super) const TRACE: &str = "\
Examples:
  culprit trace -p 4711              one process and its children
  culprit trace --comm nginx -i      incidents of nginx only
  culprit trace -e tls,dns -Z        handshakes and lookups that fail or stall
  culprit trace --dest 10.0.0.0/8 --port 443 --for 30s
  culprit trace -c --for 1m          who connected where, how often it failed
  culprit trace -v --port 5432       with this host's port of each connection
  culprit trace --pod cart-7d9f --format json -o cart.jsonl
  culprit trace -- curl https://example.org";

/// Of `culprit why`.
pub(super) const WHY: &str = "\
Examples:
  culprit why 4711                   what does this process wait for, now?
  culprit why nginx                  by name: of a thread, or of the executable
  culprit why :443                   the processes that serve this port
  culprit why --pod cart-7d9f --format json";

/// Of `culprit top`.
pub(super) const TOP: &str = "\
Examples:
  culprit top                        this machine: open incidents, what is pending, what fails
  culprit top --comm nginx           nginx and its children only
  culprit top -e connect,tls --port 443
  culprit top --dest 10.0.0.0/8 --connect-stall 1s

Keys:
  1 2 3, Tab: incidents, pending, failing; Enter: evidence; < > r: sort; /: filter; ?: help; q: quit";

/// Of `culprit run`.
pub(super) const RUN: &str = "\
Examples:
  culprit run                        page, API and metrics on 127.0.0.1:9877
  culprit run --config /etc/culprit/culprit.toml
  culprit run --ntp 169.254.169.123 --webhook https://alerts.example/culprit";

/// Of `culprit record`.
pub(super) const RECORD: &str = "\
Examples:
  culprit record outage.culprit --for 5m
  culprit record outage.culprit -p 4711
  culprit record - | ssh host culprit replay -";

/// Of `culprit replay`.
pub(super) const REPLAY: &str = "\
Examples:
  culprit replay outage.culprit
  culprit replay -i outage.culprit   incidents only
  culprit replay -p 4711 -e tls outage.culprit
  culprit replay --format json outage.culprit";

/// Of `culprit incidents`.
pub(super) const INCIDENTS: &str = "\
Examples:
  culprit incidents --since 24h
  culprit incidents --state open --severity critical
  culprit incidents --text nginx --format json
  culprit incidents --store /var/lib/culprit/incidents.db";

/// Of `culprit show`.
pub(super) const SHOW: &str = "\
Examples:
  culprit show TSMRWB                the end of the id will do
  culprit show TSMRWB --format json";

/// Of `culprit doctor`.
pub(super) const DOCTOR: &str = "\
Examples:
  culprit doctor
  culprit doctor -e connect,tls      exit 1 if one of them is not available";

/// Of `culprit list`.
pub(super) const LIST: &str = "\
Examples:
  culprit list probes
  culprit list clocks --ntp pool.ntp.org
  culprit list neighbours --format json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_a_command_line_that_parses() {
        let mut parsed = 0;
        for text in [CULPRIT, TRACE, TOP, RUN, RECORD, REPLAY, INCIDENTS, SHOW, DOCTOR, LIST] {
            let lines = text
                .lines()
                .filter_map(|line| line.strip_prefix("  ").filter(|line| line.contains("culprit")));
            for line in lines {
                // What it does stands behind two blanks, another command behind a bar.
                let own = line.split("  ").next().unwrap_or(line);
                for command in own.split(" | ").map(|part| &part[part.find("culprit").expect("it is ours")..])
                {
                    let words = command.split_whitespace();
                    if let Err(error) = crate::cli::file::command().try_get_matches_from(words) {
                        let is_help = error.kind() == clap::error::ErrorKind::DisplayHelp;
                        assert!(is_help, "{command}: {error}");
                    }
                    parsed += 1;
                }
            }
        }
        assert!(parsed > 20, "{parsed}");
    }
}
