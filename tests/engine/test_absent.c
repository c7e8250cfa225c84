/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test_absent.c - pages of zeros for memory that is not there
 *
 * Memory that nobody wrote to must stay away, at both ends, and no page must ever be taken for zeros when it is
 * not: what is below an absent page may be a file, or memory of others.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/absent.h"
#include "engine/memory.h"
#include "pair.h"

#define BLOCK 7u
#define PAGES 1280u
#define BYTES (PAGES * PAGE)

static uint8_t *map_file(int file, int flags)
{
	uint8_t *mem = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, flags, file, 0);

	cr_assert_neq(mem, MAP_FAILED);
	madvise(mem, BYTES, MADV_NOHUGEPAGE);
	return mem;
}

static uint8_t *map(int flags)
{
	return map_file(-1, flags | MAP_ANONYMOUS);
}

/* A file in memory, full of what is not zero. */
static int new_file(void)
{
	int file = (int)syscall(SYS_memfd_create, "test", 0);
	uint8_t page[PAGE];

	cr_assert_geq(file, 0);
	memset(page, 0xA5, PAGE);
	for (unsigned i = 0; i < PAGES; i++)
		cr_assert_eq(pwrite(file, page, PAGE, (off_t)(i * PAGE)), PAGE);
	return file;
}

static unsigned count_resident(const uint8_t *mem)
{
	unsigned char is_there[PAGES];
	unsigned there = 0;

	cr_assert_eq(mincore((void *)(uintptr_t)mem, BYTES, is_there), 0);
	for (unsigned i = 0; i < PAGES; i++)
		there += is_there[i] & 1;
	return there;
}

/* ---- the system's word ---- */

Test(absent, is_each_page_that_nobody_wrote_to)
{
	int pagemap = godwit_absent_open();
	uint8_t *mem = map(MAP_PRIVATE);
	struct godwit_absent absent = { 0 };
	uint64_t seed = 5;
	unsigned there;

	cr_assert_geq(pagemap, 0);
	for (unsigned i = 0; i < 40; i++)
		mem[rand_below(&seed, BYTES)] = 1;
	there = count_resident(mem);
	/* Up, down and anywhere: the page asked about is in what was asked before, or is not. */
	for (unsigned order = 0; order < 3; order++) {
		absent = (struct godwit_absent){ 0 };
		godwit_absent_begin(&absent, pagemap);
		for (unsigned i = 0; i < PAGES; i++) {
			unsigned page = order == 0 ? i : order == 1 ? PAGES - 1 - i :
								      (unsigned)rand_below(&seed, PAGES);
			unsigned char is_there;

			cr_assert_eq(mincore(mem + page * PAGE, PAGE, &is_there), 0);
			cr_assert_eq(godwit_absent_is(&absent, mem + page * PAGE), !(is_there & 1), "page %u", page);
		}
	}
	cr_expect_eq(count_resident(mem), there, "asking gives no memory");
	/* What is written between two questions is there, and what is given back may be called so. */
	for (unsigned round = 0; round < 1000; round++) {
		uint8_t *page = mem + rand_below(&seed, PAGES) * PAGE;

		godwit_absent_begin(&absent, pagemap);
		godwit_absent_is(&absent, page);
		page[0] = 1;
		godwit_absent_begin(&absent, pagemap);
		cr_assert(!godwit_absent_is(&absent, page));
		madvise(page, PAGE, MADV_DONTNEED);
	}
	/* Nobody remembers anything: all is absent. */
	madvise(mem, BYTES, MADV_DONTNEED);
	absent = (struct godwit_absent){ 0 };
	godwit_absent_begin(&absent, pagemap);
	for (unsigned i = 0; i < PAGES; i++)
		cr_assert(godwit_absent_is(&absent, mem + i * PAGE));
	/* One that lies in two of the system's pages, and where nobody can be asked. */
	cr_expect(!godwit_absent_is(&absent, mem + 64));
	godwit_absent_begin(&absent, -1);
	cr_expect(!godwit_absent_is(&absent, mem));
	close(pagemap);
	godwit_absent_begin(&absent, pagemap);
	cr_expect(!godwit_absent_is(&absent, mem), "no answer is no");
}

/* A pagemap that says of everything that it is absent, and one that says nothing. */
Test(absent, nothing_is_by_a_pagemap_that_is_not_sound)
{
	int pagemap = godwit_absent_open(), file = (int)syscall(SYS_memfd_create, "test", 0);

	cr_expect(godwit_absent_is_sound(pagemap));
	cr_expect(!godwit_absent_is_sound(file));
	cr_assert_eq(ftruncate(file, (off_t)1 << 40), 0);
	cr_expect(!godwit_absent_is_sound(file));
	cr_expect(!godwit_absent_is_sound(-1));
	godwit_absent_close(pagemap);
	close(file);
}

Test(absent, may_only_be_private_anonymous_memory)
{
	int file = new_file();
	uint8_t *mem = map(MAP_PRIVATE), *shared = map(MAP_SHARED), *private_file = map_file(file, MAP_PRIVATE);

	cr_expect(godwit_absent_may_be(mem, BYTES));
	cr_expect(godwit_absent_may_be(mem + 64, BYTES - 128));
	cr_expect(godwit_absent_may_be(mem, GODWIT_HUGE_BYTES));
	cr_expect(!godwit_absent_may_be(mem, GODWIT_HUGE_BYTES - PAGE), "not worth it");
	cr_expect(!godwit_absent_may_be(shared, BYTES));
	cr_expect(!godwit_absent_may_be(private_file, BYTES));
	cr_expect(!godwit_absent_may_be((void *)PAGE, GODWIT_HUGE_BYTES), "nothing is mapped there");
	cr_expect(!godwit_absent_may_be((void *)(UINTPTR_MAX - 2 * GODWIT_HUGE_BYTES + 1), GODWIT_HUGE_BYTES),
		  "nor behind the last");
	/* In several pieces, of other rights. */
	mprotect(mem + 100 * PAGE, 10 * PAGE, PROT_READ);
	madvise(mem + 200 * PAGE, 10 * PAGE, MADV_DONTDUMP);
	cr_expect(godwit_absent_may_be(mem, BYTES));
	/* Something else in the middle. */
	cr_assert_neq(mmap(mem + 600 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file, 0),
		      MAP_FAILED);
	cr_expect(!godwit_absent_may_be(mem, BYTES));
	cr_expect(!godwit_absent_may_be(mem, 600 * PAGE + 1));
	cr_expect(godwit_absent_may_be(mem, 600 * PAGE));
	cr_expect(godwit_absent_may_be(mem + 601 * PAGE, BYTES - 601 * PAGE));
	/* And a hole. */
	munmap(mem + 600 * PAGE, PAGE);
	cr_expect(!godwit_absent_may_be(mem, BYTES));
	cr_expect(!godwit_absent_may_be(mem + 600 * PAGE, BYTES - 600 * PAGE));
}

/* ---- a destination that gets zeros ---- */

struct bench {
	struct pair pair;		/* its receiving side alone */
	struct godwit_source *source;
	uint8_t *zeros;
};

static void bench_open(struct bench *b, uint8_t *mem, uint32_t populate)
{
	struct godwit_source_options from = GODWIT_SOURCE_OPTIONS_INIT;
	struct godwit_destination_options to = GODWIT_DESTINATION_OPTIONS_INIT;
	struct godwit_error error = { "" };

	*b = (struct bench){ .zeros = map(MAP_PRIVATE) };
	from.params.workers = to.workers = 2;
	to.populate = populate;
	cr_assert_eq(godwit_source_create(&from, &b->source, &error), 0, "%s", error.text);
	cr_assert_eq(godwit_source_add_block(b->source, BLOCK, "ram", b->zeros, BYTES, &error), 0, "%s", error.text);
	cr_assert_eq(godwit_destination_create(&to, &b->pair.destination, &error), 0, "%s", error.text);
	cr_assert_eq(godwit_destination_add_block(b->pair.destination, BLOCK, "ram", mem, BYTES, &error), 0, "%s",
		     error.text);
}

static void bench_close(struct bench *b)
{
	godwit_source_destroy(b->source);
	godwit_destination_destroy(b->pair.destination);
}

