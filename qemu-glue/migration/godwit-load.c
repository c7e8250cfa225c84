/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * godwit: the page engine beside the RAM saver, destination side
 *
 * The loader reads frames off the main channel; the engine's workers check
 * them, decode them into memory of their own, check the result, and only then
 * write guest pages.  Nothing that the source says decides how much is
 * allocated.  All frames of a section are applied at its EOS.
 */

#include "qemu/osdep.h"

#include "block/aio.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "qapi/error.h"
#include "qemu/coroutine.h"
#include "godwit.h"
#include "godwit-int.h"
#include "migration.h"
#include "options.h"
#include "ram.h"

/* The main loop gets its turn after as many pages as with the stock loader. */
#define GODWIT_YIELD_FRAMES (32768 / GODWIT_BATCH_PAGES)

typedef struct {
    struct godwit_destination *destination;
    RAMBlock *block[GODWIT_MAX_BLOCKS];
    uint32_t version;               /* of the RAM list, with all of them in */
    uint64_t frames;
} GodwitLoad;

static GodwitLoad *load;
/* Of the last migration that came in; its size is 0 if there was none. */
static struct godwit_stats load_stats;

static int G_GNUC_PRINTF(1, 2) godwit_load_failed(const char *format, ...)
{
    MigrationState *s = migrate_get_current();
    g_autofree char *text = NULL;
    Error *err = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    error_setg(&err, "godwit: %s", text);
    migrate_set_error(s, err);
    error_report_err(err);
    return -EINVAL;
}

/* A worker's call: the pages are in guest memory now. */
static void godwit_applied(void *opaque, uint32_t block, const uint64_t *page,
                           uint32_t nr_pages)
{
    GodwitLoad *l = opaque;

    for (uint32_t i = 0; i < nr_pages; i++) {
        ramblock_recv_bitmap_set_offset(l->block[block],
                                        page[i] * GODWIT_PAGE_BYTES);
    }
}

static int godwit_load_setup(void)
{
    struct godwit_destination_options options =
        GODWIT_DESTINATION_OPTIONS_INIT;
    g_autofree GodwitLoad *l = g_new0(GodwitLoad, 1);
    struct godwit_error error;

    options.workers = migrate_godwit_threads();
    options.log = godwit_log;
    options.applied = godwit_applied;
    options.applied_user = l;
    /* A page that has arrived is not asked for again: it must be there. */
    options.populate = migrate_postcopy_ram();
    if (godwit_destination_create(&options, &l->destination, &error)) {
        return godwit_load_failed("%s", error.text);
    }
    load = g_steal_pointer(&l);
    return 0;
}

static int godwit_load_block(GodwitLoad *l, QEMUFile *f)
{
    struct godwit_error error;
    uint32_t id = qemu_get_be32(f);
    char name[256];
    uint64_t bytes;
    RAMBlock *rb;

    if (!qemu_get_counted_string(f, name)) {
        return godwit_load_failed("the stream ends in a RAM block's name");
    }
    bytes = qemu_get_be64(f);
    rb = qemu_ram_block_by_name(name);
    if (!rb || migrate_ram_is_ignored(rb)) {
        return godwit_load_failed("RAM block '%s' is not to be migrated here",
                                  name);
    }
    if (bytes != rb->used_length) {
        return godwit_load_failed("RAM block '%s' has %" PRIu64 " bytes at the "
                                  "source and " RAM_ADDR_FMT " here", name,
                                  bytes, rb->used_length);
    }
    if (id >= GODWIT_MAX_BLOCKS) {
        return godwit_load_failed("RAM block '%s' has the number %u", name, id);
    }
    if (godwit_destination_add_block(l->destination, id, name, rb->host, bytes,
                                     &error)) {
        return godwit_load_failed("%s", error.text);
    }
    l->block[id] = rb;
    return 0;
}

