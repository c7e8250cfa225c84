/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stdatomic.h - C11's explicit atomics as Relacy's
 *
 * Found before the compiler's own, so that a C header under test needs no change. An atomic becomes an
 * object with a history from which a load may take an old value; each access is a point where the
 * scheduler may switch. Relacy spells memory_order_x as "mo_x, <source place>", two arguments, hence
 * macros. Only the _explicit forms exist here: an order left out does not compile.
 * Write _Atomic(T), not _Atomic T, in what shall be checked.
 */
#ifndef GODWIT_MODEL_STDATOMIC_H
#define GODWIT_MODEL_STDATOMIC_H

#include <relacy/relacy.hpp>

using namespace rl;

#define _Atomic(T) rl::atomic<T>

#define atomic_init(p, v) (p)->store((v), memory_order_relaxed)
#define atomic_load_explicit(p, mo) (p)->load(mo)
#define atomic_store_explicit(p, v, mo) (p)->store((v), mo)
#define atomic_exchange_explicit(p, v, mo) (p)->exchange((v), mo)
#define atomic_fetch_add_explicit(p, v, mo) (p)->fetch_add((v), mo)
#define atomic_fetch_sub_explicit(p, v, mo) (p)->fetch_sub((v), mo)
#define atomic_fetch_or_explicit(p, v, mo) (p)->fetch_or((v), mo)
#define atomic_fetch_and_explicit(p, v, mo) (p)->fetch_and((v), mo)
#define atomic_compare_exchange_weak_explicit(p, expected, v, mo, mo_failed)			\
	(p)->compare_exchange_weak(*(expected), (v), mo, mo_failed)
#define atomic_compare_exchange_strong_explicit(p, expected, v, mo, mo_failed)			\
	(p)->compare_exchange_strong(*(expected), (v), mo, mo_failed)
/* atomic_thread_fence(mo) is Relacy's own. */

#endif
