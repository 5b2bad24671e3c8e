/*
 * Arguments for QMP commands, made of the schema
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-schema.h"
#include "guest-memfd-util.h"
#include "qobject/qbool.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "qobject/qnull.h"
#include "qobject/qnum.h"
#include "qobject/qstring.h"

/* Types may contain themselves. */
#define DEPTH_MAX   4

struct GmSchema {
    QDict *answer;
    GHashTable *types;          /* name: QDict, in the answer */
};

GmSchema *gm_schema_new(QTestState *qts)
{
    GmSchema *s = g_new0(GmSchema, 1);
    const QListEntry *e;

    s->answer = qtest_qmp(qts, "{ 'execute': 'query-qmp-schema' }");
    s->types = g_hash_table_new(g_str_hash, g_str_equal);
    QLIST_FOREACH_ENTRY(qdict_get_qlist(s->answer, "return"), e) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(e));

        g_hash_table_insert(s->types, (char *)qdict_get_str(info, "name"),
                            info);
    }
    return s;
}

void gm_schema_free(GmSchema *s)
{
    g_hash_table_destroy(s->types);
    qobject_unref(s->answer);
    g_free(s);
}

void gm_schema_commands(GmSchema *s, GmCommandFn *fn, void *opaque)
{
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(s->answer, "return"), e) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(e));

        if (!strcmp(qdict_get_str(info, "meta-type"), "command")) {
            fn(qdict_get_str(info, "name"), opaque);
        }
    }
}

/* An argument that a command accepts. */
static QObject *make_builtin(const char *json_type, const char *member)
{
    static const struct {
        const char *member;
        const char *value;
    } values[] = {
        { "filename", "/dev/null" }, { "file", "/dev/null" },
        { "logfile", "/dev/null" }, { "out", "/dev/null" },
        { "device", "/dev/null" }, { "target", "/dev/null" },
        { "path", "/machine" }, { "command-line", "info status" },
        { "protocol", "file:/dev/null" }, { "driver", "null-co" },
        { "id", "object0" }, { "qom-type", "can-bus" },
        { "typename", "guest-memfd-testdev" }, { "property", "type" },
    };
    int i;

    if (!strcmp(json_type, "string")) {
        for (i = 0; i < ARRAY_SIZE(values); i++) {
            if (!strcmp(values[i].member, member)) {
                return QOBJECT(qstring_from_str(values[i].value));
            }
        }
        return QOBJECT(qstring_from_str("x"));
    } else if (!strcmp(json_type, "boolean")) {
        return QOBJECT(qbool_from_bool(true));
    } else if (!strcmp(json_type, "null")) {
        return QOBJECT(qnull());
    }
    /* An address may be in private memory. */
    return QOBJECT(qnum_from_int(!strcmp(member, "val") ? GM_GPA : 4096));
}

static QObject *make(GmSchema *s, const char *type, const char *member,
                     bool all, int depth);

static void add_members(GmSchema *s, QDict *to, QDict *info, bool all,
                        int depth)
{
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "members"), e) {
        QDict *m = qobject_to(QDict, qlist_entry_obj(e));
        const char *name = qdict_get_str(m, "name");

        if (!qdict_haskey(m, "default") || (all && depth < DEPTH_MAX)) {
            qdict_put_obj(to, name, make(s, qdict_get_str(m, "type"), name,
                                         all, depth + 1));
        }
    }
}

static QObject *make_object(GmSchema *s, QDict *info, bool all, int depth)
{
    QDict *object = qdict_new();
    const char *tag;
    const QListEntry *e;

    add_members(s, object, info, all, depth);
    tag = qdict_get_try_str(info, "tag");
    if (tag) {
        const char *chosen = qdict_get_try_str(object, tag);

        QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "variants"), e) {
            QDict *v = qobject_to(QDict, qlist_entry_obj(e));

            if (chosen && !strcmp(qdict_get_str(v, "case"), chosen)) {
                add_members(s, object,
                            g_hash_table_lookup(s->types,
                                                qdict_get_str(v, "type")),
                            all, depth);
            }
        }
    }
    return QOBJECT(object);
}

/* The first value, or one that does no harm. */
static const char *choose(QDict *info)
{
    QList *values = qdict_get_qlist(info, "values");
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(values, e) {
        const char *value = qstring_get_str(qobject_to(QString,
                                                       qlist_entry_obj(e)));

        if (!strcmp(value, "null-co") || !strcmp(value, "null") ||
            !strcmp(value, "can-bus")) {
            return value;
        }
    }
    return qstring_get_str(qobject_to(QString,
                                      qlist_entry_obj(qlist_first(values))));
}

/* The last one is a string where there is one, and ends a recursion. */
static const char *alternative(QDict *info, int depth)
{
    QList *members = qdict_get_qlist(info, "members");
    const QListEntry *e = depth < DEPTH_MAX ? qlist_first(members) :
                          QTAILQ_LAST(&members->head);

    return qdict_get_str(qobject_to(QDict, qlist_entry_obj(e)), "type");
}

static QObject *make(GmSchema *s, const char *type, const char *member,
                     bool all, int depth)
{
    QDict *info = g_hash_table_lookup(s->types, type);
    const char *meta = qdict_get_str(info, "meta-type");

    if (!strcmp(meta, "object")) {
        return make_object(s, info, all, depth);
    } else if (!strcmp(meta, "enum")) {
        return QOBJECT(qstring_from_str(choose(info)));
    } else if (!strcmp(meta, "alternate")) {
        return make(s, alternative(info, depth), member, all, depth + 1);
    } else if (!strcmp(meta, "array")) {
        QList *list = qlist_new();

        if (all && depth < DEPTH_MAX) {
            qlist_append_obj(list, make(s, qdict_get_str(info,
                                                         "element-type"),
                                        member, all, depth + 1));
        }
        return QOBJECT(list);
    }
    return make_builtin(qdict_get_str(info, "json-type"), member);
}

QDict *gm_schema_arguments(GmSchema *s, const char *command, bool all)
{
    QDict *info = g_hash_table_lookup(s->types, command);

    return qobject_to(QDict, make(s, qdict_get_str(info, "arg-type"), "",
                                  all, 0));
}
