# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots are always of the stock kind, whatever is switched on."""

import subprocess
import time

from .bench import MODES, Failed, expect, qmp, test


def job(machine, name, command, **arguments):
    """Run a job to its end."""
    machine.qmp.command(command, job_id=name, **arguments)
    end = time.monotonic() + 60
    while True:
        (state,) = [entry for entry in machine.qmp.command("query-jobs") if entry["id"] == name]
        if state["status"] == "concluded":
            machine.qmp.command("job-dismiss", id=name)
            if "error" in state:
                raise Failed(f"{command}: {state['error']}")
            return
        expect(time.monotonic() < end, f"{command} does not end: {state}")
        time.sleep(0.02)


def disk(bench, machine, create):
    """A qcow2 image that no device of the guest knows of, for snapshots."""
    path = bench.path("disk")
    if create:
        open(path, "w").close()
    machine.qmp.command("blockdev-add", driver="file", node_name="file", filename=path)
    if create:
        job(machine, "create", "blockdev-create",
            options={"driver": "qcow2", "file": "file", "size": 64 << 20})
    machine.qmp.command("blockdev-add", driver="qcow2", node_name="disk", file="file")


def snapshot(machine, command, tag):
    job(machine, command, command, tag=tag, vmstate="disk", devices=["disk"])


@test
def snapshot_taken_and_loaded(bench):
    """a snapshot is taken with x-godwit on, the guest goes on, and goes back"""
    source = bench.source()
    bench.mode.apply(source)
    disk(bench, source, True)
    snapshot(source, "snapshot-save", "one")
    source.check(1)
    snapshot(source, "snapshot-load", "one")
    if not source.qmp.command("query-status")["running"]:
        source.qmp.command("cont")
    source.check(1)
    bench.retry(source)


def across(bench, writer, reader, stopped=False):
    source = bench.source(binary=writer)
    bench.mode.apply(source)
    disk(bench, source, True)
    if stopped:
        source.qmp.command("stop")
    snapshot(source, "snapshot-save", "one")
    bench.stop(source)
    other = bench.source(binary=reader, name="reader")
    bench.mode.apply(other)
    disk(bench, other, False)
    snapshot(other, "snapshot-load", "one")
    if not other.qmp.command("query-status")["running"]:
        other.qmp.command("cont")
    other.check(1)


@test
def old_snapshot_loads(bench):
    """a snapshot of a stock QEMU loads with x-godwit on"""
    across(bench, bench.stock, bench.binary)


@test
def snapshot_loads_in_stock(bench):
    """a snapshot taken with x-godwit on loads in a stock QEMU"""
    across(bench, bench.binary, bench.stock)


@test
def snapshot_of_a_stopped_guest_loads_in_stock(bench):
    """and so does one of a guest that was stopped before"""
    across(bench, bench.binary, bench.stock, stopped=True)
