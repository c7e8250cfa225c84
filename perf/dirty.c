/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dirty.c - which guest pages were written since they were last looked at
 *
 * What must hold for every way: protect before the page is read for sending, and never forget a
 * write between "report" and "protect". PAGEMAP_SCAN does both under the page table lock. mprotect
 * collects first and protects after: a page that was reported will be read after the protection, and
 * one that was not is still read-only or has its bit set by a handler that is under way.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dirty.h"

/* From Linux 6.7's <linux/fs.h> and <linux/userfaultfd.h>; older headers lack them. */
struct scan_arg {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};
struct scan_region {
	uint64_t start;
	uint64_t end;
	uint64_t categories;
};
#define SCAN_IOCTL _IOWR('f', 16, struct scan_arg)
#define SCAN_IS_WRITTEN (1u << 1)
#define SCAN_WP_MATCHING (1u << 0)
#define SCAN_CHECK_WPASYNC (1u << 1)
#define FEATURE_WP_HUGETLBFS_SHMEM (1u << 12)
#define FEATURE_WP_UNPOPULATED (1u << 13)
#define FEATURE_WP_ASYNC (1u << 15)
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

#define SOFT_DIRTY_BIT 55
#define SCAN_REGIONS 512
#define PAGEMAP_CHUNK 1024

/* Every protected piece may become a mapping of its own; the kernel allows 65530 of them. */
#define MPROTECT_PIECES 16384u

struct dirty_tracker {
	enum dirty_way way;
	uint8_t *ram;
	uint64_t pages;

	int uffd;
	int pagemap;
	int clear_refs;
	struct scan_region *region;
	uint64_t *entry;

	/* mprotect: pieces of piece_pages pages, a bit for each, set by the handler. */
	uint64_t piece_pages;
	uint64_t pieces;
	_Atomic uint64_t *touched;
	struct sigaction before;
};

/* ---- bitmap ---- */

int dirty_bitmap_init(struct dirty_bitmap *bitmap, uint64_t pages)
{
	bitmap->word = calloc((pages + 63) / 64, sizeof(*bitmap->word));
	bitmap->pages = pages;
	bitmap->set = 0;
	return bitmap->word ? 0 : -ENOMEM;
}

void dirty_bitmap_fini(struct dirty_bitmap *bitmap)
{
	free(bitmap->word);
	bitmap->word = NULL;
}

void dirty_bitmap_fill(struct dirty_bitmap *bitmap)
{
	memset(bitmap->word, 0xff, bitmap->pages / 64 * 8);
	if (bitmap->pages % 64)
		bitmap->word[bitmap->pages / 64] = (1ull << bitmap->pages % 64) - 1;
	bitmap->set = bitmap->pages;
}

uint64_t dirty_bitmap_next(const struct dirty_bitmap *bitmap, uint64_t page, uint64_t end)
{
	while (page < end) {
		uint64_t word = bitmap->word[page / 64] >> page % 64;

		if (word) {
			page += (uint64_t)__builtin_ctzll(word);
			return page < end ? page : end;
		}
		page = (page / 64 + 1) * 64;
	}
	return end;
}

static void set_bits(struct dirty_bitmap *bitmap, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++) {
		uint64_t bit = 1ull << page % 64;

		bitmap->set += !(bitmap->word[page / 64] & bit);
		bitmap->word[page / 64] |= bit;
	}
}

/* ---- userfaultfd ---- */

static int uffd_scan(struct dirty_tracker *t, uint64_t first, uint64_t pages,
		     struct dirty_bitmap *bitmap, uint64_t *found_ret)
{
	uint64_t at = (uintptr_t)t->ram + first * GODWIT_PAGE_BYTES;
	uint64_t end = at + pages * GODWIT_PAGE_BYTES;

