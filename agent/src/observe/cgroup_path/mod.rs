//! Whose a process is, by the path of its cgroup: the unit of systemd, the container and what runs it, the
//! pod. Pure. A shape that is not known gives nothing rather than something wrong.

/// What runs containers, by how the names of their cgroups begin; `docker:` instead of `docker-` where a
/// runtime was given systemd's notation and did not speak to systemd.
const ENGINES: &[(&str, &str)] = &[
    ("docker", "docker"),
    ("cri-containerd", "containerd"),
    ("nerdctl", "containerd"),
    ("crio", "cri-o"),
    ("libpod", "podman"),
    ("libpod-payload", "podman"),
];

/// What runs the containers whose cgroups are right below one of this name.
const PARENTS: &[(&str, &str)] = &[("docker", "docker"), ("k8s.io", "containerd")];

/// What follows directly below the scope of a container that boots a system.
const BOOTED: &[&str] = &["payload", "init.scope", "system.slice"];

/// Where a process belongs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// The innermost unit.
    pub(super) unit: Option<String>,
    /// The innermost container.
    pub(super) container_id: Option<String>,
    /// What runs it, where the path says so.
    pub(super) runtime: Option<String>,
    /// The pod, as Kubernetes writes its UID.
    pub(super) pod_uid: Option<String>,
}

impl Identity {
    /// By paths of one process in several hierarchies, the one to be believed first: all from that which
    /// names a container or a pod, or else from that which names a unit.
    pub(super) fn of<'a>(paths: impl IntoIterator<Item = &'a str>) -> Self {
        let places: Vec<Self> = paths.into_iter().map(Self::at).collect();
        let contained = |place: &&Self| place.container_id.is_some() || place.pod_uid.is_some();
        let found = places.iter().find(contained).or_else(|| places.iter().find(|place| !place.is_unknown()));
        found.cloned().unwrap_or_default()
    }

    /// Nothing is known.
    pub(super) fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    fn at(path: &str) -> Self {
        // What the kernel adds for a cgroup that was removed under a process that is not waited for.
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        // Seen from another cgroup namespace, a path begins with steps out of it.
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty() && *name != "..").collect();
        let inwards = || (0..names.len()).rev();
        let contained = inwards().find_map(|at| Some((at, container(&names, at)?)));
        let pod_uid = inwards().find_map(|at| pod(&names, at));
        let container_at = contained.as_ref().map(|(at, _)| *at);
        let unit = unit(&names, container_at, pod_uid.is_some());
        let container = contained.map(|(_, container)| container);
        Self {
            unit: unit.map(str::to_owned),
            runtime: container.as_ref().and_then(|(_, runtime)| runtime.map(str::to_owned)),
            container_id: container.map(|(id, _)| id),
            pod_uid,
        }
    }
}

/// The innermost unit: of a contained process one inside the container, or the service that is the container or
/// runs it alone. The scope an engine makes for a container is no unit, and the service an engine or
/// a kubelet runs in is not the unit of what it runs.
fn unit<'a>(names: &[&'a str], container_at: Option<usize>, in_pod: bool) -> Option<&'a str> {
    let is_unit = |at: &usize| {
        names[*at].ends_with(".service")
            || (names[*at].ends_with(".scope") && container(names, *at).is_none())
    };
    let Some(container_at) = container_at else {
        return (0..names.len()).rev().find(is_unit).map(|at| names[at]);
    };
    let above = container_at.checked_sub(1).filter(|above| !in_pod && names[*above].ends_with(".service"));
    (container_at..names.len()).rev().find(is_unit).or(above).map(|at| names[at])
}

/// The paths in `/proc/PID/cgroup`, the one to be believed first: version 2, systemd's hierarchy of version
/// 1, the others.
pub(super) fn paths(table: &str) -> Vec<&str> {
    let line = |line: &'_ str| -> Option<(u8, usize)> {
        let mut columns = line.splitn(3, ':');
        let rank = match (columns.next()?, columns.next()?) {
            (_, "") => 0,
            (_, "name=systemd") => 1,
            _ => 2,
        };
        Some((rank, line.len() - columns.next()?.len()))
    };
    let mut found: Vec<(u8, &str)> =
        table.lines().filter_map(|text| line(text).map(|(rank, at)| (rank, &text[at..]))).collect();
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, path)| path).collect()
}

