/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test_destination.c - what a destination does with bytes it should not get
 *
 * A stream is recorded from a real source, changed, and fed to destinations that never saw it. Two
 * levels: the decoder, for every byte of a frame; the destination, for what lies between frames. A
 * change alone is caught by the checksum, so the deeper checks are reached by sealing the changed frame
 * again, as a hostile peer would. Guest memory lies between unmapped pages.
 */
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "engine/frame.h"
#include "pair.h"

#define BLOCK 7
#define PAGES 160

/* ---- a recorded stream ---- */

struct unit {
	size_t at, bytes;
	uint32_t magic;
};

struct tape {
	struct pair pair;
	struct unit unit[64];
	unsigned nr_units;
	uint8_t *before, *after;	/* the guest after the first drain frame, and after the second */
};

static void find_units(struct tape *tape)
{
	tape->nr_units = 0;
	for (size_t at = 0; at < tape->pair.tape_bytes;) {
		struct godwit_head head = godwit_head_get(tape->pair.tape + at);

		cr_assert_lt(tape->nr_units, 64);
		tape->unit[tape->nr_units++] = (struct unit){ at, GODWIT_HEAD_BYTES + head.body_bytes, head.magic };
		at += GODWIT_HEAD_BYTES + head.body_bytes;
	}
}

static void write_first(uint8_t *guest)
{
	uint64_t seed = 11;

	for (unsigned page = 0; page < PAGES; page++) {
		if (page % 5 == 1)
			fill_word(guest + page * PAGE, 0x1111111111111111ull * (page % 15 + 1));
		else if (page % 5)
			fill_text(guest + page * PAGE, &seed);
	}
}

static void write_second(uint8_t *guest)
{
	uint64_t seed = 12;

	for (unsigned page = 0; page < PAGES; page += 3)
		poke(guest + page * PAGE, 2, &seed);
	fill_random(guest, &seed);
	fill_word(guest + 8 * PAGE, 3);
	memset(guest + 9 * PAGE, 0, PAGE);
}

/* Header, three frames, drain frame; three frames with every kind of page, drain frame. */
static void record(struct tape *tape, uint32_t base)
{
	struct godwit_params params = GODWIT_PARAMS_INIT;
	struct pair_block *block;

	params.rung = "zstd1";
	params.base = base;
	params.base_bytes = 2 << 20;
	params.workers = 1;	/* so that frames come in order of number */
	params.when_busy = GODWIT_WHEN_BUSY_WAIT;
	pair_open(&tape->pair, &params);
	tape->pair.is_kept = tape->pair.is_cut = true;
	block = pair_add_block(&tape->pair, BLOCK, PAGES);
	tape->before = malloc(PAGES * PAGE);
	tape->after = malloc(PAGES * PAGE);
	write_first(block->guest);
	memcpy(tape->before, block->guest, PAGES * PAGE);
	pair_send_all(&tape->pair);
	write_second(block->guest);
	memcpy(tape->after, block->guest, PAGES * PAGE);
	pair_send_all(&tape->pair);
	find_units(tape);
	cr_assert_eq(tape->nr_units, 9);
}

static void erase(struct tape *tape)
{
	pair_close(&tape->pair);
	free(tape->before);
	free(tape->after);
}

static uint8_t *unit_at(struct tape *tape, unsigned i)
{
	return tape->pair.tape + tape->unit[i].at;
}

enum { HEADER = 0, FIRST_FRAME = 1, FIRST_DRAIN = 4, SECOND_FRAME = 5, SECOND_DRAIN = 8 };

/* ---- memory that ends where it ends ---- */

struct guarded {
	uint8_t *bytes;		/* of the caller's length, right before an unmapped page */
	uint8_t *map;
	size_t map_bytes;
};

