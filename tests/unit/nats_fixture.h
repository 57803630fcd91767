/* Real nats-servers for tests: started on free loopback ports with temporary store directories.
 *
 * A server dies with the process that started it, however that ends; the directories are removed by
 * nats_fixture_done() in the process that runs the test suite. Failures fail the running test. */
#ifndef SBX_TESTS_NATS_FIXTURE_H
#define SBX_TESTS_NATS_FIXTURE_H

#include <stdbool.h>
#include <sys/types.h>

struct nats_server {
    pid_t pid; /* 0 while it does not run */
    int port;
    char dir[128];
    char url[64];
};

/* In main(), around the suite. */
void nats_fixture_init(void);
void nats_fixture_done(void);

/* A port that is free now. */
int nats_free_port(void);
/* Starts with deploy/nats/local.conf and `extra_conf` (NULL: none) and returns when the server accepts. A zeroed struct
 * becomes a new server; one that was stopped starts again, at its port and with its store. */
void nats_server_start(struct nats_server *server, const char *extra_conf);
/* SIGKILL; works on a frozen or stopped one, too. */
void nats_server_stop(struct nats_server *server);
/* SIGSTOP and SIGCONT; returns when the kernel has stopped it. */
void nats_server_freeze(struct nats_server *server);
void nats_server_thaw(struct nats_server *server);

#endif
