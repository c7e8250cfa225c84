/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * godwit: what is shown of the page engine, in QMP and HMP
 */

#include "qemu/osdep.h"

#include "monitor/monitor.h"
#include "qapi/error.h"
#include "godwit.h"
#include "godwit-int.h"

static uint64_t godwit_compressed_size(const struct godwit_stats *stats)
{
    uint64_t bytes = 0;

    for (unsigned i = GODWIT_CODEC_NONE + 1; i < GODWIT_CODECS; i++) {
        bytes += stats->codec_out_bytes[i];
    }
    return bytes;
}

static GodwitDowntime *godwit_downtime(const GodwitSummary *summary)
{
    const int64_t *at = summary->downtime_ns;
    GodwitDowntime *downtime;

    for (int i = 0; i < GODWIT_DOWNTIME__MAX; i++) {
        if (!at[i] || (i && at[i] < at[i - 1])) {
            return NULL;        /* not over yet, or postcopy */
        }
    }
    downtime = g_new0(GodwitDowntime, 1);
    downtime->stop = (at[GODWIT_DOWNTIME_RAM] -
                      at[GODWIT_DOWNTIME_START]) / SCALE_US;
    downtime->ram = (at[GODWIT_DOWNTIME_QUEUED] -
                     at[GODWIT_DOWNTIME_RAM]) / SCALE_US;
    downtime->drain = (at[GODWIT_DOWNTIME_DRAINED] -
                       at[GODWIT_DOWNTIME_QUEUED]) / SCALE_US;
    downtime->devices = (at[GODWIT_DOWNTIME_DEVICES] -
                         at[GODWIT_DOWNTIME_DRAINED]) / SCALE_US;
    downtime->switchover = (at[GODWIT_DOWNTIME_END] -
                            at[GODWIT_DOWNTIME_DEVICES]) / SCALE_US;
    return downtime;
}

static GodwitStats *godwit_stats(const GodwitSummary *summary)
{
    const struct godwit_stats *from = &summary->stats;
    GodwitStats *to = g_new0(GodwitStats, 1);

    to->stream = summary->is_stock ? GODWIT_STREAM_FORMAT_STOCK :
        GODWIT_STREAM_FORMAT_GODWIT;
    to->rung = g_strdup(from->rung);
    to->threads = from->workers;
    to->rounds = from->rounds;
    to->pages = from->pages;
    to->zero = from->zero;
    to->fill = from->fill;
    to->same = from->same;
    to->delta = from->delta_words + from->delta_lines;
    to->whole = from->whole;
    to->raw = from->raw;
    to->busy = from->busy;
    to->busy_rate = from->busy_rate;
    to->delta_size = from->delta_payload_bytes;
    to->delta_rate = from->delta_rate;
    to->base = (GodwitBaseKind)from->base;
    to->cache_size = from->base_bytes;
    to->cache_miss = from->base_misses;
    to->cache_miss_rate = from->base_miss_rate;
    to->overflow = from->overflow;
    to->compressed_pages = from->compressed_pages;
    to->compressed_size = godwit_compressed_size(from);
    to->compression_rate = from->compression_rate;
    to->wire_bytes = from->wire_bytes;
    to->retired_bytes = from->retired_bytes;
    to->retired_rate = from->retired_bytes_per_s;
    to->cpu_time = from->worker_cpu_ns / SCALE_MS;
    to->downtime = godwit_downtime(summary);
    return to;
}

/*
 * As programs know them from the encodings of before: a page that overflows
 * counts with all its bytes, and the first pass is not looked for.
 */
static XBZRLECacheStats *godwit_xbzrle_stats(const struct godwit_stats *from)
{
    XBZRLECacheStats *to = g_new0(XBZRLECacheStats, 1);

    to->cache_size = from->base_bytes;
    to->bytes = from->delta_payload_bytes +
        from->overflow * GODWIT_PAGE_BYTES;
    to->pages = from->base_hits;
    to->cache_miss = from->base_misses - from->base_seeds;
    to->cache_miss_rate = from->base_miss_rate;
    to->encoding_rate = from->delta_rate;
    to->overflow = from->overflow;
    return to;
}