static struct guarded guard(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t inside = (bytes + page - 1) / page * page;
	struct guarded g = { .map_bytes = inside + 2 * page };

	g.map = mmap(NULL, g.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(g.map, MAP_FAILED);
	cr_assert_eq(mprotect(g.map + page, inside, PROT_READ | PROT_WRITE), 0);
	g.bytes = g.map + page + inside - bytes;
	return g;
}

static void unguard(struct guarded *g)
{
	munmap(g->map, g->map_bytes);
}

/* ---- a destination to feed ---- */

struct sink {
	struct pair pair;	/* its receiving side alone */
	struct guarded ram;
	_Atomic uint32_t applied[PAGES];	/* times that each was said to be there */
	_Atomic uint32_t misapplied;	/* calls that were not as promised */
};

/* Called by workers: what is wrong is counted here and asserted by the test. */
static void count_applied(void *user, uint32_t block, const uint64_t *pages, uint32_t nr_pages)
{
	struct sink *sink = user;

	if (block != BLOCK || !nr_pages || nr_pages > GODWIT_BATCH_PAGES)
		atomic_fetch_add(&sink->misapplied, 1);
	for (uint32_t i = 0; i < nr_pages; i++) {
		if (pages[i] >= PAGES || (i && pages[i] <= pages[i - 1]))
			atomic_fetch_add(&sink->misapplied, 1);
		else
			atomic_fetch_add(&sink->applied[pages[i]], 1);
	}
}

static uint32_t sum_applied(struct sink *sink)
{
	uint32_t sum = 0;

	for (unsigned page = 0; page < PAGES; page++)
		sum += atomic_load(&sink->applied[page]);
	return sum;
}

static void check_applied(struct sink *sink, uint32_t times)
{
	cr_assert_eq(atomic_load(&sink->misapplied), 0);
	for (unsigned page = 0; page < PAGES; page++)
		cr_assert_eq(atomic_load(&sink->applied[page]), times, "page %u: %u times, not %u", page,
			     atomic_load(&sink->applied[page]), times);
}

static void sink_open(struct sink *sink)
{
	struct godwit_destination_options options = GODWIT_DESTINATION_OPTIONS_INIT;
	struct godwit_error error = { "" };

	*sink = (struct sink){ 0 };
	sink->ram = guard(PAGES * PAGE);
	memset(sink->ram.bytes, 0xA5, PAGES * PAGE);
	options.workers = 1;
	options.applied = count_applied;
	options.applied_user = sink;
	cr_assert_eq(godwit_destination_create(&options, &sink->pair.destination, &error), 0, "%s", error.text);
	cr_assert_eq(godwit_destination_add_block(sink->pair.destination, BLOCK, "pc.ram", sink->ram.bytes,
						  PAGES * PAGE, &error), 0, "%s", error.text);
}

static void sink_close(struct sink *sink)
{
	godwit_destination_destroy(sink->pair.destination);
	unguard(&sink->ram);
}

static int feed(struct sink *sink, const void *bytes, size_t nr_bytes, struct godwit_error *error)
{
	int err = pair_receive(&sink->pair, bytes, nr_bytes, error);

	return err ? err : godwit_destination_drain(sink->pair.destination, error);
}

static void feed_good(struct sink *sink, struct tape *tape, unsigned first, unsigned end)
{
	struct godwit_error error = { "" };

	for (unsigned i = first; i < end; i++)
		cr_assert_eq(feed(sink, unit_at(tape, i), tape->unit[i].bytes, &error), 0, "unit %u: %s", i,
			     error.text);
}

/* ---- the good stream ---- */

Test(destination, turns_a_recorded_stream_into_the_guest)
{
	static const uint32_t bases[] = { GODWIT_BASE_SIGNATURES, GODWIT_BASE_PAGES, GODWIT_BASE_OFF };

	for (unsigned i = 0; i < 3; i++) {
		struct tape tape = { 0 };
		struct sink sink;

		record(&tape, bases[i]);
		sink_open(&sink);
		feed_good(&sink, &tape, HEADER, SECOND_FRAME);
		cr_assert(!memcmp(sink.ram.bytes, tape.before, PAGES * PAGE));
		check_applied(&sink, 1);
		feed_good(&sink, &tape, SECOND_FRAME, tape.nr_units);
		cr_assert(!memcmp(sink.ram.bytes, tape.after, PAGES * PAGE));
		check_applied(&sink, 2);	/* pages that went as nothing, too */
		sink_close(&sink);
		erase(&tape);
	}
}

Test(destination, takes_the_stream_byte_by_byte_and_counts_what_it_took)
{
	struct godwit_stats stats = GODWIT_STATS_INIT, sent;
	struct godwit_error error = { "" };
	struct tape tape = { 0 };
	struct sink sink;

	record(&tape, GODWIT_BASE_SIGNATURES);
	sink_open(&sink);
	for (size_t i = 0; i < tape.pair.tape_bytes; i++)
		cr_assert_eq(pair_receive(&sink.pair, tape.pair.tape + i, 1, &error), 0, "%s", error.text);
	cr_assert(!memcmp(sink.ram.bytes, tape.after, PAGES * PAGE));
	cr_assert_eq(godwit_destination_stats(sink.pair.destination, &stats), 0);
	sent = pair_stats(&tape.pair);
	cr_assert_eq(stats.pages, sent.pages);
	cr_assert_eq(stats.pages, sum_of_kinds(&stats));
	cr_assert_eq(stats.zero, sent.zero);
	cr_assert_eq(stats.fill, sent.fill);
	cr_assert_eq(stats.same, sent.same);
	cr_assert_eq(stats.delta_lines, sent.delta_lines);
	cr_assert_eq(stats.whole, sent.whole);
	cr_assert_eq(stats.raw, sent.raw);
	cr_assert_eq(stats.frames, sent.frames);
	cr_assert_eq(stats.wire_bytes, tape.pair.tape_bytes);
	cr_assert_gt(stats.same, 0);
	cr_assert_gt(stats.delta_lines, 0);
	cr_assert_gt(stats.whole, 0);
	sink_close(&sink);
	erase(&tape);
}

Test(destination, takes_the_frames_between_two_drains_in_any_order)
{
	struct tape tape = { 0 };
	struct sink sink;

	record(&tape, GODWIT_BASE_SIGNATURES);
	sink_open(&sink);
	feed_good(&sink, &tape, HEADER, FIRST_FRAME);
	for (unsigned i = FIRST_DRAIN; i-- > FIRST_FRAME;)
		feed_good(&sink, &tape, i, i + 1);
	feed_good(&sink, &tape, FIRST_DRAIN, SECOND_FRAME);
	for (unsigned i = SECOND_DRAIN; i-- > SECOND_FRAME;)
		feed_good(&sink, &tape, i, i + 1);
	feed_good(&sink, &tape, SECOND_DRAIN, tape.nr_units);
	cr_assert(!memcmp(sink.ram.bytes, tape.after, PAGES * PAGE));
	sink_close(&sink);
	erase(&tape);
}

/* ---- changed frames, at the decoder ---- */

struct bench {
	struct tape tape;
	struct godwit_ram *ram;
	struct godwit_decoder *decoder;
	struct guarded copy;	/* what the destination has: the guest after the first drain */
	struct guarded frame;	/* a copy of one frame, to be changed */
	size_t frame_bytes;
};

static void bench_open(struct bench *b, uint32_t base, unsigned unit)
{
	b->tape = (struct tape){ 0 };
	record(&b->tape, base);
	b->copy = guard(PAGES * PAGE);
	memcpy(b->copy.bytes, b->tape.before, PAGES * PAGE);
	cr_assert_eq(godwit_ram_create(&b->ram, NULL), 0);
	cr_assert_eq(godwit_ram_add_block(b->ram, BLOCK, "pc.ram", b->copy.bytes, PAGES * PAGE, NULL), 0);
	cr_assert_eq(godwit_decoder_create(b->ram, &b->decoder, NULL), 0);
	b->frame_bytes = b->tape.unit[unit].bytes;
	b->frame = guard(b->frame_bytes);
	memcpy(b->frame.bytes, unit_at(&b->tape, unit), b->frame_bytes);
}

static void bench_close(struct bench *b)
{
	godwit_decoder_destroy(b->decoder);
	godwit_ram_destroy(b->ram);
	unguard(&b->copy);
	unguard(&b->frame);
	erase(&b->tape);
}

static void check_text(const struct godwit_error *error, unsigned frame)
{
	char number[32];

	snprintf(number, sizeof(number), "frame %u,", frame);
	cr_assert(strstr(error->text, number) && strstr(error->text, "block 7") && strstr(error->text, "pc.ram") &&
		  strstr(error->text, "byte "), "'%s' does not say where", error->text);
}

static void check_untouched(const struct bench *b, const char *what, size_t at)
{
	cr_assert(!memcmp(b->copy.bytes, b->tape.before, PAGES * PAGE), "%s %zu: refused, and pages changed", what,
		  at);
}

Test(destination, refuses_a_frame_with_any_byte_flipped)
{
	static const uint8_t flips[] = { 0x01, 0x80, 0xff };
	struct bench b;

	bench_open(&b, GODWIT_BASE_SIGNATURES, SECOND_FRAME);
	for (size_t at = 0; at < b.frame_bytes; at++) {
		for (unsigned i = 0; i < sizeof(flips); i++) {
			struct godwit_error error = { "" };

			b.frame.bytes[at] ^= flips[i];
			cr_assert_eq(godwit_decode(b.decoder, b.frame.bytes, b.frame_bytes, &error), -EBADMSG,
				     "byte %zu ^ %02x was taken", at, flips[i]);
			cr_assert(strstr(error.text, "frame ") && strstr(error.text, "byte "), "%s", error.text);
			b.frame.bytes[at] ^= flips[i];
			if (at % 64 == 0)
				check_untouched(&b, "byte", at);
		}
	}
	check_untouched(&b, "byte", b.frame_bytes);
	cr_assert_eq(godwit_decode(b.decoder, b.frame.bytes, b.frame_bytes, NULL), 0);
	bench_close(&b);
}

Test(destination, refuses_a_frame_that_ends_too_early)
{
	struct bench b;

	bench_open(&b, GODWIT_BASE_SIGNATURES, SECOND_FRAME);
	for (size_t bytes = 0; bytes < b.frame_bytes; bytes++) {
		struct guarded cut = guard(bytes ? bytes : 1);

		memcpy(cut.bytes, b.frame.bytes, bytes);
		cr_assert_eq(godwit_decode(b.decoder, cut.bytes, bytes, NULL), -EBADMSG, "%zu bytes were taken", bytes);
		if (bytes >= GODWIT_HEAD_BYTES) {
			/* And one that owns up to it. */
			struct godwit_head head = godwit_head_get(cut.bytes);

			head.body_bytes = (uint32_t)(bytes - GODWIT_HEAD_BYTES);
			memcpy(cut.bytes, &head, sizeof(head));
			godwit_unit_seal(cut.bytes, bytes);
			cr_assert_eq(godwit_decode(b.decoder, cut.bytes, bytes, NULL), -EBADMSG,
				     "%zu bytes, sealed, were taken", bytes);
		}
		unguard(&cut);
	}
	check_untouched(&b, "cut at", b.frame_bytes);
	bench_close(&b);
}

/* The frame is sealed again after each change: what the checksum does not catch. */
static void change_and_seal(uint32_t base)
{
	const unsigned rounds = getenv("GODWIT_FULL") ? 200000 : 4000;
	uint64_t seed = 77, refused = 0, taken = 0;
	struct bench b;
	uint8_t *good;

	bench_open(&b, base, SECOND_FRAME);
	good = malloc(b.frame_bytes);
	memcpy(good, b.frame.bytes, b.frame_bytes);
	for (unsigned i = 0; i < rounds; i++) {
		unsigned changes = 1 + (unsigned)rand_below(&seed, 3);
		struct godwit_error error = { "" };
		int err;

		for (unsigned c = 0; c < changes; c++) {
			/* Mostly the head and the page table, where the lengths are. */
			size_t within = rand_below(&seed, 4) ? GODWIT_HEAD_BYTES + godwit_head_get(good).table_bytes :
							       b.frame_bytes;
			size_t at = rand_below(&seed, within);

			b.frame.bytes[at] = (uint8_t)(rand_below(&seed, 3) ? rand64(&seed) :
							 b.frame.bytes[at] ^ (1u << rand_below(&seed, 8)));
		}
		godwit_unit_seal(b.frame.bytes, b.frame_bytes);
		err = godwit_decode(b.decoder, b.frame.bytes, b.frame_bytes, &error);
		cr_assert(!err || err == -EBADMSG);
		if (err) {
			refused++;
			cr_assert(strstr(error.text, "frame ") && strstr(error.text, "byte "), "%s", error.text);
			cr_assert(!memcmp(b.copy.bytes, b.tape.before, PAGES * PAGE), "change %u: %s; and pages changed",
				  i, error.text);
		} else {
			taken++;	/* another number, another fill word: a frame like any other */
			memcpy(b.copy.bytes, b.tape.before, PAGES * PAGE);
		}
		memcpy(b.frame.bytes, good, b.frame_bytes);
	}
	cr_assert_gt(refused, 2 * taken, "%llu refused, %llu taken", (unsigned long long)refused,
		     (unsigned long long)taken);
	free(good);
	bench_close(&b);
}

Test(destination, survives_frames_that_were_changed_and_sealed_again)
{
	change_and_seal(GODWIT_BASE_SIGNATURES);
	change_and_seal(GODWIT_BASE_PAGES);
}

/* One field, one wrong value: refused, and the text points at the field's byte. */
static void check_field(struct bench *b, size_t at, const void *value, size_t bytes, const char *where)
{
	struct godwit_error error = { "" };
	uint8_t kept[8];

	memcpy(kept, b->frame.bytes + at, bytes);
	memcpy(b->frame.bytes + at, value, bytes);
	godwit_unit_seal(b->frame.bytes, b->frame_bytes);
	cr_assert_eq(godwit_decode(b->decoder, b->frame.bytes, b->frame_bytes, &error), -EBADMSG, "byte %zu", at);
	cr_assert(strstr(error.text, where), "'%s' does not name %s", error.text, where);
	memcpy(b->frame.bytes + at, kept, bytes);
	godwit_unit_seal(b->frame.bytes, b->frame_bytes);
	check_untouched(b, "field at", at);
}

Test(destination, names_the_byte_of_a_field_that_is_wrong)
{
	const uint64_t huge = ~0ull, past_end = PAGES;
	const uint32_t huge32 = ~0u, no_block = BLOCK + 1;
	const uint16_t huge16 = 0xffff;
	const uint8_t pages_0 = 0, pages_65 = 65, blocks_4 = GODWIT_MAX_PAYLOAD_BLOCKS + 1;
	const uint8_t unknown_kind = 6, high_bits = 0x10;
	struct godwit_error error = { "" };
	struct bench b;

	bench_open(&b, GODWIT_BASE_SIGNATURES, SECOND_FRAME);
	check_field(&b, 24, &huge, 8, "byte 40");	/* the first entry has the page that is not there */
	check_field(&b, 24, &past_end, 8, "byte 40");
	check_field(&b, 32, &huge32, 4, "byte 32");
	check_field(&b, 32, &no_block, 4, "byte 32");
	check_field(&b, 36, &pages_0, 1, "byte 36");
	check_field(&b, 36, &pages_65, 1, "byte 36");
	check_field(&b, 37, &blocks_4, 1, "byte 37");
	check_field(&b, 38, &huge16, 2, "byte 38");
	check_field(&b, 40, &unknown_kind, 1, "byte 40");
	check_field(&b, 40, &high_bits, 1, "byte 40");

	/* The last payload block's entry: 8 bytes at the end of the table. */
	size_t table_end = GODWIT_HEAD_BYTES + godwit_head_get(b.frame.bytes).table_bytes;
	const uint32_t bad_codec = 4, plain_0 = GODWIT_CODEC_ZSTD;
	const uint32_t plain_max = GODWIT_CODEC_ZSTD | (GODWIT_BLOCK_MAX_BYTES + 1) << 8;

	check_field(&b, table_end - 8, &bad_codec, 1, "byte ");
	check_field(&b, table_end - 8, &plain_0, 4, "byte ");
	check_field(&b, table_end - 8, &plain_max, 4, "byte ");
	check_field(&b, table_end - 4, &huge32, 4, "byte ");
	cr_assert_eq(godwit_decode(b.decoder, b.frame.bytes, b.frame_bytes, &error), 0, "%s", error.text);
	bench_close(&b);
}

Test(destination, says_block_frame_and_byte)
{
	struct godwit_error error = { "" };
	struct bench b;

	bench_open(&b, GODWIT_BASE_SIGNATURES, SECOND_FRAME);
	/* A delta onto a page that is not its base. */
	b.copy.bytes[3 * PAGE + 5] ^= 1;
	cr_assert_eq(godwit_decode(b.decoder, b.frame.bytes, b.frame_bytes, &error), -EBADMSG);
	check_text(&error, (unsigned)godwit_head_get(b.frame.bytes).number);
	bench_close(&b);
}

/* ---- what lies between frames, at the destination ---- */

/* Feed units [0, upto) as they are, then these bytes: refused, and so is all that follows. */
static void check_stream_refused(struct tape *tape, unsigned upto, const void *bytes, size_t nr_bytes,
				 const char *word)
{
	struct godwit_error error = { "" }, again = { "" };
	uint8_t *ram = malloc(PAGES * PAGE);
	struct sink sink;
	uint32_t applied;

	sink_open(&sink);
	feed_good(&sink, tape, HEADER, upto);
	memcpy(ram, sink.ram.bytes, PAGES * PAGE);
	cr_assert_eq(feed(&sink, bytes, nr_bytes, &error), -EBADMSG, "taken after unit %u", upto);
	cr_assert(strstr(error.text, word), "'%s' does not say %s", error.text, word);
	cr_assert(!memcmp(sink.ram.bytes, ram, PAGES * PAGE), "refused, and pages changed");

	/* Good units do not help any more. */
	applied = sum_applied(&sink);
	sink.pair.head_bytes = sink.pair.body_wanted = 0;
	cr_assert_eq(feed(&sink, unit_at(tape, FIRST_FRAME), tape->unit[FIRST_FRAME].bytes, &again), -EBADMSG);
	cr_assert_str_eq(again.text, error.text);
	cr_assert_eq(godwit_destination_drain(sink.pair.destination, &again), -EBADMSG);
	cr_assert_str_eq(again.text, error.text);
	cr_assert(!memcmp(sink.ram.bytes, ram, PAGES * PAGE), "pages changed after the stream was refused");
	cr_assert_eq(sum_applied(&sink), applied, "refused, and said to be applied");
	sink_close(&sink);
	free(ram);
}

static void check_head_refused(struct tape *tape, unsigned unit, size_t at, uint8_t value, bool is_sealed,
			       const char *word)
{
	uint8_t head[GODWIT_HEAD_BYTES];

	memcpy(head, unit_at(tape, unit), sizeof(head));
	head[at] ^= value;
	if (is_sealed)
		godwit_unit_seal(head, sizeof(head));
	check_stream_refused(tape, unit, head, sizeof(head), word);
}

Test(destination, refuses_a_stream_that_is_not_of_this_version)
{
	struct tape tape = { 0 };

	record(&tape, GODWIT_BASE_SIGNATURES);
	check_head_refused(&tape, HEADER, 0, 0x01, false, "");
	check_head_refused(&tape, HEADER, 8, 0x01, false, "");
	check_head_refused(&tape, HEADER, 16, 0x02, true, "");	/* version 3 */
	check_head_refused(&tape, HEADER, 25, 0x30, true, "");	/* pages of 8192 bytes */
	check_head_refused(&tape, HEADER, 32, 0xc0, true, "");	/* lines of 128 */
	check_head_refused(&tape, HEADER, 36, 0x01, true, "");	/* 65 pages a batch */
	/* A frame first; a header twice; noise. */
	check_stream_refused(&tape, 0, unit_at(&tape, FIRST_FRAME), tape.unit[FIRST_FRAME].bytes, "");
	check_stream_refused(&tape, 0, unit_at(&tape, FIRST_DRAIN), tape.unit[FIRST_DRAIN].bytes, "");
	check_stream_refused(&tape, 2, unit_at(&tape, HEADER), tape.unit[HEADER].bytes, "0x");
	check_stream_refused(&tape, 2, tape.before + PAGE, GODWIT_HEAD_BYTES, "0x");
	erase(&tape);
}

Test(destination, refuses_a_body_of_a_length_that_no_frame_has)
{
	static const uint32_t lengths[] = { 0, GODWIT_FRAME_MAX_BYTES - GODWIT_HEAD_BYTES + 1, 1u << 30, ~0u };
	struct tape tape = { 0 };

	record(&tape, GODWIT_BASE_SIGNATURES);
	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct godwit_head head = godwit_head_get(unit_at(&tape, FIRST_FRAME));
		struct godwit_error error = { "" };
		size_t body_bytes = 1;
		void *body = &head;
		struct sink sink;

		head.body_bytes = lengths[i];
		check_stream_refused(&tape, 1, &head, sizeof(head), "byte 4");
		sink_open(&sink);
		feed_good(&sink, &tape, HEADER, FIRST_FRAME);
		cr_assert_eq(godwit_destination_begin(sink.pair.destination, &head, &body, &body_bytes, &error),
			     -EBADMSG);
		cr_assert_null(body);
		cr_assert_eq(body_bytes, 0);
		sink_close(&sink);
	}
	erase(&tape);
}

