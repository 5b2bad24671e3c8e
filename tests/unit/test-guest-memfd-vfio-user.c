/*
 * Messages to the server of an assigned device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One thread plays both ends and the I/O thread, so that a reply is received
 * when the test wants it.
 */

#include "qemu/osdep.h"
#include "hw/vfio-user/proxy.h"
#include "qapi/error.h"
#include "qemu/atomic.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/sockets.h"
#include "system/iothread.h"

static struct {
    VFIOUserProxy *proxy;
    int socket;                 /* the server's end */
    unsigned answers;
} the;

/* --- a fake of the I/O thread -------------------------------------------- */

IOThread *iothread_create(const char *id, Error **errp)
{
    return (IOThread *)&the;
}

void iothread_destroy(IOThread *iothread)
{
    g_assert_not_reached();
}

AioContext *iothread_get_aio_context(IOThread *iothread)
{
    return qemu_get_aio_context();
}

static void receive(void)
{
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* until all is received */
    }
}

/* --- the server ----------------------------------------------------------- */

static void answer(void)
{
    VFIOUserHdr hdr;

    g_assert_cmpint(read(the.socket, &hdr, sizeof(hdr)), ==, sizeof(hdr));
    hdr.flags = VFIO_USER_REPLY;
    g_assert_cmpint(write(the.socket, &hdr, sizeof(hdr)), ==, sizeof(hdr));
    the.answers++;
}

static void connect_to_server(void)
{
    g_autofree char *dir = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "device", NULL);
    int listener = unix_listen(path, &error_abort);
    SocketAddress address = {
        .type = SOCKET_ADDRESS_TYPE_UNIX,
        .u.q_unix.path = path,
    };
    VFIODevice device = { };

    the.proxy = vfio_user_connect_dev(&address, &error_abort);
    the.socket = accept(listener, NULL, NULL);
    g_assert_cmpint(the.socket, >=, 0);
    device.proxy = the.proxy;
    vfio_user_set_handler(&device, NULL, NULL);
    close(listener);
    unlink(path);
    rmdir(dir);
}

/* --- the tests ------------------------------------------------------------ */

/*
 * The time is over, and the I/O thread has the lock: the reply is received
 * before the waiter has the lock again.
 */
static bool answer_at_timeout(QemuCond *cond, QemuMutex *mutex, int ms,
                              const char *file, int line)
{
    answer();
    qemu_mutex_unlock(mutex);
    receive();
    qemu_mutex_lock(mutex);
    return false;
}

static void test_wait(void)
{
    VFIOUserHdr hdr;

    the.answers = 0;
    vfio_user_request_msg(&hdr, VFIO_USER_DEVICE_RESET, sizeof(hdr), 0);
    g_assert_true(vfio_user_send_wait(the.proxy, &hdr, NULL, 0,
                                      &error_abort));
    g_assert_cmphex(hdr.flags, ==, VFIO_USER_REPLY);
    g_assert_cmpuint(the.answers, ==, 1);
    g_assert_true(vfio_user_is_connected(the.proxy));
}

static void test_nowait(void)
{
    VFIOUserHdr *hdr = g_new0(VFIOUserHdr, 1);

    the.answers = 0;
    vfio_user_request_msg(hdr, VFIO_USER_DMA_MAP, sizeof(*hdr), 0);
    g_assert_true(vfio_user_send_nowait(the.proxy, hdr, NULL, 0,
                                        &error_abort));
    vfio_user_wait_reqs(the.proxy);
    g_assert_cmpuint(the.answers, ==, 1);
    g_assert_cmpint(the.proxy->map_error, ==, 0);
    g_assert_true(vfio_user_is_connected(the.proxy));
}

static bool no_answer(QemuCond *cond, QemuMutex *mutex, int ms,
                      const char *file, int line)
{
    return false;
}

/* The server may not have mapped the memory, which the device is to use. */
static void test_no_answer(void)
{
    VFIOUserHdr *hdr = g_new0(VFIOUserHdr, 1);

    qatomic_set(&qemu_cond_timedwait_func, no_answer);
    vfio_user_request_msg(hdr, VFIO_USER_DMA_MAP, sizeof(*hdr), 0);
    g_assert_true(vfio_user_send_nowait(the.proxy, hdr, NULL, 0,
                                        &error_abort));
    vfio_user_wait_reqs(the.proxy);
    g_assert_cmpint(the.proxy->map_error, ==, ETIMEDOUT);
    g_assert_true(vfio_user_is_connected(the.proxy));

    /* The data of a reply to nothing would be taken for a message. */
    answer();
    receive();
    g_assert_false(vfio_user_is_connected(the.proxy));
}

int main(int argc, char **argv)
{
    module_call_init(MODULE_INIT_QOM);
    qemu_init_main_loop(&error_abort);
    g_test_init(&argc, &argv, NULL);
    connect_to_server();
    qatomic_set(&qemu_cond_timedwait_func, answer_at_timeout);
    g_test_add_func("/guest-memfd/vfio-user/timeout/wait", test_wait);
    g_test_add_func("/guest-memfd/vfio-user/timeout/nowait", test_nowait);
    /* The last one: the server is gone then. */
    g_test_add_func("/guest-memfd/vfio-user/timeout/no-answer",
                    test_no_answer);

    return g_test_run();
}
