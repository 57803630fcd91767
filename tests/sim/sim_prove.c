/* sim_prove [--seeds A..B] [--jobs N] [--fault NAME]: that the simulator can fail. Turns on one
 * deliberate fault at a time (common/sim_fault.h) and plays seeds until one of them is found to violate something;
 * every fault must be found within the seeds. A failed assertion finds a fault, too: each fault is played in a process
 * of its own. */
#include "common/log.h"
#include "common/sim_fault.h"
#include "tests/sim/play.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum sim_fault sim_fault_active;

struct fault {
    const char *name, *breaks;
};

static const struct fault faults[SIM_FAULT_COUNT] = {
#define FAULT(fault_name, fault_breaks) [SIM_FAULT_##fault_name] = {.name = #fault_name, .breaks = fault_breaks},
#include "tests/sim/faults_table.h"
#undef FAULT
};

/* What a fault's process has come to; shared with it. */
struct finding {
    pid_t pid;
    bool done, caught;
    uint64_t seed;
    char invariant[48];
    char violation[200];
};

/* The seed fails by the fault, and not by itself. */
static bool holds_without(uint64_t seed)
{
    struct play_result result;
    struct story *story = story_new(STORY_CLUSTER, false);
    sim_fault_active = SIM_FAULT_NONE;
    play_seed(seed, story, &result);
    story_free(&story);
    return result.held;
}

static void look_for(enum sim_fault fault, uint64_t first, uint64_t last, struct finding *finding)
{
    for (finding->seed = first; finding->seed <= last; finding->seed++) {
        struct play_result result;
        struct story *story = story_new(STORY_CLUSTER, false);
        sim_fault_active = fault;
        play_seed(finding->seed, story, &result);
        if (!result.held && holds_without(finding->seed)) {
            finding->caught = true;
            snprintf(finding->invariant, sizeof finding->invariant, "%s", story_invariant(story));
            snprintf(finding->violation, sizeof finding->violation, "%s", story_violation(story));
            story_free(&story);
            return;
        }
        story_free(&story);
    }
}

static bool report(enum sim_fault fault, const struct finding *finding)
{
    if (finding->caught)
        printf("| %s | %s | seed %" PRIu64 " | %s |\n", faults[fault].name, faults[fault].breaks, finding->seed,
               finding->invariant);
    else
        printf("| %s | %s | NOT CAUGHT | |\n", faults[fault].name, faults[fault].breaks);
    return finding->caught;
}

/* Waits for one of the processes. */
static void collect(struct finding findings[SIM_FAULT_COUNT])
{
    int status;
    pid_t pid = wait(&status);
    for (int i = 1; i < SIM_FAULT_COUNT; i++) {
        struct finding *finding = &findings[i];
        if (finding->pid != pid || finding->done)
            continue;
        finding->done = true;
        if (WIFSIGNALED(status)) {
            finding->caught = true;
            snprintf(finding->invariant, sizeof finding->invariant, "an assertion in the code");
        }
    }
}

int main(int argc, char **argv)
{
    static const struct option names[] = {{"seeds", required_argument, NULL, 's'},
                                          {"jobs", required_argument, NULL, 'j'},
                                          {"fault", required_argument, NULL, 'f'},
                                          {0}};
    uint64_t first = 1, last = 100;
    long jobs = sysconf(_SC_NPROCESSORS_ONLN), running = 0;
    const char *only = NULL;
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (option == 's' && sscanf(optarg, "%" SCNu64 "..%" SCNu64, &first, &last) == 2)
            continue;
        if (option == 'j') {
            jobs = strtol(optarg, NULL, 10);
        } else if (option == 'f') {
            only = optarg;
        } else {
            fprintf(stderr, "usage: sim_prove [--seeds A..B] [--jobs N] [--fault NAME]\n");
            return 2;
        }
    }
    log_setup(LOG_ERROR, LOG_FORMAT_TEXT);
    struct finding *findings =
        mmap(NULL, SIM_FAULT_COUNT * sizeof *findings, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (findings == MAP_FAILED)
        return 1;
    int missed = 0, proved = 0;
    for (int i = 1; i < SIM_FAULT_COUNT; i++) {
        if (only != NULL && strcmp(only, faults[i].name) != 0)
            continue;
        if (running == jobs)
            collect(findings);
        else
            running++;
        pid_t pid = fork();
        if (pid == 0) {
            look_for((enum sim_fault)i, first, last, &findings[i]);
            _exit(0);
        }
        findings[i].pid = pid;
    }
    while (running-- > 0)
        collect(findings);
    for (int i = 1; i < SIM_FAULT_COUNT; i++)
        if (findings[i].pid != 0) {
            missed += !report((enum sim_fault)i, &findings[i]);
            proved++;
        }
    printf("%d deliberate faults, %d not caught\n", proved, missed);
    return missed == 0 && proved > 0 ? 0 : 1;
}
