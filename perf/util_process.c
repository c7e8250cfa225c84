/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * util_process.c - a sample of a running process's memory, without harm to it
 *
 * The process is neither stopped nor traced: /proc/PID/maps says what is mapped, pagemap which pages are
 * there, process_vm_readv() copies them. Soft-dirty bits would count writes, but clearing them
 * write-protects the whole process and breaks whoever else uses them; whoever wants to know what is
 * written reads the same sample twice. Pages that are not resident are left alone, for reading them
 * would make them so.
 *
 * A guest may have hundreds of millions of pages, so that there is no list of them: windows
 * of 64 neighbours go through a reservoir (Vitter's algorithm R), which keeps each with equal
 * probability in one pass. Neighbours are kept together because a batch holds neighbours.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "perf.h"

#define WINDOW_PAGES 64u
#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_SWAPPED (1ull << 62)
/* Read in one go: 2 GiB of guest. */
#define PAGEMAP_ENTRIES (512u << 10)

struct mapping {
	uint64_t start, end;
};

struct window {
	uint64_t address;
	uint64_t present;	/* bit i: page i is resident */
};

struct reservoir {
	struct window *window;
	uint64_t kept, cap, seen;
	uint64_t random;
};

static _Noreturn void die_of_access(int pid, const char *what, int err)
{
	if (err == ENOENT || err == ESRCH)
		die("there is no process %d (any more)", pid);
	if (err == EACCES || err == EPERM)
		die("%s of process %d may not be read: run as root, or as its user with kernel.yama.ptrace_scope = 0",
		    what, pid);
	die("%s of process %d: %s", what, pid, strerror(err));
}

static uint64_t next_random(uint64_t *state)
{
	/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators". */
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545F4914F6CDD1Dull;
}

static void offer(struct reservoir *reservoir, struct window window)
{
	uint64_t at = reservoir->seen++;

	if (at >= reservoir->cap)
		at = next_random(&reservoir->random) % reservoir->seen;
	if (at < reservoir->cap)
		reservoir->window[at] = window;
	if (reservoir->kept < reservoir->cap)
		reservoir->kept++;
}

/* Readable, writable memory: what a migration would send. Device memory must not be touched. */
static bool is_memory(const char *permissions, const char *name)
{
	return permissions[0] == 'r' && permissions[1] == 'w' && strncmp(name, "[v", 2) &&
	       (strncmp(name, "/dev/", 5) || !strncmp(name, "/dev/shm/", 9) ||
		!strncmp(name, "/dev/hugepages/", 15) || !strncmp(name, "/dev/zero", 9));
}

static struct mapping *read_mappings(int pid, size_t *nr_ret)
{
	struct mapping *mappings = NULL;
	char path[64], *line = NULL;
	size_t nr = 0, cap = 0, line_bytes = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	file = fopen(path, "re");
	if (!file)
		die_of_access(pid, "the memory map", errno);
	errno = 0;
	while (getline(&line, &line_bytes, file) > 0) {
		unsigned long start, end;
		char permissions[5];
		int name_at = 0;

		line[strcspn(line, "\n")] = '\0';
		if (sscanf(line, "%lx-%lx %4s %*s %*s %*s %n", &start, &end, permissions, &name_at) < 3 ||
		    !is_memory(permissions, name_at ? line + name_at : ""))
			continue;
		if (nr == cap) {
			cap = cap ? 2 * cap : 64;
			mappings = realloc(mappings, cap * sizeof(*mappings));
			if (!mappings)
				die("no memory for the memory map of process %d", pid);
		}
		mappings[nr++] = (struct mapping){ start, end };
	}
	if (ferror(file))
		die_of_access(pid, "the memory map", errno);
	free(line);
	fclose(file);
	if (!nr)
		die("process %d has no memory to look at; is it a kernel thread or a zombie?", pid);
	*nr_ret = nr;
	return mappings;
}

/* Pages of one stretch of pagemap, in windows. */
static void look_at_entries(struct process_sample *sample, struct reservoir *reservoir, uint64_t address,
			    const uint64_t *entry, size_t entries)
{
	for (size_t i = 0; i < entries; i += WINDOW_PAGES) {
		struct window window = { .address = address + i * GODWIT_PAGE_BYTES };

		for (size_t j = 0; j < WINDOW_PAGES && i + j < entries; j++) {
			window.present |= (uint64_t)!!(entry[i + j] & PAGEMAP_PRESENT) << j;
			sample->swapped_pages += !!(entry[i + j] & PAGEMAP_SWAPPED);
		}
		sample->resident_pages += (uint64_t)__builtin_popcountll(window.present);
		if (window.present)
			offer(reservoir, window);
	}
}

static void look_at_mapping(struct process_sample *sample, struct reservoir *reservoir, int pagemap,
			    const struct mapping *mapping, uint64_t *entry)
{
	uint64_t address = mapping->start;

	sample->mapped_pages += (mapping->end - mapping->start) / GODWIT_PAGE_BYTES;
	while (address < mapping->end) {
		uint64_t left = (mapping->end - address) / GODWIT_PAGE_BYTES;
		size_t wanted = left < PAGEMAP_ENTRIES ? (size_t)left : PAGEMAP_ENTRIES;
		ssize_t got = pread(pagemap, entry, wanted * sizeof(*entry),
				    (off_t)(address / GODWIT_PAGE_BYTES * sizeof(*entry)));

		if (got < 0)
			die_of_access(sample->pid, "the page map", errno);
		if (got < (ssize_t)sizeof(*entry))
			return;		/* unmapped meanwhile, or the process ended */
		look_at_entries(sample, reservoir, address, entry, (size_t)got / sizeof(*entry));
		address += (uint64_t)got / sizeof(*entry) * GODWIT_PAGE_BYTES;
	}
}

static int by_address(const void *a, const void *b)
{
	uint64_t x = ((const struct window *)a)->address, y = ((const struct window *)b)->address;

	return (x > y) - (x < y);
}

static void keep_addresses(struct process_sample *sample, struct reservoir *reservoir)
{
	qsort(reservoir->window, reservoir->kept, sizeof(*reservoir->window), by_address);
	sample->address = xcalloc(reservoir->kept * WINDOW_PAGES, sizeof(*sample->address));
	for (uint64_t i = 0; i < reservoir->kept; i++)
		for (unsigned j = 0; j < WINDOW_PAGES; j++)
			if (reservoir->window[i].present >> j & 1)
				sample->address[sample->pages++] =
					reservoir->window[i].address + j * (uint64_t)GODWIT_PAGE_BYTES;
}

void process_sample_choose(struct process_sample *sample, int pid, uint64_t max_pages,
			   bool is_largest_only)
{
	struct reservoir reservoir = { .cap = max_pages / WINDOW_PAGES ? max_pages / WINDOW_PAGES : 1,
				       .random = now_ns() | 1 };
	uint64_t *entry = xcalloc(PAGEMAP_ENTRIES, sizeof(*entry));
	struct mapping *mappings;
	char path[64];
	size_t nr, largest = 0;
	int pagemap;

	*sample = (struct process_sample){ .pid = pid };
	mappings = read_mappings(pid, &nr);
	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	if (pagemap < 0)
		die_of_access(pid, "the page map", errno);
	reservoir.window = xcalloc(reservoir.cap, sizeof(*reservoir.window));

	for (size_t i = 1; i < nr; i++)
		if (mappings[i].end - mappings[i].start > mappings[largest].end - mappings[largest].start)
			largest = i;
	for (size_t i = 0; i < nr; i++)
		if (!is_largest_only || i == largest)
			look_at_mapping(sample, &reservoir, pagemap, &mappings[i], entry);
	keep_addresses(sample, &reservoir);
	close(pagemap);
	free(reservoir.window);
	free(mappings);
	free(entry);
	if (!sample->pages)
		die("process %d has no resident page to look at", pid);
}

void process_sample_read(const struct process_sample *sample, uint8_t *pages)
{
	struct iovec to, from[WINDOW_PAGES];

	for (uint64_t at = 0; at < sample->pages;) {
		unsigned n = 0;

		for (; n < WINDOW_PAGES && at + n < sample->pages; n++)
			from[n] = (struct iovec){ (void *)(uintptr_t)sample->address[at + n], GODWIT_PAGE_BYTES };
		to = (struct iovec){ pages + at * GODWIT_PAGE_BYTES, n * (size_t)GODWIT_PAGE_BYTES };

		ssize_t got = process_vm_readv(sample->pid, &to, 1, from, n, 0);

		if (got < 0 && errno != EFAULT)
			die_of_access(sample->pid, "the memory", errno);
		n = got < 0 ? 0 : (unsigned)((size_t)got / GODWIT_PAGE_BYTES);
		at += n;
		if (n && at < sample->pages && (size_t)got == to.iov_len)
			continue;
		if (at < sample->pages) {
			/* The copy stopped at this page: it was unmapped since it was chosen. */
			memset(pages + at * GODWIT_PAGE_BYTES, 0, GODWIT_PAGE_BYTES);
			at++;
		}
	}
}

void process_sample_free(struct process_sample *sample)
{
	free(sample->address);
	*sample = (struct process_sample){ 0 };
}
