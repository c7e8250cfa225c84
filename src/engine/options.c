/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * options.c - option structs that grow by their size field
 *
 * A struct gets new fields at its end only, and zero in a new field means what the library did before
 * the field was there. So an older caller's struct is the newer one cut short, and a newer caller's
 * struct means the same to an older library exactly as long as what is beyond is zero.
 */
#include "engine/options.h"
#include "engine/error.h"

#include <errno.h>
#include <string.h>

static int is_zero(const unsigned char *bytes, size_t nr_bytes)
{
	for (size_t i = 0; i < nr_bytes; i++) {
		if (bytes[i])
			return 0;
	}
	return 1;
}

int godwit_options_copy(void *to, size_t to_bytes, size_t min_bytes, const void *from,
			struct godwit_error *error)
{
	size_t from_bytes;
	size_t copy_bytes;

	if (!from) {
		godwit_error_set(error, "options: no struct was given");
		return -EINVAL;
	}
	memcpy(&from_bytes, from, sizeof(from_bytes));
	if (from_bytes < min_bytes) {
		godwit_error_set(error, "options: size is %zu bytes, at least %zu are needed; set it to "
				 "sizeof the struct", from_bytes, min_bytes);
		return -EINVAL;
	}
	copy_bytes = from_bytes < to_bytes ? from_bytes : to_bytes;
	if (!is_zero((const unsigned char *)from + copy_bytes, from_bytes - copy_bytes)) {
		godwit_error_set(error, "options: something is set beyond the %zu bytes that this library "
				 "knows of %zu; it is older than its caller", to_bytes, from_bytes);
		return -E2BIG;
	}
	memmove(to, from, copy_bytes);
	memset((char *)to + copy_bytes, 0, to_bytes - copy_bytes);
	memcpy(to, &to_bytes, sizeof(to_bytes));
	return 0;
}
