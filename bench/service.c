/* The service at the far end of every route: one epoll loop, one buffer.
 *
 * A connection's first byte says what it is for: 'S' a sink that reads and forgets, 'F' a flood that writes until the
 * client has had enough, anything else an echo. Prints its port and serves until it is told to end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 64 * 1024, EVENTS = 256, BACKLOG = 4096 };
enum kind { UNKNOWN, ECHO, SINK, FLOOD };

struct client {
    enum kind kind;
    char *unsent; /* what the kernel did not take of an echo; nothing more is read before it has gone */
    size_t offset, length;
};

static int poll_fd;
static struct client *clients; /* by descriptor */
static char buffer[BUFFER];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void end(int fd)
{
    free(clients[fd].unsent);
    clients[fd] = (struct client){0};
    close(fd);
}

static void watch(int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(poll_fd, EPOLL_CTL_MOD, fd, &event))
        fail("epoll_ctl");
}

static void accept_all(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EAGAIN)
                return;
            if (errno == ECONNABORTED)
                continue;
            fail("accept");
        }
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event))
            fail("epoll_ctl");
    }
}

/* Whether the connection goes on. */
static int flood(int fd)
{
    return send(fd, buffer, BUFFER, MSG_NOSIGNAL) >= 0 || errno == EAGAIN;
}

static int flush(int fd)
{
    struct client *client = &clients[fd];
    ssize_t sent = send(fd, client->unsent + client->offset, client->length - client->offset, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN;
    client->offset += sent;
    if (client->offset == client->length) {
        free(client->unsent);
        client->unsent = NULL;
        watch(fd, EPOLLIN);
    }
    return 1;
}

static int received(int fd, size_t length)
{
    struct client *client = &clients[fd];
    if (client->kind == UNKNOWN) {
        client->kind = buffer[0] == 'S' ? SINK : buffer[0] == 'F' ? FLOOD : ECHO;
        if (client->kind == FLOOD)
            watch(fd, EPOLLIN | EPOLLOUT);
    }
    if (client->kind != ECHO)
        return 1;
    ssize_t sent = send(fd, buffer, length, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN)
            return 0;
        sent = 0;
    }
    if ((size_t)sent < length) {
        client->offset = 0;
        client->length = length - sent;
        client->unsent = malloc(client->length);
        memcpy(client->unsent, buffer + sent, client->length);
        watch(fd, EPOLLOUT);
    }
    return 1;
}

static void serve(int fd, uint32_t events)
{
    struct client *client = &clients[fd];
    if (events & EPOLLOUT) {
        if (!(client->kind == FLOOD ? flood(fd) : flush(fd))) {
            end(fd);
            return;
        }
    }
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)) || client->unsent)
        return;
    ssize_t length = recv(fd, buffer, BUFFER, 0);
    if (length < 0 && errno == EAGAIN)
        return;
    if (length <= 0 || !received(fd, length))
        end(fd);
}

int main(void)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    clients = calloc(files.rlim_cur, sizeof *clients);
    poll_fd = epoll_create1(0);

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, BACKLOG)
        || getsockname(listener, (struct sockaddr *)&address, &size))
        fail("listen");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &event);
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);

    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(poll_fd, events, EVENTS, -1);
        for (int index = 0; index < count; index++) {
            int fd = events[index].data.fd;
            if (fd == listener)
                accept_all(listener);
            else
                serve(fd, events[index].events);
        }
    }
}
