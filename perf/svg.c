/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * svg.c - a migration as a picture: four panels over one time axis
 *
 * What remains, how fast the guest dirties, how fast the wire runs, which rung packs: one under
 * the other, so that cause stands above effect. Rounds are thin lines, the stopped guest a band.
 */
#include <errno.h>
#include <string.h>

#include "migrate.h"

#define WIDTH 960
#define LEFT 96
#define RIGHT 24
#define TOP 64
#define PANEL 128
#define GAP 44
#define PANELS 4
#define MAX_RUNGS 12
#define PLOT (WIDTH - LEFT - RIGHT)

struct plot {
	FILE *file;
	const struct outcome *outcome;
	double seconds;			/* the axis's length */
	const struct sample *sample;
	unsigned samples;
};

static double x_of(const struct plot *plot, double t)
{
	return LEFT + t / plot->seconds * PLOT;
}

static unsigned panel_top(unsigned panel)
{
	return TOP + panel * (PANEL + GAP);
}

static void draw_frame(const struct plot *plot, unsigned panel, const char *title)
{
	unsigned top = panel_top(panel);

	fprintf(plot->file, "<text class=\"title\" x=\"%d\" y=\"%u\">%s</text>\n", LEFT, top - 8, title);
	fprintf(plot->file, "<line class=\"rule\" x1=\"%d\" y1=\"%u\" x2=\"%d\" y2=\"%u\"/>\n", LEFT,
		top + PANEL, LEFT + PLOT, top + PANEL);
}

static void draw_time_axis(const struct plot *plot)
{
	double step = svg_step(plot->seconds, 8);
	unsigned bottom = panel_top(PANELS - 1) + PANEL;

	for (unsigned i = 0; i * step <= plot->seconds * 1.0001; i++)
		fprintf(plot->file, "<text class=\"soft\" x=\"%.1f\" y=\"%u\" text-anchor=\"middle\">%g s</text>\n",
			x_of(plot, i * step), bottom + 20, i * step);
}

/* A round's dirty rate is known when it has ended; here they all have. */
static double dirty_rate(const struct plot *plot, const struct sample *s)
{
	const struct round_record *r = &plot->outcome->round[s->round ? s->round - 1 : 0];

	if (s->phase != PHASE_ITERATE || !s->round)
		return 0;
	if (!r->ns)
		return s->dirty_bytes_per_s;
	return (double)r->dirtied * GODWIT_PAGE_BYTES / ((double)r->ns / 1e9);
}

static double value_of(const struct plot *plot, unsigned index, unsigned panel)
{
	const struct sample *s = &plot->sample[index];

	switch (panel) {
	case 0: return (double)s->remaining_bytes;
	case 1: return dirty_rate(plot, s);
	default: return s->wire_bytes_per_s;
	}
}

/* Bytes are marked at powers of two, rates at round numbers of bits. */
static double mark_step(unsigned panel, double most)
{
	if (panel)
		return svg_step(most * 8, 3) / 8;
	double step = 1;

	while (step * 3 < most)
		step *= 2;
	return step;
}

static const char *label(char *text, unsigned panel, double value)
{
	return panel == 0 ? format_bytes(text, value) : format_bandwidth(text, value);
}

static void draw_curve(const struct plot *plot, unsigned panel, const char *title, const char *colour)
{
	unsigned bottom = panel_top(panel) + PANEL;
	double most = 1;
	char text[UNIT_TEXT];

	for (unsigned i = 0; i < plot->samples; i++)
		if (value_of(plot, i, panel) > most)
			most = value_of(plot, i, panel);
	most *= 1.05;
	draw_frame(plot, panel, title);
	for (double mark = mark_step(panel, most); mark <= most; mark += mark_step(panel, most))
		fprintf(plot->file,
			"<line class=\"rule\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" opacity=\"0.5\"/>\n"
			"<text class=\"soft\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
			LEFT, bottom - mark / most * PANEL, LEFT + PLOT, bottom - mark / most * PANEL, LEFT - 8,
			bottom - mark / most * PANEL + 4, label(text, panel, mark));
	for (unsigned pass = 0; pass < 2; pass++) {
		fprintf(plot->file, "<path class=\"%s %s\" d=\"", pass ? "line" : "area", colour);
		if (!pass)
			fprintf(plot->file, "M%.1f %u ", x_of(plot, plot->sample[0].t), bottom);
		for (unsigned i = 0; i < plot->samples; i++)
			fprintf(plot->file, "%c%.1f %.1f ", i || !pass ? 'L' : 'M',
				x_of(plot, plot->sample[i].t),
				bottom - value_of(plot, i, panel) / most * PANEL);
		if (!pass)
			fprintf(plot->file, "L%.1f %u Z", x_of(plot, plot->sample[plot->samples - 1].t),
				bottom);
		fputs("\"/>\n", plot->file);
	}
}

