/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Start another kernel, now or in a crash
 *
 * kexec KERNEL INITRD COMMAND-LINE        loads it, and starts it at once
 * kexec KERNEL INITRD COMMAND-LINE panic  loads it, for when this one crashes
 */
#include <fcntl.h>
#include <linux/kexec.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/reboot.h>

int main(int argc, char **argv)
{
    int panic = argc > 4 && !strcmp(argv[4], "panic");
    int kernel, initrd;

    if (argc < 4) {
        fprintf(stderr, "usage: kexec KERNEL INITRD COMMAND-LINE [panic]\n");
        return 1;
    }
    kernel = open(argv[1], O_RDONLY);
    initrd = open(argv[2], O_RDONLY);
    if (kernel < 0 || initrd < 0 ||
        syscall(SYS_kexec_file_load, kernel, initrd, strlen(argv[3]) + 1,
                argv[3], panic ? KEXEC_FILE_ON_CRASH : 0)) {
        perror("kexec");
        return 1;
    }
    if (!panic) {
        sync();
        syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
                LINUX_REBOOT_CMD_KEXEC, NULL);
        perror("kexec");
        return 1;
    }
    return 0;
}
