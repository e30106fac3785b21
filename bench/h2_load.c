/* HTTP/2 load: so many streams at a time on each of some connections, as fast as responses come.
 *
 *   h2_load PORT CONNECTIONS STREAMS SECONDS REQUESTS
 *
 * REQUESTS is a file of numbers (32 bits, in network order) and bytes: the length of a header block
 * and the block, which is a connection's first request; the length of a body and the body, which each
 * request has (0: none); how many other header blocks there are; and for each its length and bytes,
 * sent in turn. The first block may put fields into the table of HPACK that the others refer to.
 *
 * Responses are not unpacked: one is good where its head begins with `:status: 200` of the static
 * table and, where requests have a body, the head is not all of it (a gRPC error is). One line of JSON
 * comes out. RFC 9113, RFC 7541. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { DATA, HEADERS, RST_STREAM = 3, SETTINGS, PING = 6, GOAWAY, WINDOW_UPDATE, CONTINUATION };
enum { ACK = 1, END_STREAM = 1, END_HEADERS = 4, PADDED = 8, PRIORITY = 32 };
enum { OUT = 1 << 20, IN = 1 << 18, SLOTS = 4096, LONGEST_US = 10000000 };
#define WINDOW 0x3fffffffu

struct stream { uint64_t started; bool has_head, is_bad; };
struct connection {
    int fd;
    uint32_t next_id, open;
    uint64_t unacknowledged;
    size_t in_size, out_at, out_size;
    bool waits_to_write;
    struct stream streams[SLOTS];
    uint8_t in[IN], out[OUT];
};
struct block { uint32_t size; const uint8_t *bytes; };

static struct block first, body, *blocks;
static uint32_t block_count, at_block;
static uint64_t requests, errors, received, buckets[LONGEST_US + 1];

static void die(const char *what) { fprintf(stderr, "h2_load: %s\n", what); exit(1); }

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint32_t read_number(const uint8_t *from) {
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static void load_requests(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) die("can't read the requests");
    long size = ftell(file);
    rewind(file);
    uint8_t *all = malloc((size_t)size), *at = all;
    if (!all || fread(all, 1, (size_t)size, file) != (size_t)size) die("can't read the requests");
    fclose(file);
    struct block *parts[] = {&first, &body};
    for (int i = 0; i < 2; i++) {
        *parts[i] = (struct block){read_number(at), at + 4};
        at += 4 + parts[i]->size;
    }
    block_count = read_number(at);
    at += 4;
    blocks = calloc(block_count, sizeof *blocks);
    for (uint32_t i = 0; i < block_count; i++) {
        blocks[i] = (struct block){read_number(at), at + 4};
        at += 4 + blocks[i].size;
    }
    if (!block_count || at != all + size) die("the file of requests is not whole");
}

static void put(struct connection *c, const void *bytes, size_t size) {
    if (c->out_at && c->out_size + size > OUT) {
        memmove(c->out, c->out + c->out_at, c->out_size - c->out_at);
        c->out_size -= c->out_at;
        c->out_at = 0;
    }
    if (c->out_size + size > OUT) die("the subject does not read what it is sent");
    memcpy(c->out + c->out_size, bytes, size);
    c->out_size += size;
}

static void put_frame(struct connection *c, unsigned kind, unsigned flags, uint32_t stream,
                      const void *payload, size_t size) {
    uint8_t head[9] = {(uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size,
                       (uint8_t)kind, (uint8_t)flags, (uint8_t)(stream >> 24),
                       (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
    put(c, head, sizeof head);
    put(c, payload, size);
}

static void put_window(struct connection *c, uint32_t size) {
    uint32_t increment = htonl(size);
    put_frame(c, WINDOW_UPDATE, 0, 0, &increment, 4);
}

static void request(struct connection *c) {
    struct block block = c->next_id == 1 ? first : blocks[at_block++ % block_count];
    c->streams[(c->next_id >> 1) % SLOTS] = (struct stream){.started = now_us()};
    put_frame(c, HEADERS, END_HEADERS | (body.size ? 0 : END_STREAM), c->next_id, block.bytes,
              block.size);
    if (body.size) put_frame(c, DATA, END_STREAM, c->next_id, body.bytes, body.size);
    c->next_id += 2;
    c->open++;
}

static void finish(struct connection *c, uint32_t id, bool is_bad) {
    struct stream *stream = &c->streams[(id >> 1) % SLOTS];
    uint64_t took = now_us() - stream->started;
    buckets[took < LONGEST_US ? took : LONGEST_US]++;
    requests++;
    errors += is_bad || stream->is_bad || !stream->has_head;
    c->open--;
    request(c);
}

static void take_head(struct connection *c, uint32_t id, unsigned flags, const uint8_t *at,
                      size_t size) {
    struct stream *stream = &c->streams[(id >> 1) % SLOTS];
    const uint8_t *end = at + size;
    if (flags & PADDED) at++;
    if (flags & PRIORITY) at += 5;
    if (!stream->has_head) {
        while (at < end && (*at & 0xe0) == 0x20) at++; /* another size of the table */
        stream->is_bad = at >= end || *at != 0x88 || (body.size && flags & END_STREAM);
        stream->has_head = true;
    }
    if (flags & END_STREAM) finish(c, id, false);
}

