/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * price.c - what a byte on the wire is worth just now, in worker time
 *
 * A pipeline of W workers and one link moves most when neither waits for the other, or when the one that
 * does not wait cannot be helped any more. So the price follows the imbalance: workers idle -> dearer
 * bytes, heavier rungs; the link starved -> cheaper bytes, lighter rungs. It moves in octaves, for what
 * matters spans three powers of ten: 0.5 ns a byte is what the sockets at both ends cost anyhow, and
 * at 0.19 us a byte a worker spends a second to save 5 MB. It never rises far above what the link's own speed
 * says (what a byte takes there, times the workers), so that a mistake has a bound. The gain halves when the
 * imbalance turns and grows back while it keeps its sign, slower than the line of what is encoded ahead
 * shows an effect: a far goal is reached in a dozen steps, and a near one is not overshot for ever.
 *
 * That alone goes wrong where the link is not what holds the link up. A receiver that decodes slowly, or
 * a socket short of processor time, looks like a busy link: workers idle, rungs get heavier, and that
 * takes time from the very thing that lacks it. Hence two checks, with guest bytes retired per second
 * as the judge:
 *  - a climb is compared with the place where it began. On a link, heavier rungs send the same bytes per
 *    second and retire more. Where the wire slowed down and no more was retired, the climb did not pay.
 *  - encoding threads that wait for a processor, for much of their time and now, mean that processors are short,
 *    whatever the link says.
 * Either leads to a descent by steps for as long as that retires more, and then to a rest that doubles each
 * time. A descent because of preemption that brought nothing (the link was the limit after all) is followed
 * by a truce in which preemption is not acted upon, and which doubles as well.
 *
 * Beside a quick link and light rungs encoding is so short that threads wait for a processor before it, from
 * when they are woken. There the price stays at what the link's speed says: see learn_late().
 *
 * Where the caller keeps a bandwidth limit and says how long it was held back, none of these doubts is left:
 * its share of the link was used up, and whatever it waited for meanwhile, the link did not. Where it was writing
 * for longer than it was held, the link is no quicker than the limit: the imbalance is followed, without doubts.
 *
 * Pure: the time is in the input, and equal inputs give equal prices.
 */
#include <string.h>

#include "codecs/approx.h"
#include "codecs/codecs.h"

enum mode {
	FOLLOW,			/* the imbalance */
	DESCEND,		/* step by step while it retires more */
	REST,			/* nothing but a starved link moves the price */
};

#define OCTAVE_MIN 9.0		/* 0.5 ns a byte */
#define OCTAVE_MAX 17.5		/* 0.19 us */
#define OCTAVE_START 14.0	/* 16 ns, zstd 1 or thereabouts, until the link's speed is known: too heavy
				 * costs a few ms of worker time, too light the link 20 times that */
#define OCTAVES_ABOVE 3.0	/* how far the price may rise above what the link's speed says */
#define QUICK_PS 4000.0		/* a byte: 2 Gbit/s */
#define LATE_MUCH 0.1
#define KNOWN_STEPS 64		/* of 4 ms or more; a hold is 100 ms and seen at its end */
#define LINK_FALL 0.5		/* octaves a step by which the link may turn out quicker than thought: */
#define LINK_RISE 0.1		/* and slower, per STEP_NS: a socket's buffer swallows the first megabyte at once */

#define GAIN_MIN 0.05
#define GAIN_MAX 0.5
#define GAIN_NS 8000000.0	/* in a step of this length or less: see rebalance() */
#define MOVE_MAX 1.0		/* octaves a step */
#define STARVED_WEIGHT 1.25	/* where both happen by turns, from uneven blocks, lighter ones are more even */
#define HELD_SLACK 0.15		/* of a held link's time, see follow_held() */
#define DEAD_BAND 0.02		/* waits of a batch at a drain are no imbalance */

/* A step is taken once this much is known, or this much time has passed. */
#define STEP_NS 4000000u
#define STEP_BYTES (512u << 10)
#define STEP_LATEST_NS 40000000u

/* What is less takes a copy's time, or a system call's, and says nothing of the link. */
#define STEP_LEAST_WIRE_BYTES 4096u

