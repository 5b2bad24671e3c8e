/*
 * qtest: everything that QEMU's users can type, once, in a machine whose
 * guest has turned on paging and made half of its memory private
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Most of it fails, and may.  QEMU must answer, and go on.
 */

#include "qemu/osdep.h"
#include "guest-memfd-cmdline.h"
#include "guest-memfd-paging.h"
#include "guest-memfd-schema.h"
#include "guest-memfd-util.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"

/* A busy machine is slow; what takes longer than that hangs. */
#define SECONDS_MAX 60

static char current[256];

static void timed_out(int number)
{
    static const char text[] = "no answer to: ";

    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0 ||
        write(STDERR_FILENO, current, strlen(current)) < 0) {
        _exit(2);
    }
    _exit(1);
}

/* The command that is tried next, for when it hangs. */
static void G_GNUC_PRINTF(1, 2) begin(const char *fmt, ...)
{
    va_list list;

    va_start(list, fmt);
    vsnprintf(current, sizeof(current), fmt, list);
    va_end(list);
    alarm(SECONDS_MAX);
    if (g_test_verbose()) {
        g_test_message("%s", current);
    }
}

/* --- the machine ------------------------------------------------------- */

typedef struct Machine {
    const char *name;
    bool private_tables;        /* the page tables are private, too */
} Machine;

static const Machine machines[] = { { "q35", false }, { "pc", true } };

static void make_private(QTestState *qts, const Machine *m)
{
    gm_wait_paging(qts);
    gm_to_private(qts, GM_RAM_SIZE / 2, GM_RAM_SIZE / 2);
    gm_to_private(qts, GM_GPA, GM_PAGE);
    if (m->private_tables) {
        gm_to_private(qts, GM_PAGE_TABLES, GM_PAGE);
    }
}

static QTestState *start(const Machine *m)
{
    QTestState *qts;

    begin("-machine %s", m->name);
    qts = gm_start_paging(m->name, "-device virtio-balloon -vga std "
                          "-no-shutdown -action shutdown=pause,reboot=reset");
    make_private(qts, m);
    return qts;
}

static void end(QTestState *qts)
{
    gm_assert_running(qts);
    qtest_quit(qts);
    alarm(0);
}

/* --- QMP --------------------------------------------------------------- */

typedef struct Typist {
    const Machine *machine;
    QTestState *qts;
    GmSchema *schema;
    unsigned count;
} Typist;

/* These end QEMU, or talk to a different monitor. */
static bool is_skipped(const char *command)
{
    static const char *const skipped[] = {
        "quit", "qmp_capabilities", "q", "gdbserver",
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(skipped); i++) {
        if (!strcmp(command, skipped[i])) {
            return true;
        }
    }
    return false;
}

static bool is_running(QTestState *qts)
{
    g_autoptr(QDict) status = qtest_qmp_assert_success_ref(qts,
        "{ 'execute': 'query-status' }");

    return qdict_get_bool(status, "running");
}

/* QMP answers; the guest runs, and has made its memory private again. */
static void bring_back(Typist *s)
{
    /* A dump does not let it go on before it has finished. */
    while (!is_running(s->qts)) {
        qobject_unref(qtest_qmp(s->qts, "{ 'execute': 'cont' }"));
    }
    if (!gm_is_private(s->qts, GM_GPA)) {
        make_private(s->qts, s->machine);
    }
}

static void try_qmp(Typist *s, const char *command, QDict *arguments)
{
    g_autoptr(GString) text = qobject_to_json(QOBJECT(arguments));
    QDict *answer;

    begin("%s %s", command, text->str);
    answer = qtest_qmp(s->qts, "{ 'execute': %s, 'arguments': %p }", command,
                       QOBJECT(arguments));
    g_assert_nonnull(answer);
    g_assert_true(qdict_haskey(answer, "return") ||
                  qdict_haskey(answer, "error"));
    qobject_unref(answer);
    bring_back(s);
    s->count++;
}

static void try_command(const char *command, void *opaque)
{
    Typist *s = opaque;

    if (!is_skipped(command)) {
        try_qmp(s, command, qdict_new());
        try_qmp(s, command, gm_schema_arguments(s->schema, command, false));
        try_qmp(s, command, gm_schema_arguments(s->schema, command, true));
    }
}

