"""cgroup v2 with the cpuset controller, four CPUs on two NUMA nodes, a real libvirtd and real QEMU processes.

Each test reads what was seen in one boot of a micro VM; see `inside.py` for what happened there.
"""

from __future__ import annotations

from typing import Any

import pytest

from . import recording
from .machine import Scene

Scenes = dict[str, Scene]
NFV = "nfv-1"
KEPT = {"iothread1": [1], "vcpu0": [0], "vcpu1": [1]}


def emulator(scene: Scene) -> dict[str, list[int]]:
    """The CPUs of the emulator threads, its vhost workers included, by name and thread id."""
    threads = [thread for thread in scene["threads"] if thread["kind"] in ("emulator", "outside")]
    return {f"{thread['name']} {thread['tid']}": thread["allowed"] for thread in threads}


def sets(scene: Scene) -> list[list[int]]:
    """The different sets of CPUs that emulator threads have: one, where all is well."""
    return sorted(map(list, set(map(tuple, emulator(scene).values()))))


def others(scene: Scene) -> dict[str, list[int]]:
    return {
        thread["kind"]: thread["allowed"]
        for thread in scene["threads"]
        if thread["kind"] not in ("emulator", "outside")
    }


def group(scene: Scene, name: str = "emulator") -> tuple[str, str]:
    """A cgroup's CPUs as written, and those in effect."""
    return scene["groups"][name]["cpuset.cpus"], scene["groups"][name]["cpuset.cpus.effective"]


def outcomes(scene: Scene) -> list[tuple[str, str]]:
    return [(entry["op"], entry["outcome"]) for entry in scene["audit"]]


def workers(scene: Scene) -> list[dict[str, Any]]:
    """The vhost workers, the oldest first."""
    found = [thread for thread in scene["threads"] if thread["name"] == f"vhost-{scene['pid']}"]
    return sorted(found, key=lambda thread: thread["tid"])


def worker(scene: Scene) -> dict[str, Any]:
    (found,) = workers(scene)
    return found


def without_workers(scene: Scene) -> list[list[int]]:
    """The different sets of CPUs of the other emulator threads."""
    threads = [thread for thread in scene["threads"] if thread["kind"] == "emulator" and thread not in workers(scene)]
    return sorted(map(list, {tuple(thread["allowed"]) for thread in threads}))


def test_the_machine_is_the_one_that_was_ordered(scenes: Scenes, kernel: str) -> None:
    assert scenes["host"]["kernel"].startswith(f"{kernel}.")
    assert scenes["host"]["cpus"] == [0, 1, 2, 3]
    assert scenes["host"]["nodes"] == {"node0": "0-1", "node1": "2-3"}
    assert "cpuset" in scenes["host"]["controllers"]


def test_without_the_hook_emulator_threads_share_the_cpus_of_the_vcpus(scenes: Scenes) -> None:
    """What the project is for; and proof that the tests below can fail."""
    assert sets(scenes["before"]) == [[0, 1]]
    assert group(scenes["before"]) == ("0-1", "0-1")
    assert {part["cgroup.type"] for part in scenes["before"]["groups"].values()} == {"threaded"}


def test_the_cgroup_alone_reaches_threads_that_asked_for_less_only_on_old_kernels(scenes: Scenes, kernel: str) -> None:
    """Linux 6.2 and later keeps the mask that a thread asked for (0-1) and intersects it with the cpuset (0,2)."""
    assert group(scenes["cgroup alone"]) == ("0,2", "0,2")
    assert sets(scenes["cgroup alone"]) == ([[0, 2]] if kernel == "6.1" else [[0]])


def test_where_the_kernel_has_the_vhost_worker(scenes: Scenes, kernel: str) -> None:
    found = worker(scenes["before"])
    assert found["kind"] == ("outside" if kernel == "6.1" else "emulator"), "a thread of the process since Linux 6.4"
    assert found["cgroup"].endswith("/emulator")


