//! Real containers, made by runc: which process is whose while it lives and when nothing is left of it, and culprit in
//! a container of its own, as `deploy/` runs it.

use std::{net::SocketAddr, path::Path, process::Command};

use rustix::process::Signal;

use crate::{
    harness::{
        Culprit, Netns, Running, Scratch,
        container::Container,
        culprit::binary,
        daemon::{Daemon, Faults, Setup, to},
        eventually, port,
        process::run,
    },
    needs,
};

const UID: &str = "8dbc7d5a-2a91-4ba6-a2d3-2f4d0b3c7a11";

/// A closed port inside, and the command that connects there.
fn closed_port(netns: &Netns) -> (SocketAddr, String) {
    let to = SocketAddr::new(netns.loopback(), port());
    (to, format!("nc {} {}", to.ip(), to.port()))
}

/// Three failures of one program are an incident. A program goes by its executable, or by its name if it was gone
/// before it could be looked at: of five, three are of a kind.
fn failing(connect: &str) -> String {
    [connect; 5].join("; ")
}

#[test]
fn a_process_in_a_container_is_reported_with_its_container_id_and_runtime() {
    needs!(Runc);
    let netns = Netns::make();
    let (to, connect) = closed_port(&netns);
    let culprit = Culprit::trace("");
    let container = Container::make("docker", &netns, &format!("{connect}; echo done; sleep 1000"));
    let running = Running::spawn(&mut container.command());
    running.wait_for_line("done");
    let end = culprit.wait_for("the connect", |fact| fact.is_to("connect_ended", to));
    assert_eq!(end.owner("container_id"), container.id(), "{}", end.json);
    assert_eq!(end.owner("runtime"), "docker", "{}", end.json);
    assert!(end.owner("pod_uid").is_null() && end.within(&netns), "{}", end.json);
}

#[test]
fn a_container_can_be_selected_by_its_id() {
    needs!(Runc);
    let netns = Netns::make();
    let ((to, connect), (elsewhere, other)) = (closed_port(&netns), closed_port(&netns));
    let container = Container::make("docker", &netns, &connect);
    let another = Container::make("docker", &netns, &other);
    let culprit = Culprit::trace(&format!("--container {}", container.id()));
    another.run();
    container.run();
    let end = culprit.wait_for("the connect", |fact| fact.is_to("connect_ended", to));
    assert_eq!(end.owner("container_id"), container.id(), "{}", end.json);
    assert_eq!(culprit.seen(|fact| fact.is_to("connect_ended", elsewhere)).len(), 0);
}

#[test]
fn containers_that_exit_at_once_are_still_identified() {
    needs!(Runc);
    let netns = Netns::make();
    let culprit = Culprit::trace("");
    // The root's, whose watch is there before the first of them.
    eventually("cgroups are watched", || watches(culprit.pid()) > 0);
    let watched = watches(culprit.pid());
    let mut ids = Vec::new();
    for _ in 0..10 {
        let (to, connect) = closed_port(&netns);
        // The only process there is: the container ends with its connect.
        let container = Container::make("docker", &netns, &format!("exec {connect}"));
        container.run();
        ids.push((to, container.id().to_owned()));
    }
    let mut unknown = Vec::new();
    for (to, id) in ids {
        let end = culprit.wait_for("the connect", |fact| fact.is_to("connect_ended", to));
        if (end.owner("container_id"), end.owner("runtime")) != (&id.into(), &"docker".into()) {
            assert!(end.owner("container_id").is_null(), "another's: {}", end.json);
            unknown.push(end.json);
        }
    }
    // culprit has to run once while a cgroup is there: on a machine with more to do than processors, one may slip by.
    assert!(unknown.len() <= 1, "{unknown:#?}");
    // Other tests' cgroups come and go, but not by the dozen.
    eventually("what is gone is not watched", || watches(culprit.pid()) < watched + 20);
}

/// How many directories a process watches.
fn watches(pid: u32) -> usize {
    let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it runs").flatten();
    let infos = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    infos.map(|info| info.lines().filter(|line| line.starts_with("inotify ")).count()).sum()
}

#[test]
fn a_deleted_pod_is_identified_by_its_uid_in_incidents_that_open_later() {
    needs!(Runc);
    let netns = Netns::make();
    let setup = Setup::make();
    let daemon = setup.start("");
    let (to, connect) = closed_port(&netns);
    let pod = format!("kubepods/burstable/pod{UID}");
    let container = Container::make(&pod, &netns, &failing(&connect));
    // The incident opens a moment later, and nothing was reported before.
    container.run();
    let incident = daemon.culprit.wait_for_incident("it cannot connect", |incident| {
        incident.text("/kind") == "connect_failing" && incident.blamed() == to.to_string()
    });
    let process = &incident.json["process"];
    assert_eq!(process["container_id"], container.id(), "{:#}", incident.json);
    assert_eq!(process["pod_uid"], UID, "{:#}", incident.json);
    assert!(process["runtime"].is_null(), "{:#}", incident.json);
}

/// A kubelet's link to a container's log, gone with the test.
struct LogLink(std::path::PathBuf);

impl LogLink {
    fn make(container: &Container) -> Self {
        let links = Path::new("/var/log/containers");
        std::fs::create_dir_all(links).expect("root may");
        let link = links.join(format!("cart-7d9f_shop_cart-{}.log", container.id()));
        std::fs::write(&link, "").expect("root may");
        Self(link)
    }
}

impl Drop for LogLink {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        let _ = std::fs::remove_dir("/var/log/containers");
    }
}

