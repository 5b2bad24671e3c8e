/*
 * Every fault at every step of a conversion of guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each call of the provider fails, with each error and after each progress;
 * so does each later call, once or for good, so that the rollback fails; and
 * each listener refuses, at each of its calls, with each error and
 * together with each failure of the provider. guest-memfd-cell.c checks the
 * result.
 *
 * Zeroing and the launch return nothing: they cannot fail.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "guest-memfd-cell.h"

#define KERNEL      GUEST_MEMFD_REALISATION_KERNEL
#define EMULATED    GUEST_MEMFD_REALISATION_EMULATED
#define REFUSED     GUEST_MEMFD_REALISATION_REFUSED

static const CellAsk asks[] = {
    { TO_SHARED, UNSPECIFIED, GUEST_MEMFD_CONTENT_POLICY_AUTO },
    { TO_SHARED, UNSPECIFIED, GUEST_MEMFD_CONTENT_POLICY_DEFAULT },
    { TO_SHARED, PRESERVE, GUEST_MEMFD_CONTENT_POLICY_AUTO },
    { TO_PRIVATE, UNSPECIFIED, GUEST_MEMFD_CONTENT_POLICY_AUTO },
    { TO_PRIVATE, PRESERVE, GUEST_MEMFD_CONTENT_POLICY_AUTO },
};

/* One run; two runs of a block; three runs of two blocks. */
static const CellShape shapes[] = {
    { 2, 3, CELL_PAGES }, { 1, 6, 3 }, { 5, 6, 9 },
};

/* Default, zero, preserve to shared; the same to private. */
static const GuestMemfdOffer offers[] = {
    { .how = { { KERNEL, KERNEL, KERNEL }, { KERNEL, REFUSED, KERNEL } } },
    { .how = { { KERNEL, KERNEL, KERNEL }, { KERNEL, REFUSED, REFUSED } } },
    { .how = { { KERNEL, EMULATED, REFUSED }, { KERNEL, REFUSED, KERNEL } } },
    { .how = { { KERNEL, EMULATED, REFUSED },
               { KERNEL, REFUSED, REFUSED } } },
    { .how = { { EMULATED, EMULATED, EMULATED },
               { EMULATED, REFUSED, EMULATED } } },
};

static void test_alloc(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(rig_errors); i++) {
        Rig *rig = rig_new(TYPE_CELL_PROVIDER);
        Error *err = NULL;

        cell_set_alloc_error(rig_errors[i]);
        g_assert_null(guest_memfd_block_new(&rig->engine, NULL, "a",
                                            qemu_real_host_page_size(),
                                            &err));
        g_assert_nonnull(strstr(error_get_pretty(err),
                                strerror(rig_errors[i])));
        g_assert_true(QLIST_EMPTY(&rig->engine.blocks));
        error_free(err);
        cell_set_alloc_error(0);
        rig_free(rig);
    }
    g_test_message("%zu cells", ARRAY_SIZE(rig_errors));
}

/* A listener that refused to get pages back is not notified again. */
static bool makes_sense(const Cell *cell, int error)
{
    return cell->listener == CELL_LISTENERS ||
           cell->ask.direction == TO_SHARED ||
           (error != EAGAIN && error != EINTR);
}

/* @cell, and one more failure of the provider in calls [first, end). */
static void add_fault(Cell cell, unsigned first, unsigned end)
{
    CellFault *f = &cell.faults[cell.faults[0].count ? 1 : 0];
    unsigned e, variant;

    for (; first < end; first++) {
        for (e = 0; e < ARRAY_SIZE(rig_errors); e++) {
            for (variant = 0; variant < 4; variant++) {
                *f = (CellFault) {
                    .call = first,
                    .count = variant & 1 ? RIG_FOR_GOOD : 1,
                    .error = -rig_errors[e],
                    .progress = variant >> 1,
                };
                if (makes_sense(&cell, rig_errors[e])) {
                    cell_run(&cell);
                }
            }
        }
    }
}

static void fail_provider(Cell cell)
{
    static const unsigned progress[] = { 0, 1, CELL_PAGES };
    const unsigned calls = cell_run(&cell);
    CellFault *f = &cell.faults[0];
    unsigned e, i;

    f->count = 1;
    for (f->call = 0; f->call < calls; f->call++) {
        for (e = 0; e < ARRAY_SIZE(rig_errors); e++) {
            f->error = -rig_errors[e];
            for (i = 0; i < ARRAY_SIZE(progress); i++) {
                f->progress = progress[i];
                cell.no_retry = true;
                cell_run(&cell);
                cell.no_retry = false;
                add_fault(cell, f->call + 1, cell_run(&cell));
            }
        }
    }
}

/* Pages are populated again only when the provider fails. */
static unsigned times_asked(const Cell *cell, unsigned listener)
{
    return cell->ask.direction == TO_SHARED ? cell_asked(listener) : 2;
}

static void fail_listener(Cell cell, unsigned listener)
{
    unsigned e, times;

    cell_run(&cell);
    times = times_asked(&cell, listener);
    cell.listener = listener;
    for (cell.agrees = 0; cell.agrees < times; cell.agrees++) {
        for (e = 0; e < ARRAY_SIZE(rig_errors); e++) {
            cell.refusal = -rig_errors[e];
            cell.no_retry = true;
            cell_run(&cell);
            cell.no_retry = false;
            add_fault(cell, 0, cell_run(&cell));
        }
    }
}

static void run_cells(const GuestMemfdOffer *offer)
{
    unsigned a, s, l;

    for (a = 0; a < ARRAY_SIZE(asks); a++) {
        for (s = 0; s < ARRAY_SIZE(shapes); s++) {
            Cell cell = {
                .ask = asks[a],
                .shape = shapes[s],
                .offer = *offer,
                .listener = CELL_LISTENERS,
            };

            fail_provider(cell);
            for (l = 0; l < CELL_LISTENERS; l++) {
                fail_listener(cell, l);
            }
        }
    }
}

static void test_offer(const void *offer)
{
    cell_counts = (CellCounts) { };
    cell_start();
    run_cells(offer);
    cell_end();
    g_test_message("%lu cells: %lu calls of the provider failed, %lu "
                   "listeners refused, %lu ways back failed",
                   cell_counts.cells, cell_counts.faults,
                   cell_counts.refusals, cell_counts.broken);
    g_assert_cmpuint(cell_counts.broken, >, 0);
}

int main(int argc, char **argv)
{
    static const char *const names[ARRAY_SIZE(offers)] = {
        "content-modes", "content-modes-lossy-to-private",
        "in-place-before-launch", "in-place", "emulated",
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/guest-memfd/faults/alloc", test_alloc);
    for (i = 0; i < ARRAY_SIZE(offers); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/faults/", names[i],
                                            NULL);

        g_test_add_data_func(path, &offers[i], test_offer);
    }
    return g_test_run();
}
