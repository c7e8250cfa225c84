/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * godwit: the page engine beside the RAM saver, source side
 *
 * The saver queues dirty pages, whose bits it has cleared, and touches none
 * of them; the engine's workers read, encode and compress; the saver's thread
 * writes the finished frames to its channel.  Three rules carry it:
 *
 *  - A section is whole.  All that was queued in a RAM section is encoded and
 *    written before the section's EOS, so workers are inside of the RCU read
 *    section that protects RAM blocks, a page is queued at most once between
 *    two drains (its dirty bit comes back with a sync only, and there is none
 *    in a section), and what is pending is exact when somebody asks.
 *  - The engine remembers what it sent.  A page that goes another way is
 *    forgotten by the engine, before, and goes whole the next time.
 *  - The handle lives from save_setup() to save_cleanup(), both with the BQL,
 *    and so do its readers outside of the migration thread.
 *
 * On the wire a record inside a RAM section carries frames, or in the first
 * section the names of the RAM blocks:
 *
 *   be64 RAM_SAVE_FLAG_GODWIT, u8 GODWIT_RECORD_FRAMES, be32 bytes, frames
 *   be64 RAM_SAVE_FLAG_GODWIT, u8 GODWIT_RECORD_BLOCKS, be32 count,
 *     count * { be32 id, u8 length, name, be64 used length }
 *
 * The frames themselves are the library's affair.  With the stock stream
 * there are no records: the library gives what any QEMU reads.
 */

#include "qemu/osdep.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "migration/misc.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "qemu/rcu_queue.h"
#include "system/runstate.h"
#include "godwit.h"
#include "godwit-int.h"
#include "godwit-throttle.h"
#include "migration.h"
#include "options.h"
#include "qemu-file.h"
#include "ram.h"
#include "trace.h"

/* Below the 64 at which a QEMUFile flushes by itself; two are the record's. */
#define GODWIT_IOVS 48

/* What is rather copied than sent by itself: a drain frame, pages of zeros. */
#define GODWIT_SMALL_BYTES 1024

/*
 * How many pages are looked at for each write: workers must not run out of
 * work meanwhile, as a page that is not in the cache may take 10 us.
 */
#define GODWIT_LOOK_PAGES 16

/* What the saver queues before it looks at the limit and at the clock again. */
#define GODWIT_RUN_PAGES 64

/* What is counted in mig_stats and xbzrle_counters already. */
typedef struct {
    uint64_t zero_pages;
    uint64_t normal_pages;
    uint64_t delta_pages;
} GodwitCounted;

typedef struct {
    struct godwit_source *source;
    bool is_stock;
    bool was_postcopy;

    /* By the id that a block has on the wire; NULL once it is gone. */
    RAMBlock *block[GODWIT_MAX_BLOCKS];
    uint32_t nr_blocks;
    uint32_t last_id;

    bool may_be_quiet;
    GodwitWatch *watch;             /* only then */

    GodwitCounted counted;
} GodwitSave;

static GodwitSave *save;

/* Of the migration that runs, or of the last one; with the BQL. */
static GodwitSummary summary;

/* ---- errors, words, blocks ---- */

bool godwit_is_listed(RAMBlock *block)
{
    RAMBlock *rb;

    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        if (rb == block) {
            return true;
        }
    }
    return false;
}

void godwit_log(void *opaque, enum godwit_log_level level, const char *line)
{
    trace_migration_godwit_log(line);
    if (level == GODWIT_LOG_ERROR) {
        error_report("godwit: %s", line);
    } else if (level == GODWIT_LOG_WARN) {
        warn_report("godwit: %s", line);
    }
}

static int godwit_save_failed(QEMUFile *f, const struct godwit_error *error)
{
    Error *err = NULL;

    error_setg(&err, "godwit: %s", error->text);
    migrate_set_error(migrate_get_current(), err);
    error_report_err(err);
    qemu_file_set_error(f, -EIO);
    return -EIO;
}

/* ---- parameters ---- */

static struct godwit_params godwit_params_from(MigrationParameters *p)
{
    struct godwit_params params = GODWIT_PARAMS_INIT;

    params.rung = p->x_godwit_rung;
    params.base_bytes = p->x_godwit_cache_size;
    params.workers = p->x_godwit_threads;
    /* The enums are in the same order, see the assertions. */
    params.base = p->x_godwit_base;
    params.when_busy = p->x_godwit_when_busy;
    return params;
}

QEMU_BUILD_BUG_ON((int)GODWIT_BASE_KIND_SIGNATURES !=
                  (int)GODWIT_BASE_SIGNATURES);