Test(destination, says_nothing_of_the_pages_of_a_damaged_frame)
{
	struct tape tape = { 0 };
	struct sink sink;

	record(&tape, GODWIT_BASE_SIGNATURES);
	sink_open(&sink);
	feed_good(&sink, &tape, HEADER, FIRST_FRAME);
	unit_at(&tape, FIRST_FRAME)[GODWIT_HEAD_BYTES] ^= 1;
	cr_assert_eq(feed(&sink, unit_at(&tape, FIRST_FRAME), tape.unit[FIRST_FRAME].bytes, NULL), -EBADMSG);
	cr_assert_eq(sum_applied(&sink), 0);
	sink_close(&sink);
	erase(&tape);
}

Test(destination, notices_frames_that_are_missing_or_came_twice)
{
	struct tape tape = { 0 };
	uint8_t *stream;
	size_t frame_bytes, drain_bytes;

	record(&tape, GODWIT_BASE_SIGNATURES);
	frame_bytes = tape.unit[FIRST_DRAIN - 1].bytes;
	drain_bytes = tape.unit[FIRST_DRAIN].bytes;
	stream = malloc(2 * frame_bytes + drain_bytes);

	/* Missing. */
	check_stream_refused(&tape, FIRST_DRAIN - 1, unit_at(&tape, FIRST_DRAIN), drain_bytes, "frames");
	/* Twice: an extra one. */
	memcpy(stream, unit_at(&tape, FIRST_DRAIN - 1), frame_bytes);
	memcpy(stream + frame_bytes, unit_at(&tape, FIRST_DRAIN), drain_bytes);
	check_stream_refused(&tape, FIRST_DRAIN, stream, frame_bytes + drain_bytes, "frames");
	erase(&tape);
	free(stream);
}

