/* Opens a TCP listener and says in words why it could not.
 *
 * Threading: any thread.
 */
#ifndef SBX_COMMON_LISTENER_H
#define SBX_COMMON_LISTENER_H

#include <stdbool.h>
#include <stddef.h>

struct listener_options {
    const char *key;    /* the configuration's name for the address, for the error text */
    const char *listen; /* "address:port" or "[v6]:port", numeric; port 0 takes any */
    int backlog;
    bool reuse_port;         /* several processes may share the port */
    int socket_buffer_bytes; /* of accepted connections, each way; 0 = the system's choice */
};

/* The descriptor (non-blocking, close-on-exec), or -1 with a text in `error` that says what, where and what to do. */
int listener_open(const struct listener_options *options, unsigned *ret_port, char *error, size_t error_size);

#endif
