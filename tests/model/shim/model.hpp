/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * model.hpp - what every model needs
 *
 * A model is a Relacy test suite: its threads run as fibers of one thread, so ordinary variables of the
 * model are the observer's book-keeping, while rl::var, rl::atomic and what the shim makes of C11's atomics
 * are what is observed. The random scheduler is seeded by the iteration's number: results repeat.
 */
#ifndef GODWIT_MODEL_HPP
#define GODWIT_MODEL_HPP

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <iostream>

#include "stdatomic.h"

/*
 * A plain (not atomic) place of memory that reports two accesses which nothing orders. Converts from
 * and to T, so that C code under test uses it as a T.
 */
template <typename T> class model_plain {
public:
	model_plain() {}
	operator T() const { return v($).load(); }
	model_plain &operator=(T value)
	{
		v($).store(value);
		return *this;
	}

private:
	model_plain(const model_plain &);
	rl::var<T> v;
};

/*
 * Runs one suite; false if a schedule broke it. GODWIT_MODEL_FACTOR in the environment multiplies the
 * schedules, GODWIT_MODEL_TRACE prints the one that failed, access by access. (Relacy replaces operator
 * new, so what it prints to must not allocate: standard output, or nowhere.)
 */
template <typename suite_t> bool model_holds(const char *name, unsigned iterations)
{
	const char *factor = getenv("GODWIT_MODEL_FACTOR");
	std::ostream nowhere(nullptr);
	rl::test_params params;

	params.iteration_count = iterations * (factor ? atoi(factor) : 1);
	params.execution_depth_limit = 20000;
	params.output_stream = getenv("GODWIT_MODEL_TRACE") ? &std::cout : &nowhere;
	params.progress_stream = &nowhere;
	if (rl::simulate<suite_t>(params)) {
		printf("%s: %u schedules hold\n", name, (unsigned)params.stop_iteration);
		return true;
	}
	printf("%s: FAILS in schedule %u: %s\n", name, (unsigned)params.stop_iteration,
	       rl::test_result_str(params.test_result));
	return false;
}

#endif
