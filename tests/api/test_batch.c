/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test_batch.c - the batch layer without the engine, as threads of a hypervisor would use it
 *
 * N threads, each with an encoder and a decoder of its own, one base and one ram between them, and a
 * barrier between rounds: what QEMU's multifd threads and their sync packets are.
 */
#include <errno.h>
#include <pthread.h>

#include "../engine/pair.h"

#define THREADS 4
#define BLOCK 5
#define PAGES 1024
#define ROUNDS 12

struct shared {
	struct godwit_base *base;
	struct godwit_ram *ram;
	uint8_t *guest, *copy;
	pthread_barrier_t barrier;
	unsigned failures;	/* written under the barrier by thread 0 only */
};

struct member {
	struct shared *shared;
	unsigned index;
	const char *rung;
	char failure[320];
	uint64_t frames, wire_bytes, pages;
	struct godwit_stats encoded, decoded;
	pthread_t thread;
};

static void send_slice(struct member *m, struct godwit_encoder *encoder, struct godwit_decoder *decoder,
		       unsigned round)
{
	struct shared *shared = m->shared;
	struct godwit_batch batch = { .block = BLOCK };
	struct godwit_error error = { "" };

	/* Another slice each round: a page's base was brought up by another thread's encoder. */
	for (uint64_t page = (m->index + round) % THREADS; page < PAGES; page += THREADS) {
		const void *frame;
		size_t frame_bytes;
		int err;

		batch.page[batch.nr_pages] = page;
		batch.host[batch.nr_pages++] = shared->guest + page * PAGE;
		if (batch.nr_pages < 1 + round * 7 % GODWIT_BATCH_PAGES && page + THREADS < PAGES)
			continue;
		err = godwit_encode(encoder, &batch, m->frames++, &frame, &frame_bytes);
		if (!err && frame_bytes > GODWIT_FRAME_MAX_BYTES)
			err = -E2BIG;
		if (!err)
			err = godwit_decode(decoder, frame, frame_bytes, &error);
		if (err && !m->failure[0])
			snprintf(m->failure, sizeof(m->failure), "round %u: %d %s", round, err, error.text);
		m->wire_bytes += frame_bytes;
		m->pages += batch.nr_pages;
		batch.nr_pages = 0;
	}
}

static void write_guest(struct shared *shared, unsigned round)
{
	uint64_t seed = round + 1;

	for (uint64_t page = 0; page < PAGES; page++) {
		uint8_t *at = shared->guest + page * PAGE;

		switch ((page + round) % 7) {
		case 0:
			memset(at, 0, PAGE);
			break;
		case 1:
			fill_word(at, page);
			break;
		case 2:
			fill_text(at, &seed);
			break;
		case 3:
			break;
		default:
			poke(at, 1 + (unsigned)(page % 50), &seed);
		}
	}
}

static void *work(void *arg)
{
	struct member *m = arg;
	struct shared *shared = m->shared;
	struct godwit_encoder *encoder;
	struct godwit_decoder *decoder;

	if (godwit_encoder_create(shared->base, &encoder, NULL) ||
	    godwit_encoder_set_rung(encoder, m->rung, NULL) ||
	    godwit_decoder_create(shared->ram, &decoder, NULL))
		abort();
	for (unsigned round = 0; round < ROUNDS; round++) {
		if (!m->index)
			write_guest(shared, round);
		pthread_barrier_wait(&shared->barrier);
		send_slice(m, encoder, decoder, round);
		pthread_barrier_wait(&shared->barrier);
		if (!m->index && memcmp(shared->guest, shared->copy, PAGES * PAGE))
			shared->failures++;
		pthread_barrier_wait(&shared->barrier);
	}
	m->encoded.size = m->decoded.size = sizeof(struct godwit_stats);
	godwit_encoder_stats(encoder, &m->encoded);
	godwit_decoder_stats(decoder, &m->decoded);
	godwit_encoder_destroy(encoder);
	godwit_decoder_destroy(decoder);
	return NULL;
}

