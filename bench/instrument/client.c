/* The least that a measuring client can be: it reads and stamps every data line.
 *
 *   client PORT STREAMS TOKENS OUT
 *
 * STREAMS requests at once to 127.0.0.1:PORT, of TOKENS tokens each. OUT: for each request int64s
 * sent, count, stamp[count], in ns of CLOCK_MONOTONIC. Nothing is decoded: a line that begins with
 * "data: {" and holds a "content" is a token. Its stamp is when epoll told of the socket.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 16 };

typedef struct {
    int fd;
    int64_t sent, count, room, *stamps;
    size_t kept; /* bytes of a line that is not whole yet */
    char line[BUFFER];
} Stream;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void line(Stream *stream, const char *text, size_t size, int64_t stamp) {
    if (size < 7 || memcmp(text, "data: {", 7) || !memmem(text, size, "\"content\":", 10)) return;
    if (stream->count == stream->room) {
        stream->room = stream->room ? 2 * stream->room : 1024;
        stream->stamps = realloc(stream->stamps, 8 * stream->room);
        if (!stream->stamps) fail("realloc");
    }
    stream->stamps[stream->count++] = stamp;
}

/* Whether the answer has ended. */
static int hear(Stream *stream, int64_t stamp) {
    char *at = stream->line, *end;
    ssize_t size = recv(stream->fd, at + stream->kept, BUFFER - stream->kept, 0);
    if (size < 0 && errno == EAGAIN) return 0;
    if (size < 0) fail("recv");
    size_t left = stream->kept + size;
    int ended = size == 0;
    for (; (end = memchr(at, '\n', left)); left -= end + 1 - at, at = end + 1) {
        line(stream, at, end - at, stamp);
        ended |= end - at == 2 && at[0] == '0';
    }
    if (left == BUFFER) left = 0;
    memmove(stream->line, at, left);
    stream->kept = left;
    return ended;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int count = atoi(argv[2]), poll_fd = epoll_create1(EPOLL_CLOEXEC), open = count;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char body[256], request[512];
    int body_size = sprintf(body, "{\"model\":\"bench\",\"messages\":[{\"role\":\"user\",\"content\":"
                            "\"count\"}],\"stream\":true,\"max_tokens\":%d}", atoi(argv[3]));
    int size = sprintf(request, "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                       "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", body_size, body);
    Stream *streams = calloc(count, sizeof *streams);
    if (!streams) fail("calloc");
    for (int i = 0, on = 1; i < count; i++) {
        Stream *stream = &streams[i];
        stream->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (connect(stream->fd, (void *)&to, sizeof to) && errno != EINPROGRESS) fail("connect");
        struct epoll_event event = {.events = EPOLLOUT, .data.ptr = stream};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, stream->fd, &event);
    }
    while (open) {
        struct epoll_event events[256];
        int ready = epoll_wait(poll_fd, events, 256, 60000);
        int64_t stamp = now_ns();
        if (ready <= 0) fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            Stream *stream = events[i].data.ptr;
            if (!stream->sent) {
                stream->sent = now_ns();
                if (send(stream->fd, request, size, MSG_NOSIGNAL) != size) fail("send");
                struct epoll_event event = {.events = EPOLLIN, .data.ptr = stream};
                epoll_ctl(poll_fd, EPOLL_CTL_MOD, stream->fd, &event);
            } else if (hear(stream, stamp)) {
                close(stream->fd);
                open--;
            }
        }
    }
    FILE *out = fopen(argv[4], "wb");
    if (!out) fail(argv[4]);
    for (int i = 0; i < count; i++) {
        int64_t head[] = {streams[i].sent, streams[i].count};
        fwrite(head, sizeof head, 1, out);
        fwrite(streams[i].stamps, 8, streams[i].count, out);
    }
    return fclose(out) != 0;
}
