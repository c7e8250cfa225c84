/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_DECODER_H
#define GODWIT_DECODER_H

#include <godwit/batch.h>

#include "engine/counters.h"
#include "engine/memory.h"

/* What a worker needs of a decoder beside include/godwit/batch.h. */

int godwit_decoder_create_in(struct godwit_arena *arena, const struct godwit_ram *ram,
			     struct godwit_decoder **decoder_ret);

void godwit_decoder_destroy_in(struct godwit_decoder *decoder);

/* As godwit_decode(), without its clock. */
int godwit_decoder_run(struct godwit_decoder *decoder, const void *frame, size_t frame_bytes,
		       struct godwit_error *error);

struct godwit_counters *godwit_decoder_counters(struct godwit_decoder *decoder);

#endif
