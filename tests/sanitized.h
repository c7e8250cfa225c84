/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_TEST_SANITIZED_H
#define GODWIT_TEST_SANITIZED_H

/*
 * sanitized.h - IS_SANITIZED is defined where a sanitizer replaces malloc() and makes atomics dear
 *
 * gcc says it by a macro, clang 14 by a feature.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define IS_SANITIZED 1
#endif
#endif

#endif