static void run_threads(uint32_t kind, uint64_t bytes)
{
	static const char *const rungs[THREADS] = { "none", "lz4", "zstd1", "zlib1" };
	struct godwit_base_options options = { sizeof(options), bytes, kind, 0 };
	struct godwit_error error = { "" };
	struct shared shared = { .guest = map_pages(PAGES), .copy = map_pages(PAGES) };
	struct member member[THREADS] = { 0 };
	uint64_t same = 0;

	memset(shared.copy, 0xA5, PAGES * PAGE);
	cr_assert_eq(godwit_base_create(&options, &shared.base, &error), 0, "%s", error.text);
	cr_assert_eq(godwit_base_add_block(shared.base, BLOCK, PAGES, &error), 0, "%s", error.text);
	cr_assert_eq(godwit_base_layout(shared.base, &options, &error), 0, "%s", error.text);
	cr_assert_eq(godwit_ram_create(&shared.ram, &error), 0, "%s", error.text);
	cr_assert_eq(godwit_ram_add_block(shared.ram, BLOCK, "ram", shared.copy, PAGES * PAGE, &error), 0,
		     "%s", error.text);
	pthread_barrier_init(&shared.barrier, NULL, THREADS);
	for (unsigned i = 0; i < THREADS; i++) {
		member[i] = (struct member){ .shared = &shared, .index = i, .rung = rungs[i] };
		cr_assert_eq(pthread_create(&member[i].thread, NULL, work, &member[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(member[i].thread, NULL);

	for (unsigned i = 0; i < THREADS; i++) {
		const struct godwit_stats *e = &member[i].encoded, *d = &member[i].decoded;

		cr_assert_eq(member[i].failure[0], '\0', "thread %u: %s", i, member[i].failure);
		cr_assert_eq(e->pages, member[i].pages);
		cr_assert_eq(e->pages, sum_of_kinds(e));
		cr_assert_eq(e->wire_bytes, member[i].wire_bytes);
		cr_assert_eq(e->frames, member[i].frames);
		/* Each thread decodes what it encodes: both ends must tell the same story. */
		cr_assert_eq(d->pages, e->pages);
		cr_assert_eq(d->zero, e->zero);
		cr_assert_eq(d->fill, e->fill);
		cr_assert_eq(d->same, e->same);
		cr_assert_eq(d->delta_words, e->delta_words);
		cr_assert_eq(d->delta_lines, e->delta_lines);
		cr_assert_eq(d->wire_bytes, e->wire_bytes);
		same += e->same;
	}
	cr_assert_eq(shared.failures, 0, "%u rounds came out different", shared.failures);
	if (kind != GODWIT_BASE_OFF)
		cr_assert_gt(same, 0, "a page seeded by one thread is known to the others");
	pthread_barrier_destroy(&shared.barrier);
	godwit_base_destroy(shared.base);
	godwit_ram_destroy(shared.ram);
	munmap(shared.guest, PAGES * PAGE);
	munmap(shared.copy, PAGES * PAGE);
}

Test(batch, threads_share_one_base_of_signatures)
{
	run_threads(GODWIT_BASE_SIGNATURES, 1 << 20);
	run_threads(GODWIT_BASE_SIGNATURES, 160 << 10);
}

Test(batch, threads_share_one_base_of_pages)
{
	run_threads(GODWIT_BASE_PAGES, 8 << 20);
	run_threads(GODWIT_BASE_PAGES, 512 << 10);
}

Test(batch, threads_work_without_a_base)
{
	run_threads(GODWIT_BASE_OFF, 0);
}

/* One of everything. */
struct single {
	struct godwit_base *base;
	struct godwit_encoder *encoder;
	struct godwit_ram *ram;
	struct godwit_decoder *decoder;
	uint8_t *guest, *copy;
};

static void single_open(struct single *s)
{
	struct godwit_base_options options = { sizeof(options), 1 << 20, GODWIT_BASE_SIGNATURES, 0 };

	s->guest = map_pages(PAGES);
	s->copy = map_pages(PAGES);
	cr_assert_eq(godwit_base_create(&options, &s->base, NULL), 0);
	cr_assert_eq(godwit_base_add_block(s->base, BLOCK, PAGES, NULL), 0);
	cr_assert_eq(godwit_base_layout(s->base, &options, NULL), 0);
	cr_assert_eq(godwit_encoder_create(s->base, &s->encoder, NULL), 0);
	cr_assert_eq(godwit_ram_create(&s->ram, NULL), 0);
	cr_assert_eq(godwit_ram_add_block(s->ram, BLOCK, "ram", s->copy, PAGES * PAGE, NULL), 0);
	cr_assert_eq(godwit_decoder_create(s->ram, &s->decoder, NULL), 0);
}

static void single_close(struct single *s)
{
	godwit_decoder_destroy(s->decoder);
	godwit_ram_destroy(s->ram);
	godwit_encoder_destroy(s->encoder);
	godwit_base_destroy(s->base);
	munmap(s->guest, PAGES * PAGE);
	munmap(s->copy, PAGES * PAGE);
}

static struct godwit_batch first_pages(const struct single *s, uint32_t n)
{
	struct godwit_batch batch = { .block = BLOCK, .nr_pages = n };

	for (uint32_t i = 0; i < n && i < GODWIT_BATCH_PAGES; i++) {
		batch.page[i] = i;
		batch.host[i] = s->guest + i * PAGE;
	}
	return batch;
}

Test(batch, refuses_batches_that_are_not_ascending_or_not_in_the_block)
{
	struct godwit_batch batch;
	const void *frame;
	size_t frame_bytes;
	struct single s;
	uint64_t pages[GODWIT_BATCH_PAGES];
	uint32_t block;

	single_open(&s);
	batch = first_pages(&s, 2);
	batch.block = BLOCK + 1;
	cr_assert_eq(godwit_encode(s.encoder, &batch, 0, &frame, &frame_bytes), -ENOENT);
	batch = first_pages(&s, 0);
	cr_assert_eq(godwit_encode(s.encoder, &batch, 0, &frame, &frame_bytes), -EINVAL);
	batch = first_pages(&s, GODWIT_BATCH_PAGES + 1);
	cr_assert_eq(godwit_encode(s.encoder, &batch, 0, &frame, &frame_bytes), -EINVAL);
	batch = first_pages(&s, 2);
	batch.page[1] = 0;
	cr_assert_eq(godwit_encode(s.encoder, &batch, 0, &frame, &frame_bytes), -EINVAL);
	batch.page[1] = PAGES;
	cr_assert_eq(godwit_encode(s.encoder, &batch, 0, &frame, &frame_bytes), -EINVAL);
	batch.page[1] = PAGES - 1;
	cr_assert_eq(godwit_encode(s.encoder, &batch, 0, &frame, &frame_bytes), 0);
	cr_assert_eq(godwit_decode(s.decoder, frame, frame_bytes, NULL), 0);
	cr_assert_eq(godwit_decoder_pages(s.decoder, &block, pages), 2);
	cr_assert_eq(block, BLOCK);
	cr_assert_eq(pages[0], 0);
	cr_assert_eq(pages[1], PAGES - 1);
	single_close(&s);
}

Test(batch, says_no_pages_of_a_frame_that_was_refused)
{
	enum { AT_NR_PAGES = 36 };
	uint8_t bad[GODWIT_FRAME_MAX_BYTES];
	uint64_t pages[GODWIT_BATCH_PAGES];
	struct godwit_batch batch;
	const void *frame;
	size_t frame_bytes;
	struct single s;
	uint32_t block;

	single_open(&s);
	cr_assert_eq(godwit_decoder_pages(s.decoder, &block, pages), 0);
	batch = first_pages(&s, 2);
	cr_assert_eq(godwit_encode(s.encoder, &batch, 0, &frame, &frame_bytes), 0);
	cr_assert_eq(godwit_decode(s.decoder, frame, frame_bytes, NULL), 0);
	cr_assert_eq(godwit_decoder_pages(s.decoder, &block, pages), 2);
	/* More than the caller's array holds. */
	memcpy(bad, frame, frame_bytes);
	bad[AT_NR_PAGES] = 255;
	cr_assert_eq(godwit_decode(s.decoder, bad, frame_bytes, NULL), -EBADMSG);
	cr_assert_eq(godwit_decoder_pages(s.decoder, &block, pages), 0);
	single_close(&s);
}

/* Pages [first, first + 64): sent, one word of each changed, sent again. Returns how many were known then. */
static uint64_t send_twice(struct single *s, uint64_t first)
{
	struct godwit_batch batch = first_pages(s, GODWIT_BATCH_PAGES);
	struct godwit_stats stats = GODWIT_STATS_INIT;
	uint64_t seed = first + 1, known = 0;

	for (unsigned i = 0; i < GODWIT_BATCH_PAGES; i++) {
		batch.page[i] += first;
		batch.host[i] = s->guest + batch.page[i] * PAGE;
		fill_random(s->guest + batch.page[i] * PAGE, &seed);
	}
	for (unsigned time = 0; time < 2; time++) {
		const void *frame;
		size_t frame_bytes;

		godwit_encoder_stats(s->encoder, &stats);
		known = stats.base_hits;
		cr_assert_eq(godwit_encode(s->encoder, &batch, 0, &frame, &frame_bytes), 0);
		cr_assert_eq(godwit_decode(s->decoder, frame, frame_bytes, NULL), 0);
		for (unsigned i = 0; i < GODWIT_BATCH_PAGES; i++)
			cr_assert(!memcmp(s->guest + batch.page[i] * PAGE, s->copy + batch.page[i] * PAGE, PAGE));
		for (unsigned i = 0; i < GODWIT_BATCH_PAGES; i++)
			poke(s->guest + batch.page[i] * PAGE, 1, &seed);
	}
	godwit_encoder_stats(s->encoder, &stats);
	return stats.base_hits - known;
}

Test(batch, makes_room_for_newer_pages_as_rounds_go_by)
{
	struct godwit_base_options options = { sizeof(options), 64 * PAGE, GODWIT_BASE_PAGES, 0 };
	uint64_t known_at_first;
	struct single s;

	single_open(&s);
	cr_assert_eq(godwit_base_layout(s.base, &options, NULL), 0);
	known_at_first = send_twice(&s, 0);
	cr_assert_gt(known_at_first, 20);
	for (unsigned i = 0; i < 4; i++)
		send_twice(&s, 64 + 64 * i);
	cr_assert_lt(send_twice(&s, 512), known_at_first / 2, "the cache is full of pages of this round");
	for (unsigned round = 0; round < 3; round++)
		godwit_base_next_round(s.base);
	cr_assert_gt(send_twice(&s, 640), known_at_first / 2);
	single_close(&s);
}

Test(batch, takes_the_options_of_a_base_by_their_size)
{
	struct {
		struct godwit_base_options known;
		uint64_t tail;
	} newer = { .known = { .size = sizeof(newer), .kind = GODWIT_BASE_SIGNATURES } };
	struct godwit_base_options options = { sizeof(options) - 8, 0, GODWIT_BASE_SIGNATURES, 0 };
	struct godwit_base *base = (void *)1;
	struct godwit_error error = { "" };

	cr_assert_eq(godwit_base_create(&options, &base, &error), -EINVAL);
	cr_assert_eq(base, (void *)1);
	cr_assert_gt(strlen(error.text), 0);
	options.size = sizeof(options);
	options.kind = GODWIT_BASE_OFF + 1;
	cr_assert_eq(godwit_base_create(&options, &base, &error), -EINVAL);
	cr_assert_eq(godwit_base_create(&newer.known, &base, &error), 0, "%s", error.text);
	cr_assert_eq(godwit_base_add_block(base, 0, 10, &error), 0, "%s", error.text);
	newer.tail = 1;
	cr_assert_eq(godwit_base_layout(base, &newer.known, &error), -E2BIG);
	godwit_base_destroy(base);
}

Test(batch, needs_a_fixed_rung)
{
	struct godwit_error error = { "" };
	struct single s;

	single_open(&s);
	cr_assert_eq(godwit_encoder_set_rung(s.encoder, "auto", &error), -EINVAL);
	cr_assert_gt(strlen(error.text), 0);
	cr_assert_eq(godwit_encoder_set_rung(s.encoder, "zstd99", &error), -EINVAL);
	cr_assert_eq(godwit_encoder_set_rung(s.encoder, "zlib9", &error), 0);
	single_close(&s);
}

Test(batch, sends_a_forgotten_page_again)
{
	struct godwit_batch batch;
	struct godwit_stats stats = GODWIT_STATS_INIT;
	uint64_t seed = 3;
	struct single s;

	single_open(&s);
	for (unsigned i = 0; i < 4; i++)
		fill_text(s.guest + i * PAGE, &seed);
	batch = first_pages(&s, 4);
	for (unsigned pass = 0; pass < 3; pass++) {
		const void *frame;
		size_t frame_bytes;

		if (pass == 2) {
			/* Discarded at the destination: only forgetting makes it whole again. */
			memset(s.copy + 2 * PAGE, 0, PAGE);
			godwit_base_forget(s.base, BLOCK, 2, 1);
		}
		cr_assert_eq(godwit_encode(s.encoder, &batch, pass, &frame, &frame_bytes), 0);
		cr_assert_eq(godwit_decode(s.decoder, frame, frame_bytes, NULL), 0);
	}
	cr_assert_arr_eq(s.guest, s.copy, 4 * PAGE);
	godwit_encoder_stats(s.encoder, &stats);
	cr_assert_eq(stats.same, 4 + 3);
	cr_assert_eq(stats.base_misses, 4 + 1);
	single_close(&s);
}

/* Known pages go on as deltas, others whole until they are remembered; and nothing is taken for known. */
static void send_what_is_new(uint32_t kind)
{
	struct godwit_base_options options = { sizeof(options), 2 * PAGES * PAGE, kind, 0 };
	struct godwit_stats stats = GODWIT_STATS_INIT;
	struct single s;

	single_open(&s);
	cr_assert_eq(godwit_base_layout(s.base, &options, NULL), 0);
	cr_assert_eq(send_twice(&s, 0), GODWIT_BATCH_PAGES);
	godwit_base_remember_new(s.base, 0);
	cr_assert_eq(send_twice(&s, 64), 0, "they are new, and stay so");
	cr_assert_eq(send_twice(&s, 0), GODWIT_BATCH_PAGES, "they were known");
	godwit_encoder_stats(s.encoder, &stats);
	cr_assert_eq(stats.base_misses, 3 * GODWIT_BATCH_PAGES, "and are");
	godwit_base_remember_new(s.base, 1);
	cr_assert_eq(send_twice(&s, 64), GODWIT_BATCH_PAGES);
	single_close(&s);
}

Test(batch, sends_whole_what_it_was_not_to_remember)
{
	send_what_is_new(GODWIT_BASE_SIGNATURES);
	send_what_is_new(GODWIT_BASE_PAGES);
}

Test(batch, notices_a_destination_that_is_not_what_the_source_believes)
{
	struct godwit_error error;
	struct godwit_batch batch;
	uint64_t seed = 3;
	const void *frame;
	size_t frame_bytes;
	struct single s;

	single_open(&s);
	for (unsigned i = 0; i < 4; i++)
		fill_text(s.guest + i * PAGE, &seed);
	batch = first_pages(&s, 4);
	cr_assert_eq(godwit_encode(s.encoder, &batch, 0, &frame, &frame_bytes), 0);
	cr_assert_eq(godwit_decode(s.decoder, frame, frame_bytes, NULL), 0);

	/* A page said to be the same is not. */
	s.copy[PAGE + 77] ^= 1;
	cr_assert_eq(godwit_encode(s.encoder, &batch, 1, &frame, &frame_bytes), 0);
	cr_assert_eq(godwit_decode(s.decoder, frame, frame_bytes, &error), -EBADMSG);
	cr_assert_neq(strstr(error.text, "frame 1"), NULL, "%s", error.text);
	cr_assert_neq(strstr(error.text, "block 5"), NULL, "%s", error.text);
	cr_assert_neq(strstr(error.text, "byte"), NULL, "%s", error.text);
	s.copy[PAGE + 77] ^= 1;
	cr_assert_eq(godwit_decode(s.decoder, frame, frame_bytes, &error), 0, "%s", error.text);

	/* A delta lands on a page that is not its base; the other pages of the frame do not change either. */
	s.copy[2 * PAGE + 77] ^= 1;
	s.guest[0] ^= 1;
	s.guest[2 * PAGE + 4000] ^= 1;
	cr_assert_eq(godwit_encode(s.encoder, &batch, 2, &frame, &frame_bytes), 0);
	cr_assert_eq(godwit_decode(s.decoder, frame, frame_bytes, &error), -EBADMSG);
	cr_assert_neq(s.copy[0], s.guest[0], "a frame that fails changes no page");
	single_close(&s);
}
