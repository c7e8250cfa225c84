/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* absent.c - pages that have no memory yet; see absent.h */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "engine/absent.h"
#include "engine/lines.h"

int godwit_absent_open(void)
{
	return open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
}

void godwit_absent_close(int pagemap)
{
	if (pagemap >= 0)
		close(pagemap);
}

bool godwit_absent_ask(struct godwit_absent *absent, uintptr_t number)
{
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

/* A line has two addresses, rights, offset, device, inode, path. The part of mem that is known to be private and anonymous ends at *at; false: there is no more of it. */
static bool follow(const char *line, uintptr_t *at)
{
	uintptr_t first = take_hex(&line), end;
	const char *rights, *inode;

	if (*line++ != '-')
		return false;
	end = take_hex(&line);
	if (end <= *at)
		return true;		/* below it */
	rights = skip_field(line);
	inode = skip_field(skip_field(skip_field(rights)));
	if (first > *at || strnlen(rights, 5) < 5 || rights[3] != 'p' || inode[0] != '0' ||
	    (inode[1] && inode[1] != ' '))
		return false;
	*at = end;
	return true;
}

bool godwit_absent_may_be(const void *mem, size_t bytes)
{
	uintptr_t at = (uintptr_t)mem, end = at + bytes;
	struct godwit_lines maps;
	const char *line;

	if (bytes < GODWIT_HUGE_BYTES || sysconf(_SC_PAGESIZE) != GODWIT_PAGE_BYTES || !godwit_lines_open(&maps, "/proc/self/maps"))
		return false;
	while (at < end && (line = godwit_lines_next(&maps)) && follow(line, &at))
		;
	godwit_lines_close(&maps);
	return at >= end;
}