	while (at < end) {
		struct scan_arg arg = {
			.size = sizeof(arg),
			.flags = SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC,
			.start = at,
			.end = end,
			.vec = (uintptr_t)t->region,
			.vec_len = SCAN_REGIONS,
			.category_mask = SCAN_IS_WRITTEN,
			.return_mask = SCAN_IS_WRITTEN,
		};
		int got = ioctl(t->pagemap, SCAN_IOCTL, &arg);

		if (got < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		for (int i = 0; i < got && bitmap; i++) {
			uint64_t from = (t->region[i].start - (uintptr_t)t->ram) / GODWIT_PAGE_BYTES;
			uint64_t to = (t->region[i].end - (uintptr_t)t->ram) / GODWIT_PAGE_BYTES;

			set_bits(bitmap, from, to);
			*found_ret += to - from;
		}
		if (arg.walk_end <= at)
			return -EIO;	/* no headway: never loop on it */
		at = arg.walk_end;
	}
	return 0;
}

static int uffd_start(struct dirty_tracker *t, const char **why)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED | FEATURE_WP_HUGETLBFS_SHMEM,
	};
	struct uffdio_register range = {
		.range = { (uintptr_t)t->ram, t->pages * GODWIT_PAGE_BYTES },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_writeprotect protect = {
		.range = range.range,
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	uint64_t found = 0;
	int err;

	*why = "no userfaultfd(2)";
	t->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (t->uffd < 0)
		return -errno;
	*why = "no async write-protect (Linux 6.7)";
	if (ioctl(t->uffd, UFFDIO_API, &api) < 0 || ioctl(t->uffd, UFFDIO_REGISTER, &range) < 0 ||
	    ioctl(t->uffd, UFFDIO_WRITEPROTECT, &protect) < 0)
		goto fail;
	*why = "no PAGEMAP_SCAN (Linux 6.7)";
	t->region = calloc(SCAN_REGIONS, sizeof(*t->region));
	t->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (t->pagemap < 0 || !t->region)
		goto fail;
	err = uffd_scan(t, 0, t->pages, NULL, &found);
	if (err) {
		errno = -err;
		goto fail;
	}
	return 0;
fail:
	err = -errno;
	free(t->region);
	t->region = NULL;
	if (t->pagemap >= 0)
		close(t->pagemap);
	close(t->uffd);
	t->pagemap = t->uffd = -1;
	return err;
}

static void uffd_stop(struct dirty_tracker *t)
{
	/* Closing it lifts the registration, and the protection with it. */
	close(t->uffd);
	close(t->pagemap);
	free(t->region);
}

/* ---- soft-dirty ---- */

static int soft_clear(struct dirty_tracker *t)
{
	return pwrite(t->clear_refs, "4", 1, 0) == 1 ? 0 : -errno;
}

static int soft_scan(struct dirty_tracker *t, uint64_t first, uint64_t pages,
		     struct dirty_bitmap *bitmap, uint64_t *found_ret)
{
	for (uint64_t at = first; at < first + pages; at += PAGEMAP_CHUNK) {
		uint64_t count = first + pages - at < PAGEMAP_CHUNK ? first + pages - at : PAGEMAP_CHUNK;
		uint64_t number = (uintptr_t)t->ram / GODWIT_PAGE_BYTES + at;

		if (pread(t->pagemap, t->entry, count * 8, (off_t)(number * 8)) != (ssize_t)(count * 8))
			return errno ? -errno : -EIO;
		for (uint64_t i = 0; i < count; i++)
			if (t->entry[i] >> SOFT_DIRTY_BIT & 1) {
				set_bits(bitmap, at + i, at + i + 1);
				++*found_ret;
			}
	}
	return soft_clear(t);
}

/* The interface is there on every kernel, the bit is not: try it on a page of our own. */
static bool soft_works(struct dirty_tracker *t)
{
	volatile uint8_t *probe = mmap(NULL, GODWIT_PAGE_BYTES, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t clean = ~0ull, written = 0;
	off_t at = (off_t)((uintptr_t)probe / GODWIT_PAGE_BYTES * 8);

	if (probe == MAP_FAILED)
		return false;
	probe[0] = 1;
	if (soft_clear(t) || pread(t->pagemap, &clean, 8, at) != 8)
		clean = ~0ull;
	probe[0] = 2;
	if (pread(t->pagemap, &written, 8, at) != 8)
		written = 0;
	munmap((void *)probe, GODWIT_PAGE_BYTES);
	return !(clean >> SOFT_DIRTY_BIT & 1) && (written >> SOFT_DIRTY_BIT & 1);
}

static int soft_start(struct dirty_tracker *t, const char **why)
{
	*why = "kernel without soft-dirty bits";
	t->clear_refs = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	t->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	t->entry = calloc(PAGEMAP_CHUNK, sizeof(*t->entry));
	if (t->clear_refs >= 0 && t->pagemap >= 0 && t->entry && soft_works(t))
		return soft_clear(t);
	free(t->entry);
	if (t->clear_refs >= 0)
		close(t->clear_refs);
	if (t->pagemap >= 0)
		close(t->pagemap);
	t->entry = NULL;
	t->clear_refs = t->pagemap = -1;
	return -ENOTSUP;
}

static void soft_stop(struct dirty_tracker *t)
{
	close(t->clear_refs);
	close(t->pagemap);
	free(t->entry);
}

/* ---- mprotect ---- */

static struct dirty_tracker *_Atomic faulting;

static size_t piece_bytes(const struct dirty_tracker *t)
{
	return t->piece_pages * GODWIT_PAGE_BYTES;
}

static void on_fault(int number, siginfo_t *info, void *context)
{
	/* D1 acquire, meets D2: the tracker is whole before a page is protected. */
	struct dirty_tracker *t = atomic_load_explicit(&faulting, memory_order_acquire);
	uint64_t offset = t ? (uintptr_t)info->si_addr - (uintptr_t)t->ram : UINT64_MAX;
	int saved = errno;

	if (!t || offset >= t->pages * GODWIT_PAGE_BYTES) {
		/* Not ours: let it fault again into what was there before. */
		signal(SIGSEGV, SIG_DFL);
		return;
	}

	uint64_t piece = offset / piece_bytes(t);

	/*
	 * Writable first, noted after: if the scan comes between, it finds no bit and protects again, and
	 * the bit then stands for the next scan. The other way round, the scan could take the bit before
	 * the piece becomes writable, and later writes would go unseen.
	 */
	if (mprotect(t->ram + piece * piece_bytes(t), piece_bytes(t), PROT_READ | PROT_WRITE) < 0)
		_exit(EXIT_FAILED);
	/* Relaxed: the migration thread's mprotect() and this one order themselves in the kernel. */
	atomic_fetch_or_explicit(&t->touched[piece / 64], 1ull << piece % 64, memory_order_relaxed);
	errno = saved;
}

static int mprotect_scan(struct dirty_tracker *t, uint64_t first, uint64_t pages,
			 struct dirty_bitmap *bitmap, uint64_t *found_ret)
{
	uint64_t piece = first / t->piece_pages;
	uint64_t end = (first + pages + t->piece_pages - 1) / t->piece_pages;

	for (; piece < end; piece++) {
		uint64_t bit = 1ull << piece % 64;

		/* Only ever set elsewhere: a bit that is not seen now is seen by the next scan. */
		if (!(atomic_load_explicit(&t->touched[piece / 64], memory_order_relaxed) & bit))
			continue;
		atomic_fetch_and_explicit(&t->touched[piece / 64], ~bit, memory_order_relaxed);
		if (mprotect(t->ram + piece * piece_bytes(t), piece_bytes(t), PROT_READ) < 0)
			return -errno;
		set_bits(bitmap, piece * t->piece_pages, (piece + 1) * t->piece_pages);
		*found_ret += t->piece_pages;
	}
	return 0;
}

static int mprotect_start(struct dirty_tracker *t, const char **why)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER };

	*why = "cannot protect guest RAM";
	t->piece_pages = 1;
	while (t->pages / t->piece_pages > MPROTECT_PIECES)
		t->piece_pages *= 2;
	if (t->pages % t->piece_pages) {
		*why = "RAM is not a multiple of the piece that must be protected at once";
		return -EINVAL;
	}
	t->pieces = t->pages / t->piece_pages;
	t->touched = calloc((t->pieces + 63) / 64, sizeof(*t->touched));
	if (!t->touched)
		return -ENOMEM;
	/* D2 release, meets D1 in on_fault(). */
	atomic_store_explicit(&faulting, t, memory_order_release);
	sigaction(SIGSEGV, &action, &t->before);
	if (mprotect(t->ram, t->pages * GODWIT_PAGE_BYTES, PROT_READ) == 0)
		return 0;

	int err = -errno;

	sigaction(SIGSEGV, &t->before, NULL);
	free(t->touched);
	return err;
}

