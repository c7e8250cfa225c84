#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# host.sh - a host program keeps its malloc and its signals, with the shared and the static library,
# and also when it has a jemalloc itself.

. "$(dirname "$0")/common.sh"

export LD_LIBRARY_PATH=${GODWIT_SO%/*}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

compile "$work/shared" "$here/host.c" -I"$include" "$GODWIT_SO" -ldl
compile "$work/static" "$here/host.c" -I"$include" "$GODWIT_A" "${libs[@]}"
"$work/shared" libc.so
"$work/static" libc.so

# nm: the program takes malloc from outside and defines none of its kin for others to find.
for program in shared static; do
	nm -D "$work/$program" | grep -qE ' U malloc(@|$)' || fail "$program: malloc is not taken from outside"
	if nm -D --defined-only "$work/$program" | grep -E ' (malloc|calloc|realloc|free|mallocx|posix_memalign)$'; then
		fail "$program: defines malloc for everybody"
	fi
done

# The loader's own account: nobody's malloc is bound to the library.
LD_BIND_NOW=1 LD_DEBUG=bindings LD_DEBUG_OUTPUT=$work/bindings "$work/shared" libc.so >/dev/null
cat "$work"/bindings.* >"$work/all"
grep -q 'symbol .malloc.' "$work/all" || fail "LD_DEBUG says nothing about malloc"
if grep -E "to [^ ]*libgodwit[^ ]* .*symbol .(malloc|calloc|realloc|free|memalign|posix_memalign|aligned_alloc|mallocx|dallocx|mallctl)'" \
	"$work/all"; then
	fail "the loader bound an allocator to libgodwit"
fi

# Opened late, as a plugin would: it must load, or say why not.
cat >"$work/late.c" <<'END'
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv)
{
	void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
	const char *(*version)(void);

	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	*(void **)&version = dlsym(library, "godwit_version");
	return !version || !version() || dlclose(library);
}
END
compile "$work/late" "$work/late.c" -ldl
if ! "$work/late" "$GODWIT_SO" 2>"$work/late.txt"; then
	# jemalloc's thread-local state is of the static kind: glibc keeps room for it, if asked.
	grep -q 'static TLS' "$work/late.txt" || fail "dlopen: $(cat "$work/late.txt")"
	GLIBC_TUNABLES=glibc.rtld.optional_static_tls=8192 "$work/late" "$GODWIT_SO" ||
		fail "dlopen, with room for static TLS"
	echo "dlopen needs GLIBC_TUNABLES=glibc.rtld.optional_static_tls=8192 here"
fi

# A host with a jemalloc of its own: two of them, neither in the other's way.
if echo 'int main(void){return 0;}' | "$CC" -x c -o "$work/probe" - -Wl,--no-as-needed -ljemalloc 2>/dev/null; then
	compile "$work/shared-je" "$here/host.c" -I"$include" "$GODWIT_SO" -Wl,--no-as-needed -ljemalloc -ldl
	compile "$work/static-je" "$here/host.c" -I"$include" "$GODWIT_A" -Wl,--no-as-needed -ljemalloc \
		"${libs[@]}"
	"$work/shared-je" libjemalloc.so
	"$work/static-je" libjemalloc.so
fi
