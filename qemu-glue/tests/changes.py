# SPDX-License-Identifier: GPL-2.0-or-later
"""What one may do while a migration runs."""

import time

from .bench import FINAL, SLOW, UNCAPPED, expect, link, listen, test, wait_final

IN_FLIGHT = {
    "x-godwit-threads": (1, 2, 4, 0),
    "x-godwit-rung": ("none", "lz4", "zstd1", "zstd-5", "zlib1", "auto"),
    "x-godwit-base": ("off", "pages", "signatures"),
    "x-godwit-cache-size": (1 << 20, 64 << 20, 0),
    "x-godwit-when-busy": ("wait", "raw", "auto"),
}


@test
def paused_and_resumed(bench):
    """the guest is stopped and goes on, again and again, while it is moved"""
    source = bench.source()
    bench.restless(source)
    destination = bench.begin_pair(source, rate=link("40MB/s"))
    for _ in range(5):
        time.sleep(0.2)
        source.qmp.command("stop")
        time.sleep(0.2)
        # Were it over by now, it would have arrived at rest.
        expect(source.qmp.command("query-migrate")["status"] == "active", "over before the guest went on")
        source.qmp.command("cont")
    bench.calm(source)
    source.qmp.command("migrate-set-parameters", max_bandwidth=UNCAPPED, downtime_limit=300)
    expect(wait_final(source, 60)["status"] == "completed", "not completed")
    destination.check(1)


@test
def moved_at_rest(bench):
    """a stopped guest moves, stays stopped, and goes on when told"""
    source = bench.source()
    destination = bench.destination()
    source.qmp.command("stop")
    bench.begin(source, listen(destination), UNCAPPED)
    expect(wait_final(source, 60)["status"] == "completed", "not completed")
    expect(wait_final(destination, 20)["status"] == "completed", "not completed there")
    expect(not destination.qmp.command("query-status")["running"], "runs though it was stopped")
    destination.qmp.command("cont")
    destination.check(1)


@test
def limits_changed_in_flight(bench):
    """bandwidth and downtime limit change in flight"""
    source = bench.source()
    destination = bench.begin_pair(source, rate=link("20MB/s"))
    for rate, downtime in ((1, 1), (200, 10), (5, 2000), (50, 1)):
        source.qmp.command("migrate-set-parameters", max_bandwidth=rate * 1000000, downtime_limit=downtime)
        time.sleep(0.3)
    source.qmp.command("migrate-set-parameters", max_bandwidth=UNCAPPED, downtime_limit=300)
    expect(wait_final(source, 60)["status"] == "completed", "not completed")
    destination.check(1)


@test
def every_parameter_changed_in_flight(bench):
    """every x-godwit parameter that may change in flight does, many times"""
    source = bench.source()
    bench.needs_godwit()
    known = source.qmp.command("query-migrate-parameters")
    missing = [name for name in IN_FLIGHT if name not in known]
    destination = bench.begin_pair(source, rate=link("30MB/s"), )
    tried = 0
    for _ in range(20 if bench.full else 4):
        for name, values in IN_FLIGHT.items():
            if name in missing:
                continue
            value = bench.random.choice(values)
            source.qmp.command("migrate-set-parameters", **{name: value})
            tried += 1
            time.sleep(bench.random.random() * 0.15)
            info = source.qmp.command("query-migrate")
            expect(info["status"] != "failed", f"{name}={value}: {info.get('error-desc')}")
    source.qmp.command("migrate-set-parameters", max_bandwidth=UNCAPPED)
    info = wait_final(source, 60)
    expect(info["status"] == "completed", f"{info['status']}: {info.get('error-desc')}")
    destination.check(1)
    expect(not missing, f"there is no {', '.join(missing)}; the others were changed {tried} times")


@test
def stream_does_not_change_in_flight(bench):
    """x-godwit-stream is refused in flight, and the migration goes on"""
    source = bench.source()
    bench.needs_godwit()
    destination = bench.begin_pair(source)
    bench.refused(lambda: source.qmp.command("migrate-set-parameters", **{"x-godwit-stream": "stock"}), "migration")
    source.qmp.command("migrate-set-parameters", max_bandwidth=UNCAPPED)
    expect(wait_final(source, 60)["status"] == "completed", "not completed")
    destination.check(1)


def with_setting(bench, name, value, rate=SLOW):
    source = bench.source()
    bench.needs_godwit()
    destination = bench.destination()
    for machine in source, destination:
        machine.qmp.command("migrate-set-parameters", **{name: value})
    bench.move(source, destination, rate)


@test
def each_setting_from_the_start(bench):
    """a value of each parameter, with --full each value, set before the start, moves a guest"""
    for name, values in IN_FLIGHT.items():
        for value in values if bench.full else [bench.random.choice(values)]:
            with_setting(bench, name, value, UNCAPPED)
            for machine in list(bench.machines):
                bench.stop(machine)


@test
def figures_stay(bench):
    """what query-migrate counts stays after completion and adds up"""
    source = bench.source()
    bench.needs_godwit()
    result = bench.move(source, bench.destination(), SLOW)
    info = source.qmp.command("query-migrate")
    ram = info["ram"]
    for key in ("transferred", "total", "duplicate", "normal", "dirty-sync-count"):
        expect(ram.get(key), f"ram.{key} is {ram.get(key)}")
    expect(any("godwit" in key for key in info), f"no godwit section: {sorted(info)}")
    expect("godwit" in source.qmp.hmp("info migrate").lower(), "info migrate does not mention it")
    expect(result["downtime_ms"] is not None, "no downtime is shown")
