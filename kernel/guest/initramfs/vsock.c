/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Send bytes to the host by vsock, and check what comes back
 *
 * vsock listen PORT            send back what comes, to one peer after another
 * vsock CID PORT BYTES         2 is the host's CID
 *
 * The second prints "vsock bytes=N bad=N".
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <unistd.h>

#define CHUNK   (64 * 1024)

static unsigned char sent[CHUNK], received[CHUNK];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static struct sockaddr_vm address(unsigned cid, const char *port)
{
    struct sockaddr_vm result = { .svm_family = AF_VSOCK, .svm_cid = cid,
                                  .svm_port = strtoul(port, NULL, 0) };

    return result;
}

static void echo(int fd)
{
    ssize_t got, put, done;

    while ((got = read(fd, received, CHUNK)) > 0) {
        for (done = 0; done < got; done += put) {
            put = write(fd, received + done, got - done);
            if (put <= 0) {
                return;
            }
        }
    }
}

static int serve(int fd, const char *port)
{
    struct sockaddr_vm any = address(VMADDR_CID_ANY, port);
    int peer;

    if (bind(fd, (struct sockaddr *)&any, sizeof(any)) || listen(fd, 1)) {
        die("vsock: listen");
    }
    while ((peer = accept(fd, NULL, NULL)) >= 0) {
        echo(peer);
        close(peer);
    }
    die("vsock: accept");
    return 1;
}

/* One chunk there and back; the bytes that are wrong. */
static long exchange(int fd, long offset, long size)
{
    long got, done, bad = 0;

    for (done = 0; done < size; done++) {
        sent[done] = (offset + done) * 0x9e3779b1u >> 24;
    }
    for (done = 0; done < size; done += got) {
        got = write(fd, sent + done, size - done);
        if (got <= 0) {
            die("vsock: write");
        }
    }
    for (done = 0; done < size; done += got) {
        got = read(fd, received + done, size - done);
        if (got <= 0) {
            die("vsock: read");
        }
    }
    for (done = 0; done < size; done++) {
        bad += sent[done] != received[done];
    }
    return bad;
}

int main(int argc, char **argv)
{
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
    struct sockaddr_vm peer;
    long bytes, offset, size, bad = 0;

    if (argc < 3) {
        fprintf(stderr, "usage: vsock listen PORT | vsock CID PORT BYTES\n");
        return 1;
    }
    if (fd < 0) {
        die("vsock");
    }
    if (!strcmp(argv[1], "listen")) {
        return serve(fd, argv[2]);
    }
    peer = address(strtoul(argv[1], NULL, 0), argv[2]);
    bytes = argc > 3 ? atol(argv[3]) : CHUNK;
    if (connect(fd, (struct sockaddr *)&peer, sizeof(peer))) {
        die("vsock: connect");
    }
    for (offset = 0; offset < bytes; offset += size) {
        size = bytes - offset < CHUNK ? bytes - offset : CHUNK;
        bad += exchange(fd, offset, size);
    }
    printf("vsock bytes=%ld bad=%ld\n", bytes, bad);
    return bad != 0;
}
