/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_LIMITS_H
#define GODWIT_LIMITS_H

#include <stdint.h>

/*
 * limits.h - how much memory and how many processors the host and the cgroups leave
 *
 * root is put in front of /proc and /sys: "" for this machine, a directory with a made-up tree in tests.
 * Nothing is allocated; what cannot be read is no limit.
 */

/*
 * The least of: the host's MemAvailable; for each cgroup from ours to the root, the lower of its limits
 * (v2 high and max, v1 limit) less what it uses, not counting file pages that it would give up; the
 * address space that RLIMIT_AS leaves; and, where this process has its memory locked and may not exceed
 * RLIMIT_MEMLOCK, what that leaves. UINT64_MAX: no limit is known.
 */
uint64_t godwit_limits_memory_left_bytes(const char *root);

/* Whole processors that the cgroups' quotas allow, at least 1; UINT32_MAX without a quota. */
uint32_t godwit_limits_processors(const char *root);

#endif
