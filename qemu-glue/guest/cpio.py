# SPDX-License-Identifier: GPL-2.0-or-later
"""cpio.py DIRECTORY > ARCHIVE: all of a directory as an initramfs (newc), owned by root"""

import os
import stat
import sys


def entry(out, name, mode, data, number):
    fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name + b"\0"
    out.write(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))


def main(top):
    out = sys.stdout.buffer
    number = 0
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted(folders + files):
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                data = os.fsencode(os.readlink(path))
                folders[:] = [other for other in folders if other != name]
            elif stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    data = file.read()
            else:
                data = b""
            number += 1
            entry(out, os.fsencode(os.path.relpath(path, top)), mode, data, number)
    entry(out, b"TRAILER!!!", 0, b"", 0)


main(sys.argv[1])
