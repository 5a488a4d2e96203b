/* Runs a tool on one processor and tells what it took.
 *
 *   launch CPU REPORT COMMAND ...
 *
 * REPORT, a line: exit status, CPU microseconds, kilobytes of its largest process. CPU time is that
 * of the command and of all that it started, those included whose parents are gone. A launcher of
 * its own, since the memory of a process counts what it was forked from: a few pages here.
 * When its own parent is gone it ends with all that it started.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static long us(struct timeval t) {
    return t.tv_sec * 1000000L + t.tv_usec;
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(atoi(argv[1]), &one);
    if (sched_setaffinity(0, sizeof one, &one)) return 2;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pid_t tool = fork();
    if (tool == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execvp(argv[3], argv + 3);
        perror(argv[3]);
        _exit(127);
    }
    if (tool < 0) return 2;
    struct rusage used, all;
    int status, code;
    if (wait4(tool, &status, 0, &used) != tool) return 2;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
    getrusage(RUSAGE_CHILDREN, &all);
    code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    FILE *report = fopen(argv[2], "w");
    if (!report) return 2;
    fprintf(report, "%d %ld %ld\n", code, us(all.ru_utime) + us(all.ru_stime), used.ru_maxrss);
    return fclose(report) != 0;
}
