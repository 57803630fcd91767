#include "tests/load/observe.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The value in bytes of a line "NAME:   123 kB"; -1 if there is none. */
static int64_t read_kib_line(const char *path, const char *name)
{
    FILE *file = fopen(path, "re");
    char line[256];
    int64_t value = -1;
    size_t size = strlen(name);
    if (file == NULL)
        return -1;
    while (value < 0 && fgets(line, sizeof line, file) != NULL) {
        long kib;
        if (strncmp(line, name, size) == 0 && sscanf(line + size, ": %ld kB", &kib) == 1)
            value = (int64_t)kib * 1024;
    }
    fclose(file);
    return value;
}

static int64_t read_cpu_us(pid_t pid)
{
    char path[64], line[1024];
    unsigned long user, system;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return -1;
    const char *after_name = fgets(line, sizeof line, file) != NULL ? strrchr(line, ')') : NULL;
    fclose(file);
    /* proc(5): fields 14 and 15; the name, field 2, may hold anything. */
    if (after_name == NULL ||
        sscanf(after_name, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        return -1;
    return (int64_t)(user + system) * (1000000 / sysconf(_SC_CLK_TCK));
}

int observe_tier(const struct pids *pids, struct usage *ret_usage)
{
    struct usage sum = {0};
    for (size_t i = 0; i < pids->count; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pids->pids[i]);
        int64_t pss_bytes = read_kib_line(path, "Pss"), cpu_us = read_cpu_us(pids->pids[i]);
        if (pss_bytes < 0 || cpu_us < 0) {
            fprintf(stderr, "signalbox-swarm: cannot measure process %d: %s\n", (int)pids->pids[i], strerror(errno));
            return -1;
        }
        sum.pss_bytes += pss_bytes;
        sum.cpu_us += cpu_us;
    }
    *ret_usage = sum;
    return 0;
}

static int64_t read_resident_bytes(pid_t pid)
{
    char path[64];
    long pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%*d %ld", &pages) != 1)
        pages = 0;
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

void observe_quickly(const struct pids *pids, int64_t *ret_resident_bytes, int64_t *ret_cpu_us)
{
    int64_t resident_bytes = 0, cpu_us = 0;
    for (size_t i = 0; i < pids->count; i++) {
        int64_t used_us = read_cpu_us(pids->pids[i]);
        resident_bytes += read_resident_bytes(pids->pids[i]);
        cpu_us += used_us > 0 ? used_us : 0;
    }
    *ret_resident_bytes = resident_bytes;
    *ret_cpu_us = cpu_us;
}

int64_t observe_available_bytes(void)
{
    return read_kib_line("/proc/meminfo", "MemAvailable");
}

int64_t observe_kernel_bytes(void)
{
    return read_kib_line("/proc/meminfo", "Slab");
}
