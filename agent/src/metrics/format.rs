//! Which exposition format a reader wants, and the older one made from the newer: prometheus-client writes
//! OpenMetrics only.

use std::fmt::Write as _;

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Text,
}

impl Format {
    /// What goes into `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The format for a reader with this `Accept` header: OpenMetrics for a scraper that asks for it and likes nothing
/// better, text for everybody else.
pub fn pick(accept: Option<&str>) -> Format {
    let (mut open, mut text) = (0, 0);
    for wanted in accept.unwrap_or_default().split(',') {
        let mut parts = wanted.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut quality, mut version) = (1000, None);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => quality = thousandths(value.trim()),
                "version" => version = Some(value.trim().trim_matches('"')),
                _ => {}
            }
        }
        match kind.as_str() {
            "application/openmetrics-text" if matches!(version, None | Some("1.0.0")) => {
                open = open.max(quality);
            }
            "text/plain" if matches!(version, None | Some("0.0.4")) => text = text.max(quality),
            _ => {}
        }
    }
    if open > 0 && open >= text { Format::OpenMetrics } else { Format::Text }
}

/// A quality of RFC 9110 §12.4.2; what is none means indifference.
fn thousandths(quality: &str) -> u32 {
    match quality.parse::<f64>() {
        Ok(quality) if (0.0..=1.0).contains(&quality) => (quality * 1000.0) as u32,
        _ => 1000,
    }
}

/// OpenMetrics text as Prometheus text 0.0.4: counters and infos are described under the name their samples
/// have, types are those of the older format, units and the end mark are left out.
pub(super) fn older(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut help = None;
    for line in open.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = typed.split_once(' ') else { continue };
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, text)) = help.take().filter(|(described, _)| *described == name) {
                let _ = writeln!(out, "# HELP {name}{suffix} {text}");
            }
            let _ = writeln!(out, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_goes_to_a_scraper_that_prefers_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for accept in [
            prometheus,
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; version=\"1.0.0\"",
            "text/plain;q=0.5, application/openmetrics-text;q=0.5",
        ] {
            assert_eq!(pick(Some(accept)), Format::OpenMetrics, "{accept}");
        }
    }

    #[test]
    fn text_goes_to_everybody_else() {
        for accept in [
            "",
            "*/*",
            "text/html",
            "text/plain;version=0.0.4",
            "text/plain;q=0.9,application/openmetrics-text;q=0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=9.0.0",
            "application/openmetrics-text;version=0.0.1",
            ";;;=,q=,",
        ] {
            assert_eq!(pick(Some(accept)), Format::Text, "{accept}");
        }
        assert_eq!(pick(None), Format::Text);
    }

    #[test]
    fn the_older_format_has_its_own_names_for_counters_and_infos_and_no_end_mark() {
        let open = "# HELP a_seconds How long.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
                    a_seconds_total{x=\"# \\\"1\\\"\"} 1.5\n# HELP b Which.\n# TYPE b info\nb_info{v=\"1\"} 1\n\
                    # HELP h Durations.\n# TYPE h histogram\nh_sum 1.0\nh_count 1\nh_bucket{le=\"+Inf\"} 1\n# EOF\n";
        let wanted = "# HELP a_seconds_total How long.\n# TYPE a_seconds_total counter\n\
                      a_seconds_total{x=\"# \\\"1\\\"\"} 1.5\n# HELP b_info Which.\n# TYPE b_info gauge\n\
                      b_info{v=\"1\"} 1\n# HELP h Durations.\n# TYPE h histogram\nh_sum 1.0\nh_count 1\n\
                      h_bucket{le=\"+Inf\"} 1\n";
        assert_eq!(older(open), wanted);
    }
}
