/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * godwit: when will the guest have to wait no longer than it may?
 *
 * The switchover asks what the link carries, and how much of it dirty pages
 * are; the throttle asks the second, too.  QEMU counts pages, whose bytes it
 * takes for those on the wire, and what it has written, which a socket may
 * still hold.  Here a page is what the engine predicts, or the time that its
 * encoding takes where that is longer; and what was written is sent when it
 * has left the socket.
 */

#include "qemu/osdep.h"
#ifndef _WIN32
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#endif
#ifdef CONFIG_LINUX
#include <linux/sockios.h>
#endif

#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "qemu/stats64.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "godwit.h"
#include "godwit-int.h"
#include "migration.h"
#include "options.h"
#include "qemu-file.h"
#include "ram.h"
#include "trace.h"

/* Rate windows, of 100 ms each, in which the link has shown what it can do. */
#define GODWIT_WINDOWS 8

/* What a socket may hold that is not sent yet: near to the end, and far. */
#define GODWIT_UNSENT_MS 10
#define GODWIT_UNSENT_LEAST (128 * KiB)
#define GODWIT_UNSENT_FAR (512 * KiB)
#define GODWIT_FAR_MS 3000

/* Device state of a small PC, which nobody counts before it is written. */
#define GODWIT_DEVICE_BYTES (160 * KiB)

/* The migration thread's, but for the speed, which others read. */
static struct {
    struct godwit_source *source;   /* while migration_godwit_active() */

    double window[GODWIT_WINDOWS];
    unsigned nr_windows;            /* so far */
    int64_t window_end_ns;
    uint64_t in_flight;             /* at that time */
    Stat64 bytes_per_ms;

    uint64_t rate_debt;             /* sent above the window's limit */
} wire;

#if defined(SIOCOUTQ) || defined(TCP_NOTSENT_LOWAT)
/* The socket that a file goes to, perhaps by way of TLS, or -1. */
static int godwit_socket(QEMUFile *f)
{
    Object *ioc = OBJECT(qemu_file_get_ioc(f));
    Object *tls = object_dynamic_cast(ioc, TYPE_QIO_CHANNEL_TLS);
    Object *sioc;

    if (tls) {
        ioc = OBJECT(QIO_CHANNEL_TLS(tls)->master);
    }
    sioc = object_dynamic_cast(ioc, TYPE_QIO_CHANNEL_SOCKET);
    return sioc ? QIO_CHANNEL_SOCKET(sioc)->fd : -1;
}
#endif

/*
 * Bytes written to a socket that the other host does not have yet; of a unix
 * socket, about.
 */
static uint64_t godwit_in_flight(QEMUFile *f)
{
    int bytes = 0;

#ifdef SIOCOUTQ
    if (ioctl(godwit_socket(f), SIOCOUTQ, &bytes)) {
        return 0;
    }
#endif
    return bytes;
}

uint64_t godwit_page_bytes(uint64_t pages)
{
    struct godwit_prediction prediction;
    uint64_t bytes;

    godwit_source_predict(wire.source, pages, &prediction);
    bytes = prediction.encode_ns / 1e6 * stat64_get(&wire.bytes_per_ms);
    bytes = MAX(bytes, prediction.wire_bytes);
    trace_migration_godwit_pending(pages, prediction.wire_bytes,
                                   prediction.encode_ns, bytes);
    return MAX(bytes, 1);
}

uint64_t godwit_other_bytes(void)
{
    uint64_t limit = stat64_get(&wire.bytes_per_ms) * migrate_downtime_limit();

    /* A guest that sends little seems to have a slow link: it must end, too. */
    return godwit_in_flight(migrate_get_current()->to_dst_file) +
        MIN(GODWIT_DEVICE_BYTES, limit / 8);
}

uint64_t migration_godwit_pending(uint64_t pages)
{
    if (!pages || !migration_godwit_active()) {
        return pages * qemu_target_page_size();
    }
    return godwit_page_bytes(pages) + godwit_other_bytes();
}

/*
 * On a slow link a socket's buffer swallows hundreds of ms that the guest then
 * waits for at the switchover.  So the socket is to hold no more than it sends
 * in a moment, and than is little beside the downtime limit.  While the end is
 * far it may be more: each time that it has room again wakes this thread.
 */
