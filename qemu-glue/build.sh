#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# qemu-glue/build.sh [--src DIR] [--out DIR] [--stock] [--target NAME]...
#
# Build a QEMU that has godwit, and print the path of its binary as the last line.
#
#   --src DIR      a QEMU 10.0.x source tree; it is copied, and stays as it is.
#                  Without it Debian's source package is fetched.
#   --out DIR      where all of it goes (default: build-qemu)
#   --stock        the same QEMU without godwit, for comparisons
#   --target NAME  build this ninja target as well, such as tests/qtest/migration-test
#
# What is missing is installed (Debian 12 or 13, as root). The package sources of the machine stay as
# they are: what comes from other releases is fetched through lists of its own. A second run is quick.

set -o pipefail
glue=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
here=$PWD
. "$glue/../cmake/steps.sh"
. "$glue/debian.bash"

meson_needed=1.5.0
release=trixie			# whose source package has QEMU 10.0.x
src="" out=build-qemu flavour=godwit targets=(qemu-system-x86_64)

usage()
{
	sed -n '/^# qemu-glue/,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

while [[ $# != 0 ]]; do
	case $1 in
	--src | --out | --target)
		[[ $# -ge 2 ]] || die "$1 needs an argument"
		case $1 in
		--src) src=$(cd "$here" && cd "$2" 2>/dev/null && pwd) || die "--src $2: no such directory" ;;
		--out) out=$(cd "$here" && realpath -m "$2") ;;
		--target) targets+=("$2") ;;
		esac
		shift 2
		;;
	--stock) flavour=stock; shift ;;
	--help | -h) usage; exit 0 ;;
	*) usage >&2; exit 2 ;;
	esac
done
out=$(realpath -m "$out")

needs_qemu="
dpkg-dev have_command dpkg-source
xz-utils have_command xz
patch have_command patch
python3-venv have_python_venv
libglib2.0-dev have_module glib-2.0
libpixman-1-dev have_module pixman-1
libfdt-dev have_header libfdt.h
libgnutls28-dev have_module gnutls
libslirp-dev have_module slirp
libseccomp-dev have_module libseccomp"

have_python_venv() { /usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null; }

# ---- sources, and a meson that is new enough ----

pristine_tree()
{
	[[ ! -e $out/orig/.whole ]] || return 0
	rm -rf "$out/orig"
	if [[ -n $src ]]; then
		say "qemu: copying $src"
		cp -a "$src" "$out/orig" || die "could not copy $src"
	else
		say "qemu: fetching Debian's source package"
		debian_source $release "$out/package" qemu ||
			die "QEMU's source package could not be fetched: give --src"
		dpkg-source --no-copy -x "$out"/package/qemu_*.dsc "$out/orig" >"$out/unpack.txt" 2>&1 || {
			tail -n 5 "$out/unpack.txt" >&2
			die "QEMU's source package could not be unpacked"
		}
	fi
	[[ $(cat "$out/orig/VERSION" 2>/dev/null) == 10.0.* ]] ||
		die "that is QEMU $(cat "$out/orig/VERSION" 2>/dev/null || echo '?'), and the patches are for 10.0.x"
	touch "$out/orig/.whole"
}

# at_least <version> <version>: is the first as new as the second?
at_least() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]; }

# The system's meson if it is new enough, else that of backports, unpacked beside the build
find_meson()
{
	local system

	system=$(/usr/bin/meson --version 2>/dev/null)
	if [[ -n $system ]] && at_least "$system" $meson_needed; then
		return 0
	fi
	debian_root bookworm-backports "$out/meson" alone meson ||
		die "no meson of $meson_needed or later: install one"
	export PYTHONPATH=$out/meson/usr/lib/python3/dist-packages PATH=$out/meson/usr/bin:$PATH
}

# ---- the tree that is built ----

