# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Cross-build for aarch64 against <build directory>/sysroot (see sysroot.sh), tests under qemu-user.

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)

# try_compile() reads this file again, from a directory below the build's.
if(NOT DEFINED ENV{GODWIT_SYSROOT})
	set(ENV{GODWIT_SYSROOT} ${CMAKE_BINARY_DIR}/sysroot)
endif()
set(CMAKE_SYSROOT $ENV{GODWIT_SYSROOT})
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(ENV{PKG_CONFIG_LIBDIR} ${CMAKE_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig:${CMAKE_SYSROOT}/usr/share/pkgconfig)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${CMAKE_SYSROOT})

find_program(GODWIT_QEMU NAMES qemu-aarch64 qemu-aarch64-static REQUIRED)
set(CMAKE_CROSSCOMPILING_EMULATOR ${GODWIT_QEMU} -L ${CMAKE_SYSROOT})
