//! `culprit list`: what there is, from the tables everything derives from.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use ebpf_probes::probes::PROBES;

use crate::{config::Format, rules::RULES};

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
        for probe in PROBES {
            writeln!(out, "{:<8} {}", probe.name, probe.about)?;
            for hook in probe.hooks {
                let needed = if hook.required { "required" } else { "optional" };
                writeln!(out, "         {:<36} {needed}  {}", hook.attach.to_string(), hook.gives)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
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
        for rule in RULES {
            writeln!(out, "{:<22} {}", rule.kind.name(), rule.about)?;
            writeln!(out, "{:<22} opens: {}", "", rule.opens)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
