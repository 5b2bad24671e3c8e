/*
 * Bare-metal guest that converts its own memory and checks every byte
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Guest memory, all of it shared at first, or made so by confidential.c:
 *
 *   0x00100000  this program
 *   0x00425000  bounce buffers of the device's COPY, one for each vCPU,
 *               never converted
 *   0x08000000  ranges under test, backend 0
 *   0x10000000  the border: backend 0 ends here, backend 1 begins
 *   0x14000000  ranges under test, backend 1
 *   0x20000000  end of memory
 */

#ifndef TESTS_GUEST_GUEST_H
#define TESTS_GUEST_GUEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hw/misc/guest-memfd-testdev.h"

#define KiB             1024UL
#define MiB             (1024 * KiB)
#define GiB             (1024 * MiB)
#define PAGE            (4 * KiB)

/*
 * Not aligned as the ranges are: TCG's TLB is direct mapped, and to walk
 * over two such buffers side by side would miss it with every word.
 */
#define BOUNCE          (4 * MiB + 37 * PAGE)
#define AREA_BACKEND0   (128 * MiB)
#define BORDER          (256 * MiB)
#define AREA_BACKEND1   (320 * MiB)
#define RAM_END         (512 * MiB)
#define RAM_PAGES       (RAM_END / PAGE)

/* Below: the program and the bounce buffers, which stay shared. */
#define FREE_START      (24 * MiB)

#define ARRAY_SIZE(a)   (sizeof(a) / sizeof((a)[0]))

/* Linux errno values that the device and the hypercall answer with. */
#define GUEST_EAGAIN        11
#define GUEST_EFAULT        14
#define GUEST_EBUSY         16
#define GUEST_EINVAL        22
#define GUEST_EOPNOTSUPP    95

#define KVM_HC_MAP_GPA_RANGE            12
#define KVM_FEATURE_HC_MAP_GPA_RANGE    16

/* How to ask for a conversion. */
enum via { VIA_AUTO, VIA_NONE, VIA_TESTDEV, VIA_HYPERCALL };

/* The promise for each section: see expectation(). */
enum expect {
    EXPECT_EMULATED,
    EXPECT_CONTENT_MODES,
    EXPECT_IN_PLACE,
    EXPECT_TWO_BACKINGS,
};

enum mode { MODE_DEFAULT, MODE_ZERO, MODE_PRESERVE };
enum how { HOW_KERNEL, HOW_EMULATED, HOW_REFUSED };

enum cases {
    CASES_QUICK,
    CASES_FULL,
    CASES_MALFORMED,
    CASES_RACE,
    CASES_SLOTS,
    CASES_CYCLE,
    CASES_LARGE,
    CASES_PIN,
    CASES_MODEL,
    CASES_DEFECTS,
    CASES_WRITERS,
    CASES_SVM,
    CASES_ASSIGNED,
    CASES_BENCH,
    CASES_PLATFORM,
};

/* Which one launched the guest; PLATFORM_NONE: it starts shared. */
enum platform { PLATFORM_NONE, PLATFORM_SNP, PLATFORM_TDX };

/* Pages that are in the wanted state already, cases=bench. */
enum pattern { PATTERN_UNIFORM, PATTERN_ALTERNATE, PATTERN_RANDOM };

enum defect {
    DEFECT_TWO_REGIONS,
    DEFECT_HOLE,
    DEFECT_SLOT,
    DEFECT_BAD_REQUEST,
    DEFECT_NOTIFY,
};

struct options {
    enum via via;
    enum expect expect;
    enum cases cases;
    enum defect defect;     /* cases=defects */
    bool full;              /* cases=full */
    bool poison;            /* poison=on: DEFAULT must not keep bytes */
    bool huge;              /* huge=on: a page can be a part of 2 MiB */
    unsigned vcpus;
    unsigned backends;      /* 1: no border */
    unsigned probe;         /* device probes every probe-th private page */
    bool report_all;        /* report=all: cases that pass, too */
    enum platform platform;
    bool offer;             /* content modes are offered */
    unsigned count;         /* cases=malformed: requests; model: steps */
    unsigned seed;          /* cases=malformed, model, race, slots */
    unsigned seconds;       /* cases=race and slots */
    unsigned rounds;        /* cases=cycle */
    unsigned hold;          /* cases=cycle: seconds to stay at the end */
    enum pattern pattern;   /* cases=bench */
    bool pause;             /* cases=bench: stop the VM around each phase */
    unsigned only;          /* cases=bench: a size in KiB; 0: all */
};

