# SPDX-License-Identifier: GPL-2.0-or-later
"""Every way that QEMU can carry a stream, and how it is switched on."""

import bisect
import ctypes
import errno
import os
import socket
import stat

from live.migration import Mode
from .bench import GuestError, MODES, SLOW, UNCAPPED, Skip, expect, link, listen, test, wait_final


@test
def over_tcp(bench):
    """over tcp, as fast as it goes"""
    bench.move(bench.source(), bench.destination())


@test
def over_unix(bench):
    """over a unix socket"""
    source = bench.source()
    bench.move(source, bench.destination(), uri=f"unix:{bench.path('wire')}")


@test
def over_fd(bench):
    """over file descriptors handed to both ends"""
    source = bench.source()
    destination = bench.destination()
    here, there = socket.socketpair()
    source.qmp.command("getfd", fdname="wire", _fd=here.fileno())
    destination.qmp.command("getfd", fdname="wire", _fd=there.fileno())
    here.close()
    there.close()
    bench.move(source, destination, uri="fd:wire")


@test
def over_exec(bench):
    """through two programs and a pipe"""
    source = bench.source()
    destination = bench.destination()
    pipe = bench.path("pipe")
    os.mkfifo(pipe)
    destination.qmp.command("migrate-incoming", uri=f"exec:cat {pipe}")
    bench.begin(source, f"exec:cat >{pipe}", UNCAPPED)
    expect(wait_final(source, 60)["status"] == "completed", "not completed")
    destination.check(1)


@test
def over_file(bench):
    """into a file while the guest runs, and out of it later"""
    source = bench.source()
    path = bench.path("stream")
    bench.begin(source, f"file:{path}", UNCAPPED)
    expect(wait_final(source, 60)["status"] == "completed", "not written")
    destination = bench.destination()
    destination.qmp.command("migrate-incoming", uri=f"file:{path}")
    info = wait_final(destination, 60)
    expect(info["status"] == "completed", f"not read: {info} {destination.process.said()}")
    destination.check(1)


def psk(bench, name, key):
    folder = bench.path(name)
    os.mkdir(folder)
    with open(os.path.join(folder, "keys.psk"), "w") as file:
        file.write(f"qemu:{key}\n")
    return folder


def tls(bench, key_at_destination):
    key = "00112233445566778899aabbccddeeff"
    source = bench.source(options=(
        "-object", f"tls-creds-psk,id=tls0,dir={psk(bench, 'here', key)},endpoint=client,username=qemu"))
    destination = bench.destination(options=(
        "-object", f"tls-creds-psk,id=tls0,dir={psk(bench, 'there', key_at_destination or key)},endpoint=server"))
    for machine in source, destination:
        machine.qmp.command("migrate-set-parameters", tls_creds="tls0")
    return source, destination


@test
def over_tls(bench):
    """encrypted"""
    source, destination = tls(bench, None)
    bench.move(source, destination)


def unsent_limits(machine):
    """How much each of its TCP sockets may hold of what it has not sent; 0: no limit of its own."""
    pidfd = os.pidfd_open(machine.process.pid)
    limits = []
    for fd in os.listdir(f"/proc/{machine.process.pid}/fd"):
        copy = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, int(fd), 0)     # pidfd_getfd
        if copy < 0 and ctypes.get_errno() in (errno.ENOSYS, errno.EPERM):
            raise Skip("cannot look into QEMU's sockets here")
        if copy < 0:
            continue                # closed meanwhile
        if stat.S_ISSOCK(os.fstat(copy).st_mode):
            with socket.socket(fileno=copy) as sock:
                if sock.family in (socket.AF_INET, socket.AF_INET6):
                    limits.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT))
        else:
            os.close(copy)
    os.close(pidfd)
    return limits


def holds_little(bench, source, destination):
    bench.needs_godwit()
    bench.begin(source, listen(destination), link("5MB/s"))
    bench.until(source, bench.sent(3))
    # It follows the windows of the last second, and the first may have been quick.
    bench.until(source, lambda info: unsent_limits(source) == [128 << 10])
    source.qmp.command("migrate-set-parameters", max_bandwidth=UNCAPPED)
    bench.until_final(source)
    destination.check(1)


@test
def socket_holds_little(bench):
    """what a slow link has not sent yet waits in QEMU and not in the socket"""
    holds_little(bench, bench.source(), bench.destination())


@test
def socket_holds_little_under_tls(bench):
    """nor in the socket under TLS"""
    holds_little(bench, *tls(bench, None))


@test
def over_tls_with_the_wrong_key(bench):
    """encrypted, but the destination has another key"""
    source, destination = tls(bench, "ff" * 16)
    bench.begin(source, listen(destination))
    info = bench.failed(source)
    bench.says(info.get("error-desc", ""), "tls", "handshake", "psk")
    bench.survived(source)


