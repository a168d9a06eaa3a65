/* LDAP clients by a timetable: one epoll loop, a BER of their own, times by the monotonic clock.
 *
 *   clients -a IPV4:PORT[,IPV4:PORT...] -r RATE -t SEC -w WARM_SEC -c CONNECTIONS -m BIND,SEARCH,MODIFY,UNBIND
 *           -l LIMIT_SEC -i SLICE_MS -e ENTRIES -b PEOPLE -D DN -P PASSWORD [-o]
 *
 * Operation i is due at i / RATE, whether or not earlier ones have been answered, and its time counts from when it was
 * due (no coordinated omission): what waits for a connection, or for a generator that is late, counts as well. It takes
 * the connection that has rested longest, as from a pool; one that is closed is opened and bound first, at the cost of
 * the operation that needs it. With -o each has a connection of its own: connect, bind, the operation, unbind. An
 * address that refuses is followed by the next.
 *
 * Of -m come the weights of the mix. A search is for one of ENTRIES people by uid, and its answer is checked; a modify
 * replaces the description of one; an unbind is over when the server has closed. What fails is not tried again. The
 * first WARM_SEC are not counted.
 *
 * One JSON object comes out at the end: when the counting started, by CLOCK_MONOTONIC in nanoseconds; a histogram of
 * microseconds for each operation, and for how late the generator was; what failed and how; for each slice of the time,
 * by when operations were due, how many were answered, how many failed, and the median and the longest of the former.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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

#include "histogram.h"
#include "messages.h"

enum { EVENTS = 256, SOURCES = 64, ADDRESSES = 8 };
static const int64_t SECOND = 1000000000, SWEEP = 50000000; /* ns; between two looks for who has waited too long */

enum operation { BIND, SEARCH, MODIFY, UNBIND, OPERATIONS };
static const char *const OPERATION[] = {"bind", "search", "modify", "unbind"};
/* How an operation fails: no address accepts; reset; a clean end; no answer in time; a result code; a wrong answer. */
enum failure { REFUSED, RESET, CLOSED, LATE, RESULT, WRONG, FAILURES };
static const char *const FAILURE[] = {"refused", "reset", "closed", "late", "result", "wrong"};

struct slice {
    struct histogram took;
    int64_t failed;
};

enum state { AWAY, CONNECTING, BINDING, RESTING, ASKING, LEAVING };
struct client {
    int fd, address, refusals;
    enum state state;
    enum operation operation;
    int64_t due;
    uint32_t entry, entries; /* who is asked for, and how many have come */
    long id;                 /* of its last message */
    size_t unsent, have;
    unsigned char out[LONGEST], in[LONGEST_READ];
};

static struct sockaddr_in addresses[ADDRESSES];
static int address_count, connections = 1, once, entries = 1000;
static int poll_fd, resting_from, resting; /* the ring of clients that have nothing to do: its first, how many */
static int weights[OPERATIONS], weight_sum;
static double rate;
static int64_t first, started, asked, begun, total, limit_ns, slice_ns, slice_count;
static int64_t failed_by[OPERATIONS], failures[FAILURES];
static int64_t dropped[FAILURES]; /* connections that were lost while no operation was on them */
static const char *people = "", *admin = "", *password = "";
static struct histogram took[OPERATIONS], lateness;
static struct slice *slices;
static struct client *clients;
static int *ring;

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

/* the timetable: when an operation is due, which it is, and for whom, all by its number */

static int64_t due_at(int64_t index)
{
    return first + (int64_t)(index * (SECOND / rate));
}

/* splitmix64: the same operations in every run */
static uint64_t drawn(int64_t index)
{
    uint64_t value = (index + 1) * 0x9e3779b97f4a7c15;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
    value = (value ^ value >> 27) * 0x94d049bb133111eb;
    return value ^ value >> 31;
}

static enum operation operation_of(int64_t index)
{
    int draw = drawn(index) % weight_sum, operation = 0;
    while (draw >= weights[operation])
        draw -= weights[operation++];
    return operation;
}