static void take_frame(struct connection *c, const uint8_t *frame, size_t size) {
    unsigned kind = frame[3], flags = frame[4];
    uint32_t id = read_number(frame + 5) & 0x7fffffff;
    const uint8_t *payload = frame + 9;
    if (kind == HEADERS) take_head(c, id, flags, payload, size);
    else if (kind == RST_STREAM) finish(c, id, true);
    else if (kind == SETTINGS && !(flags & ACK)) put_frame(c, SETTINGS, ACK, 0, "", 0);
    else if (kind == PING && !(flags & ACK)) put_frame(c, PING, ACK, 0, payload, 8);
    else if (kind == GOAWAY) die("the subject sent GOAWAY");
    else if (kind == DATA) {
        c->unacknowledged += size;
        if (c->unacknowledged > WINDOW / 2) {
            put_window(c, (uint32_t)c->unacknowledged);
            c->unacknowledged = 0;
        }
        if (flags & END_STREAM) finish(c, id, false);
    }
}

static void flush_out(struct connection *c, int epoll) {
    while (c->out_at < c->out_size) {
        ssize_t sent = write(c->fd, c->out + c->out_at, c->out_size - c->out_at);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno != EAGAIN) die("the subject closed a connection");
        if (sent < 0) break;
        c->out_at += (size_t)sent;
    }
    if (c->out_at == c->out_size) c->out_at = c->out_size = 0;
    bool waits = c->out_size > 0;
    if (waits == c->waits_to_write) return;
    c->waits_to_write = waits;
    struct epoll_event event = {.events = EPOLLIN | (waits ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
}

static void take(struct connection *c) {
    ssize_t got = read(c->fd, c->in + c->in_size, IN - c->in_size);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) die("the subject closed a connection");
    received += (uint64_t)got;
    c->in_size += (size_t)got;
    size_t at = 0;
    while (c->in_size - at >= 9) {
        const uint8_t *frame = c->in + at;
        size_t size = (size_t)frame[0] << 16 | (size_t)frame[1] << 8 | frame[2];
        if (c->in_size - at < 9 + size) break;
        take_frame(c, frame, size);
        at += 9 + size;
    }
    memmove(c->in, c->in + at, c->in_size - at);
    c->in_size -= at;
}

static struct connection *connect_to(int port, int epoll, int streams) {
    struct connection *c = calloc(1, sizeof *c);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    if (!c || (c->fd = socket(AF_INET, SOCK_STREAM, 0)) < 0 ||
        connect(c->fd, (struct sockaddr *)&address, sizeof address))
        die("can't connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct timeval none = {0, 1};
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
    c->next_id = 1;
    static const uint8_t window[] = {0, 4, 0x3f, 0xff, 0xff, 0xff}, no_push[] = {0, 2, 0, 0, 0, 0};
    uint8_t settings[12];
    memcpy(settings, window, 6);
    memcpy(settings + 6, no_push, 6);
    put(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    put_frame(c, SETTINGS, 0, 0, settings, sizeof settings);
    put_window(c, WINDOW);
    for (int i = 0; i < streams; i++) request(c);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
    flush_out(c, epoll);
    return c;
}

static uint64_t percentile(double share) {
    uint64_t seen = 0, rank = (uint64_t)(share * (double)requests + 0.999999);
    for (uint64_t us = 0; us <= LONGEST_US; us++)
        if ((seen += buckets[us]) >= (rank ? rank : 1)) return us;
    return LONGEST_US;
}

int main(int argc, char **argv) {
    if (argc != 6) die("PORT CONNECTIONS STREAMS SECONDS REQUESTS");
    int connections = atoi(argv[2]), streams = atoi(argv[3]), epoll = epoll_create1(0);
    uint64_t open = 0;
    load_requests(argv[5]);
    struct connection **all = calloc((size_t)connections, sizeof *all);
    for (int i = 0; i < connections; i++) all[i] = connect_to(atoi(argv[1]), epoll, streams);
    uint64_t started = now_us(), ends = started + (uint64_t)(atof(argv[4]) * 1e6);
    while (now_us() < ends) {
        struct epoll_event events[64];
        int ready = epoll_wait(epoll, events, 64, 100);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & ~(unsigned)EPOLLOUT) take(c);
            flush_out(c, epoll);
        }
    }
    uint64_t took = now_us() - started;
    for (int i = 0; i < connections; i++) open += all[i]->open;
    printf("{\"duration_us\": %" PRIu64 ", \"requests\": %" PRIu64 ", \"bytes\": %" PRIu64
           ", \"p50_us\": %" PRIu64 ", \"p99_us\": %" PRIu64 ", \"errors\": %" PRIu64
           ", \"open\": %" PRIu64 "}\n",
           took, requests, received, percentile(0.5), percentile(0.99), errors, open);
    return 0;
}
