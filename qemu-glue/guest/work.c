/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * work.c - change pages and know for certain what they must hold
 *
 * It runs under an emulator that makes each instruction cost ten, at 95,000 pages a second on half a
 * core: the sums follow a change instead of being taken anew, and a page's class is told by its number.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "work.h"

/* One page of 64 goes A -> B -> A for ever, one x -> 0 -> x. */
#define CLASS_PAGES 64u
#define CLASS_ABA 21u
#define CLASS_BLINK 42u

#define VOCABULARY 8192u

void (*work_complain)(const char *line);

/* Eight letters each. Pages are drawn from it word by word, so they pack alike however often they changed. */
static uint64_t vocabulary[VOCABULARY];

void content_init(void)
{
    static const char letters[65] =
        "eeeeeeettttttaaaaaaooooiiiinnnnssshhhrrrrddlllucmfwygpbvk   ,.01";
    uint64_t rng = 1;

    for (unsigned i = 0; i < VOCABULARY; i++) {
        char word[8];

        for (unsigned at = 0; at < 8; at++) {
            word[at] = letters[rng_next(&rng) & 63];
        }
        memcpy(&vocabulary[i], word, 8);
    }
}

/* Eight letters of sixteen from 32 bits. */
static inline uint64_t text_word(uint64_t bits)
{
    bits &= 0xffffffff;
    bits = (bits | bits << 16) & 0x0000ffff0000ffff;
    bits = (bits | bits << 8) & 0x00ff00ff00ff00ff;
    bits = (bits | bits << 4) & 0x0f0f0f0f0f0f0f0f;
    return bits + 0x6161616161616161;
}

/* Some words come often, most seldom. */
static inline uint64_t language_word(uint64_t bits)
{
    uint64_t often = (bits >> 26 & 7) == 0 ? 63 : VOCABULARY - 1;

    return vocabulary[bits & often];
}

static inline uint64_t any_word(enum content content, uint64_t bits)
{
    return content == CONTENT_RANDOM ? bits ^ bits << 23 :
           content == CONTENT_WORDS ? language_word(bits) : text_word(bits);
}

void content_words(uint64_t *to, unsigned words, enum content content, uint64_t *rng)
{
    for (unsigned i = 0; i < words; i++) {
        to[i] = any_word(content, rng_next(rng));
    }
}

void content_fill(uint64_t *page, enum content content, uint64_t *rng)
{
    content_words(page, PAGE_WORDS, content, rng);
}

static inline void change(uint64_t *page, struct sums *sums, unsigned at, uint64_t word)
{
    uint64_t difference = word - page[at];

    page[at] = word;
    sums->plain += difference;
    sums->weighted += difference * (PAGE_WORDS - at);
}

static struct sums sums_of(const uint64_t *page)
{
    struct sums sums = { 0, 0 };

    for (unsigned i = 0; i < PAGE_WORDS; i++) {
        sums.plain += page[i];
        sums.weighted += sums.plain;
    }
    return sums;
}

static uint64_t stamp(const struct worker *worker, uint64_t index, uint32_t generation)
{
    return (worker->first + index) << 32 | generation;
}

static uint64_t *page_of(const struct worker *worker, uint64_t index)
{
    return worker->memory + index * PAGE_WORDS;
}

static bool comes_back(uint64_t index)
{
    return index % CLASS_PAGES == CLASS_ABA || index % CLASS_PAGES == CLASS_BLINK;
}

static uint64_t *original_of(const struct worker *worker, uint64_t index)
{
    uint64_t slot = index / CLASS_PAGES * 2 + (index % CLASS_PAGES == CLASS_BLINK);

    return worker->originals + slot * PAGE_WORDS;
}