#define PREEMPTED_MUCH 0.12
#define JUDGE_STEPS 6		/* rates follow in 3 steps: see smooth() */
#define SWALLOW_STEPS 3		/* a wire that had nothing to carry is not a slow one, and the buffers behind it
				 * swallow much at once after that: what it carries then says nothing */
#define CLIMB 0.4		/* octaves that are worth a comparison */
#define UNJUDGED 3.0		/* octaves at most above a mark that is too fresh for one */
#define MARK_STEPS 96		/* a mark older than this says nothing */
#define DESCENT 1.0		/* octaves between two comparisons */
#define PATIENCE_MIN 32
#define PATIENCE_MAX 128
#define TRUCE_MAX 512

void godwit_price_init(struct godwit_price *price)
{
	memset(price, 0, sizeof(*price));
	price->octave = OCTAVE_START;
	price->link_octave = OCTAVE_START;
	price->above = OCTAVES_ABOVE;
	price->gain = GAIN_MAX;
	price->mode = FOLLOW;
	price->patience = PATIENCE_MIN;
	price->truce = PATIENCE_MIN;
	/* Threads and buffers that are new take processor time as well. */
	price->truce_until = JUDGE_STEPS / 2;
	price->mark.octave = OCTAVE_START;
}

static double clamp(double x, double low, double high)
{
	return x < low ? low : x > high ? high : x;
}

static void smooth(double *mean, double x, bool is_first)
{
	*mean = is_first ? x : *mean + (x - *mean) / 3;
}

static void add(struct godwit_price_input *sum, const struct godwit_price_input *in)
{
	sum->span_ns += in->span_ns;
	sum->link_busy_ns += in->link_busy_ns;
	sum->link_starved_ns += in->link_starved_ns;
	sum->worker_idle_ns += in->worker_idle_ns;
	sum->worker_cpu_ns += in->worker_cpu_ns;
	sum->worker_wall_ns += in->worker_wall_ns;
	sum->workers = in->workers;
	sum->wire_bytes += in->wire_bytes;
	sum->retired_bytes += in->retired_bytes;
	sum->worker_late_ns += in->worker_late_ns;
	sum->link_held_ns += in->link_held_ns;
}

static bool is_enough(const struct godwit_price_input *sum)
{
	return sum->span_ns >= STEP_LATEST_NS ||
	       (sum->span_ns >= STEP_NS && sum->retired_bytes >= STEP_BYTES);
}

static void set_mark(struct godwit_price *p)
{
	p->mark.octave = p->octave;
	p->mark.retired_rate = p->retired_rate;
	p->mark.wire_rate = p->wire_rate;
	p->mark.step = p->step;
}

static void set_octave(struct godwit_price *p, double octave)
{
	double most = clamp(p->link_octave + p->above, OCTAVE_MIN, OCTAVE_MAX);

	p->octave = clamp(octave, OCTAVE_MIN, most);
}

static void move(struct godwit_price *p, double octaves)
{
	set_octave(p, p->octave + clamp(octaves, -MOVE_MAX, MOVE_MAX));
}

/* A hold of late: in that window the limit was reached, so no slow receiver held the link up. */
static bool is_known(const struct godwit_price *p)
{
	return p->step < p->known_until;
}

/*
 * Workers that sleep long after they were woken say that nothing idles but them. On a quick link that is what
 * makes it look busy, too: what sends and what receives lack the processors. A link that was held of late is as
 * quick as it is let be: between two holds it only looks quicker.
 */
static void learn_late(struct godwit_price *p, const struct godwit_price_input *sum)
{
	double late = (double)sum->worker_late_ns / ((double)sum->span_ns * sum->workers);
	bool is_doubtful;

	if (sum->link_held_ns)
		p->known_until = p->step + KNOWN_STEPS;
	is_doubtful = !is_known(p) && p->link_ps_per_byte < QUICK_PS;
	smooth(&p->late, late, false);
	p->above = OCTAVES_ABOVE * (is_doubtful ? 1 - clamp(p->late / LATE_MUCH, 0, 1) : 1);
}

