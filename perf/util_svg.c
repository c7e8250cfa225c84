/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* util_svg.c - what the pictures share; the colours ask whether the page around is light or dark */
#include <errno.h>
#include <math.h>

#include "perf.h"

/* Plain colours in classes: few programs but browsers know variables. */
static const char style[] =
	"<style>\n"
	"svg { font: 13px system-ui, sans-serif; }\n"
	"text { fill: #1f2328; } .soft { fill: #656d76; } .title { font-weight: 600; }\n"
	".big { font-size: 15px; font-weight: 600; } .paper { fill: #ffffff; } .band { fill: #ffd8b5; }\n"
	".rule { stroke: #d0d7de; stroke-width: 1; }\n"
	".round { stroke: #afb8c1; stroke-width: 1; stroke-dasharray: 2 3; }\n"
	".line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }\n"
	".area { stroke: none; opacity: 0.15; }\n"
	".line.a { stroke: #0969da; } .line.b { stroke: #bc4c00; } .line.c { stroke: #1a7f37; }\n"
	".line.d { stroke: #8250df; } .area.a { fill: #0969da; } .area.b { fill: #bc4c00; }\n"
	".area.c { fill: #1a7f37; }\n"
	"@media (prefers-color-scheme: dark) {\n"
	"  text { fill: #e6edf3; } .soft { fill: #8d96a0; } .paper { fill: #0d1117; } .band { fill: #5a3210; }\n"
	"  .rule { stroke: #373e47; } .round { stroke: #545d68; }\n"
	"  .line.a { stroke: #58a6ff; } .line.b { stroke: #f0883e; } .line.c { stroke: #3fb950; }\n"
	"  .line.d { stroke: #bc8cff; } .area.a { fill: #58a6ff; } .area.b { fill: #f0883e; }\n"
	"  .area.c { fill: #3fb950; }\n"
	"}\n"
	"</style>\n";

double svg_step(double range, double marks)
{
	double raw = range / marks, power = pow(10, floor(log10(raw)));
	double digit = raw / power;

	return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}

FILE *svg_open(const char *path, unsigned width, unsigned height, const char *label)
{
	FILE *file = fopen(path, "w");

	if (!file)
		return NULL;
	fprintf(file,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %u %u\" width=\"%u\" height=\"%u\" "
		"role=\"img\" aria-label=\"%s\">\n%s"
		"<rect class=\"paper\" width=\"%u\" height=\"%u\"/>\n",
		width, height, width, height, label, style, width, height);
	return file;
}

int svg_close(FILE *file)
{
	int err;

	fputs("</svg>\n", file);
	err = ferror(file) ? -EIO : 0;
	if (fclose(file) && !err)
		err = -errno;
	return err;
}
