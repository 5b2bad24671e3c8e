/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * /init of the selftest rig: run what /selftests.list says, each with a time
 * limit, mark begin and end of each on the console, and power off.
 *
 * A line of the list is: NAME SECONDS PATH [ARGUMENT...]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_ARGS 16

static void mount_or_warn(const char *type, const char *where)
{
    mkdir(where, 0755);
    if (mount(type, where, type, 0, NULL)) {
        printf("@@warning cannot mount %s: %s\n", where, strerror(errno));
    }
}

static void setup(void)
{
    int fd;

    mkdir("/dev", 0755);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    fd = open("/dev/console", O_RDWR);
    if (fd >= 0) {
        dup2(fd, 0);
        dup2(fd, 1);
        dup2(fd, 2);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);

    mount_or_warn("proc", "/proc");
    mount_or_warn("sysfs", "/sys");
    mount_or_warn("debugfs", "/sys/kernel/debug");
    mount_or_warn("tmpfs", "/tmp");
    mount_or_warn("tmpfs", "/dev/shm");
}

/* Have the kernel tell what every CPU and every task is up to. */
static void dump_tasks(void)
{
    int fd = open("/proc/sysrq-trigger", O_WRONLY);
    const char *keys = "8ltm", *key;

    for (key = keys; fd >= 0 && *key; key++) {
        if (write(fd, key, 1) != 1) {
            break;
        }
    }
    close(fd);
}

/* The wait status of the test, or -1 after its time is up. */
static int wait_for(pid_t pid, int seconds)
{
    struct timespec tick = { .tv_nsec = 10 * 1000 * 1000 };
    int status, ticks;

    for (ticks = 0; ticks < seconds * 100; ticks++) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            return status;
        }
        nanosleep(&tick, NULL);
    }

    dump_tasks();
    kill(-pid, SIGKILL);
    waitpid(pid, &status, 0);
    return -1;
}

/* selftests=NAME[,NAME...] of the kernel's command line: only these are run. */
static int is_wanted(const char *name)
{
    const char *at = getenv("selftests");
    size_t length = strlen(name);

    if (!at) {
        return 1;
    }
    while (*at) {
        size_t part = strcspn(at, ",");

        if (part == length && !strncmp(at, name, part)) {
            return 1;
        }
        at += part + (at[part] == ',');
    }
    return 0;
}

static void run(char *line)
{
    char *argv[MAX_ARGS + 1] = {}, *dir, *name, *limit, *arg;
    struct timespec start, end;
    int argc = 0, status;
    pid_t pid;

    name = strtok(line, " \n");
    limit = strtok(NULL, " \n");
    while (argc < MAX_ARGS && (arg = strtok(NULL, " \n"))) {
        argv[argc++] = arg;
    }
    if (!argc || !is_wanted(name)) {
        return;
    }

    printf("@@begin %s\n", name);
    clock_gettime(CLOCK_MONOTONIC, &start);

    pid = fork();
    if (!pid) {
        setpgid(0, 0);
        /* The tests open their own ELF file, by the name they were called. */
        dir = strdup(argv[0]);
        if (chdir(dirname(dir))) {
            _exit(127);
        }
        execv(argv[0], argv);
        _exit(127);
    }
    setpgid(pid, pid);

    status = wait_for(pid, atoi(limit));
    clock_gettime(CLOCK_MONOTONIC, &end);

    fflush(stdout);
    printf("\n@@end %s ", name);
    if (status == -1) {
        printf("timeout");
    } else if (WIFEXITED(status)) {
        printf("exit=%d", WEXITSTATUS(status));
    } else {
        printf("signal=%d", WTERMSIG(status));
    }
    printf(" seconds=%ld\n", (long)(end.tv_sec - start.tv_sec));
}

int main(void)
{
    char line[512];
    FILE *list;

    setup();

    list = fopen("/selftests.list", "r");
    while (list && fgets(line, sizeof(line), list)) {
        run(line);
    }

    printf("@@done\n");
    fflush(stdout);
    sync();
    reboot(RB_POWER_OFF);
    return 1;
}