extern struct options options;

#define VCPUS_MAX       8

/* The result of one check; added up by tally_add(). */
struct check {
    uint64_t bytes;
    uint64_t bad;
};

struct range {
    uint64_t gpa;
    uint64_t size;
};

struct answer {
    int64_t status;
    bool detailed;          /* the fields below are known */
    uint64_t outcome;
    uint64_t changed;
};

/* options.c */
void options_parse(uint64_t start_info);
bool string_equal(const char *a, const char *b);
const char *via_name(enum via via);
const char *expect_name(enum expect expect);
const char *cases_name(enum cases cases);
const char *pattern_name(enum pattern pattern);

/* console.c */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Is a line due for this case, now that it is over? */
static inline bool reported(const struct check *check)
{
    return options.report_all || check->bad;
}

void fail(struct check *check, const char *what, uint64_t at,
          uint64_t got, uint64_t want);
void guest_exit(bool good) __attribute__((noreturn));

/* trap.c */
#define VECTOR_WAKE     32

struct trap_frame;
void trap_report(const struct trap_frame *frame);
void trap_init(void);
void trap_load(void);

/* fwcfg.c: hint bits that may be set, per direction; false: no file */
bool fwcfg_offer(uint32_t *version, uint64_t *to_shared,
                 uint64_t *to_private);

/* device.c */
bool device_present(void);
void device_lock(void);
void device_unlock(void);
void device_convert(struct range range, uint64_t attributes,
                    struct answer *answer);
int64_t device_read(uint64_t gpa, unsigned size, uint64_t *value);
int64_t device_write(uint64_t gpa, unsigned size, uint64_t value);
int64_t device_copy(uint64_t gpa, uint64_t size, uint64_t dst,
                    uint64_t *done);
int64_t device_command(uint64_t command, uint64_t gpa, uint64_t size);

/* convert.c: requests, and the model of what state each page is in */
bool hypercall_present(void);
bool hypercall_in_cpuid(void);
bool cpuid_offer(uint32_t *features, uint64_t *to_shared,
                 uint64_t *to_private);
bool page_private(uint64_t gpa);
uint64_t pages_in_state(struct range range, bool private);
struct range part_in_backend(struct range range, unsigned backend);
int64_t hypercall(uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2);
void convert(struct check *check, struct range range, uint64_t attributes,
             struct answer *answer);
void convert_device(struct check *check, struct range range,
                    uint64_t attributes, struct answer *answer);
int64_t convert_unchecked(struct range range, uint64_t attributes);
void convert_settle(struct range range, bool private);
void convert_report(void);

/* patterns.c */
uint64_t pattern_word(uint64_t gpa, uint64_t generation);
void pattern_fill(struct range range, uint64_t generation);
uint64_t pattern_bad(struct range range, uint64_t generation);
uint64_t pattern_left(struct range range, uint64_t generation);
uint64_t zero_bad(struct range range);
uint64_t compare_bad(struct range range, uint64_t copy);

/* check.c */
enum content { CONTENT_KEPT, CONTENT_ZERO, CONTENT_ANY };

void check_guest(struct check *check, struct range range,
                 enum content content, uint64_t generation);
void check_device(struct check *check, struct range range);
const char *guest_sees(struct range range, uint64_t generation);
const char *device_sees(struct range range, uint64_t generation);

/* cases.c */
void cases_offer(void);
bool mode_offered(bool to_private, enum mode mode);
void cases_run(void);
void cases_run_slice(unsigned slice);

/* refusals.c */
void refusals_run(void);

/* malformed.c, ...: return the number of vCPUs */
unsigned bench_run(void);
unsigned malformed_run(void);
unsigned race_run(void);
unsigned cycle_run(void);