QEMU_BUILD_BUG_ON((int)GODWIT_BASE_KIND_PAGES != (int)GODWIT_BASE_PAGES);
QEMU_BUILD_BUG_ON((int)GODWIT_BASE_KIND_OFF != (int)GODWIT_BASE_OFF);
QEMU_BUILD_BUG_ON((int)GODWIT_BUSY_POLICY_AUTO !=
                  (int)GODWIT_WHEN_BUSY_AUTO);
QEMU_BUILD_BUG_ON((int)GODWIT_BUSY_POLICY_WAIT !=
                  (int)GODWIT_WHEN_BUSY_WAIT);
QEMU_BUILD_BUG_ON((int)GODWIT_BUSY_POLICY_RAW != (int)GODWIT_WHEN_BUSY_RAW);

bool migration_godwit_params_check(MigrationParameters *p, Error **errp)
{
    struct godwit_params params = godwit_params_from(p);
    struct godwit_error error;

    if (migration_is_running() && migrate_godwit() &&
        p->x_godwit_stream != migrate_godwit_stream()) {
        error_setg(errp, "x-godwit-stream cannot change during a migration");
        return false;
    }
    if (godwit_params_check(&params, &error)) {
        error_setg(errp, "x-godwit: %s", error.text);
        return false;
    }
    return true;
}

void migration_godwit_params_changed(Error **errp)
{
    struct godwit_params params;
    struct godwit_error error;

    if (!save) {
        return;
    }
    params = godwit_params_from(&migrate_get_current()->parameters);
    if (godwit_source_set_params(save->source, &params, &error)) {
        error_setg(errp, "x-godwit: %s", error.text);
    }
}

bool migration_godwit_caps_check(const bool *caps, Error **errp)
{
    static const MigrationCapability others[] = {
        MIGRATION_CAPABILITY_MULTIFD,
        MIGRATION_CAPABILITY_MAPPED_RAM,
        MIGRATION_CAPABILITY_X_COLO,
    };

    if (!caps[MIGRATION_CAPABILITY_X_GODWIT]) {
        return true;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
        if (caps[others[i]]) {
            error_setg(errp, "x-godwit is not compatible with %s",
                       MigrationCapability_str(others[i]));
            return false;
        }
    }
    if (qemu_target_page_size() != GODWIT_PAGE_BYTES) {
        error_setg(errp, "x-godwit is for guest pages of %u bytes only",
                   GODWIT_PAGE_BYTES);
        return false;
    }
    return true;
}

bool migration_godwit_rdma_check(Error **errp)
{
    if (migrate_godwit()) {
        error_setg(errp, "x-godwit is not compatible with RDMA");
        return false;
    }
    return true;
}

/*
 * What is saved without a migration thread is a snapshot, for any QEMU that
 * comes after.  The run state says it of a guest that ran only.
 */
static bool godwit_is_snapshot(void)
{
    return !migrate_get_current()->migration_thread_running;
}

bool migration_godwit_must_match(void)
{
    return runstate_check(RUN_STATE_INMIGRATE) ||
        (!godwit_is_snapshot() &&
         migrate_godwit_stream() == GODWIT_STREAM_FORMAT_GODWIT);
}

/* ---- statistics ---- */

/*
 * What others show too, they show of all pages: a page of zeros, or of one
 * word, is a duplicate; a page that went whole is normal.  What is left went
 * as a delta or as nothing.
 */
static void godwit_count_pages(GodwitSave *s, const struct godwit_stats *stats)
{
    GodwitCounted now = {
        .zero_pages = stats->zero + stats->fill,
        .normal_pages = stats->whole + stats->raw,
        .delta_pages = stats->base_hits,
    };

    stat64_add(&mig_stats.zero_pages, now.zero_pages - s->counted.zero_pages);
    stat64_add(&mig_stats.normal_pages,
               now.normal_pages - s->counted.normal_pages);
    xbzrle_counters.pages += now.delta_pages - s->counted.delta_pages;
    s->counted = now;
}

static void godwit_read_stats(GodwitSave *s)
{
    summary.stats = (struct godwit_stats)GODWIT_STATS_INIT;
    godwit_source_stats(s->source, &summary.stats);
}

uint64_t migration_godwit_retired_bytes(void)
{
    struct godwit_stats stats = GODWIT_STATS_INIT;

    if (!migration_godwit_active()) {
        return migration_transferred_bytes();
    }
    godwit_source_stats(save->source, &stats);
    return stats.retired_bytes + stats.busy * GODWIT_PAGE_BYTES;
}

