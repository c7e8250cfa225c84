/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * setup.c - parsing parameters, and publishing them by RCU
 *
 * liburcu's "bp" flavour: threads need not register, which matters because the caller's threads are
 * not ours. Its publication is invisible to ThreadSanitizer (the ordering is in the library's own
 * assembly), so it is told at the two places where a pointer changes hands.
 */
#include <errno.h>
#include <urcu-bp.h>

#include "engine/error.h"
#include "engine/options.h"
#include "engine/setup.h"
#include "engine/topology.h"

#if defined(__SANITIZE_THREAD__)
#define GODWIT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define GODWIT_TSAN 1
#endif
#endif
#ifdef GODWIT_TSAN
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
#else
#define __tsan_acquire(addr) ((void)(addr))
#define __tsan_release(addr) ((void)(addr))
#endif

int godwit_setup_parse(const struct godwit_params *from, struct godwit_setup *setup_ret,
		       struct godwit_error *error)
{
	struct godwit_params params;
	struct godwit_setup setup = { .is_auto = false };
	int err = godwit_options_copy(&params, sizeof(params), sizeof(params), from, error);

	if (err)
		return err;
	if (!godwit_rung_parse(params.rung, &setup.rung, &setup.is_auto)) {
		godwit_error_set(error, "rung '%s' is not one of auto, none, lz4[:1-65], zstd-20 to "
				 "zstd-1, zstd1 to zstd19, zlib1 to zlib9", params.rung);
		return -EINVAL;
	}
	if (params.workers > GODWIT_MAX_WORKERS) {
		godwit_error_set(error, "workers: %u is above the limit %u", params.workers,
				 GODWIT_MAX_WORKERS);
		return -EINVAL;
	}
	if (params.base > GODWIT_BASE_OFF) {
		godwit_error_set(error, "base: %u is not signatures (0), pages (1) or off (2)",
				 params.base);
		return -EINVAL;
	}
	if (params.when_busy > GODWIT_WHEN_BUSY_RAW) {
		godwit_error_set(error, "when_busy: %u is not auto (0), wait (1) or raw (2)",
				 params.when_busy);
		return -EINVAL;
	}
	if (params.reserved) {
		godwit_error_set(error, "reserved: %u is not 0", params.reserved);
		return -EINVAL;
	}
	setup.workers = params.workers ? params.workers : godwit_topology_default_workers();
	setup.when_busy = params.when_busy;
	setup.base = params.base;
	setup.base_bytes = params.base_bytes;
	*setup_ret = setup;
	return 0;
}

int godwit_params_check(const struct godwit_params *params, struct godwit_error *error)
{
	struct godwit_setup setup;

	return godwit_setup_parse(params, &setup, error);
}

static struct godwit_setup *copy_of(struct godwit_arena *arena, const struct godwit_setup *setup)
{
	struct godwit_setup *copy = godwit_arena_alloc(arena, sizeof(*copy));

	if (copy)
		*copy = *setup;
	return copy;
}

int godwit_setup_box_init(struct godwit_setup_box *box, struct godwit_arena *arena,
			  const struct godwit_setup *setup)
{
	box->arena = arena;
	box->current = copy_of(arena, setup);
	if (!box->current)
		return -ENOMEM;
	return -pthread_mutex_init(&box->change, NULL);
}

void godwit_setup_box_fini(struct godwit_setup_box *box)
{
	pthread_mutex_destroy(&box->change);
}

int godwit_setup_publish(struct godwit_setup_box *box, const struct godwit_setup *setup)
{
	struct godwit_setup *fresh = copy_of(box->arena, setup);
	struct godwit_setup *old;

	if (!fresh)
		return -ENOMEM;
	pthread_mutex_lock(&box->change);
	__tsan_release(fresh);
	old = rcu_xchg_pointer(&box->current, fresh);
	synchronize_rcu();
	__tsan_acquire(old);
	pthread_mutex_unlock(&box->change);
	godwit_arena_free(box->arena, old);
	return 0;
}

struct godwit_setup godwit_setup_read(const struct godwit_setup_box *box)
{
	struct godwit_setup setup;
	struct godwit_setup *current;

	rcu_read_lock();
	current = rcu_dereference(box->current);
	__tsan_acquire(current);
	setup = *current;
	__tsan_release(current);
	rcu_read_unlock();
	return setup;
}