static void write_all(struct bench *b)
{
	struct godwit_error error = { "" };
	struct iovec iov[8];
	int n;

	while ((n = godwit_source_collect(b->source, 1, iov, 8))) {
		for (int i = 0; i < n; i++)
			cr_assert_eq(pair_receive(&b->pair, iov[i].iov_base, iov[i].iov_len, &error), 0, "%s",
				     error.text);
		godwit_source_release(b->source);
	}
}

/* Every step-th page goes as a page of zeros. */
static void send_zeros(struct bench *b, unsigned step)
{
	struct godwit_error error = { "" };
	int got;

	for (unsigned page = 0; page < PAGES; page += step) {
		while ((got = godwit_source_queue(b->source, BLOCK, page, b->zeros + page * PAGE, &error)) ==
		       GODWIT_QUEUE_COLLECT)
			write_all(b);
		cr_assert_eq(got, GODWIT_QUEUE_OK, "%s", error.text);
	}
	while ((got = godwit_source_drain(b->source, &error)) == GODWIT_QUEUE_COLLECT)
		write_all(b);
	cr_assert_eq(got, GODWIT_QUEUE_OK, "%s", error.text);
	write_all(b);
	cr_assert_eq(godwit_destination_drain(b->pair.destination, &error), 0, "%s", error.text);
}

static void check_zeros(const uint8_t *mem, unsigned step, const char *what)
{
	for (unsigned page = 0; page < PAGES; page += step) {
		for (unsigned i = 0; i < PAGE; i++)
			cr_assert_eq(mem[page * PAGE + i], 0, "%s: page %u, byte %u", what, page, i);
	}
}

Test(absent, memory_stays_so_when_zeros_come_for_it)
{
	uint8_t *mem = map(MAP_PRIVATE);
	struct bench b;

	bench_open(&b, mem, 0);
	mem[9 * PAGE] = mem[130 * PAGE + 5] = 1;
	send_zeros(&b, 1);
	cr_expect_eq(count_resident(mem), 2, "%u pages", count_resident(mem));
	check_zeros(mem, 1, "private");
	bench_close(&b);
}

Test(absent, memory_is_given_where_each_page_must_be_there)
{
	uint8_t *mem = map(MAP_PRIVATE);
	struct bench b;

	bench_open(&b, mem, 1);
	send_zeros(&b, 2);
	cr_expect_eq(count_resident(mem), PAGES / 2, "%u pages", count_resident(mem));
	bench_close(&b);
}

/* Pages come another way as well, between two drains, and nobody tells the destination. */
Test(absent, no_page_is_that_somebody_else_wrote)
{
	uint8_t *mem = map(MAP_PRIVATE);
	uint64_t seed = 11;
	struct bench b;

	bench_open(&b, mem, 0);
	for (unsigned round = 0; round < 30; round++) {
		unsigned step = 1 + (unsigned)rand_below(&seed, 80);

		for (unsigned i = 0; i < 60; i++)
			fill_random(mem + rand_below(&seed, PAGES) * PAGE, &seed);
		send_zeros(&b, step);
		check_zeros(mem, step, "round");
		if (round % 7 == 6)
			madvise(mem, BYTES, MADV_DONTNEED);
	}
	bench_close(&b);
}

/* Not in our page tables, and not zeros. */
static const struct behind {
	const char *what;
	int flags;
	unsigned from;		/* page; before it the memory is anonymous */
} behind[] = {
	{ "a private file", MAP_PRIVATE, 0 },
	{ "a shared file", MAP_SHARED, 0 },
	{ "half a file", MAP_PRIVATE, PAGES / 2 },
};
#define BEHIND (sizeof(behind) / sizeof(behind[0]))

static void put_behind(uint8_t *mem, const struct behind *what)
{
	size_t from = what->from * (size_t)PAGE;

	cr_assert_neq(mmap(mem + from, BYTES - from, PROT_READ | PROT_WRITE, what->flags | MAP_FIXED, new_file(), 0),
		      MAP_FAILED);
}

Test(absent, no_page_is_of_memory_with_something_behind_it)
{
	for (unsigned c = 0; c < BEHIND; c++) {
		uint8_t *mem = map(MAP_PRIVATE);
		struct bench b;

		put_behind(mem, &behind[c]);
		bench_open(&b, mem, 0);
		send_zeros(&b, 3);
		check_zeros(mem, 3, behind[c].what);
		bench_close(&b);
	}
}

/* ---- a source whose guest never touched some of its memory ---- */