@test
def switched_on_by_global(bench):
    """with -global migration.x-godwit=on at both ends instead of the capability"""
    bench.source()
    bench.needs_godwit()
    bench.stop(bench.machines[0])
    on = ("-global", "migration.x-godwit=on")
    # Its own saved state was written without; so it boots.
    source = bench.start(bench.binary, bench.spec, "booted", options=on)
    source.wait_ready()
    bench.note(source)
    destination = bench.destination(mode=None, options=on)
    result = bench.move(source, destination, mode=Mode("as they are"))
    enabled = [entry for entry in source.qmp.command("query-migrate-capabilities")
               if entry["capability"] == "x-godwit"]
    expect(enabled[0]["state"], "the global did not switch it on")
    return result


@test
def destination_without_the_capability(bench):
    """the destination lacks the capability: refused before any page"""
    source = bench.source()
    bench.needs_godwit()
    destination = bench.destination(mode=None)
    bench.begin(source, listen(destination))
    bench.failed(source)
    destination.process.popen.wait(10)
    bench.says(destination.process.said(), "x-godwit", "godwit")
    bench.survived(source)
    bench.retry(source)


@test
def destination_that_never_heard_of_it(bench):
    """the destination is a stock QEMU: refused before any page"""
    source = bench.source()
    bench.needs_godwit()
    destination = bench.destination(mode=None, binary=bench.stock)
    bench.begin(source, listen(destination))
    bench.failed(source)
    destination.process.popen.wait(10)
    bench.says(destination.process.said())
    bench.survived(source)


def stock_stream(bench, binary):
    source = bench.source()
    bench.needs_godwit()
    mode = Mode("godwit", ("x-godwit",), {"x-godwit-stream": "stock"})
    destination = bench.destination(binary=binary, mode=None)
    destination.qmp.command("migrate-set-capabilities", capabilities=[{"capability": "xbzrle", "state": True}])
    mode.apply(source)
    bench.begin(source, listen(destination), SLOW, mode)
    info = wait_final(source, 60)
    expect(info["status"] == "completed", f"{info['status']}: {info.get('error-desc')} {destination.process.said()}")
    destination.check(1)
    expect(info.get("xbzrle-cache", {}).get("pages", 0) > 0, "no page went as a delta")


@test
def stock_stream_to_stock(bench):
    """the stock stream is read by a stock QEMU 10.0"""
    stock_stream(bench, bench.stock)


@test
def stock_stream_to_old(bench):
    """the stock stream is read by Debian 12's QEMU 7.2"""
    from live.guest import tool
    stock_stream(bench, tool("getqemu", "12"))


@test
def off_it_is_stock_both_ways(bench):
    """with the capability off, to a stock QEMU and back"""
    source = bench.source()
    bench.mode = MODES["plain"]
    destination = bench.destination(binary=bench.stock)
    bench.move(source, destination)
    bench.move(destination, bench.destination())


def seamless(stream):
    """A stream without the end, footer and header between two sections of RAM: where those are is a matter of time."""
    name = stream.index(b"\x03ram")
    section = stream[name - 4:name]
    for kind in (b"\x02", b"\x03"):
        stream = stream.replace(b"\0" * 7 + b"\x10\x7e" + section + kind + section, b"")
    return stream


@test
def off_the_stream_is_the_stock_one(bench):
    """with the capability off, a guest at rest is written byte for byte as a stock QEMU writes it"""
    streams = []
    state = bench.saved_state(bench.stock)
    for number, binary in enumerate((bench.binary, bench.stock)):
        # Nobody listens at its port and no clock goes on: both would be seen in what is written.
        machine = bench.start(binary, bench.spec, f"rest{number}", incoming="defer", listen=False,
                              options=("-rtc", "base=2020-01-01T00:00:00,clock=vm"))
        machine.qmp.command("migrate-incoming", uri=f"exec:cat {state}")
        expect(wait_final(machine, 60)["status"] == "completed", "cannot take up the saved guest")
        path = bench.path(f"stream{number}")
        machine.qmp.command("migrate-set-parameters", max_bandwidth=UNCAPPED)
        machine.qmp.command("migrate", uri=f"exec:cat >{path}")
        expect(wait_final(machine, 60)["status"] == "completed", "not written")
        with open(path, "rb") as file:
            streams.append(seamless(file.read()))
    here, there = streams
    expect(len(here) > 10 << 20, f"only {len(here)} bytes")
    if here != there:
        at = bisect.bisect_left(range(min(len(here), len(there))), True, key=lambda i: here[:i + 1] != there[:i + 1])
        raise GuestError(f"they differ from byte {at} of {len(here)} and {len(there)}: "
                         f"{here[at - 24:at + 8].hex()} {there[at - 24:at + 8].hex()}")


@test
def refuses_what_it_cannot_go_with(bench):
    """multifd, mapped-ram and the like are refused with a word why"""
    source = bench.source()
    bench.needs_godwit()
    bench.mode.apply(source)
    for capability in ("multifd", "mapped-ram", "background-snapshot"):
        bench.refused(lambda: source.qmp.command("migrate-set-capabilities", capabilities=[
            {"capability": capability, "state": True}]), "x-godwit")
    source.check()
