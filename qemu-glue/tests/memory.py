# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests' memory of every sort: files, huge pages, plugged, shared, locked; processes that may do little."""

import array
import contextlib
import os
import subprocess
import time

from .bench import SLOW, UNCAPPED, Skip, expect, listen, qmp, test, wait_final


def backend(bench, kind, **more):
    options = "".join(f",{key.replace('_', '-')}={value}" for key, value in more.items())
    # The name of QEMU's own RAM, so that a saved guest is taken up.
    return ("-machine", "memory-backend=pc.ram",
            "-object", f"{kind},id=pc.ram,size={bench.spec.memory_mb}M{options}")


@contextlib.contextmanager
def mounted(bench, kind, options):
    if os.geteuid():
        raise Skip("mounting takes root")
    path = bench.path(kind)
    os.mkdir(path)
    if subprocess.run(["mount", "-t", kind, "-o", options, "godwit-test", path]).returncode:
        raise Skip(f"cannot mount {kind} here")
    try:
        yield path
    finally:
        for machine in bench.machines:
            machine.stop()
        subprocess.run(["umount", "-l", path], check=True)


@test
def memory_in_a_file(bench):
    """RAM in a file, shared"""
    source = bench.source(options=backend(bench, "memory-backend-file", share="on", mem_path=bench.path("ram0")))
    bench.move(source, bench.destination(options=backend(
        bench, "memory-backend-file", share="on", mem_path=bench.path("ram1"))), SLOW)


@test
def memory_in_a_memfd(bench):
    """RAM in a memfd"""
    source = bench.source(options=backend(bench, "memory-backend-memfd"))
    bench.move(source, bench.destination(options=backend(bench, "memory-backend-memfd")), SLOW)


@contextlib.contextmanager
def huge_pages(count):
    """So many huge pages of 2 MiB; the machine has as many as before afterwards."""
    path = "/proc/sys/vm/nr_hugepages"
    try:
        with open(path) as file:
            before = int(file.read())
        with open(path, "w") as file:
            file.write(str(before + count))
        with open(path) as file:
            got = int(file.read()) - before
    except OSError as err:
        raise Skip(f"no huge pages here: {err}") from err
    try:
        if got < count:
            raise Skip(f"only {got} of {count} huge pages to be had")
        yield
    finally:
        with open(path, "w") as file:
            file.write(str(before))


@test
def memory_in_huge_pages(bench):
    """RAM in huge pages of 2 MiB"""
    with huge_pages(bench.spec.memory_mb), mounted(bench, "hugetlbfs", "pagesize=2M") as path:
        options = backend(bench, "memory-backend-file", mem_path=path)
        source = bench.source(options=options)
        bench.move(source, bench.destination(options=options), SLOW)


