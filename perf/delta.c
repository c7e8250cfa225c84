/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * delta.c - each delta encoder and each variant of it, by itself, on real pages
 *
 * Two groups of rows over the same pairs (page as it was sent last, page as it is now):
 *
 *   xbzrle words signatures           what an encoder costs. Pages in file order. XBZRLE reads two pages
 *                                     that hold still; words and signatures do what they do in the
 *                                     engine, cache upkeep included, as they know no cheaper way.
 *   read                              both pages read and nothing done with them, in file order: what
 *                                     memory alone takes, and no encoder that compares can do without.
 *   memcpy save_*                     what a page costs on its way. Pages in random order, as a dirty
 *                                     bitmap's stretches over a big guest are to the hardware: the next
 *                                     page, and what is kept of it, is prefetched. memcpy is the
 *                                     raw path, and the save rows are read as ratios to it.
 *
 * Runs of all rows are interleaved, so that a neighbour's load falls on all of them, and a figure is a
 * median of CPU times. What an encoder keeps is put back between runs, off the clock. Output goes to a
 * batch's worth of memory again and again, as a worker's does. Every delta is decoded and compared
 * once before anything is timed.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "perf.h"
#include "xbzrle/xbzrle.h"

#define PAGE_BYTES GODWIT_PAGE_BYTES
#define ROW_SIGS 64		/* one per line: the finest and dearest */
#define MAX_ROWS 32
#define STAGING_BYTES (GODWIT_BATCH_PAGES * PAGE_BYTES)
/* A delta may begin anywhere in staging. */
#define PAYLOAD_BYTES (STAGING_BYTES + GODWIT_DELTA_MAX_BYTES + GODWIT_DELTA_SLACK)

enum { OPT_OLD, OPT_NEW, OPT_REPEAT, OPT_JSON };

static const struct perf_option options[] = {
	[OPT_OLD] = { "old", "FILE", "pages as they were sent last; FILE.zst is unpacked" },
	[OPT_NEW] = { "new", "FILE", "the same pages as they are now" },
	[OPT_REPEAT] = { "repeat", "N", "times are medians of N runs (default 9)" },
	[OPT_JSON] = { "json", NULL, "print JSON" },
	{ 0 },
};

static const struct perf_command command = {
	.name = "delta",
	.synopsis = "--old FILE --new FILE [OPTION]...",
	.summary = "Encodes what changed between two images of the same pages with every encoder and every\n"
		   "variant of it that this processor runs, and compares them with a memcpy of the pages.",
	.options = options,
};

struct setup {
	struct image old_image, new_image;
	uint64_t pages;
	unsigned repeat;
	bool is_json;
};

/* Memory that all rows share; what a run changes is put back before the next. */
struct bench {
	const uint8_t *old_pages, *new_pages;
	uint32_t pages;
	uint32_t *shuffled;		/* page numbers in random order */
	uint32_t *in_order;
	struct godwit_signer signer;
	uint64_t *sigs, *old_sigs;	/* the row of each page, as kept and as it was */
	uint8_t *base;			/* the old pages, as kept */
	uint8_t *staging;		/* copies of a batch */
	uint8_t *payload;		/* deltas of a batch */
	uint8_t *deltas;		/* all deltas of one kind, to be decoded */
	uint64_t *delta_at;		/* where each begins; [pages] is the end */
};

struct row;

/* A kind. encode runs over all pages; decode over all of bench->deltas, NULL if the kind has none. */
struct kind {
	const char *name;
	bool is_shuffled;
	const char *only;		/* whose code it is, the same on every processor; or NULL */
	void (*encode)(struct bench *bench, const struct row *row, const uint32_t *order);
	/* Untimed: one page to out, its length returned; 0: same. NULL: the kind yields nothing. */
	size_t (*encode_one)(struct bench *bench, const struct row *row, uint32_t page, uint8_t *out);
	bool (*decode_one)(const struct row *row, const uint8_t *in, size_t in_bytes, uint8_t *page);
};

struct row {
	const struct kind *kind;
	const struct godwit_delta_variant *variant;
	double *encode_ns, *decode_ns;	/* of each run, per page */
	uint64_t bytes, overflow_pages;
};

/* ---- encoders over all pages ---- */

/* Where output goes: forward through a batch's memory, then from its start again. */
static inline uint8_t *advance(uint8_t *from, uint8_t *at, size_t bytes)
{
	at += bytes;
	return at >= from + STAGING_BYTES ? from : at;
}