/* As many frames as announced, but one twice and one missing: the count is right, the sum is not. */
Test(destination, notices_one_frame_in_the_place_of_another)
{
	struct godwit_error error = { "" };
	struct tape tape = { 0 };
	struct sink sink;

	record(&tape, GODWIT_BASE_SIGNATURES);
	sink_open(&sink);
	feed_good(&sink, &tape, HEADER, FIRST_DRAIN - 1);
	feed_good(&sink, &tape, FIRST_FRAME, FIRST_FRAME + 1);
	cr_assert_eq(feed(&sink, unit_at(&tape, FIRST_DRAIN), tape.unit[FIRST_DRAIN].bytes, &error), -EBADMSG);
	cr_assert(strstr(error.text, "missing"), "%s", error.text);
	sink_close(&sink);
	erase(&tape);
}

Test(destination, notices_a_frame_on_the_wrong_side_of_a_drain_frame)
{
	struct godwit_error error = { "" };
	struct tape tape = { 0 };
	struct sink sink;
	int err = 0;

	record(&tape, GODWIT_BASE_SIGNATURES);
	sink_open(&sink);
	feed_good(&sink, &tape, HEADER, FIRST_DRAIN - 1);
	/* The third frame of the second round overtakes the drain frame. */
	err = feed(&sink, unit_at(&tape, SECOND_DRAIN - 1), tape.unit[SECOND_DRAIN - 1].bytes, &error);
	if (!err)
		err = feed(&sink, unit_at(&tape, FIRST_DRAIN), tape.unit[FIRST_DRAIN].bytes, &error);
	cr_assert_eq(err, -EBADMSG);
	sink_close(&sink);
	erase(&tape);
}

