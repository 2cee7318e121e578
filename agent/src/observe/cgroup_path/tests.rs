//! Every shape of path, as the programs that make cgroups write them.

use proptest::prelude::*;

use super::*;

const ID: &str = "3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d";
const INNER: &str = "aa4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1caa";
const UID: &str = "8dbc7d5a-2a91-4ba6-a2d3-2f4d0b3c7a11";
const UID_: &str = "8dbc7d5a_2a91_4ba6_a2d3_2f4d0b3c7a11";
const TASK: &str = "0f8e1c2d3b4a59687786958473625140";

/// Unit, container, runtime, pod.
type Row<'a> = (&'a str, [Option<&'a str>; 4]);

#[track_caller]
fn says(path: &str, expected: [Option<&str>; 4]) {
    let Identity { unit, container_id, runtime, pod_uid } = Identity::at(path);
    assert_eq!([&unit, &container_id, &runtime, &pod_uid].map(Option::as_deref), expected, "{path}");
}

/// `{id}`, `{inner}`, `{uid}`, `{uid_}` and `{task}` stand for what they are called.
fn filled(text: &str) -> String {
    let names = [("{id}", ID), ("{inner}", INNER), ("{uid}", UID), ("{uid_}", UID_), ("{task}", TASK)];
    names.into_iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}

#[track_caller]
fn all_say(rows: &[Row<'_>]) {
    for (path, expected) in rows {
        let expected = expected.map(|text| text.map(filled));
        says(&filled(path), expected.each_ref().map(Option::as_deref));
    }
}

#[test]
fn a_unit_is_the_innermost_service_or_scope() {
    all_say(&[
        ("/", [None; 4]),
        ("", [None; 4]),
        ("/system.slice", [None; 4]),
        ("/init.scope", [Some("init.scope"), None, None, None]),
        ("/system.slice/nginx.service", [Some("nginx.service"), None, None, None]),
        (
            "/system.slice/system-getty.slice/getty@tty1.service",
            [Some("getty@tty1.service"), None, None, None],
        ),
        ("/user.slice/user-1000.slice/session-3.scope", [Some("session-3.scope"), None, None, None]),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/db.service/workers",
            [Some("db.service"), None, None, None],
        ),
    ]);
}

#[test]
fn containers_of_the_systemd_driver_say_what_runs_them() {
    all_say(&[
        ("/system.slice/docker-{id}.scope", [None, Some("{id}"), Some("docker"), None]),
        ("/system.slice/docker-{id}.scope/init", [None, Some("{id}"), Some("docker"), None]),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{id}.scope",
            [None, Some("{id}"), Some("docker"), None],
        ),
        ("/system.slice/nerdctl-{id}.scope", [None, Some("{id}"), Some("containerd"), None]),
        ("/machine.slice/libpod-{id}.scope/container", [None, Some("{id}"), Some("podman"), None]),
        (
            "/machine.slice/machine-libpod_pod_{inner}.slice/libpod-{id}.scope",
            [None, Some("{id}"), Some("podman"), None],
        ),
        (
            "/system.slice/web.service/libpod-payload-{id}",
            [Some("web.service"), Some("{id}"), Some("podman"), None],
        ),
        (
            "/ecstasks.slice/ecstasks-{task}.slice/docker-{id}.scope",
            [None, Some("{id}"), Some("docker"), None],
        ),
    ]);
}

#[test]
fn containers_of_the_cgroupfs_driver_say_it_where_they_can() {
    all_say(&[
        ("/docker/{id}", [None, Some("{id}"), Some("docker"), None]),
        (
            "/docker/{id}/docker-{inner}.scope/system.slice/web.service",
            [Some("web.service"), Some("{inner}"), Some("docker"), None],
        ),
        ("/docker/{id}/system.slice/web.service", [Some("web.service"), Some("{id}"), Some("docker"), None]),
        ("/mine/{id}", [None, Some("{id}"), None, None]),
        ("/k8s.io/{id}", [None, Some("{id}"), Some("containerd"), None]),
        ("/libpod_parent/libpod-{id}", [None, Some("{id}"), Some("podman"), None]),
        ("/ecs/{task}/{id}", [None, Some("{id}"), None, None]),
        ("/ecs/{task}/{task}-2531612879", [None, Some("{task}-2531612879"), None, None]),
        ("/ecs/{task}", [None; 4]),
    ]);
}

