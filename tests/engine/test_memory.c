/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Arenas give everything back; the memory that is left is the least that anybody says. */
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "engine/limits.h"
#include "engine/memory.h"

/* ---- arenas ---- */

static uint64_t resident_bytes(void)
{
	unsigned long long size, resident = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	cr_assert(f && fscanf(f, "%llu %llu", &size, &resident) == 2);
	fclose(f);
	return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

Test(arena, memory_is_aligned_and_zeroed_when_asked)
{
	static const size_t sizes[] = { 0, 1, 63, 64, 65, 4096, 100000, 3 << 20, 33 << 20 };
	struct godwit_arena arena;

	cr_assert_eq(godwit_arena_create(&arena), 0);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		size_t bytes = sizes[i];
		uint8_t *mem = godwit_arena_alloc(&arena, bytes);

		cr_assert_not_null(mem);
		cr_expect_eq((uintptr_t)mem % 64, 0);
		memset(mem, 0xff, bytes);
		godwit_arena_free(&arena, mem);

		/* The same place, most likely. */
		mem = godwit_arena_alloc_zero(&arena, bytes);
		cr_assert_not_null(mem);
		cr_expect_eq((uintptr_t)mem % 64, 0);
		for (size_t at = 0; at < bytes; at++)
			cr_assert_eq(mem[at], 0, "byte %zu of %zu", at, bytes);
	}
	godwit_arena_free(&arena, NULL);
	godwit_arena_destroy(&arena);
}

Test(arena, what_cannot_be_had_is_null)
{
	struct godwit_arena arena;

	cr_assert_eq(godwit_arena_create(&arena), 0);
	cr_expect_null(godwit_arena_alloc(&arena, SIZE_MAX / 2 + 1));
	cr_expect_null(godwit_arena_alloc_zero(&arena, SIZE_MAX - 64));
	godwit_arena_destroy(&arena);
}

#ifndef GODWIT_LIBC_ALLOC

#define MANY (96u << 20)

static void fill(struct godwit_arena *arena, bool is_one)
{
	size_t piece = is_one ? MANY : 4096;

	for (size_t done = 0; done < MANY; done += piece) {
		void *mem = godwit_arena_alloc(arena, piece);

		cr_assert_not_null(mem);
		memset(mem, 1, piece);
	}
}

Test(arena, destroy_gives_everything_back_at_once)
{
	for (unsigned is_one = 0; is_one < 2; is_one++) {
		struct godwit_arena arena;
		uint64_t before, full, after;

		cr_assert_eq(godwit_arena_create(&arena), 0);
		before = resident_bytes();
		fill(&arena, is_one);
		full = resident_bytes();
		godwit_arena_destroy(&arena);
		after = resident_bytes();
		cr_expect_geq(full, before + MANY);
		cr_expect_lt(after, before + MANY / 16, "%llu bytes stay",
			     (unsigned long long)(after - before));
	}
}

/* A base that was made coarser must not stay resident until the migration ends. */
Test(arena, a_freed_table_goes_back_while_the_arena_lives)
{
	struct godwit_arena arena;
	uint64_t before, after;
	void *mem;

	cr_assert_eq(godwit_arena_create(&arena), 0);
	before = resident_bytes();
	mem = godwit_arena_alloc(&arena, MANY);
	memset(mem, 1, MANY);
	godwit_arena_free(&arena, mem);
	after = resident_bytes();
	cr_expect_lt(after, before + MANY / 16);
	godwit_arena_destroy(&arena);
}

/* However little it is, so that the first touch of it is one page fault. */
Test(arena, huge_memory_begins_and_ends_with_a_huge_page)
{
	const size_t huge = (size_t)1 << GODWIT_HUGE_SHIFT;
	static const size_t sizes[] = { 1, 264u << 10, (2u << 20) - 1, 2u << 20, (2u << 20) + 1, 5u << 20 };
	struct godwit_arena arena;

	cr_assert_eq(godwit_arena_create(&arena), 0);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint8_t *mem = godwit_arena_alloc_huge(&arena, sizes[i]);
		uint8_t *next = godwit_arena_alloc_huge(&arena, 1);

		cr_assert(mem && next);
		cr_expect_eq((uintptr_t)mem % huge, 0);
		memset(mem, 1, sizes[i]);
		cr_expect(next < mem || next >= mem + sizes[i]);
		cr_expect_eq((uintptr_t)next % huge, 0);
	}
	godwit_arena_destroy(&arena);
}

Test(arena, a_zeroed_table_costs_nothing_until_it_is_used)
{
	struct godwit_arena arena;
	uint64_t before, after;

	cr_assert_eq(godwit_arena_create(&arena), 0);
	before = resident_bytes();
	cr_assert_not_null(godwit_arena_alloc_zero(&arena, MANY));
	after = resident_bytes();
	cr_expect_lt(after, before + MANY / 16);
	godwit_arena_destroy(&arena);
}

#endif

