# SPDX-License-Identifier: GPL-2.0-or-later
"""What the live tests have in common: a small guest, two machines, and how a failed migration must end."""

import random
import time

from live import qmp
from live.guest import STANDARD, GuestError, tool
from live.migration import (FINAL, MODES, UNCAPPED, Mode, Rig, can, link, listen, migrate, saved, wait_final)
from live.relay import Relay

SMALL = STANDARD.but(memory_mb=256, mb=96, burst=300, check=100)
SLOW = link("60MB/s")           # a pass over SMALL takes two seconds

TESTS = {}


def test(function):
    """A test, named after its function, with its first line of documentation as what it says."""
    TESTS[function.__name__] = function
    function.takes_speed = False
    return function


def speed_test(function):
    """One whose guest must outrun a link: on a busy machine it does not. With --full or by name only."""
    test(function).takes_speed = True
    return function


class Skip(Exception):
    """Why a test does not apply here."""


class Failed(Exception):
    """What was found."""


def expect(condition, sentence):
    if not condition:
        raise Failed(sentence)


class Bench(Rig):
    """The rig of one test."""

    def __init__(self, binary, full=False, seed=1, keep=None):
        super().__init__(keep)
        self.binary = binary
        self.full = full
        self.random = random.Random(seed)
        self.relays = []
        self.destinations = 0
        self.spec = SMALL
        self.mode = None

    def __exit__(self, *error):
        for relay in self.relays:
            relay.stop()
        super().__exit__(*error)

    def needs_godwit(self):
        if self.mode.name != "godwit":
            raise Skip("this QEMU has no x-godwit")

    def source(self, spec=None, binary=None, **options):
        """A guest that runs, and what its process looked like before any migration."""
        self.spec = spec or self.spec
        machine = super().source(binary or self.binary, self.spec, **options)
        self.know(machine)
        return machine

    def know(self, machine):
        """Learn what its QEMU can do, and what it is like at rest."""
        self.mode = MODES["godwit"] if can(machine, "x-godwit") else MODES["plain"]
        self.note(machine)

    def saved_state(self, binary):
        return saved(binary, self.spec)

    def note(self, machine):
        machine.wait_beats(20)
        machine.rss_before = machine.process.rss_mb()
        machine.threads_before = machine.process.threads()

    def destination(self, spec=None, binary=None, mode="the same", **options):
        self.destinations += 1
        machine = super().destination(binary or self.binary, spec or self.spec,
                                      name=f"destination{self.destinations}", **options)
        if mode == "the same":
            mode = self.mode
        if mode:
            mode.apply(machine)
        return machine

    def relay(self, harm=None, at=None, bit=6):
        """(relay, the URI that a destination is to listen on)"""
        number = len(self.relays)
        target = self.path(f"incoming{number}")
        relay = Relay(self.path(f"relay{number}"), target, harm, at, bit)
        self.relays.append(relay)
        return relay, f"unix:{target}"

    def restless(self, source):
        """From now on it changes so much that no migration of it ends at SLOW with a downtime of 1 ms."""
        source.log.send("set words=250")
        source.log.send("set burst=2000")
        source.qmp.command("migrate-set-parameters", downtime_limit=1)

    def calm(self, source):
        source.log.send(f"set burst={self.spec.burst}")
        source.log.send(f"set words={self.spec.words}")

    def begin(self, source, where, rate=SLOW, mode=None, **parameters):
        """Start a migration and come back at once."""
        (mode or self.mode).apply(source)
        source.qmp.command("migrate-set-parameters", max_bandwidth=rate, **parameters)
        source.qmp.events.clear()
        source.qmp.command("migrate", uri=where)

    def begin_pair(self, source, rate=SLOW, **options):
        destination = self.destination(**options)
        self.begin(source, listen(destination), rate)
        return destination

    def move(self, source, destination, rate=UNCAPPED, mode=None, uri="tcp:127.0.0.1:0", cutoff_s=60):
        """A whole migration that must do well, and a guest that goes on."""
        result = migrate(source, destination, mode or self.mode, rate, cutoff_s, uri=uri)
        info = result["info"]
        expect(result["status"] == "completed",
               f"{result['status']}: {info.get('error-desc', '')} {destination.process.said().strip()}")
        destination.check(1)
        return result

    def until(self, source, condition, timeout_s=30):
        """Wait for condition(query-migrate) of a migration under way; the last answer."""
        end = time.monotonic() + timeout_s
        while True:
            info = source.qmp.command("query-migrate")
            if condition(info):
                return info
            expect(info.get("status") not in FINAL and time.monotonic() < end,
                   f"waited in vain; the migration is {info.get('status')}: {info.get('error-desc', '')}")
            time.sleep(0.01)

    def round(self, number):
        return lambda info: info.get("ram", {}).get("dirty-sync-count", 0) >= number

    def sent(self, mb):
        return lambda info: info.get("ram", {}).get("transferred", 0) >= mb * 1e6

    def failed(self, source, timeout_s=30):
        """The migration must end by itself, and not well; returns query-migrate."""
        info = wait_final(source, timeout_s)
        expect(info.get("status") == "failed", f"not failed after {timeout_s} s but {info.get('status')}")
        return info

    def until_final(self, source, timeout_s=60):
        info = wait_final(source, timeout_s)
        expect(info.get("status") in FINAL, f"not over after {timeout_s} s")

    def survived(self, source, words=()):
        """After a failure: the guest goes on with every page right, memory and threads are given back."""
        status = source.qmp.command("query-status")
        if not status["running"]:
            raise Failed(f"the source does not run but is {status['status']}")
        source.check(0.5)
        end = time.monotonic() + 5
        while True:
            rss, threads = source.process.rss_mb(), source.process.threads()
            left = list(threads)
            for name in source.threads_before:
                if name in left:
                    left.remove(name)
            # QEMU's pool of workers comes and goes as it likes.
            left = [name for name in left if not name.startswith("worker")]
            if (rss <= source.rss_before * 1.05 and not left) or time.monotonic() > end:
                break
            time.sleep(0.1)
        expect(not left, f"threads are left: {', '.join(left)}")
        expect(rss <= source.rss_before * 1.05,
               f"memory is not given back: RSS {source.rss_before:.0f} MB before, {rss:.0f} after")

    def says(self, text, *words):
        """An error must say something, one of the words if any are given."""
        expect(text.strip(), "failed without a word")
        expect(not words or any(word.lower() in text.lower() for word in words),
               f"the error does not say what happened: {text.strip()[-300:]}")

    def refused(self, function, *words):
        """QEMU must say no, and why."""
        try:
            function()
        except qmp.QmpError as err:
            self.says(str(err), *words)
            return str(err)
        raise Failed("was not refused")

    def retry(self, source):
        """After all that, it moves."""
        self.calm(source)
        return self.move(source, self.destination())
