/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_ENGINE_OPTIONS_H
#define GODWIT_ENGINE_OPTIONS_H

#include <godwit/common.h>

/*
 * godwit_options_copy() - take over a struct that may come from an older or a newer caller.
 *
 * Shape:   both structs begin with `size_t size`. to_bytes is the struct as this library knows it,
 *          min_bytes as its first version had it. from is read for its size field, then for at most
 *          that many bytes.
 * Result:  0          to holds the caller's fields, zero where the caller has none; to->size is to_bytes
 *          -EINVAL    from is NULL or smaller than min_bytes
 *          -E2BIG     from is larger than to_bytes and something in the tail is not zero: it asks for
 *                     what this library lacks
 *          On an error to is untouched and error (may be NULL) has the reason.
 * Threads: keeps no state, safe anywhere.
 */
int godwit_options_copy(void *to, size_t to_bytes, size_t min_bytes, const void *from,
			struct godwit_error *error);

#endif
