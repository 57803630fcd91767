#include "nats_fixture.h"

#include <arpa/inet.h>
#include <check.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { START_ATTEMPTS = 3, CONNECT_ATTEMPTS = 1000 };

static char base_dir[] = "/tmp/signalbox-test-XXXXXX";

void nats_fixture_init(void)
{
    if (!mkdtemp(base_dir)) {
        perror("mkdtemp");
        exit(1);
    }
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

void nats_fixture_done(void)
{
    nftw(base_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static struct sockaddr_in loopback(int port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

int nats_free_port(void)
{
    struct sockaddr_in addr = loopback(0);
    socklen_t size = sizeof(addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&addr, &size), 0);
    close(fd);
    return ntohs(addr.sin_port);
}

static void write_conf(const struct nats_server *server, const char *extra_conf)
{
    char path[192], line[512];

    snprintf(path, sizeof(path), "%s/nats.conf", server->dir);
    FILE *to = fopen(path, "we"), *from = fopen(SBX_TEST_SOURCE_DIR "/../deploy/nats/local.conf", "re");
    ck_assert(to && from);
    while (fgets(line, sizeof(line), from))
        fputs(line, to);
    fclose(from);
    fputs(extra_conf ? extra_conf : "", to);
    ck_assert_int_eq(fclose(to), 0);
}

static pid_t spawn(const struct nats_server *server)
{
    char conf[192], log[192], port[16];
    pid_t parent = getpid();

    snprintf(conf, sizeof(conf), "%s/nats.conf", server->dir);
    snprintf(log, sizeof(log), "%s/log", server->dir);
    snprintf(port, sizeof(port), "%d", server->port);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setenv("PATH", "/usr/local/bin:/usr/bin:/usr/sbin:/usr/local/sbin", 1);
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
        execlp("nats-server", "nats-server", "-c", conf, "-a", "127.0.0.1", "-p", port, "-sd", server->dir, (char *)0);
        _exit(127);
    }
    return pid;
}

/* The first thing that a server says is INFO. */
static bool is_ready(int port)
{
    struct sockaddr_in addr = loopback(port);
    char word[4];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ready = connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 &&
                 recv(fd, word, sizeof(word), MSG_WAITALL) == sizeof(word) && memcmp(word, "INFO", 4) == 0;

    close(fd);
    return ready;
}

static bool await_ready(struct nats_server *server)
{
    for (int i = 0; i < CONNECT_ATTEMPTS; i++) {
        if (waitpid(server->pid, NULL, WNOHANG) == server->pid) {
            server->pid = 0;
            return false;
        }
        if (is_ready(server->port))
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 20 * 1000 * 1000}, NULL);
    }
    return false;
}

static void show_log(const struct nats_server *server)
{
    char path[192], line[512];

    snprintf(path, sizeof(path), "%s/log", server->dir);
    FILE *log = fopen(path, "re");
    while (log && fgets(line, sizeof(line), log))
        fputs(line, stderr);
    if (log)
        fclose(log);
}

void nats_server_start(struct nats_server *server, const char *extra_conf)
{
    bool fixed_port = server->port != 0;

    if (!server->dir[0]) {
        snprintf(server->dir, sizeof(server->dir), "%s/XXXXXX", base_dir);
        ck_assert_ptr_nonnull(mkdtemp(server->dir));
    }
    write_conf(server, extra_conf);
    /* Between choosing a port and listening on it, somebody else may have taken it. */
    for (int i = 0; i < START_ATTEMPTS; i++) {
        if (!fixed_port)
            server->port = nats_free_port();
        snprintf(server->url, sizeof(server->url), "nats://127.0.0.1:%d", server->port);
        server->pid = spawn(server);
        if (await_ready(server))
            return;
        nats_server_stop(server);
    }
    show_log(server);
    ck_abort_msg("nats-server does not start");
}

void nats_server_stop(struct nats_server *server)
{
    if (server->pid == 0)
        return;
    kill(server->pid, SIGKILL);
    waitpid(server->pid, NULL, 0);
    server->pid = 0;
}

void nats_server_freeze(struct nats_server *server)
{
    int status;

    ck_assert_int_eq(kill(server->pid, SIGSTOP), 0);
    ck_assert_int_eq(waitpid(server->pid, &status, WUNTRACED), server->pid);
    ck_assert(WIFSTOPPED(status));
}

void nats_server_thaw(struct nats_server *server)
{
    ck_assert_int_eq(kill(server->pid, SIGCONT), 0);
}
