/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * topology.c - how many workers, and on which processors
 *
 * A worker reads every dirty page once, so on a machine with several NUMA nodes it belongs where the
 * RAM is. hwloc knows the cores and tells the node of a page. It asks the kernel about every page of a
 * range, which for a terabyte takes arrays of gigabytes: here 64 pages of each piece of RAM are asked about,
 * evenly spread, and stand for the rest. hwloc is opened by the first RAM that is added, and never without
 * placement; whatever it fails at leads to "anywhere", not to an error.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include <hwloc.h>

#include "engine/limits.h"
#include "engine/topology.h"

/* Unlike cpu_set_t, with which the kernel refuses to answer on a machine of more than 1024 processors. */
#define WORD_BITS (8 * sizeof(unsigned long))
#define AFFINITY_WORDS (8192 / WORD_BITS)

#define SAMPLES 64u
#define PAGE_BYTES 4096u

/* A node with less than this part of the RAM takes no turn: a few far pages are no reason to go there. */
#define NODE_PART 8u

static bool get_affinity(unsigned long words[AFFINITY_WORDS])
{
	memset(words, 0, AFFINITY_WORDS * sizeof(*words));
	return !sched_getaffinity(0, AFFINITY_WORDS * sizeof(*words), (cpu_set_t *)words);
}

/* ---- how many ---- */

static unsigned processors_at(const char *root)
{
	unsigned long words[AFFINITY_WORDS];
	uint32_t paid = godwit_limits_processors(root);
	unsigned nr = 0;

	if (get_affinity(words)) {
		for (unsigned i = 0; i < AFFINITY_WORDS; i++)
			nr += (unsigned)__builtin_popcountl(words[i]);
	}
	if (paid < nr)
		nr = paid;
	return nr ? nr : 1;
}

unsigned godwit_topology_processors(void)
{
	return processors_at("");
}

unsigned godwit_topology_default_workers_at(const char *root)
{
	unsigned nr = processors_at(root);

	return nr < GODWIT_DEFAULT_WORKERS_MAX ? nr : GODWIT_DEFAULT_WORKERS_MAX;
}

unsigned godwit_topology_default_workers(void)
{
	return godwit_topology_default_workers_at("");
}

/* ---- where ---- */

int godwit_topology_bind(pthread_t thread, int cpu)
{
	unsigned long words[AFFINITY_WORDS] = { 0 };

	if (cpu < 0)
		return 0;
	if ((unsigned)cpu >= AFFINITY_WORDS * WORD_BITS)
		return -EINVAL;
	words[(unsigned)cpu / WORD_BITS] = 1ul << ((unsigned)cpu % WORD_BITS);
	return -pthread_setaffinity_np(thread, sizeof(words), (cpu_set_t *)words);
}

void godwit_placement_init(struct godwit_placement *placement)
{
	memset(placement, 0, sizeof(*placement));
}

void godwit_placement_fini(struct godwit_placement *placement)
{
	if (placement->topology)
		hwloc_topology_destroy(placement->topology);
	memset(placement, 0, sizeof(*placement));
}

static int open_topology(struct godwit_placement *p, const char *synthetic)
{
	hwloc_topology_t topology;

	/* Once: a machine that cannot be read now cannot be read later. */
	p->is_broken = true;
	if (hwloc_topology_init(&topology))
		return -ENOMEM;
	if ((synthetic && hwloc_topology_set_synthetic(topology, synthetic)) ||
	    hwloc_topology_load(topology)) {
		hwloc_topology_destroy(topology);
		return -EINVAL;
	}
	p->topology = topology;
	p->is_broken = false;
	return 0;
}

int godwit_placement_init_synthetic(struct godwit_placement *placement, const char *description)
{
	godwit_placement_init(placement);
	return open_topology(placement, description);
}

