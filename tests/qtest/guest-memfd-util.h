/*
 * Common code of the qtests of guest memory conversion
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_GUEST_MEMFD_UTIL_H
#define TESTS_QTEST_GUEST_MEMFD_UTIL_H

#include "hw/misc/guest-memfd-testdev.h"
#include "libqtest.h"
#include "qobject/qdict.h"
#include "qemu/units.h"

/* The unit of conversion in tests: a multiple of any host's page size. */
#define GM_PAGE         (64 * KiB)
/* Out of the way of everything that a PC has below 1 MiB. */
#define GM_GPA          (16 * MiB)
#define GM_RAM_SIZE     (64 * MiB)
/* The second NUMA cell begins here. */
#define GM_CELL         (32 * MiB)
/* The byte that the emulated provider fills memory with. */
#define GM_POISON       0xd5

#define GM_MANAGER      "/objects/gmm0"
#define GM_PROVIDER     "/objects/gmm0/emulated"
#define GM_BACKEND      "/objects/ram0"

#define GM_MACHINE      "-nodefaults -machine q35 " \
                        "-machine confidential-guest-support=cgs0 " \
                        "-object sw-protected-guest,id=cgs0 "
#define GM_TESTDEV      "-device guest-memfd-testdev "
#define GM_RAM          "-machine memory-backend=ram0 -m 64M "
#define GM_RAM0         "-object memory-backend-memfd-private,id=ram0,size=64M"
#define GM_ONE_BACKEND  GM_MACHINE GM_TESTDEV GM_RAM \
                        "-object guest-memfd-manager,id=gmm0 " GM_RAM0 " "

/* A machine with one backend, ram0, or with one for each NUMA cell. */
QTestState *gm_start(void);
QTestState *gm_start_cells(void);
/* On one of these, bytes that no promise kept are poison. */
QTestState *gm_start_poisoned(QTestState *machine(void));
void gm_assert_running(QTestState *qts);
/* Checks that the statistics add up, then ends QEMU. */
void gm_quit(QTestState *qts);

/* --- the test device --------------------------------------------------- */

typedef struct GmResult {
    int64_t status;
    uint64_t changed;
    bool decided;
    unsigned mode;              /* GuestMemfdContentMode */
    unsigned how;               /* GuestMemfdRealisation */
} GmResult;

GmResult gm_convert(QTestState *qts, uint64_t gpa, uint64_t size,
                    uint64_t attributes);
/* The same, and it must succeed. */
void gm_to_private(QTestState *qts, uint64_t gpa, uint64_t size);
void gm_to_shared(QTestState *qts, uint64_t gpa, uint64_t size);

/* @direction: 0 or GMTD_ATTR_PRIVATE; to the state that is the other one. */
void gm_go_to(QTestState *qts, uint64_t direction, uint64_t gpa,
              uint64_t size);
void gm_leave(QTestState *qts, uint64_t direction, uint64_t gpa,
              uint64_t size);

int64_t gm_read(QTestState *qts, uint64_t gpa, uint64_t size,
                uint64_t *data);
int64_t gm_write(QTestState *qts, uint64_t gpa, uint64_t size,
                 uint64_t data);
int64_t gm_copy(QTestState *qts, uint64_t src, uint64_t dst, uint64_t size,
                uint64_t *done);

/* The device holds the page at @gpa, one page at a time. */
int64_t gm_pin(QTestState *qts, uint64_t gpa);
int64_t gm_unpin(QTestState *qts);

/* The device keeps a pointer to it, one at a time. */
int64_t gm_map(QTestState *qts, uint64_t gpa);
int64_t gm_unmap(QTestState *qts);

/* The state of the page at @gpa to devices. */
bool gm_is_private(QTestState *qts, uint64_t gpa);

/* --- contents of shared memory ----------------------------------------- */

/* Every page of [gpa, gpa + size) gets bytes of its own. */
void gm_fill(QTestState *qts, uint64_t gpa, uint64_t size);
void gm_assert_filled(QTestState *qts, uint64_t gpa, uint64_t size);
void gm_assert_bytes(QTestState *qts, uint64_t gpa, uint64_t size,
                     uint8_t byte);

/* --- QOM and QMP ------------------------------------------------------- */

void gm_set_str(QTestState *qts, const char *path, const char *property,
                const char *value);
void gm_set_int(QTestState *qts, const char *path, const char *property,
                uint64_t value);
char *gm_get_str(QTestState *qts, const char *path, const char *property);
uint64_t gm_get_int(QTestState *qts, const char *path, const char *property);

/*
 * After @after more conversions the provider fails @count times with
 * @error, each time after @progress bytes were converted.  Calls that change
 * no page do not count: discarding, or converting back pages that had not
 * changed.
 */
void gm_fault(QTestState *qts, int error, uint32_t after, uint32_t count,
              uint64_t progress);

uint64_t gm_faults_left(QTestState *qts);

void gm_set_timeout(QTestState *qts, uint32_t ms);

/* The result of query-guest-memfd. */
QDict *gm_query(QTestState *qts);
/* A number of one backend, for example "stats.directions.to-shared". */
uint64_t gm_stat(QTestState *qts, const char *backend, const char *field);
uint64_t gm_private_bytes(QTestState *qts, const char *backend);
/* How often requests failed with the errno value of that name. */
uint64_t gm_failures(QTestState *qts, const char *backend, const char *error);
uint64_t gm_rejected(QTestState *qts, const char *error);

/* Runs QMP command @fmt, which must fail with an error that says @text. */
void gm_assert_error(QTestState *qts, const char *text, const char *fmt, ...)
    G_GNUC_PRINTF(3, 4);

/* The first pixel of what a screendump shows, 0xRRGGBB. */
uint32_t gm_first_pixel(QTestState *qts);

#endif /* TESTS_QTEST_GUEST_MEMFD_UTIL_H */