@test
def huge_pages_to_small_ones(bench):
    """RAM in huge pages here, in small ones there"""
    with huge_pages(bench.spec.memory_mb // 2), mounted(bench, "hugetlbfs", "pagesize=2M") as path:
        source = bench.source(options=backend(bench, "memory-backend-file", mem_path=path))
        bench.move(source, bench.destination(), SLOW)


def plugged(bench):
    """A guest that booted, then got more memory; and a destination that has as much."""
    # A backend on QEMU's command line would lie before pc.ram, where TCG's dirty tracking is wrong
    # (cpu_physical_memory_sync_dirty_bitmap() forgets the block's offset) and QEMU aborts.
    spec = bench.spec.but(extra=("-m", f"{bench.spec.memory_mb},slots=2,maxmem=1G"))
    source = bench.start(bench.binary, spec, "booted")
    source.wait_ready()
    source.qmp.command("object-add", qom_type="memory-backend-ram", id="more", size=128 << 20)
    source.qmp.command("device_add", driver="pc-dimm", id="dimm", memdev="more")
    bench.know(source)
    time.sleep(2)
    return source, bench.destination(spec=spec, options=(
        "-object", "memory-backend-ram,id=more,size=128M", "-device", "pc-dimm,id=dimm,memdev=more"))


@test
def memory_plugged(bench):
    """RAM plugged before the start moves too"""
    source, destination = plugged(bench)
    bench.move(source, destination, SLOW)


@test
def memory_plugged_and_unplugged(bench):
    """RAM plugged before the start is given back by the guest in the middle: the rest goes on, and moves later"""
    source, destination = plugged(bench)
    bench.restless(source)
    # QEMU takes no such request during a migration; the guest acts on it when it runs again, in the middle.
    source.qmp.command("stop")
    source.qmp.command("device_del", id="dimm")
    bench.begin(source, listen(destination), SLOW)
    source.qmp.command("cont")
    gone = source.qmp.wait_event(20, lambda event: event["event"] == "DEVICE_DELETED"
                                 and event["data"].get("device") == "dimm")
    expect(gone, "the guest did not give the memory back")
    sent = bench.until(source, lambda info: "ram" in info)["ram"]["transferred"] / 1e6
    bench.until(source, bench.sent(sent + 20))
    # To no end, as the destination has the memory still (a stock QEMU's guest does not go on there, either).
    source.qmp.command("migrate_cancel")
    expect(wait_final(source, 10)["status"] == "cancelled", "not cancelled")
    bench.calm(source)
    source.check(1)
    bench.move(source, bench.destination(spec=source.spec), SLOW)


@test
def shared_memory_stays(bench):
    """x-ignore-shared: what both ends share is not sent"""
    options = backend(bench, "memory-backend-file", share="on", mem_path=bench.path("ram"))
    source = bench.source(options=options)
    destination = bench.destination(options=options)
    for machine in source, destination:
        machine.qmp.command("migrate-set-capabilities", capabilities=[
            {"capability": "x-ignore-shared", "state": True}])
    result = bench.move(source, destination)
    expect(result["wire_mb"] < 16, f"{result['wire_mb']:.0f} MB were sent")


@test
def memory_locked(bench):
    """mem-lock=on at both ends"""
    options = ("-overcommit", "mem-lock=on")
    source = bench.source(options=options)
    bench.move(source, bench.destination(options=options), SLOW)


@test
def in_a_sandbox(bench):
    """in libvirt's seccomp sandbox"""
    options = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
    # exec: is not to be had there, so the saved guest comes from a file.
    source = bench.source(options=options, how="file:")
    destination = bench.destination(options=options)
    bench.move(source, destination, SLOW)


@test
def in_a_cgroup(bench):
    """in a cgroup that has little more than the two guests' memory"""
    base = "/sys/fs/cgroup"
    group = f"{base}/godwit-test-{os.getpid()}"
    limit_mb = 2 * bench.spec.memory_mb + 192
    try:
        os.mkdir(group)
        with open(f"{group}/memory.max", "w") as file:
            file.write(str(limit_mb << 20))
    except OSError as err:
        with contextlib.suppress(OSError):
            os.rmdir(group)
        raise Skip(f"no cgroups of one's own here: {err}") from err
    inside = ("sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "sh")
    try:
        source = bench.source(wrap=inside)
        bench.move(source, bench.destination(wrap=inside), SLOW)
    finally:
        for machine in bench.machines:
            machine.stop()
        # The kernel takes a moment to see that it is empty.
        for _ in range(100):
            with contextlib.suppress(OSError):
                os.rmdir(group)
                break
            time.sleep(0.05)


def absent_share(machine, spec):
    """The part of the guest's RAM that has no memory, nor a page of zeros that all share, at this end."""
    with open(f"/proc/{machine.process.pid}/maps") as maps:
        spans = [[int(at, 16) for at in line.split()[0].split("-")] for line in maps if line.split()[4] == "0"]
    [start] = [start for start, end in spans if end - start == spec.memory_mb << 20]
    with open(f"/proc/{machine.process.pid}/pagemap", "rb") as pagemap:
        pagemap.seek(start // 4096 * 8)
        entries = array.array("Q", pagemap.read((spec.memory_mb << 20) // 4096 * 8))
    return sum(not entry >> 62 for entry in entries) / len(entries)


def postcopy(bench, when):
    """A migration that is told to end by postcopy when a condition holds."""
    source = bench.source()
    destination = bench.destination()
    try:
        for machine in source, destination:
            machine.qmp.command("migrate-set-capabilities", capabilities=[
                {"capability": "postcopy-ram", "state": True}])
    except qmp.QmpError as err:
        raise Skip(f"no postcopy here: {err}") from err
    bench.begin(source, listen(destination), SLOW)
    bench.until(source, when)
    source.qmp.command("migrate-start-postcopy")
    info = wait_final(source, 60)
    expect(info["status"] == "completed", f"{info['status']}: {info.get('error-desc')} {destination.process.said()}")
    destination.check(1)
    return destination


@test
def postcopy_after_precopy(bench):
    """postcopy begun in a later round; what had come before it was there, pages of zeros as well"""
    destination = postcopy(bench, bench.round(2))
    absent = absent_share(destination, bench.spec)
    expect(not absent, f"{absent:.0%} of RAM is not there: a guest that used it would have waited")


@test
def postcopy_in_first_pass(bench):
    """postcopy begun in the first pass, with most pages still to come"""
    postcopy(bench, bench.sent(20))


@test
def guest_at_rest_takes_less_memory(bench):
    """what is sent of a guest at rest is not remembered; of one that writes it is"""
    grown_mb = {}
    for burst in 0, bench.spec.burst:
        source = bench.source(name=f"source{burst}")
        bench.needs_godwit()
        source.log.send(f"set burst={burst}")
        source.wait_beats(20)
        grown_mb[burst] = bench.move(source, bench.destination(), SLOW)["source_rss_grown_mb"]
    at_rest, writing = grown_mb.values()
    expect(at_rest + 4 < writing, f"{at_rest:.0f} MB for a guest at rest, {writing:.0f} for one that writes")


@test
def zeros_take_no_memory(bench):
    """what the guest never touched stays without memory, at both ends"""
    machine = bench.source()
    bench.needs_godwit()
    first, second = bench.destination(), bench.destination()
    bench.move(machine, first, UNCAPPED)
    absent = absent_share(first, bench.spec)
    expect(absent > 0.1, f"{absent:.1%} of RAM has no memory")
    bench.move(first, second, UNCAPPED)
    for machine in first, second:
        left = absent_share(machine, bench.spec)
        # The guest goes on using memory meanwhile.
        expect(left > 0.8 * absent, f"{left:.1%} of RAM has no memory, of {absent:.1%}")


@test
def guest_wakes_up(bench):
    """a guest at rest begins to write in the first pass, when a part of it was sent"""
    source = bench.source()
    source.log.send("set burst=0")
    source.wait_beats(20)
    destination = bench.begin_pair(source)
    bench.until(source, bench.sent(30))
    bench.calm(source)
    info = wait_final(source, 60)
    expect(info["status"] == "completed", f"{info['status']}: {info.get('error-desc')} {destination.process.said()}")
    destination.check(1)
