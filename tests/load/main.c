/* The coordinator: starts the workers, takes them through the phases of a run together, shows how far they are,
 * measures the servers between the phases and reports. */
#include "common/clock.h"
#include "tests/load/conn.h"
#include "tests/load/live.h"
#include "tests/load/report.h"
#include "tests/load/worker.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    POLL_US = 50000,
    PROGRESS_US = 250000,
    PATIENCE_S = 60,
    SLOWEST_RATE = 100,
    EXIT_WRONG_USAGE = 2,
    BOTH_ENDS_BYTES = 60000
};

struct coordinator {
    struct swarm_options options;
    struct worker_stats *workers; /* shared with them */
    struct worker_stats total;
    pid_t pids[PROCESSES_MAX];
    struct report report;
    struct series series;
    struct live live;
    int64_t progress_us;
    int serial;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    interrupted = 1;
}

/* --- workers --- */

static int start_workers(struct coordinator *coordinator, const char *run)
{
    const struct swarm_options *options = &coordinator->options;
    size_t size = options->processes * sizeof *coordinator->workers;
    coordinator->workers = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (coordinator->workers == MAP_FAILED) {
        perror("signalbox-swarm: mmap");
        return -1;
    }
    for (unsigned i = 0; i < options->processes; i++) {
        pid_t pid = fork();
        if (pid == 0)
            exit(worker_run(options, i, run, &coordinator->workers[i]));
        if (pid < 0) {
            perror("signalbox-swarm: fork");
            return -1;
        }
        coordinator->pids[i] = pid;
        coordinator->options.tiers[TIER_SWARM].pids[i] = pid;
        coordinator->options.tiers[TIER_SWARM].count = i + 1;
    }
    return 0;
}

/* Notes that it has ended, and how. */
static void reaped(struct coordinator *coordinator, unsigned index, int status)
{
    coordinator->pids[index] = 0;
    if (status != 0)
        coordinator->report.failure = "a worker process failed";
}

/* Those that have taken leave end by themselves. */
static void stop_workers(struct coordinator *coordinator, bool have_left)
{
    for (unsigned i = 0; i < coordinator->options.processes; i++) {
        int status;
        if (coordinator->pids[i] == 0)
            continue;
        if (!have_left)
            kill(coordinator->pids[i], SIGTERM);
        if (waitpid(coordinator->pids[i], &status, 0) == coordinator->pids[i])
            reaped(coordinator, i, have_left ? status : 0);
    }
}

/* False when one has ended that was not to: who has taken leave of everybody may be done before the others. */
static bool workers_alive(struct coordinator *coordinator, enum phase phase)
{
    bool alive = true;
    for (unsigned i = 0; i < coordinator->options.processes; i++) {
        int status;
        if (coordinator->pids[i] != 0 && waitpid(coordinator->pids[i], &status, WNOHANG) == coordinator->pids[i])
            reaped(coordinator, i, status);
        alive = alive && (coordinator->pids[i] != 0 ||
                          (phase == PHASE_LEAVE && __atomic_load_n(&coordinator->workers[i].reached_serial,
                                                                   __ATOMIC_ACQUIRE) == coordinator->serial));
    }
    return alive;
}

static void sum_up(struct coordinator *coordinator, bool histograms)
{
    struct worker_stats *total = &coordinator->total;
    memset(total, 0, sizeof *total);
    for (unsigned i = 0; i < coordinator->options.processes; i++) {
        const struct worker_stats *worker = &coordinator->workers[i];
        total->joined += worker->joined;
        total->tls_bytes += worker->tls_bytes;
        total->unconverged += worker->unconverged;
        if (worker->phase_took_us > total->phase_took_us)
            total->phase_took_us = worker->phase_took_us;
#define X(name, what) total->name += worker->name;
        SWARM_COUNTERS(X)
#undef X
        for (size_t end = 0; end < END_KINDS + END_CODES; end++)
            total->ends[end] += worker->ends[end];
        if (!histograms)
            continue;
#define X(name, what) histogram_merge(&total->name##_us, &worker->name##_us);
        SWARM_HISTOGRAMS(X)
#undef X
    }
}

/* --- phases --- */

/* What the series is made of, as it is now. */
static struct series_input look(struct coordinator *coordinator, enum phase phase)
{
    struct series_input input = {.at_us = clock_mono_us(), .phase = phase, .total = &coordinator->total};
    sum_up(coordinator, true);
    for (int i = 0; i < TIERS; i++)
        observe_quickly(&coordinator->options.tiers[i], &input.tiers[i].resident_bytes, &input.tiers[i].cpu_us);
    return input;
}

