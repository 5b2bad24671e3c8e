# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast counters rise between two samples."""

from dataclasses import dataclass

from .sample import PEAKS, add_up


@dataclass(frozen=True)
class Rates:
    """@seconds passed; @backends and @total: {path: number a second}."""
    seconds: float
    backends: dict
    total: dict
    rejected: dict


def increase(before, after):
    """A counter below what it was has started again from 0."""
    return after - before if after >= before else after


def per_second(before, after, seconds):
    return {key: increase(before.get(key, 0), number) / seconds
            for key, number in after.items() if key not in PEAKS}


def rates_between(before, after):
    """
    None when no time passed between the two, or there is no first one.

    A backend that is new has counted since it was made, one that is gone
    counts no more.
    """
    if before is None or after.time <= before.time:
        return None
    seconds = after.time - before.time
    earlier = {b.name: b.counters for b in before.backends}
    backends = {b.name: per_second(earlier.get(b.name, {}), b.counters,
                                   seconds) for b in after.backends}
    return Rates(seconds, backends, add_up(backends.values()),
                 per_second(before.rejected, after.rejected, seconds))


def mean_ns(rates):
    """How long a request took between the samples; None without one."""
    requests = rates.total.get(('requests',)) if rates else None
    if not requests or ('time-ns',) not in rates.total:
        return None
    return rates.total[('time-ns',)] / requests
