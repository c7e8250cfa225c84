/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_COMMON_H
#define GODWIT_COMMON_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(GODWIT_BUILD)
#define GODWIT_API __attribute__((visibility("default")))
#else
#define GODWIT_API
#endif

/* The page and the line are fixed: a peer with other sizes is refused in the stream header. */
#define GODWIT_PAGE_BYTES 4096u
#define GODWIT_LINE_BYTES 64u
#define GODWIT_PAGE_LINES (GODWIT_PAGE_BYTES / GODWIT_LINE_BYTES)

/* Pages in one batch, and so in one frame. */
#define GODWIT_BATCH_PAGES 64u

/* RAM blocks of one guest; a block id is below this. */
#define GODWIT_MAX_BLOCKS 1024u

/* Threads of one source or destination. */
#define GODWIT_MAX_WORKERS 256u

/*
 * Errors. A function that can fail for a reason of the world returns 0 or -errno and, when it was
 * given a struct godwit_error, one readable line that says what to do about it. -EBADMSG always
 * means that the other host's bytes were wrong.
 */
struct godwit_error {
	char text[256];
};

/*
 * Logging. The library prints nothing; it calls this, if it was given, at set-up, tear-down and when
 * it had to choose something smaller than asked. Called from the thread that made the API call.
 */
enum godwit_log_level {
	GODWIT_LOG_ERROR = 0,
	GODWIT_LOG_WARN = 1,
	GODWIT_LOG_INFO = 2,
};

typedef void (*godwit_log_fn)(void *user, enum godwit_log_level level, const char *line);

/* The library's version, "MAJOR.MINOR.PATCH". Static storage. */
GODWIT_API const char *godwit_version(void);

#ifdef __cplusplus
}
#endif
#endif
