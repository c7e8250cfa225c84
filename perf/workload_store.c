/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * workload_store.c - a hash table of JSON records in guest RAM
 *
 * Each vCPU has a store of its own: bucket heads in index pages, records of 576 bytes in record
 * pages, seven to a page, chained by slot number. An update is a lookup (head, then the chain), then
 * the fields that change: counters, a clock, part of a token. Every 32nd is made by copy: the record
 * is written anew into the slot that has been free longest, linked in, and the old one unlinked, so
 * that index pages and records move as they do in a real store.
 *
 * Keys are chosen by zipf (Gray et al., "Quickly generating billion-record synthetic databases",
 * SIGMOD 1994), ranks scattered over the keys. Everything that the store knows is in guest RAM and in
 * two registers.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "workload_private.h"

#define ZIPF_THETA 0.8
#define FREE_EVERY 29u			/* every so many active slots is free at first */
#define COPY_EVERY 32u
#define SLOT_HEAD 16u
#define MAX_HOPS 1000u			/* a longer chain is a damaged one */
#define TEXT_BYTES (SLOT_BYTES - SLOT_HEAD)
#define INDEX_HEADS (GODWIT_PAGE_BYTES / 4)

struct slot {
	uint64_t key;		/* key + 1; 0: free */
	uint32_t next;		/* slot + 1; 0: the chain ends */
	uint32_t version;
	char text[TEXT_BYTES];
};
_Static_assert(sizeof(struct slot) == SLOT_BYTES, "records are written as they are");
_Static_assert(sizeof(struct page_head) + PAGE_SLOTS * SLOT_BYTES == GODWIT_PAGE_BYTES,
	       "seven records fill a page");

static const char template[] =
	"{\"id\":\"----------------\",\"name\":\"godwit limosa\",\"mail\":\"limosa@example.org\","
	"\"balance\":0000000000.00,\"visits\":00000000,\"seen\":0000000000000,\"active\":true,"
	"\"token\":\"################################################################################"
	"################\",\"plan\":\"standard\",\"tags\":[\"wader\",\"tundra\",\"estuary\"],"
	"\"note\":\"";
static const char note_end[] = "\"}";

/* Where the fields are; the same for every record. */
#define FIELD_ID 7u
#define ID_BYTES 16u
#define TOKEN_BYTES 96u
static unsigned field_balance, field_visits, field_seen, field_token, field_note;

static void find_fields(void)
{
	field_balance = (unsigned)(strstr(template, "\"balance\":") - template) + 10;
	field_visits = (unsigned)(strstr(template, "\"visits\":") - template) + 9;
	field_seen = (unsigned)(strstr(template, "\"seen\":") - template) + 7;
	field_token = (unsigned)(strstr(template, "\"token\":\"") - template) + 9;
	field_note = (unsigned)sizeof(template) - 1;
}

/* ---- words and digits ---- */

static const char vocabulary[32][8] = {
	"tide    ", "mudflat ", "arrives ", "from the", "north   ", "with a  ", "flock of", "waders  ",
	"and then", "rests by", "estuary ", "feeding ", "at low  ", "water   ", "before  ", "leaving ",
	"again   ", "over sea", "eight   ", "days of ", "flight  ", "without ", "landing ", "until it",
	"reaches ", "shore   ", "in the  ", "autumn  ", "wind    ", "helps it", "along   ", "home    ",
};

static void put_digits(char *text, unsigned digits, uint64_t value)
{
	while (digits--) {
		text[digits] = (char)('0' + value % 10);
		value /= 10;
	}
}

static void put_hex(char *text, unsigned digits, uint64_t value)
{
	for (; digits--; value >>= 4)
		text[digits] = "0123456789abcdef"[value & 15];
}