static inline uint32_t next_page(const struct bench *bench, const uint32_t *order, uint32_t i)
{
	return order[i + 1 < bench->pages ? i + 1 : i];
}

static inline size_t at_page(uint32_t page)
{
	return (size_t)page * PAGE_BYTES;
}

static inline uint64_t *row_of(const struct bench *bench, uint32_t page)
{
	return bench->sigs + (size_t)page * ROW_SIGS;
}

static void encode_memcpy(struct bench *bench, const struct row *row, const uint32_t *order)
{
	uint8_t *copy = bench->staging;

	for (uint32_t i = 0; i < bench->pages; i++) {
		godwit_prefetch_page(bench->new_pages + at_page(next_page(bench, order, i)));
		memcpy(copy, bench->new_pages + at_page(order[i]), PAGE_BYTES);
		copy = advance(bench->staging, copy, PAGE_BYTES);
	}
}

/* Asks for the next pages line by line, as the encoders do. */
static void encode_nothing(struct bench *bench, const struct row *row, const uint32_t *order)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < bench->pages; i++) {
		size_t here = at_page(order[i]), next = at_page(next_page(bench, order, i));

		for (unsigned at = 0; at < PAGE_BYTES; at += GODWIT_DELTA_LINE_BYTES) {
			__builtin_prefetch(bench->new_pages + next + at, 0, 3);
			__builtin_prefetch(bench->old_pages + next + at, 0, 3);
			sum += bench->new_pages[here + at] + bench->old_pages[here + at];
		}
	}
	__asm__ volatile("" : : "r"(sum));
}

static void encode_plain(struct bench *bench, const struct row *row, const uint32_t *order)
{
	uint8_t *copy = bench->staging;
	struct godwit_save save;

	for (uint32_t i = 0; i < bench->pages; i++) {
		const struct godwit_ahead ahead = { bench->new_pages + at_page(next_page(bench, order, i)), NULL };

		row->variant->save_plain(bench->new_pages + at_page(order[i]), copy, &ahead, &save);
		copy = advance(bench->staging, copy, PAGE_BYTES);
	}
}

static void encode_xbzrle(struct bench *bench, const struct row *row, const uint32_t *order)
{
	uint8_t *out = bench->payload;
	size_t bytes;

	for (uint32_t i = 0; i < bench->pages; i++) {
		uint32_t next = next_page(bench, order, i);
		const struct godwit_ahead ahead = { bench->new_pages + at_page(next),
						    bench->old_pages + at_page(next) };

		row->variant->xbzrle_encode(bench->old_pages + at_page(order[i]),
					    bench->new_pages + at_page(order[i]), &ahead, out, PAGE_BYTES,
					    &bytes);
		out = advance(bench->payload, out, bytes);
	}
}

static void encode_words(struct bench *bench, const struct row *row, const uint32_t *order)
{
	uint8_t *out = bench->payload;
	struct godwit_save save;

	for (uint32_t i = 0; i < bench->pages; i++) {
		uint32_t next = next_page(bench, order, i);
		const struct godwit_ahead ahead = { bench->new_pages + at_page(next),
						    bench->base + at_page(next) };

		row->variant->save_words(bench->new_pages + at_page(order[i]),
					 bench->base + at_page(order[i]), out, &ahead, &save);
		out = advance(bench->payload, out, save.delta_bytes);
	}
}

/* The copy goes to one page again and again, as a worker needs it only until it knows what to send. */
static void encode_signatures(struct bench *bench, const struct row *row, const uint32_t *order)
{
	uint8_t *out = bench->payload;
	struct godwit_save save;

	for (uint32_t i = 0; i < bench->pages; i++) {
		uint32_t next = next_page(bench, order, i);
		uint64_t *sigs = row_of(bench, order[i]);
		const struct godwit_ahead ahead = { bench->new_pages + at_page(next), row_of(bench, next) };

		row->variant->save_lines(&bench->signer, 64, bench->new_pages + at_page(order[i]), sigs,
					 sigs, bench->staging, out, &ahead, &save);
		out = advance(bench->payload, out, save.delta_bytes);
	}
}

/* ---- one page, to be decoded ---- */

static size_t xbzrle_one(struct bench *bench, const struct row *row, uint32_t page, uint8_t *out)
{
	size_t bytes;

	/* Room for more than a page: what a page overflows by is worth knowing, too. */
	row->variant->xbzrle_encode(bench->old_pages + at_page(page), bench->new_pages + at_page(page),
				    NULL, out, GODWIT_DELTA_MAX_BYTES, &bytes);
	return bytes;
}