/*
 * What a byte takes on the link, times the workers that could have worked meanwhile: where neither is short,
 * that is its price. It is followed quickly downwards and slowly upwards: a slow receiver makes the link
 * look slower the heavier the rungs are.
 */
static void learn_link(struct godwit_price *p, const struct godwit_price_input *sum, bool is_held,
		       bool is_first)
{
	double busy_ns = (double)(is_held ? sum->span_ns : sum->link_busy_ns);
	double ps_per_byte = 1000.0 * busy_ns / (double)sum->wire_bytes;
	double octave;

	smooth(&p->link_ps_per_byte, ps_per_byte, is_first);
	octave = (double)godwit_log2f((float)(p->link_ps_per_byte * sum->workers + 1));
	p->link_octave += clamp(octave - p->link_octave, -LINK_FALL,
				LINK_RISE * (double)sum->span_ns / STEP_NS);
	set_octave(p, p->octave);
}

/* From the mark, which was measured, on down. */
static void begin_descent(struct godwit_price *p)
{
	p->octave = p->mark.octave;
	p->gain = GAIN_MAX;
	p->mode = DESCEND;
	p->until = p->step + JUDGE_STEPS;
	move(p, -DESCENT);
}

static uint32_t twice(uint32_t steps, uint32_t most)
{
	return steps * 2 < most ? steps * 2 : most;
}

static void begin_rest(struct godwit_price *p)
{
	p->mode = REST;
	p->until = p->step + p->patience;
	p->patience = twice(p->patience, PATIENCE_MAX);
}

/* The link was the limit after all, and what the preemption says a side show. */
static void begin_truce(struct godwit_price *p)
{
	p->mode = FOLLOW;
	p->truce_until = p->step + p->truce;
	p->truce = twice(p->truce, TRUCE_MAX);
	/* The rates follow later; those of the mark still hold. */
	p->mark.step = p->step;
}

/* Lighter rungs send more bytes a page. Where the wire is no quicker for that, it is the limit. */
static void descend(struct godwit_price *p)
{
	bool is_quicker;

	if (p->step < p->until)
		return;
	is_quicker = p->wire_rate > p->mark.wire_rate * 1.05;
	if (is_quicker && p->retired_rate > p->mark.retired_rate * 1.02) {
		p->has_helped = true;
		set_mark(p);
		if (p->octave > OCTAVE_MIN)
			begin_descent(p);
		else
			begin_rest(p);
		return;
	}
	p->octave = p->mark.octave;
	if (p->has_helped || is_quicker || !p->is_preempted)
		begin_rest(p);
	else
		begin_truce(p);
}

/* Has the climb from the mark to here done harm? */
static bool did_not_pay(const struct godwit_price *p)
{
	double wire = p->wire_rate / p->mark.wire_rate;
	double retired = p->retired_rate / p->mark.retired_rate;

	return wire < 0.85 && retired < 1.02;
}

static void learn_gain(struct godwit_price *p, double imbalance)
{
	bool has_turned = imbalance * p->imbalance < 0;

	/* Balance between two signs does not make them one. */
	if (imbalance == 0)
		return;
	p->gain = clamp(p->gain * (has_turned ? 0.5 : 1.1), GAIN_MIN, GAIN_MAX);
	p->imbalance = imbalance;
}

/* What is encoded ahead hides a move for a time that is many short steps, or one long one. */
static void rebalance(struct godwit_price *p, double imbalance, double span_ns)
{
	learn_gain(p, imbalance);
	move(p, p->gain * clamp(span_ns / GAIN_NS, 1, 4) * imbalance);
}

/*
 * A link that is known, and filled before its time was up: while workers idle as well, its own price at once,
 * and from there on until little of that time is left. With none left the link would not be full.
 */
static void follow_held(struct godwit_price *p, double idle, double held)
{
	double imbalance = (idle < held ? idle : held) - HELD_SLACK;

	p->mode = FOLLOW;
	if (imbalance > 0 && p->octave < p->link_octave)
		set_octave(p, p->link_octave);
	else
		move(p, imbalance);	/* its turns are longer than anything is on its way */
	set_mark(p);
}

