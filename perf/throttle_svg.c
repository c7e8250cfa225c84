/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * throttle_svg.c - what a migration does to its guest, one panel a policy
 *
 * All panels have the same axes, so that they can be held against each other: what is newly dirtied a second,
 * beside what the link sends; the worst I/O of each tenth of a second, on a logarithmic scale; below, a row
 * a vCPU, dark where it was held.
 */
#include <errno.h>
#include <math.h>

#include "throttle.h"

#define WIDTH 960
#define LEFT 96
#define RIGHT 24
#define TOP 64
#define RATE_HEIGHT 90
#define IO_HEIGHT 90
#define ROW 9
#define HOLD_HEIGHT (SIM_VCPUS * ROW)
#define GAP 12
#define PANEL (RATE_HEIGHT + IO_HEIGHT + HOLD_HEIGHT + 2 * GAP)
#define BETWEEN 48
#define PLOT (WIDTH - LEFT - RIGHT)

/* 0.1 ms to 10 s. */
#define IO_LOW -1.0
#define IO_HIGH 4.0

struct axes {
	FILE *file;
	double seconds, most_bytes_per_s, send_bytes_per_s;
};

static double x_of(const struct axes *a, double s)
{
	return LEFT + s / a->seconds * PLOT;
}

static double step_s(const struct sim_series *s)
{
	return (double)s->step_ns / 1e9;
}

static double bytes_per_s(const struct sim_series *s, unsigned i)
{
	return s->point[i].pages * GODWIT_PAGE_BYTES / step_s(s);
}

static void mark(const struct axes *a, double y, const char *text)
{
	fprintf(a->file,
		"<line class=\"rule\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" opacity=\"0.5\"/>\n"
		"<text class=\"soft\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
		LEFT, y, LEFT + PLOT, y, LEFT - 8, y + 4, text);
}

static void draw_rate(const struct axes *a, const struct sim_series *s, double bottom)
{
	double step = svg_step(a->most_bytes_per_s, 4);
	char text[UNIT_TEXT];

	for (double v = 0; v <= a->most_bytes_per_s; v += step)
		mark(a, bottom - v / a->most_bytes_per_s * RATE_HEIGHT,
		     v > 0 ? (snprintf(text, sizeof(text), "%g MB/s", v / 1e6), text) : "0");
	fputs("<path class=\"line b\" d=\"", a->file);
	for (unsigned i = 0; i < s->nr_points; i++)
		fprintf(a->file, "%c%.1f %.1f ", i ? 'L' : 'M', x_of(a, (i + 0.5) * step_s(s)),
			bottom - bytes_per_s(s, i) / a->most_bytes_per_s * RATE_HEIGHT);
	double sent = bottom - a->send_bytes_per_s / a->most_bytes_per_s * RATE_HEIGHT;

	fprintf(a->file, "\"/>\n<line class=\"round\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>\n", LEFT, sent,
		LEFT + PLOT, sent);
}

static double io_y(double ns, double bottom)
{
	double decades = log10(ns / 1e6);

	decades = decades < IO_LOW ? IO_LOW : decades > IO_HIGH ? IO_HIGH : decades;
	return bottom - (decades - IO_LOW) / (IO_HIGH - IO_LOW) * IO_HEIGHT;
}

static void draw_io(const struct axes *a, const struct sim_series *s, double bottom)
{
	mark(a, io_y(1e5, bottom), "0.1 ms");
	mark(a, io_y(1e6, bottom), "1 ms");
	mark(a, io_y(1e7, bottom), "10 ms");
	mark(a, io_y(1e8, bottom), "100 ms");
	mark(a, io_y(1e9, bottom), "1 s");
	fputs("<path class=\"line d\" d=\"", a->file);
	for (unsigned i = 0, drawn = 0; i < s->nr_points; i++) {
		if (!s->point[i].worst_io_ns)
			continue;	/* none was answered */
		fprintf(a->file, "%c%.1f %.1f ", drawn++ ? 'L' : 'M', x_of(a, (i + 0.5) * step_s(s)),
			io_y((double)s->point[i].worst_io_ns, bottom));
	}
	fputs("\"/>\n", a->file);
}

static void draw_holds(const struct axes *a, const struct sim_series *s, double top)
{
	for (unsigned v = 0; v < SIM_VCPUS; v++) {
		fprintf(a->file, "<text class=\"soft\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\" font-size=\"9\">vCPU %u"
			"</text>\n", LEFT - 8, top + v * ROW + ROW - 1, v);
		for (unsigned i = 0; i < s->nr_points; ) {
			/* Neighbours that look alike are one rectangle. */
			unsigned shade = (unsigned)(s->point[i].held_s[v] / step_s(s) * 10 + 0.5), from = i;

			while (i < s->nr_points &&
			       (unsigned)(s->point[i].held_s[v] / step_s(s) * 10 + 0.5) == shade)
				i++;
			if (shade)
				fprintf(a->file, "<rect class=\"area a\" style=\"opacity:%.1f\" x=\"%.1f\" y=\"%.1f\" "
					"width=\"%.1f\" height=\"%d\"/>\n", shade / 10.0,
					x_of(a, from * step_s(s)), top + v * ROW,
					x_of(a, i * step_s(s)) - x_of(a, from * step_s(s)), ROW - 1);
		}
	}
}

static void draw_panel(const struct axes *a, const struct throttle_panel *p, double top)
{
	fprintf(a->file, "<text class=\"title\" x=\"%d\" y=\"%.1f\">%s: %.0f s, worst vCPU's I/O p99 %.2f ms</text>\n",
		LEFT, top - 10, p->title, p->total_s, p->p99_ms);
	draw_rate(a, &p->series, top + RATE_HEIGHT);
	draw_io(a, &p->series, top + RATE_HEIGHT + GAP + IO_HEIGHT);
	draw_holds(a, &p->series, top + RATE_HEIGHT + IO_HEIGHT + 2 * GAP);
}

int throttle_svg_write(const char *path, const char *title, double send_bytes_per_s,
		       const struct throttle_panel *panels, unsigned nr_panels)
{
	struct axes a = { .seconds = 1, .most_bytes_per_s = send_bytes_per_s * 1.1,
			  .send_bytes_per_s = send_bytes_per_s };
	unsigned height = TOP + nr_panels * (PANEL + BETWEEN) + 24;
	double step;

	for (unsigned p = 0; p < nr_panels; p++) {
		a.seconds = fmax(a.seconds, panels[p].total_s);
		for (unsigned i = 0; i < panels[p].series.nr_points; i++)
			a.most_bytes_per_s = fmax(a.most_bytes_per_s, bytes_per_s(&panels[p].series, i) * 1.05);
	}
	a.file = svg_open(path, WIDTH, height, "vCPUs held back, policy by policy");
	if (!a.file)
		return -errno;
	fprintf(a.file, "<text class=\"big\" x=\"%d\" y=\"24\">%s</text>\n"
		"<text class=\"soft\" x=\"%d\" y=\"42\">newly dirtied per second (dashed: the link), worst I/O, "
		"time held</text>\n", LEFT, title, LEFT);
	for (unsigned p = 0; p < nr_panels; p++)
		draw_panel(&a, &panels[p], TOP + 16 + p * (PANEL + BETWEEN));
	step = svg_step(a.seconds, 8);
	for (unsigned i = 0; i * step <= a.seconds * 1.0001; i++)
		fprintf(a.file, "<text class=\"soft\" x=\"%.1f\" y=\"%u\" text-anchor=\"middle\">%g s</text>\n",
			x_of(&a, i * step), height - 24, i * step);
	return svg_close(a.file);
}
