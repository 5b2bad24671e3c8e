# SPDX-License-Identifier: GPL-2.0-or-later
"""Find qemu.qmp, which Debian 12 has no package of."""

import logging
import os
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parent.parent

# Where it may be, unless Python knows it: named by the user, installed
# beside the tools, or in the tree that "make build" makes.
DIRECTORIES = (os.environ.get('GMEM_QMP_PATH'), TOOLS / 'python',
          TOOLS.parent.parent / 'build/src/python')


class Missing(Exception):
    """There is no qemu.qmp."""


def load():
    """The module qemu.qmp."""
    for directory in (None, *filter(None, DIRECTORIES)):
        if directory is not None:
            sys.path.append(str(directory))
        try:
            import qemu.qmp             # pylint: disable=C0415
        except ImportError:
            # A namespace package remembers where it was looked for.
            sys.modules.pop('qemu', None)
            continue
        # Logged errors are raised as well.
        logging.getLogger('qemu.qmp').addHandler(logging.NullHandler())
        logging.getLogger('qemu.qmp').propagate = False
        return qemu.qmp
    raise Missing('Python finds no qemu.qmp: set GMEM_QMP_PATH to the '
                  'directory python/ of QEMU\'s source, or run "make build"')