static void put_token(char *text, unsigned len_bytes, uint64_t *rng)
{
	uint64_t bits = 0;

	for (unsigned i = 0; i < len_bytes; i++, bits >>= 6) {
		if (i % 10 == 0)
			bits = rng_next(rng);
		text[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[bits & 63];
	}
}

static void put_note(char *text, unsigned len_bytes, uint64_t *rng)
{
	for (unsigned i = 0; i < len_bytes; i += 8)
		memcpy(text + i, vocabulary[rng_next(rng) >> 59], len_bytes - i < 8 ? len_bytes - i : 8);
}

static void make_record(struct slot *slot, uint64_t key, uint64_t *rng)
{
	char *text = slot->text;
	unsigned note_bytes = TEXT_BYTES - field_note - (unsigned)sizeof(note_end) + 1;

	*slot = (struct slot){ .key = key + 1, .version = 1 };
	memcpy(text, template, sizeof(template) - 1);
	put_hex(text + FIELD_ID, ID_BYTES, page_mark(key));
	put_digits(text + field_balance, 10, rng_below(rng, 100000));
	put_digits(text + field_visits, 8, rng_below(rng, 1000));
	put_digits(text + field_seen, 13, 1700000000000u + rng_below(rng, 1u << 30));
	put_token(text + field_token, TOKEN_BYTES, rng);
	put_note(text + field_note, note_bytes, rng);
	memcpy(text + TEXT_BYTES - sizeof(note_end) + 1, note_end, sizeof(note_end) - 1);
}

/* ---- where things are ---- */

static uint64_t slot_page(const struct vcpu *v, uint64_t slot)
{
	return v->list[PAGE_RECORDS].page[slot / PAGE_SLOTS];
}

static unsigned slot_offset(uint64_t slot)
{
	return (unsigned)(sizeof(struct page_head) + slot % PAGE_SLOTS * SLOT_BYTES);
}

static struct slot *slot_at(const struct vcpu *v, uint64_t slot)
{
	return (struct slot *)(guest_page(v->workload->guest, slot_page(v, slot)) + slot_offset(slot));
}

static void write_slot(struct vcpu *v, uint64_t slot, size_t offset, const void *bytes, size_t len_bytes)
{
	guest_write(v->workload->guest, slot_page(v, slot), slot_offset(slot) + (unsigned)offset, bytes,
		    (unsigned)len_bytes);
}

static uint64_t bucket_of(const struct vcpu *v, uint64_t key)
{
	uint64_t state = key;

	return rng_below(&state, (uint64_t)v->list[PAGE_INDEX].count * INDEX_HEADS);
}

static uint32_t *head_at(const struct vcpu *v, uint64_t bucket)
{
	uint64_t page = v->list[PAGE_INDEX].page[bucket / INDEX_HEADS];

	return (uint32_t *)guest_page(v->workload->guest, page) + bucket % INDEX_HEADS;
}

static void write_head(struct vcpu *v, uint64_t bucket, uint32_t link)
{
	guest_write(v->workload->guest, v->list[PAGE_INDEX].page[bucket / INDEX_HEADS],
		    (unsigned)(bucket % INDEX_HEADS) * 4, &link, 4);
	v->regs.writes++;
}

/* ---- set-up ---- */

static bool is_free_at_first(const struct vcpu *v, uint64_t slot)
{
	return slot < v->active_slots && slot % FREE_EVERY == FREE_EVERY - 1;
}

static void zipf_init(struct zipf *z, uint64_t n)
{
	double zeta2 = 1 + pow(0.5, ZIPF_THETA);

	*z = (struct zipf){ .theta = ZIPF_THETA, .n = n, .alpha = 1 / (1 - ZIPF_THETA) };
	for (uint64_t i = 1; i <= n; i++)
		z->zetan += pow((double)i, -ZIPF_THETA);
	z->eta = (1 - pow(2.0 / (double)n, 1 - ZIPF_THETA)) / (1 - zeta2 / z->zetan);
}

static uint64_t zipf_next(const struct zipf *z, uint64_t *rng)
{
	double u = (double)(rng_next(rng) >> 11) / (double)(1ull << 53);
	double uz = u * z->zetan;
	uint64_t rank;

	if (uz < 1)
		return 0;
	if (uz < 1 + pow(0.5, z->theta))
		return 1;
	rank = (uint64_t)((double)z->n * pow(z->eta * u - z->eta + 1, z->alpha));
	return rank < z->n ? rank : z->n - 1;
}

int store_init(struct vcpu *v)
{
	uint64_t active_keys;

	find_fields();
	v->slots = (uint64_t)v->list[PAGE_RECORDS].count * PAGE_SLOTS;
	v->active_slots = (uint64_t)v->list[PAGE_RECORDS].active * PAGE_SLOTS;
	active_keys = v->active_slots - v->active_slots / FREE_EVERY;
	v->keys = v->slots - v->active_slots / FREE_EVERY;
	if (active_keys < 2 || v->active_slots < 2 * FREE_EVERY)
		return -EINVAL;
	zipf_init(&v->zipf, active_keys);
	return 0;
}

GUEST_WRITER
void store_fill(struct workload *w, struct vcpu *v)
{
	uint64_t rng = w->config.seed + v->number + 1;
	uint64_t key = 0;

	for (uint64_t s = 0; s < v->slots; s++) {
		struct slot *slot = slot_at(v, s);

		if (!is_free_at_first(v, s)) {
			uint32_t *head = head_at(v, bucket_of(v, key));

			make_record(slot, key++, &rng);
			slot->next = *head;
			*head = (uint32_t)s + 1;
			continue;
		}
		*slot = (struct slot){ 0 };
		if (v->regs.free_last)
			slot_at(v, v->regs.free_last - 1)->next = (uint32_t)s + 1;
		else
			v->regs.free_first = s + 1;
		v->regs.free_last = s + 1;
	}
}

/* ---- updates ---- */

/* Fields to change, until as many bytes as asked for are. */
static void write_fields(struct workload *w, struct vcpu *v, uint64_t s, uint64_t *rng)
{
	const size_t text = offsetof(struct slot, text);
	unsigned left = w->config.sparsity_bytes;
	uint32_t version = slot_at(v, s)->version + 1;
	char field[TEXT_BYTES];

	write_slot(v, s, offsetof(struct slot, version), &version, 4);
	put_digits(field, 8, version);
	write_slot(v, s, text + field_visits, field, 8);
	if (left >= 24) {
		put_digits(field, 13, 1700000000000u + v->regs.ticks * 1000 + rng_below(rng, 1000));
		write_slot(v, s, text + field_seen, field, 13);
	}
	if (left >= 40) {
		put_digits(field, 10, rng_below(rng, 100000));
		write_slot(v, s, text + field_balance, field, 10);
	}
	left = left > 40 ? left - 40 : 0;
	if (left) {
		unsigned bytes = left < TOKEN_BYTES ? left : TOKEN_BYTES;

		put_token(field, bytes, rng);
		write_slot(v, s, text + field_token, field, bytes);
		left -= bytes;
	}
	if (left) {
		unsigned room = TEXT_BYTES - field_note - (unsigned)sizeof(note_end) + 1;

		put_note(field, left < room ? left : room, rng);
		write_slot(v, s, text + field_note, field, left < room ? left : room);
	}
	page_stamp(w, slot_page(v, s));
	v->regs.writes++;
}

/* The link that points to slot + 1 changes to `to`. */
static void relink(struct workload *w, struct vcpu *v, uint64_t bucket, uint32_t link, uint32_t to)
{
	uint32_t at = *head_at(v, bucket);
	unsigned hops = 0;

	if (at == link) {
		write_head(v, bucket, to);
		return;
	}
	while (at && at <= v->slots && hops++ < MAX_HOPS && slot_at(v, at - 1)->next != link)
		at = slot_at(v, at - 1)->next;
	if (!at || at > v->slots || hops > MAX_HOPS)
		return;	/* guest RAM is damaged: the checker says where */
	write_slot(v, at - 1, offsetof(struct slot, next), &to, 4);
	page_stamp(w, slot_page(v, at - 1));
	v->regs.writes++;
}

static void update_by_copy(struct workload *w, struct vcpu *v, uint64_t s, uint64_t bucket)
{
	uint32_t to = (uint32_t)v->regs.free_first;
	struct slot record = *slot_at(v, s), nothing = { 0 };
	uint32_t link = (uint32_t)v->regs.free_last;

	if (!to || to == link || to > v->slots)
		return;
	v->regs.free_first = slot_at(v, to - 1)->next;
	write_slot(v, to - 1, 0, &record, sizeof(record));
	relink(w, v, bucket, (uint32_t)s + 1, to);
	write_fields(w, v, to - 1, &v->regs.rng);

	write_slot(v, s, 0, &nothing, SLOT_HEAD);
	page_stamp(w, slot_page(v, s));
	link = (uint32_t)s + 1;
	write_slot(v, v->regs.free_last - 1, offsetof(struct slot, next), &link, 4);
	page_stamp(w, slot_page(v, v->regs.free_last - 1));
	v->regs.free_last = s + 1;
	v->regs.writes += 2;
}

void store_update(struct workload *w, struct vcpu *v)
{
	/* Ranks are scattered by a prime larger than any number of keys. */
	uint64_t key = zipf_next(&v->zipf, &v->regs.rng) * 2654435761u % v->zipf.n;
	uint64_t bucket = bucket_of(v, key);
	uint32_t link = *head_at(v, bucket);
	unsigned hops = 0;

	while (link && link <= v->slots && hops++ < MAX_HOPS && slot_at(v, link - 1)->key != key + 1)
		link = slot_at(v, link - 1)->next;
	if (!link || link > v->slots || hops > MAX_HOPS) {
		if (!v->regs.errors++)
			snprintf(v->text, sizeof(v->text), "the store has lost key %llu",
				 (unsigned long long)key);
		return;
	}
	if (rng_below(&v->regs.rng, COPY_EVERY) == 0)
		update_by_copy(w, v, link - 1, bucket);
	else
		write_fields(w, v, link - 1, &v->regs.rng);
}

void store_touch(struct workload *w, struct vcpu *v, uint64_t page)
{
	uint64_t slot = (uint64_t)w->owner_index[page] * PAGE_SLOTS + rng_below(&v->regs.rng, PAGE_SLOTS);

	if (slot_at(v, slot)->key) {
		write_fields(w, v, slot, &v->regs.rng);
		return;
	}
	page_stamp(w, page);
	v->regs.writes++;
}
