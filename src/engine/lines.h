/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_LINES_H
#define GODWIT_LINES_H

#include <stdbool.h>
#include <stddef.h>

/* lines.h - files, line by line, through a small buffer: what the system says of itself */

struct godwit_lines {
	int fd;
	size_t at, end;
	char buffer[1024];
};

bool godwit_lines_open(struct godwit_lines *lines, const char *path);

/* The next line without its end, until the next call; one that is too long is left out. NULL after the last. */
char *godwit_lines_next(struct godwit_lines *lines);

void godwit_lines_close(struct godwit_lines *lines);

#endif
