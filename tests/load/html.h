/* The report for people: one HTML file with its style and its plots (SVG) inside, no script and nothing from elsewhere,
 * so that it can be mailed, archived and opened where scripts are blocked. */
#ifndef SBX_LOAD_HTML_H
#define SBX_LOAD_HTML_H

#include "tests/load/report.h"
#include "tests/load/series.h"
#include <jansson.h>

/* `figures`: as in the JSON result. False, with the reason on standard error, if `path` cannot be written. */
bool html_write(const char *path, const struct report *report, const struct series *series, const json_t *figures,
                bool good);

#endif
