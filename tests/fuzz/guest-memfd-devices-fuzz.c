/*
 * Fuzzing devices of a machine whose memory is in part private
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU's generic fuzzer, with one target for each device, in a machine with
 * a confidential guest.  The upper half of the memory is private, and every
 * other page of a window in the lower half.  Devices are led to the window:
 * an address in it, mostly next to a border between two pages, is what
 * further operations write to registers and to memory, and what patterns
 * for memory that devices read begin with.  Another operation has the
 * device that converts memory flip pages of the window.
 *
 * Before each conversion, and at the end of each input:
 *
 * - the private pages of the window hold what they held;
 * - none of that is in the shared pages of the window, on the disk or in a
 *   packet that was sent;
 * - the upper half of memory was neither read nor written;
 * - threads for I/O answer, else libFuzzer's own limit ends the program.
 *
 * Shared pages alone are filled when devices read them, and only by reads in
 * the main thread, so that all that touches private ones is the device.
 */

#define fuzz_dma_read_cb generic_dma_read_cb
#include "../qtest/fuzz/generic_fuzz.c"
#undef fuzz_dma_read_cb
#include <sys/mman.h>
#include <signal.h>
#include "block/aio-wait.h"
#include "hw/misc/guest-memfd-testdev.h"
#include "qemu/memfd.h"
#include "qemu/rcu.h"
#include "system/iothread.h"
#include "../../system/guest-memfd-internal.h"
#include "guest-memfd-mutator.h"

#define RAM_SIZE        (16 * MiB)
#define UPPER_HALF      (8 * MiB)
#define WINDOW          (4 * MiB)
#define PAGE            ((uint64_t)qemu_real_host_page_size())
#define PAGES           32
#define DISK_SIZE       (256 * KiB)
#define PACKETS_MAX     64

/* Beside the generic fuzzer's, which have the lower numbers. */
enum {
    OP_ADDRESS = OP_CLOCK_STEP + 1,     /* to a register in memory */
    OP_OUT_ADDRESS,                     /* to an I/O port */
    OP_FILL,                            /* bytes to shared memory */
    OP_POINTER,                         /* an address to shared memory */
    OP_POINTER_PATTERN,                 /* an address, then bytes */
    OP_PACKET,                          /* bytes from the network */
    OP_FLIP,                            /* convert pages of the window */
    OPS
};

typedef struct Device {
    const char *name;
    const char *args;
    const char *objects;
} Device;

#define IOTHREAD    "-object iothread,id=io0 "
#define DISK        "-blockdev driver=file,node-name=f0,locking=off," \
                    "filename=/proc/self/fd/%d " \
                    "-blockdev driver=raw,node-name=d0,file=f0 "
#define NET         "-netdev dgram,id=n0,local.type=fd,local.str=%d "

static const Device devices[] = {
    { "virtio-blk", IOTHREAD DISK
      "-device virtio-blk-pci,drive=d0,iothread=io0", "virtio*" },
    { "virtio-net", NET "-device virtio-net-pci,netdev=n0", "virtio*" },
    { "virtio-scsi", IOTHREAD DISK
      "-device virtio-scsi-pci,iothread=io0 -device scsi-hd,drive=d0",
      "virtio*" },
    { "virtio-balloon",
      "-device virtio-balloon-pci,free-page-reporting=on,"
      "deflate-on-oom=on", "virtio*" },
    { "nvme", DISK "-device nvme,drive=d0,serial=1", "nvme*" },
    { "ahci", DISK "-device ide-hd,drive=d0,bus=ide.0", "*ahci*" },
    { "e1000e", NET "-device e1000e,netdev=n0", "e1000e*" },
    { "xhci", DISK "-device qemu-xhci,id=xhci "
      "-device usb-storage,drive=d0,bus=xhci.0 -device usb-kbd,bus=xhci.0",
      "*xhci*" },
    { "edu", "-device edu", "edu*" },
    { "sdhci", DISK
      "-device sdhci-pci,sd-spec-version=3 -device sd-card,drive=d0",
      "sd*" },
};

static int disk_fd = -1;
static uint8_t *disk;
static int net_fd = -1;

static GuestMemfdBlock *block;
static bool private[PAGES];

static struct {
    uint64_t executions;
    uint64_t operations;
    uint64_t flips;
    uint64_t refused;
} counts;

/*
 * A pattern that only private pages have. libFuzzer learns it and keeps it
 * in inputs, so it differs for each input and each run of the program.
 */
static uint64_t canary;

