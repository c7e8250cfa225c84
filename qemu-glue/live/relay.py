# SPDX-License-Identifier: GPL-2.0-or-later
"""A relay between the two ends of a migration that counts bytes and, when told, does harm."""

import socket
import struct
import threading

HARMS = ("cut", "truncate", "stall", "flip")


class Relay:
    """Listens on a unix socket and forwards the one connection to another.

    Harm comes after `at` bytes from the source, or when strike() is called: "cut" resets both ends;
    "truncate" ends the
    stream to the destination, and what the source still sends goes nowhere until the destination is
    gone; "stall" reads no more and closes nothing; "flip" turns one bit of the next byte.
    """

    def __init__(self, path, target, harm=None, at=None, bit=6):
        self.uri = f"unix:{path}"
        self.target = target
        self.harm = harm
        self.at = at
        self.bit = bit
        self.passed = 0
        self.struck = threading.Event()
        self.ends = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def strike(self):
        """Do the harm with the next byte."""
        self.at = min(self.passed, self.at or self.passed)
        if self.harm == "cut":
            self.struck.set()
            self._cut()

    def stop(self):
        for sock in [self.listener, *self.ends]:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()
        self.thread.join(5)

    def _serve(self):
        try:
            client, _ = self.listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.target)
        except OSError:
            return
        self.ends = [client, server]
        back = threading.Thread(target=self._back, args=(server, client), daemon=True)
        back.start()
        self._from_source(client, server)
        back.join(1)

    def _back(self, server, client):
        try:
            while got := server.recv(65536):
                client.sendall(got)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        if self.harm == "truncate" and self.struck.is_set():
            self._cut()     # a destination that is gone does not read on

    def _from_source(self, client, server):
        try:
            while got := client.recv(1 << 18):
                if self.harm and self.at is not None and not self.struck.is_set() \
                        and self.passed + len(got) > self.at:
                    before = max(self.at - self.passed, 0)
                    self.struck.set()
                    if self.harm == "flip":
                        got = got[:before] + bytes([got[before] ^ 1 << self.bit]) + got[before + 1:]
                    else:
                        server.sendall(got[:before])
                        self.passed += before
                        self._end(client, server)
                        return
                server.sendall(got)
                self.passed += len(got)
            server.shutdown(socket.SHUT_WR)
        except OSError:
            self._cut()     # an end that is gone is gone for the other

    def _end(self, client, server):
        if self.harm == "cut":
            self._cut()
        elif self.harm == "truncate":
            server.shutdown(socket.SHUT_WR)
            while client.recv(1 << 18):
                pass
        # A stall: the sockets stay as they are until stop().

    def _cut(self):
        for sock in self.ends:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