static const struct kind {
	const char *name;
	uint32_t stream, base;
} kinds[] = {
	{ "signatures", GODWIT_STREAM_GODWIT, GODWIT_BASE_SIGNATURES },
	{ "pages", GODWIT_STREAM_GODWIT, GODWIT_BASE_PAGES },
	{ "no base", GODWIT_STREAM_GODWIT, GODWIT_BASE_OFF },
	{ "stock, signatures", GODWIT_STREAM_STOCK, GODWIT_BASE_SIGNATURES },
	{ "stock, pages", GODWIT_STREAM_STOCK, GODWIT_BASE_PAGES },
	{ "stock, no base", GODWIT_STREAM_STOCK, GODWIT_BASE_OFF },
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static struct pair_block *open_workers(struct pair *pair, const struct kind *kind, unsigned workers)
{
	struct godwit_params params = GODWIT_PARAMS_INIT;
	struct pair_block *block;

	params.workers = workers;
	params.base = kind->base;
	params.when_busy = GODWIT_WHEN_BUSY_WAIT;
	pair_open_stream(pair, &params, kind->stream);
	block = pair_add_block(pair, BLOCK, PAGES);
	madvise(block->guest, BYTES, MADV_NOHUGEPAGE);
	return block;
}

static struct pair_block *open_kind(struct pair *pair, const struct kind *kind)
{
	return open_workers(pair, kind, 2);
}

/* The block's memory is another now: the source is told. */
static void add_again(struct pair *pair, const struct pair_block *block)
{
	struct godwit_error error = { "" };

	cr_assert_eq(godwit_source_remove_block(pair->source, BLOCK, &error), 0, "%s", error.text);
	cr_assert_eq(godwit_source_add_block(pair->source, BLOCK, block->name, block->guest, BYTES, &error), 0, "%s",
		     error.text);
}

Test(absent, guest_memory_stays_so_when_it_is_sent)
{
	for (unsigned k = 0; k < KINDS; k++) {
		struct pair pair;
		struct pair_block *block = open_kind(&pair, &kinds[k]);
		uint64_t seed = 3;
		unsigned there;

		for (unsigned i = 0; i < 90; i++)
			fill_random(block->guest + rand_below(&seed, PAGES) * PAGE, &seed);
		there = count_resident(block->guest);
		pair_send_all(&pair);
		cr_expect_eq(count_resident(block->guest), there, "%s: %u pages of %u", kinds[k].name,
			     count_resident(block->guest), there);
		pair_check_equal(&pair, kinds[k].name);
		pair_close(&pair);
	}
}

/* A -> absent -> A, absent -> A -> B, and what lies between: the page that arrives is that of the guest. */
Test(absent, guest_memory_that_comes_and_goes_is_what_is_sent)
{
	for (unsigned k = 0; k < KINDS; k++) {
		struct pair pair;
		struct pair_block *block = open_kind(&pair, &kinds[k]);
		uint64_t seed = 17 + k;

		for (unsigned round = 0; round < 30; round++) {
			for (unsigned i = 0; i < 20; i++) {
				uint8_t *page = block->guest + rand_below(&seed, PAGES) * PAGE;

				if (rand_below(&seed, 2))
					poke(page, 2, &seed);
				else
					fill_random(page, &seed);
				page = block->guest + rand_below(&seed, PAGES) * PAGE;
				madvise(page, PAGE, MADV_DONTNEED);
			}
			if (round % 7 == 6)
				cr_assert_eq(godwit_source_forget(pair.source, BLOCK, rand_below(&seed, PAGES), 100), 0);
			pair_send_all(&pair);
			pair_check_equal(&pair, kinds[k].name);
		}
		pair_close(&pair);
	}
}

/* The same worker, the same huge page: what was absent a moment ago is no longer. */
Test(absent, guest_memory_is_looked_at_anew_in_each_batch)
{
	for (unsigned k = 0; k < KINDS; k++) {
		struct pair pair;
		struct pair_block *block = open_workers(&pair, &kinds[k], 1);
		uintptr_t huge = ((uintptr_t)block->guest + GODWIT_HUGE_BYTES - 1) & ~(GODWIT_HUGE_BYTES - 1);
		unsigned first = (unsigned)((huge - (uintptr_t)block->guest) / PAGE);
		uint64_t seed = 23;
		uint8_t model[PAGE];

		for (unsigned page = first; page < first + 200; page += 2) {
			pair_queue(&pair, block, page);
			pair_drain(&pair);
			fill_random(model, &seed);
			memcpy(block->guest + (page + 1) * PAGE, model, PAGE);
			pair_queue(&pair, block, page + 1);
			pair_drain(&pair);
			cr_assert(!memcmp(block->copy + (page + 1) * PAGE, model, PAGE), "%s: page %u",
				  kinds[k].name, page + 1);
		}
		pair_close(&pair);
	}
}

#ifndef IS_TSAN
/* A guest that runs: it writes to memory that it never touched while that is sent, and a dirty log says so. */
struct guest {
	uint8_t *mem;
	_Atomic bool is_dirty[PAGES];
	_Atomic bool must_end;
};

static void *run_guest(void *user)
{
	struct guest *guest = user;
	uint64_t seed = (uintptr_t)guest;

	/* Relaxed: about when, and the join orders all that was written. */
	while (!atomic_load_explicit(&guest->must_end, memory_order_relaxed)) {
		unsigned page = (unsigned)rand_below(&seed, PAGES);

		/* Relaxed: a guest asks nobody. */
		atomic_store_explicit((_Atomic uint64_t *)(guest->mem + page * PAGE) + rand_below(&seed, PAGE / 8),
				      rand64(&seed), memory_order_relaxed);
		/* Release, meets the exchange in send_dirty(): who finds the mark finds what was written. */
		atomic_store_explicit(&guest->is_dirty[page], true, memory_order_release);
	}
	return NULL;
}

static void send_dirty(struct pair *pair, const struct pair_block *block, struct guest *guest)
{
	for (unsigned page = 0; page < PAGES; page++) {
		/* Acquire, meets the release in run_guest(). */
		if (atomic_exchange_explicit(&guest->is_dirty[page], false, memory_order_acquire))
			pair_queue(pair, block, page);
	}
	pair_drain(pair);
}

Test(absent, guest_memory_that_is_touched_while_it_is_sent_arrives)
{
	for (unsigned k = 0; k < KINDS; k++) {
		struct pair pair;
		struct pair_block *block = open_kind(&pair, &kinds[k]);

		for (unsigned again = 0; again < 20; again++) {
			struct guest guest = { .mem = block->guest };
			pthread_t thread;

			madvise(block->guest, BYTES, MADV_DONTNEED);
			cr_assert_eq(godwit_source_forget(pair.source, BLOCK, 0, PAGES), 0);
			for (unsigned page = 0; page < PAGES; page++)
				guest.is_dirty[page] = true;
			cr_assert_eq(pthread_create(&thread, NULL, run_guest, &guest), 0);
			for (unsigned round = 0; round < 3; round++)
				send_dirty(&pair, block, &guest);
			atomic_store_explicit(&guest.must_end, true, memory_order_relaxed);
			pthread_join(thread, NULL);
			send_dirty(&pair, block, &guest);
			pair_check_equal(&pair, kinds[k].name);
		}
		pair_close(&pair);
	}
}
#endif

Test(absent, guest_memory_with_something_behind_it_is_read)
{
	for (unsigned k = 0; k < KINDS; k++) {
		for (unsigned c = 0; c < BEHIND; c++) {
			struct pair pair;
			struct pair_block *block = open_kind(&pair, &kinds[k]);

			put_behind(block->guest, &behind[c]);
			add_again(&pair, block);
			pair_send_all(&pair);
			pair_check_equal(&pair, behind[c].what);
			pair_close(&pair);
		}
	}
}

/* A caller may hand pages in from where it likes: its block is then not what is sent. */
Test(absent, pages_from_elsewhere_are_read)
{
	for (unsigned k = 0; k < KINDS; k++) {
		struct pair pair;
		struct pair_block *block = open_kind(&pair, &kinds[k]);
		uint8_t *absent = block->guest;

		block->guest = map(MAP_PRIVATE);
		put_behind(block->guest, &behind[0]);
		pair_send_all(&pair);
		pair_check_equal(&pair, kinds[k].name);
		munmap(absent, BYTES);
		pair_close(&pair);
	}
}
