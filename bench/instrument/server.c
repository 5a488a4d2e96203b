/* An OpenAI-compatible server whose own send stamps are the truth.
 *
 *   server TTFT_NS INTERVAL_NS STALL_EVERY STALL_NS SLOTS LIMIT_NS LOG
 *
 * It writes its port, then answers until SIGTERM (or until its parent is gone), and then writes LOG:
 * for each stream that was asked for, in the order of requests, int64s
 *
 *   received, closed, count, blocked, sent[count], due[count]
 *
 * in ns of CLOCK_MONOTONIC: when the request was there as a whole (by the kernel: of many that come
 * at once the last waits for this program, which is no time of the way), when the client had closed
 * its side, how often the socket took no more, and right before each token's send() and when it was
 * due.
 *
 * The first token is due between one and two TTFT_NS after the request (by a fixed rule that differs
 * from request to request), the others one INTERVAL_NS after another; every STALL_EVERY-th gap takes
 * STALL_NS instead. Streams lie on a grid of SLOTS places over the interval, so that no two tokens
 * are due at once. INTERVAL_NS 0 is as fast as sockets take it, for LIMIT_NS, from when SLOTS
 * requests are there, AT_ONCE tokens in one send(), or sending would be slower than the client; else
 * one token is one event in one HTTP chunk in one send(). While something is due it never sleeps: it
 * wants a processor.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 8192, ROUND = 16, AT_ONCE = 8, BUFFER = 1 << 16 };

typedef struct Stream {
    int fd, place;               /* place in the heap; -1 where nothing is due */
    char *in, *rest;             /* the request so far; what the socket did not take yet */
    size_t in_size, rest_size;
    int64_t came, received, closed, due, blocked;
    int64_t count, wanted, *sent, *dues;
    int streams, ids;            /* whether a stream was asked for, and token ids with it */
    struct Stream *next;
} Stream;

static int64_t ttft, interval, stall_every, stall, slots, limit, first_ns;
static Stream *heap[MOST], *asked, **asked_end = &asked;
static int due_count, request_count, poll_fd;
static volatile sig_atomic_t stopped;

static void stop(int signal_number) {
    (void)signal_number;
    stopped = 1;
}

static int64_t ns_of(const struct timespec *t) {
    return t->tv_sec * 1000000000LL + t->tv_nsec;
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return ns_of(&t);
}

/* As recv(), and when the kernel had the last of it; now where it does not tell. */
static ssize_t receive(int fd, char *into, size_t size, int64_t *came) {
    char control[CMSG_SPACE(sizeof(struct timespec))];
    struct iovec part = {into, size};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(fd, &message, 0);
    struct timespec wall;
    *came = now_ns();
    clock_gettime(CLOCK_REALTIME, &wall);
    struct cmsghdr *header = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_TIMESTAMPNS) {
        struct timespec stamp;
        memcpy(&stamp, CMSG_DATA(header), sizeof stamp);
        *came -= ns_of(&wall) - ns_of(&stamp);
    }
    return got;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* The heap: the stream that is due first comes first. */

static void put(int place, Stream *stream) {
    heap[place] = stream;
    stream->place = place;
}

static void sink(int place) {
    Stream *moved = heap[place];
    for (int child; (child = 2 * place + 1) < due_count; place = child) {
        if (child + 1 < due_count && heap[child + 1]->due < heap[child]->due) child++;
        if (moved->due <= heap[child]->due) break;
        put(place, heap[child]);
    }
    put(place, moved);
}

static void add(Stream *stream) {
    int place = due_count++;
    for (; place && stream->due < heap[(place - 1) / 2]->due; place = (place - 1) / 2)
        put(place, heap[(place - 1) / 2]);
    put(place, stream);
}

static void drop(Stream *stream) {
    int place = stream->place;
    if (place < 0) return;
    stream->place = -1;
    Stream *last = heap[--due_count];
    if (last == stream) return;
    put(place, last);
    for (; place && last->due < heap[(place - 1) / 2]->due; place = (place - 1) / 2) {
        put(place, heap[(place - 1) / 2]);
        put((place - 1) / 2, last);
    }
    sink(place);
}

static void watch(Stream *stream, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = stream};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, stream->fd, &event);
}

