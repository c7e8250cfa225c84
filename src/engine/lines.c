/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lines.c - files, line by line, through a small buffer; see lines.h */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "engine/lines.h"

bool godwit_lines_open(struct godwit_lines *lines, const char *path)
{
	lines->at = lines->end = 0;
	lines->fd = open(path, O_RDONLY | O_CLOEXEC);
	return lines->fd >= 0;
}

char *godwit_lines_next(struct godwit_lines *lines)
{
	bool is_skipping = false;

	for (;;) {
		char *line = lines->buffer + lines->at;
		size_t left = lines->end - lines->at;
		char *eol = memchr(line, '\n', left);
		ssize_t got;

		if (eol) {
			*eol = 0;
			lines->at += (size_t)(eol - line) + 1;
			if (!is_skipping)
				return line;
			is_skipping = false;
			continue;
		}
		if (left == sizeof(lines->buffer) - 1) {
			is_skipping = true;
			left = 0;
		}
		memmove(lines->buffer, line, left);
		lines->at = 0;
		lines->end = left;
		do {
			got = read(lines->fd, lines->buffer + left, sizeof(lines->buffer) - 1 - left);
		} while (got < 0 && errno == EINTR);
		if (got <= 0) {
			lines->end = 0;
			lines->buffer[left] = 0;
			return left && !is_skipping ? lines->buffer : NULL;
		}
		lines->end += (size_t)got;
	}
}

void godwit_lines_close(struct godwit_lines *lines)
{
	close(lines->fd);
}