static void doubt(struct godwit_price *p, bool is_preempted)
{
	p->is_preempted = is_preempted;
	p->has_helped = false;
	begin_descent(p);
}

/*
 * No want of processors makes a socket or a receiver look like a slow link. There a byte is worth the time that it
 * takes, and doubts begin above that.
 */
static bool may_doubt(const struct godwit_price *p)
{
	return !is_known(p) && (p->link_ps_per_byte < QUICK_PS || p->octave > p->link_octave);
}

static void follow(struct godwit_price *p, double imbalance, double span_ns, bool is_preempted)
{
	if (is_preempted && imbalance > 0 && p->step >= p->truce_until && may_doubt(p)) {
		set_mark(p);
		doubt(p, true);
		return;
	}
	if (imbalance >= 0 && p->octave >= p->mark.octave + CLIMB && p->step - p->mark.step >= JUDGE_STEPS) {
		if (did_not_pay(p) && may_doubt(p)) {
			doubt(p, false);
			return;
		}
		if (p->retired_rate > p->mark.retired_rate * 1.03) {
			set_mark(p);
			p->patience = PATIENCE_MIN;
		}
	}
	if (p->octave < p->mark.octave || p->step - p->mark.step > MARK_STEPS)
		set_mark(p);
	rebalance(p, imbalance, span_ns);
	if (p->step - p->mark.step < JUDGE_STEPS)
		p->octave = clamp(p->octave, OCTAVE_MIN, p->mark.octave + UNJUDGED);
}

static void act(struct godwit_price *p, const struct godwit_price_input *sum)
{
	double span = (double)sum->span_ns;
	double idle = clamp((double)sum->worker_idle_ns / (span * sum->workers), 0, 1);
	bool is_held = sum->link_held_ns && 2 * sum->link_held_ns >= sum->link_busy_ns;
	double starved = is_held ? 0 : clamp((double)sum->link_starved_ns / span, 0, 1);
	double imbalance = idle - STARVED_WEIGHT * starved;
	double preempted = 0;
	bool is_first = p->step == 0;

	/* Of all their time: workers that are hardly ever at work lose next to nothing. */
	if (sum->worker_wall_ns > sum->worker_cpu_ns)
		preempted = (double)(sum->worker_wall_ns - sum->worker_cpu_ns) / (span * sum->workers);
	smooth(&p->preempted, preempted, false);	/* from none: a start is not a habit */
	if (starved >= DEAD_BAND)
		p->full_from = p->step + 1 + SWALLOW_STEPS;
	smooth(&p->retired_rate, (double)sum->retired_bytes / span, is_first);
	if (is_first || p->step >= p->full_from)
		smooth(&p->wire_rate, (double)sum->wire_bytes / span, is_first);
	learn_link(p, sum, is_held, is_first);
	learn_late(p, sum);
	if (is_first)
		set_mark(p);
	p->step++;

	if (is_held) {
		follow_held(p, idle, clamp((double)sum->link_held_ns / span, 0, 1));
		return;
	}
	if (imbalance < DEAD_BAND && imbalance > -DEAD_BAND)
		imbalance = 0;
	if (p->mode == REST && p->step >= p->until) {
		p->mode = FOLLOW;
		set_mark(p);
	}
	if ((imbalance < 0 || is_known(p)) && p->mode != FOLLOW) {
		/* Nobody doubts a starved link, or one that was held of late. */
		p->mode = FOLLOW;
		set_mark(p);
	}
	if (p->mode == DESCEND)
		descend(p);
	else if (p->mode == FOLLOW)
		follow(p, imbalance, span, preempted > PREEMPTED_MUCH && p->preempted > PREEMPTED_MUCH);
}

uint64_t godwit_price_step(struct godwit_price *price, const struct godwit_price_input *input)
{
	add(&price->sum, input);
	if (is_enough(&price->sum)) {
		/* Next to nothing written: nothing flows, and idle workers mean nothing. */
		if (price->sum.wire_bytes >= STEP_LEAST_WIRE_BYTES && price->sum.workers)
			act(price, &price->sum);
		memset(&price->sum, 0, sizeof(price->sum));
	}
	return (uint64_t)godwit_exp2f((float)price->octave);
}