/* Sends; what the socket does not take waits for it. Whether everything went. */
static int send_all(Stream *stream, const char *data, size_t size) {
    ssize_t went = send(stream->fd, data, size, MSG_NOSIGNAL);
    if (went < 0) went = 0; /* full, or gone: epoll tells */
    if ((size_t)went == size) return 1;
    stream->blocked++;
    stream->rest = realloc(stream->rest, size - went);
    if (!stream->rest) fail("realloc");
    memcpy(stream->rest, data + went, size - went);
    stream->rest_size = size - went;
    watch(stream, EPOLLIN | EPOLLOUT);
    return 0;
}

static int event(char *into, const char *json) {
    return sprintf(into, "%zx\r\ndata: %s\n\n\r\n", strlen(json) + 8, json);
}

#define CHUNK                                                                                  \
    "{\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion.chunk\"," \
    "\"created\":1700000000,\"model\":\"bench\",\"choices\":["

static int usage(char *into, int64_t count) {
    return sprintf(into,
                   "\"usage\":{\"prompt_tokens\":16,\"completion_tokens\":%ld,\"total_tokens\":%ld}}",
                   (long)count, (long)count + 16);
}

/* The event of the next token, and what ends the stream with the last; its size. */
static size_t token(Stream *stream, char *into) {
    char json[1024];
    int64_t index = stream->count, now = now_ns();
    if (!first_ns) first_ns = now;
    if (!interval && now - first_ns > limit) stream->wanted = index + 1;
    int last = index + 1 >= stream->wanted;
    sprintf(json, CHUNK "{\"index\":0,\"delta\":{%s\"content\":\" token\"},\"logprobs\":null,"
            "\"finish_reason\":%s%s}]}", index ? "" : "\"role\":\"assistant\",",
            last ? "\"length\"" : "null", stream->ids ? ",\"token_ids\":[314]" : "");
    size_t size = event(into, json);
    if (last) {
        usage(json + sprintf(json, CHUNK "],"), index + 1);
        size += event(into + size, json);
        size += event(into + size, "[DONE]");
        size += sprintf(into + size, "0\r\n\r\n");
    }
    stream->dues[index] = stream->due;
    stream->sent[index] = now_ns();
    stream->count++;
    return size;
}

/* What is due: a token, or AT_ONCE of them where nobody waits. */
static void step(Stream *stream) {
    char out[AT_ONCE * 512 + 1024];
    size_t size = 0;
    for (int left = interval ? 1 : AT_ONCE; left && stream->count < stream->wanted; left--)
        size += token(stream, out + size);
    int whole = send_all(stream, out, size);
    if (interval)
        stream->due += stall_every && stream->count % stall_every == 0 ? stall : interval;
    else
        stream->due = now_ns(); /* in turn: behind all others */
    if (stream->count == stream->wanted || !whole)
        drop(stream);
    else
        sink(stream->place);
}

static int64_t number(const char *body, const char *name) {
    const char *at = strstr(body, name);
    return at ? strtoll(at + strlen(name) + strspn(at + strlen(name), "\": "), NULL, 10) : 0;
}

static void whole_answer(Stream *stream, const char *path) {
    char body[1024], out[2048];
    if (strncmp(path, "/v1/chat", 8) == 0)
        usage(body + sprintf(body, "{\"id\":\"chatcmpl-0\",\"object\":\"chat.completion\",\"created\":"
              "1700000000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
              "\"assistant\",\"content\":\"Paris\"},\"finish_reason\":\"stop\"}],"), 1);
    else
        strcpy(body, "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\","
               "\"created\":1700000000,\"owned_by\":\"bench\"}]}");
    int size = sprintf(out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close"
                       "\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
    send_all(stream, out, size);
}

/* Each request's own time to the first token, on the grid of its slot. */
static int64_t first_due(int64_t now, int ordinal) {
    if (!interval) return now;
    int64_t own = ttft + (int64_t)((ordinal * 2654435761u >> 8) & 0xffff) * ttft / 65536;
    int64_t phase = interval * (ordinal % slots) / slots;
    int64_t due = now + own;
    return due + ((phase - due) % interval + interval) % interval;
}

static void answer(Stream *stream, const char *body) {
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                               "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    const char *path = strchr(stream->in, ' ') + 1, *asks = strstr(body, "\"stream\"");
    if (!asks || strspn(asks + 8, ": ") == 0 || asks[8 + strspn(asks + 8, ": ")] != 't') {
        whole_answer(stream, path);
        return;
    }
    stream->streams = 1;
    stream->received = stream->came;
    stream->wanted = number(body, "\"max_completion_tokens\"");
    if (!stream->wanted) stream->wanted = number(body, "\"max_tokens\"");
    if (stream->wanted < 1) stream->wanted = 1;
    stream->ids = strstr(body, "\"return_token_ids\"") != NULL;
    stream->sent = malloc(8 * stream->wanted);
    stream->dues = malloc(8 * stream->wanted);
    if (!stream->sent || !stream->dues) fail("malloc");
    *asked_end = stream;
    asked_end = &stream->next;
    stream->due = first_due(now_ns(), request_count++);
    send_all(stream, head, sizeof head - 1);
    if (due_count == MOST) exit(2);
    if (interval)
        add(stream);
    else if (request_count == slots)
        for (stream = asked; stream; stream = stream->next) add(stream);
}

