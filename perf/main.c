/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * main.c - godwit-perf: find the subcommand, hand over.
 *
 * Each subcommand owns its options and its help; this file knows only their names, so that adding
 * one is one row here and one file.
 */
#include <string.h>

#include "perf.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary;
} commands[] = {
	{ "migrate", cmd_migrate, "move a running workload to another process, every page verified" },
	{ "estimate", cmd_estimate, "what a migration of a process or an image would cost" },
	{ "encode", cmd_encode, "bytes and CPU per page, through the whole engine" },
	{ "delta", cmd_delta, "each delta encoder and variant by itself" },
	{ "ring", cmd_ring, "nanoseconds per item through the rings and the doorbell" },
	{ "throttle", cmd_throttle, "vCPUs held back, simulated: the governor beside QEMU's two ways" },
};
#define NR_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void print_help(FILE *file)
{
	fprintf(file,
		"usage: godwit-perf COMMAND [OPTION]...\n"
		"\n"
		"Measures libgodwit and migrates a workload with it.\n"
		"\n"
		"Commands:\n");
	for (size_t i = 0; i < NR_COMMANDS; i++)
		fprintf(file, "  %-10s%s\n", commands[i].name, commands[i].summary);
	fprintf(file,
		"\n"
		"  --version prints the version, COMMAND --help the options of a command.\n"
		"Every command takes --json. Units, options and examples: man godwit-perf.\n");
}

int main(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : NULL;

	if (!word) {
		print_help(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help")) {
		print_help(stdout);
		return EXIT_WORKED;
	}
	if (!strcmp(word, "--version") || !strcmp(word, "-V")) {
		printf("godwit-perf %s\n", godwit_version());
		return EXIT_WORKED;
	}
	for (size_t i = 0; i < NR_COMMANDS; i++)
		if (!strcmp(word, commands[i].name))
			return commands[i].run(argc - 1, argv + 1);

	fprintf(stderr, "godwit-perf: no %s '%s'; the commands are",
		word[0] == '-' ? "option" : "command", word);
	for (size_t i = 0; i < NR_COMMANDS; i++)
		fprintf(stderr, "%s %s", i ? "," : "", commands[i].name);
	fprintf(stderr, "\nTry 'godwit-perf --help'.\n");
	return EXIT_USAGE;
}
