# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs that are held back: who, when, and that everybody is let go."""

import os
import time

from live.echo import Echo
from live.migration import Mode, link, listen
from .bench import SMALL, Failed, GuestError, Skip, expect, speed_test
from .snapshots import disk, snapshot

# vCPU 0 dirties as fast as it can, over a link that carries a part of that; vCPU 2 answers.
HOT = SMALL.but(vcpus=4, echo=2, burst=500, sleep=0, period=0, check=0)
RAW = {"x-godwit-rung": "none", "x-godwit-base": "off"}
GOVERNED = Mode("governed", ("x-godwit", "auto-converge"), RAW)
STOCK = Mode("stock", ("auto-converge",))
PLAIN = Mode("plain")
NARROW = link("20MB/s")


def throttle(info):
    return info.get("godwit-throttle", {})


def is_held(info):
    return throttle(info).get("held-time", 0) > 0


def governed(bench, spec=HOT, rate=NARROW, **parameters):
    """A source on its way to a destination, and the governor with it."""
    source = bench.source(spec)
    bench.needs_godwit()
    source.free_rate = source.rate(1.0)
    destination = bench.destination(mode=GOVERNED)
    bench.begin(source, listen(destination), rate, GOVERNED, **parameters)
    return source, destination


def held(bench, *args, **parameters):
    """The same, when it is being held back."""
    source, destination = governed(bench, *args, **parameters)
    bench.until(source, is_held)
    return source, destination


def arrive(bench, source, destination, **parameters):
    """It gets a link on which it is over soon, and goes on at the destination; query-migrate of its end."""
    source.qmp.command("migrate-set-parameters", max_bandwidth=link("200MB/s"), **parameters)
    bench.until_final(source)
    info = source.qmp.command("query-migrate")
    expect(info["status"] == "completed", f"{info['status']}: {info.get('error-desc')}")
    destination.check(1)
    return info


def goes_on(bench, source):
    """As fast as before: nobody is held any more."""
    source.check(0.5)
    source.wait_beats(3)
    rate = source.rate(1.0)
    expect(rate > source.free_rate / 2, f"changes {rate:.0f} pages/s, {source.free_rate:.0f} before it was held")


@speed_test
def throttle_only_by_both(bench):
    """auto-converge alone is the stock one; with x-godwit the governor holds, and says so."""
    source = bench.source(HOT)
    bench.needs_godwit()
    destination = bench.destination(mode=STOCK)
    bench.begin(source, listen(destination), NARROW, STOCK)
    info = bench.until(source, lambda info: info.get("cpu-throttle-percentage"))
    expect(not throttle(info), f"the governor is there: {throttle(info)}")
    source.qmp.command("migrate_cancel")
    bench.until_final(source)
    source.qmp.command("migrate-set-capabilities", capabilities=[{"capability": "x-godwit", "state": True}])
    destination = bench.destination(mode=GOVERNED)
    bench.begin(source, listen(destination), NARROW, GOVERNED)
    info = bench.until(source, is_held)
    expect("cpu-throttle-percentage" not in info, "the stock throttle is at work, too")
    vcpus = throttle(info)["vcpus"]
    expect(len(vcpus) == HOT.vcpus, f"{len(vcpus)} vCPUs are shown of {HOT.vcpus}")
    expect(vcpus[0]["held-time"] > 0, f"not vCPU 0, which dirties, is held: {vcpus}")
    expect("throttle CPU #0" in source.qmp.hmp("info migrate"), "info migrate does not show it")


def moved(bench, spec):
    source, destination = held(bench, spec, x_cpu_throttle_max=99)
    info = arrive(bench, source, destination)
    expect(throttle(info)["held-time"] > 0, "what was held is not shown afterwards")


@speed_test
def throttle_and_arrive(bench):
    """A guest that was held arrives with every page right."""
    moved(bench, HOT)


@speed_test
def throttle_round_robin(bench):
    """The same where one thread runs all vCPUs."""
    moved(bench, HOT.but(accel="tcg,thread=single"))