#[test]
fn a_process_older_than_the_kubelets_link_gets_its_pods_name_later() {
    needs!(Runc, Nftables);
    let netns = Netns::make();
    netns.drop_tcp("input", 9);
    let to = SocketAddr::new(netns.loopback(), 9);
    let culprit = Culprit::trace("");
    let pod = format!("kubepods/burstable/pod{UID}");
    let container = Container::make(&pod, &netns, &format!("exec nc {} 9", to.ip()));
    let running = Running::spawn(&mut container.command());
    let begun = culprit.wait_for("the connect", |fact| fact.is_to("connect_started", to));
    assert!(begun.owner("pod").is_null(), "{}", begun.json);
    assert_eq!(begun.owner("pod_uid"), UID, "{}", begun.json);
    let _link = LogLink::make(&container);
    let named = culprit
        .wait_for("its name", |fact| fact.at("destination") == Some(to) && fact.owner("pod") == "cart-7d9f");
    assert_eq!(named.pid(), begun.pid(), "{}", named.json);
    assert_eq!((named.owner("namespace"), named.owner("container")), (&"shop".into(), &"cart".into()));
    // In words as well.
    let stalled = culprit.wait_for_incident("it stalls", |incident| {
        incident.text("/kind") == "connect_stalled" && incident.blamed() == to.to_string()
    });
    let who = format!("shop/cart-7d9f/cart nc[{}]", begun.pid());
    assert!(stalled.json.to_string().contains(&who), "{who}: {:#}", stalled.json);
    drop(running);
}

#[test]
fn text_names_the_container_before_the_process() {
    needs!(Runc);
    let netns = Netns::make();
    let (_, connect) = closed_port(&netns);
    let mut trace = binary();
    trace.args(["trace", "--format", "text"]);
    let culprit = Running::spawn(&mut trace);
    eventually("it traces", || culprit.stderr().contains("^C ends"));
    let container = Container::make("docker", &netns, &connect);
    container.run();
    let who = format!("docker/{} nc[", &container.id()[..12]);
    let deadline = crate::harness::deadline();
    loop {
        let line = culprit.next_line(deadline).expect("in time").expect("it traces");
        // Other tests' containers may begin with the same digits.
        if line.contains(&who) && line.contains(&format!("]@{}", netns.name())) {
            break;
        }
    }
}

/// Where `deploy/` has them.
const PROGRAM: &str = "/culprit";
const STORE: &str = "/var/lib/culprit";

/// The libraries a program needs, and what loads them.
fn libraries(program: &Path) -> Vec<String> {
    let said = run(Command::new("ldd").arg(program));
    let said = String::from_utf8(said.stdout).expect("text");
    said.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

#[test]
fn culprit_in_a_container_sees_the_whole_machine() {
    needs!(Runc, Nftables);
    let program = Path::new(binary().get_program()).canonicalize().expect("the binary under test");
    let (store, links) = (Scratch::make(), Scratch::make());
    let args = [
        PROGRAM,
        "run",
        "--listen",
        "127.0.0.1:0",
        "--format",
        "json",
        "--log-format",
        "json",
        "--connect-stall",
        "300ms",
    ];
    let mut agent = Container::privileged("docker", &args);
    agent.mount(&program, PROGRAM, "ro");
    for library in libraries(&program) {
        agent.mount(Path::new(&library), &library, "ro");
    }
    agent.mount(Path::new("/sys/fs/cgroup"), "/sys/fs/cgroup", "ro");
    agent.mount(Path::new("/sys/kernel/tracing"), "/sys/kernel/tracing", "ro");
    agent.mount(store.path(), STORE, "rw");
    agent.mount(links.path(), "/var/log/containers", "ro");
    agent.limit_memory(256 << 20);
    let culprit = Culprit::spawn(agent.command());
    let outside = Culprit::trace("--max-events 1 --for 1s").start.clone();
    assert_eq!(culprit.start["probes"], outside["probes"], "it sees less than on the host");
    let daemon = Daemon::of(culprit);
    assert_eq!(daemon.get("/readyz").status, 200);

    // A process on the host, outside of any container.
    let faults = Faults::make();
    let (_waits, stalled) = faults.begin();
    let incident = daemon.culprit.wait_for_incident("the stall", |incident| to(incident, stalled));
    let process = &incident.json["process"];
    assert_eq!(process["pid"], std::process::id(), "{:#}", incident.json);
    assert!(process["exe"].as_str().is_some_and(|exe| exe.contains("live")), "{:#}", incident.json);
    assert!(process["container_id"].is_null(), "{:#}", incident.json);

    // A process in another container, whose names the kubelet's links have.
    let netns = Netns::make();
    let (refused, connect) = closed_port(&netns);
    let pod = format!("kubepods/pod{UID}");
    let web = Container::make(&pod, &netns, &failing(&connect));
    std::fs::write(links.join(&format!("web-7d4_shop_nginx-{}.log", web.id())), "").expect("room");
    web.run();
    let incident = daemon.culprit.wait_for_incident("it cannot connect", |incident| to(incident, refused));
    let process = &incident.json["process"];
    for (field, value) in [
        ("container_id", web.id()),
        ("pod_uid", UID),
        ("pod", "web-7d4"),
        ("namespace", "shop"),
        ("container", "nginx"),
    ] {
        assert_eq!(process[field], value, "{field}: {:#}", incident.json);
    }

    daemon.culprit.running().signal(Signal::TERM);
    let ended = daemon.culprit.finish();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.summary["lost"], 0);
    let mut list = binary();
    list.args(["incidents", "--format", "json", "--store"]).arg(store.join("culprit.db"));
    let kept = String::from_utf8(run(&mut list).stdout).expect("text");
    assert!(kept.contains(&stalled.port().to_string()) && kept.contains(web.id()), "{kept}");
}
