# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# debian.bash - packages of a Debian release unpacked into a directory; sourced, not run
#
# apt runs with a state, a cache and a source list of its own and an empty list of installed packages:
# the machine's sources and packages stay as they are, and what comes down is unpacked, not installed.
# The mirror is the one that this machine uses for its own release.

# debian_lists SUITE STATE [deb-src]: fetch its package lists; debian_apt is then the apt-get that uses them
debian_lists()
{
	local suite=$1 state=$2 type=${3-deb} mirror keys

	command -v apt-get >/dev/null || {
		echo "error: needs apt-get, to fetch packages of Debian's $suite" >&2
		return 1
	}
	mirror=$(apt-get update --print-uris 2>/dev/null |
		sed -nE "s,^'([^']*)/dists/(bookworm|trixie)/InRelease'.*,\1,p" | head -n 1)
	[[ -n $mirror ]] || {
		echo "error: this machine has no package source for Debian 12 or 13 to fetch $suite's from" >&2
		return 1
	}
	rm -rf "$state"
	mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/parts"
	: >"$state/status"
	keys=/usr/share/keyrings/debian-archive-keyring.gpg
	[[ -e $keys ]] || keys=
	echo "$type ${keys:+[signed-by=$keys] }$mirror $suite main" >"$state/sources.list"
	debian_apt=(apt-get -qq -o APT::Architecture=amd64 -o APT::Architectures::=amd64
		-o Dir::Etc::SourceList="$state/sources.list" -o Dir::Etc::SourceParts="$state/parts"
		-o Dir::State="$state" -o Dir::State::lists="$state/lists" -o Dir::State::status="$state/status"
		-o Dir::Cache="$state/cache" -o APT::Install-Recommends=false -o Acquire::Retries=3
		-o Acquire::Languages=none -o APT::Sandbox::User= -o Debug::NoLocking=true
		-o DPkg::Post-Invoke= -o APT::Update::Post-Invoke-Success= -o APT::Update::Post-Invoke=)
	"${debian_apt[@]}" update >"$state/log.txt" 2>&1 || {
		cat "$state/log.txt" >&2
		return 1
	}
}

# debian_source SUITE DIRECTORY PACKAGE: a source package, as it was uploaded, into the directory
debian_source()
{
	local suite=$1 folder=$2 state=$2.apt debian_apt

	mkdir -p "$folder"
	debian_lists "$suite" "$state" deb-src || return 1
	(cd "$folder" && "${debian_apt[@]}" source --download-only "$3") >>"$state/log.txt" 2>&1 || {
		cat "$state/log.txt" >&2
		return 1
	}
	rm -rf "$state"
}

# debian_root SUITE DIRECTORY PACKAGE...: the packages and all that they need
# With "alone" before the packages: those packages only.
debian_root()
{
	local lock

	# Commands that run side by side fetch a thing once.
	exec {lock}>"$2.lock"
	flock "$lock"
	fetch_root "$@"
	set -- $?
	exec {lock}>&-
	return "$1"
}

fetch_root()
{
	local suite=$1 root=$2 state=$2.apt alone=0 archive wanted debian_apt
	shift 2

	if [[ $1 == alone ]]; then
		alone=1
		shift
	fi
	wanted="$suite $alone $*"
	[[ $(cat "$root.done" 2>/dev/null) != "$wanted" ]] || return 0
	rm -rf "$root" "$root.done"
	mkdir -p "$root/usr/lib" "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib64"
	# Merged /usr, as the packages of these releases expect.
	ln -s usr/lib "$root/lib"
	ln -s usr/lib64 "$root/lib64"
	ln -s usr/bin "$root/bin"
	ln -s usr/sbin "$root/sbin"
	echo "debian: fetching from $suite: $*" >&2
	debian_lists "$suite" "$state" || return 1
	if [[ $alone == 1 ]]; then
		(cd "$state/cache/archives" && "${debian_apt[@]}" download "$@") >>"$state/log.txt" 2>&1
	else
		"${debian_apt[@]}" -y --download-only install "$@" >>"$state/log.txt" 2>&1
	fi || {
		cat "$state/log.txt" >&2
		return 1
	}
	for archive in "$state/cache/archives"/*.deb; do
		dpkg-deb --fsys-tarfile "$archive" | tar -x -C "$root" --keep-directory-symlink || return 1
	done
	rm -rf "$state"
	echo "$wanted" >"$root.done"
}
