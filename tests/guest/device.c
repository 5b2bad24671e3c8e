/*
 * guest-memfd-testdev: conversions, and the DMA of a device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "guest.h"

static int device_owner;

static void reg_write(unsigned reg, uint64_t value)
{
    mem_write(GMTD_BASE + reg, value);
}

static uint64_t reg_read(unsigned reg)
{
    return mem_read(GMTD_BASE + reg);
}

bool device_present(void)
{
    static int known;

    if (!known) {
        known = reg_read(GMTD_REG_ID) == GMTD_ID ? 1 : -1;
    }
    return known > 0;
}

void device_lock(void)
{
    while (__atomic_exchange_n(&device_owner, 1, __ATOMIC_ACQUIRE)) {
        asm volatile("pause");
    }
}

void device_unlock(void)
{
    __atomic_store_n(&device_owner, 0, __ATOMIC_RELEASE);
}

static int64_t run(uint64_t command, uint64_t gpa, uint64_t size)
{
    reg_write(GMTD_REG_GPA, gpa);
    reg_write(GMTD_REG_SIZE, size);
    reg_write(GMTD_REG_COMMAND, command);
    return reg_read(GMTD_REG_STATUS);
}

int64_t device_command(uint64_t command, uint64_t gpa, uint64_t size)
{
    int64_t status;

    device_lock();
    status = run(command, gpa, size);
    device_unlock();
    return status;
}

void device_convert(struct range range, uint64_t attributes,
                    struct answer *answer)
{
    device_lock();
    reg_write(GMTD_REG_ATTRIBUTES, attributes);
    answer->status = run(GMTD_CMD_CONVERT, range.gpa, range.size);
    answer->outcome = reg_read(GMTD_REG_OUTCOME);
    answer->changed = reg_read(GMTD_REG_CHANGED);
    answer->detailed = true;
    device_unlock();
}

int64_t device_read(uint64_t gpa, unsigned size, uint64_t *value)
{
    int64_t status;

    device_lock();
    status = run(GMTD_CMD_READ, gpa, size);
    *value = status ? 0 : reg_read(GMTD_REG_DATA);
    device_unlock();
    return status;
}

int64_t device_write(uint64_t gpa, unsigned size, uint64_t value)
{
    int64_t status;

    device_lock();
    reg_write(GMTD_REG_DATA, value);
    status = run(GMTD_CMD_WRITE, gpa, size);
    device_unlock();
    return status;
}

int64_t device_copy(uint64_t gpa, uint64_t size, uint64_t dst,
                    uint64_t *done)
{
    int64_t status;

    device_lock();
    reg_write(GMTD_REG_DST, dst);
    status = run(GMTD_CMD_COPY, gpa, size);
    *done = reg_read(GMTD_REG_DONE);
    device_unlock();
    return status;
}
