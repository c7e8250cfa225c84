/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ratio.c - how well zstd 1 packs what a test guest holds, said at the host
 *
 * Page by page, and in packets of 512 KiB as multifd sends them; before any change and after many.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <zstd.h>

#include "work.h"

#define PAGES 8192u

static double mb_per_s(const uint64_t *memory)
{
    size_t room = ZSTD_compressBound(512 << 10);
    char *out = malloc(room);
    clock_t begun = clock();

    for (size_t at = 0; at < PAGES * PAGE_BYTES; at += 512 << 10) {
        ZSTD_compress(out, room, (const char *)memory + at, 512 << 10, 1);
    }
    free(out);
    return PAGES * PAGE_BYTES / 1e6 / ((double)(clock() - begun) / CLOCKS_PER_SEC);
}

static double ratio(const uint64_t *memory, size_t piece)
{
    size_t packed = 0, room = ZSTD_compressBound(piece);
    char *out = malloc(room);

    for (size_t at = 0; at < PAGES * PAGE_BYTES; at += piece) {
        packed += ZSTD_compress(out, room, (const char *)memory + at, piece, 1);
    }
    free(out);
    return (double)PAGES * PAGE_BYTES / (double)packed;
}

static void complain(const char *line)
{
    puts(line);
}

int main(void)
{
    static const char *const names[] = { "text", "words", "random", "zero" };
    int bad = 0;

    work_complain = complain;
    content_init();
    for (enum content content = CONTENT_TEXT; content <= CONTENT_ZERO; content++) {
        struct pace pace = { .burst_pages = PAGES, .words = 300 };
        struct worker worker = { .pace = &pace, .content = content, .pages = PAGES };

        if (!worker_init(&worker)) {
            return 1;
        }
        printf("%-6s fresh: zstd 1 packs a page %.2f, 512 KiB %.2f", names[content],
               ratio(worker.memory, PAGE_BYTES), ratio(worker.memory, 512 << 10));
        for (int i = 0; i < 20; i++) {
            worker_burst(&worker);
        }
        printf("; changed often: %.2f, %.2f at %.0f MB/s\n", ratio(worker.memory, PAGE_BYTES),
               ratio(worker.memory, 512 << 10), mb_per_s(worker.memory));
        worker_verify(&worker);
        bad += worker.bad != 0;
        worker.memory[PAGE_WORDS * 5 + 17] ^= 1;
        worker_check(&worker, 6);
        bad += worker.bad != 1;
    }
    return bad != 0;
}
