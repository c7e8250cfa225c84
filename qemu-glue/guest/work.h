/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * work.h - the memory that a test guest changes and checks
 *
 * A worker owns a range of pages. It changes some in a burst, checks some, and sleeps. What a page
 * must hold (its generation, two sums) is kept in other memory, so a page that arrives as it was some
 * time ago is found, and so is a record that does.
 */
#ifndef GODWIT_GUEST_WORK_H
#define GODWIT_GUEST_WORK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define PAGE_WORDS 512u
#define PAGE_BYTES 4096u

enum content {
    CONTENT_TEXT,       /* sixteen letters, nothing repeated: zstd 1 halves it, at its fastest */
    CONTENT_WORDS,      /* words of a language: zstd 1 halves it, at the speed of real guests' memory */
    CONTENT_RANDOM,     /* nothing packs it */
    CONTENT_ZERO,       /* pages come and go as zeros, a few words between */
};

/* What a worker does; any field may change while it runs. */
struct pace {
    atomic_uint burst_pages;    /* 0: changes nothing */
    atomic_uint sleep_us;
    atomic_uint period_us;      /* from burst to burst */
    atomic_uint words;          /* changed in a page at a visit, the stamp among them */
    atomic_uint check_pages;    /* checked after each burst */
};

/* Two sums that follow a change of one word without reading the others. */
struct sums {
    uint64_t plain, weighted;
};

struct record {
    struct sums sums;
    uint32_t generation;        /* of what the page holds now */
    bool away;                  /* a page that comes back is at B, or at zero */
};

struct worker {
    struct pace *pace;
    enum content content;
    unsigned number;
    uint64_t first, pages;      /* the range of page numbers */
    uint64_t *memory;           /* the first page of the range */
    struct record *records;     /* one a page, elsewhere */
    uint64_t *originals;        /* what a page that comes back comes back to */
    uint64_t rng;
    uint64_t check_at;
    uint64_t generations;       /* the sum of all records' */
    atomic_bool verify;         /* check every page once, then clear this */
    atomic_ulong changed, checked, bad;
};

/* 44 bits. */
static inline uint64_t rng_next(uint64_t *rng)
{
    *rng = *rng * 6364136223846793005u + 1442695040888963407u;
    return *rng >> 20;
}

void content_init(void);
void content_words(uint64_t *to, unsigned words, enum content content, uint64_t *rng);
void content_fill(uint64_t *page, enum content content, uint64_t *rng);

bool worker_init(struct worker *worker);
void worker_burst(struct worker *worker);
void worker_check(struct worker *worker, uint64_t pages);
void worker_verify(struct worker *worker);

/* Called with a line, without its end, for each wrong page. */
extern void (*work_complain)(const char *line);

#endif