/* --- what must hold ---------------------------------------------------- */

static void G_GNUC_NORETURN found(const char *what, uint64_t where)
{
    fprintf(stderr, "ERROR: %s at 0x%" PRIx64 ", in execution %" PRIu64 "\n",
            what, where, counts.executions + 1);
    abort();
}

static uint8_t *window(unsigned page)
{
    return (uint8_t *)block->host + WINDOW + page * PAGE;
}

static void put_canaries(unsigned page)
{
    uint64_t *words = (uint64_t *)window(page);
    unsigned i;

    for (i = 0; i < PAGE / sizeof(*words); i++) {
        words[i] = canary;
    }
}

/* However it is shifted: fifteen bytes of it hold the word. */
static const void *find_canary(const void *bytes, size_t size)
{
    return memmem(bytes, size, &canary, sizeof(canary));
}

static void check_window(void)
{
    unsigned i, page;

    for (page = 0; page < PAGES; page++) {
        const uint64_t *words = (uint64_t *)window(page);

        if (!private[page]) {
            const uint8_t *leak = find_canary(words, PAGE);

            if (leak) {
                found("private bytes are in shared memory",
                      leak - (const uint8_t *)block->host);
            }
            continue;
        }
        for (i = 0; i < PAGE / sizeof(*words); i++) {
            if (words[i] != canary) {
                found("a private page has changed",
                      WINDOW + page * PAGE + i * sizeof(*words));
            }
        }
    }
}

static void check_packets(void)
{
    static uint8_t packet[256 * KiB];
    unsigned i;

    for (i = 0; net_fd >= 0 && i < PACKETS_MAX; i++) {
        ssize_t size = recv(net_fd, packet, sizeof(packet), MSG_DONTWAIT);

        if (size < 0) {
            break;
        }
        if (find_canary(packet, size)) {
            found("private bytes were sent", 0);
        }
    }
}

static void check_disk(void)
{
    if (disk && find_canary(disk, DISK_SIZE)) {
        found("private bytes are on the disk", 0);
    }
}

/* A page that was read or written is no hole any more. */
static void check_upper_half(void)
{
    off_t data = lseek(block->fd, UPPER_HALF, SEEK_DATA);

    if (data >= 0 && data < RAM_SIZE) {
        found("a private page was touched", data);
    }
}

/* --- the iothreads ----------------------------------------------------- */

static void nothing(void *opaque)
{
}

static int wait_for_iothread(Object *object, void *opaque)
{
    IOThread *iothread = (IOThread *)object_dynamic_cast(object,
                                                         TYPE_IOTHREAD);

    if (iothread) {
        /* Earlier signals are handled in the same round. */
        aio_wait_bh_oneshot(iothread_get_aio_context(iothread), nothing, NULL);
        aio_wait_bh_oneshot(iothread_get_aio_context(iothread), nothing, NULL);
    }
    return 0;
}

static void settle(QTestState *s)
{
    flush_events(s);
    object_child_foreach(object_get_objects_root(), wait_for_iothread, NULL);
    flush_events(s);
}

/* --- memory that is read is filled ------------------------------------- */

static bool in_window(uint64_t address)
{
    return address >= WINDOW && address < WINDOW + PAGES * PAGE;
}

static bool is_shared(uint64_t address)
{
    return in_window(address) ? !private[(address - WINDOW) / PAGE] :
           address < UPPER_HALF || address >= RAM_SIZE;
}

void fuzz_dma_read_cb(size_t address, size_t size, MemoryRegion *mr)
{
    /* Other threads may be anywhere when the input ends. */
    if (!block || !bql_locked()) {
        return;
    }
    while (size) {
        size_t part = MIN(size, PAGE - address % PAGE);

        if (mr != current_machine->ram || is_shared(address)) {
            generic_dma_read_cb(address, part, mr);
        }
        address += part;
        size -= part;
    }
}

/* --- further operations ------------------------------------------------ */

/* Three bytes of the input: which page, and how far from where it begins. */
static uint64_t get_any_address(const unsigned char *data)
{
    return WINDOW + data[0] % PAGES * PAGE + (int16_t)lduw_le_p(data + 1);
}

/* The same for addresses of devices: never far from a border. */
static uint64_t get_address(const unsigned char *data)
{
    const int scale = data[2] % 4 == 3 ? 16 : 1;

    return WINDOW + data[0] % PAGES * PAGE + (int8_t)data[1] * scale;
}

