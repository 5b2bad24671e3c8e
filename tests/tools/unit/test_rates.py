# SPDX-License-Identifier: GPL-2.0-or-later
"""Rates are right whatever happens to clocks, counters and backends."""

import unittest

from answers import EMPTY, backend, info
from gmem.rates import increase, mean_ns, rates_between
from gmem.sample import add_up, flatten, nest, sample_of

REQUESTS = ('requests',)


def sample(when, *backends, **changed):
    return sample_of(info(*backends, **changed), when, 0)


class TestSample(unittest.TestCase):
    def test_flatten(self):
        found = flatten({'a': 1, 'b': {'c': 2, 'd': {'e': 3}}, 'f': 'text',
                         'g': True, 'h': None})
        self.assertEqual(found, {('a',): 1, ('b', 'c'): 2,
                                 ('b', 'd', 'e'): 3})

    def test_error_counts(self):
        found = flatten([{'error': 'EIO', 'count': 2},
                         {'error': 'EIO', 'count': 1}, {'count': 4}, 7],
                        ('failures',))
        self.assertEqual(found, {('failures', 'EIO'): 3,
                                 ('failures', 'other'): 4})

    def test_nest_undoes_flatten(self):
        tree = {'a': 1, 'b': {'c': 2, 'd': 3}}
        self.assertEqual(nest(flatten(tree)), tree)

    def test_peaks_are_not_added(self):
        self.assertEqual(add_up([{('time-max-ns',): 5, ('retries',): 5},
                                 {('time-max-ns',): 3, ('retries',): 3}]),
                         {('time-max-ns',): 5, ('retries',): 8})

    def test_no_memory(self):
        found = sample_of(EMPTY, 1, 1)
        self.assertEqual((found.backends, found.counters()), ([], {}))

    def test_fields_missing_and_new(self):
        said = info({'name': 'ram0', 'stats': {'requests': 4, 'new': {
            'thing': 9}, 'histogram': [1, 2, 3]}}, {'name': 'bare'})
        found = sample_of(said, 1, 1)
        self.assertEqual(found.counters(), {REQUESTS: 4, ('new', 'thing'): 9})
        self.assertEqual(found.backends[0].size, 0)


class TestRates(unittest.TestCase):
    def test_increase(self):
        self.assertEqual(increase(10, 30), 20)
        self.assertEqual(increase(30, 30), 0)
        # It has started again, and counted to 5 since.
        self.assertEqual(increase(30, 5), 5)

    def test_rates(self):
        before = sample(10, backend(), backend('ram1', requests=0))
        after = sample(12, backend(requests=150, failures=[
            {'error': 'EAGAIN', 'count': 4}, {'error': 'EIO', 'count': 2}]),
            backend('ram1', requests=10))
        found = rates_between(before, after)
        self.assertEqual(found.seconds, 2)
        self.assertEqual(found.backends['ram0'][REQUESTS], 25)
        self.assertEqual(found.backends['ram1'][REQUESTS], 5)
        self.assertEqual(found.total[REQUESTS], 30)
        self.assertEqual(found.total[('failures', 'EAGAIN')], 1)
        # New in the list: it was 0.
        self.assertEqual(found.total[('failures', 'EIO')], 1)
        self.assertNotIn(('time-max-ns',), found.total)

    def test_first_sample(self):
        self.assertIsNone(rates_between(None, sample(10, backend())))

    def test_no_interval(self):
        first = sample(10, backend())
        self.assertIsNone(rates_between(first, sample(10, backend())))

    def test_time_goes_backwards(self):
        first = sample(10, backend())
        self.assertIsNone(rates_between(first, sample(9.5, backend())))

    def test_counters_restart(self):
        before = sample(10, backend(requests=1000000))
        after = sample(11, backend(requests=20))
        found = rates_between(before, after)
        self.assertEqual(found.total[REQUESTS], 20)
        self.assertTrue(all(rate >= 0 for rate in found.total.values()))

    def test_backend_appears(self):
        before = sample(10, backend())
        after = sample(11, backend(), backend('ram1', requests=7))
        found = rates_between(before, after)
        self.assertEqual(found.total[REQUESTS], 7)

    def test_backend_disappears(self):
        before = sample(10, backend(), backend('ram1', requests=7))
        after = sample(11, backend(requests=101))
        found = rates_between(before, after)
        self.assertEqual(list(found.backends), ['ram0'])
        self.assertEqual(found.total[REQUESTS], 1)

    def test_field_appears_and_disappears(self):
        before = sample(10, {'name': 'a', 'stats': {'old': 5}})
        after = sample(11, {'name': 'a', 'stats': {'new': 3}})
        self.assertEqual(rates_between(before, after).total, {('new',): 3})

    def test_rejected(self):
        before = sample(10, rejected=[])
        after = sample(12, rejected=[{'error': 'EINVAL', 'count': 6}])
        found = rates_between(before, after)
        self.assertEqual(found.rejected, {('rejected', 'EINVAL'): 3})


class TestMean(unittest.TestCase):
    def mean(self, **changed):
        before = sample(10, backend())
        return mean_ns(rates_between(before, sample(11, backend(**changed))))

    def test_mean(self):
        self.assertEqual(self.mean(requests=110,
                                   **{'time-ns': 1050000}), 5000)

    def test_no_request(self):
        self.assertIsNone(self.mean())
        self.assertIsNone(mean_ns(None))

    def test_no_time(self):
        before = sample(1, {'name': 'a', 'stats': {'requests': 1}})
        after = sample(2, {'name': 'a', 'stats': {'requests': 2}})
        self.assertIsNone(mean_ns(rates_between(before, after)))


if __name__ == '__main__':
    unittest.main()
