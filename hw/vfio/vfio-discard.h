/*
 * VFIO and memory of which parts come and go: how much is mapped at once
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_VFIO_DISCARD_H
#define HW_VFIO_VFIO_DISCARD_H

#include "hw/vfio/vfio-container.h"

/* Bytes, a power of two: how @mr's memory is mapped. */
uint64_t vfio_discard_granularity(const VFIOContainer *bcontainer,
                                  const MemoryRegion *mr);

/* Unmapping what is not mapped does nothing, instead of failing. */
bool vfio_discard_may_repeat(const VFIOContainer *bcontainer);

/* As vfio_container_dma_map(); what is mapped there already is replaced. */
int vfio_discard_map(VFIOContainer *bcontainer, hwaddr iova, uint64_t size,
                     void *vaddr, bool readonly, MemoryRegion *mr);

/*
 * Unmap the first @size bytes of @section, in whatever pieces the container
 * needs.  0, or a negative errno value, which is reported once; what comes
 * behind a piece that fails is not unmapped.  A @size of 0 does nothing.
 */
int vfio_discard_unmap(VFIORamDiscardListener *vrdl,
                       const MemoryRegionSection *section, uint64_t size);

/*
 * Can all listeners of @bcontainer, @added among them, map all of their
 * memory?  Called with the BQL, before anything is mapped for @added.
 */
bool vfio_discard_has_room(const VFIOContainer *bcontainer,
                           const VFIORamDiscardListener *added, Error **errp);

#endif /* HW_VFIO_VFIO_DISCARD_H */