#[test]
fn pods_are_found_under_both_drivers_and_in_every_class() {
    let scope = |prefix: &str| format!("{prefix}-{ID}.scope");
    let [containerd, crio, docker] = ["cri-containerd", "crio", "docker"].map(scope);
    let pods = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice";
    let under = |name: &str| format!("{pods}/{name}");
    all_say(&[
        (&under(&containerd), [None, Some("{id}"), Some("containerd"), Some("{uid}")]),
        (&under(&crio), [None, Some("{id}"), Some("cri-o"), Some("{uid}")]),
        (&under(&docker), [None, Some("{id}"), Some("docker"), Some("{uid}")]),
        (pods, [None, None, None, Some("{uid}")]),
        (
            "/kubepods.slice/kubepods-pod{uid_}.slice/crio-{id}.scope/container",
            [None, Some("{id}"), Some("cri-o"), Some("{uid}")],
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{task}.slice/crio-{id}.scope",
            [None, Some("{id}"), Some("cri-o"), Some("{task}")],
        ),
        ("/kubepods/pod{uid}/{id}", [None, Some("{id}"), None, Some("{uid}")]),
        ("/kubepods/burstable/pod{uid}/{id}", [None, Some("{id}"), None, Some("{uid}")]),
        ("/kubepods/besteffort/pod{uid}/crio-{id}", [None, Some("{id}"), Some("cri-o"), Some("{uid}")]),
        ("/kubepods/besteffort/pod{uid}", [None, None, None, Some("{uid}")]),
        ("/kubelet/kubepods/burstable/pod{uid}/{id}", [None, Some("{id}"), None, Some("{uid}")]),
        // containerd that was given systemd's notation and speaks to no systemd.
        (
            "/system.slice/containerd.service/kubepods-burstable-pod{uid_}.slice:cri-containerd:{id}",
            [None, Some("{id}"), Some("containerd"), Some("{uid}")],
        ),
        ("/system.slice:docker:{id}", [None, Some("{id}"), Some("docker"), None]),
    ]);
}

#[test]
fn of_containers_in_containers_the_innermost_is_meant() {
    all_say(&[
        ("/docker/{id}/docker/{inner}", [None, Some("{inner}"), Some("docker"), None]),
        // A node of kind.
        (
            "/system.slice/docker-{id}.scope/kubelet.slice/kubelet-kubepods.slice/\
             kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{uid_}.slice/\
             cri-containerd-{inner}.scope",
            [None, Some("{inner}"), Some("containerd"), Some("{uid}")],
        ),
        // Docker in a pod.
        (
            "/kubepods/burstable/pod{uid}/{id}/docker/{inner}",
            [None, Some("{inner}"), Some("docker"), Some("{uid}")],
        ),
        ("/lxc.payload.build/docker/{id}", [None, Some("{id}"), Some("docker"), None]),
        (
            "/lxc.payload.build/machine.slice/libpod-conmon-{id}.scope",
            [Some("libpod-conmon-{id}.scope"), Some("build"), Some("lxc"), None],
        ),
    ]);
}

#[test]
fn system_containers_go_by_names() {
    all_say(&[
        ("/lxc.payload.web", [None, Some("web"), Some("lxc"), None]),
        ("/lxc.payload.web/init.scope", [Some("init.scope"), Some("web"), Some("lxc"), None]),
        ("/lxc.payload/web", [None, Some("web"), Some("lxc"), None]),
        ("/lxc/104/ns/system.slice/ssh.service", [Some("ssh.service"), Some("104"), Some("lxc"), None]),
        (
            "/machine.slice/systemd-nspawn@my\\x2dweb.service/payload/system.slice/ssh.service",
            [Some("ssh.service"), Some("my-web"), Some("nspawn"), None],
        ),
        ("/machine.slice/machine-web\\x2d1.scope/payload", [None, Some("web-1"), Some("nspawn"), None]),
        (
            "/machine.slice/machine-web.scope/init.scope",
            [Some("init.scope"), Some("web"), Some("nspawn"), None],
        ),
    ]);
}

