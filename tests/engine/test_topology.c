/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Placement on machines that hwloc makes up, so that NUMA is tested where there is none. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <criterion/criterion.h>

#include "engine/topology.h"

/* Two nodes of four cores of two threads: node 0 has processors 0 to 7, core c has 2c and 2c + 1. */
#define TWO_NODES "package:2 numa:1 core:4 pu:2"

static struct godwit_placement p;

static void order(const char *machine, uint64_t on_node0, uint64_t on_node1, unsigned long affinity)
{
	cr_assert_eq(godwit_placement_init_synthetic(&p, machine), 0);
	p.ram_pages[0] = on_node0;
	p.ram_pages[1] = on_node1;
	godwit_placement_order(&p, &affinity, 1);
}

static void expect(const int *cpus, unsigned nr)
{
	cr_expect_eq(p.nr_cpus, nr, "%u processors", p.nr_cpus);
	for (unsigned i = 0; i < nr; i++)
		cr_expect_eq(godwit_placement_cpu(&p, i), cpus[i], "worker %u on %d", i,
			     godwit_placement_cpu(&p, i));
	cr_expect_eq(godwit_placement_cpu(&p, nr), -1);
	godwit_placement_fini(&p);
}

#define EXPECT(...)                                                                \
	do {                                                                       \
		static const int cpus[] = { __VA_ARGS__ };                         \
		expect(cpus, sizeof(cpus) / sizeof(cpus[0]));                      \
	} while (0)

Test(placement, workers_go_to_the_node_of_the_ram_cores_before_threads)
{
	order(TWO_NODES, 0, 1000, ~0ul);
	EXPECT(8, 10, 12, 14, 9, 11, 13, 15);
}

Test(placement, ram_on_two_nodes_takes_turns)
{
	order(TWO_NODES, 600, 400, ~0ul);
	EXPECT(0, 8, 2, 10, 4, 12, 6, 14, 1, 9, 3, 11, 5, 13, 7, 15);
}

Test(placement, a_few_far_pages_are_no_reason_to_go_there)
{
	order(TWO_NODES, 100, 900, ~0ul);
	EXPECT(8, 10, 12, 14, 9, 11, 13, 15);
}

Test(placement, affinity_is_kept)
{
	order(TWO_NODES, 0, 1000, 0xfful << 4);	/* 4 to 11 */
	EXPECT(8, 10, 9, 11);
}

Test(placement, the_second_thread_of_a_core_serves_where_the_first_is_not_allowed)
{
	order(TWO_NODES, 1000, 0, 1ul << 1 | 1ul << 2 | 1ul << 3);
	EXPECT(1, 2, 3);
}

Test(placement, nodes_of_unequal_affinity_fill_up)
{
	order(TWO_NODES, 500, 500, 1ul << 0 | 0xfful << 8);
	EXPECT(0, 8, 10, 12, 14, 9, 11, 13, 15);
}

Test(placement, affinity_on_other_nodes_only_means_anywhere)
{
	order(TWO_NODES, 0, 1000, 0xff);
	expect(NULL, 0);
}

Test(placement, ram_that_says_nothing_means_anywhere)
{
	order(TWO_NODES, 0, 0, ~0ul);
	expect(NULL, 0);
}

Test(placement, a_machine_of_one_node_uses_all_its_cores)
{
	order("core:3 pu:2", 1, 0, ~0ul);
	EXPECT(0, 2, 4, 1, 3, 5);
}

Test(placement, more_processors_than_bits_in_a_word_are_in_order)
{
	unsigned long affinity[4] = { 0, 0, 0, 0 };

	cr_assert_eq(godwit_placement_init_synthetic(&p, "numa:4 core:32 pu:2"), 0);
	p.ram_pages[3] = 10;
	affinity[3] = ~0ul;
	godwit_placement_order(&p, affinity, 4);
	cr_expect_eq(p.nr_cpus, 64);
	cr_expect_eq(p.cpu[0], 192);
	cr_expect_eq(p.cpu[31], 254);
	cr_expect_eq(p.cpu[32], 193);
	cr_expect_eq(p.cpu[63], 255);
	godwit_placement_fini(&p);
}