static CompressionStats *godwit_compression_stats(
    const struct godwit_stats *from)
{
    CompressionStats *to = g_new0(CompressionStats, 1);

    to->pages = from->compressed_pages;
    to->busy = from->busy;
    to->busy_rate = from->busy_rate;
    to->compressed_size = godwit_compressed_size(from);
    to->compression_rate = from->compression_rate;
    return to;
}

void godwit_summary_populate(const GodwitSummary *summary,
                             MigrationInfo *info)
{
    info->godwit = godwit_stats(summary);
    qapi_free_XBZRLECacheStats(info->xbzrle_cache);
    info->xbzrle_cache = godwit_xbzrle_stats(&summary->stats);
    info->compression = godwit_compression_stats(&summary->stats);
}

void godwit_incoming_populate(const struct godwit_stats *from,
                              MigrationInfo *info)
{
    GodwitIncomingStats *to = g_new0(GodwitIncomingStats, 1);

    to->threads = from->workers;
    to->pages = from->pages;
    to->wire_bytes = from->wire_bytes;
    to->cpu_time = from->worker_cpu_ns / SCALE_MS;
    info->godwit_incoming = to;
}

static void godwit_hmp_stats(Monitor *mon, const GodwitStats *stats)
{
    monitor_printf(mon, "godwit stream: %s, rung: %s, threads: %" PRId64 "\n",
                   GodwitStreamFormat_str(stats->stream), stats->rung,
                   stats->threads);
    monitor_printf(mon, "godwit pages: %" PRId64 ", zero: %" PRId64
                   ", fill: %" PRId64 ", same: %" PRId64 ", delta: %" PRId64
                   ", whole: %" PRId64 ", raw: %" PRId64 "\n",
                   stats->pages, stats->zero, stats->fill, stats->same,
                   stats->delta, stats->whole, stats->raw);
    monitor_printf(mon, "godwit base: %s, %" PRId64 " kbytes\n",
                   GodwitBaseKind_str(stats->base), stats->cache_size >> 10);
    monitor_printf(mon, "delta pages: %" PRId64 " pages\n", stats->delta);
    monitor_printf(mon, "delta cache miss: %" PRId64 " pages\n",
                   stats->cache_miss);
    monitor_printf(mon, "delta cache miss rate: %0.2f\n",
                   stats->cache_miss_rate);
    monitor_printf(mon, "delta overflow: %" PRId64 " pages\n",
                   stats->overflow);
    monitor_printf(mon, "delta reduced size: %" PRId64 " kbytes\n",
                   stats->delta_size >> 10);
    monitor_printf(mon, "delta rate: %0.2f\n", stats->delta_rate);
    monitor_printf(mon, "compression pages: %" PRId64 " pages\n",
                   stats->compressed_pages);
    monitor_printf(mon, "compression busy: %" PRId64 "\n", stats->busy);
    monitor_printf(mon, "compression busy rate: %0.2f\n", stats->busy_rate);
    monitor_printf(mon, "compression reduced size: %" PRId64 " kbytes\n",
                   stats->compressed_size >> 10);
    monitor_printf(mon, "compression rate: %0.2f\n", stats->compression_rate);
    monitor_printf(mon, "godwit wire: %" PRId64 " kbytes for %" PRId64
                   " kbytes of guest memory\n", stats->wire_bytes >> 10,
                   stats->retired_bytes >> 10);
    monitor_printf(mon, "godwit retired rate: %" PRId64 " MB/s\n",
                   stats->retired_rate / 1000000);
    monitor_printf(mon, "godwit worker cpu: %" PRId64 " ms\n",
                   stats->cpu_time);
    if (stats->downtime) {
        monitor_printf(mon, "downtime, us: stop %" PRId64 ", ram %" PRId64
                       ", drain %" PRId64 ", devices %" PRId64
                       ", switchover %" PRId64 "\n",
                       stats->downtime->stop, stats->downtime->ram,
                       stats->downtime->drain, stats->downtime->devices,
                       stats->downtime->switchover);
    }
}

