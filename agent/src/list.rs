//! `culprit list`: what there is, from the tables everything derives from.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use ebpf_probes::{
    probes::PROBES,
    spec::{Attach, Hook},
};

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
                            "program": hook.program, "hook": place(hook), "required": hook.required, "gives": hook.gives,
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
                writeln!(out, "         {:<36} {needed}  {}", place(hook), hook.gives)?;
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

/// A hook's place as kernel people write it.
pub fn place(hook: &Hook) -> String {
    match hook.attach {
        Attach::BtfTracepoint(name, _) => format!("tp_btf/{name}"),
        Attach::RawTracepoint(name, _) => format!("raw_tp/{name}"),
        Attach::Tracepoint(category, name) => format!("tracepoint/{category}/{name}"),
        Attach::CgroupIngress => "cgroup_skb/ingress".into(),
        Attach::CgroupEgress => "cgroup_skb/egress".into(),
        Attach::CgroupConnect4 => "cgroup/connect4".into(),
        Attach::CgroupConnect6 => "cgroup/connect6".into(),
        Attach::CgroupSendmsg4 => "cgroup/sendmsg4".into(),
        Attach::CgroupSendmsg6 => "cgroup/sendmsg6".into(),
    }
}
