#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# install.sh - what is installed can be moved, and used with pkg-config and with CMake.

. "$(dirname "$0")/common.sh"

"$CMAKE" --install "$GODWIT_BUILD_DIR" --prefix "$work/first" >"$work/install.txt" || fail "$(cat "$work/install.txt")"
mv "$work/first" "$work/moved"
prefix=$work/moved
libdir=$(dirname "$(find "$prefix" -name 'libgodwit.so')")
for file in include/godwit/godwit.h share/doc/godwit/LICENSE; do
	[[ -s $prefix/$file ]] || fail "$file was not installed"
done
if [[ -e $GODWIT_BUILD_DIR/perf/godwit-perf ]]; then
	"$prefix/bin/godwit-perf" --version || fail "the installed tool does not run"
	[[ ! -e $GODWIT_SOURCE_DIR/docs/godwit-perf.1 || -s $prefix/share/man/man1/godwit-perf.1 ]] ||
		fail "the man page was not installed"
fi
# A path begins where no part of another one stands before it: a clone may be in /godwit.
if grep -rlP "(?<![\\w}/.-])\Q$GODWIT_SOURCE_DIR\E|\Q$work/first\E" "$libdir/pkgconfig" "$libdir/cmake"; then
	fail "the package names the place it was built in"
fi

# pkg-config
export PKG_CONFIG_PATH=$libdir/pkgconfig
read -r -a flags <<<"$(pkg-config --cflags --libs godwit)"
compile "$work/by-pkg-config" "$here/host.c" "${flags[@]}" -ldl
LD_LIBRARY_PATH=$libdir "$work/by-pkg-config" libc.so
read -r -a flags <<<"$(pkg-config --static --cflags --libs godwit)"
compile "$work/by-pkg-config-static" "$here/host.c" "${flags[@]/-lgodwit/-l:libgodwit.a}"
"$work/by-pkg-config-static" libc.so

# CMake
mkdir "$work/consumer"
cat >"$work/consumer/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES C)
find_package(godwit 0.1 REQUIRED)
foreach(kind godwit godwit_static)
	add_executable(host_\${kind} "$here/host.c")
	target_compile_definitions(host_\${kind} PRIVATE _GNU_SOURCE)
	set_target_properties(host_\${kind} PROPERTIES POSITION_INDEPENDENT_CODE ON)
	target_link_libraries(host_\${kind} PRIVATE godwit::\${kind} \${CMAKE_DL_LIBS})
endforeach()
END
"$CMAKE" -S "$work/consumer" -B "$work/consumer/build" -DCMAKE_PREFIX_PATH="$prefix" \
	-DCMAKE_C_COMPILER="$CC" >"$work/cmake.txt" 2>&1 &&
	"$CMAKE" --build "$work/consumer/build" >>"$work/cmake.txt" 2>&1 ||
	fail "$(cat "$work/cmake.txt")"
"$work/consumer/build/host_godwit" libc.so
"$work/consumer/build/host_godwit_static" libc.so
