/* Time, in the two kinds that the code needs.
 *
 * Monotonic time orders and measures everything; it starts at an arbitrary point and never jumps. Wall time only ever
 * leaves or enters the process (token expiry, log stamps, view generations). Decision code calls neither: it is handed
 * `now_ms` (monotonic, milliseconds) by whoever drives it, which is what lets the simulator own its clock.
 *
 * Threading: any thread.
 */
#ifndef SBX_COMMON_CLOCK_H
#define SBX_COMMON_CLOCK_H

#include <stdint.h>

int64_t clock_mono_ms(void);
int64_t clock_mono_us(void);
int64_t clock_wall_s(void);
int64_t clock_wall_ms(void);

#endif