#[test]
fn what_only_looks_like_a_container_is_none() {
    let unit = |name| [Some(name), None, None, None];
    all_say(&[
        // Those who watch over containers are outside.
        ("/machine.slice/libpod-conmon-{id}.scope", unit("libpod-conmon-{id}.scope")),
        ("/system.slice/crio-conmon-{id}.scope", unit("crio-conmon-{id}.scope")),
        ("/kubepods/besteffort/pod{uid}/crio-conmon-{id}", [None, None, None, Some("{uid}")]),
        ("/lxc.monitor.web", [None; 4]),
        ("/lxc.monitor/web", [None; 4]),
        ("/lxc.payload.", [None; 4]),
        ("/machine.slice/systemd-nspawn@web.service/supervisor", unit("systemd-nspawn@web.service")),
        ("/machine.slice/systemd-nspawn@web.service", unit("systemd-nspawn@web.service")),
        // Virtual machines.
        (
            "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt/emulator",
            unit("machine-qemu\\x2d1\\x2dweb.scope"),
        ),
        ("/machine.slice/machine-web.scope", unit("machine-web.scope")),
        // Engines' own services, a build, any digests.
        ("/system.slice/docker.service", unit("docker.service")),
        ("/system.slice/containerd.service", unit("containerd.service")),
        ("/docker/buildkit/y5p9x1qk0b2h8vd3m6c7t4znr", [None; 4]),
        ("/system.slice/cache-{id}.service", unit("cache-{id}.service")),
        ("/process_api/{task}", [None; 4]),
        ("/docker/3F4B1C0D3F4B1C0D3F4B1C0D3F4B1C0D3F4B1C0D3F4B1C0D3F4B1C0D3F4B1C0D", [None; 4]),
        ("/docker/3f4b1c0d", [None; 4]),
        // Pods that are none.
        ("/kubepods.slice/kubepods-burstable.slice", [None; 4]),
        ("/system.slice/tripods-pod{uid_}.slice", [None; 4]),
        ("/any/pod{uid}", [None; 4]),
        ("/kubepods/burstable/pod1", [None; 4]),
        ("/kubepods/burstable/pod-{uid}", [None; 4]),
    ]);
}

#[test]
fn neither_a_removed_cgroup_nor_another_namespace_hides_it() {
    all_say(&[
        ("/docker/{id} (deleted)", [None, Some("{id}"), Some("docker"), None]),
        ("/system.slice/nginx.service (deleted)", [Some("nginx.service"), None, None, None]),
        ("/../../docker/{id}", [None, Some("{id}"), Some("docker"), None]),
        ("/../cri-containerd-{id}.scope", [None, Some("{id}"), Some("containerd"), None]),
    ]);
}

#[test]
fn of_several_hierarchies_version_2_is_believed_then_systemds_then_any() {
    let table = "9:name=systemd:/b:c\n4:memory:/d\n1:cpu,cpuacct:/e\nnonsense\n0::/a\n";
    assert_eq!(paths(table), ["/a", "/b:c", "/d", "/e"]);
    assert_eq!(paths(""), Vec::<&str>::new());
}

/// Whole tables: unit, container, runtime, pod.
#[test]
fn a_hybrid_host_names_the_container_wherever_it_is_named() {
    let rows: &[Row<'_>] = &[
        // Version 2 alone.
        ("0::/system.slice/docker-{id}.scope\n", [None, Some("{id}"), Some("docker"), None]),
        // Version 1 alone.
        (
            "12:pids:/docker/{id}\n3:cpuset:/docker/{id}\n1:name=systemd:/docker/{id}\n",
            [None, Some("{id}"), Some("docker"), None],
        ),
        // runc before 1.1 left version 2 to the process that started it.
        (
            "4:memory:/docker/{id}\n1:name=systemd:/docker/{id}\n0::/system.slice/containerd.service\n",
            [None, Some("{id}"), Some("docker"), None],
        ),
        // No systemd: nothing but controllers.
        (
            "4:memory:/kubepods/burstable/pod{uid}/{id}\n3:pids:/\n0::/\n",
            [None, Some("{id}"), None, Some("{uid}")],
        ),
        // A service of systemd in hybrid mode; a controller's hierarchy is shallower.
        (
            "4:memory:/system.slice\n1:name=systemd:/system.slice/web.service\n0::/system.slice/web.service\n",
            [Some("web.service"), None, None, None],
        ),
        ("1:name=systemd:/system.slice/web.service\n0::/\n", [Some("web.service"), None, None, None]),
        ("9:name=systemd:/\n4:memory:/process_api/{task}\n0::/\n", [None; 4]),
        ("", [None; 4]),
    ];
    for (table, expected) in rows {
        let place = Identity::of(paths(&filled(table)));
        let found = [place.unit, place.container_id, place.runtime, place.pod_uid];
        assert_eq!(found, expected.map(|text| text.map(filled)), "{table}");
    }
}

proptest! {
    #[test]
    fn any_table_is_read_without_harm(
        names in proptest::collection::vec(
            prop_oneof![
                Just(String::from("docker")), Just(String::from("kubepods")), Just(format!("pod{UID}")),
                Just(String::from("machine-\\x.scope")), Just(String::from("ecs")), Just(ID.to_owned()),
                "systemd-nspawn@[\\\\x0-9é]{0,6}.service", ".{0,12}",
            ],
            0..6,
        ),
        table in ".{0,40}",
    ) {
        let place = Identity::at(&format!("/{}", names.join("/")));
        prop_assert!(place.runtime.is_none() || place.container_id.is_some());
        Identity::of(paths(&table));
    }
}
