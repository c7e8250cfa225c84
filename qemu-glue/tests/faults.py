# SPDX-License-Identifier: GPL-2.0-or-later
"""Ends that die, links that break, streams that lie: the source's guest runs on as if nothing had been."""

import os
import subprocess
import time

from live.guest import GUESTS

from .bench import SLOW, Skip, expect, listen, qmp, test, wait_final


@test
def moves(bench):
    """a busy guest moves, and goes on with every page right"""
    source = bench.source()
    bench.move(source, bench.destination(), SLOW)


@test
def moves_a_database(bench):
    """a database moves in the middle of its work, and each of its answers is right"""
    source = bench.source(GUESTS["database"])
    bench.move(source, bench.destination(), SLOW)


@test
def moves_there_and_back(bench):
    """a guest moves five times in a row"""
    machine = bench.source()
    for _ in range(5):
        destination = bench.destination()
        bench.move(machine, destination)
        bench.stop(machine)
        machine = destination


def kill_destination(bench, when):
    source = bench.source()
    bench.restless(source)
    destination = bench.begin_pair(source)
    bench.until(source, when)
    destination.process.popen.kill()
    info = bench.failed(source)
    bench.says(info.get("error-desc", ""))
    bench.survived(source)
    bench.retry(source)


@test
def destination_killed_in_first_pass(bench):
    """the destination is killed in the first pass"""
    kill_destination(bench, bench.sent(10))


@test
def destination_killed_later(bench):
    """the destination is killed in a later round"""
    kill_destination(bench, bench.round(3))


@test
def destination_stopped_then_killed(bench):
    """the destination stops reading, and is then killed"""
    source = bench.source()
    destination = bench.begin_pair(source, rate=1 << 40)
    bench.until(source, bench.sent(5))
    os.kill(destination.process.pid, 19)
    time.sleep(1)
    destination.process.popen.kill()
    bench.failed(source)
    bench.survived(source)


@test
def source_killed(bench):
    """the source is killed: the destination says so and ends, or waits to be ended"""
    source = bench.source()
    destination = bench.begin_pair(source)
    bench.until(source, bench.sent(10))
    source.process.popen.kill()
    try:
        destination.process.popen.wait(10)
    except subprocess.TimeoutExpired:
        expect(False, "the destination neither ends nor says a word")
    bench.says(destination.process.said())
    expect(destination.process.popen.returncode > 0, f"the destination died of {destination.process.popen.returncode}")


def harm(bench, kind, when=None, at=None, bit=6):
    source = bench.source()
    relay, uri = bench.relay(kind, at, bit)
    destination = bench.destination()
    listen(destination, uri)
    if when:
        bench.restless(source)
    bench.begin(source, relay.uri)
    if when:
        bench.until(source, when)
        relay.strike()
    return source, destination


def cut(bench, when=None, at=None):
    source, destination = harm(bench, "cut", when, at)
    info = bench.failed(source)
    bench.says(info.get("error-desc", ""))
    destination.process.popen.wait(10)
    bench.says(destination.process.said())
    bench.survived(source)
    bench.retry(source)


@test
def cut_in_header(bench):
    """the connection is cut within the first bytes"""
    cut(bench, at=7)


@test
def cut_in_setup(bench):
    """the connection is cut among the list of RAM blocks"""
    cut(bench, at=200)


@test
def cut_in_first_pass(bench):
    """the connection is cut in the first pass"""
    cut(bench, at=20_000_001)


@test
def cut_in_later_round(bench):
    """the connection is cut in a later round"""
    cut(bench, when=bench.round(3))


@test
def cut_at_switchover(bench):
    """the connection is cut when the guest has been stopped for the switch"""
    source = bench.source()
    relay, uri = bench.relay("cut")
    destination = bench.destination()
    listen(destination, uri)
    source.qmp.command("migrate-set-capabilities", capabilities=[
        {"capability": "pause-before-switchover", "state": True}])
    bench.begin(source, relay.uri, rate=1 << 40)
    bench.until(source, lambda info: info.get("status") == "pre-switchover")
    relay.strike()
    source.qmp.command("migrate-continue", state="pre-switchover")
    info = bench.failed(source)
    bench.says(info.get("error-desc", ""))
    destination.process.popen.wait(10)
    bench.survived(source)


@test
def truncated(bench):
    """the stream ends in the middle of a page"""
    for at in (5_000_123, 40_000_321):
        source, destination = harm(bench, "truncate", at=at)
        destination.process.popen.wait(20)
        bench.says(destination.process.said())
        bench.failed(source)
        bench.survived(source)
        bench.stop(source)


@test
def stalled_then_cancelled(bench):
    """the network stands still: cancel ends it within seconds"""
    source, destination = harm(bench, "stall", at=10_000_000)
    time.sleep(1)
    begun = time.monotonic()
    source.qmp.command("migrate_cancel")
    info = wait_final(source, 20)
    expect(info["status"] == "cancelled", f"not cancelled but {info['status']}")
    expect(time.monotonic() - begun < 10, "cancelling took more than 10 s")
    bench.survived(source)
    bench.retry(source)


@test
def flipped(bench):
    """a bit turns on the way: the destination refuses the stream, and says why"""
    source = bench.source()
    bench.needs_godwit()
    bench.stop(source)
    for _ in range(40 if bench.full else 4):
        at = bench.random.randrange(50_000, 60_000_000)
        source, destination = harm(bench, "flip", at=at, bit=bench.random.randrange(8))
        info = wait_final(source, 60)
        if info["status"] == "completed":
            # What was hit was of no weight, or it is of great weight and was not noticed.
            expect(not bench.relays[-1].struck.is_set(), f"a bit turned at byte {at} and nobody noticed")
        else:
            destination.process.popen.wait(10)
            bench.says(destination.process.said())
            bench.survived(source)
        bench.stop(source)
        bench.stop(destination)


@test
def destination_out_of_memory(bench):
    """the destination's memory is full"""
    if os.geteuid():
        raise Skip("mounting takes root")
    source = bench.source()
    small = bench.path("small")
    os.mkdir(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "godwit-test", small], check=True)
    try:
        destination = bench.destination(options=(
            "-object", f"memory-backend-file,id=pc.ram,size={bench.spec.memory_mb}M,mem-path={small}/ram,share=on",
            "-machine", "memory-backend=pc.ram"))
        bench.begin(source, listen(destination), rate=1 << 40)
        bench.failed(source)
        destination.process.popen.wait(10)
        bench.survived(source)
        bench.retry(source)
    finally:
        for machine in bench.machines[1:]:
            machine.stop()
        subprocess.run(["umount", "-l", small], check=True)


@test
def cancelled_at_random(bench):
    """cancelled at random moments, each time to be tried again"""
    source = bench.source()
    for number in range(200 if bench.full else 8):
        destination = bench.begin_pair(source, rate=bench.random.choice((SLOW, 1 << 40)))
        time.sleep(bench.random.random() ** 2 * 1.5)
        try:
            source.qmp.command("migrate_cancel")
        except qmp.QmpError:
            pass
        status = wait_final(source, 20)["status"]
        if status == "completed":
            # It was quicker: go on with the guest where it is.
            destination.check(0.2)
            bench.stop(source)
            source = destination
            bench.note(source)
            continue
        expect(status == "cancelled", f"cancel {number}: {status}")
        bench.stop(destination)
        source.check(0, verify=number % 8 == 7)
    bench.survived(source)
    bench.retry(source)