Test(destination, refuses_a_damaged_drain_frame)
{
	struct tape tape = { 0 };

	record(&tape, GODWIT_BASE_SIGNATURES);
	for (size_t at = 0; at < GODWIT_HEAD_BYTES; at++)
		check_head_refused(&tape, FIRST_DRAIN, at, 0x40, false, "");
	check_head_refused(&tape, FIRST_DRAIN, 16, 0x01, true, "frames");
	check_head_refused(&tape, FIRST_DRAIN, 24, 0x01, true, "frames");
	erase(&tape);
}

/* ---- the interface itself ---- */

Test(destination, says_what_was_called_out_of_order)
{
	struct godwit_error error = { "" };
	struct tape tape = { 0 };
	size_t body_bytes;
	struct sink sink;
	void *body;

	record(&tape, GODWIT_BASE_SIGNATURES);
	sink_open(&sink);
	cr_assert_eq(godwit_destination_commit(sink.pair.destination, &error), -EINVAL);
	feed_good(&sink, &tape, HEADER, FIRST_FRAME);
	cr_assert_eq(godwit_destination_begin(sink.pair.destination, unit_at(&tape, FIRST_FRAME), &body,
					      &body_bytes, &error), 0);
	cr_assert_eq(body_bytes, tape.unit[FIRST_FRAME].bytes - GODWIT_HEAD_BYTES);
	cr_assert_eq(godwit_destination_begin(sink.pair.destination, unit_at(&tape, FIRST_FRAME), &body,
					      &body_bytes, &error), -EINVAL);
	cr_assert_eq(godwit_destination_drain(sink.pair.destination, &error), -EINVAL);
	cr_assert_eq(godwit_destination_remove_block(sink.pair.destination, BLOCK, &error), -EBUSY);
	/* Destroyed with a frame half read. */
	sink_close(&sink);
	erase(&tape);
}