/* Names become rows, in the order in which they were first used. */
static void draw_rungs(const struct plot *plot, unsigned panel)
{
	const char *names[MAX_RUNGS];
	unsigned count = 0, bottom = panel_top(panel) + PANEL;
	double previous = 0;

	draw_frame(plot, panel, "rung");
	for (unsigned i = 0; i < plot->samples; i++) {
		unsigned n = 0;

		while (n < count && strcmp(names[n], plot->sample[i].rung))
			n++;
		if (n == count && count < MAX_RUNGS && plot->sample[i].rung[0])
			names[count++] = plot->sample[i].rung;
	}
	for (unsigned n = 0; n < count; n++)
		fprintf(plot->file, "<text class=\"soft\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
			LEFT - 8, bottom - PANEL * (n + 0.5) / count + 4, names[n]);
	fputs("<path class=\"line d\" d=\"", plot->file);
	for (unsigned i = 0, drawn = 0; i < plot->samples; i++) {
		unsigned n = 0;

		while (n < count && strcmp(names[n], plot->sample[i].rung))
			n++;
		if (n == count)
			continue;
		double y = bottom - PANEL * (n + 0.5) / count, x = x_of(plot, plot->sample[i].t);

		if (drawn++)
			fprintf(plot->file, "L%.1f %.1f L%.1f %.1f ", x, previous, x, y);
		else
			fprintf(plot->file, "M%.1f %.1f ", x, y);
		previous = y;
	}
	fputs("\"/>\n", plot->file);
}

static void draw_rounds(const struct plot *plot)
{
	unsigned bottom = panel_top(PANELS - 1) + PANEL;
	double stopped = -1, resumed = -1, labelled = -1000;

	for (unsigned i = 1; i < plot->samples; i++) {
		const struct sample *s = &plot->sample[i];
		double x = x_of(plot, s->t);

		if (s->phase >= PHASE_STOP && stopped < 0)
			stopped = x;
		if (s->phase >= PHASE_RESUMED && resumed < 0)
			resumed = x;
		if (s->round == plot->sample[i - 1].round || s->phase != PHASE_ITERATE)
			continue;
		fprintf(plot->file, "<line class=\"round\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%u\"/>\n", x,
			TOP, x, bottom);
		if (x - labelled > 28)
			fprintf(plot->file, "<text class=\"soft\" x=\"%.1f\" y=\"%d\">%u</text>\n",
				labelled = x + 3, TOP + 12, s->round);
	}
	if (stopped >= 0)
		fprintf(plot->file, "<rect class=\"band\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" "
			"height=\"%u\" opacity=\"0.6\"/>\n", stopped, TOP,
			(resumed > stopped ? resumed : LEFT + PLOT) - stopped + 1, bottom - TOP);
}

int svg_write(const char *path, const struct migrate_options *options, const struct outcome *outcome,
	      const struct sample *samples, unsigned nr_samples)
{
	struct plot plot = { .outcome = outcome, .sample = samples, .samples = nr_samples };
	unsigned height = panel_top(PANELS - 1) + PANEL + 36;
	char ram[UNIT_TEXT], cap[UNIT_TEXT], total[UNIT_TEXT], down[UNIT_TEXT];

	if (nr_samples < 2)
		return -ENODATA;
	plot.file = svg_open(path, WIDTH, height, "migration over time");
	if (!plot.file)
		return -errno;
	plot.seconds = samples[nr_samples - 1].t > 0 ? samples[nr_samples - 1].t : 1;
	fprintf(plot.file,
		"<text class=\"big\" x=\"%d\" y=\"26\">%s: %s guest, workload %s, %s: %u rounds, %s, downtime %s"
		"</text>\n", LEFT, outcome->status, format_bytes(ram, (double)options->ram_bytes),
		workload_names[options->workload.kind],
		options->bandwidth ? format_bandwidth(cap, (double)options->bandwidth) : "no cap",
		outcome->rounds, format_duration(total, (double)outcome->total_ns),
		format_duration(down, (double)outcome->downtime_ns));
	draw_rounds(&plot);
	draw_curve(&plot, 0, "remaining", "a");
	draw_curve(&plot, 1, "dirty rate", "b");
	draw_curve(&plot, 2, "wire rate", "c");
	draw_rungs(&plot, 3);
	draw_time_axis(&plot);
	return svg_close(plot.file);
}