void migration_godwit_downtime(GodwitDowntimeMark mark)
{
    if (save) {
        summary.downtime_ns[mark] = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    }
}

void migration_godwit_populate(MigrationInfo *info)
{
    if (save) {
        godwit_read_stats(save);
    }
    if (summary.is_valid) {
        godwit_summary_populate(&summary, info);
        migration_godwit_throttle_populate(info);
    }
}

/* ---- the way of a page ---- */

bool migration_godwit_active(void)
{
    if (!save || qatomic_read(&save->was_postcopy)) {
        return false;
    }
    if (migration_in_postcopy()) {
        /* For good: a failure ends that state before the pages end. */
        qatomic_set(&save->was_postcopy, true);
        return false;
    }
    return true;
}

static bool godwit_find_block(GodwitSave *s, RAMBlock *rb)
{
    if (s->last_id < s->nr_blocks && s->block[s->last_id] == rb) {
        return true;
    }
    for (uint32_t id = 0; id < s->nr_blocks; id++) {
        if (s->block[id] == rb) {
            s->last_id = id;
            return true;
        }
    }
    return false;
}

/* What is remembered of pages is of use if they are sent again. */
static void godwit_watch(GodwitSave *s, unsigned pages)
{
    if (s->may_be_quiet) {
        if (!s->watch) {
            s->watch = godwit_watch_new();
        }
        godwit_source_remember_new(s->source,
                                   !godwit_watch_is_quiet(s->watch, pages));
    }
}

/* Write what is finished.  Where the file has failed, it is thrown away. */
static int godwit_write(GodwitSave *s, QEMUFile *f)
{
    struct iovec iov[GODWIT_IOVS];
    int n = godwit_source_collect(s->source, 0, iov, GODWIT_IOVS);
    size_t bytes = iov_size(iov, n);
    bool is_small = bytes <= GODWIT_SMALL_BYTES;
    int ret = qemu_file_get_error(f);

    if (n && !ret) {
        if (!s->is_stock) {
            qemu_put_be64(f, RAM_SAVE_FLAG_GODWIT);
            qemu_put_byte(f, GODWIT_RECORD_FRAMES);
            qemu_put_be32(f, bytes);
        }
        for (int i = 0; i < n; i++) {
            if (is_small) {
                qemu_put_buffer(f, iov[i].iov_base, iov[i].iov_len);
            } else {
                qemu_put_buffer_async(f, iov[i].iov_base, iov[i].iov_len,
                                      false);
            }
        }
        if (!is_small) {
            /* The engine gets its buffers back below. */
            ret = qemu_fflush(f);
        }
        ram_transferred_add(bytes + (s->is_stock ? 0 : GODWIT_RECORD_BYTES));
        trace_migration_godwit_write(n, bytes);
    }
    godwit_source_release(s->source);
    godwit_watch(s, GODWIT_LOOK_PAGES);
    return ret;
}

int migration_godwit_save_page(QEMUFile *f, RAMBlock *rb, ram_addr_t offset)
{
    GodwitSave *s = save;
    struct godwit_error error;
    int ret;

    if (!godwit_find_block(s, rb)) {
        /* It came after the start: the engine knows nothing of it. */
        return 0;
    }
    while (true) {
        switch (godwit_source_queue(s->source, s->last_id,
                                    offset / GODWIT_PAGE_BYTES,
                                    rb->host + offset, &error)) {
        case GODWIT_QUEUE_OK:
            return 1;
        case GODWIT_QUEUE_BUSY:
            return 0;
        case GODWIT_QUEUE_COLLECT:
            ret = godwit_write(s, f);
            if (ret < 0) {
                return ret;
            }
            break;
        default:
            return godwit_save_failed(f, &error);
        }
    }
}

unsigned long migration_godwit_run(unsigned long page)
{
    return migration_godwit_active() ?
        GODWIT_RUN_PAGES - page % GODWIT_RUN_PAGES : 1;
}

static void godwit_end_watch(GodwitSave *s, bool remember)
{
    s->may_be_quiet = false;
    g_clear_pointer(&s->watch, g_free);
    godwit_source_remember_new(s->source, remember);
}

