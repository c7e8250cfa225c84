/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * topology.c - how many workers, and an order of processors near the RAM
 *
 * hwloc reads the whole machine to say where a page lies: it is opened by the first RAM that is added, and
 * never without placement. Whatever it fails at leads to "anywhere", not to an error.
 */
#include <errno.h>
#include <hwloc.h>
#include <sched.h>
#include <string.h>

#include "engine/limits.h"
#include "engine/topology.h"

/* A node with less than this part of the RAM takes no turn. */
#define NODE_PART 8u

/* hwloc tells the nodes of an area, not how much is on each: it is asked piece by piece. */
#define PIECES 64u
#define PAGE_BYTES 4096u

/* ---- how many ---- */

unsigned godwit_topology_default_workers_at(const char *root)
{
	uint32_t paid = godwit_limits_processors(root);
	cpu_set_t allowed;
	unsigned nr = 1;

	if (!sched_getaffinity(0, sizeof(allowed), &allowed))
		nr = (unsigned)CPU_COUNT(&allowed);
	if (paid < nr)
		nr = paid;
	if (nr > GODWIT_DEFAULT_WORKERS_MAX)
		nr = GODWIT_DEFAULT_WORKERS_MAX;
	return nr ? nr : 1;
}

unsigned godwit_topology_default_workers(void)
{
	return godwit_topology_default_workers_at("");
}

/* ---- where ---- */

void godwit_placement_init(struct godwit_placement *p)
{
	memset(p, 0, sizeof(*p));
}

void godwit_placement_fini(struct godwit_placement *p)
{
	if (p->topology)
		hwloc_topology_destroy(p->topology);
	memset(p, 0, sizeof(*p));
}

static void open_topology(struct godwit_placement *p)
{
	hwloc_topology_t topology;

	if (p->topology || p->is_broken)
		return;
	p->is_broken = true;
	if (hwloc_topology_init(&topology))
		return;
	if (hwloc_topology_load(topology)) {
		hwloc_topology_destroy(topology);
		return;
	}
	p->topology = topology;
	p->is_broken = false;
}

int godwit_placement_init_synthetic(struct godwit_placement *p, const char *description)
{
	hwloc_topology_t topology;

	godwit_placement_init(p);
	if (hwloc_topology_init(&topology))
		return -EINVAL;
	if (hwloc_topology_set_synthetic(topology, description) || hwloc_topology_load(topology)) {
		hwloc_topology_destroy(topology);
		return -EINVAL;
	}
	p->topology = topology;
	return 0;
}

void godwit_placement_add(struct godwit_placement *p, const void *host, uint64_t bytes)
{
	uint64_t piece_bytes = bytes / PIECES / PAGE_BYTES * PAGE_BYTES;
	hwloc_bitmap_t nodes;

	open_topology(p);
	nodes = p->topology ? hwloc_bitmap_alloc() : NULL;
	if (!nodes)
		return;
	if (!piece_bytes)
		piece_bytes = PAGE_BYTES;
	/* The first page of each piece speaks for the piece. */
	for (uint64_t at = 0; at < bytes; at += piece_bytes) {
		unsigned node;

		if (hwloc_get_area_memlocation(p->topology, (const char *)host + at, PAGE_BYTES, nodes,
					       HWLOC_MEMBIND_BYNODESET))
			continue;
		hwloc_bitmap_foreach_begin(node, nodes)
			if (node < GODWIT_PLACEMENT_NODES)
				p->ram_pages[node] += piece_bytes / PAGE_BYTES;
		hwloc_bitmap_foreach_end();
	}
	hwloc_bitmap_free(nodes);
	p->is_ordered = false;
}

/* The processors of a node in the order of use: the n-th thread of each core, for n = 0, 1, ... */
static unsigned order_node(hwloc_topology_t topology, hwloc_const_bitmap_t usable, int *cpu, unsigned room)
{
	int cores = hwloc_get_nbobjs_inside_cpuset_by_type(topology, usable, HWLOC_OBJ_PU) ?
			    hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE) : 0;
	unsigned nr = 0;
	bool found = true;

	for (unsigned thread = 0; found; thread++) {
		found = false;
		for (int i = 0; i < cores; i++) {
			hwloc_obj_t core = hwloc_get_obj_by_type(topology, HWLOC_OBJ_CORE, (unsigned)i);
			unsigned seen = 0, pu;

			hwloc_bitmap_foreach_begin(pu, core->cpuset)
				if (hwloc_bitmap_isset(usable, pu) && seen++ == thread && nr < room) {
					cpu[nr++] = (int)pu;
					found = true;
				}
			hwloc_bitmap_foreach_end();
		}
	}
	return nr;
}

void godwit_placement_order(struct godwit_placement *p, const unsigned long *affinity,
			    unsigned affinity_words)
{
	static const unsigned bits = 8 * sizeof(unsigned long);
	hwloc_topology_t topology = p->topology;
	int by_node[GODWIT_PLACEMENT_CPUS];
	hwloc_bitmap_t usable = hwloc_bitmap_alloc();
	uint64_t all = 0;
	unsigned rank[GODWIT_PLACEMENT_CPUS];	/* a processor's place within its node */
	unsigned nr = 0;

	p->nr_cpus = 0;
	p->is_ordered = true;
	for (unsigned node = 0; node < GODWIT_PLACEMENT_NODES; node++)
		all += p->ram_pages[node];
	for (unsigned node = 0; usable && topology && all && node < GODWIT_PLACEMENT_NODES; node++) {
		hwloc_obj_t numa = hwloc_get_numanode_obj_by_os_index(topology, node);
		unsigned here;

		if (!numa || p->ram_pages[node] * NODE_PART < all)
			continue;
		hwloc_bitmap_zero(usable);
		for (unsigned cpu = 0; cpu < affinity_words * bits; cpu++) {
			if (affinity[cpu / bits] >> (cpu % bits) & 1)
				hwloc_bitmap_set(usable, cpu);
		}
		hwloc_bitmap_and(usable, usable, numa->cpuset);
		here = order_node(topology, usable, by_node + nr, GODWIT_PLACEMENT_CPUS - nr);
		for (unsigned i = 0; i < here; i++)
			rank[nr + i] = i;
		nr += here;
	}
	/* Nodes take turns: all of the first rank, then all of the second. */
	for (unsigned turn = 0; p->nr_cpus < nr; turn++) {
		for (unsigned i = 0; i < nr; i++) {
			if (rank[i] == turn)
				p->cpu[p->nr_cpus++] = by_node[i];
		}
	}
	hwloc_bitmap_free(usable);
}

int godwit_placement_cpu(struct godwit_placement *p, unsigned i)
{
	if (!p->is_ordered) {
		cpu_set_t set;
		unsigned long affinity[sizeof(set) / sizeof(unsigned long)];

		CPU_ZERO(&set);
		if (sched_getaffinity(0, sizeof(set), &set))
			return -1;
		memcpy(affinity, &set, sizeof(affinity));
		godwit_placement_order(p, affinity, sizeof(affinity) / sizeof(affinity[0]));
	}
	return i < p->nr_cpus ? p->cpu[i] : -1;
}

int godwit_topology_bind_self(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return 0;
	CPU_ZERO(&set);
	CPU_SET((unsigned)cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set) ? -errno : 0;
}
