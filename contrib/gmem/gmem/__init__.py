# SPDX-License-Identifier: GPL-2.0-or-later
"""What gmem-top and gmem-exporter share."""