@speed_test
def throttle_not_needed(bench):
    """A guest whose migration converges by itself is not held for a nanosecond."""
    source = bench.source(HOT.but(burst=100, sleep=40000, period=50000))
    bench.needs_godwit()
    result = bench.move(source, bench.destination(mode=GOVERNED), link("60MB/s"), GOVERNED)
    stats = throttle(result["info"])
    expect(stats["held-time"] == 0 and stats["holds"] == 0, f"it was held: {stats}")
    expect(stats["pages"] > 0, "no page was counted")


@speed_test
def throttle_cancel(bench):
    """After a cancel nobody is held, and the next migration does well."""
    source, _ = held(bench)
    source.qmp.command("migrate_cancel")
    bench.until_final(source)
    goes_on(bench, source)
    source.qmp.command("migrate-set-parameters", x_cpu_throttle_max=99)
    bench.move(source, bench.destination(mode=GOVERNED), link("200MB/s"), GOVERNED)


@speed_test
def throttle_failure(bench):
    """After a failure nobody is held."""
    source, destination = held(bench)
    bench.stop(destination)
    bench.failed(source)
    goes_on(bench, source)


@speed_test
def throttle_stop_and_cont(bench):
    """A guest stops while it is held, stays as it is, and goes on."""
    source, destination = held(bench, x_cpu_throttle_max=99)
    source.qmp.command("stop")
    before = source.qmp.command("query-migrate")
    time.sleep(0.5)
    after = source.qmp.command("query-migrate")
    expect(not any(vcpu["held"] for vcpu in throttle(after)["vcpus"]), f"held though stopped: {throttle(after)}")
    expect(throttle(after)["held-time"] == throttle(before)["held-time"], "the time of a stopped guest is counted as held")
    source.qmp.command("cont")
    source.check(0.5)
    arrive(bench, source, destination)


@speed_test
def throttle_unplug(bench):
    """A vCPU goes away while it is held; the others are held on, and all are let go."""
    last = HOT.vcpus - 1
    spare = f"qemu64-x86_64-cpu,id=spare,socket-id=0,core-id={last},thread-id=0"
    source, _ = held(bench, HOT.but(vcpus=last, workers=HOT.vcpus, extra=(
        "-smp", f"{last},maxcpus={HOT.vcpus}", "-device", spare)))
    bench.until(source, lambda info: any(
        vcpu["cpu-index"] == last and vcpu["held"] for vcpu in throttle(info)["vcpus"]))
    source.log.send(f"eject {last}")
    # That it is gone QEMU tells only where the host has asked for it.
    bench.until(source, lambda _: len(source.qmp.command("query-cpus-fast")) == last, timeout_s=40)
    before = throttle(source.qmp.command("query-migrate"))["held-time"]
    bench.until(source, lambda info: throttle(info)["held-time"] > before)
    source.qmp.command("migrate_cancel")
    bench.until_final(source)
    goes_on(bench, source)


@speed_test
def throttle_snapshot(bench):
    """A snapshot is refused, as without the throttle, and the guest that was held for it goes on."""
    source, destination = held(bench)
    disk(bench, source, True)
    try:
        snapshot(source, "snapshot-save", "one")
    except Failed as error:
        bench.says(str(error), "migration")
    else:
        raise Failed("a snapshot was taken in the middle of a migration")
    source.check(0.5)
    bench.until(source, is_held)
    arrive(bench, source, destination, x_cpu_throttle_max=99)


@speed_test
def throttle_infeasible(bench):
    """A cap under which nothing can converge is told; one that changes on the way counts."""
    # A quick host's guest has dirtied all it has before a hold begins.
    source, destination = governed(bench, x_cpu_throttle_max=20)
    bench.until(source, lambda info: throttle(info).get("was-infeasible"))
    info = source.qmp.command("query-migrate")
    expect(throttle(info)["max"] == 20, f"the cap is not 20: {throttle(info)}")
    expect("infeasible" in source.qmp.hmp("info migrate"), "info migrate does not say infeasible")
    # The lower one holds.
    source.qmp.command("migrate-set-parameters", x_cpu_throttle_max=99, max_cpu_throttle=70)
    bench.until(source, lambda info: throttle(info)["max"] == 70)
    source.qmp.command("migrate-set-parameters", max_cpu_throttle=99)
    bench.until(source, lambda info: throttle(info)["max"] == 99)
    arrive(bench, source, destination)


