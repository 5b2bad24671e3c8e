# SPDX-License-Identifier: GPL-2.0-or-later
"""
The answers of several VMs as Prometheus metrics.

QEMU counts a request by direction, by mode, by origin and by realisation,
each on its own: each is a metric of its own, whose sum means something.
"""

import asyncio
import logging
import threading
import time
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from .sample import is_number, sample_of
from .source import SourceError

PREFIX = 'qemu_gmem_'
NANO = 1e-9

# Listed at 0 before they happen: an increase from nothing is one, too.
ERRNO_NAMES = ('EAGAIN', 'EINVAL', 'EOPNOTSUPP', 'ENOMEM', 'EINTR', 'EFAULT',
               'EIO', 'EBUSY', 'other')

log = logging.getLogger('gmem-exporter')


@dataclass(frozen=True)
class Counter:
    """@path in the statistics of a backend; its members make the @label."""
    path: str
    name: str
    help: str
    label: str = ''
    scale: float = 1
    always: tuple = ()


COUNTERS = (
    Counter('directions', 'conversions',
            'Requests that reached a backend, refused ones too.',
            'direction'),
    Counter('modes', 'conversions_by_mode',
            'The same requests by content mode.', 'mode'),
    Counter('origins', 'conversions_by_origin',
            'The same requests by who asked.', 'origin'),
    Counter('realisations', 'conversions_by_realisation',
            'The same requests by who kept the promise, or refused.',
            'realisation'),
    Counter('converted-bytes', 'converted_bytes',
            'Bytes whose state changed.', 'direction'),
    Counter('already-right-bytes', 'already_right_bytes',
            'Bytes of successful requests that had the state already.'),
    Counter('time-ns', 'conversion_seconds',
            'Time that requests took.', scale=NANO),
    Counter('failures', 'failures',
            'Requests that ended with an error, refused ones too.', 'errno',
            always=ERRNO_NAMES),
    Counter('retries', 'retries',
            'Times that a request was tried again.'),
    Counter('rollbacks', 'rollbacks',
            'Times that converted pages went back.'),
    Counter('downgrades', 'downgrades',
            'Requests whose policy was downgraded.'),
)


def counter_values(counter, numbers):
    """(label values, number) of one backend; () without a label."""
    found = {path[1:]: number for path, number in numbers.items()
             if path[0] == counter.path and
             len(path) == (2 if counter.label else 1)}
    for name in counter.always if numbers else ():
        found.setdefault((name,), 0)
    return found.items()


def counter_families(samples):
    for counter in COUNTERS:
        labels = ['vm', 'backend'] + ([counter.label] if counter.label
                                      else [])
        family = CounterMetricFamily(PREFIX + counter.name, counter.help,
                                     labels=labels)
        for vm, sample in samples.items():
            for backend in sample.backends:
                for label, number in counter_values(counter,
                                                    backend.counters):
                    family.add_metric([vm, backend.name, *label],
                                      number * counter.scale)
        yield family


def rejected_family(samples):
    family = CounterMetricFamily(
        PREFIX + 'rejected', 'Requests rejected before they reached a '
        'backend: malformed, or not for guest memory.',
        labels=['vm', 'errno'])
    for vm, sample in samples.items():
        rejected = {path[1]: number
                    for path, number in sample.rejected.items()}
        for name in ERRNO_NAMES:
            rejected.setdefault(name, 0)
        for name, number in rejected.items():
            family.add_metric([vm, name], number)
    return family


def backend_gauges(samples):
    memory = GaugeMetricFamily(
        PREFIX + 'memory_bytes', 'Bytes of guest memory by state.',
        labels=['vm', 'backend', 'state'])
    longest = GaugeMetricFamily(
        PREFIX + 'conversion_max_seconds',
        'The longest that a request took since the backend was created.',
        labels=['vm', 'backend'])
    for vm, sample in samples.items():
        for backend in sample.backends:
            memory.add_metric([vm, backend.name, 'private'], backend.private)
            memory.add_metric([vm, backend.name, 'shared'], backend.shared)
            memory.add_metric([vm, backend.name, 'setup'], backend.setup)
            peak = backend.counters.get(('time-max-ns',))
            if peak is not None:
                longest.add_metric([vm, backend.name], peak * NANO)
    return memory, longest