static void *churn(void *arg)
{
	struct godwit_arena arena = *(struct godwit_arena *)arg;
	void *kept[16] = { NULL };

	for (unsigned i = 0; i < 4000; i++) {
		unsigned at = i * 7 % 16;

		godwit_arena_free(&arena, kept[at]);
		kept[at] = godwit_arena_alloc(&arena, 64 + i % 9000);
		if (!kept[at])
			return arg;
		memset(kept[at], (int)i, 64);
	}
	return NULL;
}

Test(arena, many_threads_use_copies_of_one_handle)
{
	struct godwit_arena arena;
	pthread_t thread[4];

	cr_assert_eq(godwit_arena_create(&arena), 0);
	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, churn, &arena), 0);
	for (unsigned i = 0; i < 4; i++) {
		void *failed;

		pthread_join(thread[i], &failed);
		cr_expect_null(failed);
	}
	godwit_arena_destroy(&arena);
}

Test(arena, hundreds_come_and_go)
{
	for (unsigned i = 0; i < 5000; i++) {
		struct godwit_arena arena;

		cr_assert_eq(godwit_arena_create(&arena), 0, "arena %u", i);
		cr_assert_not_null(godwit_arena_alloc(&arena, 1000));
		godwit_arena_destroy(&arena);
	}
}

/* ---- limits, in made-up trees ---- */

#define MIB (1024ull * 1024)
#define GIB (1024 * MIB)

static char root[] = "/tmp/godwit-limits-XXXXXX";

static void make_root(void)
{
	cr_assert_not_null(mkdtemp(root));
}

static void remove_root(void)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -rf %s", root);
	cr_assert_eq(system(command), 0);
}

static void put(const char *name, const char *text)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", root, name);
	for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = 0;
		mkdir(path, 0700);
		*slash = '/';
	}
	f = fopen(path, "w");
	cr_assert_not_null(f, "%s", path);
	fputs(text, f);
	fclose(f);
}

/* A host with 8 GiB available and a process of 1 GiB without limits. */
static void put_host(void)
{
	put("proc/meminfo", "MemTotal:       16777216 kB\nMemFree:         1048576 kB\n"
			    "MemAvailable:    8388608 kB\nBuffers:            2372 kB\n");
	put("proc/self/status", "Name:\tqemu\nVmPeak:\t 2000000 kB\nVmSize:\t 1048576 kB\n"
				"VmLck:\t       0 kB\nVmRSS:\t  524288 kB\nCapEff:\t0000000000000000\n");
	put("proc/self/limits", "Limit                     Soft Limit           Hard Limit           Units     \n"
				"Max locked memory         8388608              8388608              bytes     \n"
				"Max address space         unlimited            unlimited            bytes     \n");
}

TestSuite(limits, .init = make_root, .fini = remove_root);

Test(limits, nothing_readable_is_no_limit)
{
	cr_expect_eq(godwit_limits_memory_left_bytes(root), UINT64_MAX);
	cr_expect_eq(godwit_limits_processors(root), UINT32_MAX);
}

Test(limits, without_cgroups_the_host_decides)
{
	put_host();
	cr_expect_eq(godwit_limits_memory_left_bytes(root), 8 * GIB);
}

Test(limits, v2_counts_what_is_used_but_not_what_would_be_given_up)
{
	put_host();
	put("proc/self/cgroup", "0::/machine/vm1\n");
	put("sys/fs/cgroup/machine/vm1/memory.max", "4294967296\n");
	put("sys/fs/cgroup/machine/vm1/memory.high", "max\n");
	put("sys/fs/cgroup/machine/vm1/memory.current", "3221225472\n");
	cr_expect_eq(godwit_limits_memory_left_bytes(root), 1 * GIB);
	put("sys/fs/cgroup/machine/vm1/memory.stat",
	    "anon 2147483648\nfile 1073741824\nkernel 1\ninactive_anon 7\ninactive_file 536870912\nactive_file 5\n");
	cr_expect_eq(godwit_limits_memory_left_bytes(root), 1 * GIB + 512 * MIB);
	put("sys/fs/cgroup/machine/vm1/memory.high", "3221225472\n");
	cr_expect_eq(godwit_limits_memory_left_bytes(root), 512 * MIB);
	put("sys/fs/cgroup/machine/vm1/memory.current", "9221225472\n");
	cr_expect_eq(godwit_limits_memory_left_bytes(root), 0);
}

Test(limits, v2_asks_every_ancestor)
{
	put_host();
	put("proc/self/cgroup", "0::/machine/vm1/emulator\n");
	put("sys/fs/cgroup/machine/vm1/emulator/memory.max", "max\n");
	put("sys/fs/cgroup/machine/vm1/emulator/memory.current", "1\n");
	put("sys/fs/cgroup/machine/memory.max", "1073741824\n");
	put("sys/fs/cgroup/machine/memory.current", "805306368\n");
	cr_expect_eq(godwit_limits_memory_left_bytes(root), 256 * MIB);
}