def test_a_guest_that_was_there_before_the_hook_is_placed_at_reconnect(scenes: Scenes) -> None:
    seen = scenes["taken over"]
    assert sets(seen) == [[0]]
    assert group(seen) == ("0", "0")
    assert worker(seen)["allowed"] == [0]
    assert ("reconnect", "enforced") in outcomes(seen)
    assert seen["pid"] == scenes["before"]["pid"]
    recorded = scenes["taken over, recorded"]
    assert (recorded["live"], recorded["stored"]) == ("0", "0")


def test_a_start_places_threads_that_asked_for_other_cpus(scenes: Scenes) -> None:
    """QEMU starts on 1-2; where the kernel intersects, the cgroup alone would leave its threads on CPU 2."""
    seen = scenes["wide"]
    assert sets(seen) == [[2, 3]]
    assert group(seen) == ("2-3", "2-3")
    assert others(seen) == {"vcpu0": [3]}
    assert outcomes(seen)[:2] == [("prepare", "decided"), ("started", "enforced")]
    recorded = scenes["wide, recorded"]
    assert (recorded["live"], recorded["stored"]) == ("2-3", "2-3")


def test_a_spoilt_placement_is_mended_at_reconnect(scenes: Scenes) -> None:
    spoilt, mended = scenes["spoilt"], scenes["mended"]
    assert (sets(spoilt), group(spoilt)) == ([[0, 1]], ("0-1", "0-1"))
    assert (sets(mended), group(mended)) == ([[0]], ("0", "0"))
    assert worker(spoilt)["allowed"] == [0, 1]
    assert worker(mended)["allowed"] == [0]
    assert emulator(spoilt).keys() == emulator(mended).keys()
    assert outcomes(mended)[len(outcomes(spoilt)) :] == [("reconnect", "enforced")]


@pytest.mark.parametrize(
    ("scene", "cards"),
    [("vhost apart", 1), ("vhost, a late card, applied", 2), ("vhost apart, again", 2), ("vhost apart, started", 1)],
)
def test_vhost_workers_are_apart_from_the_emulator_threads(scenes: Scenes, scene: str, cards: int) -> None:
    """A kernel thread or one of QEMU's, in the cgroup that covers both; every other thread is where it was."""
    seen = scenes[scene]
    assert [each["allowed"] for each in workers(seen)] == [[3]] * cards
    assert without_workers(seen) == [[0]]
    assert group(seen) == ("0,3", "0,3")
    assert others(seen) == KEPT


def test_the_worker_of_a_late_card_waits_for_apply_and_is_shown_until_then(scenes: Scenes, kernel: str) -> None:
    """A kernel thread has the CPUs of the cgroup that it is put into, a thread of QEMU those of the one that began it.

    Neither is a CPU of a vCPU that the emulator threads were kept off.
    """
    seen, applied = scenes["vhost, a late card"], scenes["vhost, a late card, applied"]
    assert [each["allowed"] for each in workers(seen)] == [[3], [0, 3] if kernel == "6.1" else [0]]
    assert seen["said"].endswith("status 1\n"), seen["said"]
    assert f"vhost-{seen['pid']}" in seen["said"]
    assert applied["said"].endswith("status 0\n"), applied["said"]


def test_libvirts_own_call_takes_vhost_workers_along_and_they_go_back(scenes: Scenes) -> None:
    """Its call narrows the cgroup; the process that records a pin parts them again."""
    assert [each["allowed"] for each in workers(scenes["vhost, pinned by hand"])] == [[0, 1], [0, 1]]
    assert scenes["vhost, recorded"] | {"live": "0", "stored": "0"} == scenes["vhost, recorded"]


@pytest.mark.parametrize("scene", ["before", "cgroup alone", "taken over", "spoilt", "mended"])
def test_vcpus_and_iothreads_keep_their_cpus(scenes: Scenes, scene: str) -> None:
    assert others(scenes[scene]) == KEPT
    assert {name: group(scenes[scene], name) for name in KEPT} == {
        name: (str(cpu), str(cpu)) for name, (cpu,) in KEPT.items()
    }


