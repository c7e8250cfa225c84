/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* util_table.c - text in aligned columns, widths found when all rows are there */
#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "perf.h"

#define MAX_COLUMNS 64

static void add_line(struct table *table, char *line)
{
	unsigned columns = 1;

	for (char *c = line; *c; c++)
		if (*c == '|') {
			*c = '\0';
			columns++;
		}
	if (!table->rows)
		table->columns = columns;
	assert(columns == table->columns && columns <= MAX_COLUMNS);
	table->line = realloc(table->line, (table->rows + 1) * sizeof(*table->line));
	if (!table->line)
		die("no memory for a table");
	table->line[table->rows++] = line;
}

void table_init(struct table *table, const char *heading)
{
	char *line = xcalloc(1, strlen(heading) + 1), *to = line;
	unsigned column = 0;

	*table = (struct table){ 0 };
	for (const char *from = heading; *from; from++) {
		if (*from == '>' && (to == line || to[-1] == '|')) {
			table->right |= 1ull << column;
			continue;
		}
		column += *from == '|';
		*to++ = *from;
	}
	add_line(table, line);
}

void table_row(struct table *table, const char *format, ...)
{
	va_list args;
	char *line;

	va_start(args, format);
	if (vasprintf(&line, format, args) < 0)
		die("no memory for a table");
	va_end(args);
	add_line(table, line);
}

void table_fini(struct table *table)
{
	for (unsigned r = 0; r < table->rows; r++)
		free(table->line[r]);
	free(table->line);
	*table = (struct table){ 0 };
}

void table_print(struct table *table, FILE *file)
{
	int width[MAX_COLUMNS] = { 0 };

	for (unsigned r = 0; r < table->rows; r++) {
		const char *cell = table->line[r];

		for (unsigned c = 0; c < table->columns; c++, cell += strlen(cell) + 1)
			if ((int)strlen(cell) > width[c])
				width[c] = (int)strlen(cell);
	}
	for (unsigned r = 0; r < table->rows; r++) {
		const char *cell = table->line[r];

		for (unsigned c = 0; c < table->columns; c++, cell += strlen(cell) + 1) {
			bool is_last = c + 1 == table->columns;
			int w = table->right >> c & 1 ? width[c] : is_last ? 0 : -width[c];

			fprintf(file, "%*s%s", w, cell, is_last ? "\n" : "  ");
		}
	}
	table_fini(table);
}
