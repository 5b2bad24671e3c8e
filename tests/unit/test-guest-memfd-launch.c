/*
 * The launch of a guest whose memory is converted in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The engine on the rig: phases, memory in setup, populating, sealing, and a
 * new VM.  The lines of the log are explained in guest-memfd-rig.h.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "system/guest-memfd-internal.h"
#include "system/guest-memfd-launch.h"
#include "guest-memfd-rig.h"

#define PAGES   16

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

/* --- the platform -------------------------------------------------------- */

typedef struct Platform {
    int error;                      /* of the next part */
    unsigned parts;
    uint64_t first, pages;          /* of the last one */
    void (*on_launch)(const GuestMemfdPart *part);
} Platform;

static Platform platform;

static int launch(void *opaque, const GuestMemfdPart *part, Error **errp)
{
    const unsigned long first = part->offset / page_size();
    const unsigned long pages = part->size / page_size();
    const int error = platform.error;

    g_assert_true(opaque == &platform);
    g_assert_cmpuint(find_next_zero_bit(part->block->provider_data,
                                        first + pages, first), >=,
                     first + pages);
    platform.parts++;
    platform.first = first;
    platform.pages = pages;
    platform.error = 0;
    if (platform.on_launch) {
        platform.on_launch(part);
    }
    if (error) {
        error_setg_errno(errp, -error, "part %u", part->type);
    }
    return error;
}

/* --- the VM -------------------------------------------------------------- */

/* One block "a" in setup, with a listener. */
static Rig *in_setup(const char *provider)
{
    Rig *rig = rig_new(provider);

    platform = (Platform) { };
    rig->start = GUEST_MEMFD_START_SETUP;
    rig->engine.phase = GUEST_MEMFD_PHASE_SETUP;
    rig_map(rig, 0, rig_block(rig, "a", PAGES), 0, PAGES);
    rig_listen(rig, rig->blocks[0], 0, PAGES);
    bql_lock();
    return rig;
}

static void end(Rig *rig)
{
    bql_unlock();
    rig_free(rig);
}

static GuestMemfdPart part_of(Rig *rig, uint64_t first, uint64_t pages)
{
    return (GuestMemfdPart) {
        .block = rig->blocks[0],
        .offset = first * page_size(),
        .size = pages * page_size(),
        .gpa = first * page_size(),
        .contents = GUEST_MEMFD_CONTENTS_ZERO,
        .type = 7,
    };
}

static int populate_part(Rig *rig, const GuestMemfdPart *part, Error **errp)
{
    return guest_memfd_engine_populate(&rig->engine, part, launch, &platform,
                                       errp);
}

static void expect_populated(Rig *rig, const GuestMemfdPart *part)
{
    g_assert_cmpint(populate_part(rig, part, &error_abort), ==, 0);
    rig_check(rig);
}

static void expect_error(Rig *rig, const GuestMemfdPart *part, int error,
                         const char *text)
{
    Error *err = NULL;

    g_assert_cmpint(populate_part(rig, part, &err), ==, error);
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(err);
    rig_check(rig);
}

static void expect_bytes(Rig *rig, uint64_t private, uint64_t shared,
                         uint64_t setup)
{
    uint64_t p, s, w;

    guest_memfd_block_count_bytes(rig->blocks[0], &p, &s, &w);
    g_assert_cmpuint(p, ==, private * page_size());
    g_assert_cmpuint(s, ==, shared * page_size());
    g_assert_cmpuint(w, ==, setup * page_size());
}

/* --- setup --------------------------------------------------------------- */

