/*
 * Memory backends that become guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_BACKEND_H
#define SYSTEM_GUEST_MEMFD_BACKEND_H

#include "system/hostmem.h"

/*
 * guest_memfd_backend_becomes_ram: exchange a backend's memory
 *
 * Called with the BQL when @backend becomes guest RAM, before it is mapped.
 * Where guest memory is converted in place the backend gets such memory in
 * place of its own, which is freed with what is in it.  Files and huge pages
 * are refused, and left as they are.
 *
 * Returns true, or false with @errp set: @backend is no guest RAM then.  If
 * host nodes or prealloc failed it has the new memory, without them; the next
 * call applies them, or fails, too.
 */
bool guest_memfd_backend_becomes_ram(HostMemoryBackend *backend, Error **errp);

#endif /* SYSTEM_GUEST_MEMFD_BACKEND_H */
