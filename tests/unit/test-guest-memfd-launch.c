/*
 * The launch of a guest whose memory is converted in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The engine on the rig: memory in setup, and populating it.  The lines of
 * the log are explained in guest-memfd-rig.h.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "guest-memfd-launched.h"

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

/* --- setup --------------------------------------------------------------- */

/* QEMU can write, and devices see nothing: the listener is never called. */
static void test_setup(void)
{
    Rig *rig = in_setup(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    GuestMemfdBlock *block = rig->blocks[0];
    uint64_t word = 0x5ec2e7;

    expect_pages(rig, 0, 0, PAGES);
    g_assert_true(guest_memfd_block_in_setup(block));
    g_assert_false(guest_memfd_has_listeners(block));
    g_assert_true(bitmap_empty(block->attributes->bitmap, PAGES));
    g_assert_true(guest_memfd_block_copy(block, page_size(), &word,
                                         sizeof(word), true));
    g_assert_cmphex(*(uint64_t *)(block->host + page_size()), ==, word);
    g_assert_true(guest_memfd_mapping_add(block, 0, page_size()));
    g_assert_true(guest_memfd_mapping_remove(block, 0, page_size()));
    rig_expect_log(rig, "");
    end_launched(rig);
}

/* A page that becomes private cannot be accessed any more. */
static void test_setup_access(void)
{
    Rig *rig = in_setup(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    GuestMemfdPart part = part_of(rig, 1, 2);
    uint64_t word = 1;

    expect_populated(rig, &part);
    g_assert_false(guest_memfd_block_copy(rig->blocks[0], page_size(), &word,
                                          sizeof(word), true));
    g_assert_false(guest_memfd_mapping_add(rig->blocks[0], page_size(),
                                           page_size()));
    expect_pages(rig, 2, 0, PAGES - 2);
    end_launched(rig);
}

/* A pointer that is mapped keeps its page from becoming private. */
static void test_setup_mapped(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);
    GuestMemfdPart part = part_of(rig, 0, 1);

    rig->engine.retry_timeout_ms = 0;
    g_assert_true(guest_memfd_mapping_add(rig->blocks[0], 0, 1));
    expect_error(rig, &part, -EAGAIN, "guest memory 'a': [0x0, +0x1000) "
                 "cannot be made private for the launch: Resource "
                 "temporarily unavailable");
    g_assert_true(guest_memfd_mapping_remove(rig->blocks[0], 0, 1));
    expect_populated(rig, &part);
    end_launched(rig);
}

/* --- populating ---------------------------------------------------------- */

static void test_populate(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);
    GuestMemfdPart part = part_of(rig, 2, 3);

    expect_populated(rig, &part);
    rig_expect_log(rig, "phase populate\n"
                        "convert a 2+3 to-private preserve [P]\n");
    rig_expect_state(rig->blocks[0], "S2 P3 S11");
    g_assert_cmpuint(platform.parts, ==, 1);
    g_assert_cmpuint(platform.first, ==, 2);
    g_assert_cmpuint(platform.pages, ==, 3);
    g_assert_cmpuint(rig->blocks[0]->stats.counters.origins[
                         GUEST_MEMFD_ORIGIN_LAUNCH], ==, 1);
    end_launched(rig);
}

/* One unit is one slice, however large it is. */
static void test_populate_much(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);
    GuestMemfdPart part = part_of(rig, 0, PAGES);

    rig->engine.slice_bytes = page_size();
    expect_populated(rig, &part);
    rig_expect_log(rig, "phase populate\n"
                        "convert a 0+16 to-private preserve [P]\n");
    g_assert_cmpuint(rig->slices, ==, 0);
    end_launched(rig);
}

