/* signalboxctl: one file for each group of subcommands, one table of them all.
 *
 * A subcommand prints its result on standard output and its reason for failing on standard error.
 */
#ifndef SBX_CTL_CTL_H
#define SBX_CTL_CTL_H

/* COMMAND(name, arguments, summary, details): implemented by ctl_<name>(). */
#define CTL_COMMANDS(COMMAND)                                                                                          \
    COMMAND(token, "--room ROOM --identity WHO [OPTION...]", "make an access token", CTL_TOKEN_HELP)                   \
    COMMAND(view, "[--json]", "show the live shards and gateways", CTL_VIEW_HELP)                                      \
    COMMAND(room, "NAME [--project PROJECT] [--json]", "show a room: owner, epoch, participants", CTL_ROOM_HELP)       \
    COMMAND(where, "NAME [--project PROJECT]", "compute which shard owns a room", CTL_WHERE_HELP)                      \
    COMMAND(explain, "NAME [--project PROJECT] [--json]", "explain why that shard owns it", CTL_EXPLAIN_HELP)          \
    COMMAND(drain, "NODE [--deadline SECONDS]", "send a shard or gateway away in order", CTL_DRAIN_HELP)               \
    COMMAND(health, "HOST:PORT", "ask a program whether it is ready", CTL_HEALTH_HELP)

enum ctl_exit {
    CTL_OK = 0,
    CTL_FAILED = 1, /* the cluster did not answer, or said no */
    CTL_USAGE = 2,
    CTL_NOT_FOUND = 3, /* no such room */
};

struct ctl_command {
    const char *name, *arguments, *summary, *details;
    /* `argv[0]` is the subcommand's name. */
    enum ctl_exit (*run)(const struct ctl_command *command, int argc, char **argv);
};

#define COMMAND(name, arguments, summary, details)                                                                     \
    enum ctl_exit ctl_##name(const struct ctl_command *command, int argc, char **argv);
CTL_COMMANDS(COMMAND)
#undef COMMAND

void ctl_print_help(const struct ctl_command *command);
/* One line on standard error, with the program's and the subcommand's name in front. Returns CTL_USAGE. */
enum ctl_exit ctl_usage(const struct ctl_command *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same for what failed; returns CTL_FAILED. */
enum ctl_exit ctl_failed(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