static void godwit_hmp_throttle(Monitor *mon, const GodwitThrottleStats *stats)
{
    GodwitThrottleVcpuList *each;

    monitor_printf(mon, "throttle: %s, at most %" PRId64 "%%, level: %" PRId64
                   " of %" PRId64 " pages/s allowed, %" PRId64 " wanted%s%s\n",
                   GodwitThrottleState_str(stats->state), stats->max,
                   stats->level, stats->allowed, stats->wanted,
                   stats->was_infeasible ? ", was infeasible" : "",
                   stats->was_futile ? ", was futile" : "");
    monitor_printf(mon, "throttle held: %" PRId64 " us, longest: %" PRId64
                   " us, holds: %" PRId64 ", boosts: %" PRId64 "\n",
                   stats->held_time / SCALE_US, stats->longest_hold / SCALE_US,
                   stats->holds, stats->boosts);
    for (each = stats->vcpus; each; each = each->next) {
        const GodwitThrottleVcpu *vcpu = each->value;

        monitor_printf(mon, "throttle CPU #%" PRId64 ": level: %" PRId64
                       " pages/s, taken: %" PRId64 "%%, held: %" PRId64
                       " us, longest: %" PRId64 " us, boosts: %" PRId64 "\n",
                       vcpu->cpu_index, vcpu->level, vcpu->taken,
                       vcpu->held_time / SCALE_US,
                       vcpu->longest_hold / SCALE_US, vcpu->boosts);
    }
}

void migration_godwit_hmp_info(Monitor *mon, const MigrationInfo *info)
{
    if (info->godwit_throttle) {
        godwit_hmp_throttle(mon, info->godwit_throttle);
    }
    if (info->godwit) {
        godwit_hmp_stats(mon, info->godwit);
    }
    if (info->godwit_incoming) {
        monitor_printf(mon, "godwit incoming: %" PRId64 " pages in %" PRId64
                       " kbytes, threads: %" PRId64 ", cpu: %" PRId64 " ms\n",
                       info->godwit_incoming->pages,
                       info->godwit_incoming->wire_bytes >> 10,
                       info->godwit_incoming->threads,
                       info->godwit_incoming->cpu_time);
    }
}

void migration_godwit_hmp_parameters(Monitor *mon,
                                     const MigrationParameters *params)
{
    monitor_printf(mon, "%s: %u\n",
        MigrationParameter_str(MIGRATION_PARAMETER_X_CPU_THROTTLE_MAX),
        params->x_cpu_throttle_max);
    monitor_printf(mon, "%s: %u\n",
        MigrationParameter_str(MIGRATION_PARAMETER_X_GODWIT_THREADS),
        params->x_godwit_threads);
    monitor_printf(mon, "%s: '%s'\n",
        MigrationParameter_str(MIGRATION_PARAMETER_X_GODWIT_RUNG),
        params->x_godwit_rung);
    monitor_printf(mon, "%s: %s\n",
        MigrationParameter_str(MIGRATION_PARAMETER_X_GODWIT_BASE),
        GodwitBaseKind_str(params->x_godwit_base));
    monitor_printf(mon, "%s: %" PRIu64 " bytes\n",
        MigrationParameter_str(MIGRATION_PARAMETER_X_GODWIT_CACHE_SIZE),
        params->x_godwit_cache_size);
    monitor_printf(mon, "%s: %s\n",
        MigrationParameter_str(MIGRATION_PARAMETER_X_GODWIT_WHEN_BUSY),
        GodwitBusyPolicy_str(params->x_godwit_when_busy));
    monitor_printf(mon, "%s: %s\n",
        MigrationParameter_str(MIGRATION_PARAMETER_X_GODWIT_STREAM),
        GodwitStreamFormat_str(params->x_godwit_stream));
}
