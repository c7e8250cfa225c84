/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * godwit: the page engine beside the RAM saver
 */

#ifndef QEMU_MIGRATION_GODWIT_H
#define QEMU_MIGRATION_GODWIT_H

#include "exec/cpu-common.h"
#include "exec/target_page.h"
#include "migration-stats.h"
#include "qapi/qapi-types-migration.h"
#include "qemu-file.h"

typedef struct RAMBlock RAMBlock;

/* Moments of the switchover, in their order. */
typedef enum {
    GODWIT_DOWNTIME_START,      /* the guest is about to be stopped */
    GODWIT_DOWNTIME_RAM,        /* stopped; the last RAM section begins */
    GODWIT_DOWNTIME_QUEUED,     /* its last page is with a worker */
    GODWIT_DOWNTIME_DRAINED,    /* its last frame is written */
    GODWIT_DOWNTIME_DEVICES,    /* device state is written */
    GODWIT_DOWNTIME_END,        /* the destination has everything */
    GODWIT_DOWNTIME__MAX,
} GodwitDowntimeMark;

#ifdef CONFIG_GODWIT

/*
 * The source side.  Workers read guest pages from save_page() until the
 * flush, both of which are the migration thread's, inside a RAM section.  Any
 * thread may ask active(), pending() and retired_bytes(); the others say who.
 */

/* Do pages go through the engine at this moment? */
bool migration_godwit_active(void);

/*
 * Make the engine, if the capability asks for it, and tell the destination
 * which RAM blocks there are.  In an RCU read section, with the BQL.
 */
bool migration_godwit_save_setup(QEMUFile *f, Error **errp);

/* The list of RAM blocks has changed: drop those that are gone. */
void migration_godwit_blocks_changed(void);

/*
 * Queue a page, whose dirty bit was cleared.
 * Returns 1, or 0 if the caller is to send it the usual way, or < 0.
 */
int migration_godwit_save_page(QEMUFile *f, RAMBlock *rb, ram_addr_t offset);

/*
 * Pages from this one on that the saver may take at once, as those of a host
 * page: what it asks between two pages costs more than to queue one.
 */
unsigned long migration_godwit_run(unsigned long page);

/* Write all that was queued: no worker touches guest memory after this. */
int migration_godwit_save_flush(QEMUFile *f);

/* The dirty bitmap was synchronized; with its mutex, so between sections. */
void migration_godwit_round(bool last_stage);

void migration_godwit_save_cleanup(void);

/*
 * Dirty pages -> bytes, such that bytes / bandwidth is the time that the guest
 * waits for them: what they are going to be on the wire, or more where it is
 * the encoding that takes longer, behind what is in flight, and then device
 * state; 0 of no pages.  Raw bytes where the engine is not in use.
 */
uint64_t migration_godwit_pending(uint64_t pages);

/* Guest bytes that the destination has got so far, by whatever encoding. */
uint64_t migration_godwit_retired_bytes(void);

/*
 * At the end of a rate window, by the migration thread.  Bytes per ms of this
 * window -> those that the switchover may count on; and what was sent above
 * the window's limit, as it was in flight when the limit was reached, counts
 * against the next one.
 */
double migration_godwit_bandwidth(double bytes_per_ms);
void migration_godwit_rate_carry(void);

/* The rate limit has let the migration thread sleep since then. */
void migration_godwit_held_back(int64_t since_ns);

void migration_godwit_downtime(GodwitDowntimeMark mark);

/* The destination side: the main channel's loader. */
int migration_godwit_load(QEMUFile *f);
int migration_godwit_load_flush(void);
void migration_godwit_load_cleanup(void);

/* Parameters: with the BQL. */
bool migration_godwit_params_check(MigrationParameters *params, Error **errp);
void migration_godwit_params_changed(Error **errp);

/* What the capability cannot go with. */
bool migration_godwit_caps_check(const bool *caps, Error **errp);
bool migration_godwit_rdma_check(Error **errp);

/* Must the destination have the capability for this stream? */
bool migration_godwit_must_match(void);

/* Statistics, during a migration and after it, of either side. */
void migration_godwit_populate(MigrationInfo *info);
void migration_godwit_populate_incoming(MigrationInfo *info);
void migration_godwit_hmp_info(Monitor *mon, const MigrationInfo *info);
void migration_godwit_hmp_parameters(Monitor *mon,
                                     const MigrationParameters *params);

#else

static inline bool migration_godwit_active(void)
{
    return false;
}

static inline bool migration_godwit_save_setup(QEMUFile *f, Error **errp)
{
    return true;
}

static inline void migration_godwit_blocks_changed(void)
{
}

static inline int migration_godwit_save_page(QEMUFile *f, RAMBlock *rb,
                                             ram_addr_t offset)
{
    return 0;
}

static inline unsigned long migration_godwit_run(unsigned long page)
{
    return 1;
}

static inline int migration_godwit_save_flush(QEMUFile *f)
{
    return 0;
}

static inline void migration_godwit_round(bool last_stage)
{
}

static inline void migration_godwit_save_cleanup(void)
{
}

static inline double migration_godwit_bandwidth(double bytes_per_ms)
{
    return bytes_per_ms;
}

static inline void migration_godwit_rate_carry(void)
{
}

static inline void migration_godwit_held_back(int64_t since_ns)
{
}

static inline void migration_godwit_downtime(GodwitDowntimeMark mark)
{
}

static inline int migration_godwit_load(QEMUFile *f)
{
    return -ENOTSUP;
}

static inline int migration_godwit_load_flush(void)
{
    return 0;
}

static inline void migration_godwit_load_cleanup(void)
{
}

static inline bool migration_godwit_params_check(MigrationParameters *params,
                                                 Error **errp)
{
    return true;
}

static inline bool migration_godwit_caps_check(const bool *caps, Error **errp)
{
    return true;
}

static inline bool migration_godwit_rdma_check(Error **errp)
{
    return true;
}

static inline void migration_godwit_populate(MigrationInfo *info)
{
}

static inline void migration_godwit_populate_incoming(MigrationInfo *info)
{
}

static inline void migration_godwit_hmp_info(Monitor *mon,
                                             const MigrationInfo *info)
{
}

static inline void
migration_godwit_hmp_parameters(Monitor *mon,
                                const MigrationParameters *params)
{
}

static inline uint64_t migration_godwit_pending(uint64_t pages)
{
    return pages * qemu_target_page_size();
}

static inline uint64_t migration_godwit_retired_bytes(void)
{
    return migration_transferred_bytes();
}

#endif /* CONFIG_GODWIT */

#endif
