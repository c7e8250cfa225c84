# SPDX-License-Identifier: GPL-2.0-or-later
"""One live migration from a source to a destination: started, watched, measured, judged."""

import contextlib
import hashlib
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field

from . import qmp
from .guest import TOP, Guest, GuestError

UNCAPPED = 1 << 50
FINAL = ("completed", "failed", "cancelled")


class WarmMemory:
    """Memory of this machine that is there: taken now, and free again as a measurement needs it.

    A virtual machine may give what is free back to its host within seconds. To get 2 GB of it back took 4 s where
    0.1 s is usual, which is more than the migrations that are compared. Over a slow link they last longer than free
    memory does, so that what is touched late would be charged to who touches it: there, only a part is free at once.
    """

    POPULATE_WRITE = 23         # MADV_, Linux 5.14
    PART = 16 << 20
    AT_ONCE_S = 5               # of the link, free at once; and no less than a third of all
    SHRUNK = 4                  # bytes that a guest's pages are for one on the wire, at most

    def __init__(self, mb=1536):
        self.memory = mmap.mmap(-1, mb << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.parts = range(0, mb << 20, self.PART)
        self.over = threading.Event()
        self.releaser = None
        try:
            self.memory.madvise(mmap.MADV_HUGEPAGE)
            self.memory.madvise(self.POPULATE_WRITE)
        except OSError:
            pass                # as it is, then

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.over.set()
        if self.releaser:
            self.releaser.join()
        self.memory.close()

    def release(self, bytes_per_s):
        """Begin to let it go, as fast as a migration over such a link may need memory."""
        per_s = self.SHRUNK * bytes_per_s
        at_once = max(len(self.parts) // 3, self.AT_ONCE_S * per_s // self.PART)
        self.drop(self.parts[:at_once])
        self.releaser = threading.Thread(target=self.release_parts, args=(self.parts[at_once:], self.PART / per_s))
        self.releaser.start()

    def release_parts(self, parts, each_s):
        for at in parts:
            if self.over.wait(each_s):
                break
            self.drop([at])

    def drop(self, parts):
        for at in parts:
            self.memory.madvise(mmap.MADV_DONTNEED, at, self.PART)


class Wire:
    """A loopback of its own that carries so many bytes a second between the QEMUs that are started in it.

    max-bandwidth alone is no link: under 12.5 MB/s two channels of multifd sent 26. Congestion control is Debian's
    and not what this machine happens to have: "bbr" paces by a timer for each 64 KiB.
    """

    def __init__(self, bytes_per_s, congestion="cubic"):
        # What a burst may be is what goes in 1 ms, and never less than one packet of the loopback.
        burst = max(131072, bytes_per_s // 1000)
        bucket = "" if bytes_per_s == UNCAPPED else (
            f"tc qdisc add dev lo root tbf rate {bytes_per_s}bps burst {burst} limit {4 << 20}; ")
        self.process = subprocess.Popen(
            ["sh", "-ec", 'exec unshare --map-root-user --net sh -ec "$0"', f"ip link set lo up; {bucket}"
             f"echo {congestion} >/proc/sys/net/ipv4/tcp_congestion_control; "
             "echo up; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "up\n":
            raise GuestError(f"no link with {congestion}: {self.process.communicate()[1].strip()}. It takes "
                             "unshare, ip and tc (Debian: util-linux, iproute2) and a kernel that lets you have a "
                             "network of your own")
        self.wrap = ("nsenter", "--target", str(self.process.pid), "--user", "--net", "--preserve-credentials", "--")

    def stop(self):
        self.process.communicate()      # it ends with its input


@dataclass(frozen=True)
class Mode:
    """A way to send memory: what is switched on and set at both ends."""

    name: str
    capabilities: tuple = ()
    parameters: dict = field(default_factory=dict, hash=False)

    def apply(self, *machines):
        for machine in machines:
            machine.qmp.command("migrate-set-capabilities", capabilities=[
                {"capability": name, "state": True} for name in ("events", *self.capabilities)])
            if self.parameters:
                machine.qmp.command("migrate-set-parameters", **self.parameters)


def multifd(method):
    return Mode(f"multifd {method}", ("multifd",),
                {"multifd-channels": 2, "multifd-compression": method})


XBZRLE = Mode("xbzrle", ("xbzrle",), {"xbzrle-cache-size": 512 << 20})

# What a binary can do is asked when it runs; "7.2" is the QEMU of Debian 12.
MODES = {mode.name: mode for mode in (
    Mode("plain"), XBZRLE, multifd("none"), multifd("zlib"), multifd("zstd"),
    Mode("7.2 compress", ("compress",)), Mode("7.2 xbzrle", XBZRLE.capabilities, XBZRLE.parameters),
    Mode("godwit", ("x-godwit",)))}


class Rig:
    """A folder for sockets and logs, and the machines in it: all are gone when the block ends."""

    def __init__(self, keep=None, wire=None):
        self.keep = keep
        self.wire = wire            # what its machines' network is, else the host's; ends with it

    def __enter__(self):
        # The path of a unix socket may have 107 bytes.
        self.folder = tempfile.mkdtemp(prefix="godwit-", dir="/tmp")
        self.machines = []
        self.others = []
        return self

    def __exit__(self, *error):
        for machine in [*self.machines, *self.others]:
            machine.stop()
        if self.wire:
            self.wire.stop()
        if self.keep and error[0]:
            shutil.copytree(self.folder, self.keep, dirs_exist_ok=True, ignore=lambda folder, names: [
                name for name in names if not os.path.isfile(os.path.join(folder, name))])
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, binary, spec, name, **options):
        if self.wire:
            options["wrap"] = (*self.wire.wrap, *options.get("wrap", ()))
        machine = Guest(binary, spec, self.folder, name, **options)
        self.machines.append(machine)
        return machine

    def source(self, binary, spec, how="exec:cat ", booted_by=None, **options):
        """A guest that runs: booted once, by this or another QEMU, later taken up from where it then was."""
        state = saved(booted_by or binary, spec)
        machine = self.start(binary, spec, options.pop("name", "source"), incoming="defer", **options)
        machine.qmp.command("migrate-incoming", uri=how + state)
        info = wait_final(machine, 30)
        if info.get("status") != "completed":
            raise GuestError(f"cannot take up a saved guest: {info}; {machine.process.said()}")
        machine.qmp.command("cont")     # it was saved at rest
        machine.wait_beats(5)
        return machine

    def destination(self, binary, spec, **options):
        return self.start(binary, spec, options.pop("name", "destination"), incoming="defer", **options)

    def stop(self, machine):
        machine.stop()
        self.machines.remove(machine)

    def path(self, name):
        return os.path.join(self.folder, name)


def saved(binary, spec):
    """The file with a guest's state some seconds after it was ready."""
    built = spec.made()
    key = repr((os.path.realpath(binary), os.stat(binary).st_mtime_ns, spec,
                os.stat(f"{built}/{spec.image()}").st_mtime_ns))
    path = os.path.join(TOP, "build-qemu", "states", hashlib.sha256(key.encode()).hexdigest()[:16])
    if os.path.exists(path):
        return path
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with Rig() as rig:
        machine = rig.start(binary, spec, "boot")
        machine.wait_ready()
        machine.check(3)
        unfinished = f"{path}.{os.getpid()}"
        machine.qmp.command("migrate-set-parameters", max_bandwidth=UNCAPPED)
        machine.qmp.command("stop")
        machine.qmp.command("migrate", uri=f"exec:cat >{unfinished}")
        info = wait_final(machine, 60)
        if info["status"] != "completed":
            raise GuestError(f"cannot save a guest: {info}")
        machine.no_complaint()
        os.rename(unfinished, path)
    return path


def wait_final(machine, timeout_s, each=None):
    """What query-migrate says when it is over, or when the time is."""
    end = time.monotonic() + timeout_s
    while True:
        info = machine.qmp.command("query-migrate")
        if info.get("status") in FINAL or time.monotonic() > end:
            # The word comes before the figures do.
            time.sleep(0.05)
            return machine.qmp.command("query-migrate") if info.get("status") in FINAL else info
        if each:
            each(info)
        machine.qmp.wait_event(0.1, lambda event: event["event"] == "MIGRATION"
                               and event["data"]["status"] in FINAL)


class Progress:
    """One line on a terminal, nothing elsewhere."""

    def __init__(self, title=""):
        self.title = title
        self.begun = time.monotonic()
        self.last = 0.0
        self.shown = sys.stderr.isatty()

    def __call__(self, info):
        now = time.monotonic()
        if not self.shown or now - self.last < 0.2:
            return
        self.last = now
        ram = info.get("ram", {})
        self.line(f"{self.title} {now - self.begun:5.1f} s  {info.get('status', ''):10}  "
                  f"sent {ram.get('transferred', 0) / 1e6:7.0f} MB  left {ram.get('remaining', 0) / 1e6:6.0f} MB  "
                  f"{ram.get('mbps', 0) / 8:6.0f} MB/s  round {ram.get('dirty-sync-count', 0)}")

    def line(self, text):
        if self.shown:
            sys.stderr.write(f"\r\033[K{text}")
            sys.stderr.flush()

    def done(self):
        self.line("")


def listen(machine, uri="tcp:127.0.0.1:0"):
    """Let a destination listen; returns where the source is to go."""
    machine.qmp.command("migrate-incoming", uri=uri)
    if not uri.endswith(":0"):
        return uri
    address = machine.qmp.command("query-migrate")["socket-address"][0]
    return f"tcp:{address['host']}:{address['port']}"


def link(text):
    """Bytes a second of "100MB/s", "1Gbit/s" or "uncapped"."""
    if text == "uncapped":
        return UNCAPPED
    match = re.fullmatch(r"([\d.]+)(MB|Gbit|Mbit)/s", text)
    if not match:
        raise ValueError(f"not a link: {text}; it is like 100MB/s, 1Gbit/s or uncapped")
    return int(float(match[1]) * {"MB": 1e6, "Gbit": 125e6, "Mbit": 125e3}[match[2]])


def can(machine, capability):
    return any(entry["capability"] == capability
               for entry in machine.qmp.command("query-migrate-capabilities"))


class Costs:
    """What both ends have used so far; the difference of two is a migration's."""

    def __init__(self, source, destination):
        self.at = time.monotonic()
        self.source_all = source.process.cpu_s()
        self.source = source.own_cpu_s()
        self.destination = destination.own_cpu_s()
        self.destination_main = destination.main_cpu_s()


def migrate(source, destination, mode, bytes_per_s=UNCAPPED, cutoff_s=40, progress=None, uri="tcp:127.0.0.1:0",
            downtime_ms=300):
    """Migrate and measure; a dict of plain numbers and words. The guest is not yet checked."""
    mode.apply(source, destination)
    source.qmp.command("migrate-set-parameters", max_bandwidth=bytes_per_s, downtime_limit=downtime_ms)
    where = listen(destination, uri)
    rate = source.log.beats[-1]
    rss = source.process.rss_mb()
    before = Costs(source, destination)
    source.qmp.command("migrate", uri=where)
    peak = [rss]

    def each(info):
        peak[0] = max(peak[0], source.process.rss_mb())
        if progress:
            progress(info)

    info = wait_final(source, cutoff_s, each)
    after = Costs(source, destination)
    seconds = after.at - before.at
    ram = info.get("ram", {})
    last = source.log.beats[-1]
    result = {
        "mode": mode.name,
        "status": info.get("status") if info.get("status") in FINAL else "not finished",
        "total_s": info.get("total-time", 0) / 1000,
        "downtime_ms": info.get("downtime"),
        "wire_mb": ram.get("transferred", 0) / 1e6,
        "rounds": ram.get("dirty-sync-count"),
        "source_cpu_s": after.source - before.source,
        "source_cpu_all_s": after.source_all - before.source_all,
        "destination_cpu_s": after.destination - before.destination,
        "destination_main_share": (after.destination_main - before.destination_main) / seconds,
        "source_rss_grown_mb": peak[0] - rss,
        "dirtied_pages_s": (last.changed - rate.changed) / max(last.at - rate.at, 1e-3),
        "info": info,
    }
    if result["status"] == "completed":
        if destination.log.wait(20, lambda: destination.log.beats):
            result["gap_ms"] = (destination.log.beats[0].at - source.log.beats[-1].at) * 1000
        beats = [beat.at for beat in source.log.beats if beat.at >= before.at]
        result["gap_before_ms"] = max((b - a for a, b in zip(beats, beats[1:])), default=0.0) * 1000
        try:
            result["destination_info"] = destination.qmp.command("query-migrate")
        except qmp.QmpError:
            pass
    elif result["status"] == "not finished":
        source.qmp.command("migrate_cancel")
        wait_final(source, 20)
    if progress:
        progress.done()
    return result


@contextlib.contextmanager
def interruptible():
    """Let SIGTERM unwind like ^C, so that every block ends what it started."""
    def stop(number, frame):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        sys.exit(130)
    except (GuestError, qmp.Gone, qmp.QmpError) as err:
        sys.stderr.write(f"\nerror: {err}\n")
        sys.exit(1)
