# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# sysroot.sh - the libraries for aarch64, in a directory; sourced by ./check --aarch64
#
# apt runs with a state and a cache of its own and an empty list of installed packages, and reads this
# machine's sources as they are: it finds all that the wanted packages need, and the machine's
# architectures, sources and packages stay untouched. What comes down is unpacked, not installed.

aarch64_packages="libc6-dev libgcc-s1 libzstd-dev liblz4-dev zlib1g-dev libxxhash-dev liburcu-dev libhwloc-dev
libjson-c-dev libjemalloc-dev"

# aarch64_sysroot <directory>
aarch64_sysroot()
{
	local root=$PWD/$1 state=$PWD/$1.apt archive wanted apt

	wanted=$(printf '%s\n' "$aarch64_packages" | cksum)
	if [[ $(cat "$root.done" 2>/dev/null) == "$wanted" ]]; then
		say "aarch64: using $1"
		return 0
	fi
	have_command apt-get || { say "aarch64: needs apt-get to fetch the arm64 libraries"; return 1; }
	rm -rf "$root" "$root.done" "$state"
	mkdir -p "$root/usr/lib" "$root/usr/bin" "$root/usr/sbin" "$state/lists/partial" "$state/cache/archives/partial"
	# Merged /usr, as the packages of both releases expect.
	ln -s usr/lib "$root/lib"
	: >"$state/status"
	apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64
		-o Dir::State="$state" -o Dir::State::lists="$state/lists" -o Dir::State::status="$state/status"
		-o Dir::Cache="$state/cache" -o APT::Install-Recommends=false -o Acquire::Retries=3
		-o APT::Sandbox::User= -o Debug::NoLocking=true
		# A host's hooks are about the host's packages.
		-o DPkg::Post-Invoke= -o APT::Update::Post-Invoke-Success= -o APT::Update::Post-Invoke=)
	say "aarch64: fetching package lists for arm64"
	"${apt[@]}" update 2>"$state/update.txt" || say "aarch64: some package lists could not be had; going on"
	say "aarch64: fetching libraries for arm64"
	# shellcheck disable=SC2086
	"${apt[@]}" -y --download-only install $aarch64_packages >"$state/install.txt" 2>&1 || {
		cat "$state/update.txt" "$state/install.txt" >&2
		return 1
	}
	for archive in "$state"/cache/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$archive" | tar -C "$root" -xf - --keep-directory-symlink \
			--no-same-owner || return 1
	done
	rm -rf "$state"
	echo "$wanted" >"$root.done"
	say "aarch64: $(du -sh "$root" | cut -f1) in $1"
}
