# SPDX-License-Identifier: GPL-2.0-or-later
"""What an observation returns."""


def judge(defect, right, text):
    """Whether the defect showed (None: neither it nor what is right)."""
    return True if defect else False if right else None, text
