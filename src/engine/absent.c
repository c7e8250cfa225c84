/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* absent.c - pages that have no memory yet; see absent.h */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "engine/absent.h"
#include "engine/lines.h"

int godwit_absent_open(void)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (pagemap < 0 || godwit_absent_is_sound(pagemap))
		return pagemap;
	close(pagemap);
	return -1;
}

bool godwit_absent_is_sound(int pagemap)
{
	struct godwit_absent absent = { 0 };
	const uint8_t *stack = (const uint8_t *)&absent;

	godwit_absent_begin(&absent, pagemap);
	/* Asked and answered: where there is no answer pagemap is -1 now. */
	return !godwit_absent_is(&absent, stack - (uintptr_t)stack % GODWIT_PAGE_BYTES) && absent.pagemap >= 0;
}

void godwit_absent_close(int pagemap)
{
	if (pagemap >= 0)
		close(pagemap);
}

bool godwit_absent_ask(struct godwit_absent *absent, uintptr_t number)
{
	/* All of one huge page and no more: some kernels leave out one that goes away while it is looked at, so that
	 * what is said of the next would stand in its place. */
	uintptr_t first = number & ~(uintptr_t)(GODWIT_HUGE_BYTES / GODWIT_PAGE_BYTES - 1);
	ssize_t got = pread(absent->pagemap, absent->entry, sizeof(absent->entry),
			    (off_t)(first * sizeof(absent->entry[0])));

	absent->is_new = true;
	absent->first = first;
	absent->nr_pages = got > 0 ? (unsigned)((size_t)got / sizeof(absent->entry[0])) : 0;
	if (number - first < absent->nr_pages)
		return !(absent->entry[number - first] & GODWIT_ABSENT_NOT);
	absent->pagemap = -1;
	return false;
}

/* ---- which memory it holds for ---- */

static const char *skip_field(const char *at)
{
	while (*at && *at != ' ')
		at++;
	while (*at == ' ')
		at++;
	return at;
}

static uintptr_t take_hex(const char **at)
{
	uintptr_t value = 0;

	for (;; (*at)++) {
		if (**at >= '0' && **at <= '9')
			value = value << 4 | (uintptr_t)(**at - '0');
		else if (**at >= 'a' && **at <= 'f')
			value = value << 4 | (uintptr_t)(**at - 'a' + 10);
		else
			return value;
	}
}

/* A line has two addresses, rights, offset, device, inode, path. The part of mem that is known to be private and
 * anonymous ends at *at; false: there is no more of it. */
static bool follow(const char *line, uintptr_t *at)
{
	uintptr_t first = take_hex(&line), end;
	const char *rights, *device;

	if (*line++ != '-')
		return false;
	end = take_hex(&line);
	if (end <= *at)
		return true;		/* below it */
	rights = skip_field(line);
	device = skip_field(skip_field(rights));
	/* Of a file too the inode may be 0, but then it is on a device. */
	if (first > *at || strnlen(rights, 5) < 5 || rights[3] != 'p' || strncmp(device, "00:00 0", 7) ||
	    (device[7] && device[7] != ' '))
		return false;
	*at = end;
	return true;
}

bool godwit_absent_may_be(const void *mem, size_t bytes)
{
	uintptr_t at = (uintptr_t)mem, end = at + bytes;
	struct godwit_lines maps;
	const char *line;

	if (bytes < GODWIT_HUGE_BYTES || sysconf(_SC_PAGESIZE) != GODWIT_PAGE_BYTES ||
	    !godwit_lines_open(&maps, "/proc/self/maps"))
		return false;
	while (at < end && (line = godwit_lines_next(&maps)) && follow(line, &at))
		;
	godwit_lines_close(&maps);
	return at >= end;
}