type Container = (String, Option<&'static str>);

/// The container whose own cgroup this is, and what runs it.
fn container(names: &[&str], at: usize) -> Option<Container> {
    let above = at.checked_sub(1).map_or("", |at| names[at]);
    system_container(names, at).or_else(|| engine(names[at])).or_else(|| {
        let task = (at >= 2 && names[at - 2] == "ecs").then_some(above);
        if is_id(names[at]) || task.is_some_and(|task| is_of_task(names[at], task)) {
            return Some((names[at].to_owned(), named(PARENTS, above)));
        }
        None
    })
}

/// `docker-<id>.scope`, `crio-<id>`, `system.slice:docker:<id>`. Their monitors (`libpod-conmon-<id>.scope`)
/// are not in the container.
fn engine(name: &str) -> Option<Container> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let (before, id) = name.rsplit_once(['-', ':'])?;
    let engine = named(ENGINES, before.rsplit(':').next()?)?;
    is_id(id).then(|| (id.to_owned(), Some(engine)))
}

/// Containers that go by names: those of LXC, Incus and systemd-nspawn.
fn system_container(names: &[&str], at: usize) -> Option<Container> {
    let name = names[at];
    if let Some(name) = name.strip_prefix("lxc.payload.") {
        return (!name.is_empty()).then(|| (name.to_owned(), Some("lxc")));
    }
    // LXC before version 4.
    if at == 1 && ["lxc", "lxc.payload"].contains(&names[0]) {
        return Some((name.to_owned(), Some("lxc")));
    }
    let below = *names.get(at + 1)?;
    let machine = if let Some(template) = name.strip_prefix("systemd-nspawn@") {
        (below != "supervisor").then_some(template.strip_suffix(".service")?)?
    } else {
        let machine = name.strip_prefix("machine-")?.strip_suffix(".scope")?;
        // Those of libvirt: virtual machines, and containers of which only libvirt knows the id.
        let libvirt = machine.starts_with("qemu\\x2d") || machine.starts_with("lxc\\x2d");
        (!libvirt && BOOTED.contains(&below)).then_some(machine)?
    };
    (!machine.is_empty()).then(|| (unescaped(machine), Some("nspawn")))
}

/// The pod whose cgroup this is: `pod<uid>` below `kubepods`, or `kubepods-burstable-pod<uid>.slice`, where
/// the UID has underscores.
fn pod(names: &[&str], at: usize) -> Option<String> {
    const CLASSES: [&str; 3] = ["kubepods", "kubepods-burstable", "kubepods-besteffort"];
    let name = names[at].split(':').next()?;
    let uid = if let Some(slice) = name.strip_suffix(".slice") {
        let (before, uid) = slice.rsplit_once("-pod")?;
        // A node in a container puts its own name before.
        let is_class = |class: &&str| {
            before.strip_suffix(*class).is_some_and(|rest| rest.is_empty() || rest.ends_with('-'))
        };
        CLASSES.iter().any(is_class).then_some(uid)?
    } else {
        let above = *names.get(at.checked_sub(1)?)?;
        let classed = ["burstable", "besteffort"].contains(&above) && at >= 2 && names[at - 2] == "kubepods";
        (above == "kubepods" || classed).then_some(name)?.strip_prefix("pod")?
    };
    let uid = uid.replace('_', "-");
    is_uid(&uid).then_some(uid)
}

/// A UUID, or the digest of a manifest, which static pods have instead.
fn is_uid(uid: &str) -> bool {
    let lengths: Vec<usize> = uid.split('-').map(str::len).collect();
    (lengths == [8, 4, 4, 4, 12] || lengths == [32]) && uid.split('-').all(is_hexadecimal)
}

/// As all engines name containers that people do not name.
fn is_id(name: &str) -> bool {
    name.len() == 64 && is_hexadecimal(name)
}

/// `<task>-<number>`, as ECS names containers that no Docker runs.
fn is_of_task(name: &str, task: &str) -> bool {
    let number = name.strip_prefix(task).and_then(|rest| rest.strip_prefix('-'));
    task.len() == 32
        && is_hexadecimal(task)
        && number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn named(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(begins, _)| *begins == name).map(|(_, runtime)| *runtime)
}

/// systemd writes what a unit's name cannot hold as `\xNN`.
fn unescaped(name: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend(before.bytes());
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.extend(b"\\x");
                rest = after;
            }
        }
    }
    bytes.extend(rest.bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
