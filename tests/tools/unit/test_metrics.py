# SPDX-License-Identifier: GPL-2.0-or-later
"""Metrics carry QEMU's numbers, and each sum means something."""

import time
import unittest

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from answers import EMPTY, STATS, backend, info, used_backend
from gmem.metrics import Collector
from gmem.source import SourceError


class Fake:
    """Answers, or fails, in turn."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.closed = 0

    async def read(self):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self):
        self.closed += 1


class Scrape:
    def __init__(self, **sources):
        registry = CollectorRegistry()
        self.collector = Collector(sources)
        registry.register(self.collector)
        self.text = generate_latest(registry).decode()
        self.samples = [sample for family in
                        text_string_to_metric_families(self.text)
                        for sample in family.samples]

    def sum(self, name, **labels):
        found = [s.value for s in self.samples
                 if s.name == 'qemu_gmem_' + name and
                 labels.items() <= s.labels.items()]
        return sum(found) if found else None


class TestMetrics(unittest.TestCase):
    def setUp(self):
        self.scrape = Scrape(one=Fake(info(backend(), backend('ram1'))),
                             two=Fake(EMPTY))

    def test_requests_add_up(self):
        for name in ('', '_by_mode', '_by_origin', '_by_realisation'):
            self.assertEqual(
                self.scrape.sum(f'conversions{name}_total', vm='one'),
                2 * STATS['requests'], name)

    def test_users(self):
        scrape = Scrape(one=Fake(info(used_backend())))
        self.assertEqual(scrape.sum('mappings', vm='one'), 3)
        self.assertEqual(scrape.sum('mapped_bytes'), 12288)
        self.assertEqual(scrape.sum('assigned_bytes'), 1 << 30)
        self.assertLess(abs(scrape.sum('last_busy_timestamp_seconds',
                                       user='ring', device='virtio-blk-pci')
                            - time.time() + 3.4), 60)
        self.assertIsNone(self.scrape.sum('mappings'))

    def test_units(self):
        self.assertAlmostEqual(
            self.scrape.sum('conversion_seconds_total', backend='ram0'),
            STATS['time-ns'] / 1e9)
        self.assertAlmostEqual(
            self.scrape.sum('conversion_max_seconds', backend='ram0'),
            STATS['time-max-ns'] / 1e9)
        self.assertEqual(self.scrape.sum('retry_timeout_seconds'), 0.1)
        self.assertEqual(self.scrape.sum('converted_bytes_total',
                                         backend='ram0'), 12288000)

    def test_memory(self):
        self.assertEqual(self.scrape.sum('memory_bytes', backend='ram0',
                                         state='private'), 1 << 30)
        self.assertEqual(self.scrape.sum('memory_bytes', backend='ram0'),
                         4 << 30)

    def test_failures(self):
        def failed(name):
            return self.scrape.sum('failures_total', backend='ram0',
                                   errno=name)
        self.assertEqual((failed('EAGAIN'), failed('EINVAL'), failed('EIO')),
                         (2, 5, 0))
        self.assertEqual(self.scrape.sum('rejected_total', vm='one'), 3)
        self.assertEqual(self.scrape.sum('rejected_total', vm='two'), 0)

    def test_info(self):
        self.assertEqual(self.scrape.sum('info',
                                         provider='kvm-content-modes'), 1)
        self.assertEqual(self.scrape.sum('mode_offered', mode='zero'), 1)

    def test_no_series_twice(self):
        keys = [(s.name, tuple(sorted(s.labels.items())))
                for s in self.scrape.samples]
        self.assertEqual(len(keys), len(set(keys)))

    def test_fields_missing_and_new(self):
        said = info({'name': 'ram0', 'stats': {
            'requests': 4, 'histogram': [1, 2], 'new': 3,
            'origins': {'balloon': 4}}}, modes={}, rejected=[])
        scrape = Scrape(one=Fake(said))
        self.assertEqual(scrape.sum('conversions_by_origin_total',
                                    origin='balloon'), 4)
        self.assertIsNone(scrape.sum('retries_total'))

    def test_vm_gone_and_back(self):
        fake = Fake(SourceError('gone'), SourceError('gone'),
                    info(backend()))
        with self.assertLogs('gmem-exporter') as logs:
            scrape = Scrape(one=fake, two=Fake(EMPTY, EMPTY, EMPTY))
            self.assertEqual(scrape.sum('up', vm='one'), 0)
            self.assertEqual(scrape.sum('up', vm='two'), 1)
            self.assertIsNone(scrape.sum('info', vm='one'))
            for _ in range(2):
                list(scrape.collector.collect())
        self.assertEqual([r.getMessage() for r in logs.records],
                         ['one: gone', 'one: answers again'])
        self.assertEqual(fake.closed, 3)

    def test_odd_names_stay_names(self):
        name = 'a"b\\c\nd'
        scrape = Scrape(one=Fake(info(backend(name))))
        self.assertEqual(scrape.sum('memory_bytes', backend=name), 4 << 30)


if __name__ == '__main__':
    unittest.main()