static size_t words_one(struct bench *bench, const struct row *row, uint32_t page, uint8_t *out)
{
	struct godwit_save save;

	row->variant->save_words(bench->new_pages + at_page(page), bench->base + at_page(page), out, NULL,
				 &save);
	return save.delta_bytes;
}

static size_t signatures_one(struct bench *bench, const struct row *row, uint32_t page, uint8_t *out)
{
	uint64_t *sigs = row_of(bench, page);
	struct godwit_save save;

	row->variant->save_lines(&bench->signer, 64, bench->new_pages + at_page(page), sigs, sigs,
				 bench->staging, out, NULL, &save);
	return save.delta_bytes;
}

static bool xbzrle_back(const struct row *row, const uint8_t *in, size_t in_bytes, uint8_t *page)
{
	return row->variant->xbzrle_decode(in, in_bytes, page);
}

static bool words_back(const struct row *row, const uint8_t *in, size_t in_bytes, uint8_t *page)
{
	if (godwit_words_check(in, in_bytes) != in_bytes)
		return false;
	row->variant->words_apply(in, page);
	return true;
}

static bool lines_back(const struct row *row, const uint8_t *in, size_t in_bytes, uint8_t *page)
{
	if (godwit_lines_check(in, in_bytes) != in_bytes)
		return false;
	godwit_lines_apply(in, page);
	return true;
}

static const struct kind kinds[] = {
	{ "xbzrle", false, NULL, encode_xbzrle, xbzrle_one, xbzrle_back },
	{ "words", false, NULL, encode_words, words_one, words_back },
	{ "signatures", false, NULL, encode_signatures, signatures_one, lines_back },
	{ "read", false, "plain", encode_nothing, NULL, NULL },
	{ "memcpy", true, "libc", encode_memcpy, NULL, NULL },
	{ "save_plain", true, NULL, encode_plain, NULL, NULL },
	{ "save_words", true, NULL, encode_words, NULL, NULL },
	{ "save_signatures", true, NULL, encode_signatures, NULL, NULL },
};
#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* ---- set-up ---- */

static void parse_options(struct setup *setup, int argc, char **argv)
{
	const char *arg, *old_path = NULL, *new_path = NULL;
	int option;

	while ((option = next_option(&command, argc, argv, &arg)) >= 0) {
		switch (option) {
		case OPT_OLD:
			old_path = arg;
			break;
		case OPT_NEW:
			new_path = arg;
			break;
		case OPT_REPEAT:
			setup->repeat = (unsigned)parse_number("repeat", arg, 1, 1000);
			break;
		case OPT_JSON:
			setup->is_json = true;
			break;
		}
	}
	if (!old_path || !new_path)
		usage_error("--old FILE and --new FILE are needed: the same pages before and after");
	image_load(&setup->new_image, new_path);
	image_load_old(&setup->old_image, old_path, &setup->new_image);
	if (setup->new_image.pages > UINT32_MAX / 2)
		die("%s: too large to be measured in one go", new_path);
	setup->pages = setup->new_image.pages;
}

