/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * migrate_switchover.c - the vCPUs stop, the rest goes, every page is compared, the guest runs there
 *
 * The guest belongs to the source until it has sent RESUME. After it, the source never runs the guest
 * again.
 */
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "migrate_source.h"

/* For tests: the page whose loss shows most surely, the one written to most since it was last sent. */
static int choose_spoil(struct source_run *run)
{
	uint64_t most = 0;

	for (uint64_t page = dirty_bitmap_next(&run->bitmap, 0, run->guest.pages); page < run->guest.pages;
	     page = dirty_bitmap_next(&run->bitmap, page + 1, run->guest.pages)) {
		const uint64_t *live = (const uint64_t *)guest_page(&run->guest, page);
		const uint64_t *before = (const uint64_t *)(run->shadow + page * GODWIT_PAGE_BYTES);

		/* Pages with a head: the number, then the generation. */
		if (live[0] == before[0] && live[1] == run->guest.truth[page].generation &&
		    live[1] - before[1] > most && live[1] > before[1]) {
			most = live[1] - before[1];
			run->spoil = page;
		}
	}
	return most ? 0 : fail(run->failure, "no page in the last round to spoil");
}

static int send_registers(struct source_run *run)
{
	struct vcpu_regs regs[WORKLOAD_MAX_VCPUS];
	uint32_t vcpus = run->options->workload.vcpus;

	for (unsigned n = 0; n < vcpus; n++)
		regs[n] = *workload_regs(run->workload, n);
	return control_send(&run->control, CONTROL_REGS, regs, vcpus * sizeof(regs[0]), run->failure);
}

/* What the kernel says that it has put on the wire, without what it sent again. */
static uint64_t kernel_bytes(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t length = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0 ||
	    length < offsetof(struct tcp_info, tcpi_bytes_retrans) + sizeof(info.tcpi_bytes_retrans))
		return 0;
	return info.tcpi_bytes_sent - info.tcpi_bytes_retrans;
}

void source_take_counts(struct source_run *run)
{
	struct outcome *o = run->outcome;

	o->frame_bytes = run->link.frame_bytes;
	o->page_bytes = run->link.page_bytes;
	o->head_bytes = run->link.head_bytes;
	o->socket_bytes = atomic_load_explicit(&run->link.socket_bytes, memory_order_relaxed);
	o->sendmsg_calls = run->link.calls;
	if (run->source)
		godwit_source_stats(run->source, &o->stats);
}

static int add_up(struct source_run *run, const struct applied *applied)
{
	struct outcome *o = run->outcome;
	uint64_t made;

	source_take_counts(run);
	o->received_bytes = applied->received_bytes;
	o->kernel_bytes = kernel_bytes(run->link.fd);
	made = o->frame_bytes + o->page_bytes + o->head_bytes;
	o->bytes_add_up = made == o->socket_bytes && made == o->received_bytes &&
			  applied->frame_bytes == o->frame_bytes &&
			  applied->raw_pages == run->link.raw_pages &&
			  applied->zero_pages == run->link.zero_pages &&
			  (!o->kernel_bytes || o->kernel_bytes == made) &&
			  (!run->source || (o->stats.wire_bytes == o->frame_bytes &&
					    o->stats.busy == run->link.raw_pages));
	if (o->bytes_add_up)
		return 0;
	return fail(run->failure, "the bytes do not add up: the library counts %llu, frames had %llu, with pages "
		    "and heads %llu, the socket took %llu, the kernel says %llu, %llu arrived",
		    (unsigned long long)o->stats.wire_bytes, (unsigned long long)o->frame_bytes,
		    (unsigned long long)made, (unsigned long long)o->socket_bytes,
		    (unsigned long long)o->kernel_bytes, (unsigned long long)o->received_bytes);
}

static int send_rest(struct source_run *run, struct applied *applied)
{
	struct round_record *record;
	int err;

	run->dirtied = 0;
	err = source_scan(run, 0, run->guest.pages);
	source_show_remaining(run);
	if (!err && run->shadow)
		err = choose_spoil(run);
	err = err ? err : send_registers(run);
	err = err ? err : source_send_round(run, true);
	err = err ? err : link_send_mark(&run->link, LINK_END, run->outcome->rounds, run->failure);
	record = &run->outcome->round[run->outcome->rounds - 1];
	record->dirtied = run->dirtied;
	err = err ? err : control_expect(&run->control, CONTROL_APPLIED, sizeof(*applied), 0, true,
					 run->failure);
	if (!err)
		memcpy(applied, run->control.buffer, sizeof(*applied));
	return err;
}

