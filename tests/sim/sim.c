/* sim [--seeds A..B | --seed N] [--jobs N] [--twice] [--verbose] [--json FILE]: plays the seeds, reports what befell
 * them, and tells the story of those that fail.
 *
 * Seeds are shared out among processes; each reports a seed's result over a pipe. The story of a failing seed is told
 * by playing it again, which must go exactly as it did before. */
#include "common/log.h"
#include "common/mem.h"
#include "tests/sim/play.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { JOBS_MAX = 64, STORIES_MAX = 5, EDGES_SEEDS_MIN = 1000 };
/* What --seeds 1..5000 must take on two cores at most. */
static const double SECONDS_BAR = 600;

struct options {
    uint64_t first, last;
    long jobs;
    bool twice, verbose;
    const char *json_path;
};

struct report {
    struct options options;
    uint64_t played, violations, fleets, repeated_otherwise;
    uint64_t failed[STORIES_MAX];
    uint64_t digests[STORIES_MAX];
    uint64_t injected[INJECTED_COUNT];
    uint64_t edges[ROOM_EDGE_COUNT];
    double seconds;
};

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* --- one process's share --------------------------------------------------------------------------------------- */

struct message {
    struct play_result result;
    bool repeated_otherwise;
};

static void play_share(const struct options *options, long job, int out)
{
    for (uint64_t seed = options->first + (uint64_t)job; seed <= options->last; seed += (uint64_t)options->jobs) {
        struct message message = {0};
        struct story *story = story_new(STORY_CLUSTER, options->verbose);
        play_seed(seed, story, &message.result);
        story_free(&story);
        if (options->twice) {
            struct play_result again;
            story = story_new(0, false);
            play_seed(seed, story, &again);
            story_free(&story);
            message.repeated_otherwise = again.digest != message.result.digest;
        }
        if (write(out, &message, sizeof message) != sizeof message)
            _exit(1);
    }
    _exit(0);
}

/* --- all of them ----------------------------------------------------------------------------------------------- */

/* Failing seeds are told of in their order, the lowest first. */
static void note_failure(struct report *report, const struct play_result *result)
{
    size_t count = report->violations < STORIES_MAX ? (size_t)report->violations : STORIES_MAX;
    size_t at = count < STORIES_MAX ? count : STORIES_MAX - 1;
    report->violations++;
    if (count == STORIES_MAX && report->failed[at] < result->seed)
        return;
    for (; at > 0 && report->failed[at - 1] > result->seed; at--) {
        report->failed[at] = report->failed[at - 1];
        report->digests[at] = report->digests[at - 1];
    }
    report->failed[at] = result->seed;
    report->digests[at] = result->digest;
}

static void add_result(struct report *report, const struct message *message)
{
    report->played++;
    report->fleets += message->result.fleet;
    report->repeated_otherwise += message->repeated_otherwise;
    if (message->repeated_otherwise)
        printf("seed %" PRIu64 " went otherwise the second time\n", message->result.seed);
    for (int i = 0; i < INJECTED_COUNT; i++)
        report->injected[i] += message->result.injected[i];
    for (int i = 0; i < ROOM_EDGE_COUNT; i++)
        report->edges[i] += message->result.edges[i];
    if (!message->result.held) {
        printf("seed %" PRIu64 " fails\n", message->result.seed);
        note_failure(report, &message->result);
    }
}

/* False if a process died: the seed that it was at is not among those played. */
static bool play_all(struct report *report)
{
    int ends[2], status;
    bool complete = true;
    struct message message;
    if (pipe(ends) != 0)
        return false;
    fflush(NULL);
    for (long job = 0; job < report->options.jobs; job++) {
        pid_t pid = fork();
        if (pid < 0)
            return false;
        if (pid == 0) {
            close(ends[0]);
            play_share(&report->options, job, ends[1]);
        }
    }
    close(ends[1]);
    for (ssize_t size; (size = read(ends[0], &message, sizeof message)) != 0;) {
        if (size == sizeof message)
            add_result(report, &message);
        else if (size > 0 || errno != EINTR)
            abort();
    }
    close(ends[0]);
    while (wait(&status) > 0)
        complete &= status == 0;
    return complete;
}

static bool tell_story(uint64_t seed, uint64_t digest)
{
    struct play_result result;
    struct story *story = story_new(STORY_CLUSTER, false);
    play_seed(seed, story, &result);
    int room = story_room(story);
    story_free(&story);
    story = story_new(room, false);
    play_seed(seed, story, &result);
    printf("seed %" PRIu64 ":\n", seed);
    story_print(story, stdout);
    story_free(&story);
    if (result.digest != digest)
        printf("seed %" PRIu64 " went otherwise the second time\n", seed);
    return result.digest == digest;
}

/* --- the report ------------------------------------------------------------------------------------------------ */

