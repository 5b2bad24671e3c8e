/*
 * A PCI device that is assigned over a socket, and does nothing
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * vfio-user-device SOCKET: serves one client with what QEMU asks of such a
 * device until it leaves.
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "../guest-memfd/vfio-user.h"

int main(int argc, char **argv)
{
    const struct vfio_user_device device = { };
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (argc != 2 || strlen(argv[1]) >= sizeof(address.sun_path)) {
        fprintf(stderr, "usage: vfio-user-device SOCKET\n");
        return 2;
    }
    strcpy(address.sun_path, argv[1]);
    unlink(argv[1]);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) ||
        listen(fd, 1)) {
        perror(argv[1]);
        return 1;
    }
    return vfio_user_serve(fd, &device) != 0;
}