/* QEMU can write, and devices see nothing: the listener is never called. */
static void test_setup(void)
{
    Rig *rig = in_setup(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    GuestMemfdBlock *block = rig->blocks[0];
    uint64_t word = 0x5ec2e7;

    expect_bytes(rig, 0, 0, PAGES);
    g_assert_true(guest_memfd_block_in_setup(block));
    g_assert_false(guest_memfd_has_listeners(block));
    g_assert_true(bitmap_empty(block->attributes->bitmap, PAGES));
    g_assert_true(guest_memfd_block_copy(block, page_size(), &word,
                                         sizeof(word), true));
    g_assert_cmphex(*(uint64_t *)(block->host + page_size()), ==, word);
    g_assert_true(guest_memfd_mapping_add(block, 0, page_size()));
    g_assert_true(guest_memfd_mapping_remove(block, 0, page_size()));
    rig_expect_log(rig, "");
    end(rig);
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
    expect_bytes(rig, 2, 0, PAGES - 2);
    end(rig);
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
    end(rig);
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
    end(rig);
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
    end(rig);
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
    end(rig);
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
    end(rig);
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
    end(rig);
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
    end(rig);
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
    end(rig);
}

/* --- failures ------------------------------------------------------------ */

static void correct(const GuestMemfdPart *part)
{
    part->block->host[part->offset + 1] = 0x77;
}

/*
 * The platform refuses a page, and writes there what it would take: shared
 * again, read, and populated once more.
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
    expect_populated(rig, &part);
    g_assert_cmpuint(platform.parts, ==, 2);
    end(rig);
}

static void test_launch_fails_modes(void)
{
    static const struct {
        GuestMemfdRealisation to_shared;
        bool until_final;
        const char *mode;
        int again;
    } cases[] = {
        { GUEST_MEMFD_REALISATION_KERNEL, false, "preserve", 0 },
        { GUEST_MEMFD_REALISATION_REFUSED, true, "default", 0 },
        { GUEST_MEMFD_REALISATION_REFUSED, false, "default", -ENODATA },
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
        g_assert_cmpint(populate_part(rig, &part, NULL), ==, cases[i].again);
        end(rig);
    }
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
    end(rig);
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
    end(rig);
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
    end(rig);
}

/* --- sealing ------------------------------------------------------------- */

/* No contents are promised: a provider that cannot keep them does. */
static void test_seal(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);
    GuestMemfdBlock *block = rig->blocks[0];
    GuestMemfdPart part = part_of(rig, 2, 3);

    expect_populated(rig, &part);
    rig->engine.provider->offer.how[TO_PRIVATE]
        [GUEST_MEMFD_CONTENT_MODE_PRESERVE] = GUEST_MEMFD_REALISATION_REFUSED;
    rig->engine.slice_bytes = page_size();
    g_string_truncate(rig->log, 0);
    g_assert_cmpint(guest_memfd_engine_seal(&rig->engine, &error_abort), ==,
                    0);
    rig_expect_log(rig, "convert a 0+2 to-private default [P]\n"
                        "convert a 5+11 to-private default [P]\n");
    g_assert_cmpuint(rig->slices, ==, 0);
    g_assert_false(guest_memfd_block_in_setup(block));
    expect_bytes(rig, PAGES, 0, 0);

    /* Nothing more to do, and the listener sees the guest's requests. */
    g_assert_cmpint(guest_memfd_engine_seal(&rig->engine, &error_abort), ==,
                    0);
    rig_expect_log(rig, "");
    rig->engine.phase = GUEST_MEMFD_PHASE_RUNNING;
    rig->engine.slice_bytes = GUEST_MEMFD_SLICE_BYTES;
    g_assert_cmpint(rig_ask(rig, TO_SHARED, PRESERVE, 3, 2, NULL), ==, 0);
    rig_expect_log(rig, "convert a 3+2 to-shared preserve [P]\n"
                        "populate L0 3+2 [P]\n");
    expect_bytes(rig, PAGES - 2, 2, 0);
    end(rig);
}

/* All of it was populated: there is nothing to convert, but to publish. */
static void test_seal_populated(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);
    GuestMemfdPart part = part_of(rig, 0, PAGES);

    expect_populated(rig, &part);
    g_string_truncate(rig->log, 0);
    g_assert_cmpint(guest_memfd_engine_seal(&rig->engine, &error_abort), ==,
                    0);
    rig_expect_log(rig, "");
    g_assert_false(guest_memfd_block_in_setup(rig->blocks[0]));
    end(rig);
}