static void hear(Stream *stream) {
    char got[BUFFER];
    ssize_t size = receive(stream->fd, got, sizeof got, &stream->came);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0) {
        stream->closed = now_ns();
        drop(stream);
        close(stream->fd);
        free(stream->in);
        free(stream->rest);
        if (!stream->streams) free(stream);
        return;
    }
    stream->in = realloc(stream->in, stream->in_size + size + 1);
    if (!stream->in) fail("realloc");
    memcpy(stream->in + stream->in_size, got, size);
    stream->in_size += size;
    stream->in[stream->in_size] = 0;
    char *body = strstr(stream->in, "\r\n\r\n");
    if (!body) return;
    char *length = strcasestr(stream->in, "\r\ncontent-length:");
    size_t wanted = length && length < body ? strtoul(length + 17, NULL, 10) : 0;
    body += 4;
    if (stream->in_size - (body - stream->in) >= wanted && !stream->received) answer(stream, body);
}

/* Room again: what was left goes first, then the stream is due as before. */
static void go_on(Stream *stream) {
    size_t size = stream->rest_size;
    if (size) {
        char *rest = stream->rest;
        stream->rest = NULL;
        stream->rest_size = 0;
        int whole = send_all(stream, rest, size);
        free(rest);
        if (!whole) return;
    }
    watch(stream, EPOLLIN);
    if (stream->streams && stream->count < stream->wanted && stream->place < 0) add(stream);
}

static void look(int listener, int timeout_ms) {
    struct epoll_event events[64];
    int ready = epoll_wait(poll_fd, events, 64, timeout_ms);
    for (int i = 0; i < ready; i++) {
        Stream *stream = events[i].data.ptr;
        if (stream) {
            if (events[i].events & EPOLLOUT && !(events[i].events & (EPOLLERR | EPOLLHUP)))
                go_on(stream);
            if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) hear(stream);
            continue;
        }
        for (int fd, on = 1; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            stream = calloc(1, sizeof *stream);
            if (!stream) fail("calloc");
            stream->fd = fd;
            stream->place = -1;
            /* What is not sent shows at once, and what was is in the client's hands. */
            if (!interval) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){1 << 15}, sizeof(int));
            struct epoll_event event = {.events = EPOLLIN, .data.ptr = stream};
            epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
        }
    }
}

static void write_log(const char *path) {
    FILE *log = fopen(path, "wb");
    if (!log) fail(path);
    for (Stream *s = asked; s; s = s->next) {
        int64_t head[] = {s->received, s->closed, s->count, s->blocked};
        fwrite(head, sizeof head, 1, log);
        fwrite(s->sent, 8, s->count, log);
        fwrite(s->dues, 8, s->count, log);
    }
    if (fclose(log)) fail(path);
}

int main(int argc, char **argv) {
    if (argc != 8) return 2;
    int64_t *to[] = {&ttft, &interval, &stall_every, &stall, &slots, &limit};
    for (int i = 0; i < 6; i++) *to[i] = strtoll(argv[i + 1], NULL, 10);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    signal(SIGINT, SIG_IGN); /* Ctrl-C is for the one who started it */
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_TIMESTAMPNS, &(int){1}, sizeof(int));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (void *)&address, size) || listen(listener, 1024)) fail("listen");
    getsockname(listener, (void *)&address, &size);
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &event);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    while (!stopped) {
        if (!due_count) {
            look(listener, 1000);
            continue;
        }
        for (int i = 0; i < ROUND && due_count && heap[0]->due <= now_ns(); i++) step(heap[0]);
        look(listener, 0);
    }
    write_log(argv[7]);
    return 0;
}