/* Digests of all pages as they stand still, and the truth; the destination compares as they come. */
static int send_digests(struct source_run *run)
{
	struct page_digest *list = malloc(DIGEST_PAGES * sizeof(*list));
	int err = list ? 0 : fail(run->failure, "no memory");

	for (uint64_t first = 0; first < run->guest.pages && !err; first += DIGEST_PAGES) {
		uint64_t left = run->guest.pages - first;
		struct digests digests = { first, left < DIGEST_PAGES ? left : DIGEST_PAGES };

		for (uint64_t i = 0; i < digests.pages; i++)
			list[i] = (struct page_digest){
				.xxh3 = page_xxh3(guest_page(&run->guest, first + i)),
				.truth = run->guest.truth[first + i],
			};
		err = control_send2(&run->control, CONTROL_DIGESTS, &digests, sizeof(digests), list,
				    digests.pages * sizeof(*list), run->failure);
	}
	free(list);
	return err;
}

static int verify(struct source_run *run)
{
	struct verified *v = &run->outcome->verified;
	int err = send_digests(run);

	err = err ? err : control_expect(&run->control, CONTROL_VERIFIED, sizeof(*v), 0, true, run->failure);
	if (err)
		return err;
	memcpy(v, run->control.buffer, sizeof(*v));
	v->text[sizeof(v->text) - 1] = '\0';
	if (v->pages != run->guest.pages)
		return fail(run->failure, "only %llu of %llu pages were compared",
			    (unsigned long long)v->pages, (unsigned long long)run->guest.pages);
	if (v->differ || v->stale)
		return fail(run->failure,
			    "verification failed: %llu pages differ by digest, %llu from what was written "
			    "last; the first: %s", (unsigned long long)v->differ,
			    (unsigned long long)v->stale, v->text);
	return 0;
}

static int hand_over(struct source_run *run)
{
	int err = control_send(&run->control, CONTROL_RESUME, NULL, 0, run->failure);

	if (err)
		return err;
	/* From here on it may run there: it must not run here. */
	run->handed_over = true;
	err = control_expect(&run->control, CONTROL_RESUMED, 0, 0, false, run->failure);
	run->outcome->resumed_there = !err;
	return err;
}

/* Up to here; the vCPUs have just stopped, or were never stopped. */
void source_take_rates(struct source_run *run)
{
	double seconds = (double)(now_ns() - run->start_ns) / 1e9;

	run->outcome->write_rate = (double)(workload_writes(run->workload) - run->first_writes) / seconds;
	run->outcome->thread_cpu_ns = thread_cpu_ns() - run->first_cpu_ns;
}

int source_stop_and_copy(struct source_run *run)
{
	struct outcome *o = run->outcome;
	struct applied applied;
	uint64_t stopped, arrived, compared;
	int err;

	source_show_phase(run, PHASE_STOP);
	stopped = now_ns();
	workload_pause(run->workload);
	o->pause_call_ns = now_ns() - stopped;
	source_take_rates(run);
	err = send_rest(run, &applied);
	if (err)
		return err;
	arrived = now_ns();
	o->downtime_ns = arrived - stopped;
	o->thread_cpu_ns = thread_cpu_ns() - run->first_cpu_ns;
	err = add_up(run, &applied);
	if (err)
		return err;
	source_show_phase(run, PHASE_VERIFY);
	err = verify(run);
	compared = now_ns();
	o->verify_ns = compared - arrived;
	err = err ? err : hand_over(run);
	o->paused_ns = now_ns() - stopped;
	o->total_ns = now_ns() - run->start_ns;
	return err;
}

int source_wait_for_done(struct source_run *run)
{
	struct done *done = &run->outcome->done;
	int err;

	source_show_phase(run, PHASE_RESUMED);
	err = control_expect(&run->control, CONTROL_DONE, sizeof(*done),
			     run->options->verify_ns + run->options->stall_ns, false, run->failure);
	if (err)
		return err;
	memcpy(done, run->control.buffer, sizeof(*done));
	done->text[sizeof(done->text) - 1] = '\0';
	source_show_phase(run, PHASE_ENDED);
	return done->wrong ? fail(run->failure, "the workload found %llu wrong pages at the destination; "
				  "the first: %s", (unsigned long long)done->wrong, done->text) : 0;
}