static void mprotect_stop(struct dirty_tracker *t)
{
	mprotect(t->ram, t->pages * GODWIT_PAGE_BYTES, PROT_READ | PROT_WRITE);
	sigaction(SIGSEGV, &t->before, NULL);
	atomic_store_explicit(&faulting, NULL, memory_order_relaxed);
	free(t->touched);
}

/* ---- the three, best first ---- */

static const struct {
	enum dirty_way way;
	bool needs_pause;
	const char *name;
	int (*start)(struct dirty_tracker *t, const char **why);
	void (*stop)(struct dirty_tracker *t);
	int (*scan)(struct dirty_tracker *t, uint64_t first, uint64_t pages,
		    struct dirty_bitmap *bitmap, uint64_t *found_ret);
} ways[] = {
	{ DIRTY_UFFD, false, "userfaultfd write-protect (async) + PAGEMAP_SCAN", uffd_start, uffd_stop,
	  uffd_scan },
	{ DIRTY_MPROTECT, false, "mprotect + SIGSEGV", mprotect_start, mprotect_stop, mprotect_scan },
	{ DIRTY_SOFT, true, "soft-dirty bits", soft_start, soft_stop, soft_scan },
};
#define NR_WAYS (sizeof(ways) / sizeof(ways[0]))

static unsigned way_index(const struct dirty_tracker *t)
{
	unsigned i = 0;

	while (ways[i].way != t->way)
		i++;
	return i;
}