static void watch(struct coordinator *coordinator, enum phase phase, const char *what, int64_t begun_us)
{
    int64_t now_us = clock_mono_us();
    if (now_us >= coordinator->series.due_us) {
        struct series_input input = look(coordinator, phase);
        series_add(&coordinator->series, &input);
    }
    if (now_us < coordinator->progress_us)
        return;
    coordinator->progress_us = now_us + PROGRESS_US;
    sum_up(coordinator, false);
    live_show(&coordinator->live, &coordinator->options, &coordinator->total, &coordinator->series, what,
              now_us - begun_us);
}

static bool all_reached(const struct coordinator *coordinator)
{
    for (unsigned i = 0; i < coordinator->options.processes; i++)
        if (__atomic_load_n(&coordinator->workers[i].reached_serial, __ATOMIC_ACQUIRE) != coordinator->serial)
            return false;
    return true;
}

/* What is on standard input for a hold that it drives: whether the hold is over. Its end ends the hold too. */
static bool told_to_go(struct coordinator *coordinator)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char line[16];
    if (poll(&input, 1, 0) <= 0)
        return false;
    if (fgets(line, sizeof line, stdin) == NULL || strcmp(line, "go\n") == 0)
        return true;
    for (unsigned i = 0; strcmp(line, "renew\n") == 0 && i < coordinator->options.processes; i++)
        coordinator->workers[i].wanted_renewals++;
    return false;
}

/* Takes all workers through a phase. False, with the reason in the report, if the run cannot go on. */
static bool run_phase(struct coordinator *coordinator, enum phase phase, const char *what, double limit_s)
{
    int64_t begun_us = clock_mono_us();
    bool driven = coordinator->options.driven;
    coordinator->serial++;
    if (driven) {
        printf("phase %s\n", what);
        fflush(stdout);
    }
    for (unsigned i = 0; i < coordinator->options.processes; i++) {
        coordinator->workers[i].wanted = phase;
        __atomic_store_n(&coordinator->workers[i].wanted_serial, coordinator->serial, __ATOMIC_RELEASE);
    }
    while (!all_reached(coordinator)) {
        usleep(POLL_US);
        if (driven && phase == PHASE_HOLD && told_to_go(coordinator))
            break;
        watch(coordinator, phase, what, begun_us);
        if (!workers_alive(coordinator, phase) && !all_reached(coordinator))
            coordinator->report.failure = "a worker process ended early";
        else if (interrupted && phase != PHASE_LEAVE)
            coordinator->report.failure = "interrupted";
        else if ((double)(clock_mono_us() - begun_us) > limit_s * 1e6)
            coordinator->report.failure =
                phase == PHASE_LEAVE ? "not everybody could leave in time" : "not everybody was there in time";
        else
            continue;
        return false;
    }
    sum_up(coordinator, false);
    return true;
}

static bool check(struct coordinator *coordinator)
{
    bool went_on = run_phase(coordinator, PHASE_CHECK, "check", coordinator->options.settle_s + PATIENCE_S);
    coordinator->report.unconverged += coordinator->total.unconverged;
    return went_on;
}

static int take_sample(struct coordinator *coordinator, enum moment moment)
{
    struct sample *sample = &coordinator->report.samples[moment];
    for (int i = 0; i < TIERS; i++)
        if (observe_tier(&coordinator->options.tiers[i], &sample->tiers[i]) != 0)
            return -1;
    sum_up(coordinator, false);
    sample->swarm_tls_bytes = coordinator->total.tls_bytes;
    sample->kernel_bytes = observe_kernel_bytes();
    sample->at_us = clock_mono_us();
    sample->taken = true;
    return 0;
}

/* Everybody is cut and comes back. False if the run cannot go on. */
static bool storm(struct coordinator *coordinator, enum storm kind)
{
    static const struct {
        enum phase phase;
        const char *what;
    } storms[STORMS] = {
        [STORM_FULL] = {PHASE_STORM_FULL, "storm"}, [STORM_RESUMED] = {PHASE_STORM_RESUMED, "storm-resumed"}};
    const struct swarm_options *options = &coordinator->options;
    struct storm_result *result = &coordinator->report.storms[kind];
    double rate = options->storm_rate > 0 ? options->storm_rate : SLOWEST_RATE;
    struct series_input begin = look(coordinator, storms[kind].phase);
    struct worker_stats before = coordinator->total;
    if (!run_phase(coordinator, storms[kind].phase, storms[kind].what, options->participants / rate * 2 + PATIENCE_S))
        return false;
    const struct worker_stats *after = &coordinator->total;
    struct series_input end = look(coordinator, storms[kind].phase);
    *result = (struct storm_result){
        .took_us = after->phase_took_us,
        .cuts = after->cuts - before.cuts,
        .resumes = after->resumes - before.resumes,
        .handshakes_full = after->handshakes_full - before.handshakes_full,
        .handshakes_resumed = after->handshakes_resumed - before.handshakes_resumed,
    };
    for (int i = 0; i < TIERS; i++)
        result->cpu_us[i] = end.tiers[i].cpu_us - begin.tiers[i].cpu_us;
    return options->bare || check(coordinator);
}

