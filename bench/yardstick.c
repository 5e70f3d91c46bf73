/* The yardstick: keeps OUTSTANDING commands going by posix_spawn and wait4, N in all, and records nothing.
 *
 *     yardstick N OUTSTANDING MODE PROGRAM [ARGUMENT...]
 *
 * MODE `null` sends both outputs to /dev/null, `append` to one open append file, as a runner that keeps outputs has to
 * do at the least. Prints one line: seconds, then microseconds of CPU a command of its own and of the commands.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_s(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec * 1e-9;
}

static double cpu_s(int whose) {
    struct rusage use;
    getrusage(whose, &use);
    return use.ru_utime.tv_sec + use.ru_stime.tv_sec + (use.ru_utime.tv_usec + use.ru_stime.tv_usec) * 1e-6;
}

static void fail(const char *what, int error) {
    fprintf(stderr, "yardstick: %s: %s\n", what, strerror(error));
    exit(1);
}

static int open_output(const char *mode) {
    if (!strcmp(mode, "null"))
        return open("/dev/null", O_WRONLY | O_CLOEXEC);
    char name[] = "/tmp/yardstick.XXXXXX";
    int made = mkostemp(name, O_APPEND | O_CLOEXEC);
    unlink(name);
    return made;
}

int main(int count, char **words) {
    if (count < 5) {
        fprintf(stderr, "usage: yardstick N OUTSTANDING null|append PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    long total = atol(words[1]), outstanding = atol(words[2]), running = 0, started = 0, ended = 0;
    char **command = words + 4, *environment[] = {"PATH=/usr/bin:/bin", NULL};
    int input = open("/dev/null", O_RDONLY | O_CLOEXEC), output = open_output(words[3]);
    if (input < 0 || output < 0)
        fail("open", errno);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input, 0);
    posix_spawn_file_actions_adddup2(&actions, output, 1);
    posix_spawn_file_actions_adddup2(&actions, output, 2);

    double began_s = now_s();
    while (ended < total) {
        while (running < outstanding && started < total) {
            pid_t made;
            int error = posix_spawn(&made, command[0], &actions, NULL, command, environment);
            if (error)
                fail("posix_spawn", error);
            running++, started++;
        }
        int status;
        struct rusage use;
        if (wait4(-1, &status, 0, &use) > 0)
            running--, ended++;
    }
    printf("%.6f %.2f %.2f\n", now_s() - began_s, cpu_s(RUSAGE_SELF) / total * 1e6, cpu_s(RUSAGE_CHILDREN) / total * 1e6);
    return 0;
}
