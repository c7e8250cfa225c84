# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU process and the two things one does with it: talk QMP, and read what it costs."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import time

TICK = 1 / os.sysconf("SC_CLK_TCK")


class QmpError(Exception):
    """QEMU said no: its own words."""


class Gone(Exception):
    """The other end of a socket, or a process, is not there any more."""


class Qmp:
    """One QMP connection; used from one thread."""

    def __init__(self, path, deadline_s=20):
        self.socket = connect(path, deadline_s)
        self.pending = b""
        self.events = []
        self._read(deadline_s)
        self.command("qmp_capabilities")

    def _read(self, timeout_s):
        """The next message, or None when the time is over."""
        end = time.monotonic() + timeout_s
        while b"\n" not in self.pending:
            self.socket.settimeout(max(end - time.monotonic(), 0.001))
            try:
                got = self.socket.recv(65536)
            except TimeoutError:
                return None
            except OSError as err:
                raise Gone(f"QMP: {err}") from err
            if not got:
                raise Gone("QMP: the other end closed it")
            self.pending += got
        line, self.pending = self.pending.split(b"\n", 1)
        return json.loads(line)

    def command(self, command, _timeout_s=60, _fd=None, **arguments):
        """Run a command; underscores in names stand for dashes."""
        message = {"execute": command,
                   "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}}
        data = json.dumps(message).encode() + b"\n"
        try:
            if _fd is None:
                self.socket.settimeout(_timeout_s)
                self.socket.sendall(data)
            else:
                socket.send_fds(self.socket, [data], [_fd])
        except OSError as err:
            raise Gone(f"QMP: {err}") from err
        while True:
            reply = self._read(_timeout_s)
            if reply is None:
                raise Gone(f"QMP: no answer to {command} in {_timeout_s} s")
            if "event" in reply:
                self.events.append(reply)
            elif "error" in reply:
                raise QmpError(reply["error"]["desc"])
            elif "return" in reply:
                return reply["return"]

    def hmp(self, line):
        return self.command("human-monitor-command", command_line=line)

    def wait_event(self, timeout_s, matches):
        """The first event for which matches(event), or None; others are kept."""
        end = time.monotonic() + timeout_s
        seen = 0
        while True:
            for event in self.events[seen:]:
                if matches(event):
                    self.events.remove(event)
                    return event
            seen = len(self.events)
            message = self._read(max(end - time.monotonic(), 0.001))
            if message is None:
                return None
            if "event" in message:
                self.events.append(message)


def connect(path, deadline_s=20, alive=lambda: True):
    """Connect to a unix socket that may not be there yet."""
    end = time.monotonic() + deadline_s
    while True:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
            return sock
        except OSError as err:
            sock.close()
            if time.monotonic() > end or not alive():
                raise Gone(f"{path}: {err}") from err
            time.sleep(0.01)


def die_with_parent():
    """In the child: no terminal's ^C, and killed by the kernel should this program be killed."""
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Process:
    """A process of ours, ended by stop(), and its cost in /proc."""

    def __init__(self, arguments, log):
        self.arguments = arguments
        self.log = log
        with open(log, "ab") as out:
            self.popen = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                preexec_fn=die_with_parent)
        self.pid = self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def stop(self):
        if self.alive():
            self.popen.kill()
        self.popen.wait()

    def said(self):
        with open(self.log, errors="replace") as file:
            return file.read()

    def cpu_s(self):
        """CPU seconds of all its threads, also those that ended."""
        return self._stat(f"/proc/{self.pid}/stat")

    def thread_cpu_s(self, thread):
        """CPU seconds of one thread; 0 when it is gone."""
        try:
            with open(f"/proc/{self.pid}/task/{thread}/schedstat") as file:
                return int(file.read().split()[0]) / 1e9
        except OSError:
            return self._stat(f"/proc/{self.pid}/task/{thread}/stat")

    @staticmethod
    def _stat(path):
        try:
            with open(path) as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) * TICK

    def rss_mb(self):
        """Memory of its own: what guests of the same file share is not counted to any."""
        try:
            with open(f"/proc/{self.pid}/status") as file:
                for line in file:
                    if line.startswith("VmRSS:"):
                        return int(line.split()[1]) / 1024
        except OSError:
            pass
        return 0.0

    def threads(self):
        """Names of its threads."""
        names = []
        try:
            for thread in os.listdir(f"/proc/{self.pid}/task"):
                with open(f"/proc/{self.pid}/task/{thread}/comm") as file:
                    names.append(file.read().strip())
        except OSError:
            pass
        return sorted(names)