/* splitmix64: the same order and secret in every run. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t v = *state += 0x9e3779b97f4a7c15u;

	v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9u;
	v = (v ^ v >> 27) * 0x94d049bb133111ebu;
	return v ^ v >> 31;
}

static void bench_init(struct bench *bench, const struct setup *setup)
{
	uint64_t random = 1, secret[32];
	uint32_t pages = (uint32_t)setup->pages;

	bench->old_pages = setup->old_image.bytes;
	bench->new_pages = setup->new_image.bytes;
	bench->pages = pages;
	bench->in_order = xcalloc(pages, sizeof(*bench->in_order));
	bench->shuffled = xcalloc(pages, sizeof(*bench->shuffled));
	for (uint32_t i = 0; i < pages; i++) {
		uint32_t j = (uint32_t)(next_random(&random) % (i + 1));

		bench->in_order[i] = i;
		bench->shuffled[i] = bench->shuffled[j];
		bench->shuffled[j] = i;
	}
	for (unsigned i = 0; i < 32; i++)
		secret[i] = next_random(&random);
	godwit_signer_init(&bench->signer, secret);
	bench->sigs = map_memory((size_t)pages * ROW_SIGS * 8);
	bench->old_sigs = map_memory((size_t)pages * ROW_SIGS * 8);
	bench->base = map_memory(at_page(pages));
	bench->staging = map_memory(STAGING_BYTES);
	bench->payload = map_memory(PAYLOAD_BYTES);
	bench->deltas = map_memory((size_t)pages * GODWIT_DELTA_MAX_BYTES + GODWIT_DELTA_SLACK);
	bench->delta_at = xcalloc(pages + 1, sizeof(*bench->delta_at));
	for (uint32_t i = 0; i < pages; i++) {
		struct godwit_save save;

		godwit_save_lines(&bench->signer, 64, bench->old_pages + at_page(i), NULL,
				  bench->old_sigs + (size_t)i * ROW_SIGS, bench->staging, NULL, &save);
	}
}

static void bench_fini(struct bench *bench)
{
	free(bench->in_order);
	free(bench->shuffled);
	free(bench->delta_at);
	munmap(bench->sigs, (size_t)bench->pages * ROW_SIGS * 8);
	munmap(bench->old_sigs, (size_t)bench->pages * ROW_SIGS * 8);
	munmap(bench->base, at_page(bench->pages));
	munmap(bench->staging, STAGING_BYTES);
	munmap(bench->payload, PAYLOAD_BYTES);
	munmap(bench->deltas, (size_t)bench->pages * GODWIT_DELTA_MAX_BYTES + GODWIT_DELTA_SLACK);
}

/* What is kept, as it was before the new pages were seen. */
static void put_back(struct bench *bench)
{
	memcpy(bench->base, bench->old_pages, at_page(bench->pages));
	memcpy(bench->sigs, bench->old_sigs, (size_t)bench->pages * ROW_SIGS * 8);
}

static unsigned make_rows(struct row rows[MAX_ROWS], unsigned repeat)
{
	const struct godwit_delta_variant *variant;
	unsigned nr_rows = 0, last = 0;

	while (godwit_delta_variant(last))
		last++;
	for (unsigned k = 0; k < NR_KINDS; k++)
		for (unsigned v = last; v-- > 0;) {
			variant = godwit_delta_variant(v);
			if (kinds[k].only && v != last - 1)
				continue;
			rows[nr_rows++] = (struct row){
				.kind = &kinds[k],
				.variant = variant,
				.encode_ns = xcalloc(repeat, sizeof(double)),
				.decode_ns = kinds[k].decode_one ? xcalloc(repeat, sizeof(double)) : NULL,
			};
		}
	return nr_rows;
}

/* ---- runs ---- */

/* All deltas of a row, one behind the other. */
static void make_deltas(struct bench *bench, struct row *row)
{
	uint64_t at = 0;

	put_back(bench);
	for (uint32_t i = 0; i < bench->pages; i++) {
		bench->delta_at[i] = at;
		at += row->kind->encode_one(bench, row, i, bench->deltas + at);
	}
	bench->delta_at[bench->pages] = at;
}

static void decode_all(struct bench *bench, const struct row *row)
{
	for (uint32_t i = 0; i < bench->pages; i++) {
		uint64_t at = bench->delta_at[i], bytes = bench->delta_at[i + 1] - at;

		if (bytes && !row->kind->decode_one(row, bench->deltas + at, bytes, bench->base + at_page(i)))
			die("%s %s: the delta of page %u is malformed", row->kind->name,
			    row->variant->name, i);
	}
}

/* Off the clock: sizes, and proof that the deltas do what they are for. */
static void verify(struct bench *bench, struct row *row)
{
	make_deltas(bench, row);
	put_back(bench);
	decode_all(bench, row);
	for (uint32_t i = 0; i < bench->pages; i++) {
		uint64_t bytes = bench->delta_at[i + 1] - bench->delta_at[i];

		if (memcmp(bench->base + at_page(i), bench->new_pages + at_page(i), PAGE_BYTES))
			die("%s %s: page %u came out different", row->kind->name, row->variant->name, i);
		/* What is longer than the page goes as the page. */
		row->overflow_pages += bytes > PAGE_BYTES;
		row->bytes += bytes > PAGE_BYTES ? PAGE_BYTES : bytes;
	}
}

