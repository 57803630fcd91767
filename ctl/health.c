/* signalboxctl health: a program's own listener, asked whether it may take work. For containers' health checks, whose
 * image has neither a shell nor curl. */
#include "ctl/ctl.h"
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { HEALTH_TIMEOUT_S = 2, ANSWER_MAX = 2048, HOST_MAX = 256 };

/* A connected socket with a time limit on both ways, or -1. */
static int connect_to(const char *host, const char *port)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    const struct timeval limit = {.tv_sec = HEALTH_TIMEOUT_S};
    struct addrinfo *addresses = NULL;
    int fd = -1;

    if (getaddrinfo(host, port, &hints, &addresses) != 0)
        return -1;
    for (struct addrinfo *each = addresses; each != NULL && fd < 0; each = each->ai_next) {
        fd = socket(each->ai_family, each->ai_socktype | SOCK_CLOEXEC, 0);
        if (fd < 0)
            continue;
        /* On Linux the limit of sending is that of connecting, too. */
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        if (connect(fd, each->ai_addr, each->ai_addrlen) != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(addresses);
    return fd;
}

/* The answer up to its end, its limit, or the time limit; never longer than `size` - 1. */
static void ask_ready(int fd, char *answer, size_t size)
{
    static const char request[] = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    size_t got = 0;
    ssize_t n;

    if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) == (ssize_t)(sizeof request - 1)) {
        while (got < size - 1 && (n = recv(fd, answer + got, size - 1 - got, 0)) > 0)
            got += (size_t)n;
    }
    answer[got] = '\0';
}

enum ctl_exit ctl_health(const struct ctl_command *command, int argc, char **argv)
{
    char host[HOST_MAX], answer[ANSWER_MAX];
    const char *address = argc == 2 ? argv[1] : "";
    const char *colon = strrchr(address, ':');

    if (strcmp(address, "--help") == 0) {
        ctl_print_help(command);
        return CTL_OK;
    }
    if (colon == NULL || colon == address || colon[1] == '\0' || (size_t)(colon - address) >= sizeof host)
        return ctl_usage(command, "takes one HOST:PORT");
    /* [::1]:9601 */
    bool bracketed = address[0] == '[' && colon[-1] == ']';
    size_t size = (size_t)(colon - address) - (bracketed ? 2 : 0);
    memcpy(host, address + (bracketed ? 1 : 0), size);
    host[size] = '\0';

    int fd = connect_to(host, colon + 1);
    if (fd < 0)
        return ctl_failed("nothing answers at %s, which is to be a program's admin.listen", address);
    ask_ready(fd, answer, sizeof answer);
    close(fd);
    const char *body = strstr(answer, "\r\n\r\n");
    if (strncmp(answer, "HTTP/1.1 ", 9) != 0 || body == NULL)
        return ctl_failed("%s does not speak as a program's admin.listen does", address);
    bool ready = strncmp(answer + 9, "200", 3) == 0;
    const char *text = body + 4;
    int length = (int)strcspn(text, "\r\n");
    if (!ready)
        return ctl_failed("%s: %.*s", address, length, text);
    printf("%.*s\n", length, text);
    return CTL_OK;
}
