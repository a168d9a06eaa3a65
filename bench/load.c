/* A load generator that is no bottleneck: one epoll loop, times by the monotonic clock, every sample kept.
 *
 *   load churn    -p PORT -c FLOWS -n COUNT -s BYTES -t SEC   connect, one request, its echo, close; FLOWS at a time,
 *                                           [-r RATE]         or when each is due, but never more than FLOWS at a time
 *   load pingpong -p PORT -c FLOWS -n COUNT -s BYTES -t SEC   each flow sends when its last message has come back
 *   load openloop -p PORT -c FLOWS -r RATE  -s BYTES -t SEC   RATE messages a second, over the flows in turn
 *   load upload   -p PORT -c FLOWS -t SEC                     as much as goes, to a sink; ends when it has it all
 *   load download -p PORT -c FLOWS -t SEC                     as much as comes, of a flood
 *
 * It ends after COUNT samples or SEC seconds, whichever is first, and prints one JSON object: `count`, `failed`, `sec`,
 * `bytes`, its own `cpu_sec`, and of the samples p50, p99, p999, max in nanoseconds. Samples of the first WARM share of
 * pingpong and openloop are left out, so that no route pays for its first bytes.
 *
 * An open loop has a timetable: message i is due at i / RATE, whether or not earlier ones have come back, and its time
 * counts from when it was due. So a pause costs all messages that were due in it (no coordinated omission), and what
 * the generator itself is late counts as well.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, CHUNK = 256 * 1024, PENDING = 1 << 12, SOURCES = 64, OPENING = 64 };
enum { ENDED = EPOLLRDHUP | EPOLLERR | EPOLLHUP };
static const int64_t SECOND = 1000000000;
static const double WARM = 0.1;

struct flow {
    int fd, connected;
    int64_t began;       /* when its message was due, or its connection was asked for */
    size_t missing;      /* bytes that the message under way still waits for */
    size_t unsent;       /* bytes of messages that the kernel has not taken */
    int64_t *due;        /* open loop: a ring of when the messages under way were due */
    uint32_t head, tail; /* of that ring, modulo PENDING */
};

static int poll_fd, port, size = 128, concurrency = 1;
static int64_t count = INT64_MAX, seconds_ns, rate, started, counted_from, asked, failed, bytes;
static int64_t *samples;
static size_t taken, room;
static char buffer[CHUNK];
static struct flow *flows;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static void sample(int64_t from, int64_t to)
{
    if (from < counted_from)
        return;
    if (taken == room && !(samples = realloc(samples, (room = room ? 2 * room : 65536) * sizeof *samples)))
        fail("realloc");
    samples[taken++] = to - from;
}

/* Sources of their own for every connection's address pair: one address has 28,000 ports, which rest in TIME_WAIT for
 * some time after each use. */
static void open_flow(struct flow *flow, int64_t time)
{
    static uint32_t source;
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f010001 + source++ % SOURCES)};
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    flow->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (flow->fd < 0)
        fail("socket");
    setsockopt(flow->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(flow->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(flow->fd, (struct sockaddr *)&from, sizeof from))
        fail("bind");
    flow->began = time;
    flow->connected = 0;
    flow->missing = flow->unsent = 0;
    if (connect(flow->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
        fail("connect");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = flow};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, flow->fd, &event))
        fail("epoll_ctl");
}

/* Whether the connection holds. */
static int push(struct flow *flow)
{
    while (flow->unsent) {
        size_t length = flow->unsent < CHUNK ? flow->unsent : CHUNK;
        ssize_t sent = send(flow->fd, buffer, length, MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN;
        flow->unsent -= sent;
    }
    return 1;
}

/* Bytes that arrived, 0 for none now, -1 at the connection's end. Less than asked for is all there is: the next edge
 * tells of more, but for an end that this edge has told of already (ENDED). */
static ssize_t pull(struct flow *flow, size_t length)
{
    ssize_t got = recv(flow->fd, buffer, length, 0);
    if (got < 0)
        return errno == EAGAIN ? 0 : -1;
    return got ? got : -1;
}

/* Waits for events until `until`, or without end if that is 0. */
static int wait_events(struct epoll_event *events, int64_t until)
{
    struct timespec left = {0}, *limit = NULL;
    if (until) {
        int64_t rest = until - now();
        if (rest > 0)
            left = (struct timespec){rest / SECOND, rest % SECOND};
        limit = &left;
    }
    int got = syscall(SYS_epoll_pwait2, poll_fd, events, EVENTS, limit, NULL, 0);
    if (got < 0 && errno != EINTR)
        fail("epoll_pwait2");
    return got < 0 ? 0 : got;
}

static int over(int64_t time)
{
    return time >= started + seconds_ns;
}

static int64_t due_next(void)
{
    return started + (int64_t)((double)asked * SECOND / rate);
}

/* 0: the next connection is due later, or never. */
static int churn_next(struct flow *flow, int64_t time)
{
    int64_t due = rate ? due_next() : time;
    flow->fd = -1;
    if (asked >= count || over(due) || due > time)
        return 0;
    asked++;
    open_flow(flow, due);
    return 1;
}

/* 1 once the echo is complete, 0 before, -1 if the connection broke. */
static int churn_step(struct flow *flow, uint32_t events)
{
    if (events & EPOLLOUT) {
        if (!flow->connected) {
            flow->connected = 1;
            flow->missing = flow->unsent = size;
        }
        if (!push(flow))
            return -1;
    }
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        ssize_t got = pull(flow, flow->connected ? flow->missing : 1);
        if (got < 0)
            return -1;
        flow->missing -= got;
        if (flow->connected && !flow->missing)
            return 1;
        return events & ENDED ? -1 : 0;
    }
    return 0;
}

