# SPDX-License-Identifier: GPL-2.0-or-later
"""Round trips to the thread of a guest that answers, timed at the host."""

import threading
import time


class Echo:
    """Asks once each `period_s` until stop(); a guest with `echo` set answers. Follows it when told."""

    def __init__(self, machine, period_s=0.005):
        self.period_s = period_s
        self.trips = []             # (when asked, ms)
        self.stopping = False
        self.socket = machine.echo
        self.socket.settimeout(5)
        self.thread = threading.Thread(target=self._ask, daemon=True)
        self.thread.start()

    def _ask(self):
        number = 0
        while not self.stopping:
            number += 1
            word = b"%015d\n" % number
            begun = time.monotonic()
            got = b""
            try:
                self.socket.sendall(word)
                while len(got) < len(word):
                    more = self.socket.recv(len(word) - len(got))
                    if not more:
                        return
                    got += more
            except OSError:
                return
            if got == word:
                self.trips.append((begun, (time.monotonic() - begun) * 1000))
            time.sleep(max(0, begun + self.period_s - time.monotonic()))

    def stop(self):
        self.stopping = True
        self.thread.join(6)

    def between(self, since, until):
        """ms of each round trip of a span, the shortest first."""
        return sorted(ms for at, ms in self.trips if since <= at <= until)

    def percentile(self, share, since=0.0, until=float("inf")):
        """ms below which that share of the round trips of a span lies."""
        trips = self.between(since, until)
        return trips[min(int(len(trips) * share), len(trips) - 1)] if trips else None