def test_cpus_that_the_parent_lacks_are_reported_and_cost_no_guest_its_life(scenes: Scenes) -> None:
    """cgroup v2 takes the set, and says only in `cpuset.cpus.effective` that it does not hold."""
    seen = scenes["parent without the CPU"]
    assert group(seen) == ("2-3", "3")
    assert (seen["pid"], seen["state"]) == (scenes["wide"]["pid"], "running")
    last = seen["audit"][-1]
    assert (last["op"], last["outcome"]) == ("reconnect", "failed")
    assert "CPU 2 is outside the guest's cgroup: /machine may have 0-1,3" in last["reason"]
    assert any("/machine may have 0-1,3" in line for line in scenes["end"]["syslog"] if line.startswith("<27>"))


def test_dedicated_takes_a_cpu_on_the_guests_node(scenes: Scenes) -> None:
    """The pool is 0-1,3: the lowest free CPU is on the other node."""
    seen = scenes["dedicated-1"]
    assert sets(seen) == [[3]]
    assert others(seen) == {"vcpu0": [2]}
    assert (scenes["dedicated-1, recorded"]["live"], scenes["dedicated-1, recorded"]["stored"]) == ("3", "3")


def test_the_numa_check_skips_a_placement_on_the_other_node(scenes: Scenes) -> None:
    seen = scenes["numa-1"]
    assert sets(seen) == [[1]]
    started = next(entry for entry in seen["audit"] if entry["op"] == "started")
    assert started["placement"] == "cpus:1"
    assert "cpus:3 was skipped" in started["reason"]
    assert "node" in started["reason"]
    assert (scenes["numa-1, recorded"]["live"], scenes["numa-1, recorded"]["stored"]) == ("1", "1")


def test_a_pin_that_libvirt_could_not_start_with_is_for_the_live_threads_only(scenes: Scenes) -> None:
    """libvirt 9.0.0 allocates memory from a thread on the memory's nodes, after it has confined QEMU to the pin."""
    for scene in ("preallocated", "preallocated, again", "preallocated, restored", "preallocated, corrected"):
        seen = scenes[scene]
        assert (sets(seen), seen["state"]) == ([[0]], "running"), scene
    recorded = scenes["preallocated, recorded"]
    assert (recorded["live"], recorded["stored"]) == ("0,2", "0,2")
    (first, *_) = scenes["preallocated"]["audit"]
    assert any("allocates the guest's memory on NUMA node 1" in warning for warning in first["warnings"])


def test_a_definition_with_a_pin_that_libvirt_cannot_start_with_is_corrected(scenes: Scenes) -> None:
    seen = scenes["preallocated, its own pin"]
    assert "error" in seen["failed"]
    assert (seen["corrected"], seen["stored"]) == (True, None)


def test_no_thread_is_outside_the_cgroups_of_the_guest(scenes: Scenes) -> None:
    for scene in scenes.values():
        for thread in scene.get("threads", []):
            assert thread["cgroup"].startswith("/machine/qemu-"), thread


def test_the_recorded_guest_still_has_the_shape_of_a_real_one(
    scenes: Scenes, kernel: str, request: pytest.FixtureRequest
) -> None:
    path = recording.path_of(kernel)
    fresh = {key: scenes["recording"][key] for key in ("files", "links")}
    if request.config.getoption("--regenerate"):
        recording.write(path, scenes["host"]["kernel"], fresh)
    assert recording.shape(recording.read(path)) == recording.shape(fresh)


def test_a_cpu_that_goes_and_comes_back(scenes: Scenes) -> None:
    """The kernel's own events start what the udev rule and the service start; only those two are pretended."""
    assert sets(scenes["hotplug"]) == [[3]]
    for scene, action, there in (("hotplug, offline", "offline", [2]), ("hotplug, online", "online", [3])):
        seen = scenes[scene]
        assert (seen["event"]["ACTION"], seen["event"]["SUBSYSTEM"]) == (action, "cpu")
        assert seen["event"]["DEVPATH"].endswith("/cpu3")
        assert sets(seen) == [there], seen["event"]["said"]
        assert seen["event"]["said"].startswith("hotplug-1: "), "and of nobody else"