static void run_phases(struct coordinator *coordinator)
{
    const struct swarm_options *options = &coordinator->options;
    struct report *report = &coordinator->report;
    double rate = options->join_rate < SLOWEST_RATE ? options->join_rate : SLOWEST_RATE;
    double slowest_s = options->participants / rate * 2 + PATIENCE_S;
    if (!run_phase(coordinator, PHASE_JOIN, "join", slowest_s))
        return;
    report->join_took_us = coordinator->total.phase_took_us;
    if ((!options->bare && !check(coordinator)) || take_sample(coordinator, MOMENT_JOINED) != 0)
        return;
    if (!run_phase(coordinator, PHASE_IDLE, "idle", options->idle_s + PATIENCE_S) ||
        take_sample(coordinator, MOMENT_IDLE) != 0)
        return;
    if (!run_phase(coordinator, PHASE_HOLD, "hold", options->hold_s + PATIENCE_S) ||
        take_sample(coordinator, MOMENT_HELD) != 0)
        return;
    /* A storm comes out of the midst of the traffic, not after a pause in which everything has been delivered. */
    bool stormed = false;
    for (enum storm kind = 0; kind < STORMS; kind++) {
        if (options->storms[kind] && !storm(coordinator, kind))
            return;
        stormed = stormed || options->storms[kind];
    }
    if (!stormed && !options->bare)
        check(coordinator);
}

/* A host that swaps or kills processes is no result. Both ends of a connection, with the kernel's part, take about 50
 * KB where the servers are on this machine too, half of that where they are not. */
static bool fits_memory(const struct swarm_options *options)
{
    int64_t each_bytes = options->targets[0].loopback ? BOTH_ENDS_BYTES : BOTH_ENDS_BYTES / 2;
    int64_t needed_bytes = options->participants * each_bytes, available_bytes = observe_available_bytes();
    if (available_bytes < 0 || needed_bytes <= available_bytes)
        return true;
    fprintf(stderr, "signalbox-swarm: %u participants need about %.1f GiB of memory, and %.1f are available\n",
            options->participants, (double)needed_bytes / (1 << 30), (double)available_bytes / (1 << 30));
    return false;
}

int main(int argc, char **argv)
{
    static struct coordinator coordinator;
    struct report *report = &coordinator.report;
    uint8_t random[4];
    char run[9];
    enum options_result result = options_parse(&coordinator.options, argc, argv);
    if (result != OPTIONS_OK)
        return result == OPTIONS_HELP ? EXIT_SUCCESS : EXIT_WRONG_USAGE;
    if (!fits_memory(&coordinator.options))
        return EXIT_WRONG_USAGE;
    conn_count_tls_memory();
    report->options = &coordinator.options;
    report->total = &coordinator.total;
    if (!coordinator.options.quiet && isatty(STDERR_FILENO))
        coordinator.live.to = stderr;
    if (sodium_init() < 0)
        return EXIT_FAILURE;
    randombytes_buf(random, sizeof random);
    sodium_bin2hex(run, sizeof run, random, sizeof random);
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    setvbuf(stdin, NULL, _IONBF, 0); /* poll() must see every line that was not read */

    if (start_workers(&coordinator, run) != 0) {
        stop_workers(&coordinator, false);
        return EXIT_FAILURE;
    }
    struct series_input begin = look(&coordinator, PHASE_WAIT);
    series_begin(&coordinator.series, &begin);
    if (take_sample(&coordinator, MOMENT_BEFORE) == 0)
        run_phases(&coordinator);
    else
        report->failure = "the processes could not be measured";
    const char *failure = report->failure;
    bool have_left = run_phase(&coordinator, PHASE_LEAVE, "leave", PATIENCE_S);
    stop_workers(&coordinator, have_left);
    if (failure != NULL)
        report->failure = failure;
    live_clear(&coordinator.live);
    sum_up(&coordinator, true);
    return report_write(report, &coordinator.series) ? EXIT_SUCCESS : EXIT_FAILURE;
}
