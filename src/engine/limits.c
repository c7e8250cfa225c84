/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * limits.c - how much memory and how many processors the host and the cgroups leave
 *
 * A migration often starts because a host is short of memory, and a table that is allocated past the
 * limit of a cgroup gets the guest killed. So everything that could say no is asked before.
 *
 * A cgroup's path as /proc/self/cgroup gives it need not exist below /sys/fs/cgroup: a container sees its own
 * cgroup as the root. All ancestors are asked anyway, up to the root, and those that are not there have
 * nothing to say. This finds the right files in both cases.
 *
 * That this process locks what it maps (mlockall with MCL_FUTURE) cannot be asked directly. A process
 * that locked most of what it has did that; a few locked pages with keys in them did not.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/limits.h"
#include "engine/lines.h"
#include "engine/memory.h"

#define PATH_BYTES 1024
#define CAP_IPC_LOCK_BIT 14

/* ---- numbers in files ---- */

/* A decimal number after blanks. "max", "unlimited", "-1" and what is no number leave *value_ret. */
static bool parse(const char *text, uint64_t *value_ret)
{
	uint64_t value;
	char *end;

	text += strspn(text, " \t");
	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno)
		return false;
	*value_ret = value;
	return true;
}

/* The number in the line that starts with key. */
static bool read_keyed(const char *path, const char *key, uint64_t *value_ret)
{
	struct godwit_lines lines;
	bool is_found = false;
	char *line;

	if (!godwit_lines_open(&lines, path))
		return false;
	while (!is_found && (line = godwit_lines_next(&lines))) {
		if (!strncmp(line, key, strlen(key)))
			is_found = parse(line + strlen(key), value_ret);
	}
	godwit_lines_close(&lines);
	return is_found;
}

static bool read_number(const char *path, uint64_t *value_ret)
{
	return read_keyed(path, "", value_ret);
}

/* ---- cgroups ---- */

/* One cgroup's directory, and the files in it. */
struct cgroup {
	char path[PATH_BYTES];
	size_t root_bytes;		/* of path: the hierarchy's mount point */
	bool is_v2;
};

static const char *cgroup_file(const struct cgroup *cgroup, const char *name, char path[PATH_BYTES])
{
	int got = snprintf(path, PATH_BYTES, "%s/%s", cgroup->path, name);

	return got > 0 && got < PATH_BYTES ? path : "";
}

/* Is controller one of the comma separated names from list up to end? */
static bool has_controller(const char *list, const char *end, const char *controller)
{
	size_t len = strlen(controller);

	while (list < end) {
		const char *comma = memchr(list, ',', (size_t)(end - list));
		const char *stop = comma ? comma : end;

		if ((size_t)(stop - list) == len && !memcmp(list, controller, len))
			return true;
		list = stop + 1;
	}
	return false;
}

/* A line of /proc/self/cgroup, "5:memory:/path" or "0::/path" -> our cgroup for this controller. */
static bool cgroup_of_line(const char *root, char *line, const char *controller, struct cgroup *cgroup)
{
	char *names = strchr(line, ':');
	char *path = names ? strchr(names + 1, ':') : NULL;
	int got;

	if (!path)
		return false;
	cgroup->is_v2 = path == names + 1;
	if (!cgroup->is_v2 && !has_controller(names + 1, path, controller))
		return false;
	got = snprintf(cgroup->path, sizeof(cgroup->path), "%s/sys/fs/cgroup%s%s", root,
		       cgroup->is_v2 ? "" : "/", cgroup->is_v2 ? "" : controller);
	if (got < 0 || (size_t)got >= sizeof(cgroup->path))
		return false;
	cgroup->root_bytes = (size_t)got;
	/* A path that is too long is cut: its ancestors are still asked. */
	snprintf(cgroup->path + got, sizeof(cgroup->path) - (size_t)got, "%s", path + 1);
	return true;
}

/* One level up; false at the root. */
static bool cgroup_up(struct cgroup *cgroup)
{
	char *slash = strrchr(cgroup->path + cgroup->root_bytes, '/');

	if (!slash)
		return false;
	*slash = 0;
	return true;
}

/* Ask every cgroup from ours up, in each hierarchy that has the controller; the least answer. */
static uint64_t least_of_cgroups(const char *root, const char *controller,
				 uint64_t (*ask)(const struct cgroup *cgroup))
{
	char path[PATH_BYTES];
	uint64_t least = UINT64_MAX;
	struct godwit_lines lines;
	char *line;

	snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
	if (!godwit_lines_open(&lines, path))
		return least;
	while ((line = godwit_lines_next(&lines))) {
		struct cgroup cgroup;

		if (!cgroup_of_line(root, line, controller, &cgroup))
			continue;
		do {
			uint64_t answer = ask(&cgroup);

			if (answer < least)
				least = answer;
		} while (cgroup_up(&cgroup));
	}
	godwit_lines_close(&lines);
	return least;
}