static void *map(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

bool worker_init(struct worker *worker)
{
    worker->memory = map(worker->pages * PAGE_BYTES);
    worker->records = map(worker->pages * sizeof(*worker->records));
    worker->originals = map((worker->pages / CLASS_PAGES + 1) * 2 * PAGE_BYTES);
    if (!worker->memory || !worker->records || !worker->originals) {
        return false;
    }
    worker->rng = worker->first + 12345;
    for (uint64_t i = 0; i < worker->pages; i++) {
        uint64_t *page = page_of(worker, i);
        struct record *record = &worker->records[i];

        if (worker->content == CONTENT_ZERO && i % 4 && !comes_back(i)) {
            continue;
        }
        content_fill(page, worker->content, &worker->rng);
        page[0] = stamp(worker, i, 0);
        record->sums = sums_of(page);
        if (comes_back(i)) {
            memcpy(original_of(worker, i), page, PAGE_BYTES);
        }
    }
    return true;
}

/* A loop that no compiler makes a string instruction of: those are slow when emulated. */
static void copy_page(uint64_t *to, const uint64_t *from)
{
    for (unsigned i = 0; i < PAGE_WORDS; i++) {
        to[i] = from ? from[i] : 0;
        __asm__ volatile("" ::: "memory");
    }
}

static void set_generation(struct worker *worker, struct record *record, uint32_t generation)
{
    worker->generations += (uint64_t)generation - record->generation;
    record->generation = generation;
}

static void change_words(struct worker *worker, uint64_t index, unsigned words)
{
    uint64_t *page = page_of(worker, index);
    struct record *record = &worker->records[index];
    struct sums sums = record->sums;
    uint64_t rng = worker->rng;
    unsigned at = rng_next(&rng) & (PAGE_WORDS - 1);

    /* Some other odd step from word to word at each visit would touch the same lines. */
    for (unsigned i = 1; i < words; i++, at = (at + 37) & (PAGE_WORDS - 1)) {
        uint64_t bits = rng_next(&rng);

        if (at == 0) {
            continue;
        }
        change(page, &sums, at, any_word(worker->content, bits));
    }
    worker->rng = rng;
    set_generation(worker, record, record->generation + 1);
    change(page, &sums, 0, stamp(worker, index, record->generation));
    record->sums = sums;
}

static void go_and_return(struct worker *worker, uint64_t index, unsigned words)
{
    struct record *record = &worker->records[index];
    uint64_t *page = page_of(worker, index);

    record->away = !record->away;
    if (record->away && index % CLASS_PAGES == CLASS_ABA) {
        change_words(worker, index, words);
        return;
    }
    copy_page(page, record->away ? NULL : original_of(worker, index));
    set_generation(worker, record, 0);
    record->sums = record->away ? (struct sums){ 0, 0 } : sums_of(page);
}

static void fill_or_clear(struct worker *worker, uint64_t index, unsigned words)
{
    struct record *record = &worker->records[index];

    if (!record->generation) {
        change_words(worker, index, words);
        return;
    }
    copy_page(page_of(worker, index), NULL);
    set_generation(worker, record, 0);
    record->sums = (struct sums){ 0, 0 };
}

void worker_burst(struct worker *worker)
{
    unsigned burst = atomic_load_explicit(&worker->pace->burst_pages, memory_order_relaxed);
    unsigned words = atomic_load_explicit(&worker->pace->words, memory_order_relaxed);

    for (unsigned i = 0; i < burst; i++) {
        uint64_t index = (rng_next(&worker->rng) & 0xffffffff) * worker->pages >> 32;

        if (comes_back(index)) {
            go_and_return(worker, index, words);
        } else if (worker->content == CONTENT_ZERO) {
            fill_or_clear(worker, index, words);
        } else {
            change_words(worker, index, words);
        }
    }
    atomic_fetch_add_explicit(&worker->changed, burst, memory_order_relaxed);
}

static void complain(struct worker *worker, uint64_t index, const struct sums *sums)
{
    const struct record *record = &worker->records[index];
    const uint64_t *page = page_of(worker, index);
    unsigned zeros = 0;
    char line[256];

    for (unsigned i = 0; i < PAGE_WORDS; i++) {
        zeros += !page[i];
    }
    snprintf(line, sizeof(line), "BAD page %llu class %s%s: generation %u, holds that of page %llu "
             "generation %u; sums off by %llx %llx; %u zero words",
             (unsigned long long)(worker->first + index),
             index % CLASS_PAGES == CLASS_ABA ? "aba" : index % CLASS_PAGES == CLASS_BLINK ? "blink" : "plain",
             record->away ? " away" : "", record->generation, (unsigned long long)(page[0] >> 32),
             (uint32_t)page[0], (unsigned long long)(sums->plain - record->sums.plain),
             (unsigned long long)(sums->weighted - record->sums.weighted), zeros);
    work_complain(line);
}

void worker_check(struct worker *worker, uint64_t pages)
{
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t index = worker->check_at;
        const struct record *record = &worker->records[index];
        struct sums sums = sums_of(page_of(worker, index));

        worker->check_at = index + 1 < worker->pages ? index + 1 : 0;
        if (sums.plain != record->sums.plain || sums.weighted != record->sums.weighted) {
            complain(worker, index, &sums);
            atomic_fetch_add_explicit(&worker->bad, 1, memory_order_relaxed);
        }
    }
    atomic_fetch_add_explicit(&worker->checked, pages, memory_order_relaxed);
}

void worker_verify(struct worker *worker)
{
    uint64_t generations = 0;

    worker->check_at = 0;
    worker_check(worker, worker->pages);
    /* A page and its record could both be of an older time; their sum, kept here, would not agree. */
    for (uint64_t i = 0; i < worker->pages; i++) {
        generations += worker->records[i].generation;
    }
    if (generations != worker->generations) {
        char line[128];

        snprintf(line, sizeof(line), "BAD page records of worker %u: generations add up to %llu, not %llu",
                 worker->number, (unsigned long long)generations, (unsigned long long)worker->generations);
        work_complain(line);
        atomic_fetch_add_explicit(&worker->bad, 1, memory_order_relaxed);
    }
    atomic_store_explicit(&worker->verify, false, memory_order_relaxed);
}