static void godwit_limit_unsent(QEMUFile *f, double bytes_per_ms, bool is_far)
{
#ifdef TCP_NOTSENT_LOWAT
    double ms = MIN(GODWIT_UNSENT_MS, migrate_downtime_limit() / 8.0);
    int bytes = MIN(bytes_per_ms * ms, 1 * GiB);

    bytes = MAX(bytes, is_far ? GODWIT_UNSENT_FAR : GODWIT_UNSENT_LEAST);
    /* Not all files are TCP sockets; there it fails and is not needed. */
    setsockopt(godwit_socket(f), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes,
               sizeof(bytes));
#endif
}

void godwit_converge_start(struct godwit_source *source, QEMUFile *f)
{
    memset(&wire, 0, sizeof(wire));
    wire.source = source;
    wire.window_end_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    wire.in_flight = godwit_in_flight(f);
    if (migrate_max_bandwidth()) {
        godwit_limit_unsent(f, migrate_max_bandwidth() / 1000.0, false);
    }
}

/* Does what is dirty take the link longer than this, as far as is known? */
static bool godwit_end_is_far(double bytes_per_ms)
{
    uint64_t pages = ram_bytes_remaining() / qemu_target_page_size();

    return wire.nr_windows >= GODWIT_WINDOWS && pages &&
        godwit_page_bytes(pages) > GODWIT_FAR_MS * bytes_per_ms;
}

/* What has reached the other host: was written, and has left the socket. */
static double godwit_delivered(QEMUFile *f, double bytes_per_ms)
{
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    uint64_t in_flight = godwit_in_flight(f);
    double ms = (now_ns - wire.window_end_ns) / 1e6;

    if (ms > 0) {
        bytes_per_ms += ((double)wire.in_flight - in_flight) / ms;
    }
    wire.window_end_ns = now_ns;
    wire.in_flight = in_flight;
    return MAX(bytes_per_ms, 0);
}

/*
 * A window in which pages happened to be cheap says little about the link, so
 * it is the best of the last ones that counts: what the link has carried it
 * can carry.  Of two after one another, for what one window has too much (an
 * edge that fell late) the other has too little.
 */
double migration_godwit_bandwidth(double bytes_per_ms)
{
    QEMUFile *f = migrate_get_current()->to_dst_file;
    double best = 0;
    uint64_t limit, used;

    if (!migration_godwit_active()) {
        return bytes_per_ms;
    }
    bytes_per_ms = godwit_delivered(f, bytes_per_ms);
    wire.window[wire.nr_windows++ % GODWIT_WINDOWS] = bytes_per_ms;
    for (unsigned i = 1; i < MIN(wire.nr_windows, GODWIT_WINDOWS); i++) {
        unsigned later = wire.nr_windows - i;

        best = MAX(best, (wire.window[later % GODWIT_WINDOWS] +
                          wire.window[(later - 1) % GODWIT_WINDOWS]) / 2);
    }
    /* Not 0, where the link carries nothing for a while: it is divided by. */
    bytes_per_ms = MAX(best ? best : bytes_per_ms, 1);
    stat64_set(&wire.bytes_per_ms, bytes_per_ms);
    godwit_limit_unsent(f, bytes_per_ms, godwit_end_is_far(bytes_per_ms));

    limit = migration_rate_get();
    used = migration_transferred_bytes() -
        stat64_get(&mig_stats.rate_limit_start);
    wire.rate_debt = limit != RATE_LIMIT_DISABLED && used > limit ?
        MIN(used - limit, limit) : 0;
    return bytes_per_ms;
}

void migration_godwit_held_back(int64_t since_ns)
{
    if (migration_godwit_active()) {
        godwit_source_held_back(wire.source,
                                qemu_clock_get_ns(QEMU_CLOCK_REALTIME) -
                                since_ns);
    }
}

void migration_godwit_rate_carry(void)
{
    if (migration_godwit_active()) {
        stat64_set(&mig_stats.rate_limit_start,
                   stat64_get(&mig_stats.rate_limit_start) - wire.rate_debt);
    }
}