/* A container's own cgroup is mounted as the root, while the path is the host's. */
Test(limits, v2_in_a_container_is_found_at_the_root)
{
	put_host();
	put("proc/self/cgroup", "0::/system.slice/docker-0123.scope\n");
	put("sys/fs/cgroup/memory.max", "536870912\n");
	put("sys/fs/cgroup/memory.current", "104857600\n");
	cr_expect_eq(godwit_limits_memory_left_bytes(root), 412 * MIB);
}

Test(limits, v1_is_read_beside_other_controllers)
{
	put_host();
	put("proc/self/cgroup", "12:cpuset:/\n5:cpu,cpuacct:/a\n4:memory:/docker/0123\n1:name=systemd:/x\n0::/x\n");
	put("sys/fs/cgroup/memory/docker/0123/memory.limit_in_bytes", "2147483648\n");
	put("sys/fs/cgroup/memory/docker/0123/memory.usage_in_bytes", "1610612736\n");
	put("sys/fs/cgroup/memory/docker/0123/memory.stat", "inactive_file 1\ntotal_inactive_file 268435456\n");
	put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	put("sys/fs/cgroup/memory/memory.usage_in_bytes", "9999999999\n");
	cr_expect_eq(godwit_limits_memory_left_bytes(root), 768 * MIB);
}

Test(limits, the_address_space_is_a_limit)
{
	put_host();
	put("proc/self/limits", "Max address space         2147483648           unlimited            bytes     \n");
	cr_expect_eq(godwit_limits_memory_left_bytes(root), 1 * GIB);
}

Test(limits, locked_memory_counts_when_all_of_it_is_locked)
{
	put_host();
	/* A page with a key in it. */
	put("proc/self/status", "VmSize:\t 1048576 kB\nVmLck:\t      64 kB\nCapEff:\t0000000000000000\n");
	cr_expect_eq(godwit_limits_memory_left_bytes(root), 8 * GIB);
	/* mlockall(), and 8 MiB of limit long used up. */
	put("proc/self/status", "VmSize:\t 1048576 kB\nVmLck:\t 1040000 kB\nCapEff:\t0000000000000000\n");
	cr_expect_eq(godwit_limits_memory_left_bytes(root), 0);
	put("proc/self/limits", "Max locked memory         1610612736           unlimited            bytes     \n");
	cr_expect_eq(godwit_limits_memory_left_bytes(root), 1610612736 - 1040000 * 1024ull);
	put("proc/self/limits", "Max locked memory         unlimited            unlimited            bytes     \n");
	cr_expect_eq(godwit_limits_memory_left_bytes(root), 8 * GIB);
	/* CAP_IPC_LOCK: the limit does not hold. */
	put("proc/self/limits", "Max locked memory         8388608              8388608              bytes     \n");
	put("proc/self/status", "VmSize:\t 1048576 kB\nVmLck:\t 1040000 kB\nCapEff:\t0000000000004000\n");
	cr_expect_eq(godwit_limits_memory_left_bytes(root), 8 * GIB);
}

Test(limits, quotas_are_whole_processors_and_at_least_one)
{
	put("proc/self/cgroup", "0::/a/b\n");
	put("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
	cr_expect_eq(godwit_limits_processors(root), UINT32_MAX);
	put("sys/fs/cgroup/a/cpu.max", "350000 100000\n");
	cr_expect_eq(godwit_limits_processors(root), 3);
	put("sys/fs/cgroup/a/b/cpu.max", "50000 100000\n");
	cr_expect_eq(godwit_limits_processors(root), 1);
	put("proc/self/cgroup", "3:cpuacct,cpu:/x\n");
	put("sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "-1\n");
	put("sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n");
	cr_expect_eq(godwit_limits_processors(root), UINT32_MAX);
	put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n");
	put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
	cr_expect_eq(godwit_limits_processors(root), 2);
}

Test(limits, long_and_odd_files_do_no_harm)
{
	static char text[9000];

	put_host();
	memset(text, 'x', sizeof(text) - 1);
	put("proc/self/cgroup", text);
	cr_expect_eq(godwit_limits_memory_left_bytes(root), 8 * GIB);
	memcpy(text, "0::/", 4);
	memset(text + 4, 'y', 2000);
	text[2004] = '\n';
	strcpy(text + 2005, "0::/deep");
	put("proc/self/cgroup", text);
	put("sys/fs/cgroup/memory.max", "1048576");
	cr_expect_eq(godwit_limits_memory_left_bytes(root), 1 * MIB);
	put("proc/self/cgroup", "0::/\n:\n::\n7\n\n0:memory\n");
	put("sys/fs/cgroup/memory.max", "99999999999999999999999999\n");
	put("sys/fs/cgroup/memory.current", "\n");
	put("sys/fs/cgroup/cpu.max", "100000 0\n");
	cr_expect_eq(godwit_limits_memory_left_bytes(root), 8 * GIB);
	cr_expect_eq(godwit_limits_processors(root), UINT32_MAX);
}

Test(limits, this_machine_has_some_left)
{
	uint64_t left = godwit_memory_left_bytes();

	cr_expect_gt(left, 1 * MIB);
	cr_expect_lt(left, UINT64_MAX);
	cr_expect_geq(godwit_limits_processors(""), 1);
}
