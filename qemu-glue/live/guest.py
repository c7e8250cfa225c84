# SPDX-License-Identifier: GPL-2.0-or-later
"""A test guest in a QEMU: started, listened to, asked to check its memory."""

import os
import re
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field, replace

from . import qmp

GLUE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOP = os.path.dirname(GLUE)


class GuestError(Exception):
    """The guest is not right: a wrong page, or it does not go on."""


def tool(*command):
    """The last line that a tool of this folder prints."""
    done = subprocess.run([os.path.join(GLUE, command[0]), *command[1:]], stdout=subprocess.PIPE,
                          text=True, stdin=subprocess.DEVNULL)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise SystemExit(f"error: {' '.join(command)} failed")
    return lines[-1]


@dataclass(frozen=True)
class Spec:
    """A guest: what the machine has, and what its program does (guest/main.c)."""

    memory_mb: int = 1024
    vcpus: int = 1
    mb: int = 400               # changed and checked
    burst: int = 5000           # pages changed, then
    sleep: int = 40000          # us of sleep, and more until
    period: int = 52600         # us have gone since the last burst began
    words: int = 2              # changed in a page
    check: int = 250            # pages checked after each burst
    content: str = "text"
    workers: int = 1
    beat: int = 20              # ms
    echo: int | None = None     # the vCPU that answers
    run: str = ""
    bare: bool = False          # guest/bare.c: no kernel, and none of the above but memory_mb, vcpus and echo
    keys: int = 0               # of a database in it
    machine: str = "pc-i440fx-7.2"
    accel: str = "tcg,thread=multi"
    extra: tuple = ()           # more of QEMU's options, alike at both ends

    def but(self, **changes):
        return replace(self, **changes)

    def image(self):
        """The file that it starts from."""
        return "bare" if self.bare else "database" if self.keys else "initramfs"

    def made(self):
        """The folder of that file, and of the kernel; they are made if they are not there."""
        return tool("mkguest", *(["database"] if self.keys else []))

    def program(self):
        words = [f"{key}={getattr(self, key)}" for key in (
            "mb", "burst", "sleep", "period", "words", "check", "content", "workers", "beat")]
        if self.echo is not None:
            words.append(f"echo={self.echo}")
        if self.keys:
            words.append(f"keys={self.keys}")
        if self.run:
            words.append(f'run="{self.run}"')
        return " ".join(words)


STANDARD = Spec()

GUESTS = {
    "sparse": STANDARD,
    "dense": STANDARD.but(words=300, sleep=50000),
    "words": STANDARD.but(content="words"),
    "idle": STANDARD.but(burst=0, check=50),
    "random": STANDARD.but(content="random", words=512, sleep=50000),
    "zero": STANDARD.but(content="zero"),
    "database": STANDARD.but(mb=16, burst=50, check=50, keys=1 << 17),
}


@dataclass
class Beat:
    at: float                   # the host's clock, s
    guest_ms: float
    seq: int
    changed: int
    checked: int
    bad: int
    gap_ms: float


BEAT = re.compile(rb"beat (\d+) t=([\d.]+) changed=(\d+) checked=(\d+) bad=(\d+) gap=([\d.]+)$")


