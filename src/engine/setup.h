/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_SETUP_H
#define GODWIT_SETUP_H

#include <stdbool.h>
#include <pthread.h>

#include <godwit/params.h>

#include "codecs/codecs.h"
#include "engine/memory.h"

/*
 * setup.h - the parameters in force, and how they change while pages flow
 *
 * A setup is read-only once published. Whoever reads copies it inside an RCU read section, which is a
 * handful of instructions, so that a change needs no lock on the way of a page and the old setup can be
 * given back as soon as the change is published.
 */
struct godwit_setup {
	struct godwit_rung rung;	/* unless is_auto */
	bool is_auto;
	uint32_t workers;		/* never 0 */
	uint32_t when_busy;
	uint32_t base;
	uint64_t base_bytes;
};

/* Parameters as a caller of any age gave them -> setup; -EINVAL or -E2BIG with the reason. */
int godwit_setup_parse(const struct godwit_params *params, struct godwit_setup *setup_ret,
		       struct godwit_error *error);

struct godwit_setup_box {
	struct godwit_setup *current;	/* RCU: publish and read only */
	pthread_mutex_t change;		/* one publish at a time */
	struct godwit_arena *arena;
};

int godwit_setup_box_init(struct godwit_setup_box *box, struct godwit_arena *arena,
			  const struct godwit_setup *setup);
void godwit_setup_box_fini(struct godwit_setup_box *box);

/* From any thread; waits until nobody reads the old one. 0 or -ENOMEM, and then nothing changed. */
int godwit_setup_publish(struct godwit_setup_box *box, const struct godwit_setup *setup);

/* From any thread. */
struct godwit_setup godwit_setup_read(const struct godwit_setup_box *box);

#endif
