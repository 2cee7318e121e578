//! The outage of a recycled address: a worker's virtual machine is replaced, the new one gets the old one's IP
//! address with another MAC, and the database goes on answering the old MAC.

use std::{
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{lab::Lab, watch::Watch};
use crate::{cmd, process::Process};

/// Until a worker gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const DATABASE: &str = "10.0.1.20";
const DATABASE_MAC: &str = "02:00:5e:00:00:db";
const PORT: &str = "5432";
const SUBNET_MAC: &str = "02:00:5e:00:00:ff";
const WORKER: &str = "10.0.1.90";
const OLD_MAC: &str = "02:00:5e:00:00:01";
const NEW_MAC: &str = "02:00:5e:00:00:02";

pub(super) fn play() -> Result<()> {
    let culprit = super::build()?;
    let mut lab = Lab::new()?;
    eprintln!(
        "\
The outage: a worker is replaced, and its successor gets the same address. From then on it cannot reach the
database, while every other worker can. No firewall changed, both machines are healthy, and it goes away by
itself before anyone has looked.

  worker {WORKER}  ──  subnet that answers ARP by itself  ──  database {DATABASE}:{PORT}

Building it in network namespaces …"
    );
    let (subnet, database) = (lab.host("subnet")?, lab.host("db")?);
    // Both at once: a namespace made after another is gone may get its number, and be taken for it.
    let (old, new) = (lab.host("old")?, lab.host("new")?);
    // With an address of its own: one that followed its ports would make it forget its neighbours.
    lab.ip(&subnet, &format!("link add br0 address {SUBNET_MAC} type bridge"))?;
    lab.ip(&subnet, "link set br0 up")?;
    // Frames to a MAC that is nowhere leave by the uplink, and are lost.
    let void = lab.file("void.py", include_str!("../../../tests/programs/void.py"))?;
    lab.start(Lab::inside(&subnet, "/usr/bin/python3").arg(void).args(["uplink", "tap"]))?;
    lab.ip(&subnet, "link set uplink master br0 up")?;
    plug(&lab, &subnet, "db", (&database, DATABASE, DATABASE_MAC))?;
    answer_for_the_database(&lab, &subnet)?;
    let program = lab.file("db_server.py", include_str!("db_server.py"))?;
    lab.start(Lab::inside(&database, "/usr/bin/python3").arg(program).args([DATABASE, PORT]))?;

    let args = ["trace", "-4", "-e", "connect,neighbour", "--port", PORT];
    eprintln!("\n$ sudo culprit {}", args.join(" "));
    let watch = Watch::start(&culprit, &[&args[..], &["--for", "40s"]].concat())?;

    eprintln!("\n# The old worker, {WORKER} at {OLD_MAC}, works, and is then replaced.");
    plug(&lab, &subnet, "old", (&old, WORKER, OLD_MAC))?;
    let worked = query(&lab, &old)?.wait(PATIENCE)?;
    ensure!(worked.success(), "the old worker did not reach the database: {worked}");
    settle();
    lab.remove(&old)?;
    settle();

    eprintln!("\n# The new worker, {WORKER} at {NEW_MAC}, connects.");
    plug(&lab, &subnet, "new", (&new, WORKER, NEW_MAC))?;
    let began = Instant::now();
    let mut worker = query(&lab, &new)?;
    // Long enough for SYN-ACKs to be sent again, and for those who watch to conclude something.
    sleep(Duration::from_millis(4500));
    let hung = worker.ended()?.is_none();

    let remedy = format!("neigh del {WORKER} dev eth0");
    eprintln!("\n# On the database:\n$ sudo ip {remedy}");
    lab.ip(&database, &remedy)?;
    let reached = worker.wait(PATIENCE)?;
    let took = began.elapsed();
    // An incident counts as resolved when it has stayed so for two seconds.
    sleep(Duration::from_millis(2600));
    watch.end()?;
    ensure!(hung, "the new worker was never cut off: the demo shows nothing here");
    eprintln!(
        "
What you saw:
  · The new worker waited {:.1} s, {}. It sent SYN after SYN; all of them arrived.
  · The database answered each one, to {OLD_MAC}: what it knew from the old worker. Nothing reported
    it otherwise, because this subnet answers ARP questions in the database's place, as clouds do.
  · `SYN from {NEW_MAC}, but replies go to {OLD_MAC}` is the contradiction, in the first SYN.
    By itself it may be healthy; `does not hear us` is the proof: the SYN-ACK had to be sent again.
  · NEIGHBOUR STALE is the incident, two seconds in: both MACs, whose service it concerns, and the remedy.
    After `ip neigh del` the very next packet asks for {WORKER} again, and the connect goes through.
  · CONNECT STALLED is all the worker's side can say. It points to the cause only because all machines of
    this demo share one kernel, and so one culprit sees both sides.
  · Without the remedy the kernel believes its entry for up to 45 s, waits 5 s more, asks the dead MAC
    three times, and only then everybody: gone by itself before anyone has looked.",
        took.as_secs_f64(),
        if reached.success() { "then the database's first line came" } else { "and gave up" },
    );
    ensure!(reached.success(), "the new worker did not reach the database: {reached}");
    Ok(())
}

/// Puts a machine with one address and one MAC on the subnet.
fn plug(lab: &Lab, subnet: &str, port: &str, (netns, address, mac): (&str, &str, &str)) -> Result<()> {
    lab.ip(subnet, &format!("link add {port} type veth peer name eth0 netns {netns}"))?;
    lab.ip(subnet, &format!("link set {port} master br0 up"))?;
    lab.ip(subnet, &format!("link set {port} type bridge_slave flood off"))?;
    lab.ip(netns, &format!("link set eth0 address {mac}"))?;
    lab.ip(netns, &format!("addr add {address}/24 dev eth0"))?;
    lab.ip(netns, "link set eth0 up")
}

/// The subnet knows where the database is and answers ARP questions for it itself, as hypervisors and EVPN
/// fabrics do: what others ask or announce never reaches the database, what it asks itself is carried.
fn answer_for_the_database(lab: &Lab, subnet: &str) -> Result<()> {
    lab.ip(subnet, &format!("neigh add {DATABASE} lladdr {DATABASE_MAC} dev br0 nud permanent"))?;
    lab.ip(subnet, "link set db type bridge_slave neigh_suppress on")?;
    let mut bridge = Command::new("bridge");
    bridge.args(["-n", subnet, "fdb", "replace", DATABASE_MAC, "dev", "db", "master", "static"]);
    cmd::run(&mut bridge)
}

/// Starts a worker's one connection.
fn query(lab: &Lab, netns: &str) -> Result<Process> {
    let program = lab.file("db_client.py", include_str!("db_client.py"))?;
    let mut client = Lab::inside(netns, "/usr/bin/python3");
    client.arg(program).args([DATABASE, PORT]).stdin(Stdio::null()).stderr(Stdio::null());
    Process::start(&mut client)
}

/// Lets the lines of one act out before the next begins.
fn settle() {
    sleep(Duration::from_millis(300));
}
