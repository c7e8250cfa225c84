/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test_destination.c - what a destination does with bytes it should not get
 *
 * A recorded stream is changed and fed to destinations that never saw it: what lies between frames, and the
 * interface itself. What is wrong inside of a frame is test_decoder.c's.
 */
#include <errno.h>
#include <stdatomic.h>

#include "tape.h"

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
	for (size_t at = 32; at < GODWIT_HEAD_BYTES; at++)
		check_head_refused(&tape, FIRST_DRAIN, at, 0x01, true, "names pages");
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
