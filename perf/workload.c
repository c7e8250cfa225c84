/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * workload.c - vCPU threads that run something real in guest RAM, and check it
 *
 * Guest RAM is dealt out in runs of 64 pages: the runs are shuffled by the seed, then each class of
 * page takes its share, and within a class each vCPU its part. A page has one owner, so a vCPU needs
 * no lock for a page and its truth, and the page it checks is never half written.
 *
 * Time in the guest goes by ticks of a millisecond. A vCPU owes its share of the write rate each tick
 * and is paused only between operations; late ticks are dropped after a while, or a paused guest would
 * come back with a burst that it never asked for.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "workload_private.h"
#include "xbzrle/xbzrle.h"

#define RUN_PAGES 64u
#define TICK_NS 1000000u
#define LATE_TICKS 20u
#define UNPACED_WRITES 256u		/* a tick's worth when there is no rate */
#define BURST_TICKS 256u		/* from burst to burst */
#define WRITES_PER_CHECK 16u
#define SAMPLE_BYTES (64u << 10)

const char *const workload_names[WORKLOAD_KINDS] = { "mix", "store", "sweep", "burst" };

/* Per cent of guest RAM. The rest, if rounding leaves any, is free memory. */
static const unsigned share[PAGE_CLASSES] = {
	[PAGE_ZERO] = 15, [PAGE_FILL] = 2, [PAGE_BINARY] = 20, [PAGE_INDEX] = 1,
	[PAGE_RECORDS] = 43, [PAGE_NUMBERS] = 15, [PAGE_TOGGLE] = 2, [PAGE_BLINK] = 2,
};

/* Per cent of the working set. A little is overwritten whole: real guests have that too. */
static const unsigned active_share[PAGE_CLASSES] = {
	[PAGE_RECORDS] = 70, [PAGE_NUMBERS] = 25, [PAGE_BINARY] = 5,
};

/* ---- layout ---- */

static int deal_runs(struct workload *w)
{
	uint32_t runs = (uint32_t)(w->guest->pages / RUN_PAGES);
	uint32_t *run = malloc(runs * sizeof(*run));
	uint64_t rng = w->config.seed;
	uint32_t next = 0;
	int err = 0;

	if (!run)
		return -ENOMEM;
	for (uint32_t i = 0; i < runs; i++)
		run[i] = i;
	for (uint32_t i = runs - 1; i; i--) {
		uint32_t j = (uint32_t)rng_below(&rng, i + 1), swap = run[i];

		run[i] = run[j];
		run[j] = swap;
	}
	/* PAGE_ZERO comes last and takes what is left. */
	for (unsigned c = 1; c <= PAGE_CLASSES && !err; c++) {
		unsigned class = c % PAGE_CLASSES;

		for (unsigned n = 0; n < w->config.vcpus; n++) {
			struct page_list *list = &w->vcpu[n].list[class];
			uint32_t mine = runs * share[class] / 100 / w->config.vcpus;

			if (class == PAGE_ZERO)
				mine = (runs - next) / (w->config.vcpus - n);
			else if (!mine)
				mine = 1;
			if (mine > runs - next)
				mine = runs - next;
			list->page = malloc((size_t)mine * RUN_PAGES * sizeof(*list->page) + 1);
			if (!list->page) {
				err = -ENOMEM;
				break;
			}
			for (uint32_t i = 0; i < mine * RUN_PAGES; i++) {
				uint32_t page = run[next + i / RUN_PAGES] * RUN_PAGES + i % RUN_PAGES;

				w->class_of[page] = (uint8_t)class;
				list->page[list->count++] = page;
			}
			next += mine;
		}
	}
	free(run);
	return err;
}

