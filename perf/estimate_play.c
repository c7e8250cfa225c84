/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* estimate_play.c - a migration on a link, played through with what was measured */
#include <math.h>

#include "estimate.h"

#define MAX_ROUNDS 100

void dirtying_fit(struct dirtying *dirtying, const struct memory *memory)
{
	double scale = (double)memory->whole_pages / (double)memory->pages;
	double late = (double)memory->dirty * scale, early = (double)memory->dirty_early * scale;

	*dirtying = (struct dirtying){ .whole_pages = (double)memory->whole_pages };
	if (!(memory->interval_ns > 0) || !(late > 0))
		return;
	dirtying->pages_per_ns = late / memory->interval_ns;
	if (!(memory->early_ns > 0) || !(early > 0))
		return;

	double n = memory->interval_ns / memory->early_ns, slowing = late / early;

	if (slowing >= n * 0.98)
		return;		/* no sign of a working set: a line */
	/* (1 - x^n) / (1 - x) = slowing, x = exp(-early / tau): grows with x from 1 to n. */
	double low = 0, high = 1;

	for (int i = 0; i < 60; i++) {
		double x = (low + high) / 2;

		if ((1 - pow(x, n)) / (1 - x) < slowing)
			low = x;
		else
			high = x;
	}
	if (low < 1e-6)
		low = 1e-6;	/* nothing new after the early reading */
	dirtying->tau_ns = -memory->early_ns / log(low);
	dirtying->set_pages = late / (1 - pow(low, n));
	dirtying->pages_per_ns = dirtying->set_pages / dirtying->tau_ns;
}

static double dirty_after(const struct dirtying *dirtying, double ns)
{
	double pages = dirtying->tau_ns > 0 ? dirtying->set_pages * (1 - exp(-ns / dirtying->tau_ns)) :
		       dirtying->pages_per_ns * ns;

	return pages < dirtying->whole_pages ? pages : dirtying->whole_pages;
}

static double pass_ns(double pages, const struct pass *pass, double bytes_per_s, unsigned workers)
{
	double wire_ns = pages * pass->bytes / bytes_per_s * 1e9;
	double cpu_ns = pages * pass->encode_ns / workers, apply_ns = pages * pass->decode_ns / workers;

	return fmax(wire_ns, fmax(cpu_ns, apply_ns));
}

struct outcome play(const struct rung_cost *cost, const struct dirtying *dirtying, uint64_t bytes_per_s,
		    const struct setup *setup)
{
	double link = (double)bytes_per_s, last_ns;
	struct outcome outcome = { 0 };

	last_ns = pass_ns(dirtying->whole_pages, &cost->first, link, setup->workers);
	outcome.first_ns = outcome.total_ns = last_ns;
	outcome.wire_bytes = dirtying->whole_pages * cost->first.bytes;
	for (; outcome.rounds < MAX_ROUNDS; outcome.rounds++) {
		double dirty = dirty_after(dirtying, last_ns);
		double next_ns = pass_ns(dirty, &cost->again, link, setup->workers);

		outcome.downtime_ns = next_ns;
		if (next_ns <= (double)setup->downtime_ns) {
			outcome.converges = true;
			outcome.total_ns += next_ns;
			outcome.wire_bytes += dirty * cost->again.bytes;
			return outcome;
		}
		if (outcome.rounds && next_ns > 0.99 * last_ns)
			return outcome;		/* no rest gets smaller any more */
		outcome.total_ns += next_ns;
		outcome.wire_bytes += dirty * cost->again.bytes;
		last_ns = next_ns;
	}
	return outcome;
}

struct rung_cost raw_cost(const struct memory *memory)
{
	double non_zero = 1 - (double)memory->zero / (double)memory->pages;

	return (struct rung_cost){ .first.bytes = 8 + non_zero * GODWIT_PAGE_BYTES,
				   .again.bytes = memory->dirty ? 8 + GODWIT_PAGE_BYTES : 0 };
}

struct choice best_rung(const struct rung_cost *cost, const struct dirtying *dirtying, uint64_t bytes_per_s,
			const struct setup *setup)
{
	struct choice best = { 0 };

	for (unsigned i = 0; i < godwit_ladder_rungs; i++) {
		struct outcome o = play(&cost[i], dirtying, bytes_per_s, setup);
		bool is_better = o.converges != best.outcome.converges ? o.converges :
				 o.converges ? o.total_ns < best.outcome.total_ns :
					       o.downtime_ns < best.outcome.downtime_ns;

		if (!i || is_better)
			best = (struct choice){ i, o };
	}
	return best;
}
