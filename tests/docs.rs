//! Documents that derive from the code are up to date. `CULPRIT_BLESS=1 cargo test -p culprit --test
//! docs` rewrites them.

use std::{fmt::Write as _, fs, path::PathBuf};

use culprit::{metrics::format::Format, outputs::json, rules::RULES};
use ebpf_probes::probes::PROBES;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The file holds `wanted`, or is made to.
fn is_up_to_date(path: &str, wanted: &str) {
    let file = root().join(path);
    if std::env::var_os("CULPRIT_BLESS").is_some() {
        fs::write(&file, wanted).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    let found = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(
        found == wanted,
        "{path} is not what the code says: CULPRIT_BLESS=1 cargo test -p culprit --test docs"
    );
}

#[test]
fn the_json_schema_is_the_one_checked_in() {
    let schema = serde_json::to_string_pretty(&json::schema()).expect("a schema is JSON") + "\n";
    is_up_to_date("docs/culprit.stream.v1.schema.json", &schema);
}

#[test]
fn the_page_of_metrics_is_the_one_checked_in() {
    is_up_to_date("docs/metrics.md", &culprit::metrics::families::page());
}

#[test]
fn the_schema_of_incidents_is_the_one_checked_in() {
    let schema = serde_json::to_string_pretty(&json::incident_schema()).expect("a schema is JSON") + "\n";
    is_up_to_date("docs/culprit.incident.v1.schema.json", &schema);
}

/// The part of a page between `<!-- NAME: generated, see tests/docs.rs -->` and `<!-- end of NAME -->`.
fn page_holds(page: &str, name: &str, table: &str) {
    let (begin, end) =
        (format!("<!-- {name}: generated, see tests/docs.rs -->\n"), format!("<!-- end of {name} -->"));
    let text = fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{page} has the opening mark"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{page} has the closing mark"));
    is_up_to_date(page, &format!("{before}{begin}{table}{end}{after}"));
}

#[test]
fn tables_of_probes_and_incidents_are_those_of_the_code() {
    let mut table = String::from("| probe | what it sees | hooks |\n|---|---|---|\n");
    for probe in PROBES {
        let mut hooks: Vec<String> = probe.hooks.iter().map(|hook| format!("`{}`", hook.attach)).collect();
        hooks.dedup();
        writeln!(table, "| `{}` | {} | {} |", probe.name, probe.about, hooks.join(", ")).expect("a string");
    }
    page_holds("docs/probes.md", "probes", &table);
    let mut short = String::from("| kind | what it says |\n|---|---|\n");
    let mut long = String::from("| kind | what it says | opens when |\n|---|---|---|\n");
    for rule in RULES {
        let (kind, about) = (rule.kind.name(), rule.about);
        writeln!(short, "| `{kind}` | {about} |").expect("a string");
        writeln!(long, "| `{kind}` | {about} | {} |", rule.opens).expect("a string");
    }
    page_holds("README.md", "rules", &short);
    page_holds("docs/incidents/README.md", "rules", &long);
}

#[test]
fn the_readme_is_short_and_every_link_has_a_target() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    assert!(readme.lines().count() <= 150, "README.md has {} lines", readme.lines().count());
    let mut pages =
        vec![root().join("README.md"), root().join("CONTRIBUTING.md"), root().join("SECURITY.md")];
    for directory in ["docs", "docs/incidents", "tests"] {
        let entries = fs::read_dir(root().join(directory)).expect("a directory");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        pages.extend(paths.filter(|path| path.extension().is_some_and(|kind| kind == "md")));
    }
    for page in pages {
        let text = fs::read_to_string(&page).expect("a page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") {
                let target = page.parent().expect("a directory").join(file);
                assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            }
        }
    }
}

#[test]
fn the_reference_of_options_is_that_of_the_code() {
    let mut page = String::from(
        "# Options of `culprit run`\n\n\
         Generated from the command line (tests/docs.rs). Each option is a flag, an environment variable and a key of the\n\
         configuration file (`--config FILE`, `CULPRIT_CONFIG`, or /etc/culprit/culprit.toml if there is one). A flag has\n\
         precedence over the variable, the variable over the file, the file over the default. A key that is none, or a value\n\
         that cannot be, is an error that names the line: exit status 2.\n\n\
         SIGHUP (`systemctl reload culprit`) reads the file again. Options marked ↻ then change at once; a change of the others is\n\
         logged and takes a restart; a file with an error changes nothing.\n",
    );
    let options = culprit::cli::options();
    let mut headings: Vec<&str> = options.iter().map(|option| option.heading.as_str()).collect();
    headings.dedup();
    for heading in headings {
        writeln!(page, "\n## {heading}\n").expect("a string");
        page.push_str("| key | flag | variable | default | |\n|---|---|---|---|---|\n");
        for option in options.iter().filter(|option| option.heading == heading) {
            let reloads = if option.reloads { " ↻" } else { "" };
            let value = if option.value.is_empty() { String::new() } else { format!(" {}", option.value) };
            let many = if option.many { " A list in the file." } else { "" };
            let values = if option.values.is_empty() {
                String::new()
            } else {
                format!(" One of: {}.", option.values.join(", "))
            };
            let default =
                if option.default.is_empty() { "none".into() } else { format!("`{}`", option.default) };
            writeln!(
                page,
                "| `{}`{reloads} | `--{}{}` | `{}` | {default} | {}.{values}{many} |",
                option.key,
                option.name,
                value.replace('|', "\\|"),
                option.variable,
                option.about.trim_end_matches('.'),
            )
            .expect("a string");
        }
    }
    is_up_to_date("docs/configuration.md", &page);
}

