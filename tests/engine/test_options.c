/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Options of callers that are older or newer, and errors as text. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "engine/error.h"
#include "engine/options.h"

struct old_options { size_t size; uint32_t a, b; };
struct new_options { size_t size; uint32_t a, b; uint64_t c; };

Test(options, of_an_older_caller_read_as_zero_beyond_what_it_has)
{
	struct old_options from = { .size = sizeof(from), .a = 1, .b = 2 };
	struct new_options to = { .c = 99 };

	cr_assert_eq(godwit_options_copy(&to, sizeof(to), sizeof(from), &from, NULL), 0);
	cr_assert_eq(to.size, sizeof(to));
	cr_assert_eq(to.a, 1);
	cr_assert_eq(to.b, 2);
	cr_assert_eq(to.c, 0);
}

Test(options, of_a_newer_caller_are_taken_while_the_rest_is_zero)
{
	struct new_options from = { .size = sizeof(from), .a = 1, .b = 2 };
	struct { struct old_options to; uint64_t after; } out = { .after = 7 };
	struct godwit_error error = { "" };

	cr_assert_eq(godwit_options_copy(&out.to, sizeof(out.to), sizeof(out.to), &from, &error), 0);
	cr_assert_eq(out.to.size, sizeof(out.to));
	cr_assert_eq(out.to.b, 2);
	cr_assert_eq(out.after, 7);
	from.c = UINT64_C(1) << 63;
	from.a = 5;
	cr_assert_eq(godwit_options_copy(&out.to, sizeof(out.to), sizeof(out.to), &from, &error),
		     -E2BIG);
	cr_assert_eq(out.to.a, 1, "untouched");
	cr_assert_neq(error.text[0], 0);
}

Test(options, smaller_than_the_first_version_are_refused)
{
	struct old_options from = { .size = sizeof(from) - 1, .a = 1 };
	struct new_options to = { .a = 9 };
	struct godwit_error error = { "" };

	cr_assert_eq(godwit_options_copy(&to, sizeof(to), sizeof(from), &from, &error), -EINVAL);
	cr_assert_eq(godwit_options_copy(&to, sizeof(to), sizeof(from), NULL, &error), -EINVAL);
	from.size = 0;
	cr_assert_eq(godwit_options_copy(&to, sizeof(to), sizeof(from), &from, NULL), -EINVAL);
	cr_assert_eq(to.a, 9);
}

Test(error, is_cut_where_it_does_not_fit_and_may_be_absent)
{
	struct godwit_error error;
	char text[600];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	godwit_error_set(&error, "%s %d", text, 3);
	cr_assert_eq(strlen(error.text), sizeof(error.text) - 1);
	godwit_error_set(&error, "%s %d", "page", 3);
	cr_assert_str_eq(error.text, "page 3");
	godwit_error_set(NULL, "%s", text);
}
