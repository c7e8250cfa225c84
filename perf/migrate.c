/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * migrate.c - godwit-perf migrate: which of the two ends this is
 *
 * ^C and SIGTERM only raise a flag: whoever waits looks at it, and the source then takes its guest
 * back in an orderly way. A second ^C ends the process at once.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>

#include "migrate.h"

static atomic_bool cancelled;

static void on_signal(int number)
{
	/* Relaxed: a flag by itself. */
	atomic_store_explicit(&cancelled, true, memory_order_relaxed);
	signal(number, SIG_DFL);
}

bool migrate_cancelled(void)
{
	return atomic_load_explicit(&cancelled, memory_order_relaxed);
}

int fail(struct failure *failure, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(failure->text, sizeof(failure->text), format, args);
	va_end(args);
	return -EIO;
}

int cmd_migrate(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct migrate_options options;

	migrate_options_parse(&options, argc, argv);
	sigaction(SIGTERM, &action, NULL);
	/* The destination that a source started shares its terminal: ^C is for the source. */
	if (options.listen_fd >= 0)
		signal(SIGINT, SIG_IGN);
	else
		sigaction(SIGINT, &action, NULL);
	return options.listen ? migrate_destination(&options) : migrate_source(&options);
}