static struct slice *slice_of(int64_t due)
{
    int64_t index = (due - started) / slice_ns;
    return &slices[index < slice_count ? index : slice_count - 1];
}

static void count_done(enum operation operation, int64_t due)
{
    if (due < started)
        return;
    int64_t ns = now() - due;
    record(&took[operation], ns);
    record(&slice_of(due)->took, ns);
}

static void count_failed(enum operation operation, int64_t due, enum failure why)
{
    if (due < started)
        return;
    failed_by[operation]++;
    failures[why]++;
    slice_of(due)->failed++;
}

/* connections */

static void rest(struct client *client, enum state state)
{
    client->state = state;
    ring[(resting_from + resting++) % connections] = client - clients;
}

static void hang_up(struct client *client)
{
    close(client->fd);
    client->fd = -1;
    client->unsent = client->have = 0;
}

static void broke(struct client *client, enum failure why)
{
    int was_resting = client->state == RESTING;
    hang_up(client);
    if (was_resting) { /* it is in the ring, and stays there */
        client->state = AWAY;
        dropped[why]++;
        return;
    }
    count_failed(client->operation, client->due, why);
    rest(client, AWAY);
}

static void push(struct client *client)
{
    while (client->unsent) {
        ssize_t sent = send(client->fd, client->out + LONGEST - client->unsent, client->unsent, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN)
                broke(client, RESET);
            return;
        }
        client->unsent -= sent;
    }
}

static void ask(struct client *client, enum operation operation)
{
    struct writer writer = {.at = LONGEST};
    char uid[16], dn[NAME];
    snprintf(uid, sizeof uid, "user%u", client->entry);
    snprintf(dn, sizeof dn, "uid=%s,%s", uid, people);
    client->entries = 0;
    client->id = client->id % INT32_MAX + 1;
    switch (operation) {
    case BIND: write_bind(&writer, admin, password); break;
    case SEARCH: write_search(&writer, people, uid); break;
    case MODIFY: write_modify(&writer, dn, client->id); break;
    default: wrap(&writer, UNBIND_REQUEST, writer.at);
    }
    number(&writer, INTEGER, client->id);
    wrap(&writer, SEQUENCE, LONGEST);
    memcpy(client->out + writer.at, writer.bytes + writer.at, LONGEST - writer.at);
    client->unsent = LONGEST - writer.at;
    push(client);
}

/* Sources of their own for every connection's address pair: one address has 28,000 ports, which rest in TIME_WAIT for
 * some time after each use. */
static void dial(struct client *client)
{
    static uint32_t source;
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f010001 + source++ % SOURCES)};
    const struct sockaddr_in *to = &addresses[client->address];
    int on = 1;
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (client->fd < 0)
        fail("socket");
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (ntohl(to->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET && bind(client->fd, (struct sockaddr *)&from, sizeof from))
        fail("bind");
    client->state = CONNECTING;
    if (connect(client->fd, (const struct sockaddr *)to, sizeof *to) && errno != EINPROGRESS)
        fail("connect");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = client};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, client->fd, &event))
        fail("epoll_ctl");
}

/* what a client does */

static void begin(struct client *client, enum operation operation, int64_t due, uint32_t entry)
{
    client->operation = operation;
    client->due = due;
    client->entry = entry;
    client->refusals = 0;
    if (client->state == AWAY) {
        dial(client);
        return;
    }
    client->state = operation == UNBIND ? LEAVING : ASKING;
    ask(client, operation);
}

static void connected(struct client *client)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == ECONNREFUSED && ++client->refusals < address_count) {
        hang_up(client);
        client->address = (client->address + 1) % address_count;
        dial(client);
    } else if (error) {
        broke(client, error == ECONNREFUSED ? REFUSED : RESET);
    } else {
        client->state = BINDING;
        ask(client, BIND);
    }
}

/* The unbind of a connection that had but one operation counts from when that was over. */
static void leave(struct client *client)
{
    client->operation = UNBIND;
    client->due = now();
    client->state = LEAVING;
    ask(client, UNBIND);
}

