# SPDX-License-Identifier: GPL-2.0-or-later
#
# The devices that this project's qtests use: what sanitize-qtest builds.
CONFIG_Q35=y
CONFIG_ISA_TESTDEV=y
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_RNG=y
# hw/acpi needs it to link.
CONFIG_PXB=y
CONFIG_CXL=y
