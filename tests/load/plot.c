#include "tests/load/plot.h"
#include <math.h>
#include <string.h>

enum { WIDTH = 900, HEIGHT = 300, LEFT = 64, RIGHT = 16, TOP = 30, BOTTOM = 34, TICKS = 5, LETTER = 7, LEGEND = 96 };

static const double NINES_MAX = 5; /* 99.999% */

struct axes {
    const struct plot *plot;
    double x_min, x_max, y_min, y_max; /* of scaled values */
};

static const double *at(const double *base, const struct plot_line *line, size_t i)
{
    return (const double *)((const char *)base + i * line->stride);
}

static double scale_x(const struct plot *plot, double x)
{
    if (!plot->nines)
        return x;
    double nines = x < 100 ? -log10(1 - x / 100) : NINES_MAX;
    return nines < NINES_MAX ? nines : NINES_MAX;
}

static double scale_y(const struct plot *plot, double y)
{
    return plot->log_y ? log10(y) : y;
}

static bool shown(const struct plot *plot, double y)
{
    return isfinite(y) && (!plot->log_y || y > 0);
}

/* A round number that is at least `value`: 1, 2 or 5 times a power of ten. */
static double round_up(double value)
{
    double power = pow(10, floor(log10(value)));
    double digit = value / power;
    return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}

static bool measure(struct axes *axes)
{
    const struct plot *plot = axes->plot;
    bool any = false;
    axes->x_min = axes->y_min = INFINITY;
    axes->x_max = axes->y_max = -INFINITY;
    for (size_t l = 0; l < plot->line_count; l++)
        for (size_t i = 0; i < plot->lines[l].count; i++) {
            const struct plot_line *line = &plot->lines[l];
            double x = scale_x(plot, *at(line->x, line, i)), y = *at(line->y, line, i);
            if (!shown(plot, y))
                continue;
            any = any || y > 0;
            axes->x_min = fmin(axes->x_min, x);
            axes->x_max = fmax(axes->x_max, x);
            axes->y_min = fmin(axes->y_min, scale_y(plot, y));
            axes->y_max = fmax(axes->y_max, scale_y(plot, y));
        }
    if (!any)
        return false;
    if (plot->log_y) {
        axes->y_min = floor(axes->y_min);
        axes->y_max = fmax(ceil(axes->y_max), axes->y_min + 1);
    } else {
        axes->y_min = 0;
        axes->y_max = round_up(axes->y_max / TICKS) * TICKS;
    }
    if (axes->x_max <= axes->x_min)
        axes->x_max = axes->x_min + 1;
    return true;
}

/* From a scaled value to a place on the page. */
static double place_x(const struct axes *axes, double x)
{
    return LEFT + (x - axes->x_min) / (axes->x_max - axes->x_min) * (WIDTH - LEFT - RIGHT);
}

static double place_y(const struct axes *axes, double y)
{
    return HEIGHT - BOTTOM - (y - axes->y_min) / (axes->y_max - axes->y_min) * (HEIGHT - TOP - BOTTOM);
}

static void number(FILE *to, double value)
{
    if (value >= 1e6)
        fprintf(to, "%gM", value / 1e6);
    else if (value >= 1e4)
        fprintf(to, "%gk", value / 1e3);
    else
        fprintf(to, "%.4g", value);
}

static void write_bands(FILE *to, const struct axes *axes)
{
    for (size_t i = 0; i < axes->plot->band_count; i++) {
        const struct plot_band *band = &axes->plot->bands[i];
        double from = place_x(axes, fmax(band->from, axes->x_min)), width = place_x(axes, band->to) - from;
        if (width <= 0)
            continue;
        fprintf(to, "<rect class=\"band%zu\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\"/>", i % 2, from, TOP,
                width, HEIGHT - TOP - BOTTOM);
        if (width > LETTER * (double)strlen(band->name))
            fprintf(to, "<text class=\"band\" x=\"%.1f\" y=\"%d\">%s</text>", from + 4, TOP + 12, band->name);
    }
}

static void write_y_axis(FILE *to, const struct axes *axes)
{
    bool log_y = axes->plot->log_y;
    int ticks = log_y ? (int)(axes->y_max - axes->y_min) : TICKS;
    for (int i = 0; i <= ticks; i++) {
        double scaled = log_y ? axes->y_min + i : axes->y_max * i / TICKS, y = place_y(axes, scaled);
        fprintf(to, "<path class=\"grid\" d=\"M%d %.1fH%d\"/><text class=\"y\" x=\"%d\" y=\"%.1f\">", LEFT, y,
                WIDTH - RIGHT, LEFT - 6, y + 4);
        number(to, log_y ? pow(10, scaled) : scaled);
        fputs("</text>", to);
    }
}

static void write_x_tick(FILE *to, const struct axes *axes, double scaled, double value)
{
    fprintf(to, "<text class=\"x\" x=\"%.1f\" y=\"%d\">", place_x(axes, scaled), HEIGHT - BOTTOM + 16);
    number(to, value);
    fprintf(to, "%s</text>", axes->plot->x_unit);
}

static void write_x_axis(FILE *to, const struct axes *axes)
{
    static const double percentiles[] = {0, 50, 90, 99, 99.9, 99.99};
    double step = round_up((axes->x_max - axes->x_min) / 10);
    if (axes->plot->nines) {
        for (size_t i = 0; i < sizeof percentiles / sizeof percentiles[0]; i++)
            if (scale_x(axes->plot, percentiles[i]) <= axes->x_max)
                write_x_tick(to, axes, scale_x(axes->plot, percentiles[i]), percentiles[i]);
        return;
    }
    for (double x = ceil(axes->x_min / step) * step; x <= axes->x_max; x += step)
        write_x_tick(to, axes, x, x);
}

static void write_line(FILE *to, const struct axes *axes, const struct plot_line *line)
{
    bool drawing = false;
    fprintf(to, "<path class=\"line c%d%s\" d=\"", line->color, line->dashed ? " dashed" : "");
    for (size_t i = 0; i < line->count; i++) {
        double y = *at(line->y, line, i);
        /* A gap is a gap: nothing happened there. */
        if (!shown(axes->plot, y)) {
            drawing = false;
            continue;
        }
        fprintf(to, "%c%.1f %.1f", drawing ? 'L' : 'M', place_x(axes, scale_x(axes->plot, *at(line->x, line, i))),
                place_y(axes, scale_y(axes->plot, y)));
        /* A point without neighbours is still seen. */
        if (!drawing)
            fputs("h0.1", to);
        drawing = true;
    }
    fputs("\"/>", to);
}

void plot_write(FILE *to, const struct plot *plot)
{
    struct axes axes = {.plot = plot};
    double legend_x = WIDTH - RIGHT;
    if (!measure(&axes))
        return;
    fprintf(to,
            "<figure><svg viewBox=\"0 0 %d %d\" role=\"img\"><title>%s</title><text class=\"title\" x=\"%d\" y=\"18\">"
            "%s <tspan class=\"unit\">%s</tspan></text>",
            WIDTH, HEIGHT, plot->title, LEFT, plot->title, plot->unit);
    write_bands(to, &axes);
    write_y_axis(to, &axes);
    write_x_axis(to, &axes);
    for (size_t i = plot->line_count; i-- > 0;) {
        const struct plot_line *line = &plot->lines[i];
        write_line(to, &axes, line);
        if (line->name == NULL)
            continue;
        fprintf(to, "<text class=\"legend c%d\" x=\"%.0f\" y=\"18\">━ %s</text>", line->color, legend_x, line->name);
        legend_x -= LEGEND;
    }
    fputs("</svg></figure>\n", to);
}