static void test_populate_source(void)
{
    Rig *rig = in_setup(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    GuestMemfdPart part = part_of(rig, 3, 1);
    g_autofree uint8_t *source = g_malloc(page_size());

    memset(source, 0x5a, page_size());
    part.source = source;
    part.contents = GUEST_MEMFD_CONTENTS_WRITTEN;
    expect_populated(rig, &part);
    g_assert_cmpint(memcmp(rig->blocks[0]->host + part.offset, source,
                           page_size()), ==, 0);
    end_launched(rig);
}

/* The source may be in the block, too, as long as it can be read. */
static void test_populate_same_block(void)
{
    Rig *rig = in_setup(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    GuestMemfdBlock *block = rig->blocks[0];
    GuestMemfdPart part = part_of(rig, 3, 2);

    memset(block->host + 4 * page_size(), 0x44, page_size());
    part.source = block->host + 4 * page_size();
    part.contents = GUEST_MEMFD_CONTENTS_WRITTEN;
    expect_populated(rig, &part);
    g_assert_cmphex(block->host[3 * page_size()], ==, 0x44);

    part.offset = part.gpa = 6 * page_size();
    expect_error(rig, &part, -EFAULT, "guest memory 'a': [0x6000, +0x2000) "
                 "cannot be populated: its source was populated already, for "
                 "the page at 0x6000");
    part.source = block->host + (PAGES - 1) * page_size();
    g_assert_cmpint(populate_part(rig, &part, NULL), ==, -EFAULT);
    end_launched(rig);
}

/* Pages that are the source are measured as somebody wrote them, or not. */
static void test_populate_written(void)
{
    Rig *rig = in_setup(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    GuestMemfdBlock *block = rig->blocks[0];
    GuestMemfdPart part = part_of(rig, 3, 2);

    part.contents = GUEST_MEMFD_CONTENTS_WRITTEN;
    expect_error(rig, &part, -ENODATA, "guest memory 'a': [0x3000, +0x2000) "
                 "cannot be populated: nothing was written at 0x3000");
    memset(block->host + part.offset, 1, 1);
    guest_memfd_block_note_written(block, part.offset, 1);
    expect_error(rig, &part, -ENODATA, "guest memory 'a': [0x3000, +0x2000) "
                 "cannot be populated: nothing was written at 0x4000");
    g_assert_cmpuint(platform.parts, ==, 0);
    g_assert_cmpint(rig->engine.phase, ==, GUEST_MEMFD_PHASE_SETUP);

    /* The last byte of page 4 and the first one of page 5. */
    guest_memfd_block_note_written(block, 5 * page_size() - 1, 2);
    part.source = block->host + part.offset;
    expect_populated(rig, &part);
    g_assert_cmphex(block->host[part.offset], ==, 1);
    part = part_of(rig, 5, 1);
    part.contents = GUEST_MEMFD_CONTENTS_WRITTEN;
    expect_populated(rig, &part);
    end_launched(rig);
}

/* Zeros on purpose are zeros, whatever was there. */
static void test_populate_zero(void)
{
    Rig *rig = in_setup(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    GuestMemfdBlock *block = rig->blocks[0];
    GuestMemfdPart part = part_of(rig, 3, 2);

    memset(block->host, 0x33, PAGES * page_size());
    guest_memfd_block_note_written(block, 4 * page_size(), 2 * page_size());
    expect_populated(rig, &part);
    /* Nobody is said to have written to page 3; page 5 is not populated. */
    g_assert_cmphex(block->host[3 * page_size()], ==, 0x33);
    g_assert_true(buffer_is_zero(block->host + 4 * page_size(), page_size()));
    g_assert_cmphex(block->host[5 * page_size()], ==, 0x33);
    end_launched(rig);
}

static void test_populate_refused(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);
    GuestMemfdPart part = part_of(rig, 2, 3);

    expect_populated(rig, &part);
    part = part_of(rig, 0, 3);
    expect_error(rig, &part, -EEXIST, "guest memory 'a': [0x0, +0x3000) "
                 "cannot be populated: memory was populated already at "
                 "0x2000");
    part = part_of(rig, PAGES - 1, 2);
    expect_error(rig, &part, -EINVAL, "guest memory 'a': [0xf000, +0x2000) "
                 "cannot be populated: it is not aligned, or not all of it "
                 "is in one block at 0xf000");
    part = part_of(rig, PAGES + 1, 1);
    g_assert_cmpint(populate_part(rig, &part, NULL), ==, -EINVAL);
    part = part_of(rig, 8, 1);
    part.offset++;
    g_assert_cmpint(populate_part(rig, &part, NULL), ==, -EINVAL);
    part = part_of(rig, 8, 0);
    g_assert_cmpint(populate_part(rig, &part, NULL), ==, -EINVAL);
    g_assert_cmpuint(platform.parts, ==, 1);
    rig_expect_state(rig->blocks[0], "S2 P3 S11");

    g_assert_cmpint(guest_memfd_engine_seal(&rig->engine, &error_abort), ==,
                    0);
    part = part_of(rig, 8, 1);
    expect_error(rig, &part, -EPERM, "guest memory 'a': [0x8000, +0x1000) "
                 "cannot be populated: the launch has ended at 0x8000");
    end_launched(rig);
}

/* --- failures ------------------------------------------------------------ */

static void correct(const GuestMemfdPart *part)
{
    part->block->host[part->offset + 1] = 0x77;
}

/*
 * The platform refuses a page, and writes there what it would take: shared
 * again, read, written, and populated once more.
 */
static void test_launch_fails(void)
{
    Rig *rig = in_setup(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    GuestMemfdBlock *block = rig->blocks[0];
    GuestMemfdPart part = part_of(rig, 3, 1);
    uint8_t bytes[2] = { 0x11, 0x22 };

    g_assert_true(guest_memfd_block_copy(block, part.offset, bytes,
                                         sizeof(bytes), true));
    guest_memfd_block_note_written(block, part.offset, sizeof(bytes));
    part.contents = GUEST_MEMFD_CONTENTS_WRITTEN;
    platform.error = -EIO;
    platform.on_launch = correct;
    expect_error(rig, &part, -EIO, "part 7: Input/output error");
    rig_expect_state(block, "S16");
    g_assert_true(guest_memfd_block_in_setup(block));
    g_assert_true(guest_memfd_block_copy(block, part.offset, bytes,
                                         sizeof(bytes), false));
    g_assert_cmphex(bytes[0], ==, 0x11);
    g_assert_cmphex(bytes[1], ==, 0x77);
    g_assert_cmpint(populate_part(rig, &part, NULL), ==, -ENODATA);
    guest_memfd_block_note_written(block, part.offset, sizeof(bytes));
    expect_populated(rig, &part);
    g_assert_cmpuint(platform.parts, ==, 2);
    end_launched(rig);
}

static void test_launch_fails_modes(void)
{
    static const struct {
        GuestMemfdRealisation to_shared;
        bool until_final;
        const char *mode;
    } cases[] = {
        { GUEST_MEMFD_REALISATION_KERNEL, false, "preserve" },
        { GUEST_MEMFD_REALISATION_REFUSED, true, "default" },
        { GUEST_MEMFD_REALISATION_REFUSED, false, "default" },
    };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        Rig *rig = in_setup(TYPE_RIG_PROVIDER);
        GuestMemfdOffer *offer = &rig->engine.provider->offer;
        GuestMemfdPart part = part_of(rig, 3, 1);
        g_autofree char *log = NULL;

        offer->how[TO_SHARED][GUEST_MEMFD_CONTENT_MODE_PRESERVE] =
            cases[i].to_shared;
        offer->preserve_until_final = cases[i].until_final;
        guest_memfd_block_note_written(part.block, part.offset, part.size);
        part.contents = GUEST_MEMFD_CONTENTS_WRITTEN;
        platform.error = -EINVAL;
        g_assert_cmpint(populate_part(rig, &part, NULL), ==, -EINVAL);
        log = g_strdup_printf("phase populate\n"
                              "convert a 3+1 to-private preserve [P]\n"
                              "convert a 3+1 to-shared %s [P]\n",
                              cases[i].mode);
        rig_expect_log(rig, log);
        /* Bytes that may be lost are not launched as if they were there. */
        g_assert_cmpint(populate_part(rig, &part, NULL), ==, -ENODATA);
        end_launched(rig);
    }
}

static void set_busy(Rig *rig)
{
    if (rig->sleeps < 3) {
        rig->convert_fault = (RigFault) { .count = 1, .error = -EAGAIN };
    }
}

/* Nobody can try again, whatever is said of the guest's requests. */
static void test_busy(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);
    GuestMemfdPart part = part_of(rig, 2, 3);

    rig->engine.retry_timeout_ms = 0;
    rig->on_sleep = set_busy;
    set_busy(rig);
    expect_populated(rig, &part);
    g_assert_cmpuint(rig->sleeps, ==, 3);
    rig->sleeps = 0;
    set_busy(rig);
    g_assert_cmpint(guest_memfd_engine_seal(&rig->engine, &error_abort), ==,
                    0);
    g_assert_cmpuint(rig->sleeps, ==, 3);
    end_launched(rig);
}

static void test_convert_fails(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);
    GuestMemfdPart part = part_of(rig, 2, 3);

    rig->convert_fault = (RigFault) { 0, 1, -ENOMEM, 1 };
    expect_error(rig, &part, -ENOMEM, "guest memory 'a': [0x2000, +0x3000) "
                 "cannot be made private for the launch: Cannot allocate "
                 "memory");
    rig_expect_log(rig, "phase populate\n"
                        "convert a 2+3 to-private preserve [P]\n"
                        "convert a 2+3 to-shared preserve [P]\n");
    rig_expect_state(rig->blocks[0], "S16");
    g_assert_cmpuint(platform.parts, ==, 0);
    end_launched(rig);
}

/* The bytes would be lost: nothing is measured. */
static void test_cannot_preserve(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);
    GuestMemfdPart part = part_of(rig, 2, 3);

    rig->engine.provider->offer.how[TO_PRIVATE]
        [GUEST_MEMFD_CONTENT_MODE_PRESERVE] = GUEST_MEMFD_REALISATION_REFUSED;
    expect_error(rig, &part, -EOPNOTSUPP, "guest memory 'a': [0x2000, "
                 "+0x3000) cannot be made private for the launch: Operation "
                 "not supported");
    rig_expect_log(rig, "phase populate\n");
    g_assert_cmpuint(platform.parts, ==, 0);
    end_launched(rig);
}