static int godwit_load_blocks(QEMUFile *f)
{
    uint32_t count = qemu_get_be32(f);
    int ret = load ? 0 : godwit_load_setup();

    if (count > GODWIT_MAX_BLOCKS) {
        return godwit_load_failed("%u RAM blocks are too many", count);
    }
    while (!ret && count--) {
        ret = godwit_load_block(load, f);
    }
    if (!ret) {
        load->version = ram_list.version;
    }
    return ret;
}

/*
 * A device may be unplugged here, too.  Its memory stays to the end of the
 * section in which it went, and all frames of that are applied by then.
 */
static int godwit_load_check_blocks(GodwitLoad *l)
{
    if (l->version == ram_list.version) {
        return 0;
    }
    for (uint32_t id = 0; id < GODWIT_MAX_BLOCKS; id++) {
        if (l->block[id] && !godwit_is_listed(l->block[id])) {
            return godwit_load_failed("RAM block %u is no longer here", id);
        }
    }
    l->version = ram_list.version;
    return 0;
}

static void godwit_yield(void)
{
    if (qemu_in_coroutine()) {
        aio_co_schedule(qemu_get_current_aio_context(),
                        qemu_coroutine_self());
        qemu_coroutine_yield();
    }
}

/* One frame of at most *left bytes. */
static int godwit_load_frame(GodwitLoad *l, QEMUFile *f, uint32_t *left)
{
    uint8_t head[GODWIT_HEAD_BYTES];
    struct godwit_error error;
    size_t body_bytes;
    void *body;

    if (*left < sizeof(head)) {
        return godwit_load_failed("a record ends in a frame's head");
    }
    if (qemu_get_buffer(f, head, sizeof(head)) != sizeof(head)) {
        return -EIO;
    }
    *left -= sizeof(head);
    if (godwit_destination_begin(l->destination, head, &body, &body_bytes,
                                 &error)) {
        return godwit_load_failed("%s", error.text);
    }
    if (!body_bytes) {
        return 0;
    }
    if (body_bytes > *left) {
        return godwit_load_failed("a record ends in a frame");
    }
    if (qemu_get_buffer_direct(f, body, body_bytes) != body_bytes) {
        return -EIO;
    }
    *left -= body_bytes;
    if (godwit_destination_commit(l->destination, &error)) {
        return godwit_load_failed("%s", error.text);
    }
    return 0;
}

static int godwit_load_frames(QEMUFile *f)
{
    uint32_t left = qemu_get_be32(f);
    int ret;

    if (!load) {
        return godwit_load_failed("frames before the RAM blocks' names");
    }
    ret = godwit_load_check_blocks(load);
    while (!ret && left) {
        ret = godwit_load_frame(load, f, &left);
        if (++load->frames % GODWIT_YIELD_FRAMES == 0) {
            godwit_yield();
        }
    }
    return ret;
}

int migration_godwit_load(QEMUFile *f)
{
    int type = qemu_get_byte(f);

    if (!migrate_godwit()) {
        return godwit_load_failed("the source uses x-godwit, and the "
                                  "capability is off here");
    }
    switch (type) {
    case GODWIT_RECORD_BLOCKS:
        return godwit_load_blocks(f);
    case GODWIT_RECORD_FRAMES:
        return godwit_load_frames(f);
    default:
        return godwit_load_failed("a record of the unknown type %d", type);
    }
}

int migration_godwit_load_flush(void)
{
    struct godwit_error error;

    if (load && godwit_destination_drain(load->destination, &error)) {
        return godwit_load_failed("%s", error.text);
    }
    return 0;
}

static void godwit_read_stats(void)
{
    load_stats = (struct godwit_stats)GODWIT_STATS_INIT;
    godwit_destination_stats(load->destination, &load_stats);
}

void migration_godwit_load_cleanup(void)
{
    if (!load) {
        return;
    }
    godwit_read_stats();
    godwit_destination_destroy(load->destination);
    g_free(load);
    load = NULL;
}

void migration_godwit_populate_incoming(MigrationInfo *info)
{
    if (load) {
        godwit_read_stats();
    }
    if (load_stats.size) {
        godwit_incoming_populate(&load_stats, info);
    }
}
