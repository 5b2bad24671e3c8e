# SPDX-License-Identifier: GPL-2.0-or-later
#
# What scripts/defects.d plugs into the machine: less is built faster.

CONFIG_Q35=y
CONFIG_ISA_DEBUG=y
CONFIG_SEV=y
CONFIG_VFIO=y
CONFIG_VFIO_PCI=y
CONFIG_VFIO_USER=y