int migration_godwit_save_flush(QEMUFile *f)
{
    struct godwit_stats stats = GODWIT_STATS_INIT;
    GodwitSave *s = save;
    struct godwit_error error;
    int ret;

    if (!migration_godwit_active()) {
        return 0;
    }
    /* Also when the file has failed: workers must leave guest memory alone. */
    while ((ret = godwit_source_drain(s->source, &error)) ==
           GODWIT_QUEUE_COLLECT) {
        godwit_write(s, f);
    }
    if (ret < 0) {
        return godwit_save_failed(f, &error);
    }
    godwit_source_stats(s->source, &stats);
    godwit_count_pages(s, &stats);
    if (s->watch) {
        /* Writes are few on a slow link, which does not run dry meanwhile. */
        godwit_watch(s, UINT_MAX);
    }
    return qemu_file_get_error(f);
}

void migration_godwit_round(bool last_stage)
{
    if (migration_godwit_active()) {
        /* What is sent now the guest has written; and the last it is once. */
        godwit_end_watch(save, !last_stage);
        godwit_source_round(save->source);
        migration_godwit_throttle_round();
    }
}

/* ---- birth, blocks and end ---- */

static bool godwit_add_blocks(GodwitSave *s, Error **errp)
{
    /*
     * In postcopy, what is not there yet is not zeros: it is to come.  As of
     * now yank has only one migration at a time.
     */
    bool is_complete = !migration_in_incoming_postcopy();
    struct godwit_error error;
    RAMBlock *rb;

    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        if (s->nr_blocks == GODWIT_MAX_BLOCKS) {
            error_setg(errp, "x-godwit: more than %u RAM blocks",
                       GODWIT_MAX_BLOCKS);
            return false;
        }
        if (godwit_source_add_block(s->source, s->nr_blocks, rb->idstr,
                                    is_complete ? rb->host : NULL,
                                    rb->used_length, &error)) {
            error_setg(errp, "x-godwit: %s", error.text);
            return false;
        }
        s->block[s->nr_blocks++] = rb;
    }
    return true;
}

static void godwit_put_blocks(GodwitSave *s, QEMUFile *f)
{
    qemu_put_be64(f, RAM_SAVE_FLAG_GODWIT);
    qemu_put_byte(f, GODWIT_RECORD_BLOCKS);
    qemu_put_be32(f, s->nr_blocks);
    for (uint32_t id = 0; id < s->nr_blocks; id++) {
        RAMBlock *rb = s->block[id];
        size_t len = strlen(rb->idstr);

        qemu_put_be32(f, id);
        qemu_put_byte(f, len);
        qemu_put_buffer(f, (uint8_t *)rb->idstr, len);
        qemu_put_be64(f, rb->used_length);
    }
}

bool migration_godwit_save_setup(QEMUFile *f, Error **errp)
{
    struct godwit_source_options options = GODWIT_SOURCE_OPTIONS_INIT;
    g_autofree GodwitSave *s = NULL;
    struct godwit_error error;

    assert(!save);
    summary = (GodwitSummary) {};
    if (!migrate_godwit() || godwit_is_snapshot()) {
        return true;
    }
    s = g_new0(GodwitSave, 1);
    s->is_stock = migrate_godwit_stream() == GODWIT_STREAM_FORMAT_STOCK;
    options.params =
        godwit_params_from(&migrate_get_current()->parameters);
    options.log = godwit_log;
    options.stream = s->is_stock ? GODWIT_STREAM_STOCK : GODWIT_STREAM_GODWIT;
    if (godwit_source_create(&options, &s->source, &error)) {
        error_setg(errp, "x-godwit: %s", error.text);
        return false;
    }
    if (!godwit_add_blocks(s, errp)) {
        godwit_source_destroy(s->source);
        return false;
    }
    if (!s->is_stock) {
        godwit_put_blocks(s, f);
    }
    godwit_converge_start(s->source, f);
    godwit_source_round(s->source);
    s->may_be_quiet = true;
    summary.is_valid = true;
    summary.is_stock = s->is_stock;
    save = g_steal_pointer(&s);
    migration_godwit_throttle_start();
    return true;
}

void migration_godwit_blocks_changed(void)
{
    GodwitSave *s = save;
    struct godwit_error error;

    if (!s) {
        return;
    }
    godwit_end_watch(s, true);
    for (uint32_t id = 0; id < s->nr_blocks; id++) {
        if (s->block[id] && !godwit_is_listed(s->block[id])) {
            s->block[id] = NULL;
            if (godwit_source_remove_block(s->source, id, &error)) {
                error_report("godwit: %s", error.text);
            }
        }
    }
}

void migration_godwit_save_cleanup(void)
{
    if (!save) {
        return;
    }
    migration_godwit_throttle_stop();
    godwit_read_stats(save);
    godwit_source_destroy(save->source);
    g_free(save->watch);
    g_free(save);
    save = NULL;
}
