/*
 * Arguments for QMP commands, made of the schema
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_GUEST_MEMFD_SCHEMA_H
#define TESTS_QTEST_GUEST_MEMFD_SCHEMA_H

#include "libqtest.h"
#include "qobject/qdict.h"

typedef struct GmSchema GmSchema;
typedef void GmCommandFn(const char *command, void *opaque);

GmSchema *gm_schema_new(QTestState *qts);
void gm_schema_free(GmSchema *s);

/* Calls @fn for each command. */
void gm_schema_commands(GmSchema *s, GmCommandFn *fn, void *opaque);

/* Plausible ones; @all: the optional ones, too.  The caller unrefs them. */
QDict *gm_schema_arguments(GmSchema *s, const char *command, bool all);

#endif /* TESTS_QTEST_GUEST_MEMFD_SCHEMA_H */
