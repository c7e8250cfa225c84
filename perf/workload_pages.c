/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * workload_pages.c - what is in pages that hold no records, and how a write changes them
 *
 * The classes are there to be unlike each other for an encoder: repeated words, bytes that hardly
 * pack and are replaced whole, arrays of doubles whose mantissa ends in noise, text that returns
 * byte for byte to what it was (A -> B -> A) and text that vanishes and comes back (x -> 0 -> x). The
 * last two are what a wrong idea of the destination's contents fails on.
 */
#include <string.h>

#include "workload_private.h"

#define TOGGLE_FIRST 1024u
#define TOGGLE_BYTES 512u

static const char words[64][8] = {
	"amber  ", "basalt ", "cedar  ", "delta  ", "ember  ", "fjord  ", "garnet ", "harbor ",
	"indigo ", "juniper", "kelp   ", "lagoon ", "marsh  ", "nectar ", "osprey ", "plover ",
	"quartz ", "reed   ", "sorrel ", "tundra ", "umber  ", "violet ", "willow ", "xenon  ",
	"yarrow ", "zephyr ", "godwit ", "curlew ", "dunlin ", "knot   ", "ruff   ", "snipe  ",
	"avocet ", "brent  ", "coot   ", "diver  ", "eider  ", "fulmar ", "gannet ", "heron  ",
	"ibis   ", "jaeger ", "kite   ", "linnet ", "merlin ", "noddy  ", "ouzel  ", "petrel ",
	"quail  ", "raven  ", "siskin ", "tern   ", "uria   ", "vireo  ", "wigeon ", "yaffle ",
	"north  ", "south  ", "east   ", "west   ", "spring ", "autumn ", "ebb    ", "flood  ",
};

uint64_t page_mark(uint64_t page)
{
	uint64_t state = page ^ 0x676f64776974u;

	return rng_next(&state) | 1;
}

static void make_text(char *text, unsigned len_bytes, uint64_t *rng)
{
	for (unsigned at = 0; at < len_bytes; at += 8) {
		uint64_t bits = rng_next(rng);

		memcpy(text + at, words[bits % 64], 7);
		/* A little that does not repeat, as text has. */
		text[at + 7] = (char)(' ' + (bits >> 8 & 15) * (bits >> 12 & 1) * 5);
	}
}

static void make_text_page(char *text, uint64_t page)
{
	uint64_t seed = page_mark(page);

	memcpy(text, &seed, 8);
	make_text(text + 8, GODWIT_PAGE_BYTES - 8, &seed);
}

static void make_binary(uint8_t *bytes, uint64_t *rng)
{
	for (unsigned at = 0; at < GODWIT_PAGE_BYTES; at += 32) {
		uint64_t row[4] = { rng_next(rng), rng_next(rng), 0, 0 };
		uint64_t bits = rng_next(rng);

		row[2] = (bits & 0xffffffff) | (uint64_t)words[bits >> 58][0] << 56;
		memcpy(&row[3], words[bits >> 52 & 63], 8);
		memcpy(bytes + at, row, 32);
	}
}

static double make_number(uint64_t page, unsigned index, uint64_t *rng)
{
	return (double)(page % 1000) * 16 + index * 0.25 + (double)(rng_next(rng) >> 44) / (1 << 24);
}

static void make_head(struct page_head *head, uint64_t page, const char *what)
{
	*head = (struct page_head){ .page = page_mark(page), .generation = 1 };
	snprintf(head->text, sizeof(head->text), "%s, page %llu", what, (unsigned long long)page);
}

void page_stamp(struct workload *w, uint64_t page)
{
	uint64_t generation = w->guest->truth[page].generation + 1;

	guest_write(w->guest, page, offsetof(struct page_head, generation), &generation, 8);
}

GUEST_WRITER
void page_fill(struct workload *w, struct vcpu *v, enum page_class class, uint64_t page, uint64_t *rng)
{
	uint8_t *bytes = guest_page(w->guest, page);
	uint64_t *word = (uint64_t *)bytes;
	unsigned first = sizeof(struct page_head) / 8;

	switch (class) {
	case PAGE_FILL:
		for (unsigned i = 0; i < GUEST_PAGE_WORDS; i++)
			word[i] = page_mark(page / 64);
		break;
	case PAGE_BINARY:
		make_binary(bytes, rng);
		break;
	case PAGE_NUMBERS:
		make_head((struct page_head *)bytes, page, "numbers");
		for (unsigned i = first; i < GUEST_PAGE_WORDS; i++)
			((double *)bytes)[i] = make_number(page, i, rng);
		break;
	case PAGE_RECORDS:
		make_head((struct page_head *)bytes, page, "records");
		break;
	case PAGE_TOGGLE:
	case PAGE_BLINK:
		make_text_page((char *)bytes, page);
		break;
	default:
		break;
	}
}

static void touch_numbers(struct workload *w, struct vcpu *v, uint64_t page)
{
	unsigned first = sizeof(struct page_head) / 8;
	unsigned count = w->config.sparsity_bytes / 8;
	double number[GUEST_PAGE_WORDS];

	if (count > GUEST_PAGE_WORDS - first)
		count = GUEST_PAGE_WORDS - first;

	unsigned at = first + (unsigned)rng_below(&v->regs.rng, GUEST_PAGE_WORDS - first - count + 1);

	for (unsigned i = 0; i < count; i++)
		number[i] = make_number(page, at + i, &v->regs.rng);
	guest_write(w->guest, page, at * 8, number, count * 8);
	page_stamp(w, page);
}

static void touch_toggle(struct workload *w, uint64_t page)
{
	char text[GODWIT_PAGE_BYTES];
	uint64_t state = *(const uint64_t *)guest_page(w->guest, page);
	uint64_t mark = page_mark(page);

	make_text_page(text, page);
	if (state == mark) {	/* A: make it B */
		uint64_t seed = ~mark;

		state = seed;
		make_text(text + TOGGLE_FIRST, TOGGLE_BYTES, &seed);
	} else {
		state = mark;
	}
	guest_write(w->guest, page, TOGGLE_FIRST, text + TOGGLE_FIRST, TOGGLE_BYTES);
	guest_write(w->guest, page, 0, &state, 8);
}

static void touch_blink(struct workload *w, uint64_t page)
{
	char text[GODWIT_PAGE_BYTES] = { 0 };

	if (!*(const uint64_t *)guest_page(w->guest, page))
		make_text_page(text, page);
	guest_write(w->guest, page, 0, text, GODWIT_PAGE_BYTES);
}

void page_touch(struct workload *w, struct vcpu *v, enum page_class class, uint64_t page)
{
	uint64_t word[GUEST_PAGE_WORDS];

	switch (class) {
	case PAGE_FILL:
		word[0] = rng_next(&v->regs.rng);
		for (unsigned i = 1; i < GUEST_PAGE_WORDS; i++)
			word[i] = word[0];
		guest_write(w->guest, page, 0, word, sizeof(word));
		break;
	case PAGE_BINARY:
		make_binary((uint8_t *)word, &v->regs.rng);
		guest_write(w->guest, page, 0, word, sizeof(word));
		break;
	case PAGE_NUMBERS:
		touch_numbers(w, v, page);
		break;
	case PAGE_TOGGLE:
		touch_toggle(w, page);
		break;
	case PAGE_BLINK:
		touch_blink(w, page);
		break;
	default:
		return;
	}
	v->regs.writes++;
}