static void churn(void)
{
    struct flow *idle[concurrency]; /* a stack */
    int spare = 0;
    while (spare < concurrency)
        idle[spare] = &flows[spare], spare++;
    for (;;) {
        int64_t time = now();
        while (spare && churn_next(idle[spare - 1], time))
            spare--;
        int ended = asked >= count || over(rate ? due_next() : time);
        if (ended && spare == concurrency)
            return;
        struct epoll_event events[EVENTS];
        int got = wait_events(events, rate && spare && !ended ? due_next() : 0);
        for (int index = 0; index < got; index++) {
            struct flow *flow = events[index].data.ptr;
            int done = churn_step(flow, events[index].events);
            if (!done)
                continue;
            time = now();
            if (done > 0)
                sample(flow->began, time);
            else
                failed++;
            close(flow->fd);
            idle[spare++] = flow;
        }
    }
}

/* Every flow stands and has echoed a message before the time starts; few open at the same time. */
static void open_all(void)
{
    for (int begun = 0, stand = 0; stand < concurrency;) {
        while (begun < concurrency && begun - stand < OPENING)
            open_flow(&flows[begun++], now());
        struct epoll_event events[EVENTS];
        int got = wait_events(events, 0);
        for (int index = 0; index < got; index++) {
            struct flow *flow = events[index].data.ptr;
            if (flow->connected && !flow->missing)
                continue; /* it stands */
            int done = churn_step(flow, events[index].events);
            if (done < 0) {
                fprintf(stderr, "a flow did not open\n");
                exit(1);
            }
            stand += done;
        }
    }
}

static void broke(struct flow *flow)
{
    failed++;
    close(flow->fd);
    flow->fd = -1;
}

static void pingpong_next(struct flow *flow, int64_t time)
{
    flow->began = time;
    flow->missing = flow->unsent = size;
    asked++;
    if (!push(flow))
        broke(flow);
}