static void test_undo_fails(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);
    GuestMemfdPart part = part_of(rig, 2, 1);
    Error *err = NULL;

    rig->convert_fault = (RigFault) { 1, RIG_FOR_GOOD, -EINVAL, 0 };
    platform.error = -EINVAL;
    g_assert_cmpint(populate_part(rig, &part, &err), ==, -EIO);
    g_assert_cmpstr(error_get_pretty(err), ==, "part 7: Invalid argument");
    error_free(err);
    g_assert_cmpuint(rig->broken, ==, 1);
    rig_expect_state(rig->blocks[0], "S2 P1 S13");
    end_launched(rig);
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*test)(void); } tests[] = {
        { "setup", test_setup },
        { "setup/access", test_setup_access },
        { "setup/mapped", test_setup_mapped },
        { "populate", test_populate },
        { "populate/much", test_populate_much },
        { "populate/source", test_populate_source },
        { "populate/same-block", test_populate_same_block },
        { "populate/written", test_populate_written },
        { "populate/zero", test_populate_zero },
        { "populate/refused", test_populate_refused },
        { "fails/launch", test_launch_fails },
        { "fails/launch/modes", test_launch_fails_modes },
        { "fails/convert", test_convert_fails },
        { "fails/cannot-preserve", test_cannot_preserve },
        { "fails/undo", test_undo_fails },
        { "busy", test_busy },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/launch/",
                                            tests[i].path, NULL);

        g_test_add_func(path, tests[i].test);
    }
    return g_test_run();
}