static void run(struct bench *bench, struct row *row, unsigned r)
{
	uint64_t from;

	put_back(bench);
	from = thread_cpu_ns();
	row->kind->encode(bench, row, row->kind->is_shuffled ? bench->shuffled : bench->in_order);
	row->encode_ns[r] = (double)(thread_cpu_ns() - from) / bench->pages;
	if (!row->kind->decode_one)
		return;
	make_deltas(bench, row);
	put_back(bench);
	from = thread_cpu_ns();
	decode_all(bench, row);
	row->decode_ns[r] = (double)(thread_cpu_ns() - from) / bench->pages;
}

/* ---- report ---- */

static const char *variant_name(const struct row *row)
{
	return row->kind->only ? row->kind->only : row->variant->name;
}

static void print_as_json(const struct setup *setup, const struct row *rows, unsigned nr_rows)
{
	struct json_object *json = json_object_new_object(), *list;
	char machine[MACHINE_TEXT];

	put_u64(json, "pages", setup->pages);
	put_u64(json, "repeat", setup->repeat);
	put_text(json, "machine", machine_text(machine));
	list = put_array(json, "rows");
	for (unsigned i = 0; i < nr_rows; i++) {
		struct json_object *object = append_object(list);
		const struct row *row = &rows[i];

		put_text(object, "kind", row->kind->name);
		put_text(object, "variant", variant_name(row));
		put_real(object, "encode_ns_per_page", median(row->encode_ns, setup->repeat), 1);
		if (!row->decode_ns)
			continue;
		put_real(object, "decode_ns_per_page", median(row->decode_ns, setup->repeat), 1);
		put_real(object, "bytes_per_page", (double)row->bytes / (double)setup->pages, 3);
		put_u64(object, "overflow_pages", row->overflow_pages);
	}
	print_json(json);
}

static void print_as_text(const struct setup *setup, const struct row *rows, unsigned nr_rows)
{
	char machine[MACHINE_TEXT];
	double memcpy_ns = 0;
	struct table table;

	printf("machine   %s\n", machine_text(machine));
	printf("pages     %llu, %s after %s\n", (unsigned long long)setup->pages, setup->new_image.path,
	       setup->old_image.path);
	printf("runs      %u, interleaved; not pinned; medians of CPU time\n\n", setup->repeat);
	table_init(&table, "kind|variant|>encode ns|>spread|>decode ns|>bytes|>overflow|>of memcpy");
	for (unsigned i = 0; i < nr_rows; i++)
		if (rows[i].kind->encode == encode_memcpy)
			memcpy_ns = median(rows[i].encode_ns, setup->repeat);
	for (unsigned i = 0; i < nr_rows; i++) {
		const struct row *row = &rows[i];
		double encode_ns = median(row->encode_ns, setup->repeat);	/* sorts them */
		char spread[2 * UNIT_TEXT];

		snprintf(spread, sizeof(spread), "%.0f - %.0f", row->encode_ns[0],
			 row->encode_ns[setup->repeat - 1]);
		if (row->decode_ns)
			table_row(&table, "%s|%s|%.0f|%s|%.0f|%.1f|%llu|", row->kind->name,
				  variant_name(row), encode_ns, spread,
				  median(row->decode_ns, setup->repeat),
				  (double)row->bytes / (double)setup->pages,
				  (unsigned long long)row->overflow_pages);
		else
			table_row(&table, "%s|%s|%.0f|%s||||%.2f", row->kind->name, variant_name(row),
				  encode_ns, spread, encode_ns / memcpy_ns);
	}
	table_print(&table, stdout);
	printf("\nPer page. xbzrle, words, signatures: pages in file order. The others: in random order.\n");
}

int cmd_delta(int argc, char **argv)
{
	struct setup setup = { .repeat = 9 };
	struct row rows[MAX_ROWS];
	struct bench bench;
	unsigned nr_rows;

	parse_options(&setup, argc, argv);
	bench_init(&bench, &setup);
	nr_rows = make_rows(rows, setup.repeat);
	for (unsigned i = 0; i < nr_rows; i++)
		if (rows[i].kind->decode_one)
			verify(&bench, &rows[i]);
	for (unsigned r = 0; r < setup.repeat; r++)
		for (unsigned i = 0; i < nr_rows; i++)
			run(&bench, &rows[i], r);
	if (setup.is_json)
		print_as_json(&setup, rows, nr_rows);
	else
		print_as_text(&setup, rows, nr_rows);
	for (unsigned i = 0; i < nr_rows; i++) {
		free(rows[i].encode_ns);
		free(rows[i].decode_ns);
	}
	bench_fini(&bench);
	image_unload(&setup.old_image);
	image_unload(&setup.new_image);
	return EXIT_WORKED;
}