class Log:
    """What a guest says on its port, read by a thread that does nothing else, for the sake of the clock."""

    def __init__(self, sock):
        self.socket = sock
        self.beats = []
        self.complaints = []
        self.ready = self.verified = None
        self.changed = threading.Condition()
        self.closed = False
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        pending = b""
        while True:
            try:
                got = self.socket.recv(65536)
            except OSError:
                got = b""
            at = time.monotonic()
            with self.changed:
                if not got:
                    self.closed = True
                *lines, pending = (pending + got).split(b"\n")
                for line in lines:
                    self._line(at, line.strip())
                self.changed.notify_all()
            if not got:
                return

    def _line(self, at, line):
        beat = BEAT.search(line)    # a line may start at the source and end here
        if beat:
            seq, guest_ms, changed, checked, bad, gap = beat.groups()
            self.beats.append(Beat(at, float(guest_ms), int(seq), int(changed), int(checked), int(bad),
                                   float(gap)))
        elif line.startswith((b"BAD", b"error")):
            self.complaints.append(line.decode(errors="replace"))
        elif line.startswith(b"ready"):
            self.ready = line.decode()
        elif line.startswith(b"verified"):
            self.verified = line.decode()

    def wait(self, timeout_s, condition):
        with self.changed:
            return self.changed.wait_for(condition, timeout_s)

    def send(self, line):
        try:
            self.socket.sendall(line.encode() + b"\n")
        except OSError as err:
            raise GuestError(f"the guest's port: {err}") from err

    def close(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.thread.join()
        self.socket.close()


class Guest:
    """A QEMU with a test guest in it; name is unique in its folder."""

    def __init__(self, binary, spec, folder, name, incoming=None, options=(), wrap=(), listen=True):
        self.spec = spec
        self.name = name
        self.folder = folder
        built = spec.made()
        self.process = self.log = self.qmp = self.echo = None
        arguments = [
            *wrap, binary, "-name", f"{name},debug-threads=on", "-nodefaults", "-no-user-config",
            "-display", "none", "-no-reboot", *tool("getqemu", "firmware").split(),
            *([] if "-machine" in spec.extra else ["-machine", spec.machine]),
            "-accel", spec.accel, "-m", str(spec.memory_mb), "-smp", str(spec.vcpus),
            "-qmp", f"unix:{self.path('qmp')},server=on,wait=off",
            *self._socket_chardev("log"), *([] if spec.echo is None else self._socket_chardev("echo")),
            *(self._bare(built) if spec.bare else self._linux(built)),
            *spec.extra, *options,
        ]
        if incoming:
            arguments += ["-incoming", incoming]
        self.process = qmp.Process(arguments, self.path("qemu"))
        try:
            self.qmp = qmp.Qmp(self._socket("qmp"))
            if listen:
                self.log = Log(qmp.connect(self._socket("log")))
            if spec.echo is not None:
                self.echo = qmp.connect(self._socket("echo"))
            self.vcpu_threads = [cpu["thread-id"] for cpu in self.qmp.command("query-cpus-fast")]
        except (qmp.Gone, qmp.QmpError) as err:
            said = self.process.said()
            self.stop()
            raise qmp.Gone(f"{name} did not start: {said.strip() or err}") from err

    def _socket_chardev(self, name):
        return "-chardev", f"socket,id={name},path={self.path(name)},server=on,wait=off"

    def _linux(self, built):
        yield from ("-kernel", f"{built}/vmlinuz", "-initrd", f"{built}/{self.spec.image()}",
                    "-append", "console=ttyS0 quiet mitigations=off no_timer_check panic=-1 "
                    f"memhp_default_state=online_movable -- {self.spec.program()}",
                    "-serial", f"file:{self.path('console')}",
                    "-device", "virtio-serial-pci,ioeventfd=off",
                    "-device", "virtserialport,chardev=log,name=godwit.log")
        if self.spec.echo is not None:
            yield from ("-device", "virtserialport,chardev=echo,name=godwit.echo")

    def _bare(self, built):
        yield from ("-bios", f"{built}/{self.spec.image()}", "-serial", "chardev:log")
        if self.spec.echo is not None:
            yield from ("-serial", "chardev:echo")

    def path(self, what):
        return os.path.join(self.folder, f"{self.name}.{what}")

    def _socket(self, what):
        """The path of one of its sockets, when it is there or it cannot come any more."""
        path = self.path(what)
        while not os.path.exists(path) and self.process.alive():
            time.sleep(0.01)
        return path

    def stop(self):
        if self.process:
            self.process.stop()
        if self.log:
            self.log.close()

    def wait_ready(self, timeout_s=60):
        if not self.log.wait(timeout_s, lambda: self.log.ready or self.log.closed) or not self.log.ready:
            raise GuestError(f"{self.name}: not ready in {timeout_s} s; console: {self.console()[-400:]}")

    def console(self):
        try:
            with open(self.path("console"), errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def wait_beats(self, count, timeout_s=20):
        """Wait for more heartbeats."""
        want = len(self.log.beats) + count
        if not self.log.wait(timeout_s, lambda: len(self.log.beats) >= want or self.log.closed):
            raise GuestError(f"{self.name}: the heartbeat stopped")
        if len(self.log.beats) < want:
            raise GuestError(f"{self.name}: QEMU ended: {self.process.said()[-400:].strip()}")

    def check(self, seconds=0.0, verify=True):
        """See that it goes on, and that every page is right."""
        end = time.monotonic() + seconds
        self.wait_beats(3)
        while time.monotonic() < end:
            self.wait_beats(5)
            self.no_complaint()
        if verify:
            self.log.verified = None
            self.log.send("verify")
            if not self.log.wait(60, lambda: self.log.verified or self.log.closed) or not self.log.verified:
                raise GuestError(f"{self.name}: did not verify its memory in 60 s")
        self.no_complaint()
        if verify and not self.log.verified.endswith(" bad=0"):
            raise GuestError(f"{self.name}: {self.log.verified}")

    def no_complaint(self):
        if self.log.complaints:
            raise GuestError(f"{self.name}: {len(self.log.complaints)} complaints, first: "
                             f"{self.log.complaints[0]}")

    def rate(self, seconds=1.0):
        """Pages that it changes in a second, as measured now."""
        first = self.log.beats[-1]
        time.sleep(seconds)
        last = self.log.beats[-1]
        return (last.changed - first.changed) / max(last.at - first.at, 1e-3)

    def own_cpu_s(self):
        """CPU seconds of all but the vCPUs."""
        return self.process.cpu_s() - sum(self.process.thread_cpu_s(t) for t in self.vcpu_threads)

    def main_cpu_s(self):
        return self.process.thread_cpu_s(self.process.pid)