static void op_address(QTestState *s, const unsigned char *data, size_t len)
{
    address_range range;
    uint64_t value;

    if (len < 9 || !get_mmio_address(&range, data[1], ldl_le_p(data + 2))) {
        return;
    }
    value = get_address(data + 6);
    if (data[0] & 1 && range.size >= 8) {
        qtest_writeq(s, range.addr, value);
    } else if (range.size >= 4) {
        qtest_writel(s, range.addr, value);
    }
}

static void op_out_address(QTestState *s, const unsigned char *data,
                           size_t len)
{
    address_range range;

    if (len < 6 || !get_pio_address(&range, data[0], lduw_le_p(data + 1)) ||
        range.size < 4) {
        return;
    }
    qtest_outl(s, range.addr, get_address(data + 3));
}

static void write_shared(uint64_t address, const void *bytes, size_t size)
{
    size_t i;

    for (i = 0; i < size; i++) {
        if (in_window(address + i) && is_shared(address + i)) {
            block->host[address + i] = ((const uint8_t *)bytes)[i];
        }
    }
}

static void op_fill(QTestState *s, const unsigned char *data, size_t len)
{
    if (len > 3) {
        write_shared(get_any_address(data), data + 3, len - 3);
    }
}

static void op_pointer(QTestState *s, const unsigned char *data, size_t len)
{
    if (len >= 6) {
        uint64_t pointer = cpu_to_le64(get_address(data + 3));

        write_shared(get_any_address(data), &pointer, sizeof(pointer));
    }
}

/* The pattern is kept until the input ends. */
static void op_pointer_pattern(QTestState *s, const unsigned char *data,
                               size_t len)
{
    static uint8_t patterns[64][64];
    uint8_t *p = patterns[dma_patterns->len % ARRAY_SIZE(patterns)];
    pattern new = { .data = p };

    if (len < 4 || dma_patterns->len >= ARRAY_SIZE(patterns)) {
        return;
    }
    new.index = data[3] % 64;
    stq_le_p(p, get_address(data));
    len = MIN(len - 4, sizeof(patterns[0]) - 8);
    memcpy(p + 8, data + 4, len);
    new.len = len + 8;
    new.index %= new.len;
    g_array_append_val(dma_patterns, new);
}

static void op_packet(QTestState *s, const unsigned char *data, size_t len)
{
    if (net_fd >= 0 && len) {
        ssize_t sent = send(net_fd, data, len, MSG_DONTWAIT);

        (void)sent;
    }
}

static void convert(QTestState *s, unsigned page, bool to_private)
{
    const uint64_t how = to_private ? GMTD_ATTR_PRIVATE | GMTD_ATTR_PRESERVE :
                                      GMTD_ATTR_ZERO;

    qtest_writeq(s, GMTD_BASE + GMTD_REG_GPA, WINDOW + page * PAGE);
    qtest_writeq(s, GMTD_BASE + GMTD_REG_SIZE, PAGE);
    qtest_writeq(s, GMTD_BASE + GMTD_REG_ATTRIBUTES, how);
    qtest_writeq(s, GMTD_BASE + GMTD_REG_COMMAND, GMTD_CMD_CONVERT);
    counts.flips++;
    if (qtest_readq(s, GMTD_BASE + GMTD_REG_STATUS)) {
        counts.refused++;
        return;
    }
    private[page] = to_private;
    if (to_private) {
        put_canaries(page);
    }
}

static void op_flip(QTestState *s, const unsigned char *data, size_t len)
{
    unsigned page, count;

    if (len < 2) {
        return;
    }
    for (page = data[0] % PAGES, count = data[1] % 4 + 1;
         count && page < PAGES; page++, count--) {
        convert(s, page, !private[page]);
    }
}

static void (*const ops[OPS])(QTestState *, const unsigned char *, size_t) = {
    [OP_IN] = op_in,
    [OP_OUT] = op_out,
    [OP_READ] = op_read,
    [OP_WRITE] = op_write,
    [OP_PCI_READ] = op_pci_read,
    [OP_PCI_WRITE] = op_pci_write,
    [OP_DISABLE_PCI] = op_disable_pci,
    [OP_ADD_DMA_PATTERN] = op_add_dma_pattern,
    [OP_CLEAR_DMA_PATTERNS] = op_clear_dma_patterns,
    [OP_CLOCK_STEP] = op_clock_step,
    [OP_ADDRESS] = op_address,
    [OP_OUT_ADDRESS] = op_out_address,
    [OP_FILL] = op_fill,
    [OP_POINTER] = op_pointer,
    [OP_POINTER_PATTERN] = op_pointer_pattern,
    [OP_PACKET] = op_packet,
    [OP_FLIP] = op_flip,
};

