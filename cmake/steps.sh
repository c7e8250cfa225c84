# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# steps.sh - what ./run, ./check and .ci/run have in common; sourced, not run
#
# A need is probed by what it gives (a command, a pkg-config module, a header), not by its package, so
# that a machine which has it from elsewhere is left alone. Only if something is missing, and only as
# root on a Debian-like system, is a package installed. What these scripts say goes to stderr: stdout
# belongs to godwit-perf and to the last line of a check.

set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

steps_passed=0
steps_failed=0
steps_report=()

say()
{
	printf '%s\n' "$*" >&2
}

die()
{
	say "error: $*"
	exit 1
}

trap 'say; say "interrupted"; trap - INT; kill -INT $$' INT

jobs()
{
	nproc 2>/dev/null || echo 2
}

# --- set-up ------------------------------------------------------------------------------------------

have_command() { command -v "$1" >/dev/null 2>&1; }
have_module() { have_command pkg-config && pkg-config --exists "$1" 2>/dev/null; }
have_cc() { have_command cc && echo 'int main(void){return 0;}' | cc -x c -o /dev/null - 2>/dev/null; }
have_header() { have_cc && echo "#include <$1>" | cc -E -x c - >/dev/null 2>&1; }
have_archive() { have_command cc && [[ $(cc -print-file-name="$1") == /* ]]; }
have_cxx() { have_command c++ && echo 'int main(){return 0;}' | c++ -x c++ -o /dev/null - 2>/dev/null; }
have_relacy() { have_cxx && echo '#include <relacy/relacy_std.hpp>' | c++ -E -x c++ - >/dev/null 2>&1; }
have_fuzzer()
{
	have_command clang && echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' |
		clang -x c -fsanitize=fuzzer,address,undefined -o /dev/null - 2>/dev/null
}

# One line a need: <package> <probe> [<argument>]
needs_build="
gcc have_command cc
libc6-dev have_cc
cmake have_command cmake
ninja-build have_command ninja
pkg-config have_command pkg-config
libzstd-dev have_module libzstd
liblz4-dev have_module liblz4
zlib1g-dev have_module zlib
libxxhash-dev have_module libxxhash
liburcu-dev have_module liburcu-bp
libhwloc-dev have_module hwloc
libjson-c-dev have_module json-c
libjemalloc-dev have_archive libjemalloc_pic.a"

# python3 and strace: the end to end tests read JSON, and count system calls.
needs_tests="
libcriterion-dev have_module criterion
python3 have_command python3
strace have_command strace"

# What boots a test guest; QEMU's own needs are qemu-glue/build.sh's affair.
needs_guest="
gcc have_command cc
libc6-dev have_cc
python3 have_command python3"

needs_ci="
clang have_command clang
libclang-rt-dev have_fuzzer
g++ have_cxx
relacy-dev have_relacy"

needs_aarch64="
gcc-aarch64-linux-gnu have_command aarch64-linux-gnu-gcc
qemu-user have_command qemu-aarch64"

# missing <needs>: the packages whose probe fails
missing()
{
	local package probe argument

	while read -r package probe argument; do
		[[ -n $package ]] || continue
		"$probe" ${argument:+"$argument"} || echo "$package"
	done <<<"$1"
}

# set_up <needs>...: install what is missing, or say what to install
set_up()
{
	local needs="$*" packages sudo_hint

	packages=$(missing "$needs" | tr '\n' ' ')
	packages=${packages% }
	if [[ -z $packages ]]; then
		say "set-up: everything needed is here"
		return 0
	fi
	if ! have_command apt-get; then
		die "missing, by their Debian names: $packages. Install your system's equivalents and try again."
	fi
	if [[ $(id -u) != 0 ]]; then
		sudo_hint="apt-get install $packages"
		die "missing: $packages. Run this once as root, or: sudo $sudo_hint"
	fi
	say "set-up: installing $packages"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq -o Acquire::Retries=3 update >&2 ||
		say "set-up: apt-get update had errors; going on with the lists that are there"
	# shellcheck disable=SC2086
	apt-get -qq -y -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 install --no-install-recommends \
		$packages >/dev/null || die "apt-get could not install: $packages"
	packages=$(missing "$needs" | tr '\n' ' ')
	[[ -z ${packages% } ]] || die "still not usable after installing: $packages"
}

# --- building ----------------------------------------------------------------------------------------

# build <directory> <target or all> <cmake options>...
build()
{
	local dir=$1 target=$2 log=$1/log.txt generator=() started=$SECONDS
	shift 2

	mkdir -p "$dir" || die "cannot make $dir here"
	[[ -e $dir/CMakeCache.txt ]] || generator=(-G Ninja)
	say "build: $dir ($target)"
	if ! cmake "${generator[@]}" -S . -B "$dir" "$@" >"$log" 2>&1; then
		cat "$log" >&2
		say "build: configuring $dir failed; if it was made on another machine, remove it and try again"
		return 1
	fi
	if [[ -t 2 ]]; then
		cmake --build "$dir" --target "$target" --parallel "$(jobs)" >&2 || return 1
	elif ! cmake --build "$dir" --target "$target" --parallel "$(jobs)" >"$log" 2>&1; then
		tail -n 60 "$log" >&2
		say "build: $dir failed; all of it is in $log"
		return 1
	fi
	say "build: $dir done in $((SECONDS - started)) s"
}

# --- checks: each counts what passed and failed, and leaves a line for the summary -------------------

# count <name> <passed> <failed> <seconds> [<remark>]
count()
{
	local line

	line=$(printf '%-34s %4d passed %4d failed %6d s  %s' "$1" "$2" "$3" "$4" "${5-}")
	steps_passed=$((steps_passed + $2))
	steps_failed=$((steps_failed + $3))
	steps_report+=("$line")
	say "$line"
}

# blame <what failed, a line each>: under the last line of the summary
blame()
{
	local line

	while read -r line; do
		[[ -z $line ]] || steps_report+=("    failed: $line")
	done <<<"$1"
}

# suite <name> <directory> <cmake options>...: build it all and run ctest
suite()
{
	local name=$1 dir=$2 started=$SECONDS status failed passed skipped junit log
	shift 2

	say "== $name"
	if ! build "$dir" all -DGODWIT_TESTS=ON "$@"; then
		count "$name" 0 1 $((SECONDS - started)) "did not build"
		return
	fi
	junit=$PWD/$dir/junit.xml
	log=$dir/ctest.txt
	rm -f "$junit"
	say "tests: $(ctest --test-dir "$dir" -N | sed -n 's/^Total Tests: //p') programs in $dir"
	ctest --test-dir "$dir" --parallel "$(jobs)" --output-on-failure --output-junit "$junit" \
		--no-tests=error ${GODWIT_CTEST_ARGS-} 2>&1 | tee "$log" | grep --line-buffered -vE \
		'^(Test project|Internal ctest|    Start |$)' >&2
	status=${PIPESTATUS[0]}
	if [[ ! -s $junit ]]; then
		count "$name" 0 1 $((SECONDS - started)) "ctest did not finish"
		return
	fi
	passed=$(grep -c '<testcase .*status="run"' "$junit")
	failed=$(grep -c '<testcase .*status="fail"' "$junit")
	skipped=$(grep -cE '<testcase .*status="(notrun|disabled)"' "$junit")
	# A test that could not be started is no skip, and no test at all is no success.
	[[ $status == 0 && $passed != 0 ]] || [[ $failed != 0 ]] || failed=1
	count "$name" "$passed" "$failed" $((SECONDS - started)) \
		"$([[ $skipped == 0 ]] || echo "$skipped skipped")"
	blame "$(sed -n 's/.*<testcase name="\([^"]*\)".*status="fail".*/\1/p' "$junit")"
}

# fuzz <seconds>: every target that long, two at a time
fuzz()
{
	local seconds=$1 dir=build-fuzz started=$SECONDS target name failed=0 passed=0 found=""

	say "== fuzzing, $seconds s a target"
	if ! build $dir all -DCMAKE_C_COMPILER=clang -DGODWIT_FUZZ=ON -DGODWIT_TESTS=OFF -DGODWIT_PERF=OFF \
		-DGODWIT_WERROR=ON; then
		count "fuzzing" 0 1 $((SECONDS - started)) "did not build"
		return
	fi
	mkdir -p $dir/findings
	rm -f $dir/findings/*
	find $dir/tests/fuzz -maxdepth 1 -type f -name 'fuzz_*' -perm -u+x | sort |
		xargs -r -P 2 -n 1 bash -c '
			dir=$1 seconds=$2 target=$3
			name=$(basename "$target")
			seeds=tests/fuzz/seeds/${name#fuzz_}
			mkdir -p "$dir/corpus/$name"
			[[ -d $seeds ]] || seeds=
			# jobs of its own: a finding ends one target, not the others
			"$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
				-artifact_prefix="$dir/findings/$name-" "$dir/corpus/$name" $seeds \
				>"$dir/$name.txt" 2>&1
			echo $? >"$dir/$name.status"
			echo "fuzz: $name: $(grep -m1 -oE "number_of_executed_units: +[0-9]+" "$dir/$name.txt" |
				grep -oE "[0-9]+$" || echo no) inputs, status $(cat "$dir/$name.status")" >&2' \
			fuzz $dir "$seconds"
	for target in "$dir"/tests/fuzz/fuzz_*; do
		[[ -f $target && -x $target ]] || continue
		name=$(basename "$target")
		if [[ $(cat "$dir/$name.status" 2>/dev/null) == 0 ]]; then
			passed=$((passed + 1))
		else
			failed=$((failed + 1))
			found+=$name$'\n'
			say "fuzz: $name: the end of $dir/$name.txt:"
			tail -n 40 "$dir/$name.txt" >&2
		fi
		rm -f "$dir/$name.status"
	done
	count "fuzzing, $seconds s a target" "$passed" "$failed" $((SECONDS - started))
	blame "$found"
}

# models: the memory-order models, where each needed order has a mutant that must fail
models()
{
	local started=$SECONDS log=build/model.txt last status

	mkdir -p build
	say "== memory order models"
	tests/model/run 2>&1 | tee "$log" >&2
	status=${PIPESTATUS[0]}
	last=$(tail -n 1 "$log")
	if [[ $last =~ ^([0-9]+)\ checks,\ ([0-9]+)\ errors$ ]] &&
		[[ $((status == 0)) == $((BASH_REMATCH[2] == 0)) ]]; then
		count "memory order models" $((BASH_REMATCH[1] - BASH_REMATCH[2])) "${BASH_REMATCH[2]}" \
			$((SECONDS - started))
	else
		count "memory order models" 0 1 $((SECONDS - started)) "status $status, last line: $last"
	fi
}

# tally <name> <command>...: one whose last line is "N passed, N failed, N skipped"
tally()
{
	local name=$1 started=$SECONDS log last
	shift

	mkdir -p build
	log=build/${name//[^a-zA-Z0-9]/-}.txt
	say "== $name"
	"$@" 2>&1 | tee "$log" >&2
	last=$(tail -n 1 "$log")
	if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
		count "$name" "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" $((SECONDS - started)) \
			"$([[ ${BASH_REMATCH[3]} == 0 ]] || echo "${BASH_REMATCH[3]} skipped")"
		blame "$(sed -nE 's/^ *(failed|not ok [0-9]+) +([^ ]+).*/\2/p' "$log")"
	else
		count "$name" 0 1 $((SECONDS - started)) "did not finish: $last"
	fi
}

# qemu [--full]: build QEMU with godwit; real guests, and QEMU's own tests
qemu()
{
	local started=$SECONDS binary

	say "== QEMU with godwit"
	if ! binary=$(qemu-glue/build.sh --target tests/qtest/migration-test --target tests/unit/test-xbzrle |
		tail -n 1) || [[ ! -x $binary ]]; then
		count "QEMU with godwit" 0 1 $((SECONDS - started)) "did not build"
		return
	fi
	count "QEMU with godwit" 1 0 $((SECONDS - started))
	tally "QEMU, live guests" qemu-glue/tests/run --qemu "$binary" "$@"
	tally "QEMU, its own tests" qemu-glue/tests/qtest --build "${binary%/*}" "$@"
}

# files: what belongs to the project, one a line
files()
{
	if have_command git && git rev-parse --git-dir >/dev/null 2>&1; then
		git ls-files
	else
		find . -type f -not -path './build*' -not -path './.git/*' | sed 's#^\./##'
	fi
}

# hygiene: what a reviewer should not have to say
hygiene()
{
	local started=$SECONDS passed=0 failed=0 name found text sources scripts

	say "== hygiene"
	text=$(files | grep -E '\.(c|h|hpp|cpp|sh|cmake|in|map|md|supp|1)$|CMakeLists\.txt$|^(run|check|\.ci/run|perf/gates|tests/model/run)$|^qemu-glue/(build.sh|getqemu|mkguest|tests/qtest)$')
	sources=$(files | grep -E '\.(c|h)$')
	scripts=$(files | grep -E '\.sh$|^(run|check|\.ci/run|perf/gates|tests/model/run|qemu-glue/(getqemu|mkguest|tests/qtest))$')

	hygiene_one()
	{
		if [[ -z $2 ]]; then
			passed=$((passed + 1))
		else
			failed=$((failed + 1))
			say "hygiene: $1:"
			say "$2"
		fi
	}

	hygiene_one "trailing white space or a carriage return" \
		"$(xargs -r grep -nIE $'[ \t\r]+$' <<<"$text" /dev/null | head -n 20)"
	hygiene_one "no newline at the end of the file" "$(while read -r name; do
		[[ -z $name || ! -s $name || -z $(tail -c 1 "$name") ]] || echo "$name"; done <<<"$text")"
	hygiene_one "no licence line on top" "$(while read -r name; do
		[[ -z $name ]] || head -n 1 "$name" | grep -q SPDX-License-Identifier || echo "$name"
		done <<<"$sources")"
	hygiene_one "malloc and its kin in src/ (the engine has its own memory)" \
		"$(grep -nE '(^|[^_.>[:alnum:]])(malloc|calloc|realloc|free|strdup|asprintf)\(' -r src --include='*.c' |
			grep -vE '^src/engine/memory_libc\.c:|^[^:]*:[0-9]+:[[:space:]]*(\*|/\*|//)' | head -n 20)"
	found=""
	while read -r name; do
		[[ -z $name ]] && continue
		head -n 1 "$name" | grep -q bash || continue
		bash -n "$name" 2>/dev/null || found+="$name "
	done <<<"$scripts"
	hygiene_one "shell syntax" "$found"
	count "hygiene" "$passed" "$failed" $((SECONDS - started))
}

# summary: the block of lines, and the one line that programs read; the exit status
summary()
{
	local line

	say
	say "summary"
	for line in "${steps_report[@]}"; do
		say "  $line"
	done
	printf '%d passed, %d failed\n' "$steps_passed" "$steps_failed"
	[[ $steps_failed == 0 && $steps_passed != 0 ]]
}
