/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * runner.c - run the tests of one program, one after the other, a process each
 *
 * A child of its own keeps a crash, an exit or a hang to one test, and lets a test expect a signal or an
 * exit status as Criterion's do. The last line is in Criterion's words.
 *
 * Under AddressSanitizer a child looks for leaks before it goes: each test is charged with its own.
 */
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#define STATUS_FAILED 101
#define STATUS_SKIPPED 102
#define DEFAULT_TIMEOUT_S 170.0

#pragma weak __lsan_do_recoverable_leak_check
int __lsan_do_recoverable_leak_check(void);

static struct plain_test *first_test;
static bool has_failed;

static struct {
	const char *suite;
	const struct plain_options *options;
} suites[32];
static unsigned nr_suites;

void plain_register(struct plain_test *test)
{
	struct plain_test **at = &first_test;

	while (*at)
		at = &(*at)->next;
	*at = test;
}

void plain_register_suite(const char *suite, const struct plain_options *options)
{
	assert(nr_suites < sizeof(suites) / sizeof(suites[0]));
	suites[nr_suites].suite = suite;
	suites[nr_suites++].options = options;
}

void plain_failed(bool is_fatal, const char *file, int line, const char *text, const char *format, ...)
{
	va_list args;

	flockfile(stdout);
	printf("%s:%d: %s: ", file, line, text);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	funlockfile(stdout);
	fflush(stdout);
	__atomic_store_n(&has_failed, true, __ATOMIC_RELAXED);
	if (is_fatal)
		_exit(STATUS_FAILED);
}

void plain_skip(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	_exit(STATUS_SKIPPED);
}

static const struct plain_options *options_of_suite(const char *suite)
{
	static const struct plain_options none;

	for (unsigned i = 0; i < nr_suites; i++)
		if (!strcmp(suites[i].suite, suite))
			return suites[i].options;
	return &none;
}

static void run_in_child(const struct plain_test *test, void *param, double timeout)
{
	const struct plain_options *suite = options_of_suite(test->suite);
	void (*init)(void) = test->options.init ? test->options.init : suite->init;
	void (*fini)(void) = test->options.fini ? test->options.fini : suite->fini;

	/* The emulator is slow: a limit is there to end a hang, not to measure. */
	alarm((unsigned)(timeout > 0 ? 10 * timeout : DEFAULT_TIMEOUT_S) + 1);
	if (init)
		init();
	if (test->run)
		test->run();
	else
		test->run_param(param);
	if (fini)
		fini();
	fflush(NULL);
	if (__lsan_do_recoverable_leak_check && __lsan_do_recoverable_leak_check())
		has_failed = true;
	_exit(has_failed ? STATUS_FAILED : 0);
}

enum outcome { PASSED, FAILED, SKIPPED };

static enum outcome run_test(const struct plain_test *test, void *param)
{
	const struct plain_options *suite = options_of_suite(test->suite);
	int signal = test->options.signal ? test->options.signal : suite->signal;
	int exit_code = test->options.exit_code ? test->options.exit_code : suite->exit_code;
	double timeout = test->options.timeout > 0 ? test->options.timeout : suite->timeout;
	int status;
	pid_t child;

	fflush(NULL);
	child = fork();
	if (child < 0) {
		perror("fork");
		return FAILED;
	}
	if (!child)
		run_in_child(test, param, timeout);
	if (waitpid(child, &status, 0) != child)
		return FAILED;
	if (WIFEXITED(status) && WEXITSTATUS(status) == STATUS_SKIPPED)
		return SKIPPED;
	if (signal ? WIFSIGNALED(status) && WTERMSIG(status) == signal :
		     WIFEXITED(status) && WEXITSTATUS(status) == exit_code)
		return PASSED;
	if (WIFSIGNALED(status))
		printf("%s::%s: %s\n", test->suite, test->name, strsignal(WTERMSIG(status)));
	else
		printf("%s::%s: failed, status %d\n", test->suite, test->name, WEXITSTATUS(status));
	return FAILED;
}

int main(void)
{
	unsigned counts[3] = { 0 };

	for (const struct plain_test *test = first_test; test; test = test->next) {
		struct criterion_test_params params = { 0 };

		if (test->options.disabled || options_of_suite(test->suite)->disabled) {
			counts[SKIPPED]++;
			continue;
		}
		if (test->run) {
			counts[run_test(test, NULL)]++;
			continue;
		}
		params = test->params();
		for (size_t i = 0; i < params.length; i++)
			counts[run_test(test, (char *)params.params + i * params.size)]++;
		if (params.cleanup)
			params.cleanup(&params);
	}
	printf("[====] Synthesis: Tested: %u | Passing: %u | Failing: %u | Crashing: 0 | Skipped: %u\n",
	       counts[PASSED] + counts[FAILED], counts[PASSED], counts[FAILED], counts[SKIPPED]);
	return counts[FAILED] || !(counts[PASSED] + counts[SKIPPED]);
}
