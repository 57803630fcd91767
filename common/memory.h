/* What this process takes of the machine's memory, and what there is. Reads /proc and /sys; a few microseconds. */
#ifndef SBX_COMMON_MEMORY_H
#define SBX_COMMON_MEMORY_H

#include <stdint.h>

/* Resident, which is what the kernel goes by when it runs out; 0 if it cannot be read. */
uint64_t memory_resident_bytes(void);
/* The control group's limit, or else the machine's memory. */
uint64_t memory_limit_bytes(void);

#endif
