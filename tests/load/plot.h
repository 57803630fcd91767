/* Line plots as SVG. Free of I/O but for the file that is written to. */
#ifndef SBX_LOAD_PLOT_H
#define SBX_LOAD_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct plot_line {
    const char *name; /* NULL: not in the legend */
    const double *y;  /* of `count` points, `stride` bytes apart */
    const double *x;  /* likewise */
    size_t count, stride;
    bool dashed;
    int color; /* 0 .. PLOT_COLORS - 1 */
};

enum { PLOT_COLORS = 6 };

/* A part of the x axis with a name. */
struct plot_band {
    const char *name;
    double from, to;
};

struct plot {
    const char *title, *unit, *x_unit;
    bool log_y; /* values up to 0 are left out */
    bool nines; /* x is a percentile: 90, 99, 99.9 are evenly apart */
    const struct plot_line *lines;
    size_t line_count;
    const struct plot_band *bands;
    size_t band_count;
};

/* Writes nothing if no line has a point. */
void plot_write(FILE *to, const struct plot *plot);

#endif
