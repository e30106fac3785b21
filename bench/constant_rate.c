/* HTTP/1.1 load at a constant rate, open loop, without coordinated omission.
 *
 * Request i is due at start + i / rate, whatever became of the ones before it. It goes out on
 * the connection that was idle for longest; where all are busy it waits, and its clock runs:
 * latency is counted from the moment a request was due to the last byte of its answer. A
 * subject that stalls for a second therefore pays for every request of that second.
 *
 * With rate 0 the loop is closed: each connection asks again as soon as it was answered.
 *
 *   constant_rate ADDRESS PORT CONNECTIONS RATE SECONDS WARMUP_SECONDS SOURCES REQUESTS
 *   constant_rate histogram          percentiles of the numbers on standard input
 *
 * REQUESTS is a file of "LENGTH\n" and that many bytes, again and again; requests are taken in
 * turn. With SOURCES above 0, connections come from 127.0.1.1 .. 127.0.1.SOURCES.
 * Requests due in the warm-up are sent and not counted. One line of JSON comes out. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ull
#ifndef GRACE_S /* how long answers may come after the last request was due */
#define GRACE_S 5.0
#endif
#define GRACE ((uint64_t)(GRACE_S * SECOND))

static void die(const char *what) {
    fprintf(stderr, "constant_rate: %s\n", what);
    exit(1);
}

static void die_of_errno(const char *what) {
    fprintf(stderr, "constant_rate: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

/* A histogram as HdrHistogram's: 128 buckets to each power of two, so within 0.8 %. */
enum { SUB_BITS = 7, SUB = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS + 1) * SUB };
struct histogram { uint64_t counts[BUCKETS], total, max; double sum; };

static void record(struct histogram *h, uint64_t value) {
    unsigned shift = value < SUB ? 0 : 63u - (unsigned)__builtin_clzll(value) - SUB_BITS;
    h->counts[value < SUB ? value : (shift + 1) * SUB + ((value >> shift) - SUB)]++;
    h->total++;
    h->sum += (double)value;
    if (value > h->max) h->max = value;
}

/* The value that `share` of all are not above: the upper edge of its bucket. */
static uint64_t percentile(const struct histogram *h, double share) {
    uint64_t rank = (uint64_t)(share * (double)h->total + 0.999999), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += h->counts[i];
        if (seen < (rank ? rank : 1)) continue;
        uint64_t edge = i < SUB ? i : ((((uint64_t)i % SUB) + SUB + 1) << (i / SUB - 1)) - 1;
        return edge < h->max ? edge : h->max;
    }
    return h->max;
}

static void print_histogram(const char *name, const struct histogram *h) {
    printf("\"%s\": {\"count\": %" PRIu64 ", \"mean\": %.0f, \"p50\": %" PRIu64 ", \"p90\": %" PRIu64
           ", \"p99\": %" PRIu64 ", \"p99_9\": %" PRIu64 ", \"max\": %" PRIu64 "}",
           name, h->total, h->total ? h->sum / (double)h->total : 0.0, percentile(h, 0.5),
           percentile(h, 0.9), percentile(h, 0.99), percentile(h, 0.999), h->max);
}

struct request { const char *bytes; size_t length; };
static struct request *requests;
static size_t request_count;

static void read_requests(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die_of_errno(path);
    size_t length, room = 0;
    while (fscanf(file, "%zu", &length) == 1) {
        char *bytes = malloc(length + 1);
        if (fgetc(file) != '\n' || !bytes || fread(bytes, 1, length, file) != length)
            die("the file of requests is cut off");
        if (request_count == room) {
            requests = realloc(requests, (room = room ? room * 2 : 64) * sizeof *requests);
            if (!requests) die("no memory");
        }
        requests[request_count++] = (struct request){bytes, length};
    }
    fclose(file);
    if (!request_count) die("the file of requests is empty");
}

enum state { CONNECTING, IDLE, BUSY };
struct connection {
    int fd;
    enum state state;
    uint64_t due, idle_since;
    struct request request;
    size_t sent, head_length, body_left;
    bool in_body, closes;
    int status;
    char head[16384];
};

static struct connection *connections;
static unsigned connection_count, idle_first, idle_count;
static unsigned *idle; /* a ring: who was idle for longest is first */
static struct sockaddr_in subject;
static int poller, sources;
static uint64_t counted_from, sent_count, answered, failed, unanswered, reconnects, statuses[600];
static struct histogram latency, lag;