static void test_seal_fails(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);
    Error *err = NULL;

    rig->convert_fault = (RigFault) { 0, 1, -EINVAL, 3 };
    g_assert_cmpint(guest_memfd_engine_seal(&rig->engine, &err), ==, -EINVAL);
    g_assert_cmpstr(error_get_pretty(err), ==, "guest memory 'a' cannot be "
                    "made private for the launch: Invalid argument");
    error_free(err);
    g_assert_true(guest_memfd_block_in_setup(rig->blocks[0]));
    rig_expect_state(rig->blocks[0], "S16");
    end(rig);
}

/* Blocks that start otherwise are left alone. */
static void test_seal_others(void)
{
    Rig *rig = rig_one_block();

    bql_lock();
    g_assert_cmpint(guest_memfd_engine_seal(&rig->engine, &error_abort), ==,
                    0);
    rig_expect_log(rig, "");
    rig_expect_state(rig->blocks[0], "S16");
    end(rig);
}

/* --- phases -------------------------------------------------------------- */

static void test_phases(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);

    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_SETUP);
    rig_expect_log(rig, "");
    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_FINAL);
    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_POPULATE);
    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_FINAL);
    rig_expect_log(rig, "phase final\n");
    g_assert_cmpint(rig->engine.phase, ==, GUEST_MEMFD_PHASE_FINAL);
    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_RUNNING);
    rig_expect_log(rig, "phase running\n");
    end(rig);
}

