/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_TOPOLOGY_H
#define GODWIT_TOPOLOGY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * topology.h - how many workers, and on which processors
 *
 * Unless placement is asked for, workers inherit the affinity of the thread that makes them: the
 * hypervisor's management knows better than a library where its threads may run.
 */

/* Beyond this many workers a link of 100 Gbit/s is the limit even with zstd; more can be asked for. */
#define GODWIT_DEFAULT_WORKERS_MAX 8u

/* Processors that this thread may run on and that the cgroups pay for, at least 1. */
unsigned godwit_topology_processors(void);

/* Workers when nobody asked for a number: the same, at most GODWIT_DEFAULT_WORKERS_MAX. */
unsigned godwit_topology_default_workers(void);

/* The same, with the cgroups below root: see limits.h. */
unsigned godwit_topology_default_workers_at(const char *root);

/*
 * struct godwit_placement - processors near the RAM that is worked on.
 *
 * Between init and fini: add each piece of RAM, then ask for the processor of each worker. hwloc is opened
 * by the first add (some milliseconds). RAM that has no pages yet says nothing; without a word from any
 * RAM, or without hwloc, there is no preference and every answer is -1.
 *
 * Order of the answers: the nodes that hold at least an eighth of the RAM take turns; within a node one
 * processor of each core first, then the second hyper-threads, and so on. Only processors in the affinity of
 * the thread that asked first; workers beyond these get -1.
 *
 * Threads: one at a time. Nothing here may fail: what cannot be done is not done.
 */
#define GODWIT_PLACEMENT_NODES 64u
#define GODWIT_PLACEMENT_CPUS 256u

struct godwit_placement {
	void *topology;				/* hwloc_topology_t; NULL until needed */
	bool is_broken;				/* hwloc could not be opened */
	bool is_ordered;			/* cpu[] is up to date */
	uint64_t ram_pages[GODWIT_PLACEMENT_NODES];	/* by node, extrapolated */
	uint32_t nr_cpus;
	int cpu[GODWIT_PLACEMENT_CPUS];
};

void godwit_placement_init(struct godwit_placement *placement);
void godwit_placement_fini(struct godwit_placement *placement);
void godwit_placement_add(struct godwit_placement *placement, const void *host, uint64_t bytes);

/* The processor for worker number i, or -1: anywhere. */
int godwit_placement_cpu(struct godwit_placement *placement, unsigned i);

/* Bind a thread; -1: leave it. 0, or -errno where that is refused (a sandbox): it runs where it did. */
int godwit_topology_bind(pthread_t thread, int cpu);

/* For tests: a made-up machine, in hwloc's notation for synthetic topologies. 0 or -EINVAL. */
int godwit_placement_init_synthetic(struct godwit_placement *placement, const char *description);

/* As godwit_placement_cpu() does, with an affinity given: bit c of the words is processor c. */
void godwit_placement_order(struct godwit_placement *placement, const unsigned long *affinity,
			    unsigned affinity_words);

#endif