static void answered(struct client *client, int tag, struct span in)
{
    struct span code;
    enum operation operation = client->state == BINDING ? BIND : client->operation;
    static const int EXPECTED[] = {BIND_RESPONSE, SEARCH_DONE, MODIFY_RESPONSE};
    if (client->state != BINDING && client->state != ASKING) {
        broke(client, WRONG);
    } else if (operation == SEARCH && tag == SEARCH_ENTRY) {
        client->entries++;
        if (!is_person(in, people, client->entry))
            broke(client, WRONG);
    } else if (tag != EXPECTED[operation] || !take(&in, ENUMERATED, &code)
        || (operation == SEARCH && client->entries != 1)) {
        broke(client, WRONG);
    } else if (number_in(code)) {
        broke(client, RESULT);
    } else if (operation == client->operation) {
        count_done(operation, client->due);
        if (once)
            leave(client);
        else
            rest(client, RESTING);
    } else { /* bound, for the sake of what is wanted */
        client->state = client->operation == UNBIND ? LEAVING : ASKING;
        ask(client, client->operation);
    }
}

/* Every message that is complete. */
static void parse(struct client *client)
{
    struct span input = {client->in, client->in + client->have};
    while (client->fd >= 0 && input.at < input.end) {
        struct span message, id, in;
        int tag, found = *input.at == SEQUENCE ? element(&input, &tag, &message) : -1;
        if (!found)
            break;
        if (found < 0 || !take(&message, INTEGER, &id) || number_in(id) != client->id
            || element(&message, &tag, &in) != 1) {
            broke(client, WRONG);
            return;
        }
        answered(client, tag, in);
    }
    if (client->fd < 0)
        return;
    client->have = input.end - input.at;
    memmove(client->in, input.at, client->have);
}

static void readable(struct client *client)
{
    while (client->fd >= 0) {
        ssize_t got = recv(client->fd, client->in + client->have, LONGEST_READ - client->have, 0);
        if (got < 0) {
            if (errno != EAGAIN)
                broke(client, RESET);
            return;
        }
        if (!got && client->state == LEAVING) {
            count_done(UNBIND, client->due);
            hang_up(client);
            rest(client, AWAY);
            return;
        }
        if (!got) {
            broke(client, CLOSED);
            return;
        }
        client->have += got;
        parse(client);
    }
}

/* Who has waited too long, with a connection or for one. */
static void sweep(int64_t time)
{
    for (int index = 0; index < connections; index++) {
        struct client *client = &clients[index];
        if (client->state != AWAY && client->state != RESTING && time - client->due > limit_ns)
            broke(client, LATE);
    }
    for (; begun < asked && time - due_at(begun) > limit_ns; begun++)
        count_failed(operation_of(begun), due_at(begun), LATE);
}

static void run(void)
{
    int64_t next_sweep = first + SWEEP;
    while (asked < total || begun < asked || resting < connections) {
        int64_t time = now();
        for (; asked < total && due_at(asked) <= time; asked++)
            if (due_at(asked) >= started)
                record(&lateness, time - due_at(asked));
        if (time >= next_sweep) {
            sweep(time);
            next_sweep = time + SWEEP;
        }
        for (; begun < asked && resting; begun++) {
            struct client *client = &clients[ring[resting_from]];
            resting_from = (resting_from + 1) % connections;
            resting--;
            begin(client, operation_of(begun), due_at(begun), (drawn(begun) >> 32) % entries);
        }
        int64_t until = asked < total && due_at(asked) < next_sweep ? due_at(asked) : next_sweep;
        int64_t left = until - now();
        struct timespec wait = {left > 0 ? left / SECOND : 0, left > 0 ? left % SECOND : 0};
        struct epoll_event events[EVENTS];
        int got = syscall(SYS_epoll_pwait2, poll_fd, events, EVENTS, &wait, NULL, 0);
        if (got < 0 && errno != EINTR)
            fail("epoll_pwait2");
        for (int index = 0; index < got; index++) {
            struct client *client = events[index].data.ptr;
            if (client->state == CONNECTING)
                connected(client);
            else
                push(client);
            if (client->fd >= 0 && client->state != CONNECTING && (events[index].events & ~EPOLLOUT))
                readable(client);
        }
    }
}