/* large.c */
unsigned large_run(void);
unsigned pin_run(void);
unsigned model_run(void);
unsigned writers_run(void);
unsigned svm_run(void);
unsigned assigned_run(void);

/* confidential.c */
void confidential_start(void);
unsigned platform_run(void);

/* defects.c */
void defects_run(void);

/* pam.c: registers of q35, or those of i440fx that are the same */
#define PAM_F0000       0x90        /* 64 KiB */
#define PAM_F0000_RAM   0x30
#define PAM_C8000       0x92        /* 32 KiB */

void pam_set(unsigned reg, uint8_t value);

/* pci.c: a function is bus << 8 | slot << 3, an id is device << 16 | vendor */
#define PCI_NONE        (~0u)

uint32_t pci_read(unsigned bdf, unsigned reg);
void pci_write(unsigned bdf, unsigned reg, uint32_t value);
unsigned pci_find(unsigned bus, uint32_t id);
unsigned pci_bus_behind(unsigned port);
/* Returns where its BAR 0 is. */
uint64_t pci_enable(unsigned bdf);
uint64_t pci_enable_plugged(unsigned port, unsigned bdf);
void pci_slot_on(unsigned port);
void pci_slot_off(unsigned port);

/* nvme.c: commands return the status of NVMe, or -1 if they never end */
#define NVME_MEMORY     FREE_START  /* queues and lists: never converted */
#define NVME_DEPTH      32
#define NVME_PAGES_MAX  128

bool nvme_init(unsigned bdf);
int nvme_identify(uint64_t gpa);
void nvme_identify_start(uint64_t gpa);
int nvme_identify_end(void);
void nvme_start(bool write, uint64_t lba, const uint64_t *pages, unsigned n);
int nvme_end(void);
int nvme_io(bool write, uint64_t lba, struct range range);

/* clock.c */
void clock_init(void);
uint64_t clock_us(void);

/* smp.c */
unsigned smp_run(unsigned vcpus, void (*run)(unsigned slice));
void smp_wait_while(const unsigned *word, unsigned value);
void smp_wake(void);
uint64_t bounce_buffer(void);
void ap_main(void);

/* main.c */
void guest_main(uint64_t start_info);
void tally_add(const struct check *check, bool conversion);
uint64_t tally_bad(void);
uint64_t next_generation(void);

/* boot.S */
extern const char trap_stubs[];
extern const char wake_stub[];
extern const char ap_start[], ap_end[];
extern uint32_t ap_stack_top;

/* svm.c */
extern const char svm_inner[];

/* Volatile: the device and the host change memory behind our back. */
static inline uint64_t mem_read(uint64_t gpa)
{
    return *(volatile uint64_t *)gpa; /* see above */
}

static inline void mem_write(uint64_t gpa, uint64_t value)
{
    *(volatile uint64_t *)gpa = value; /* see above */
}

static inline void outb(uint16_t port, uint8_t value)
{
    asm volatile("outb %0, %1" : : "a" (value), "Nd" (port));
}

static inline void outw(uint16_t port, uint16_t value)
{
    asm volatile("outw %0, %1" : : "a" (value), "Nd" (port));
}

static inline void outl(uint16_t port, uint32_t value)
{
    asm volatile("outl %0, %1" : : "a" (value), "Nd" (port));
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;

    asm volatile("inb %1, %0" : "=a" (value) : "Nd" (port));
    return value;
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t value;

    asm volatile("inl %1, %0" : "=a" (value) : "Nd" (port));
    return value;
}

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;

    asm volatile("rdtsc" : "=a" (low), "=d" (high));
    return (uint64_t)high << 32 | low;
}

static inline void cpuid(uint32_t leaf, uint32_t regs[4])
{
    asm volatile("cpuid"
                 : "=a" (regs[0]), "=b" (regs[1]), "=c" (regs[2]),
                   "=d" (regs[3])
                 : "a" (leaf), "c" (0));
}

/* splitmix64: every seed is a good one. */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15ULL;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
    return x ^ x >> 31;
}

static inline uint64_t random_below(uint64_t *state, uint64_t n)
{
    return random_next(state) % n;
}

#endif /* TESTS_GUEST_GUEST_H */
