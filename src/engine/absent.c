/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* absent.c - pages that have no memory yet; see absent.h */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "engine/absent.h"
#include "engine/lines.h"

/* In an entry of pagemap. */
#define PRESENT ((uint64_t)1 << 63)
#define SWAPPED ((uint64_t)1 << 62)	/* and what else is kept in place of a page, as markers of userfaultfd */

int godwit_absent_open(void)
{
	return open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
}

static bool ask(struct godwit_absent *absent, uintptr_t page)
{
	ssize_t got = pread(absent->pagemap, absent->entry, sizeof(absent->entry),
			    (off_t)(page * sizeof(absent->entry[0])));

	if (got < (ssize_t)sizeof(absent->entry[0]))
		return false;
	absent->first = page;
	absent->nr_pages = (unsigned)((size_t)got / sizeof(absent->entry[0]));
	return true;
}

bool godwit_absent_is(struct godwit_absent *absent, const void *page)
{
	uintptr_t number = (uintptr_t)page / GODWIT_PAGE_BYTES;

	/* A page of the guest's that does not begin where one of ours does lies in two. */
	if (absent->pagemap < 0 || (uintptr_t)page % GODWIT_PAGE_BYTES)
		return false;
	if ((number < absent->first || number - absent->first >= absent->nr_pages) && !ask(absent, number)) {
		absent->pagemap = -1;
		return false;
	}
	return !(absent->entry[number - absent->first] & (PRESENT | SWAPPED));
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

	if (sysconf(_SC_PAGESIZE) != GODWIT_PAGE_BYTES || !godwit_lines_open(&maps, "/proc/self/maps"))
		return false;
	while (at < end && (line = godwit_lines_next(&maps)) && follow(line, &at))
		;
	godwit_lines_close(&maps);
	return at >= end;
}
