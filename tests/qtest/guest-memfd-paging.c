/*
 * A guest that has turned on paging, and halts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-paging.h"

/* Written when paging is on. */
#define READY           0x201000
#define FIRMWARE_SIZE   (64 * KiB)

/* From the reset vector to 32 bits and paging: all of memory, 1 to 1. */
static const struct {
    unsigned offset;
    uint8_t code[72];
} firmware[] = {
    { 0xfff0, { 0xea, 0x00, 0xe0, 0x00, 0xf0 } },   /* jmp f000:e000 */
    { 0xe000, {
        0xfa,                                       /* cli */
        0x2e, 0x0f, 0x01, 0x16, 0x00, 0xe1,         /* lgdt cs:[e100] */
        0x0f, 0x20, 0xc0,                           /* mov eax, cr0 */
        0x0c, 0x01,                                 /* or al, 1 */
        0x0f, 0x22, 0xc0,                           /* mov cr0, eax */
        0x66, 0xea, 0x40, 0xe0, 0x0f, 0x00, 0x08, 0x00, /* jmp 8:fe040 */
    } },
    { 0xe040, {
        0x66, 0xb8, 0x10, 0x00,                     /* mov ax, 10 */
        0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0,         /* mov ds, es, ss */
        0xbf, 0x00, 0x00, 0x20, 0x00,               /* mov edi, 200000 */
        0xb8, 0x83, 0x00, 0x00, 0x00,               /* mov eax, 83 */
        0xb9, 0x00, 0x04, 0x00, 0x00,               /* mov ecx, 400 */
        0xab,                                       /* stosd */
        0x05, 0x00, 0x00, 0x40, 0x00,               /* add eax, 400000 */
        0xe2, 0xf8,                                 /* loop */
        0x0f, 0x20, 0xe0, 0x0c, 0x10, 0x0f, 0x22, 0xe0, /* cr4.pse */
        0xb8, 0x00, 0x00, 0x20, 0x00, 0x0f, 0x22, 0xd8, /* cr3 */
        0x0f, 0x20, 0xc0,                           /* mov eax, cr0 */
        0x0d, 0x00, 0x00, 0x00, 0x80,               /* or eax, pg */
        0x0f, 0x22, 0xc0,                           /* mov cr0, eax */
        0xc6, 0x05, 0x00, 0x10, 0x20, 0x00, 0x01,   /* mov [201000], 1 */
        0xf4, 0xeb, 0xfd,                           /* hlt, for ever */
    } },
    { 0xe100, { 0x17, 0x00, 0x10, 0xe1, 0x0f, 0x00 } },     /* gdtr */
    { 0xe118, {
        0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xcf, 0x00,     /* code */
        0xff, 0xff, 0x00, 0x00, 0x00, 0x92, 0xcf, 0x00,     /* data */
    } },
};

static char *make_firmware(const char *dir)
{
    g_autofree uint8_t *image = g_malloc0(FIRMWARE_SIZE);
    char *path = g_build_filename(dir, "firmware", NULL);
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(firmware); i++) {
        memcpy(image + firmware[i].offset, firmware[i].code,
               MIN(sizeof(firmware[i].code),
                   FIRMWARE_SIZE - firmware[i].offset));
    }
    g_assert_true(g_file_set_contents(path, (char *)image, FIRMWARE_SIZE,
                                      NULL));
    return path;
}

void gm_wait_paging(QTestState *qts)
{
    while (!qtest_readb(qts, READY)) {
        g_usleep(1000);
    }
}

QTestState *gm_start_paging(const char *machine, const char *more)
{
    g_autofree char *dir = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    g_autofree char *bios = make_firmware(dir);
    QTestState *qts = qtest_initf("-accel tcg "
        "-machine %s,confidential-guest-support=cgs0 "
        "-object sw-protected-guest,id=cgs0 -m 64M,maxmem=1G,slots=4 "
        "-bios %s -nodefaults " GM_TESTDEV "%s", machine, bios, more);

    gm_wait_paging(qts);
    unlink(bios);
    rmdir(dir);
    return qts;
}