#[test]
fn the_example_configuration_has_only_keys_that_exist() {
    let example = fs::read_to_string(root().join("deploy/culprit.toml")).expect("deploy/culprit.toml");
    // With everything that is commented out, too: lines that look like `# key = value`.
    let all: String = example
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    for text in [&example, &all] {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("room");
        let args = ["culprit", "run", "--config", &file.path().display().to_string()].map(Into::into);
        let parsed = culprit::cli::parse(&args).expect("the command line is sound");
        assert!(parsed.is_ok(), "{:?}", parsed.err().map(|error| error.to_string()));
    }
}

#[test]
fn the_openapi_document_is_the_one_checked_in() {
    let document = serde_json::to_string_pretty(&culprit::outputs::http::document()).expect("JSON") + "\n";
    is_up_to_date("docs/culprit.openapi.json", &document);
}

#[test]
fn every_route_of_the_openapi_document_has_a_name_of_its_own_and_documents_its_errors() {
    let document = culprit::outputs::http::document();
    let paths = document["paths"].as_object().expect("paths");
    let mut names: Vec<&str> = Vec::new();
    for (path, route) in paths {
        let get = &route["get"];
        names.push(get["operationId"].as_str().unwrap_or_else(|| panic!("{path}: a name")));
        assert!(get["responses"]["421"].is_object(), "{path}");
        let open = ["/healthz", "/readyz"].contains(&path.as_str());
        assert_eq!(get["responses"]["401"].is_null(), open, "{path}");
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), paths.len(), "{names:?}");
    let limit = &document["paths"]["/api/v1/incidents"]["get"]["parameters"];
    let limit =
        limit.as_array().expect("parameters").iter().find(|one| one["name"] == "limit").expect("a limit");
    assert_eq!((&limit["schema"]["minimum"], &limit["schema"]["maximum"]), (&1.into(), &1000.into()));
    let metrics = &document["paths"]["/metrics"]["get"]["responses"]["200"]["content"];
    for format in [Format::Text, Format::OpenMetrics] {
        let kind = format.content_type().split(';').next().unwrap_or_default();
        assert!(metrics[kind].is_object(), "{kind}");
    }
}

/// Rows of the changelog's table of names: what each is, what it was and what it is now.
fn renamed() -> Vec<[String; 3]> {
    let text = fs::read_to_string(root().join("CHANGELOG.md")).expect("CHANGELOG.md");
    let (_, table) = text.split_once("| what | before | now |\n|---|---|---|\n").expect("the table of names");
    let rows = table.lines().take_while(|line| line.starts_with("| "));
    let name = |cell: &str| cell.trim_matches('`').to_owned();
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches(['|', ' ']).rsplitn(3, " | ").collect();
        let [now, before, what] = cells[..] else { panic!("{row}") };
        [what.to_owned(), name(before), name(now)]
    })
    .collect()
}

#[test]
fn the_changelog_names_what_there_is_and_what_there_was() {
    let schema = json::schema().to_string();
    let families = culprit::metrics::families::FAMILIES;
    let labels =
        |name: &str| families.iter().flat_map(|family| family.labels).any(|label| label.name == name);
    let values = |value: &str| {
        let all = families.iter().flat_map(|family| family.labels).filter_map(|label| label.values.all());
        all.flatten().any(|one| one == value)
    };
    let options = culprit::cli::options();
    let rules = fs::read_to_string(root().join("deploy/prometheus/culprit.rules.yml")).expect("the rules");
    let rows = renamed();
    // What `culprit list` prints has no schema: tests beside it.
    for [what, before, now] in rows.iter().filter(|[what, ..]| !what.contains("culprit list")) {
        let is = |name: &String| match what.split(' ').next().unwrap_or_default() {
            "metric" => families.iter().any(|family| family.name == name),
            "label" if what.starts_with("label value") => values(name),
            "label" => labels(name),
            "recording" => rules.contains(&format!("record: {name}\n")),
            "probe" => PROBES.iter().any(|probe| probe.name == name),
            "option" => options.iter().any(|option| option.key == *name),
            "event" | "value" => schema.contains(&format!("\"const\":\"{name}\"")),
            "field" => schema.contains(&format!("\"{name}\":{{")),
            _ => panic!("{what}: not a kind of name"),
        };
        // Texts whose values the schema describes, not lists: `ended_by`, `cause.outcome`.
        let described = what.starts_with("value") && schema.contains(&format!("`{now}`"));
        assert!(is(now) || described, "{what}: there is no {now}");
        assert!(!is(before), "{what}: there still is {before}");
    }
    assert!(rows.len() > 50, "{}", rows.len());
}

#[test]
fn a_half_upgraded_fleet_is_read_by_names_of_today_and_of_before() {
    let page = fs::read_to_string(root().join("docs/daemon.md")).expect("docs/daemon.md");
    let (_, section) = page.split_once("## A fleet that is half upgraded\n").expect("the section");
    let fences: Vec<&str> = section.split("\n```").skip(1).step_by(2).collect();
    assert!(fences.iter().filter(|fence| fence.starts_with("promql\n")).count() >= 4, "{fences:?}");
    assert!(fences.iter().filter(|fence| fence.starts_with("jq\n")).count() >= 3, "{fences:?}");
    let rows = renamed();
    for fence in fences {
        let mut words: Vec<String> = fence
            .split(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c))
            .map(str::to_owned)
            .collect();
        // Names that one pattern finds: `"culprit_(bpf_map|map)_memory_bytes"`.
        for pattern in fence.split('"').skip(1).step_by(2) {
            let Some((begin, rest)) = pattern.split_once('(') else { continue };
            let Some((either, end)) = rest.split_once(')') else { continue };
            words.extend(either.split('|').map(|one| format!("{begin}{one}{end}")));
        }
        let both = rows.iter().any(|[_, before, now]| words.contains(before) && words.contains(now));
        assert!(both, "{fence}");
    }
}