/* --- mutations --------------------------------------------------------- */

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

/* Where the operation at @op holds what get_address() reads, or NULL. */
static uint8_t *address_of(uint8_t *op, size_t len)
{
    static const uint8_t where[OPS] = {
        [OP_ADDRESS] = 7, [OP_OUT_ADDRESS] = 4, [OP_POINTER] = 4,
        [OP_POINTER_PATTERN] = 1,
    };
    const unsigned offset = len ? where[*op % OPS] : 0;

    return offset && offset + 3 <= len ? op + offset : NULL;
}

/* Operation @wanted of those that begin in @data. */
static uint8_t *find_operation(uint8_t *data, size_t size, unsigned wanted,
                               size_t *len)
{
    uint8_t *end = data + size, *next;

    for (;;) {
        next = memmem(data, end - data, SEPARATOR, strlen(SEPARATOR)) ?: end;
        *len = next - data;
        if (!wanted-- || next == end) {
            return data;
        }
        data = next + strlen(SEPARATOR);
    }
}

/* A structure of a device is moved. */
static bool move_address(uint8_t *data, size_t size, uint32_t *random)
{
    uint8_t *address;
    unsigned tries;
    size_t len;

    for (tries = 0; tries < 32; tries++) {
        uint8_t *op = find_operation(data, size, next_random(random) % 32,
                                     &len);

        address = address_of(op, len);
        if (address) {
            address[0] = next_random(random) % PAGES;
            address[1] = next_random(random) % 2 ? next_random(random) : 0;
            address[2] = next_random(random);
            return true;
        }
    }
    return false;
}

/* Pages are converted after one of the operations. */
static size_t insert_flip(uint8_t *data, size_t size, size_t max_size,
                          uint32_t *random)
{
    uint8_t flip[] = SEPARATOR "...";
    size_t len;
    uint8_t *at = find_operation(data, size, next_random(random) % 32, &len);

    if (size + sizeof(flip) - 1 > max_size) {
        return 0;
    }
    at += len;
    flip[4] = OP_FLIP;
    flip[5] = next_random(random) % PAGES;
    flip[6] = next_random(random);
    memmove(at + sizeof(flip) - 1, at, data + size - at);
    memcpy(at, flip, sizeof(flip) - 1);
    return size + sizeof(flip) - 1;
}

/* Half of them as libFuzzer does, half for what is looked for here. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
                               unsigned int seed)
{
    uint32_t random = seed;
    unsigned kind = next_random(&random) % 8;
    size_t new_size = 0;

    if (size && kind < 3 && move_address(data, size, &random)) {
        return size;
    } else if (size && kind == 3) {
        new_size = insert_flip(data, size, max_size, &random);
    }
    return new_size ?: LLVMFuzzerMutate(data, size, max_size);
}

/* --- one input --------------------------------------------------------- */

static void check(void)
{
    check_window();
    check_packets();
    check_disk();
    check_upper_half();
}

static void begin(QTestState *s)
{
    QPCIBus *pcibus = qpci_new_pc(s, NULL);
    unsigned page;

    canary = (uint64_t)g_random_int() << 32 | g_random_int();
    op_clear_dma_patterns(s, NULL, 0);
    pci_disabled = false;
    dma_bytes_written = 0;
    g_ptr_array_foreach(fuzzable_pci_devices, pci_enum, pcibus);
    qpci_free_pc(pcibus);

    qtest_writeq(s, GMTD_BASE + GMTD_REG_GPA, UPPER_HALF);
    qtest_writeq(s, GMTD_BASE + GMTD_REG_SIZE, RAM_SIZE - UPPER_HALF);
    qtest_writeq(s, GMTD_BASE + GMTD_REG_ATTRIBUTES, GMTD_ATTR_PRIVATE);
    qtest_writeq(s, GMTD_BASE + GMTD_REG_COMMAND, GMTD_CMD_CONVERT);
    for (page = 1; page < PAGES; page += 2) {
        convert(s, page, true);
        if (!private[page]) {
            /* A ring of the last input may be mapped until RCU frees it. */
            drain_call_rcu();
            convert(s, page, true);
        }
        if (!private[page]) {
            found("a page is in use after a reset", WINDOW + page * PAGE);
        }
    }
}

/*
 * A reset makes all memory shared.  What was shared before keeps its bytes:
 * a ring there would be taken for that of the next input.
 */