static void test_qmp(const void *machine)
{
    Typist s = { .machine = machine, .qts = start(machine) };

    s.schema = gm_schema_new(s.qts);
    gm_schema_commands(s.schema, try_command, &s);
    g_test_message("%u commands", s.count);
    g_assert_cmpuint(s.count, >, 500);
    gm_schema_free(s.schema);
    end(s.qts);
}

/* --- HMP --------------------------------------------------------------- */

static void try_hmp(Typist *s, const char *line)
{
    g_autofree char *out = NULL;

    begin("hmp %s", line);
    out = qtest_hmp(s->qts, "%s", line);
    bring_back(s);
    s->count++;
}

/* For what is in the help, in private memory where it is an address. */
static const char *value_of(const char *parameter)
{
    if (strstr(parameter, "addr") || strstr(parameter, "start") ||
        strstr(parameter, "val")) {
        return "0x1000000";
    } else if (strstr(parameter, "size") || strstr(parameter, "length") ||
               strstr(parameter, "count")) {
        return "4096";
    } else if (strstr(parameter, "file") || strstr(parameter, "target") ||
               strstr(parameter, "path")) {
        return "/dev/null";
    } else if (strstr(parameter, "on|off")) {
        return "on";
    } else if (strstr(parameter, "fmt")) {
        return "/16xb";
    }
    return "1";
}

/* "name|alias [-o] addr size file -- what it does" */
static void try_help_line(Typist *s, const char *prefix, const char *help)
{
    g_auto(GStrv) halves = g_strsplit(help, " -- ", 2);
    g_auto(GStrv) words = g_strsplit(halves[0] ?: "", " ", -1);
    g_auto(GStrv) names = g_strsplit(words[0] ?: "", "|", 2);
    g_autoptr(GString) line = NULL;
    int i;

    if (!names[0] || !halves[1] || is_skipped(names[0])) {
        return;
    }
    line = g_string_new(prefix);
    g_string_append(line, names[0]);
    try_hmp(s, line->str);
    for (i = 1; words[i]; i++) {
        if (*words[i] && *words[i] != '[' && *words[i] != '-') {
            g_string_append_printf(line, " %s", value_of(words[i]));
        }
    }
    try_hmp(s, line->str);
}

static void try_help(Typist *s, const char *help, const char *prefix)
{
    g_autofree char *out = qtest_hmp(s->qts, "%s", help);
    g_auto(GStrv) lines = g_strsplit(out, "\n", -1);
    const char *skip = *prefix ? "info " : "";
    int i;

    for (i = 0; lines[i]; i++) {
        g_strchomp(lines[i]);
        if (g_str_has_prefix(lines[i], skip)) {
            try_help_line(s, prefix, lines[i] + strlen(skip));
        }
    }
}

static void test_hmp(const void *machine)
{
    static const char *const others[] = {
        "x /16xb 0x1000000", "x /4i 0x1000000", "xp /16xb 0x1000000",
        "x /16xb 0xff0000", "dump-guest-memory -p /dev/null",
        "dump-guest-memory /dev/null", "info mtree -f", "info registers -a",
        "info qtree", "info lapic 0", "gva2gpa 0x2000000", "info cpus",
        "print $cr3", "print $eip", "i /b 0x70", "o /b 0x80 1",
        "sendkey ctrl-alt-f1", "trace-event guest_memfd* off",
        "pmemsave 0xfff000 8192 /dev/null", "memsave 0xfff000 8192 /dev/null",
    };
    Typist s = { .machine = machine, .qts = start(machine) };
    int i;

    try_help(&s, "help", "");
    try_help(&s, "help info", "info ");
    for (i = 0; i < ARRAY_SIZE(others); i++) {
        try_hmp(&s, others[i]);
    }
    g_test_message("%u commands", s.count);
    g_assert_cmpuint(s.count, >, 250);
    end(s.qts);
}

/* --- objects and devices ----------------------------------------------- */

typedef void TypeFn(Typist *s, const char *type);

static void for_types(Typist *s, const char *implements, TypeFn *fn)
{
    QDict *answer = qtest_qmp(s->qts, "{ 'execute': 'qom-list-types', "
                              "'arguments': { 'implements': %s } }",
                              implements);
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(answer, "return"), e) {
        fn(s, qdict_get_str(qobject_to(QDict, qlist_entry_obj(e)), "name"));
    }
    qobject_unref(answer);
}

