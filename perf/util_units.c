/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * util_units.c - numbers with units, in and out
 *
 * One grammar: a decimal number, which may have a point; a prefix K M G T (any case), which is 1024-based
 * when followed by i, or when it stands alone after a size; a unit. A link is told in powers of
 * ten and memory in powers of two, as everybody else does, and a bandwidth of "1G" is refused rather
 * than guessed: bits or bytes is a factor of eight.
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "perf.h"

/* The leading number; *rest_ret is what follows it. No sign, exponent, hex, infinity or NaN. */
static bool read_number(const char *text, double *value_ret, const char **rest_ret)
{
	size_t len = strspn(text, "0123456789.");
	char digits[32];
	char *end;

	if (!len || len >= sizeof(digits) || !strcmp(text, "."))
		return false;
	memcpy(digits, text, len);
	digits[len] = '\0';
	*value_ret = strtod(digits, &end);
	*rest_ret = text + len;
	return !*end;
}

/* K M G T as a power: 1 to 4, 0 for none. */
static int read_prefix(const char **text)
{
	static const char letters[] = "KMGT";
	const char *found = **text ? strchr(letters, toupper((unsigned char)**text)) : NULL;

	if (!found)
		return 0;
	(*text)++;
	return (int)(found - letters) + 1;
}

uint64_t parse_number(const char *option, const char *text, uint64_t min, uint64_t max)
{
	char *end;

	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || errno || value < min || value > max)
		usage_error("--%s %s: a number from %llu to %llu is needed", option, text,
			    (unsigned long long)min, (unsigned long long)max);
	return value;
}

uint64_t parse_size_bytes(const char *option, const char *text)
{
	const char *rest = text;
	double value = 0;

	if (read_number(text, &value, &rest)) {
		int power = read_prefix(&rest);
		double base = !*rest || (power && !strcasecmp(rest, "iB")) ? 1024 :
			      !strcasecmp(rest, "B") ? 1000 : 0;

		value *= pow(base, power);
		if (base != 0 && value < 0x1p63)
			return (uint64_t)value;
	}
	usage_error("--%s %s: a size is a number and K, M, G or T (KiB and so on mean the same, KB is 1000), "
		    "such as 512M", option, text);
}

uint64_t parse_bandwidth(const char *option, const char *text)
{
	const char *rest = text;
	double value = 0;

	if (!strcmp(text, "unlimited"))
		return 0;
	if (read_number(text, &value, &rest)) {
		int power = read_prefix(&rest);
		double base = power && tolower((unsigned char)*rest) == 'i' ? 1024 : 1000;
		size_t len;
		double unit = 0;

		rest += base == 1024;
		len = strlen(rest);
		if (len >= 2 && !strcmp(rest + len - 2, "/s"))
			len -= 2;
		if (len == 3 && !strncasecmp(rest, "bit", 3))
			unit = 1.0 / 8;
		else if ((len == 1 && *rest == 'B') || (!len && !power))
			unit = 1;	/* a plain number is bytes per second */
		value *= unit * pow(base, power);
		if (unit != 0 && value < 0x1p53 && (value >= 1 || value == 0))
			return (uint64_t)value;
	}
	usage_error("--%s %s: a bandwidth is a number, K, M, G or T, and bit or B (bytes), each per second: "
		    "1Gbit, 125MB; 0 is no limit", option, text);
}

uint64_t parse_duration_ns(const char *option, const char *text)
{
	static const struct { const char *unit; double ns; } units[] = {
		{ "ns", 1 }, { "us", 1e3 }, { "ms", 1e6 }, { "s", 1e9 }, { "min", 60e9 },
	};
	const char *rest = text;
	double value = 0;

	if (read_number(text, &value, &rest)) {
		if (!*rest && value == 0)
			return 0;
		for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
			if (!strcmp(rest, units[i].unit) && value * units[i].ns < 0x1p63)
				return (uint64_t)(value * units[i].ns);
	}
	usage_error("--%s %s: a time is a number and ns, us, ms, s or min, such as 300ms", option, text);
}

const char *format_bytes(char *text, double bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	unsigned i = 0;

	for (; bytes >= 1024 && i < 4; i++)
		bytes /= 1024;
	snprintf(text, UNIT_TEXT, "%.*f %s", i ? 2 : 0, bytes, units[i]);
	return text;
}

const char *format_bandwidth(char *text, double bytes_per_s)
{
	static const char *const units[] = { "bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s" };
	double bits = bytes_per_s * 8;
	unsigned i = 0;

	for (; bits >= 1000 && i < 4; i++)
		bits /= 1000;
	snprintf(text, UNIT_TEXT, "%.*f %s", bits < 10 ? 2 : bits < 100 ? 1 : 0, bits, units[i]);
	return text;
}

const char *format_duration(char *text, double ns)
{
	if (ns < 1e3)
		snprintf(text, UNIT_TEXT, "%.0f ns", ns);
	else if (ns < 1e6)
		snprintf(text, UNIT_TEXT, "%.1f us", ns / 1e3);
	else if (ns < 1e9)
		snprintf(text, UNIT_TEXT, "%.1f ms", ns / 1e6);
	else if (ns < 120e9)
		snprintf(text, UNIT_TEXT, "%.2f s", ns / 1e9);
	else
		snprintf(text, UNIT_TEXT, "%.1f min", ns / 60e9);
	return text;
}
