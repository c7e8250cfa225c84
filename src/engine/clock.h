/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_CLOCK_H
#define GODWIT_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Monotonic time. No system call where the kernel maps its clock into the process. */
static inline uint64_t godwit_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif
