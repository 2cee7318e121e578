//! `culprit list`: what there is, from the tables everything derives from.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use ebpf_probes::probes::PROBES;

use crate::{config::Format, rules::RULES, terminal};

/// Columns that what a hook gives has at least: with less it stands below the hook.
const GIVES: usize = 40;

/// Lists the probes.
pub fn probes(format: Format) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    if format == Format::Json {
        let probes: Vec<_> = PROBES
            .iter()
            .map(|probe| {
                let hooks: Vec<_> = probe
                    .hooks
                    .iter()
                    .map(|hook| {
                        serde_json::json!({
                            "program": hook.program, "hook": hook.attach.to_string(), "required": hook.required, "gives": hook.gives,
                            "fields": hook.fields.iter().map(|field| field.path).collect::<Vec<_>>(),
                        })
                    })
                    .collect();
                serde_json::json!({ "name": probe.name, "about": probe.about, "hooks": hooks })
            })
            .collect();
        serde_json::to_writer_pretty(&mut out, &probes)?;
        writeln!(out)?;
    } else {
        text(terminal::width(), &mut out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(width: Option<usize>, out: &mut impl Write) -> io::Result<()> {
    for probe in PROBES {
        let name = format!("{:<9} ", probe.name);
        writeln!(out, "{name}{}", terminal::paragraph(&name, probe.about, width))?;
        for hook in probe.hooks {
            let needed = if hook.required { "required" } else { "optional" };
            let hooked = format!("          {:<36} {needed}  ", hook.attach.to_string());
            if width.is_none_or(|width| width >= terminal::cells(&hooked) + GIVES) {
                writeln!(out, "{hooked}{}", terminal::paragraph(&hooked, hook.gives, width))?;
            } else {
                let below = " ".repeat(14);
                writeln!(out, "{}", hooked.trim_end())?;
                writeln!(out, "{below}{}", terminal::paragraph(&below, hook.gives, width))?;
            }
        }
    }
    Ok(())
}

/// Lists the rules.
pub fn rules(format: Format) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    if format == Format::Json {
        let rules: Vec<_> = RULES
            .iter()
            .map(|rule| serde_json::json!({ "kind": rule.kind, "about": rule.about, "opens": rule.opens }))
            .collect();
        serde_json::to_writer_pretty(&mut out, &rules)?;
        writeln!(out)?;
    } else {
        let width = terminal::width();
        for rule in RULES {
            let kind = format!("{:<22} ", rule.kind.name());
            writeln!(out, "{kind}{}", terminal::paragraph(&kind, rule.about, width))?;
            let opens = format!("{:<22} opens: ", "");
            writeln!(out, "{opens}{}", terminal::paragraph(&opens, rule.opens, width))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_fit_a_terminal_and_a_pipe_has_a_line_for_each_hook() {
        let listed = |width| {
            let mut out = Vec::new();
            text(width, &mut out).expect("a vector");
            String::from_utf8(out).expect("text")
        };
        assert!(listed(Some(80)).lines().all(|line| terminal::cells(line) <= 80), "{}", listed(Some(80)));
        let hooks: usize = PROBES.iter().map(|probe| probe.hooks.len()).sum();
        assert_eq!(listed(None).lines().count(), PROBES.len() + hooks);
    }
}
