/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_APPROX_H
#define GODWIT_APPROX_H

/*
 * log2 and exp2 to four digits: predictions are no better than that, and nobody need link libm for them.
 */
#include <stdint.h>
#include <string.h>

static inline float godwit_clampf(float x, float low, float high)
{
	return x < low ? low : x > high ? high : x;
}

/* x must be normal and above 0. log2(m) = 2 / ln 2 * atanh((m - 1) / (m + 1)), four terms. */
static inline float godwit_log2f(float x)
{
	uint32_t bits;
	float t, t2;
	int exponent;

	memcpy(&bits, &x, sizeof(bits));
	exponent = (int)(bits >> 23) - 127;
	bits = (bits & 0x7fffff) | 0x3f800000;
	memcpy(&x, &bits, sizeof(x));
	t = (x - 1) / (x + 1);
	t2 = t * t;
	return (float)exponent +
	       2.885390f * t * (1 + t2 * (1 / 3.0f + t2 * (1 / 5.0f + t2 * (1 / 7.0f))));
}

/* x is clamped to -100..100. Taylor series of 2^fraction, six terms. */
static inline float godwit_exp2f(float x)
{
	int whole;
	uint32_t bits;
	float f, scale;

	x = godwit_clampf(x, -100, 100);
	whole = (int)x - (x < 0);
	f = x - (float)whole;
	bits = (uint32_t)(whole + 127) << 23;
	memcpy(&scale, &bits, sizeof(scale));
	return scale * (1 + f * (0.6931472f + f * (0.2402265f + f * (0.0555041f + f * (0.0096181f +
			f * 0.0013334f)))));
}

#endif