# What of the pristine tree the glue changes or adds, one a line
touched()
{
	sed -n 's#^+++ b/##p' "$glue"/patches/*.patch | sort -u
	new_files | cut -d ' ' -f 2
}

# <file here> <its place in QEMU's tree>
new_files()
{
	local file

	for file in "$glue"/migration/*.[ch]; do
		echo "$file migration/${file##*/}"
	done
	for file in "$glue"/docs/*.rst; do
		echo "$file docs/devel/migration/${file##*/}"
	done
}

patched_tree()
{
	local tree=$out/src stamp file at

	stamp=$(cat "$glue"/patches/*.patch "$glue"/migration/*.[ch] "$glue"/docs/*.rst | sha256sum)
	[[ $(cat "$tree/.glue" 2>/dev/null) != "$stamp" ]] || return 0
	say "qemu: applying godwit"
	[[ -e $tree/.touched ]] || { rm -rf "$tree"; cp -a "$out/orig" "$tree" || die "could not copy the tree"; }
	rm -f "$tree/.glue"
	# Back to what it was, in those files alone: what is not touched is not built again.
	while read -r file; do
		rm -f "$tree/$file"
		[[ ! -e $out/orig/$file ]] || cp -a "$out/orig/$file" "$tree/$file"
	done < <(cat "$tree/.touched" 2>/dev/null)
	touched >"$tree/.touched"
	while read -r file at; do
		cp "$file" "$tree/$at" || die "could not copy $file"
	done < <(new_files)
	for file in "$glue"/patches/*.patch; do
		(cd "$tree" && patch -p1 --no-backup-if-mismatch <"$file") >"$out/patch.txt" 2>&1 || {
			cat "$out/patch.txt" >&2
			die "${file##*/} does not apply"
		}
	done
	echo "$stamp" >"$tree/.glue"
}

library()
{
	build "$out/lib-build" all -DGODWIT_TESTS=OFF -DGODWIT_PERF=OFF -DCMAKE_INSTALL_PREFIX="$out/godwit" \
		-DCMAKE_INSTALL_LIBDIR=lib || exit 1
	cmake --install "$out/lib-build" >"$out/install.txt" 2>&1 || die "the library could not be installed"
	export PKG_CONFIG_PATH=$out/godwit/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
}

# ---- the build ----

configure_qemu()
{
	local tree=$1 dir=$2 with=$3

	[[ ! -e $dir/build.ninja ]] || return 0
	say "qemu: configuring $dir"
	rm -rf "$dir"
	mkdir -p "$dir"
	(cd "$dir" && "$tree/configure" --python=/usr/bin/python3 --target-list=x86_64-softmmu \
		--without-default-features --enable-tcg --enable-kvm --enable-zstd --enable-gnutls \
		--enable-slirp --enable-seccomp --enable-avx2 --enable-avx512bw --enable-system \
		--disable-docs --disable-tools --disable-install-blobs --disable-werror $with) \
		>"$dir.txt" 2>&1 || { tail -n 20 "$dir.txt" >&2; die "QEMU could not be configured"; }
}

set_up "$needs_build" "$needs_qemu"
mkdir -p "$out" || die "cannot make $out"
pristine_tree
find_meson
if [[ $flavour == godwit ]]; then
	library
	patched_tree
	tree=$out/src dir=$out/build with=--enable-godwit
else
	tree=$out/orig dir=$out/build-stock with=""
fi
configure_qemu "$tree" "$dir" "$with"
say "qemu: building in $dir"
if [[ -t 2 ]]; then
	ninja -C "$dir" "${targets[@]}" >&2 || exit 1
else
	ninja -C "$dir" "${targets[@]}" >"$dir/log.txt" 2>&1 || {
		grep -A 20 FAILED "$dir/log.txt" | tail -n 60 >&2
		die "QEMU did not build; all of it is in $dir/log.txt"
	}
fi
say "qemu: done in $SECONDS s"
echo "$dir/qemu-system-x86_64"
