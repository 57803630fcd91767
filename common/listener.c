#include "common/listener.h"

#include "common/mem.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Splits "address:port" or "[v6]:port" in place. */
static bool split_address(char *listen, char **ret_host, char **ret_port)
{
    char *colon = strrchr(listen, ':');
    if (colon == NULL || colon == listen || colon[1] == '\0')
        return false;
    *colon = '\0';
    if (listen[0] == '[') {
        if (colon[-1] != ']')
            return false;
        colon[-1] = '\0';
        listen++;
    } else if (strchr(listen, ':') != NULL) {
        return false;
    }
    *ret_host = listen;
    *ret_port = colon + 1;
    return *listen != '\0';
}

static struct addrinfo *resolve(const struct listener_options *options, char *error, size_t error_size)
{
    static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                          .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
    struct addrinfo *address = NULL;
    char *copy = mem_strdup(options->listen), *host, *port;
    bool valid = split_address(copy, &host, &port) && strspn(port, "0123456789") == strlen(port) && strlen(port) <= 5 &&
                 atoi(port) <= 65535 && getaddrinfo(host, port, &hints, &address) == 0;
    free(copy);
    if (valid)
        return address;
    snprintf(error, error_size, "%s %s: not an address; write address:port, such as 127.0.0.1:9090 or [::1]:9090",
             options->key, options->listen);
    return NULL;
}

static const char *advice(int error)
{
    switch (error) {
    case EADDRINUSE:
        return "address already in use; choose another port or stop the process that has it";
    case EADDRNOTAVAIL:
        return "this host has no such address; choose one of its own, or 0.0.0.0 for all";
    case EACCES:
        return "not permitted; choose a port above 1023 or grant CAP_NET_BIND_SERVICE";
    default:
        return strerror(error);
    }
}

static bool set_option(int fd, int option, int value)
{
    return setsockopt(fd, SOL_SOCKET, option, &value, sizeof(value)) == 0;
}

static bool configure(int fd, const struct listener_options *options)
{
    return set_option(fd, SO_REUSEADDR, 1) && (!options->reuse_port || set_option(fd, SO_REUSEPORT, 1)) &&
           (options->socket_buffer_bytes == 0 || (set_option(fd, SO_RCVBUF, options->socket_buffer_bytes) &&
                                                  set_option(fd, SO_SNDBUF, options->socket_buffer_bytes)));
}

int listener_open(const struct listener_options *options, unsigned *ret_port, char *error, size_t error_size)
{
    struct addrinfo *address = resolve(options, error, error_size);
    if (address == NULL)
        return -1;
    struct sockaddr_storage bound;
    socklen_t bound_size = sizeof(bound);
    memset(&bound, 0, sizeof(bound));
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || !configure(fd, options) || bind(fd, address->ai_addr, address->ai_addrlen) != 0 ||
        listen(fd, options->backlog) != 0 || getsockname(fd, (struct sockaddr *)&bound, &bound_size) != 0) {
        snprintf(error, error_size, "%s %s: %s", options->key, options->listen, advice(errno));
        if (fd >= 0)
            close(fd);
        fd = -1;
    } else {
        *ret_port = bound.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&bound)->sin6_port)
                                                : ntohs(((struct sockaddr_in *)&bound)->sin_port);
    }
    freeaddrinfo(address);
    return fd;
}