static void become_idle(struct connection *c) {
    c->state = IDLE;
    c->idle_since = now_ns();
    idle[(idle_first + idle_count++) % connection_count] = (unsigned)(c - connections);
}

static void watch(struct connection *c, int operation, bool for_writing) {
    struct epoll_event event = {.events = EPOLLIN | (for_writing ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(poller, operation, c->fd, &event)) die_of_errno("epoll_ctl");
}

static void begin_connecting(struct connection *c) {
    int one = 1;
    c->state = CONNECTING;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die_of_errno("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (sources) {
        struct sockaddr_in from = {.sin_family = AF_INET};
        from.sin_addr.s_addr = htonl(0x7f000101u + (uint32_t)((c - connections) % sources));
        if (bind(c->fd, (struct sockaddr *)&from, sizeof from)) die_of_errno("bind");
    }
    if (connect(c->fd, (struct sockaddr *)&subject, sizeof subject) && errno != EINPROGRESS)
        die_of_errno("connect");
    watch(c, EPOLL_CTL_ADD, true);
}

static void finish_connecting(struct connection *c) {
    socklen_t size = sizeof errno;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &errno, &size);
    if (errno) die_of_errno("the subject can't be reached");
    watch(c, EPOLL_CTL_MOD, false);
    become_idle(c);
}

static void reconnect(struct connection *c) {
    if (c->state == IDLE) { /* take it out of the ring */
        unsigned kept = 0;
        for (unsigned i = 0; i < idle_count; i++) {
            unsigned number = idle[(idle_first + i) % connection_count];
            if (number != (unsigned)(c - connections))
                idle[(idle_first + kept++) % connection_count] = number;
        }
        idle_count = kept;
    } else if (c->state == BUSY && c->due >= counted_from) {
        failed++;
    }
    close(c->fd);
    reconnects++;
    begin_connecting(c);
}

static void send_rest(struct connection *c) {
    ssize_t n = send(c->fd, c->request.bytes + c->sent, c->request.length - c->sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) { reconnect(c); return; }
    bool was_cut = c->sent > 0;
    c->sent += n > 0 ? (size_t)n : 0;
    bool is_cut = c->sent < c->request.length;
    if (is_cut || was_cut) watch(c, EPOLL_CTL_MOD, is_cut);
}

static void start_request(uint64_t due) {
    struct connection *c = &connections[idle[idle_first]];
    idle_first = (idle_first + 1) % connection_count;
    idle_count--;
    uint64_t now = now_ns(), could = due > c->idle_since ? due : c->idle_since;
    if (due >= counted_from) record(&lag, now > could ? now - could : 0);
    c->state = BUSY;
    c->due = due;
    c->request = requests[sent_count++ % request_count];
    c->sent = c->head_length = 0;
    c->in_body = c->closes = false;
    send_rest(c);
}

static void finish_request(struct connection *c) {
    if (c->due >= counted_from) {
        record(&latency, now_ns() - c->due);
        answered++;
        statuses[c->status]++;
    }
    if (!c->closes) { become_idle(c); return; }
    c->state = CONNECTING; /* so that it doesn't count as failed */
    reconnect(c);
}

/* What the head says; false where there is more of it to come. */
static bool read_head(struct connection *c, size_t *left_over) {
    c->head[c->head_length] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end && c->head_length == sizeof c->head - 1) die("the head of an answer is too long");
    if (!end) return false;
    *left_over = c->head_length - (size_t)(end + 4 - c->head);
    if (sscanf(c->head, "HTTP/1.1 %3d", &c->status) != 1 || c->status < 100 || c->status > 599)
        die("an answer is not HTTP/1.1");
    end[2] = 0;
    if (strcasestr(c->head, "\r\ntransfer-encoding:")) die("chunked answers are not understood");
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    char *option = strcasestr(c->head, "\r\nconnection:");
    c->body_left = length ? strtoull(length + 17, NULL, 10) : 0;
    c->closes = option && !strncasecmp(option + 13 + strspn(option + 13, " "), "close", 5);
    c->in_body = true;
    return true;
}

