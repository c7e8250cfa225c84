/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* version.c - the one symbol that belongs to no concept */
#include <godwit/common.h>

const char *godwit_version(void)
{
	return GODWIT_VERSION;
}