/* what comes out */

static void print_failures(const char *name, const int64_t *counts)
{
    printf("\"%s\": {", name);
    for (int why = 0; why < FAILURES; why++)
        printf("%s\"%s\": %lld", why ? ", " : "", FAILURE[why], (long long)counts[why]);
    printf("}, ");
}

static void print_all(double cpu_sec)
{
    printf("{\"started_ns\": %lld, \"cpu_sec\": %.6f, ", (long long)started, cpu_sec);
    print_failures("dropped", dropped);
    print_failures("failures", failures);
    print_histogram("lateness", &lateness, 0);
    printf(", \"operations\": {");
    for (int operation = 0; operation < OPERATIONS; operation++) {
        printf("%s", operation ? ", " : "");
        print_histogram(OPERATION[operation], &took[operation], failed_by[operation]);
    }
    printf("}, \"slices\": [");
    for (int64_t index = 0; index < slice_count; index++) {
        const struct histogram *one = &slices[index].took;
        printf("%s[%lld, %lld, %lld, %lld]", index ? ", " : "", (long long)one->count, (long long)slices[index].failed,
            (long long)median(one), (long long)one->max);
    }
    printf("]}\n");
}

static int parse_weights(char *list)
{
    int count = 0;
    for (char *word = strtok(list, ","); word && count < OPERATIONS; word = strtok(NULL, ","))
        weight_sum += weights[count++] = atoi(word);
    return count;
}

static int parse_addresses(char *list)
{
    int count = 0;
    for (char *word = strtok(list, ","); word && count < ADDRESSES; word = strtok(NULL, ",")) {
        struct sockaddr_in *address = &addresses[count++];
        char *colon = strchr(word, ':');
        if (!colon)
            return 0;
        *colon = 0;
        address->sin_family = AF_INET;
        address->sin_port = htons(atoi(colon + 1));
        if (inet_pton(AF_INET, word, &address->sin_addr) != 1)
            return 0;
    }
    return count;
}

int main(int argc, char **argv)
{
    double seconds = 0, warm = 0, limit = 0;
    int option, mixed = 0, slice_ms = 0;
    while ((option = getopt(argc, argv, "a:r:t:w:c:m:l:i:e:b:D:P:o")) != -1)
        switch (option) {
        case 'a': address_count = parse_addresses(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 't': seconds = atof(optarg); break;
        case 'w': warm = atof(optarg); break;
        case 'c': connections = atoi(optarg); break;
        case 'm': mixed = parse_weights(optarg); break;
        case 'l': limit = atof(optarg); break;
        case 'i': slice_ms = atoi(optarg); break;
        case 'e': entries = atoi(optarg); break;
        case 'b': people = optarg; break;
        case 'D': admin = optarg; break;
        case 'P': password = optarg; break;
        case 'o': once = 1; break;
        default: return 2;
        }
    if (!address_count || rate <= 0 || seconds <= 0 || connections < 1 || mixed != OPERATIONS || weight_sum < 1
        || limit <= 0 || slice_ms < 1 || entries < 1) {
        fprintf(stderr, "usage: see the head of clients.c\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_TIMERSLACK, 1); /* the default, 50 us, is half a search */
    limit_ns = limit * SECOND;
    slice_ns = slice_ms * 1000000LL;
    slice_count = (int64_t)(seconds * SECOND + slice_ns - 1) / slice_ns;
    slices = calloc(slice_count, sizeof *slices);
    clients = calloc(connections, sizeof *clients);
    ring = calloc(connections, sizeof *ring);
    poll_fd = epoll_create1(0);
    first = now();
    started = first + (int64_t)(warm * SECOND);
    total = rate * (warm + seconds);
    for (int index = 0; index < connections; index++) {
        clients[index].fd = -1;
        if (once)
            rest(&clients[index], AWAY);
        else
            begin(&clients[index], BIND, first, 0);
    }
    run();
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    print_all(used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    return 0;
}