static void receive(struct connection *c) {
    static char buffer[1 << 18];
    char *into = c->in_body ? buffer : c->head + c->head_length;
    size_t room = c->in_body ? sizeof buffer : sizeof c->head - 1 - c->head_length;
    ssize_t n = recv(c->fd, into, room, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0 || c->state != BUSY) { reconnect(c); return; }
    size_t body = (size_t)n;
    if (!c->in_body) {
        c->head_length += (size_t)n;
        if (!read_head(c, &body)) return;
    }
    if (body > c->body_left) die("an answer is longer than it says");
    c->body_left -= body;
    if (!c->body_left) finish_request(c);
}

/* Waits for the sockets, at most until `until`; epoll_wait alone knows only milliseconds. */
static void wait_for_events(uint64_t until) {
    uint64_t now = now_ns(), rest = until > now ? until - now : 0;
    struct timespec timeout = {.tv_sec = (time_t)(rest / SECOND), .tv_nsec = (long)(rest % SECOND)};
    struct pollfd ready = {.fd = poller, .events = POLLIN};
    struct epoll_event events[256];
    if (ppoll(&ready, 1, &timeout, NULL) < 0 && errno != EINTR) die_of_errno("ppoll");
    int n = epoll_wait(poller, events, 256, 0);
    for (int i = 0; i < n; i++) {
        struct connection *c = events[i].data.ptr;
        if (c->state == CONNECTING) finish_connecting(c);
        else if (c->state == BUSY && events[i].events & EPOLLOUT && c->sent < c->request.length)
            send_rest(c);
        else receive(c);
    }
}

static void run(double rate, double seconds, double warmup) {
    for (unsigned i = 0; i < connection_count; i++) begin_connecting(&connections[i]);
    while (idle_count < connection_count) wait_for_events(now_ns() + SECOND);
    uint64_t start = now_ns() + SECOND / 100;
    uint64_t end = start + (uint64_t)((warmup + seconds) * SECOND);
    uint64_t total = (uint64_t)(rate * (warmup + seconds) + 0.5);
    counted_from = start + (uint64_t)(warmup * SECOND);
    for (;;) {
        uint64_t now = now_ns();
        uint64_t due = rate > 0 ? start + (uint64_t)((double)sent_count * SECOND / rate)
                                : (now > start ? now : start);
        bool has_more = rate > 0 ? sent_count < total : now < end;
        if (has_more && idle_count && due <= now) { start_request(due); continue; }
        if (now >= end + GRACE || (!has_more && idle_count == connection_count)) break;
        wait_for_events(has_more && idle_count ? due : end + GRACE);
    }
    /* What was never answered counts with the time it has waited until now. */
    uint64_t now = now_ns();
    for (unsigned i = 0; i < connection_count; i++)
        if (connections[i].state == BUSY && connections[i].due >= counted_from) {
            unanswered++;
            record(&latency, now - connections[i].due);
        }
    for (; rate > 0 && sent_count < total; sent_count++) {
        uint64_t due = start + (uint64_t)((double)sent_count * SECOND / rate);
        if (due < counted_from) continue;
        unanswered++;
        record(&latency, now - due);
    }
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "histogram")) {
        for (uint64_t value; scanf("%" SCNu64, &value) == 1;) record(&latency, value);
        printf("{");
        print_histogram("latency_ns", &latency);
        printf("}\n");
        return 0;
    }
    if (argc != 9) die("usage: see the head of constant_rate.c");
    subject = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    if (inet_pton(AF_INET, argv[1], &subject.sin_addr) != 1) die("ADDRESS must be an IPv4 address");
    connection_count = (unsigned)atoi(argv[3]);
    sources = atoi(argv[7]);
    read_requests(argv[8]);
    connections = calloc(connection_count, sizeof *connections);
    idle = calloc(connection_count, sizeof *idle);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (!connection_count || !connections || !idle || poller < 0) die("can't set up connections");
    prctl(PR_SET_TIMERSLACK, 1); /* wake when asked, not up to 50 us later */
    run(atof(argv[4]), atof(argv[5]), atof(argv[6]));
    printf("{\"answered\": %" PRIu64 ", \"failed\": %" PRIu64 ", \"unanswered\": %" PRIu64
           ", \"reconnects\": %" PRIu64 ", \"statuses\": {",
           answered, failed, unanswered, reconnects);
    const char *comma = "";
    for (int i = 0; i < 600; i++)
        if (statuses[i]) { printf("%s\"%d\": %" PRIu64, comma, i, statuses[i]); comma = ", "; }
    printf("}, ");
    print_histogram("latency_ns", &latency);
    printf(", ");
    print_histogram("lag_ns", &lag);
    printf("}\n");
    return 0;
}
