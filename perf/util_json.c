/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * util_json.c - results for programs
 *
 * json-c prints a double with 17 digits and may use an exponent; a figure is given its digits
 * here instead, so that what is printed is as precise as what was measured.
 */
#include <math.h>

#include "perf.h"

void put_u64(struct json_object *object, const char *key, uint64_t value)
{
	json_object_object_add(object, key, json_object_new_uint64(value));
}

void put_bool(struct json_object *object, const char *key, bool value)
{
	json_object_object_add(object, key, json_object_new_boolean(value));
}

void put_text(struct json_object *object, const char *key, const char *value)
{
	json_object_object_add(object, key, json_object_new_string(value));
}

void put_real(struct json_object *object, const char *key, double value, int digits)
{
	char text[64];

	if (!isfinite(value)) {
		json_object_object_add(object, key, NULL);
		return;
	}
	if (snprintf(text, sizeof(text), "%.*f", digits, value) >= (int)sizeof(text))
		die("%s: %g has too many digits to print", key, value);
	json_object_object_add(object, key, json_object_new_double_s(value, text));
}

struct json_object *put_object(struct json_object *object, const char *key)
{
	struct json_object *child = json_object_new_object();

	json_object_object_add(object, key, child);
	return child;
}

struct json_object *put_array(struct json_object *object, const char *key)
{
	struct json_object *child = json_object_new_array();

	json_object_object_add(object, key, child);
	return child;
}

struct json_object *append_object(struct json_object *array)
{
	struct json_object *child = json_object_new_object();

	json_object_array_add(array, child);
	return child;
}

void print_json(struct json_object *object)
{
	puts(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY |
					    JSON_C_TO_STRING_NOSLASHESCAPE | JSON_C_TO_STRING_SPACED));
	json_object_put(object);
	if (fflush(stdout) || ferror(stdout))
		die("cannot write to standard output");
}