static void end(QTestState *s)
{
    op_clear_dma_patterns(s, NULL, 0);
    fuzz_reset(s);
    settle(s);
    /* Old memory maps are freed without the BQL, which is held otherwise. */
    if (counts.executions % 16 == 0) {
        drain_call_rcu();
    }
    check_packets();
    check_disk();
    memset(private, 0, sizeof(private));
    memset(window(0), 0, PAGES * PAGE);
    if (disk) {
        memset(disk, 0, DISK_SIZE);
    }
    counts.executions++;
}

static void fuzz(QTestState *s, const unsigned char *data, size_t size)
{
    const unsigned char *separator, *last = data + size;

    begin(s);
    for (; data < last; data = separator + sizeof(SEPARATOR) - 1) {
        separator = memmem(data, last - data, SEPARATOR,
                           strlen(SEPARATOR)) ?: last;
        if (separator > data) {
            const unsigned op = *data % OPS;

            /* Pages that become shared are cleared: search before. */
            if (op == OP_FLIP) {
                check();
            }
            ops[op](s, data + 1, separator - data - 1);
            settle(s);
            counts.operations++;
        }
        g_array_set_size(dma_regions, 0);
    }
    check();
    end(s);
}

/* --- the machine ------------------------------------------------------- */

static void print_counts(void)
{
    fprintf(stderr, "figures: requests %" PRIu64 " refused %" PRIu64
            " faults 0 operations %" PRIu64 "\n", counts.flips,
            counts.refused, counts.operations);
}

/*
 * The main thread waits for I/O threads with the BQL, as it does when a
 * device is reset; what is no memory may want the BQL, and shall not.
 */
static int release_bql(Object *object, void *opaque)
{
    MemoryRegion *mr = (MemoryRegion *)object_dynamic_cast(object,
                                                           TYPE_MEMORY_REGION);

    if (mr && !memory_region_is_ram(mr) && !memory_region_is_rom(mr)) {
        mr->lockless_io = true;
    }
    return 0;
}

/* QEMU blocks SIGALRM, with which libFuzzer finds hangs. */
static void let_libfuzzer_work(void)
{
    sigset_t alarm;

    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);

    object_child_foreach_recursive(qdev_get_machine(), release_bql, NULL);
}

static void pre_fuzz(QTestState *s)
{
    generic_pre_fuzz(s);
    let_libfuzzer_work();
    block = current_machine->ram->ram_block->gmem;
    g_assert(block && block->size == RAM_SIZE);
    atexit(print_counts);
}

static int open_disk(void)
{
    disk_fd = qemu_memfd_create("disk", DISK_SIZE, false, 0, 0, &error_abort);
    disk = mmap(NULL, DISK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, disk_fd,
                0);
    g_assert(disk != MAP_FAILED);
    return disk_fd;
}

static int open_net(void)
{
    int fds[2];

    g_assert(!socketpair(AF_UNIX, SOCK_DGRAM, 0, fds));
    net_fd = fds[1];
    return fds[0];
}

static GString *get_cmdline(FuzzTarget *t)
{
    const Device *device = t->opaque;
    GString *line = g_string_new(TARGET_NAME);

    g_setenv("QEMU_AVOID_DOUBLE_FETCH", "1", true);
    g_setenv("QEMU_FUZZ_OBJECTS", device->objects, true);
    g_string_append(line, " -display none -nodefaults "
        "-machine q35,accel=qtest,confidential-guest-support=cgs0 "
        "-object sw-protected-guest,id=cgs0 -machine memory-backend=ram0 "
        "-m 16M -object guest-memfd-manager,id=gmm0,retry-timeout-ms=0 "
        "-object memory-backend-memfd-private,id=ram0,size=16M "
        "-device guest-memfd-testdev ");
    if (strstr(device->args, DISK)) {
        g_string_append_printf(line, device->args, open_disk());
    } else if (strstr(device->args, NET)) {
        g_string_append_printf(line, device->args, open_net());
    } else {
        g_string_append(line, device->args);
    }
    return line;
}

static void register_targets(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(devices); i++) {
        fuzz_add_target(&(FuzzTarget) {
            .name = g_strconcat("guest-memfd-", devices[i].name, NULL),
            .description = "A device in a machine with private memory",
            .get_init_cmdline = get_cmdline,
            .pre_fuzz = pre_fuzz,
            .fuzz = fuzz,
            .crossover = generic_fuzz_crossover,
            .opaque = (void *)&devices[i],
        });
    }
}

fuzz_target_init(register_targets);