# It has 4 MiB that change. Where KVM is slow, in a virtual machine, it changes 6000 pages/s.
KVM = SMALL.but(bare=True, memory_mb=64, echo=0)
THIN = {"rate": link("1MB/s"), "x_cpu_throttle_max": 99, "downtime_limit": 1}


def needs_kvm():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise Skip("no /dev/kvm")


def with_kvm(bench, extra=()):
    """A guest of KVM is held, answers, is let go by a cancel, and is moved while it is held."""
    needs_kvm()
    source, destination = held(bench, KVM.but(accel="kvm", extra=extra), **THIN)
    echo = Echo(source)
    time.sleep(1)
    echo.stop()
    vcpu = throttle(source.qmp.command("query-migrate"))["vcpus"][0]
    expect(echo.trips, "it does not answer")
    expect(vcpu["interrupts"] > 0 and vcpu["boosts"] > 0, f"no interrupt let it run: {vcpu}")
    source.qmp.command("migrate_cancel")
    bench.until_final(source)
    goes_on(bench, source)
    bench.stop(destination)
    destination = bench.destination(mode=GOVERNED)
    bench.begin(source, listen(destination), mode=GOVERNED, **THIN)
    bench.until(source, is_held)
    arrive(bench, source, destination)


@speed_test
def throttle_kvm(bench):
    """KVM's dirty bitmaps: held by CPU time, on the halt_cond."""
    with_kvm(bench)


@speed_test
def throttle_kvm_ring(bench):
    """KVM's dirty ring: pages are counted as they are reaped."""
    needs_kvm()
    source = bench.source(KVM.but(accel="kvm,dirty-ring-size=4096"))
    bench.needs_godwit()
    source.free_rate = source.rate(1.0)
    # With a KVM inside a virtual machine there are some in which that is the end of the guest.
    bench.begin(source, listen(bench.destination(mode=PLAIN)), mode=PLAIN, rate=THIN["rate"], downtime_limit=1)
    try:
        source.wait_beats(100, timeout_s=10)
    except GuestError as err:
        raise Skip("with this KVM's dirty ring the guest stops without godwit, too") from err
    source.qmp.command("migrate_cancel")
    bench.until_final(source)
    # No more than that: with the ring of a KVM inside a virtual machine stock QEMU loses pages, too.
    bench.begin(source, listen(bench.destination(mode=GOVERNED)), mode=GOVERNED, **THIN)
    bench.until(source, lambda info: throttle(info).get("pages", 0) > 0)
    source.qmp.command("migrate_cancel")
    bench.until_final(source)
    goes_on(bench, source)


@speed_test
def throttle_kvm_halted(bench):
    """KVM, held inside KVM_RUN."""
    with_kvm(bench, extra=("-global", "migration.x-godwit-halted-hold=on"))


@speed_test
def throttle_parameter(bench):
    """x-cpu-throttle-max has its range and its default, in QMP and HMP."""
    source = bench.source(HOT)
    bench.needs_godwit()
    get = lambda: source.qmp.command("query-migrate-parameters")["x-cpu-throttle-max"]
    expect(get() == 90, f"the default is {get()}")
    for wrong in (0, 100, 255):
        bench.refused(lambda: source.qmp.command("migrate-set-parameters", x_cpu_throttle_max=wrong), "1 to 99")
    source.qmp.command("migrate-set-parameters", x_cpu_throttle_max=1)
    expect(source.qmp.hmp("migrate_set_parameter x-cpu-throttle-max 55") == "", "HMP refuses it")
    expect(get() == 55, f"HMP set it to {get()}")
    expect("x-cpu-throttle-max: 55" in source.qmp.hmp("info migrate_parameters"), "HMP does not show it")