Test(destination, refuses_blocks_that_cannot_be)
{
	struct godwit_error error = { "" };
	struct sink sink;

	sink_open(&sink);
	struct godwit_destination *d = sink.pair.destination;

	cr_assert_eq(godwit_destination_add_block(d, BLOCK, "again", sink.ram.bytes, PAGE, &error), -EEXIST);
	cr_assert_eq(godwit_destination_add_block(d, GODWIT_MAX_BLOCKS, "x", sink.ram.bytes, PAGE, &error), -EINVAL);
	cr_assert_eq(godwit_destination_add_block(d, 1, "x", sink.ram.bytes, PAGE - 1, &error), -EINVAL);
	cr_assert_eq(godwit_destination_add_block(d, 1, "x", NULL, PAGE, &error), -EINVAL);
	cr_assert_eq(godwit_destination_remove_block(d, 1, &error), -ENOENT);
	cr_assert_eq(godwit_destination_remove_block(d, BLOCK, &error), 0);
	cr_assert_eq(godwit_destination_add_block(d, BLOCK, "smaller", sink.ram.bytes, PAGE, &error), 0);
	sink_close(&sink);
}

Test(destination, takes_options_by_their_size)
{
	struct {
		struct godwit_destination_options known;
		uint64_t tail;
	} newer = { .known = GODWIT_DESTINATION_OPTIONS_INIT };
	struct godwit_destination_options options = GODWIT_DESTINATION_OPTIONS_INIT;
	struct godwit_destination *destination = (void *)1;
	struct godwit_error error = { "" };

	options.size = sizeof(options) - 8;
	cr_assert_eq(godwit_destination_create(&options, &destination, &error), -EINVAL);
	cr_assert_eq(destination, (void *)1);
	options.size = sizeof(options);
	cr_assert_eq(godwit_destination_create(&options, &destination, &error), 0, "%s", error.text);
	godwit_destination_destroy(destination);
	newer.known.size = sizeof(newer);
	cr_assert_eq(godwit_destination_create(&newer.known, &destination, &error), 0, "%s", error.text);
	godwit_destination_destroy(destination);
	newer.tail = 1;
	cr_assert_eq(godwit_destination_create(&newer.known, &destination, &error), -E2BIG);
	options.workers = GODWIT_MAX_WORKERS + 1;
	cr_assert_eq(godwit_destination_create(&options, &destination, &error), -EINVAL);
	cr_assert(strstr(error.text, "workers"), "%s", error.text);
}
