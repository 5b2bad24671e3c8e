# SPDX-License-Identifier: GPL-2.0-or-later
"""Read one VM again and again, and keep what a view of it needs."""

import time

from .rates import rates_between
from .sample import nest, sample_of
from .screen import View
from .source import SourceError


class Sampler:
    def __init__(self, name, source):
        self.view = View(name)
        self.source = source

    async def sample(self):
        """
        Ask once.  When that fails the view keeps what it had and says what
        is wrong; what was missed meanwhile makes no rate.
        """
        view = self.view
        before = None if view.problem else view.sample
        try:
            info = await self.source.read()
        except SourceError as error:
            view.problem = str(error)
            view.rates = None
            return False
        view.problem = ''
        view.sample = sample_of(info, time.monotonic(), time.time())
        view.rates = rates_between(before, view.sample)
        return True

    async def close(self):
        await self.source.close()


def report(view):
    """For scripts: what QEMU said, unchanged, and what was made of it."""
    if view.problem:
        return {'vm': view.vm, 'time': time.time(), 'error': view.problem}
    result = {'vm': view.vm, 'time': view.sample.wall, 'interval': None,
              'info': view.sample.info,
              'total': nest(view.sample.counters()), 'rates': None}
    if view.rates:
        result['interval'] = view.rates.seconds
        result['rates'] = {
            'total': nest(view.rates.total),
            'backends': {name: nest(numbers) for name, numbers
                         in view.rates.backends.items()},
            **nest(view.rates.rejected)}
    return result
