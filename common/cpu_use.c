#include "common/cpu_use.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

static int read_busy_ns(int fd, uint64_t *ret_busy_ns)
{
    char text[64];
    uint64_t run_ns, wait_ns;
    ssize_t size = pread(fd, text, sizeof text - 1, 0);
    if (size <= 0)
        return -1;
    text[size] = '\0';
    if (sscanf(text, "%" SCNu64 " %" SCNu64, &run_ns, &wait_ns) != 2)
        return -1;
    *ret_busy_ns = run_ns + wait_ns;
    return 0;
}

void cpu_use_init(struct cpu_use *use, int64_t now_ms)
{
    *use = (struct cpu_use){.fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC), .looked_ms = now_ms};
    if (use->fd >= 0 && read_busy_ns(use->fd, &use->busy_ns) != 0)
        cpu_use_done(use);
}

void cpu_use_done(struct cpu_use *use)
{
    if (use->fd >= 0)
        close(use->fd);
    use->fd = -1;
}

void cpu_use_note(struct cpu_use *use, uint64_t busy_ns, int64_t now_ms)
{
    uint64_t passed_ns = (uint64_t)(now_ms - use->looked_ms) * 1000000, spent_ns = busy_ns - use->busy_ns;
    use->permille = spent_ns < passed_ns ? (uint32_t)(spent_ns * CPU_USE_ALL / passed_ns) : CPU_USE_ALL;
    use->busy_ns = busy_ns;
    use->looked_ms = now_ms;
}

uint32_t cpu_use_permille(struct cpu_use *use, int64_t now_ms)
{
    uint64_t busy_ns;
    if (use->fd >= 0 && now_ms >= use->looked_ms + CPU_USE_PERIOD_MS && read_busy_ns(use->fd, &busy_ns) == 0)
        cpu_use_note(use, busy_ns, now_ms);
    return use->permille;
}
