/*
 * VFIO and memory of which parts come and go: how much is mapped at once
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "hw/boards.h"
#include "hw/mem/memory-device.h"
#include "hw/vfio/vfio-container.h"
#include "hw/vfio-user/protocol.h"
#include "system/kvm.h"
#include "vfio-discard.h"

/* Where there is no KVM to ask. */
#define MEMSLOTS  512

/*
 * As much as possible, if the kernel can unmap a part of it; otherwise as
 * much as is unmapped at once.
 */
uint64_t vfio_discard_granularity(const VFIOContainer *bcontainer,
                                  const MemoryRegion *mr)
{
    const RamDiscardManager *rdm =
        memory_region_get_ram_discard_manager((MemoryRegion *)mr);

    return bcontainer->unmaps_parts ? 1ULL << 63 :
           ram_discard_manager_get_min_granularity(rdm, mr);
}

static bool is_vfio_user(const VFIOContainer *bcontainer)
{
    return object_dynamic_cast(OBJECT(bcontainer), TYPE_VFIO_IOMMU_USER);
}

bool vfio_discard_may_repeat(const VFIOContainer *bcontainer)
{
    return !is_vfio_user(bcontainer);
}

/*
 * A server of vfio-user unmaps nothing but what was mapped by one message,
 * and answers ENOENT to anything else.  So a piece that gets that answer is
 * not mapped.
 */
static int unmap_pieces(VFIOContainer *bcontainer,
                        const MemoryRegionSection *section, uint64_t size,
                        uint64_t granularity)
{
    const uint64_t start = section->offset_within_region;
    const uint64_t end = start + size;
    uint64_t offset, next;
    int ret;

    for (offset = start; offset < end; offset = next) {
        next = MIN(ROUND_UP(offset + 1, granularity), end);
        ret = vfio_container_dma_unmap(bcontainer, offset - start +
                                       section->offset_within_address_space,
                                       next - offset, NULL, false);
        if (ret && ret != -ENOENT) {
            return ret;
        }
    }
    return 0;
}

/* The kernel unmaps all of the mappings in a range at once. */
static int unmap(VFIORamDiscardListener *vrdl,
                 const MemoryRegionSection *section, uint64_t size)
{
    if (is_vfio_user(vrdl->bcontainer)) {
        return unmap_pieces(vrdl->bcontainer, section, size,
                            vrdl->granularity);
    }
    return vfio_container_dma_unmap(vrdl->bcontainer,
                                    section->offset_within_address_space,
                                    size, NULL, false);
}

int vfio_discard_unmap(VFIORamDiscardListener *vrdl,
                       const MemoryRegionSection *section, uint64_t size)
{
    int ret = size ? unmap(vrdl, section, size) : 0;

    if (ret) {
        error_report_once("%s: vfio_container_dma_unmap() failed: %s; the "
                          "device can still access the memory", __func__,
                          strerror(-ret));
    }
    return ret;
}

/* A range that could not be unmapped the last time may be mapped still. */
int vfio_discard_map(VFIOContainer *bcontainer, hwaddr iova, uint64_t size,
                     void *vaddr, bool readonly, MemoryRegion *mr)
{
    int ret = vfio_container_dma_map(bcontainer, iova, size, vaddr, readonly,
                                     mr);

    if (ret != -EEXIST ||
        vfio_container_dma_unmap(bcontainer, iova, size, NULL, false)) {
        return ret;
    }
    return vfio_container_dma_map(bcontainer, iova, size, vaddr, readonly, mr);
}

static unsigned max_memslots(void)
{
    return kvm_enabled() ? kvm_get_max_memslots() : MEMSLOTS;
}

static uint64_t mappings_of(const VFIORamDiscardListener *vrdl)
{
    hwaddr start = QEMU_ALIGN_DOWN(vrdl->offset_within_address_space,
                                   vrdl->granularity);
    hwaddr end = ROUND_UP(vrdl->offset_within_address_space + vrdl->size,
                          vrdl->granularity);

    return (end - start) / vrdl->granularity;
}

/* A hole or ROM may become RAM when firmware runs. */
static uint64_t mappings_of_machine(const VFIORamDiscardListener *added)
{
    const DeviceMemoryState *plugged = current_machine->device_memory;
    uint64_t size = current_machine->ram_size +
                    (plugged ? plugged->used_region_size : 0);

    return machine_require_guest_memfd(current_machine) ?
           size / added->granularity + max_memslots() : 0;
}

static uint64_t mappings_needed(const VFIOContainer *bcontainer,
                                const VFIORamDiscardListener *added)
{
    VFIORamDiscardListener *vrdl;
    uint64_t needed = max_memslots(), n = 0;

    /* Any other section takes a memslot and a mapping, but these do not. */
    QLIST_FOREACH(vrdl, &bcontainer->vrdl_list, next) {
        needed += mappings_of(vrdl);
        n++;
    }
    needed -= MIN(n, needed);
    return MAX(needed, mappings_of_machine(added));
}

/* For all of the memory that the machine can have. */
static uint64_t mappings_at_most(const VFIORamDiscardListener *added,
                                 uint64_t needed)
{
    uint64_t most = current_machine->maxram_size / added->granularity +
                    max_memslots();

    return MAX(most, needed);
}

static void append_user_hint(Error **errp, uint64_t needed)
{
    if (needed <= VFIO_USER_DEF_MAP_MAX) {
        error_append_hint(errp, "Let the vfio-user server announce "
                          "max_dma_maps=%" PRIu64 ".\n", needed);
    } else {
        error_append_hint(errp, "A vfio-user server cannot have more than %u "
                          "mappings: use less memory, memslots included.\n",
                          VFIO_USER_DEF_MAP_MAX);
    }
}

/* The remedy depends on the IOMMU, and on whose memory it is. */
static void append_hint(Error **errp, const VFIOContainer *bcontainer,
                        uint64_t needed)
{
    if (!machine_require_guest_memfd(current_machine)) {
        error_append_hint(errp, "Try increasing the 'block-size' of "
                          "virtio-mem devices.\n");
    } else if (is_vfio_user(bcontainer)) {
        append_user_hint(errp, needed);
    } else {
        error_append_hint(errp, "Use -object iommufd,id=iommufd0 and "
                          "iommufd=iommufd0 for the device, or set "
                          "dma_entry_limit=%" PRIu64 " of the host's module "
                          "vfio_iommu_type1.\n", needed);
    }
}

bool vfio_discard_has_room(const VFIOContainer *bcontainer,
                           const VFIORamDiscardListener *added, Error **errp)
{
    ERRP_GUARD();
    uint64_t needed = mappings_needed(bcontainer, added);

    if (!bcontainer->dma_max_mappings ||
        needed <= bcontainer->dma_max_mappings) {
        return true;
    }
    needed = mappings_at_most(added, needed);
    error_setg(errp, "vfio: the IOMMU has room for %u mappings, and memory "
               "that is mapped in pieces of %" PRIu64 " bytes needs %" PRIu64,
               bcontainer->dma_max_mappings, added->granularity, needed);
    append_hint(errp, bcontainer, needed);
    return false;
}