static bool figure(json_t *figures, const char *name, double value, const char *unit, const char *op, double bar)
{
    bool ok = strcmp(op, "<=") == 0 ? value <= bar : value == bar;
    printf("figure %s %g %s bar %s %g %s\n", name, value, unit, op, bar, ok ? "ok" : "short");
    json_array_append_new(figures, json_pack("{s:s, s:f, s:s, s:s, s:f, s:b}", "name", name, "value", value, "unit",
                                             unit, "op", op, "bar", bar, "ok", ok));
    return ok;
}

/* Returns how many edges were never taken. */
static int print_edges(const struct report *report, json_t *edges)
{
    static const struct {
        const char *from, *to, *when;
    } table[ROOM_EDGE_COUNT] = {
#define EDGE(edge_from, edge_to, edge_when) {#edge_from, #edge_to, edge_when},
        ROOM_EDGES(EDGE)
#undef EDGE
    };
    int untaken = 0;
    printf("what a room is to a shard: every edge of shard/states.h, and how often it was taken\n");
    for (int i = 0; i < ROOM_EDGE_COUNT; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s -> %s", table[i].from, table[i].to);
        printf("%12" PRIu64 "  %-24s %s\n", report->edges[i], name, table[i].when);
        json_object_set_new(edges, name, json_integer((json_int_t)report->edges[i]));
        untaken += report->edges[i] == 0;
    }
    return untaken;
}

static bool print_report(const struct report *report, bool complete)
{
    const struct options *options = &report->options;
    uint64_t wanted = options->last - options->first + 1;
    json_t *figures = json_array(), *injected = json_object();
    for (int i = 0; i < INJECTED_COUNT; i++) {
        printf("%12" PRIu64 "  %s\n", report->injected[i], play_injected_help((enum injected)i));
        json_object_set_new(injected, play_injected_help((enum injected)i),
                            json_integer((json_int_t)report->injected[i]));
    }
    printf("%12" PRIu64 "  fleets of 8 shards and 64 gateways\n", report->fleets);
    json_t *edges = json_object();
    int untaken = print_edges(report, edges);
    bool ok = complete;
    if (report->played >= EDGES_SEEDS_MIN)
        ok &= figure(figures, "sim_edges_not_taken", untaken, "edges", "==", 0);
    ok &= figure(figures, "sim_seeds_not_played", (double)(wanted - report->played), "seeds", "==", 0);
    ok &= figure(figures, "sim_violations", (double)report->violations, "seeds", "==", 0);
    if (options->twice)
        ok &= figure(figures, "sim_seeds_not_repeated", (double)report->repeated_otherwise, "seeds", "==", 0);
    else
        ok &= figure(figures, "sim_time", report->seconds, "s", "<=", SECONDS_BAR);
    printf("%" PRIu64 " seeds, %" PRIu64 " violations\n", report->played, report->violations);
    json_t *whole =
        json_pack("{s:o, s:o, s:o, s:b}", "figures", figures, "injected", injected, "edges", edges, "ok", ok);
    if (options->json_path != NULL && json_dump_file(whole, options->json_path, JSON_INDENT(2)) != 0) {
        fprintf(stderr, "cannot write %s\n", options->json_path);
        ok = false;
    }
    json_decref(whole);
    return ok;
}

static bool parse_options(int argc, char **argv, struct options *options)
{
    static const struct option names[] = {{"seeds", required_argument, NULL, 's'},
                                          {"seed", required_argument, NULL, '1'},
                                          {"jobs", required_argument, NULL, 'j'},
                                          {"twice", no_argument, NULL, 't'},
                                          {"verbose", no_argument, NULL, 'v'},
                                          {"json", required_argument, NULL, 'o'},
                                          {0}};
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (option == 's' && sscanf(optarg, "%" SCNu64 "..%" SCNu64, &options->first, &options->last) == 2)
            continue;
        if (option == '1' && sscanf(optarg, "%" SCNu64, &options->first) == 1)
            options->last = options->first;
        else if (option == 'j')
            options->jobs = strtol(optarg, NULL, 10);
        else if (option == 't')
            options->twice = true;
        else if (option == 'v')
            options->verbose = true;
        else if (option == 'o')
            options->json_path = optarg;
        else
            return false;
    }
    return optind == argc && options->first <= options->last && options->jobs >= 1 && options->jobs <= JOBS_MAX;
}

int main(int argc, char **argv)
{
    struct report report = {.options = {.first = 1, .last = 100, .jobs = sysconf(_SC_NPROCESSORS_ONLN)}};
    if (!parse_options(argc, argv, &report.options)) {
        fprintf(stderr, "usage: sim [--seeds A..B | --seed N] [--jobs N] [--twice] [--verbose] [--json FILE]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    log_setup(LOG_ERROR, LOG_FORMAT_TEXT);
    double started_s = seconds_now();
    bool complete = play_all(&report);
    report.seconds = seconds_now() - started_s;
    for (uint64_t i = 0; i < report.violations && i < STORIES_MAX; i++)
        complete &= tell_story(report.failed[i], report.digests[i]);
    return print_report(&report, complete) ? 0 : 1;
}
