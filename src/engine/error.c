/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * error.c - one readable line for whoever made the call that failed
 *
 * The line lives in the caller's struct: nothing to free, nothing shared between threads, and the
 * failing path needs no memory of its own (it may be the one that reports that there is none).
 */
#include "engine/error.h"

#include <stdarg.h>
#include <stdio.h>

void godwit_error_set(struct godwit_error *error, const char *format, ...)
{
	va_list args;

	if (!error)
		return;
	va_start(args, format);
	vsnprintf(error->text, sizeof(error->text), format, args);
	va_end(args);
}