/* A command that works can be undone. */
static void try_pair(Typist *s, QDict *first, QDict *second)
{
    QDict *answer = qtest_qmp(s->qts, "%p", QOBJECT(first));
    bool done = qdict_haskey(answer, "return");

    qobject_unref(answer);
    answer = done ? qtest_qmp(s->qts, "%p", QOBJECT(second)) : NULL;
    qobject_unref(answer);
    if (!done) {
        qobject_unref(second);
    }
    bring_back(s);
    s->count++;
}

static void try_object(Typist *s, const char *type)
{
    begin("object-add %s", type);
    try_pair(s, qdict_from_jsonf_nofail("{ 'execute': 'object-add', "
                 "'arguments': { 'qom-type': %s, 'id': 'object1' } }", type),
             qdict_from_jsonf_nofail("{ 'execute': 'object-del', "
                 "'arguments': { 'id': 'object1' } }"));
}

static void try_properties(Typist *s, const char *type)
{
    begin("device-list-properties %s", type);
    qobject_unref(qtest_qmp(s->qts, "{ 'execute': 'device-list-properties', "
                            "'arguments': { 'typename': %s } }", type));
    begin("device_add %s", type);
    try_pair(s, qdict_from_jsonf_nofail("{ 'execute': 'device_add', "
                 "'arguments': { 'driver': %s, 'id': 'object2' } }", type),
             qdict_from_jsonf_nofail("{ 'execute': 'device_del', "
                 "'arguments': { 'id': 'object2' } }"));
}

static void test_objects(const void *machine)
{
    Typist s = { .machine = machine, .qts = start(machine) };

    for_types(&s, "user-creatable", try_object);
    g_test_message("%u objects", s.count);
    g_assert_cmpuint(s.count, >, 30);
    for_types(&s, "device", try_properties);
    g_test_message("%u objects and devices", s.count);
    g_assert_cmpuint(s.count, >, 200);
    end(s.qts);
}

/* On the command line, where more of them work: QEMU starts, or says why. */
static void start_with(Typist *s, const char *option, const char *type,
                       const char *more)
{
    g_autofree char *args = g_strdup_printf(GM_MACHINE GM_TESTDEV
        "-m 64M -S %s %s%s", option, type, more);
    g_autofree char *err = NULL;
    int status;

    begin("%s %s", option, type);
    err = gm_run_qemu("qtest", args, &status);
    if (!WIFEXITED(status) || WEXITSTATUS(status) > 1) {
        g_test_message("%s: status 0x%x: %s", current, status, err);
        g_test_fail();
    }
    s->count++;
}

static void start_device(Typist *s, const char *type)
{
    start_with(s, "-device", type, "");
}

static void start_object(Typist *s, const char *type)
{
    start_with(s, "-object", type, ",id=object3");
}

static void test_command_line(void)
{
    Typist s = { .machine = machines, .qts = start(machines) };

    for_types(&s, "user-creatable", start_object);
    for_types(&s, "device", start_device);
    g_test_message("%u objects and devices", s.count);
    g_assert_cmpuint(s.count, >, 200);
    end(s.qts);
}

int main(int argc, char **argv)
{
    const struct sigaction action = { .sa_handler = timed_out };
    int i;

    sigaction(SIGALRM, &action, NULL);
    g_test_init(&argc, &argv, NULL);
    if (!qtest_has_accel("tcg")) {
        g_test_skip("this QEMU has no TCG");
        return 0;
    }
    for (i = 0; i < ARRAY_SIZE(machines); i++) {
        const Machine *m = &machines[i];
        g_autofree char *qmp = g_strdup_printf("/guest-memfd/commands/%s/qmp",
                                               m->name);
        g_autofree char *hmp = g_strdup_printf("/guest-memfd/commands/%s/hmp",
                                               m->name);
        g_autofree char *types = g_strdup_printf(
            "/guest-memfd/commands/%s/types", m->name);

        qtest_add_data_func(qmp, m, test_qmp);
        qtest_add_data_func(hmp, m, test_hmp);
        qtest_add_data_func(types, m, test_objects);
    }
    qtest_add_func("/guest-memfd/commands/command-line", test_command_line);
    return g_test_run();
}