int dirty_start(struct dirty_tracker **tracker_ret, enum dirty_way way, void *ram, uint64_t pages,
		char why[DIRTY_WHY])
{
	struct dirty_tracker *t = calloc(1, sizeof(*t));
	int err = -ENOTSUP;
	size_t used = 0;

	why[0] = '\0';
	if (!t)
		return -ENOMEM;
	*t = (struct dirty_tracker){ .ram = ram, .pages = pages, .uffd = -1, .pagemap = -1, .clear_refs = -1 };
	for (unsigned i = 0; i < NR_WAYS; i++) {
		const char *reason;

		if (way != DIRTY_AUTO && way != ways[i].way)
			continue;
		t->way = ways[i].way;
		err = ways[i].start(t, &reason);
		if (!err) {
			*tracker_ret = t;
			return 0;
		}
		int wrote = snprintf(why + used, DIRTY_WHY - used, "%s%s: %s (%s)", used ? "; " : "",
				     ways[i].name, reason, strerror(-err));

		used = used + (size_t)wrote < DIRTY_WHY ? used + (size_t)wrote : DIRTY_WHY - 1;
	}
	free(t);
	return err;
}

void dirty_stop(struct dirty_tracker *tracker)
{
	if (!tracker)
		return;
	ways[way_index(tracker)].stop(tracker);
	free(tracker);
}

const char *dirty_name(const struct dirty_tracker *tracker)
{
	return ways[way_index(tracker)].name;
}

bool dirty_needs_pause(const struct dirty_tracker *tracker)
{
	return ways[way_index(tracker)].needs_pause;
}

int dirty_scan(struct dirty_tracker *tracker, uint64_t first, uint64_t pages,
	       struct dirty_bitmap *bitmap, uint64_t *found_ret)
{
	*found_ret = 0;
	return ways[way_index(tracker)].scan(tracker, first, pages, bitmap, found_ret);
}
