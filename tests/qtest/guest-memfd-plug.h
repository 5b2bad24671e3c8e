/*
 * Memory that is plugged into a machine, and unplugged
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_GUEST_MEMFD_PLUG_H
#define TESTS_QTEST_GUEST_MEMFD_PLUG_H

#include "guest-memfd-util.h"

/* The dimm d0 with a backend of @type, in the machine's first slot. */
void gm_plug_dimm(QTestState *qts, const char *type, const char *backend,
                  uint64_t size);
/* The guest lets it go; its memory may still be in use. */
void gm_eject_dimm(QTestState *qts);
/* Both, and the backend, too. */
void gm_unplug_dimm(QTestState *qts, const char *backend);

/* How many blocks of memory there are. */
unsigned gm_count_blocks(QTestState *qts);
/* Memory is freed when the last reader of the memory map has finished. */
void gm_wait_blocks(QTestState *qts, unsigned count);

#endif /* TESTS_QTEST_GUEST_MEMFD_PLUG_H */
