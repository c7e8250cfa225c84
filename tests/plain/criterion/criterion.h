/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * criterion.h - as much of Criterion's interface as our tests use, over a plain runner
 *
 * Where Criterion's sandbox does not work (tests/CMakeLists.txt says where) this header is found before
 * Criterion's, and runner.c forks once per test instead. What is missing here fails to compile, so a
 * test cannot be dropped in silence.
 */
#ifndef GODWIT_PLAIN_CRITERION_H
#define GODWIT_PLAIN_CRITERION_H

#include <assert.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct criterion_test_params {
	size_t size;			/* bytes of one parameter */
	void *params;
	size_t length;
	void (*cleanup)(struct criterion_test_params *params);
};

struct plain_options {
	void (*init)(void);
	void (*fini)(void);
	int signal;
	int exit_code;
	bool disabled;
	double timeout;			/* seconds; 0 = none of its own */
	const char *description;
};

struct plain_test {
	const char *suite, *name;
	void (*run)(void);
	void (*run_param)(void *param);
	struct criterion_test_params (*params)(void);
	struct plain_options options;
	struct plain_test *next;
};

void plain_register(struct plain_test *test);
void plain_register_suite(const char *suite, const struct plain_options *options);
/* A check that did not hold: says so; ends the test if fatal. */
void plain_failed(bool is_fatal, const char *file, int line, const char *text, const char *format, ...);
_Noreturn void plain_skip(const char *format, ...);

