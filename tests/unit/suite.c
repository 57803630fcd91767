#include "suite.h"

#include <stdarg.h>

int suite_run(const char *name, ...)
{
    Suite *suite = suite_create(name);
    va_list cases;
    va_start(cases, name);
    for (TCase *tcase; (tcase = va_arg(cases, TCase *)) != NULL;)
        suite_add_tcase(suite, tcase);
    va_end(cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
