/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * util.c - options, errors, clocks: what every subcommand begins with
 *
 * A subcommand's table is the one place that names an option: getopt's array and the help text are
 * both made from it, so that the two cannot disagree.
 */
#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf.h"

#define MAX_OPTIONS 64
#define HELP_COLUMN 26

static const char *running = "";	/* the subcommand's name with a blank before it, for messages */
static char running_text[32];

static void complain(const char *kind, const char *format, va_list args)
{
	fflush(stdout);
	fprintf(stderr, "godwit-perf%s: %s", running, kind);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}

void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain("", format, args);
	va_end(args);
	exit(EXIT_FAILED);
}

void usage_error(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain("", format, args);
	va_end(args);
	fprintf(stderr, "Try 'godwit-perf%s --help'.\n", running);
	exit(EXIT_USAGE);
}

void warn_user(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain("warning: ", format, args);
	va_end(args);
}

void *xcalloc(size_t count, size_t bytes)
{
	void *memory = calloc(count ? count : 1, bytes ? bytes : 1);

	if (!memory)
		die("no memory for %zu bytes", count * bytes);
	return memory;
}

static void print_option(const char *name, const char *arg, const char *help)
{
	int used = printf("  --%s%s%s", name, arg ? " " : "", arg ? arg : "");

	if (used > HELP_COLUMN - 2) {
		putchar('\n');
		used = 0;
	}
	while (*help) {
		size_t len = strcspn(help, "\n");

		printf("%*s%.*s\n", HELP_COLUMN - used, "", (int)len, help);
		used = 0;
		help += len + (help[len] == '\n');
	}
}

static _Noreturn void print_help(const struct perf_command *command)
{
	printf("usage: godwit-perf %s %s\n\n%s\n\nOptions:\n", command->name, command->synopsis,
	       command->summary);
	for (const struct perf_option *option = command->options; option->name; option++)
		print_option(option->name, option->arg, option->help);
	print_option("help", NULL, "print this");
	exit(fflush(stdout) ? EXIT_FAILED : EXIT_WORKED);
}

int next_option(const struct perf_command *command, int argc, char **argv, const char **arg_ret)
{
	struct option table[MAX_OPTIONS] = { 0 };
	int n = 0, found = 0;

	snprintf(running_text, sizeof(running_text), " %s", command->name);
	running = running_text;
	for (; command->options[n].name; n++) {
		assert(n + 2 < MAX_OPTIONS);
		table[n] = (struct option){ command->options[n].name,
			command->options[n].arg ? required_argument : no_argument, &found, n };
	}
	table[n] = (struct option){ "help", no_argument, &found, n };

	opterr = 0;	/* getopt's own message does not know the subcommand */
	switch (getopt_long(argc, argv, ":", table, NULL)) {
	case 0:
		if (found == n)
			print_help(command);
		*arg_ret = optarg;
		return found;
	case -1:
		if (optind < argc)
			usage_error("'%s' is not an option; every option begins with --", argv[optind]);
		return -1;
	case ':':
		usage_error("%s needs a value", argv[optind - 1]);
	default:
		usage_error("'%s' is not an option of %s, or is short for several, or takes no value",
			    argv[optind - 1], command->name);
	}
}

uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void sleep_until(uint64_t when_ns)
{
	struct timespec when = { (time_t)(when_ns / 1000000000u), (long)(when_ns % 1000000000u) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) == EINTR)
		;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double median(double *values, size_t nr_values)
{
	assert(nr_values);
	qsort(values, nr_values, sizeof(*values), by_value);
	return nr_values % 2 ? values[nr_values / 2] :
	       (values[nr_values / 2 - 1] + values[nr_values / 2]) / 2;
}

const char *machine_text(char *text)
{
	char model[128] = "unknown processor", line[256];
	FILE *file = fopen("/proc/cpuinfo", "re");
	cpu_set_t allowed;
	int nr_allowed = sched_getaffinity(0, sizeof(allowed), &allowed) ? 0 : CPU_COUNT(&allowed);

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "model name : %127[^\n]", model) == 1)
			break;
	if (file)
		fclose(file);
	snprintf(text, MACHINE_TEXT, "%s, %d of %ld processors allowed", model, nr_allowed,
		 sysconf(_SC_NPROCESSORS_ONLN));
	return text;
}
