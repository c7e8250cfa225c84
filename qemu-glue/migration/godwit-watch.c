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
 * as long as next to none of them has changed.
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
    int64_t begun_ms;
    int64_t next_ms;
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

    watch->begun_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    watch->next_ms = watch->begun_ms + GODWIT_FIRST_LOOK_MS;
    for (unsigned i = 0; i < GODWIT_WATCHED; i++) {
        /* Anywhere in its stretch: guests are full of powers of two. */
        unsigned long page;
        RAMBlock *rb = godwit_find_page((i + g_random_double()) * stretch,
                                        &page);

        if (rb && test_bit(page, rb->bmap)) {
            watch->watched[i].rb = rb;
            watch->watched[i].page = page;
            watch->watched[i].sum = godwit_sum(rb, page);
        }
    }
    return watch;
}

/* What was sent meanwhile is left out: from then on the dirty log has it. */
static void godwit_watch_look(GodwitWatch *watch, int64_t ms)
{
    unsigned most = GODWIT_QUIET_CHANGED * MIN(ms, GODWIT_QUIET_MS) /
        GODWIT_QUIET_MS;
    unsigned nr_same = 0;

    for (unsigned i = 0; i < GODWIT_WATCHED; i++) {
        RAMBlock *rb = watch->watched[i].rb;
        unsigned long page = watch->watched[i].page;

        if (!rb) {
            continue;
        }
        if (!test_bit(page, rb->bmap)) {
            watch->watched[i].rb = NULL;
        } else if (godwit_sum(rb, page) != watch->watched[i].sum) {
            watch->watched[i].rb = NULL;
            watch->nr_changed++;
        } else {
            nr_same++;
        }
    }
    watch->is_quiet = watch->nr_changed <= most &&
        (watch->is_quiet || nr_same >= GODWIT_QUIET_LEAST);
    trace_migration_godwit_watch(nr_same, watch->nr_changed, watch->is_quiet);
}

bool godwit_watch_is_quiet(GodwitWatch *watch)
{
    int64_t now_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    if (now_ms >= watch->next_ms &&
        watch->nr_changed <= GODWIT_QUIET_CHANGED) {
        int64_t ms = now_ms - watch->begun_ms;

        godwit_watch_look(watch, ms);
        /* The longer it was quiet, the less often. */
        watch->next_ms = now_ms + ms / 2;
    }
    return watch->is_quiet;
}