void godwit_placement_add(struct godwit_placement *placement, const void *host, uint64_t bytes)
{
	uint64_t pages = bytes / PAGE_BYTES;
	unsigned samples = pages < SAMPLES ? (unsigned)pages : SAMPLES;
	hwloc_bitmap_t nodes;

	if (placement->is_broken || (!placement->topology && open_topology(placement, NULL)))
		return;
	nodes = hwloc_bitmap_alloc();
	for (unsigned i = 0; nodes && i < samples; i++) {
		const char *page = (const char *)host + pages * i / samples * PAGE_BYTES;
		int node;

		if (hwloc_get_area_memlocation(placement->topology, page, PAGE_BYTES, nodes,
					       HWLOC_MEMBIND_BYNODESET))
			continue;
		/* A page that was never touched is on no node, or on all of them. */
		node = hwloc_bitmap_first(nodes);
		if (hwloc_bitmap_weight(nodes) == 1 && node < (int)GODWIT_PLACEMENT_NODES)
			placement->ram_pages[node] += pages / samples;
	}
	hwloc_bitmap_free(nodes);
	placement->is_ordered = false;
}

static bool is_in(const unsigned long *affinity, unsigned words, int cpu)
{
	return cpu >= 0 && (unsigned)cpu < words * WORD_BITS &&
	       affinity[(unsigned)cpu / WORD_BITS] >> ((unsigned)cpu % WORD_BITS) & 1;
}

/* The thread-th processor of a core that may be used, or -1. */
static int cpu_of_core(hwloc_obj_t core, unsigned thread, const unsigned long *affinity, unsigned words)
{
	int cpu = -1;

	do {
		cpu = hwloc_bitmap_next(core->cpuset, cpu);
		if (is_in(affinity, words, cpu) && !thread--)
			return cpu;
	} while (cpu >= 0);
	return -1;
}

/* The n-th processor of a node, cores before hyper-threads, or -1 when there are not so many. */
static int cpu_of_node(struct godwit_placement *p, hwloc_obj_t node, unsigned n,
		       const unsigned long *affinity, unsigned words)
{
	int cores = hwloc_get_nbobjs_inside_cpuset_by_type(p->topology, node->cpuset, HWLOC_OBJ_CORE);
	bool is_any = true;

	for (unsigned thread = 0; is_any; thread++) {
		is_any = false;
		for (int i = 0; i < cores; i++) {
			hwloc_obj_t core = hwloc_get_obj_inside_cpuset_by_type(p->topology, node->cpuset,
									       HWLOC_OBJ_CORE, (unsigned)i);
			int cpu = cpu_of_core(core, thread, affinity, words);

			if (cpu < 0)
				continue;
			is_any = true;
			if (!n--)
				return cpu;
		}
	}
	return -1;
}

static unsigned choose_nodes(const struct godwit_placement *p, hwloc_obj_t node_ret[GODWIT_PLACEMENT_NODES])
{
	uint64_t all = 0;
	unsigned nodes = 0;

	for (unsigned i = 0; i < GODWIT_PLACEMENT_NODES; i++)
		all += p->ram_pages[i];
	for (unsigned i = 0; p->topology && all && i < GODWIT_PLACEMENT_NODES; i++) {
		hwloc_obj_t node = hwloc_get_numanode_obj_by_os_index(p->topology, i);

		if (node && p->ram_pages[i] * NODE_PART >= all)
			node_ret[nodes++] = node;
	}
	return nodes;
}

void godwit_placement_order(struct godwit_placement *placement, const unsigned long *affinity,
			    unsigned affinity_words)
{
	hwloc_obj_t node[GODWIT_PLACEMENT_NODES];
	unsigned nodes = choose_nodes(placement, node);
	bool is_any = nodes;

	placement->nr_cpus = 0;
	placement->is_ordered = true;
	for (unsigned turn = 0; is_any; turn++) {
		is_any = false;
		for (unsigned i = 0; i < nodes && placement->nr_cpus < GODWIT_PLACEMENT_CPUS; i++) {
			int cpu = cpu_of_node(placement, node[i], turn, affinity, affinity_words);

			if (cpu < 0)
				continue;
			placement->cpu[placement->nr_cpus++] = cpu;
			is_any = true;
		}
	}
}

int godwit_placement_cpu(struct godwit_placement *placement, unsigned i)
{
	unsigned long words[AFFINITY_WORDS];

	if (!placement->is_ordered && get_affinity(words))
		godwit_placement_order(placement, words, AFFINITY_WORDS);
	return i < placement->nr_cpus ? placement->cpu[i] : -1;
}