static void pingpong(void)
{
    open_all();
    started = now();
    counted_from = started + WARM * seconds_ns;
    for (int index = 0; index < concurrency; index++)
        pingpong_next(&flows[index], now());
    while (taken < (size_t)count && (!taken || !over(now())) && failed < concurrency) { /* one sample at least */
        struct epoll_event events[EVENTS];
        int got = wait_events(events, taken ? started + seconds_ns : 0);
        for (int index = 0; index < got; index++) {
            struct flow *flow = events[index].data.ptr;
            if (flow->fd < 0)
                continue;
            if (flow->unsent && (events[index].events & EPOLLOUT) && !push(flow)) {
                broke(flow);
                continue;
            }
            if (!(events[index].events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
                continue;
            ssize_t length;
            do {
                length = pull(flow, flow->missing < CHUNK ? flow->missing : CHUNK);
                if (length > 0)
                    flow->missing -= length;
            } while (length == CHUNK && flow->missing);
            if (length < 0 || (flow->missing && (events[index].events & ENDED)))
                broke(flow);
            else if (!flow->missing && length) {
                int64_t time = now();
                sample(flow->began, time);
                pingpong_next(flow, time);
            }
        }
    }
}

static void openloop_due(struct flow *flow, int64_t due)
{
    if (flow->fd < 0 || flow->head - flow->tail == PENDING) {
        failed++; /* a route that is this far behind carries no such load */
        return;
    }
    flow->due[flow->head++ % PENDING] = due;
    flow->unsent += size;
    if (!push(flow))
        broke(flow);
}

static void openloop_read(struct flow *flow, uint32_t events)
{
    ssize_t got;
    do {
        if ((got = pull(flow, CHUNK)) < 0) {
            broke(flow);
            return;
        }
        int64_t time = now();
        size_t rest = got;
        while (rest >= flow->missing && flow->tail != flow->head) {
            rest -= flow->missing;
            flow->missing = size;
            sample(flow->due[flow->tail++ % PENDING], time);
        }
        flow->missing -= rest;
    } while (got == CHUNK);
    if (events & ENDED)
        broke(flow);
}

static int under_way(void)
{
    for (int index = 0; index < concurrency; index++)
        if (flows[index].fd >= 0 && flows[index].head != flows[index].tail)
            return 1;
    return 0;
}

static void openloop(void)
{
    open_all();
    for (int index = 0; index < concurrency; index++) {
        flows[index].due = malloc(PENDING * sizeof(int64_t));
        flows[index].missing = size;
    }
    started = now();
    counted_from = started + WARM * seconds_ns;
    int64_t total = rate * (seconds_ns / 1e9), patience = started + 2 * seconds_ns + SECOND;
    while (asked < total || (under_way() && now() < patience)) {
        struct epoll_event events[EVENTS];
        int got = wait_events(events, asked < total ? due_next() : patience);
        for (int index = 0; index < got; index++) {
            struct flow *flow = events[index].data.ptr;
            if (flow->fd < 0)
                continue;
            if ((events[index].events & EPOLLOUT) && !push(flow))
                broke(flow);
            else if (events[index].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
                openloop_read(flow, events[index].events);
        }
        for (int64_t time = now(); asked < total; asked++) {
            int64_t due = due_next();
            if (due > time)
                break;
            openloop_due(&flows[asked % concurrency], due);
        }
    }
    for (int index = 0; index < concurrency; index++)
        failed += flows[index].head - flows[index].tail;
}

static void bulk(int up)
{
    memset(buffer, up ? 'S' : 'F', CHUNK);
    started = now();
    for (int index = 0; index < concurrency; index++)
        open_flow(&flows[index], started);
    while ((!bytes || !over(now())) && failed < concurrency) {
        struct epoll_event events[EVENTS];
        int got = wait_events(events, bytes ? started + seconds_ns : 0);
        for (int index = 0; index < got; index++) {
            struct flow *flow = events[index].data.ptr;
            ssize_t length = 0;
            if (!flow->connected && (events[index].events & EPOLLOUT)) {
                flow->connected = 1;
                if (!up)
                    length = send(flow->fd, buffer, 1, MSG_NOSIGNAL);
            }
            do {
                length = up ? send(flow->fd, buffer, CHUNK, MSG_NOSIGNAL) : recv(flow->fd, buffer, CHUNK, 0);
                if (length > 0)
                    bytes += length;
            } while (length > 0 && !over(now()));
            if (!length || (length < 0 && errno != EAGAIN))
                broke(flow);
        }
    }
    for (int index = 0; up && index < concurrency; index++) {
        struct pollfd end = {.fd = flows[index].fd, .events = POLLIN};
        if (end.fd >= 0 && (shutdown(end.fd, SHUT_WR) || poll(&end, 1, 30000) != 1))
            failed++;
    }
}

static int ascending(const void *one, const void *other)
{
    int64_t a = *(const int64_t *)one, b = *(const int64_t *)other;
    return (a > b) - (a < b);
}

static int64_t quantile(double share)
{
    size_t at = taken * share;
    return taken ? samples[at < taken ? at : taken - 1] : 0;
}

int main(int argc, char **argv)
{
    double seconds = 60;
    int option;
    while ((option = getopt(argc, argv, "p:c:n:s:r:t:")) != -1)
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'c': concurrency = atoi(optarg); break;
        case 'n': count = atoll(optarg); break;
        case 's': size = atoi(optarg); break;
        case 'r': rate = atoll(optarg); break;
        case 't': seconds = atof(optarg); break;
        default: return 2;
        }
    const char *work = optind < argc ? argv[optind] : "";
    if (!port || concurrency < 1 || size < 1 || size > CHUNK || (!strcmp(work, "openloop") && rate < 1)) {
        fprintf(stderr, "usage: see the head of load.c\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_TIMERSLACK, 1); /* the default, 50 us, is as long as a round trip */
    seconds_ns = seconds * SECOND;
    poll_fd = epoll_create1(0);
    flows = calloc(concurrency, sizeof *flows);
    memset(buffer, 'x', CHUNK);

    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    started = now();
    if (!strcmp(work, "churn"))
        churn();
    else if (!strcmp(work, "pingpong"))
        pingpong();
    else if (!strcmp(work, "openloop"))
        openloop();
    else if (!strcmp(work, "upload") || !strcmp(work, "download"))
        bulk(work[0] == 'u');
    else
        return 2;
    double took = (now() - started) / 1e9;
    getrusage(RUSAGE_SELF, &after);
    double cpu = after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec - before.ru_stime.tv_sec
        + (after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec - before.ru_stime.tv_usec) / 1e6;
    qsort(samples, taken, sizeof *samples, ascending);
    printf("{\"count\": %zu, \"asked\": %lld, \"failed\": %lld, \"sec\": %.6f, \"bytes\": %lld, \"cpu_sec\": %.6f, "
           "\"p50\": %lld, \"p99\": %lld, \"p999\": %lld, \"max\": %lld}\n",
        taken, (long long)asked, (long long)failed, took, (long long)bytes, cpu, (long long)quantile(0.5),
        (long long)quantile(0.99), (long long)quantile(0.999), (long long)(taken ? samples[taken - 1] : 0));
    return 0;
}