def user_gauges(samples):
    """What keeps pages from becoming private."""
    simple = [(name, GaugeMetricFamily(PREFIX + metric, text,
                                       labels=['vm', 'backend']))
              for name, metric, text in (
                  ('mappings', 'mappings',
                   'Pointers to shared memory that QEMU holds for devices.'),
                  ('mapped', 'mapped_bytes',
                   'Sum of the sizes of what these point to.'),
                  ('assigned', 'assigned_bytes',
                   'Bytes that assigned devices can access.'))]
    busy = GaugeMetricFamily(
        PREFIX + 'last_busy_timestamp_seconds',
        'When a conversion last found a page in use, and what used it.',
        labels=['vm', 'backend', 'user', 'device'])
    for vm, sample in samples.items():
        for backend in sample.backends:
            for name, family in simple:
                if getattr(backend, name) is not None:
                    family.add_metric([vm, backend.name],
                                      getattr(backend, name))
            if backend.busy:
                busy.add_metric([vm, backend.name, backend.busy.user,
                                 backend.busy.device],
                                sample.wall - backend.busy.age)
    return *(family for _, family in simple), busy


def state_gauges(samples):
    """What is true for a whole VM."""
    info = GaugeMetricFamily(
        PREFIX + 'info', 'Provider and policy of a VM; always 1.',
        labels=['vm', 'provider', 'reason', 'in_place', 'content_mode',
                'on_unsupported'])
    launched = GaugeMetricFamily(
        PREFIX + 'launched', '1 once the guest has run.', labels=['vm'])
    timeout = GaugeMetricFamily(
        PREFIX + 'retry_timeout_seconds',
        'How long a page in use is retried.', labels=['vm'])
    for vm, sample in samples.items():
        said = sample.info
        info.add_metric([vm, *(str(said.get(name, '')) for name in (
            'provider', 'provider-reason', 'in-place', 'content-mode',
            'on-unsupported'))], 1)
        if 'launched' in said:
            launched.add_metric([vm], int(bool(said['launched'])))
        if is_number(said.get('retry-timeout-ms')):
            timeout.add_metric([vm], said['retry-timeout-ms'] / 1000)
    return info, launched, timeout


def offer_family(samples):
    family = GaugeMetricFamily(
        PREFIX + 'mode_offered', 'Content modes on offer; always 1.',
        labels=['vm', 'direction', 'mode', 'realisation'])
    for vm, sample in samples.items():
        for direction, offered in sample.info.get('modes', {}).items():
            for mode in offered:
                family.add_metric([vm, direction, mode.get('mode', ''),
                                   mode.get('realisation', '')], 1)
    return family


class Collector:
    """Asks all VMs at once whenever Prometheus does."""

    def __init__(self, sources):
        self.sources = sources
        self.problems = {}
        # Two scrapers, and a monitor that serves one client at a time.
        self.lock = threading.Lock()

    def describe(self):
        """Nothing is known before VMs are asked."""
        return []

    async def _read(self, vm, source):
        start = time.monotonic()
        sample = None
        try:
            sample = sample_of(await source.read(), start, time.time())
            self._note(vm, '')
        except SourceError as error:
            self._note(vm, str(error))
        finally:
            # Others may use the monitor until the next time.
            await source.close()
        return vm, sample, time.monotonic() - start

    def _note(self, vm, problem):
        """Say once that a VM is gone, and once that it is back."""
        if self.problems.get(vm, '') != problem:
            text = problem or 'answers again'
            # The problem names the address, which may be the name.
            log.warning('%s', text if text.startswith(f'{vm}:')
                        else f'{vm}: {text}')
        self.problems[vm] = problem

    async def _read_all(self):
        return await asyncio.gather(*(self._read(vm, source) for vm, source
                                      in self.sources.items()))

    def collect(self):
        with self.lock:
            results = asyncio.run(self._read_all())
        up = GaugeMetricFamily(
            PREFIX + 'up', '1 if QEMU answered.', labels=['vm'])
        took = GaugeMetricFamily(
            PREFIX + 'query_duration_seconds', 'How long QEMU was asked.',
            labels=['vm'])
        for vm, sample, seconds in results:
            up.add_metric([vm], int(sample is not None))
            took.add_metric([vm], seconds)
        samples = {vm: sample for vm, sample, _ in results if sample}
        yield from (up, took, *state_gauges(samples), offer_family(samples),
                    *backend_gauges(samples), *user_gauges(samples),
                    *counter_families(samples),
                    rejected_family(samples))
