/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * godwit: what its files share
 */

#ifndef QEMU_MIGRATION_GODWIT_INT_H
#define QEMU_MIGRATION_GODWIT_INT_H

#include <godwit/godwit.h>

#include "godwit.h"

/* After a be64 that is RAM_SAVE_FLAG_GODWIT, see godwit.c. */
enum {
    GODWIT_RECORD_BLOCKS = 0,
    GODWIT_RECORD_FRAMES = 1,
};
/* Of a record of frames, before the frames. */
#define GODWIT_RECORD_BYTES (8 + 1 + 4)

/* Takes the library's words, at either end. */
void godwit_log(void *opaque, enum godwit_log_level level, const char *line);

/* Is it still one of those that migrate?  Inside of an RCU read section. */
bool godwit_is_listed(RAMBlock *block);

/*
 * Convergence (godwit-converge.c): from save_setup() on, the speed of the link
 * that a file goes to is watched.
 */
void godwit_converge_start(struct godwit_source *source, QEMUFile *f);

/*
 * What the guest would wait for if it were stopped now, in bytes at the speed
 * of the link: dirty pages, and what there is besides them (in flight, device
 * state).  By any thread while migration_godwit_active().
 */
uint64_t godwit_page_bytes(uint64_t pages);
uint64_t godwit_other_bytes(void);

/*
 * Whether a guest writes next to nothing, found out while its RAM is sent for
 * the first time (godwit-watch.c).  By the migration thread, inside of an RCU
 * read section, until the RAM blocks change or the second round begins; then
 * given back by g_free().
 */
typedef struct GodwitWatch GodwitWatch;

GodwitWatch *godwit_watch_new(void);

/* Looks at so many pages, if it is time to, and says what is known by now. */
bool godwit_watch_is_quiet(GodwitWatch *watch, unsigned pages);

/* What is shown of a migration, and stays when it has ended. */
typedef struct {
    bool is_valid;
    bool is_stock;
    struct godwit_stats stats;
    int64_t downtime_ns[GODWIT_DOWNTIME__MAX];
} GodwitSummary;

void godwit_summary_populate(const GodwitSummary *summary,
                             MigrationInfo *info);
void godwit_incoming_populate(const struct godwit_stats *stats,
                              MigrationInfo *info);

#endif