static int by_page(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int choose_active(struct workload *w, struct vcpu *v, char why[WORKLOAD_TEXT])
{
	uint64_t mine = w->config.working_set_pages / w->config.vcpus;

	v->sweep = malloc((mine + PAGE_CLASSES) * sizeof(*v->sweep));
	if (!v->sweep)
		return -ENOMEM;
	for (unsigned c = 0; c < PAGE_CLASSES; c++) {
		struct page_list *list = &v->list[c];
		uint64_t active = mine * active_share[c] / 100;

		if (active > list->count) {
			snprintf(why, WORKLOAD_TEXT,
				 "a working set of %llu pages is too large: this guest can write to %llu",
				 (unsigned long long)w->config.working_set_pages,
				 (unsigned long long)(w->guest->pages * 58 / 100));
			return -EINVAL;
		}
		list->active = (uint32_t)active;
		for (uint32_t i = 0; i < list->count; i++)
			w->owner_index[list->page[i]] = i;
		memcpy(v->sweep + v->sweep_count, list->page, active * sizeof(*v->sweep));
		v->sweep_count += list->active;
	}
	qsort(v->sweep, v->sweep_count, sizeof(*v->sweep), by_page);
	if (!v->sweep_count || store_init(v)) {
		snprintf(why, WORKLOAD_TEXT, "a working set of %llu pages is too small",
			 (unsigned long long)w->config.working_set_pages);
		return -EINVAL;
	}
	return 0;
}

int workload_init(struct workload **workload_ret, struct guest *guest,
		  const struct workload_config *config, char why[WORKLOAD_TEXT])
{
	struct workload *w;
	pthread_condattr_t monotonic;
	int err;

	snprintf(why, WORKLOAD_TEXT, "wrong number of vCPUs or kind of workload, or too little RAM");
	if (!config->vcpus || config->vcpus > WORKLOAD_MAX_VCPUS || config->kind >= WORKLOAD_KINDS ||
	    config->working_set_pages > guest->pages || guest->pages > UINT32_MAX ||
	    config->sparsity_bytes < 8 || guest->pages < RUN_PAGES * 32 * config->vcpus)
		return -EINVAL;
	snprintf(why, WORKLOAD_TEXT, "no memory for the workload");
	w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->config = *config;
	w->guest = guest;
	w->paused = true;
	atomic_init(&w->interrupt, true);
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&w->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	w->class_of = calloc(guest->pages, sizeof(*w->class_of));
	w->owner_index = calloc(guest->pages, sizeof(*w->owner_index));
	err = w->class_of && w->owner_index ? deal_runs(w) : -ENOMEM;
	for (unsigned n = 0; n < config->vcpus && !err; n++) {
		struct vcpu *v = &w->vcpu[n];

		v->workload = w;
		v->number = n;
		v->regs.rng = config->seed * 31 + n;
		err = choose_active(w, v, why);
	}
	if (err) {
		workload_destroy(w);
		return err;
	}
	*workload_ret = w;
	return 0;
}

void workload_destroy(struct workload *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	atomic_store_explicit(&w->interrupt, true, memory_order_relaxed);
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	for (unsigned n = 0; n < w->used_vcpus; n++)
		pthread_join(w->vcpu[n].thread, NULL);
	for (unsigned n = 0; n < w->config.vcpus; n++) {
		for (unsigned c = 0; c < PAGE_CLASSES; c++)
			free(w->vcpu[n].list[c].page);
		free(w->vcpu[n].sweep);
	}
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	free(w->owner_index);
	free(w->class_of);
	free(w);
}

static void *fill_part(void *argument)
{
	struct vcpu *v = argument;
	struct workload *w = v->workload;
	uint64_t rng = w->config.seed ^ (v->number + 1) * 0x9e3779b97f4a7c15u;

	for (unsigned c = 0; c < PAGE_CLASSES; c++)
		for (uint32_t i = 0; i < v->list[c].count; i++)
			page_fill(w, v, c, v->list[c].page[i], &rng);
	store_fill(w, v);
	for (unsigned c = 0; c < PAGE_CLASSES; c++)
		for (uint32_t i = 0; i < v->list[c].count && c != PAGE_ZERO; i++) {
			uint32_t page = v->list[c].page[i];

			w->guest->truth[page] = (struct guest_truth){
				.generation = 1, .sum = guest_sum(guest_page(w->guest, page)),
			};
		}
	return NULL;
}

void workload_fill(struct workload *w)
{
	pthread_t thread[WORKLOAD_MAX_VCPUS];
	bool made[WORKLOAD_MAX_VCPUS] = { false };

	for (unsigned n = 0; n < w->config.vcpus; n++) {
		made[n] = !pthread_create(&thread[n], NULL, fill_part, &w->vcpu[n]);
		if (!made[n])
			fill_part(&w->vcpu[n]);
	}
	for (unsigned n = 0; n < w->config.vcpus; n++)
		if (made[n])
			pthread_join(thread[n], NULL);
}

/* ---- operations ---- */

static void touch(struct workload *w, struct vcpu *v, uint64_t page)
{
	if (w->class_of[page] == PAGE_RECORDS)
		store_touch(w, v, page);
	else
		page_touch(w, v, w->class_of[page], page);
}

static void sweep(struct workload *w, struct vcpu *v)
{
	touch(w, v, v->sweep[v->regs.sweep_at]);
	if (++v->regs.sweep_at == v->sweep_count)
		v->regs.sweep_at = 0;
}

static void burst(struct workload *w, struct vcpu *v)
{
	if (v->regs.burst_left % RUN_PAGES == 0)
		v->regs.burst_at = rng_below(&v->regs.rng, v->sweep_count);
	touch(w, v, v->sweep[v->regs.burst_at]);
	v->regs.burst_at = (v->regs.burst_at + 1) % v->sweep_count;
	v->regs.burst_left--;
}

static void blink(struct workload *w, struct vcpu *v)
{
	static const enum page_class classes[4] = { PAGE_TOGGLE, PAGE_BLINK, PAGE_TOGGLE, PAGE_FILL };
	enum page_class class = classes[v->regs.blink_at++ % 4];
	struct page_list *list = &v->list[class];

	/* A small set of them, so that many return to A between two looks. */
	page_touch(w, v, class, list->page[rng_below(&v->regs.rng, list->count)]);
}

static void operate(struct workload *w, struct vcpu *v)
{
	uint64_t dice = rng_below(&v->regs.rng, 100);

	if (dice < 2)
		blink(w, v);
	else if (v->regs.burst_left)
		burst(w, v);
	else if (w->config.kind == WORKLOAD_STORE || (w->config.kind == WORKLOAD_MIX && dice < 60))
		store_update(w, v);
	else
		sweep(w, v);
}

static void check_next(struct workload *w, struct vcpu *v)
{
	char text[WORKLOAD_TEXT];
	uint64_t at = v->regs.check_at++;
	unsigned class = 0;

	while (class < PAGE_CLASSES && at >= v->list[class].count)
		at -= v->list[class++].count;
	if (class == PAGE_CLASSES) {
		v->regs.check_at = 0;
		return;
	}
	v->regs.checks++;
	if (!workload_check(w, v->list[class].page[at], text) && !v->regs.errors++)
		memcpy(v->text, text, sizeof(text));
}

/* What a tick is due, in writes. Bursts save up, then spend at once. */
static uint64_t due(struct workload *w, struct vcpu *v)
{
	uint64_t rate = w->config.writes_per_s / w->config.vcpus, writes;

	if (!rate)
		return UNPACED_WRITES;
	/* In the mix, a tenth is kept for the bursts. */
	v->regs.owed_milli += w->config.kind == WORKLOAD_MIX ? rate * 9 / 10 : rate;
	if (v->regs.ticks % BURST_TICKS == BURST_TICKS - 1) {
		if (w->config.kind == WORKLOAD_BURST)
			v->regs.burst_left = v->regs.owed_milli / 1000;
		else if (w->config.kind == WORKLOAD_MIX)
			v->regs.burst_left = rate * BURST_TICKS / 10000;
	}
	if (w->config.kind == WORKLOAD_BURST && !v->regs.burst_left)
		return 0;
	writes = v->regs.owed_milli / 1000;
	return writes > v->regs.burst_left ? writes : v->regs.burst_left;
}

static bool interrupted(const struct workload *w)
{
	/* Relaxed: only a hint to look under the lock. */
	return atomic_load_explicit(&w->interrupt, memory_order_relaxed);
}

static void show(struct vcpu *v)
{
	/* Relaxed: figures for a progress line. */
	atomic_store_explicit(&v->writes_shown, v->regs.writes, memory_order_relaxed);
	atomic_store_explicit(&v->checks_shown, v->regs.checks, memory_order_relaxed);
}

static void run_tick(struct workload *w, struct vcpu *v)
{
	uint64_t first = v->regs.writes, writes = due(w, v);

	while (v->regs.writes - first < writes && !interrupted(w)) {
		operate(w, v);
		if (v->regs.errors)
			break;	/* a lost key writes nothing: no endless loop on a damaged store */
	}
	uint64_t paid = (v->regs.writes - first) * 1000;

	v->regs.owed_milli -= paid < v->regs.owed_milli ? paid : v->regs.owed_milli;
	for (uint64_t n = 0; n <= writes / WRITES_PER_CHECK && !interrupted(w); n++)
		check_next(w, v);
	v->regs.ticks++;
	show(v);
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
}

static void *vcpu_main(void *argument)
{
	struct vcpu *v = argument;
	struct workload *w = v->workload;
	uint64_t next = now_ns();
	char name[16];

	snprintf(name, sizeof(name), "vcpu%u", v->number);
	pthread_setname_np(pthread_self(), name);
	pthread_mutex_lock(&w->lock);
	while (!w->stopping) {
		uint64_t now = now_ns();

		if (w->paused) {
			w->standing++;
			pthread_cond_broadcast(&w->changed);
			while (w->paused && !w->stopping)
				pthread_cond_wait(&w->changed, &w->lock);
			w->standing--;
			next = now_ns();
			continue;
		}
		if (now < next && w->config.writes_per_s / w->config.vcpus) {
			struct timespec until = to_timespec(next);

			pthread_cond_timedwait(&w->changed, &w->lock, &until);
			continue;
		}
		pthread_mutex_unlock(&w->lock);
		run_tick(w, v);
		next += TICK_NS;
		if (next + LATE_TICKS * TICK_NS < now)
			next = now;
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

int workload_resume(struct workload *w)
{
	int err = 0;

	pthread_mutex_lock(&w->lock);
	w->paused = false;
	atomic_store_explicit(&w->interrupt, false, memory_order_relaxed);
	pthread_cond_broadcast(&w->changed);
	while (w->used_vcpus < w->config.vcpus && !err) {
		struct vcpu *v = &w->vcpu[w->used_vcpus];

		err = -pthread_create(&v->thread, NULL, vcpu_main, v);
		w->used_vcpus += !err;
	}
	pthread_mutex_unlock(&w->lock);
	return err;
}

void workload_pause(struct workload *w)
{
	pthread_mutex_lock(&w->lock);
	w->paused = true;
	atomic_store_explicit(&w->interrupt, true, memory_order_relaxed);
	pthread_cond_broadcast(&w->changed);
	while (w->standing < w->used_vcpus)
		pthread_cond_wait(&w->changed, &w->lock);
	pthread_mutex_unlock(&w->lock);
}

const struct vcpu_regs *workload_regs(const struct workload *w, unsigned vcpu)
{
	return &w->vcpu[vcpu].regs;
}

bool workload_set_regs(struct workload *w, unsigned vcpu, const struct vcpu_regs *regs)
{
	struct vcpu *v = &w->vcpu[vcpu];

	if (regs->sweep_at >= v->sweep_count || regs->burst_at >= v->sweep_count ||
	    regs->free_first > v->slots || !regs->free_last || regs->free_last > v->slots)
		return false;
	v->regs = *regs;
	return true;
}

uint64_t workload_writes(const struct workload *w)
{
	uint64_t sum = 0;

	for (unsigned n = 0; n < w->config.vcpus; n++)
		sum += atomic_load_explicit(&w->vcpu[n].writes_shown, memory_order_relaxed);
	return sum;
}

uint64_t workload_checks(const struct workload *w)
{
	uint64_t sum = 0;

	for (unsigned n = 0; n < w->config.vcpus; n++)
		sum += atomic_load_explicit(&w->vcpu[n].checks_shown, memory_order_relaxed);
	return sum;
}

/* ---- the checker ---- */

bool workload_check(const struct workload *w, uint64_t page, char text[WORKLOAD_TEXT])
{
	const struct guest_truth *truth = &w->guest->truth[page];
	const struct page_head *head = (const struct page_head *)guest_page(w->guest, page);
	const struct guest_block *block = guest_block_of(w->guest, page);
	unsigned class = w->class_of[page];
	bool stamped = class == PAGE_RECORDS || class == PAGE_NUMBERS;

	if (guest_sum(head) == truth->sum &&
	    (!stamped || (head->page == page_mark(page) && head->generation == truth->generation)))
		return true;
	if (stamped && head->page == page_mark(page) && head->generation != truth->generation)
		snprintf(text, WORKLOAD_TEXT,
			 "block %s page %llu is stale: it holds generation %llu, %llu was written last",
			 block->name, (unsigned long long)(page - block->first),
			 (unsigned long long)head->generation, (unsigned long long)truth->generation);
	else
		snprintf(text, WORKLOAD_TEXT,
			 "block %s page %llu does not hold what was written last (generation %llu)",
			 block->name, (unsigned long long)(page - block->first),
			 (unsigned long long)truth->generation);
	return false;
}

uint64_t workload_check_all(const struct workload *w, char text[WORKLOAD_TEXT])
{
	char other[WORKLOAD_TEXT];
	uint64_t wrong = 0;

	text[0] = '\0';
	for (unsigned n = 0; n < w->config.vcpus; n++) {
		if (w->vcpu[n].regs.errors && !wrong)
			memcpy(text, w->vcpu[n].text, WORKLOAD_TEXT);
		wrong += w->vcpu[n].regs.errors;
	}
	for (uint64_t page = 0; page < w->guest->pages; page++)
		if (!workload_check(w, page, wrong ? other : text))
			wrong++;
	return wrong;
}

/* ---- what it is like ---- */

double workload_ratio(const struct workload *w, unsigned blocks)
{
	unsigned block_pages = SAMPLE_BYTES / GODWIT_PAGE_BYTES;
	size_t room = ZSTD_compressBound(SAMPLE_BYTES);
	uint8_t *in = malloc(SAMPLE_BYTES), *out = malloc(room);
	uint64_t stride = w->guest->pages / blocks / RUN_PAGES * RUN_PAGES;
	uint64_t bytes_in = 0, bytes_out = 0;
	ZSTD_CCtx *zstd = ZSTD_createCCtx();

	for (unsigned b = 0; b < blocks && in && out && zstd; b++) {
		uint64_t first = stride ? b * stride : (uint64_t)b * block_pages % w->guest->pages;
		size_t used = 0, got;

		for (unsigned i = 0; i < block_pages && first + i < w->guest->pages; i++)
			if (!godwit_page_is_zero(guest_page(w->guest, first + i))) {
				memcpy(in + used, guest_page(w->guest, first + i), GODWIT_PAGE_BYTES);
				used += GODWIT_PAGE_BYTES;
			}
		got = used ? ZSTD_compressCCtx(zstd, out, room, in, used, 1) : 0;
		if (ZSTD_isError(got))
			break;
		bytes_in += used;
		bytes_out += got;
	}
	ZSTD_freeCCtx(zstd);
	free(out);
	free(in);
	return bytes_out ? (double)bytes_in / (double)bytes_out : 0;
}

uint64_t workload_used_pages(const struct workload *w)
{
	uint64_t used = 0;

	for (uint64_t page = 0; page < w->guest->pages; page++)
		used += w->guest->truth[page].sum != 0;
	return used;
}