/* The emulated provider stops to preserve when the launch is final. */
static void test_emulated_phases(void)
{
    Rig *rig = in_setup(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    const GuestMemfdRealisation *how =
        rig->engine.provider->offer.how[TO_PRIVATE];
    int phase;

    object_property_set_bool(OBJECT(rig->engine.provider), "preserve-ends",
                             true, &error_abort);
    for (phase = 0; phase < GUEST_MEMFD_PHASE__MAX; phase++) {
        guest_memfd_phase_begin(&rig->engine, phase);
        g_assert_cmpint(how[GUEST_MEMFD_CONTENT_MODE_PRESERVE], ==,
                        phase < GUEST_MEMFD_PHASE_FINAL ?
                        GUEST_MEMFD_REALISATION_EMULATED :
                        GUEST_MEMFD_REALISATION_REFUSED);
    }
    end(rig);
}

/* --- a new VM ------------------------------------------------------------ */

static void test_rebind(void)
{
    Rig *rig = in_setup(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    GuestMemfdBlock *block = rig->blocks[0];
    GuestMemfdPart part = part_of(rig, 2, 3);
    uint8_t *host = block->host;
    uint64_t generation;

    memset(host, 0x5e, PAGES * page_size());
    expect_populated(rig, &part);
    g_assert_cmpint(guest_memfd_engine_seal(&rig->engine, &error_abort), ==,
                    0);
    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_RUNNING);
    g_assert_cmpint(rig_ask(rig, TO_SHARED, PRESERVE, 3, 4, NULL), ==, 0);
    generation = block->generation;

    g_assert_cmpint(guest_memfd_engine_rebind(&rig->engine, &error_abort), ==,
                    0);
    rig_check(rig);
    rig_expect_state(block, "S16");
    expect_bytes(rig, 0, 0, PAGES);
    g_assert_cmpint(rig->engine.phase, ==, GUEST_MEMFD_PHASE_SETUP);
    g_assert_true(block->host == host);
    g_assert_true(buffer_is_zero(host, PAGES * page_size()));
    g_assert_cmpuint(block->generation, !=, generation);
    /* All writes were to the old VM's memory. */
    part.contents = GUEST_MEMFD_CONTENTS_WRITTEN;
    g_assert_cmpint(populate_part(rig, &part, NULL), ==, -ENODATA);
    part.contents = GUEST_MEMFD_CONTENTS_ZERO;
    expect_populated(rig, &part);
    end(rig);
}

/* A guest that starts shared: its listeners get the new memory. */
static void test_rebind_shared(void)
{
    Rig *rig = rig_one_block();

    rig_prepare_private(rig, 4, 4);
    bql_lock();
    g_assert_cmpint(guest_memfd_engine_rebind(&rig->engine, &error_abort), ==,
                    0);
    rig_expect_log(rig, "discard L0 0+4 [P]\n"
                        "discard L0 8+8 [P]\n"
                        "rebind a 0+16 [P]\n"
                        "populate L0 0+16 [S]\n"
                        "phase setup\n");
    end(rig);
}

static void expect_rebind_error(Rig *rig, int error, const char *text)
{
    Error *err = NULL;

    g_assert_cmpint(guest_memfd_engine_rebind(&rig->engine, &err), ==, error);
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(err);
}

static void test_rebind_fails(void)
{
    Rig *rig = rig_one_block();
    GuestMemfdBlock *block = rig->blocks[0];

    bql_lock();
    g_assert_true(guest_memfd_mapping_add(block, 2 * page_size(), 1));
    expect_rebind_error(rig, -EBUSY, "guest memory 'a' cannot be given to a "
                        "new VM: a device uses offset 0x2000");
    rig_expect_log(rig, "");
    rig_check(rig);
    g_assert_true(guest_memfd_mapping_remove(block, 2 * page_size(), 1));

    rig->listeners[0].agrees = 0;
    expect_rebind_error(rig, -ENOSPC, "a device cannot use guest memory 'a' "
                        "of the new VM: No space left on device");
    rig_expect_state(block, "P16");

    rig->rebind_fails = true;
    expect_rebind_error(rig, -EIO, "no memory");
    rig->broken = 1;            /* The provider has no such memory. */
    end(rig);
}

static void test_rebind_two_backings(void)
{
    Rig *rig = rig_one_block();
    GuestMemfdProviderClass *pc =
        GUEST_MEMFD_PROVIDER_GET_CLASS(rig->engine.provider);
    typeof(pc->block_rebind) rebind = pc->block_rebind;

    bql_lock();
    pc->block_rebind = NULL;
    expect_rebind_error(rig, -EOPNOTSUPP, "guest memory cannot be given to a "
                        "new VM: it is not converted in place");
    pc->block_rebind = rebind;
    end(rig);
}

/* --- pages that are larger ----------------------------------------------- */

static void test_page_size(void)
{
    Rig *rig = rig_new_simple(PAGES);
    GuestMemfdBlock *block = rig->blocks[0];

    block->page_size = 4 * page_size();
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 4, 2), ==, -EINVAL);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 2, 4), ==, -EINVAL);
    rig_expect_log(rig, "");
    /* A slice has whole pages. */
    rig->engine.slice_bytes = 6 * page_size();
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 12), ==, 0);
    rig_expect_log(rig, "convert a 0+4 to-private preserve [P]\n"
                        "convert a 4+4 to-private preserve [P]\n"
                        "convert a 8+4 to-private preserve [P]\n");
    rig->engine.slice_bytes = page_size();
    g_assert_cmpint(rig_ask(rig, TO_SHARED, PRESERVE, 0, 4, NULL), ==, 0);
    rig_expect_log(rig, "convert a 0+4 to-shared preserve [P]\n");
    rig_free(rig);
}

static void test_page_size_populate(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);
    GuestMemfdPart part = part_of(rig, 2, 4);

    rig->blocks[0]->page_size = 4 * page_size();
    g_assert_cmpint(populate_part(rig, &part, NULL), ==, -EINVAL);
    part = part_of(rig, 4, 4);
    expect_populated(rig, &part);
    end(rig);
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
        { "seal", test_seal },
        { "seal/populated", test_seal_populated },
        { "seal/fails", test_seal_fails },
        { "seal/others", test_seal_others },
        { "phases", test_phases },
        { "phases/emulated", test_emulated_phases },
        { "rebind", test_rebind },
        { "rebind/shared", test_rebind_shared },
        { "rebind/fails", test_rebind_fails },
        { "rebind/two-backings", test_rebind_two_backings },
        { "page-size", test_page_size },
        { "page-size/populate", test_page_size_populate },
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
