# SPDX-License-Identifier: GPL-2.0-or-later
"""What is shown is right, and fits."""

import unittest

from answers import EMPTY, backend, info, used_backend
from gmem import figures, screen
from gmem.rates import rates_between
from gmem.sample import sample_of

SIZES = range(1, 200)


def view_of(*answers):
    """A view of the last of @answers, which came a second apart."""
    samples = [sample_of(said, i, 0) for i, said in enumerate(answers)]
    rates = rates_between(*samples[-2:]) if len(samples) > 1 else None
    return screen.View('vm0', samples[-1], rates)


def shown(view, width=80):
    return screen.text_of(screen.lines_of(view, width))


class TestFigures(unittest.TestCase):
    def test_count(self):
        for number, text in ((None, '-'), (0, '0'), (99999, '99999'),
                             (123456, '123.5k'), (1e9, '1.0G')):
            self.assertEqual(figures.count(number), text)

    def test_size(self):
        for number, text in ((0, '0'), (4096, '4.0K'), (1 << 30, '1.0G'),
                             ((1 << 40) - 1, '1.0T')):
            self.assertEqual(figures.size(number), text)

    def test_rate(self):
        for number, text in ((None, '-'), (0, '0'), (0.001, '<0.1'),
                             (0.5, '0.5'), (15200, '15.2k')):
            self.assertEqual(figures.rate(number), text)

    def test_time(self):
        for number, text in ((None, '-'), (500, '500.0 ns'),
                             (4100, '4.1 us'), (24e6, '24.0 ms'),
                             (9e9, '9.0 s')):
            self.assertEqual(figures.time(number), text)

    def test_age(self):
        for seconds, text in ((0.3, '0 s ago'), (59, '59 s ago'),
                              (3599, '59 m ago'), (7200, '2 h ago'),
                              (9e5, '10 d ago')):
            self.assertEqual(figures.age(seconds), text)

    def test_share(self):
        for part, whole, text in ((0, 0, '-'), (0, 9, '0%'), (9, 9, '100%'),
                                  (1, 1000, '<1%'), (999, 1000, '99%')):
            self.assertEqual(figures.share(part, whole), text)

    def test_none_is_wide(self):
        for power in range(64):
            for number in (2 ** power - 1, 2 ** power, 10 ** (power // 3)):
                for form in (figures.count, figures.size, figures.rate):
                    self.assertLessEqual(len(form(number)), 7, number)
                if number < 1e12:
                    self.assertLessEqual(len(figures.time(number)), 8)

    def test_bar(self):
        for part, whole, width, cells in (
                (0, 100, 10, 0), (1, 100, 10, 1), (50, 100, 10, 5),
                (99, 100, 10, 9), (100, 100, 10, 10), (120, 100, 10, 10),
                (5, 0, 10, 0), (5, 10, 0, 0), (1, 2, 1, 0)):
            self.assertEqual(figures.bar_cells(part, whole, width), cells,
                             (part, whole, width))


class TestScreen(unittest.TestCase):
    answers = (info(backend(), backend('ram1', private=0)),
               info(backend(requests=150, retries=9),
                    backend('ram1', private=0)))

    def test_80x24(self):
        lines = screen.lines_of(view_of(*self.answers), 80)
        self.assertLessEqual(len(lines), 23)
        text = screen.text_of(lines)
        for expected in ('kvm-content-modes', 'all there', 'retry 100 ms',
                         'hypercall', 'preserve', 'emulated', 'EINVAL',
                         '(rejected)', '25%'):
            self.assertIn(expected, text)

    def test_policy_is_whole(self):
        said = {'on-unsupported': 'downgrade', 'content-mode': 'preserve',
                'phase': 'populate', 'launched': False,
                'retry-timeout-ms': 10000}
        for width in range(screen.TWO_COLUMNS, 120):
            text = shown(view_of(info(backend(), **said)), width)
            for part in ('policy preserve', 'unsupported downgrade',
                         'in-place auto', 'phase populate',
                         'retry 10000 ms', 'not launched'):
                self.assertIn(part, text)

    def test_rates_and_totals(self):
        lines = shown(view_of(*self.answers), 40).splitlines()
        self.assertIn(['all', '50.0', '250'], [x.split() for x in lines])
        self.assertIn(['retries', '2.0', '16'], [x.split() for x in lines])

    def test_no_rates_yet(self):
        lines = shown(view_of(self.answers[0]), 40).splitlines()
        self.assertIn(['all', '-', '200'], [x.split() for x in lines])

    def test_no_line_is_wider(self):
        for said in (self.answers[0], EMPTY,
                     info(backend('/objects/' + 'long-name' * 9))):
            for problem in ('', 'a problem ' * 30):
                view = view_of(said, said)
                view.problem = problem
                for width in SIZES:
                    for line in screen.lines_of(view, width):
                        self.assertLessEqual(screen.width_of(line), width)

    def test_problem_before_anything_is_known(self):
        text = shown(screen.View('vm0', problem='there is no such socket'))
        self.assertIn('no such socket', text)

    def test_no_memory(self):
        self.assertIn('no guest_memfd memory', shown(view_of(EMPTY)))

    def test_new_members_are_shown(self):
        said = backend()
        said['stats']['origins']['balloon'] = 17
        self.assertIn(['balloon', '-', '17'], [
            x.split() for x in shown(view_of(info(said)), 40).splitlines()])

    def test_members_not_known_are_left_out(self):
        said = backend()
        del said['stats']['retries']
        self.assertNotIn('retries', shown(view_of(info(said)), 40))

    def test_why_eagain(self):
        text = shown(view_of(info(backend('ram0'), used_backend('ram1'))))
        for part in ('IN USE', 'ram1', '12.0K', '1.0G', 'LAST BUSY PAGE',
                     '3 s ago', 'ram1+0x4000', 'ring of virtio-blk-pci'):
            self.assertIn(part, text)

    def test_the_latest_is_shown(self):
        late = {'offset': 0, 'user': 'kernel', 'age-ms': 70000}
        text = shown(view_of(info(used_backend('ram0', **{'last-busy': late}),
                                  used_backend('ram1'))))
        self.assertIn('ring of', text)
        text = shown(view_of(info(used_backend(**{'last-busy': late}))))
        self.assertIn('1 m ago', text)
        self.assertRegex(text, r'kernel *$')

    def test_older_qemu_has_no_users(self):
        self.assertNotIn('IN USE', shown(view_of(info(backend()))))
        self.assertNotIn('LAST', shown(view_of(info(
            used_backend(**{'last-busy': {'user': 'ring'}})))))

    def test_window(self):
        lines = [[(str(n), '')] for n in range(10)]
        for height in range(1, 15):
            for first in range(15):
                part, at = screen.window(lines, height, first)
                self.assertLessEqual(len(part), height)
                self.assertEqual(part[0], lines[0])
                self.assertLessEqual(at, max(10 - height, 0))
        part, _ = screen.window(lines, 4, 99)
        self.assertEqual([line[0][0] for line in part], ['0', '7', '8', '9'])


if __name__ == '__main__':
    unittest.main()
