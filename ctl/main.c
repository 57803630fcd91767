/* signalboxctl: the operator's tool. */
#include "ctl/ctl.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define CTL_TOKEN_HELP                                                                                                 \
    "  --key KEY            API key; default: $SIGNALBOX_API_KEY\n"                                                    \
    "  --secret SECRET      its secret; default: $SIGNALBOX_API_SECRET, which does not show in process lists\n"        \
    "  --room ROOM          the room that may be joined\n"                                                             \
    "  --identity WHO       who joins; unique in the room\n"                                                           \
    "  --invite             a token without identity, for the demo's invitation links\n"                               \
    "  --name NAME          the name that others see\n"                                                                \
    "  --metadata TEXT      the application's own words about the participant\n"                                       \
    "  --ttl TIME           how long it is valid: 90s, 30m, 6h, 7d (default 6h)\n"                                     \
    "  --can-publish        may publish tracks, said expressly (the default allows it)\n"                              \
    "  --no-publish         may not publish tracks\n"                                                                  \
    "  --no-subscribe       may not receive tracks\n"                                                                  \
    "  --no-data            may not send messages\n"                                                                   \
    "  --admin              may administer the room\n"                                                                 \
    "  --hidden             is not seen by others\n"                                                                   \
    "  --sfu                may join as a media server\n\n"                                                            \
    "Examples:\n"                                                                                                      \
    "  signalboxctl token --key devkey --secret \"$SECRET\" --room demo --identity alice\n"                            \
    "  signalboxctl token --room demo --identity bob --name Bob --no-publish --ttl 30m\n"

#define CTL_NATS_HELP                                                                                                  \
    "  --nats URL[,URL]     the cluster's NATS servers; default: $SIGNALBOX_NATS, or nats://127.0.0.1:4222\n"          \
    "  --config FILE        a gateway's or shard's configuration, to take the NATS servers and credentials from\n"

#define CTL_VIEW_HELP                                                                                                  \
    CTL_NATS_HELP "  --json               for programs\n\n"                                                            \
                  "Examples:\n"                                                                                        \
                  "  signalboxctl view --nats nats://10.0.0.5:4222\n"                                                  \
                  "  signalboxctl view --config /etc/signalbox/shard.conf --json\n"

#define CTL_ROOM_HELP                                                                                                  \
    CTL_NATS_HELP "  --project PROJECT    the room's project; without it, rooms of that name in any project\n"         \
                  "  --json               for programs\n\n"                                                            \
                  "Examples:\n"                                                                                        \
                  "  signalboxctl room demo\n"                                                                         \
                  "  signalboxctl room eu/standup --project acme --json\n"

#define CTL_WHERE_HELP                                                                                                 \
    CTL_NATS_HELP "  --seed HEX           the cluster's placement_seed; default: --config's\n"                         \
                  "  --project PROJECT    the room's project (default \"default\")\n\n"                                \
                  "The owner is a function of the view, the seed and the name: no shard is asked.\n\n"                 \
                  "Examples:\n"                                                                                        \
                  "  signalboxctl where demo --config run/shard-1.conf\n"                                              \
                  "  signalboxctl where eu/standup --project acme --seed 000102030405060708090a0b0c0d0e0f\n"

#define CTL_HEALTH_HELP                                                                                                \
    "HOST:PORT is the admin.listen of a gateway or a shard. Fails, with the reason, unless it is ready.\n\n"           \
    "Examples:\n"                                                                                                      \
    "  signalboxctl health 127.0.0.1:9601\n"

#define CTL_EXPLAIN_HELP                                                                                               \
    CTL_NATS_HELP "  --seed HEX           the cluster's placement_seed; default: --config's\n"                         \
                  "  --project PROJECT    the room's project (default \"default\")\n"                                  \
                  "  --json               for programs\n\n"                                                            \
                  "Shows every shard with its weight (in force, and configured) and its score for the room in this\n"  \
                  "view and in the entry before, the owner in both, and what has changed between them. The highest\n"  \
                  "score owns the room; '-' marks a shard that does not compete.\n\n"                                  \
                  "Examples:\n"                                                                                        \
                  "  signalboxctl explain demo --config run/shard-1.conf\n"                                            \
                  "  signalboxctl explain eu/standup --project acme --config /etc/signalbox/shard.conf --json\n"

#define CTL_DRAIN_HELP                                                                                                 \
    CTL_NATS_HELP "  --deadline SECONDS   it goes within this time; default: what its configuration says\n\n"          \
                  "NODE is the node.id of a shard or gateway, as signalboxctl view lists it. It does what SIGTERM\n"   \
                  "makes it do: a shard hands its rooms over in steps, a gateway sends its clients to others at a\n"   \
                  "pace; then it leaves the view and ends. Prints how far it is until it is gone. To stop watching,\n" \
                  "interrupt; the drain goes on.\n\n"                                                                  \
                  "Examples:\n"                                                                                        \
                  "  signalboxctl drain shard-2 --nats nats://10.0.0.5:4222\n"                                         \
                  "  signalboxctl drain gateway-1 --deadline 120\n"

static const struct ctl_command commands[] = {
#define COMMAND(name, arguments, summary, details) {#name, arguments, summary, details, ctl_##name},
    CTL_COMMANDS(COMMAND)
#undef COMMAND
};

enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

void ctl_print_help(const struct ctl_command *command)
{
    printf("Usage: signalboxctl %s %s\n\n%c%s.\n\n%s", command->name, command->arguments,
           command->summary[0] - 'a' + 'A', command->summary + 1, command->details);
}

enum ctl_exit ctl_usage(const struct ctl_command *command, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "signalboxctl %s: ", command->name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "; signalboxctl %s --help says what it takes\n", command->name);
    return CTL_USAGE;
}

enum ctl_exit ctl_failed(const char *format, ...)
{
    va_list args;

    fputs("signalboxctl: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return CTL_FAILED;
}

static void print_overview(FILE *out)
{
    fputs("Usage: signalboxctl COMMAND [OPTION...]\n\n", out);
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(out, "  %-8s %s\n", commands[i].name, commands[i].summary);
    fputs("  help     this text; help COMMAND explains one\n\n"
          "Exit codes: 0 done; 1 it failed; 2 the command line is wrong; 3 there is no such room or node.\n",
          out);
}

static const struct ctl_command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    const struct ctl_command *command = find_command(name);

    if (command != NULL)
        return command->run(command, argc - 1, argv + 1);
    if (strcmp(name, "--version") == 0) {
        printf("signalboxctl %s\n", SBX_VERSION);
        return CTL_OK;
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0) {
        command = argc > 2 ? find_command(argv[2]) : NULL;
        if (command != NULL)
            ctl_print_help(command);
        else
            print_overview(stdout);
        return CTL_OK;
    }
    if (name[0] != '\0')
        fprintf(stderr, "signalboxctl: there is no command '%s'\n\n", name);
    print_overview(stderr);
    return CTL_USAGE;
}
