/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rung.c - rungs by name
 *
 * A name is a codec followed by its level in decimal, without padding: what godwit_rung_name() writes is
 * the one spelling of a rung, except that "lz4:1" is read as "lz4". snprintf() and strtol() stay
 * outside, as both read the locale of the host process.
 */
#include <string.h>

#include "codecs/codecs.h"

static const struct family {
	const char *name;
	int8_t min_level;
	int8_t max_level;
	bool zero_is_a_level;
} families[GODWIT_CODECS] = {
	[GODWIT_CODEC_NONE] = { "none", 0, 0, true },
	[GODWIT_CODEC_LZ4] = { "lz4", 1, 65, false },
	[GODWIT_CODEC_ZSTD] = { "zstd", -20, 19, false },
	[GODWIT_CODEC_ZLIB] = { "zlib", 1, 9, false },
};

bool godwit_rung_is_valid(struct godwit_rung rung)
{
	const struct family *family;

	if (rung.codec >= GODWIT_CODECS)
		return false;
	family = &families[rung.codec];
	if (rung.level < family->min_level || rung.level > family->max_level)
		return false;
	return rung.level || family->zero_is_a_level;
}

/* At most two digits, none of them a leading zero. */
static bool parse_level(const char *text, int8_t *level_ret)
{
	bool negative = *text == '-';
	int level = 0;

	text += negative;
	if (*text < '1' || *text > '9')
		return false;
	for (unsigned i = 0; text[i]; i++) {
		if (i == 2 || text[i] < '0' || text[i] > '9')
			return false;
		level = 10 * level + (text[i] - '0');
	}
	*level_ret = (int8_t)(negative ? -level : level);
	return true;
}

static bool parse_fixed(const char *name, struct godwit_rung *rung_ret)
{
	struct godwit_rung rung = { 0 };
	const char *text = NULL;

	for (unsigned i = 0; i < GODWIT_CODECS; i++) {
		size_t len = strlen(families[i].name);

		if (!strncmp(name, families[i].name, len)) {
			rung.codec = (uint8_t)i;
			text = name + len;
			break;
		}
	}
	if (!text)
		return false;
	if (rung.codec == GODWIT_CODEC_NONE) {
		if (*text)
			return false;
	} else if (rung.codec == GODWIT_CODEC_LZ4 && !*text) {
		rung.level = 1;
	} else {
		if (rung.codec == GODWIT_CODEC_LZ4 && *text++ != ':')
			return false;
		if (!parse_level(text, &rung.level))
			return false;
	}
	if (!godwit_rung_is_valid(rung))
		return false;
	*rung_ret = rung;
	return true;
}

bool godwit_rung_parse(const char *name, struct godwit_rung *rung_ret, bool *is_auto_ret)
{
	if (!name || !strcmp(name, "auto")) {
		*is_auto_ret = true;
		return true;
	}
	if (!parse_fixed(name, rung_ret))
		return false;
	*is_auto_ret = false;
	return true;
}

void godwit_rung_name(struct godwit_rung rung, char name_ret[16])
{
	char *out = name_ret;
	int level = rung.level;

	if (!godwit_rung_is_valid(rung)) {
		memcpy(name_ret, "?", 2);
		return;
	}
	out = stpcpy(out, families[rung.codec].name);
	if (rung.codec == GODWIT_CODEC_LZ4 && level > 1)
		*out++ = ':';
	else if (rung.codec == GODWIT_CODEC_LZ4)
		level = 0;	/* the plain one has no number */
	if (level < 0) {
		*out++ = '-';
		level = -level;
	}
	if (level >= 10)
		*out++ = (char)('0' + level / 10);
	if (level)
		*out++ = (char)('0' + level % 10);
	*out = 0;
}