#define Test(Suite, Name, ...)								\
	static void Suite##_##Name##_body(void);					\
	static struct plain_test Suite##_##Name##_test = {				\
		.suite = #Suite, .name = #Name, .run = Suite##_##Name##_body,		\
		.options = { __VA_ARGS__ } };						\
	__attribute__((constructor)) static void Suite##_##Name##_register(void)	\
	{										\
		plain_register(&Suite##_##Name##_test);					\
	}										\
	static void Suite##_##Name##_body(void)

#define TestSuite(Suite, ...)								\
	static const struct plain_options Suite##_options = { __VA_ARGS__ };		\
	__attribute__((constructor)) static void Suite##_register_suite(void)		\
	{										\
		plain_register_suite(#Suite, &Suite##_options);				\
	}										\
	struct plain_eats_a_semicolon

#define ParameterizedTestParameters(Suite, Name)					\
	static struct criterion_test_params Suite##_##Name##_params(void)

#define ParameterizedTest(Parameter, Suite, Name, ...)					\
	static void Suite##_##Name##_body(Parameter);					\
	static void Suite##_##Name##_call(void *param)					\
	{										\
		Suite##_##Name##_body(param);						\
	}										\
	static struct plain_test Suite##_##Name##_test = {				\
		.suite = #Suite, .name = #Name, .run_param = Suite##_##Name##_call,	\
		.params = Suite##_##Name##_params, .options = { __VA_ARGS__ } };	\
	__attribute__((constructor)) static void Suite##_##Name##_register(void)	\
	{										\
		plain_register(&Suite##_##Name##_test);					\
	}										\
	static void Suite##_##Name##_body(Parameter)

#define cr_make_param_array(Type, Array, Length, ...)					\
	((struct criterion_test_params){ sizeof(Type), (void *)(Array), (Length), __VA_ARGS__ })

#define plain_check(Fatal, Condition, Text, ...)					\
	do {										\
		if (!(Condition))							\
			plain_failed(Fatal, __FILE__, __LINE__, Text, "" __VA_ARGS__);	\
	} while (0)
#define plain_same(Left, Right, Bytes) (!memcmp((Left), (Right), (Bytes)))
#define plain_near(Left, Right, Epsilon) (fabs((double)(Left) - (double)(Right)) <= (Epsilon))

#define cr_assert(C, ...)	  plain_check(true, (C), #C, __VA_ARGS__)
#define cr_assert_not(C, ...)	  plain_check(true, !(C), "not " #C, __VA_ARGS__)
#define cr_assert_eq(A, B, ...)	  plain_check(true, (A) == (B), #A " == " #B, __VA_ARGS__)
#define cr_assert_neq(A, B, ...)  plain_check(true, (A) != (B), #A " != " #B, __VA_ARGS__)
#define cr_assert_lt(A, B, ...)	  plain_check(true, (A) < (B), #A " < " #B, __VA_ARGS__)
#define cr_assert_leq(A, B, ...)  plain_check(true, (A) <= (B), #A " <= " #B, __VA_ARGS__)
#define cr_assert_gt(A, B, ...)	  plain_check(true, (A) > (B), #A " > " #B, __VA_ARGS__)
#define cr_assert_geq(A, B, ...)  plain_check(true, (A) >= (B), #A " >= " #B, __VA_ARGS__)
#define cr_assert_null(A, ...)	  plain_check(true, !(A), #A " is null", __VA_ARGS__)
#define cr_assert_not_null(A, ...) plain_check(true, !!(A), #A " is not null", __VA_ARGS__)
#define cr_assert_str_eq(A, B, ...) plain_check(true, !strcmp((A), (B)), #A " is " #B, __VA_ARGS__)
#define cr_assert_str_neq(A, B, ...) plain_check(true, strcmp((A), (B)), #A " is not " #B, __VA_ARGS__)
#define cr_assert_arr_eq(A, B, N, ...) plain_check(true, plain_same(A, B, N), #A " equals " #B, __VA_ARGS__)
#define cr_assert_arr_neq(A, B, N, ...) plain_check(true, !plain_same(A, B, N), #A " differs from " #B, __VA_ARGS__)
#define cr_assert_float_eq(A, B, E, ...) plain_check(true, plain_near(A, B, E), #A " near " #B, __VA_ARGS__)
#define cr_assert_fail(...)	  plain_check(true, false, "reached", __VA_ARGS__)
#define cr_fatal(...)		  plain_check(true, false, "reached", __VA_ARGS__)
#define cr_fail(...)		  plain_check(false, false, "reached", __VA_ARGS__)

#define cr_expect(C, ...)	  plain_check(false, (C), #C, __VA_ARGS__)
#define cr_expect_not(C, ...)	  plain_check(false, !(C), "not " #C, __VA_ARGS__)
#define cr_expect_eq(A, B, ...)	  plain_check(false, (A) == (B), #A " == " #B, __VA_ARGS__)
#define cr_expect_neq(A, B, ...)  plain_check(false, (A) != (B), #A " != " #B, __VA_ARGS__)
#define cr_expect_lt(A, B, ...)	  plain_check(false, (A) < (B), #A " < " #B, __VA_ARGS__)
#define cr_expect_leq(A, B, ...)  plain_check(false, (A) <= (B), #A " <= " #B, __VA_ARGS__)
#define cr_expect_gt(A, B, ...)	  plain_check(false, (A) > (B), #A " > " #B, __VA_ARGS__)
#define cr_expect_geq(A, B, ...)  plain_check(false, (A) >= (B), #A " >= " #B, __VA_ARGS__)
#define cr_expect_null(A, ...)	  plain_check(false, !(A), #A " is null", __VA_ARGS__)
#define cr_expect_not_null(A, ...) plain_check(false, !!(A), #A " is not null", __VA_ARGS__)
#define cr_expect_str_eq(A, B, ...) plain_check(false, !strcmp((A), (B)), #A " is " #B, __VA_ARGS__)
#define cr_expect_arr_eq(A, B, N, ...) plain_check(false, plain_same(A, B, N), #A " equals " #B, __VA_ARGS__)

#define cr_skip(...)		  plain_skip("" __VA_ARGS__)
#define cr_skip_test(...)	  plain_skip("" __VA_ARGS__)
#define cr_log_info(...)	  (printf(__VA_ARGS__), putchar('\n'))
#define cr_log_warn(...)	  (printf(__VA_ARGS__), putchar('\n'))
#define cr_malloc		  malloc
#define cr_calloc		  calloc
#define cr_realloc		  realloc
#define cr_free			  free

#endif
