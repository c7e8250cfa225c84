/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_PERF_H
#define GODWIT_PERF_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <godwit/common.h>

/*
 * perf.h - what the subcommands of godwit-perf share: options, units, clocks, images, tables, JSON.
 *
 * Exit status of every subcommand: 0 it worked; 1 it ran and failed (a page differed, a file could
 * not be read, the connection broke); 2 it was called wrongly. Results go to stdout, everything else
 * to stderr, so that --json can be piped.
 */
enum { EXIT_WORKED = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* argv[0] is the subcommand's own name. Returns an exit status. */
int cmd_encode(int argc, char **argv);
int cmd_delta(int argc, char **argv);
int cmd_ring(int argc, char **argv);
int cmd_estimate(int argc, char **argv);
int cmd_migrate(int argc, char **argv);
int cmd_throttle(int argc, char **argv);

/* ---- options (util.c) ---- */

/* One table says what a subcommand takes, what it prints for --help, and in which order it is told. */
struct perf_option {
	const char *name;	/* "workers" is --workers; NULL ends the table */
	const char *arg;	/* "N"; NULL: a switch */
	const char *help;	/* lines are wrapped at '\n' */
};

struct perf_command {
	const char *name;	/* "encode" */
	const char *synopsis;	/* "--new FILE [--old FILE]" */
	const char *summary;	/* one sentence or more */
	const struct perf_option *options;
};

/*
 * next_option() - the next option of argv.
 *
 * Result: its index in command->options, the argument in *arg_ret; -1 at the end.
 *         --help prints and exits 0; an unknown option, a missing argument or a stray word exits 2.
 * State:  getopt's, so one command line at a time; not for threads.
 */
int next_option(const struct perf_command *command, int argc, char **argv, const char **arg_ret);

/* "godwit-perf encode: TEXT" to stderr, then exit 1. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, then how to get help, exit 2. */
_Noreturn void usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* "godwit-perf encode: warning: TEXT" to stderr. */
void warn_user(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* malloc(), zeroed; exits 1 when there is no memory. Freed with free(). */
void *xcalloc(size_t count, size_t bytes);

/* ---- the stock stream (stock.c) ---- */

/*
 * Pages of the RAM block of that name, as a source with the stock stream emits them, into ram; exits 1 when
 * they are malformed or of another block. By this thread alone, as in QEMU.
 */
void stock_apply(const void *stream, size_t stream_bytes, const char *name, uint8_t *ram, uint64_t ram_bytes);

/* ---- units (util_units.c); all exit 2 with what is accepted, naming the option ---- */

/* Plain decimal number, min <= value <= max. */
uint64_t parse_number(const char *option, const char *text, uint64_t min, uint64_t max);
/* 4096, 64K, 64KiB (both 65536), 64KB (64000), 1.5G. Memory and lengths. */
uint64_t parse_size_bytes(const char *option, const char *text);
/* 1Gbit, 125MB, 10MiB, 1Gbit/s, 125000000 (bytes): bytes per second. 0 or "unlimited": no limit, 0. */
uint64_t parse_bandwidth(const char *option, const char *text);
/* 300ms, 2s, 1.5min, 20us; a unit is required except for 0. */
uint64_t parse_duration_ns(const char *option, const char *text);

/* "1.50 GiB", "941.2 Mbit/s", "12.3 ms" into text[UNIT_TEXT]; returns text. */
#define UNIT_TEXT 32
const char *format_bytes(char *text, double bytes);
const char *format_bandwidth(char *text, double bytes_per_s);
const char *format_duration(char *text, double ns);

/* ---- clocks and figures (util.c) ---- */

uint64_t clock_ns(clockid_t clock);
static inline uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
static inline uint64_t thread_cpu_ns(void) { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }
static inline uint64_t process_cpu_ns(void) { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }

/* On the clock of now_ns(). */
void sleep_until(uint64_t when_ns);

/* Median; sorts values in place. nr_values >= 1. */
double median(double *values, size_t nr_values);

/* "Model name, 8 of 16 processors allowed" into text; for the first line of a report. */
#define MACHINE_TEXT 192
const char *machine_text(char *text);

/* ---- a rate kept (util_pace.c) ---- */

/* Token bucket. bytes_per_s = 0 never waits. One thread. */
struct pace {
	uint64_t bytes_per_s;
	uint64_t burst_bytes;
	double level_bytes;	/* <= burst_bytes; negative: in debt */
	uint64_t last_ns;
};
void pace_init(struct pace *pace, uint64_t bytes_per_s);
/* Account for bytes about to be sent and sleep until they may go. Returns the ns slept. */
uint64_t pace_wait(struct pace *pace, uint64_t bytes);

/* ---- images (util_image.c) ---- */

/* A file of guest pages in memory of its own (huge pages where the host gives them). */
struct image {
	const char *path;	/* the caller's string */
	uint8_t *bytes;
	size_t len_bytes;	/* a multiple of GODWIT_PAGE_BYTES, not 0 */
	uint64_t pages;
	size_t map_bytes;	/* what is mapped at bytes */
};
/* FILE, or FILE.zst (unpacked, windows of up to 128 MiB). Exits 1 with the reason. */
void image_load(struct image *image, const char *path);
/* What the same pages were before those of `with`: as many, or it exits 1. */
void image_load_old(struct image *image, const char *path, const struct image *with);
void image_unload(struct image *image);

/* Zeroed page-aligned memory, huge pages asked for; exits 1 when there is none. munmap()ed by the caller. */
void *map_memory(size_t bytes);

/* ---- pages of a running process (util_process.c) ---- */

/* Runs of up to 64 neighbouring resident pages, drawn at random over all writable memory. */
struct process_sample {
	int pid;
	uint64_t mapped_pages;		/* in the mappings that were looked at */
	uint64_t resident_pages;
	uint64_t swapped_pages;		/* never read: that would bring them in */
	uint64_t pages;			/* in the sample */
	uint64_t *address;		/* of each, ascending */
};
/* Choose at most max_pages; is_largest_only: of the largest mapping alone. Exits 1 with the reason. */
void process_sample_choose(struct process_sample *sample, int pid, uint64_t max_pages,
			   bool is_largest_only);
/* Read them to pages[sample->pages][4096]. One that is gone reads as zero. The process is not stopped. */
void process_sample_read(const struct process_sample *sample, uint8_t *pages);
void process_sample_free(struct process_sample *sample);

/* ---- aligned text tables (util_table.c) ---- */

/*
 * Columns are separated by '|' in the heading and in each row; a heading that begins with '>' is
 * right aligned:
 *
 *	table_init(&t, "kind|variant|>encode ns");
 *	table_row(&t, "%s|%s|%.1f", kind, variant, ns);
 *	table_print(&t, stdout);		// and frees
 */
struct table {
	unsigned columns;
	unsigned rows;		/* the heading is row 0 */
	char **line;		/* one string a row, '|' replaced by '\0' */
	uint64_t right;		/* bit c: column c is right aligned */
};
void table_init(struct table *table, const char *heading);
void table_row(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void table_print(struct table *table, FILE *file);
/* For one that is not printed. */
void table_fini(struct table *table);

/* ---- pictures (util_svg.c) ---- */

/* Written with its head and its paper; NULL and errno. Classes: text .big .title .soft, line .rule .round, path
 * .line and .area with a colour .a to .d, .band. */
FILE *svg_open(const char *path, unsigned width, unsigned height, const char *label);
/* 0 or -errno. */
int svg_close(FILE *file);
/* 1, 2 or 5 times a power of ten, so that there are about `marks` of them. */
double svg_step(double range, double marks);

/* ---- JSON (util_json.c): keys as named, numbers plain (no exponent, no quotes) ---- */

void put_u64(struct json_object *object, const char *key, uint64_t value);
void put_bool(struct json_object *object, const char *key, bool value);
void put_text(struct json_object *object, const char *key, const char *value);
/* digits after the point; NaN and infinity become null. */
void put_real(struct json_object *object, const char *key, double value, int digits);
/* A new object or array as a member; the parent frees it. */
struct json_object *put_object(struct json_object *object, const char *key);
struct json_object *put_array(struct json_object *object, const char *key);
/* A new object at the end of an array. */
struct json_object *append_object(struct json_object *array);
/* Print to stdout, newline at the end, and free. Exits 1 when stdout fails. */
void print_json(struct json_object *object);

#endif
