/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * util_image.c - files of guest pages, and memory to put pages into
 *
 * An image is read into anonymous memory, packed or not, rather than mapped: guest RAM is anonymous
 * or shared memory in huge pages, and page-cache pages of 4 KiB would put TLB misses into figures that
 * a guest does not have. What a file unpacks to is not known from its name, so the
 * memory is doubled as it fills, by mremap, which moves no bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "perf.h"

#define FIRST_BYTES (32u << 20)
#define MAX_WINDOW_LOG 27	/* zstd --long=27 */

void *map_memory(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char text[UNIT_TEXT];

	if (memory == MAP_FAILED)
		die("no memory for %s: %s", format_bytes(text, (double)bytes), strerror(errno));
	(void)madvise(memory, bytes, MADV_HUGEPAGE);	/* only faster */
	return memory;
}

static void make_room(struct image *image)
{
	size_t wanted = image->map_bytes * 2;
	void *moved;

	if (image->len_bytes < image->map_bytes)
		return;
	moved = mremap(image->bytes, image->map_bytes, wanted, MREMAP_MAYMOVE);
	if (moved == MAP_FAILED)
		die("%s: no memory for %zu bytes: %s", image->path, wanted, strerror(errno));
	image->bytes = moved;
	image->map_bytes = wanted;
	(void)madvise(moved, wanted, MADV_HUGEPAGE);
}

static size_t read_some(const char *path, int fd, void *to, size_t bytes)
{
	ssize_t got;

	do
		got = read(fd, to, bytes);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		die("%s: %s", path, strerror(errno));
	return (size_t)got;
}

static void read_plain(struct image *image, int fd)
{
	size_t got;

	do {
		make_room(image);
		got = read_some(image->path, fd, image->bytes + image->len_bytes,
				image->map_bytes - image->len_bytes);
		image->len_bytes += got;
	} while (got);
}

static void read_zstd(struct image *image, int fd)
{
	ZSTD_DCtx *zstd = ZSTD_createDCtx();
	size_t in_bytes = ZSTD_DStreamInSize();
	uint8_t *packed = xcalloc(1, in_bytes);
	size_t hint = 1;	/* 0: a frame ended exactly here */
	bool is_output_full = false;
	ZSTD_inBuffer in = { packed, 0, 0 };

	if (!zstd)
		die("%s: no memory to unpack it", image->path);
	ZSTD_DCtx_setParameter(zstd, ZSTD_d_windowLogMax, MAX_WINDOW_LOG);
	for (;;) {
		if (in.pos == in.size && !is_output_full) {
			in = (ZSTD_inBuffer){ packed, read_some(image->path, fd, packed, in_bytes), 0 };
			if (!in.size)
				break;
		}
		make_room(image);
		ZSTD_outBuffer out = { image->bytes, image->map_bytes, image->len_bytes };
		hint = ZSTD_decompressStream(zstd, &out, &in);
		if (ZSTD_isError(hint))
			die("%s: %s (is it a zstd file?)", image->path, ZSTD_getErrorName(hint));
		image->len_bytes = out.pos;
		/* Asked again without input after the end of a frame, zstd would expect another one. */
		is_output_full = out.pos == out.size && hint;
	}
	if (hint)
		die("%s: ends in the middle of a zstd frame; copy it again", image->path);
	free(packed);
	ZSTD_freeDCtx(zstd);
}

void image_load(struct image *image, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t path_len = strlen(path);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		die("%s: %s", path, strerror(errno));
	if (S_ISDIR(st.st_mode))
		die("%s: is a directory; a file of guest pages is needed", path);

	*image = (struct image){ .path = path, .map_bytes = FIRST_BYTES };
	if (st.st_size > FIRST_BYTES)	/* one more byte, so that the end of file is seen without growing */
		image->map_bytes = ((size_t)st.st_size + GODWIT_PAGE_BYTES) & ~(size_t)(GODWIT_PAGE_BYTES - 1);
	image->bytes = map_memory(image->map_bytes);
	if (path_len > 4 && !strcmp(path + path_len - 4, ".zst"))
		read_zstd(image, fd);
	else
		read_plain(image, fd);
	close(fd);

	if (!image->len_bytes)
		die("%s: is empty; a file of %u-byte guest pages is needed", path, GODWIT_PAGE_BYTES);
	if (image->len_bytes % GODWIT_PAGE_BYTES)
		die("%s: %zu bytes is not a whole number of %u-byte pages", path, image->len_bytes,
		    GODWIT_PAGE_BYTES);
	image->pages = image->len_bytes / GODWIT_PAGE_BYTES;
}

void image_load_old(struct image *image, const char *path, const struct image *with)
{
	image_load(image, path);
	if (image->pages != with->pages)
		die("%s has %llu pages and %s has %llu: page i of both must be the same guest page", path,
		    (unsigned long long)image->pages, with->path, (unsigned long long)with->pages);
}

void image_unload(struct image *image)
{
	if (image->bytes)
		munmap(image->bytes, image->map_bytes);
	*image = (struct image){ 0 };
}
