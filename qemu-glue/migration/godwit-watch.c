/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * godwit: does the guest write at all?
 *
 * To remember a page takes an eighth of its memory and some of a worker's
 * time, and pays when the page is sent again.  A guest that writes next to
 * nothing would pay that for all of its RAM.  The dirty log tells of pages
 * that were sent, and at the end of a round: too late.
 *
 * So some hundred pages, spread over RAM, are summed when the first round
 * begins, and looked at again while they wait to be sent.  The guest is quiet
 * as long as next to none of them has changed.  They are looked at a few at a
 * time, so that workers do not wait meanwhile.
 *
 * Only pages that are dirty are read, as the saver is going to read them, and
 * no page that has no memory yet: it would get some.
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "migration/misc.h"
#include "qemu/bitops.h"
#include "qemu/bswap.h"
#include "qemu/rcu_queue.h"
#include "qemu/timer.h"
#include "godwit-int.h"
#include "ram.h"
#include "trace.h"

#define GODWIT_WATCHED 512

/*
 * A quiet guest sends at most this part of its RAM whole once more.  As many
 * in less than that time are the begin of more.
 */
#define GODWIT_QUIET_CHANGED (GODWIT_WATCHED / 100)
#define GODWIT_QUIET_MS 200

/* Before, and of fewer pages, nobody can tell. */
#define GODWIT_FIRST_LOOK_MS 60
#define GODWIT_QUIET_LEAST (GODWIT_WATCHED / 2)

struct GodwitWatch {
    int64_t begun_ms;               /* 0: not all of them are summed */
    int64_t next_ms;                /* when they are looked at again */
    unsigned at;                    /* as far as that has come */
    unsigned nr_same;               /* so far */
    unsigned nr_changed;
    bool is_quiet;
    struct {
        RAMBlock *rb;               /* NULL: sent, or it has changed */
        unsigned long page;
        uint64_t sum;
    } watched[GODWIT_WATCHED];
};

static bool godwit_is_resident(uint8_t *host)
{
    unsigned char vec;

    host = QEMU_ALIGN_PTR_DOWN(host, qemu_real_host_page_size());
    return mincore(host, 1, &vec) || (vec & 1);
}

/*
 * Pages with other content have, as good as always, another sum.  One that is
 * not there is taken for zeros; if it was in a file or in swap it may seem to
 * have changed, which is to err to the safe side.
 */
static uint64_t godwit_sum(RAMBlock *rb, unsigned long page)
{
    uint8_t *host = rb->host + (ram_addr_t)page * GODWIT_PAGE_BYTES;
    uint64_t sum = 0;

    if (!godwit_is_resident(host)) {
        return sum;
    }
    for (unsigned at = 0; at < GODWIT_PAGE_BYTES; at += sizeof(sum)) {
        sum = (sum ^ ldq_he_p(host + at)) * 0x9e3779b97f4a7c15ull;
        sum ^= sum >> 32;
    }
    return sum;
}

/* Page number at of all RAM; NULL: it is past the end. */
static RAMBlock *godwit_find_page(uint64_t at, unsigned long *page)
{
    RAMBlock *rb;

    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        uint64_t pages = rb->used_length / GODWIT_PAGE_BYTES;

        if (at < pages) {
            *page = at;
            return rb;
        }
        at -= pages;
    }
    return NULL;
}

GodwitWatch *godwit_watch_new(void)
{
    GodwitWatch *watch = g_new0(GodwitWatch, 1);
    double stretch = (double)ram_bytes_total() / GODWIT_PAGE_BYTES /
        GODWIT_WATCHED;

    for (unsigned i = 0; i < GODWIT_WATCHED; i++) {
        /* Anywhere in its stretch: guests are full of powers of two. */
        watch->watched[i].rb =
            godwit_find_page((i + g_random_double()) * stretch,
                             &watch->watched[i].page);
    }
    return watch;
}

/* What was sent meanwhile is left out: from then on the dirty log has it. */
static void godwit_watch_look_at(GodwitWatch *watch, unsigned i)
{
    RAMBlock *rb = watch->watched[i].rb;
    unsigned long page = watch->watched[i].page;
    uint64_t sum;

    if (!test_bit(page, rb->bmap)) {
        watch->watched[i].rb = NULL;
        return;
    }
    sum = godwit_sum(rb, page);
    if (!watch->begun_ms) {
        watch->watched[i].sum = sum;
    } else if (sum != watch->watched[i].sum) {
        watch->watched[i].rb = NULL;
        watch->nr_changed++;
    } else {
        watch->nr_same++;
    }
}

static void godwit_watch_conclude(GodwitWatch *watch, int64_t ms)
{
    unsigned most = GODWIT_QUIET_CHANGED * MIN(ms, GODWIT_QUIET_MS) /
        GODWIT_QUIET_MS;

    watch->is_quiet = watch->nr_changed <= most &&
        (watch->is_quiet || watch->nr_same >= GODWIT_QUIET_LEAST);
    trace_migration_godwit_watch(watch->nr_same, watch->nr_changed,
                                 watch->is_quiet);
}

bool godwit_watch_is_quiet(GodwitWatch *watch, unsigned pages)
{
    int64_t now_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    if (watch->nr_changed > GODWIT_QUIET_CHANGED) {
        /* For good, and before the look at the others is over. */
        return false;
    }
    if (now_ms < watch->next_ms) {
        return watch->is_quiet;
    }
    for (; pages && watch->at < GODWIT_WATCHED; watch->at++) {
        if (watch->watched[watch->at].rb) {
            godwit_watch_look_at(watch, watch->at);
            pages--;
        }
    }
    if (watch->at < GODWIT_WATCHED) {
        return watch->is_quiet;
    }
    if (!watch->begun_ms) {
        watch->begun_ms = now_ms;
        watch->next_ms = now_ms + GODWIT_FIRST_LOOK_MS;
    } else {
        godwit_watch_conclude(watch, now_ms - watch->begun_ms);
        /* The longer it was quiet, the less often. */
        watch->next_ms = 2 * now_ms - watch->begun_ms;
    }
    watch->at = 0;
    watch->nr_same = 0;
    return watch->is_quiet;
}