Test(placement, nonsense_is_no_machine)
{
	cr_expect_eq(godwit_placement_init_synthetic(&p, "no such thing"), -EINVAL);
	godwit_placement_add(&p, &p, sizeof(p));
	cr_expect_eq(godwit_placement_cpu(&p, 0), -1);
	godwit_placement_fini(&p);
}

/* Where the kernel will not say the node of a page (a sandbox), -1 is right as well. */
Test(placement, on_this_machine_answers_are_within_the_affinity)
{
	size_t bytes = 4 << 20;
	void *ram = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cpu_set_t allowed;
	int cpu;

	cr_assert_neq(ram, MAP_FAILED);
	memset(ram, 1, bytes);
	cr_assert_eq(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
	godwit_placement_init(&p);
	cr_expect_eq(godwit_placement_cpu(&p, 0), -1);
	cr_expect_null(p.topology, "hwloc was opened and nobody asked");
	godwit_placement_add(&p, ram, bytes);
	for (unsigned i = 0; i < 4; i++) {
		cpu = godwit_placement_cpu(&p, i);
		cr_expect(cpu == -1 || CPU_ISSET(cpu, &allowed));
	}
	godwit_placement_fini(&p);
}

Test(placement, untouched_ram_says_nothing)
{
	void *ram = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(ram, MAP_FAILED);
	godwit_placement_init(&p);
	godwit_placement_add(&p, ram, 1 << 20);
	cr_expect_eq(godwit_placement_cpu(&p, 0), -1);
	godwit_placement_fini(&p);
}

Test(binding, a_thread_goes_where_it_is_sent)
{
	cpu_set_t set;
	int last = -1;

	cr_assert_eq(sched_getaffinity(0, sizeof(set), &set), 0);
	for (int i = 0; i < CPU_SETSIZE; i++)
		last = CPU_ISSET(i, &set) ? i : last;
	cr_assert_eq(godwit_topology_bind(pthread_self(), last), 0);
	cr_assert_eq(sched_getaffinity(0, sizeof(set), &set), 0);
	cr_expect_eq(CPU_COUNT(&set), 1);
	cr_expect(CPU_ISSET(last, &set));
	cr_expect_eq(sched_getcpu(), last);
	cr_expect_eq(godwit_topology_default_workers(), 1);
	cr_expect_eq(godwit_topology_processors(), 1);
}

Test(binding, a_processor_that_is_not_there_is_refused_and_nothing_changes)
{
	cpu_set_t before, after;

	cr_assert_eq(sched_getaffinity(0, sizeof(before), &before), 0);
	cr_expect_eq(godwit_topology_bind(pthread_self(), -1), 0);
	cr_expect_eq(godwit_topology_bind(pthread_self(), 8191), -EINVAL);
	cr_expect_eq(godwit_topology_bind(pthread_self(), 1 << 20), -EINVAL);
	cr_assert_eq(sched_getaffinity(0, sizeof(after), &after), 0);
	cr_expect(CPU_EQUAL(&before, &after));
}

Test(default_workers, are_the_processors_allowed_up_to_a_maximum)
{
	cpu_set_t set;
	unsigned cpus;

	cr_assert_eq(sched_getaffinity(0, sizeof(set), &set), 0);
	cpus = (unsigned)CPU_COUNT(&set);
	if (cpus > GODWIT_DEFAULT_WORKERS_MAX)
		cpus = GODWIT_DEFAULT_WORKERS_MAX;
	cr_expect_eq(godwit_topology_default_workers_at("/nonexistent"), cpus);
	cr_expect_geq(godwit_topology_default_workers(), 1);
	cr_expect_leq(godwit_topology_default_workers(), cpus);
}
