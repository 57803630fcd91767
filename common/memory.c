#include "common/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

uint64_t memory_resident_bytes(void)
{
    unsigned long total_pages, resident_pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%lu %lu", &total_pages, &resident_pages) != 2)
        resident_pages = 0;
    fclose(file);
    return (uint64_t)resident_pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t memory_limit_bytes(void)
{
    /* As a process in a container sees its own group: version 2, version 1. Without a limit there is "max", or a number
     * beyond all memory. */
    static const char *const limits[] = {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    uint64_t limit = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    for (unsigned i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        uint64_t bytes;
        FILE *file = fopen(limits[i], "re");
        if (file == NULL)
            continue;
        if (fscanf(file, "%" SCNu64, &bytes) == 1 && bytes > 0 && bytes < limit)
            limit = bytes;
        fclose(file);
    }
    return limit;
}
