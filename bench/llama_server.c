/*
 * llama_server.c - see llama_server.h.
 */
#include "llama_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_BYTES_MAX (1u << 20)
#define TOKEN_TEXT_BYTES 8u /* "123456," */
#define START_TRIES_MAX 600u
#define START_PAUSE_NS 100000000l
#define PORT_FIRST 20000
#define PORT_SPAN 20000

static int reach(const struct llama_server *server)
{
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons((uint16_t)server->port),
                                        .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        const int code = -errno;
        (void)close(fd);
        return code;
    }
    return fd < 0 ? -errno : fd;
}

static int send_all(int fd, const char *text, size_t size)
{
    while (size > 0) {
        const ssize_t sent = send(fd, text, size, MSG_NOSIGNAL);
        if (sent <= 0) {
            return -EIO;
        }
        text += sent;
        size -= (size_t)sent;
    }
    return 0;
}

/* One request on a connection of its own; the answer, head and all, ends with a zero byte. */
static int request(const struct llama_server *server, const char *head, const char *body,
                   char *ret_answer)
{
    char text[512];
    const int length = snprintf(text, sizeof(text),
                                "%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                                "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                                head, strlen(body));
    const int fd = reach(server);
    if (fd < 0 || length < 0 || (size_t)length >= sizeof(text)) {
        return fd < 0 ? fd : -EINVAL;
    }
    int code = send_all(fd, text, (size_t)length);
    code = code < 0 ? code : send_all(fd, body, strlen(body));
    size_t have = 0;
    while (code == 0 && have < ANSWER_BYTES_MAX - 1) {
        const ssize_t got = recv(fd, ret_answer + have, ANSWER_BYTES_MAX - 1 - have, 0);
        if (got <= 0) {
            code = got < 0 ? -EIO : 0;
            break;
        }
        have += (size_t)got;
    }
    ret_answer[have] = '\0';
    (void)close(fd);
    return code == 0 && strncmp(ret_answer, "HTTP/1.1 200", 12) != 0 ? -EIO : code;
}

static void program_become(const struct llama_server_plan *plan, int port)
{
    char port_text[16], context[16], cache[16];
    (void)snprintf(port_text, sizeof(port_text), "%d", port);
    (void)snprintf(context, sizeof(context), "%u", plan->context_tokens);
    (void)snprintf(cache, sizeof(cache), "%llu", (unsigned long long)(plan->cache_bytes >> 20));
    const char *arguments[] = {plan->program, "-m",
                               plan->model,   "--port",
                               port_text,     "-c",
                               context,       "-np",
                               "1",           "-t",
                               "1",           "-tb",
                               "2",           "-fa",
                               "on",          "-cram",
                               cache,         "-b",
                               "512",         "-ub",
                               "512",         "--slot-save-path",
                               plan->folder,  plan->whole_window ? "--swa-full" : NULL,
                               NULL};
    const int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd <= 2 && nowhere >= 0; fd++) {
        (void)dup2(nowhere, fd);
    }
    (void)execv(plan->program, (char *const *)arguments);
    _exit(127);
}

int llama_server_start(const struct llama_server_plan *plan, struct llama_server *ret)
{
    static char answer[ANSWER_BYTES_MAX];
    const struct timespec pause = {.tv_nsec = START_PAUSE_NS};
    if (access(plan->program, X_OK) != 0) {
        return -ENOENT;
    }
    ret->port = PORT_FIRST + (int)getpid() % PORT_SPAN;
    ret->process = fork();
    if (ret->process == 0) {
        program_become(plan, ret->port);
    }
    for (uint32_t i = 0; i < START_TRIES_MAX && ret->process > 0; i++) {
        if (request(ret, "GET /health", "", answer) == 0) {
            return 0;
        }
        if (waitpid(ret->process, NULL, WNOHANG) != 0) {
            ret->process = 0;
            return -EIO;
        }
        (void)nanosleep(&pause, NULL);
    }
    llama_server_stop(ret);
    return -ETIMEDOUT;
}

void llama_server_stop(struct llama_server *server)
{
    if (server->process > 0) {
        (void)kill(server->process, SIGKILL);
        (void)waitpid(server->process, NULL, 0);
    }
    server->process = 0;
}

int llama_server_slot(const struct llama_server *server, const char *file)
{
    static char answer[ANSWER_BYTES_MAX];
    char body[128];
    const int length = snprintf(body, sizeof(body), "{\"filename\":\"%s\"}", file);
    return length < 0 || (size_t)length >= sizeof(body)
               ? -ENAMETOOLONG
               : request(server, "POST /slots/0?action=restore", body, answer);
}

int llama_server_ask(const struct llama_server *server, const int32_t *tokens, uint32_t count,
                     uint32_t *ret_computed)
{
    static char answer[ANSWER_BYTES_MAX];
    const size_t room = (size_t)count * TOKEN_TEXT_BYTES + 128;
    char *body = malloc(room);
    if (body == NULL) {
        return -ENOMEM;
    }
    int at = snprintf(body, room,
                      "{\"n_predict\":1,\"temperature\":0,\"cache_prompt\":true,\"prompt\":[");
    for (uint32_t i = 0; i < count; i++) {
        at += snprintf(body + at, room - (size_t)at, "%s%d", i > 0 ? "," : "", tokens[i]);
    }
    (void)snprintf(body + at, room - (size_t)at, "]}");
    int code = request(server, "POST /completion", body, answer);
    const char *computed = strstr(answer, "\"prompt_n\":");
    if (code == 0 && computed == NULL) {
        code = -EBADMSG;
    }
    if (code == 0) {
        *ret_computed = (uint32_t)strtoul(computed + strlen("\"prompt_n\":"), NULL, 10);
    }
    free(body);
    return code;
}