/* ---- memory ---- */

static uint64_t minus(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static uint64_t cgroup_memory_left(const struct cgroup *cgroup)
{
	char path[PATH_BYTES];
	uint64_t limit = UINT64_MAX, high = UINT64_MAX, used = 0, file = 0;

	if (cgroup->is_v2) {
		read_number(cgroup_file(cgroup, "memory.max", path), &limit);
		read_number(cgroup_file(cgroup, "memory.high", path), &high);
		if (high < limit)
			limit = high;
		read_number(cgroup_file(cgroup, "memory.current", path), &used);
		read_keyed(cgroup_file(cgroup, "memory.stat", path), "inactive_file ", &file);
	} else {
		read_number(cgroup_file(cgroup, "memory.limit_in_bytes", path), &limit);
		read_number(cgroup_file(cgroup, "memory.usage_in_bytes", path), &used);
		read_keyed(cgroup_file(cgroup, "memory.stat", path), "total_inactive_file ", &file);
	}
	/* v1 says "no limit" by a number near 2^63. */
	if (limit >= UINT64_MAX / 4)
		return UINT64_MAX;
	return minus(limit, minus(used, file));
}

static bool may_lock_without_limit(const char *status)
{
	struct godwit_lines lines;
	bool may = false;
	char *line;

	if (!godwit_lines_open(&lines, status))
		return false;
	while ((line = godwit_lines_next(&lines))) {
		if (!strncmp(line, "CapEff:", 7))
			may = strtoull(line + 7, NULL, 16) >> CAP_IPC_LOCK_BIT & 1;
	}
	godwit_lines_close(&lines);
	return may;
}

static uint64_t process_left(const char *root)
{
	char limits[PATH_BYTES], status[PATH_BYTES];
	uint64_t space = UINT64_MAX, lockable = UINT64_MAX, mapped_kib = 0, locked_kib = 0;
	uint64_t left = UINT64_MAX;

	snprintf(limits, sizeof(limits), "%s/proc/self/limits", root);
	snprintf(status, sizeof(status), "%s/proc/self/status", root);
	read_keyed(status, "VmSize:", &mapped_kib);
	read_keyed(status, "VmLck:", &locked_kib);
	if (read_keyed(limits, "Max address space", &space))
		left = minus(space, mapped_kib << 10);
	if (locked_kib > mapped_kib / 2 && read_keyed(limits, "Max locked memory", &lockable) &&
	    !may_lock_without_limit(status)) {
		lockable = minus(lockable, locked_kib << 10);
		if (lockable < left)
			left = lockable;
	}
	return left;
}

uint64_t godwit_limits_memory_left_bytes(const char *root)
{
	char path[PATH_BYTES];
	uint64_t least = least_of_cgroups(root, "memory", cgroup_memory_left);
	uint64_t process = process_left(root);
	uint64_t available_kib;

	snprintf(path, sizeof(path), "%s/proc/meminfo", root);
	if (read_keyed(path, "MemAvailable:", &available_kib) && available_kib << 10 < least)
		least = available_kib << 10;
	return process < least ? process : least;
}

uint64_t godwit_memory_left_bytes(void)
{
	return godwit_limits_memory_left_bytes("");
}

/* ---- processors ---- */

static uint64_t cgroup_processors(const struct cgroup *cgroup)
{
	char path[PATH_BYTES];
	uint64_t quota_us, period_us = 0;
	struct godwit_lines lines;
	char *line, *blank;
	bool is_known = false;

	if (cgroup->is_v2) {
		/* "max 100000" or "150000 100000" */
		if (!godwit_lines_open(&lines, cgroup_file(cgroup, "cpu.max", path)))
			return UINT64_MAX;
		line = godwit_lines_next(&lines);
		blank = line ? strchr(line, ' ') : NULL;
		is_known = blank && parse(line, &quota_us) && parse(blank, &period_us);
		godwit_lines_close(&lines);
	} else {
		is_known = read_number(cgroup_file(cgroup, "cpu.cfs_quota_us", path), &quota_us) &&
			   read_number(cgroup_file(cgroup, "cpu.cfs_period_us", path), &period_us);
	}
	if (!is_known || !period_us)
		return UINT64_MAX;
	return quota_us < period_us ? 1 : quota_us / period_us;
}

uint32_t godwit_limits_processors(const char *root)
{
	uint64_t least = least_of_cgroups(root, "cpu", cgroup_processors);

	return least < UINT32_MAX ? (uint32_t)least : UINT32_MAX;
}
