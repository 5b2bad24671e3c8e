/*
 * iommufd: unmapping a part of a mapping
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * IOMMU_IOAS_UNMAP removes whole mappings only.  The kernel can cut them where
 * it serves VFIO's version 1 containers: in the IOAS that IOMMU_VFIO_IOAS has
 * set, if IOMMU_OPTION_HUGE_PAGES is 0 there, which is possible as long as
 * nothing is mapped (Linux 7.3 does).  The neighbours of the range stay mapped.
 * Accesses of mediated devices to the mapping prevent cutting.
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include "system/iommufd.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "trace.h"

/* Where the probe maps, while no device is attached. */
#define PROBE_IOVA  (1 * MiB)

static bool set_huge_pages(IOMMUFDBackend *be, uint32_t ioas_id, bool on)
{
    struct iommu_option option = {
        .size = sizeof(option),
        .option_id = IOMMU_OPTION_HUGE_PAGES,
        .op = IOMMU_OPTION_OP_SET,
        .object_id = ioas_id,
        .val64 = on,
    };

    return !ioctl(be->fd, IOMMU_OPTION, &option);
}

/* Returns the number of bytes that were unmapped, or a negative errno. */
static int64_t cut_and_unmap(IOMMUFDBackend *be, uint32_t ioas_id, hwaddr iova,
                             uint64_t size)
{
    struct iommu_vfio_ioas set = {
        .size = sizeof(set),
        .ioas_id = ioas_id,
        .op = IOMMU_VFIO_IOAS_SET,
    };
    struct vfio_iommu_type1_dma_unmap unmap = {
        .argsz = sizeof(unmap),
        .iova = iova,
        .size = size,
    };

    /* There is one such IOAS for all containers of a backend. */
    if (ioctl(be->fd, IOMMU_VFIO_IOAS, &set) ||
        ioctl(be->fd, VFIO_IOMMU_UNMAP_DMA, &unmap)) {
        return -errno;
    }
    return unmap.size;
}

static bool unmaps_a_part(IOMMUFDBackend *be, uint32_t ioas_id)
{
    const size_t page = qemu_real_host_page_size();
    void *scratch = qemu_memalign(page, 3 * page);
    bool ret = false;

    if (!iommufd_backend_map_dma(be, ioas_id, PROBE_IOVA, 3 * page, scratch,
                                 true)) {
        ret = cut_and_unmap(be, ioas_id, PROBE_IOVA + page, page) == page &&
              cut_and_unmap(be, ioas_id, PROBE_IOVA, 3 * page) == 2 * page;
        if (!ret) {
            iommufd_backend_unmap_dma(be, ioas_id, 0, UINT64_MAX);
        }
    }
    qemu_vfree(scratch);
    return ret;
}

bool iommufd_backend_probe_unmap_part(IOMMUFDBackend *be, uint32_t ioas_id)
{
    bool ret = set_huge_pages(be, ioas_id, false);

    if (ret && !unmaps_a_part(be, ioas_id)) {
        set_huge_pages(be, ioas_id, true);
        ret = false;
    }
    trace_iommufd_backend_probe_unmap_part(be->fd, ioas_id, ret);
    return ret;
}

int iommufd_backend_unmap_part(IOMMUFDBackend *be, uint32_t ioas_id,
                               hwaddr iova, uint64_t size)
{
    int64_t ret = cut_and_unmap(be, ioas_id, iova, size);

    trace_iommufd_backend_unmap_part(be->fd, ioas_id, iova, size, ret);
    /* No mapping crosses the ends after they were cut: there was none. */
    return ret == -ENOENT ? 0 : MIN(ret, 0);
}
