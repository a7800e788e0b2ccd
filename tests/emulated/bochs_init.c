/*
 * bochs_init.c - the first and only process of the machine that test_avx512.sh emulates: runs the
 * kernels' checks with the serial line as terminal, says how they ended, switches the machine off.
 *
 * Last line on the serial port: "RESULT n", n the exit status of the checks (128 + signal number when
 * one killed them). Bochs quits when "Shutdown" is written to its port 0x8900.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT_SHUTDOWN 0x8900
#define IOPL_ALL 3
#define EXIT_NOT_RUN 126

int main(void)
{
    (void)mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    const int line = open("/dev/ttyS0", O_RDWR);
    if (line >= 0) {
        (void)dup2(line, STDOUT_FILENO);
        (void)dup2(line, STDERR_FILENO);
    }
    const pid_t child = fork();
    if (child == 0) {
        (void)execl("/kernels_main", "kernels_main", "avx512", (char *)NULL);
        _exit(EXIT_NOT_RUN);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        status = EXIT_NOT_RUN << 8;
    }
    (void)printf("\nRESULT %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    (void)fflush(stdout);
    (void)sleep(1); /* the serial line is slower than a port */
    if (iopl(IOPL_ALL) == 0) {
        for (const char *at = "Shutdown"; *at != '\0'; at++) {
            outb((unsigned char)*at, PORT_SHUTDOWN);
        }
    }
    for (;;) {
        (void)pause();
    }
}
