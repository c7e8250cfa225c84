/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_ENGINE_ERROR_H
#define GODWIT_ENGINE_ERROR_H

#include <godwit/common.h>

/*
 * godwit_error_set() - the readable line beside a -errno; cut where it does not fit.
 *
 * error may be NULL (the caller did not ask). Keeps no state, safe anywhere.
 */
void godwit_error_set(struct godwit_error *error, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#endif
