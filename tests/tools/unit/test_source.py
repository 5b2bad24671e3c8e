# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses are understood, and errors say what helps."""

import argparse
import asyncio
import os
import tempfile
import unittest

from answers import EMPTY, backend, info
from gmem import source


class TestAddress(unittest.TestCase):
    def test_addresses(self):
        for text, address in (
                ('/run/qmp', '/run/qmp'), ('qmp', 'qmp'),
                ('unix:/run/qmp', '/run/qmp'),
                ('unix:/run/qmp,server=on,wait=off', '/run/qmp'),
                ('localhost:4444', ('localhost', 4444)),
                ('tcp:10.0.0.1:1', ('10.0.0.1', 1)),
                ('[::1]:4444', ('::1', 4444)), (':4444', ('localhost', 4444)),
                ('/run/vm:1', '/run/vm:1')):
            self.assertEqual(source.parse_address(text), address, text)

    def test_bad_addresses(self):
        for text, said in (
                ('localhost:65536', "port '65536'"),
                ('vm:99999999999999999999', "port '99999999999999999999'"),
                ('localhost:0', "port '0'"), ('localhost:-1', "port '-1'"),
                ('localhost:abc', "port 'abc'"),
                ('tcp:localhost', "port 'localhost'"), ('[::1]:', "port ''"),
                (':', "port ''"), ('', 'empty'), ('unix:', 'empty'),
                ('unix:,server=on', 'empty'),
                ('/tmp/' + 'x' * 103, '107 bytes')):
            with self.assertRaises(ValueError, msg=text) as caught:
                source.parse_address(text)
            self.assertIn(said, str(caught.exception))
        self.assertEqual(source.parse_address('localhost:0', listen=True),
                         ('localhost', 0))
        path = '/tmp/' + 'x' * 102
        self.assertEqual(source.parse_address(path), path)

    def test_file_wins(self):
        with tempfile.TemporaryDirectory() as directory:
            old = os.getcwd()
            os.chdir(directory)
            try:
                with open('vm:12', 'w', encoding='utf-8'):
                    self.assertEqual(source.parse_address('vm:12'), 'vm:12')
            finally:
                os.chdir(old)

    def test_names(self):
        for text, found in (
                ('a=/run/a', ('a', '/run/a')), ('/run/a', ('/run/a',) * 2),
                ('/run/x=y', ('/run/x=y',) * 2), ('a=h:1', ('a', 'h:1')),
                ('h:1', ('h:1',) * 2), ('=x', ('=x',) * 2)):
            self.assertEqual(source.split_name(text), found)


class TestOptions(unittest.TestCase):
    def sources(self, *words, several=True):
        parser = argparse.ArgumentParser()
        source.add_options(parser, several)
        return source.from_options(parser.parse_args(words))

    def test_several(self):
        self.assertEqual(list(self.sources('--qmp', 'a=/x', '--qmp', '/y',
                                           '--libvirt', 'z')),
                         ['a', '/y', 'z'])

    def test_one(self):
        self.assertEqual(list(self.sources('--qmp', '/y', several=False)),
                         ['/y'])

    def test_bad(self):
        for words in ([], ['--qmp', 'a=/x', '--libvirt', 'a=y'],
                      ['--qmp', '/x', '--timeout', '0'],
                      ['--qmp', '/x', '--timeout', 'nan'],
                      ['--qmp', '/x', '--timeout', 'inf'],
                      ['--qmp', ''], ['--qmp', 'a=vm:65536']):
            with self.assertRaises(ValueError):
                self.sources(*words)

    def test_libvirt_command(self):
        found = source.LibvirtSource('-x', 'qemu:///s')
        self.assertEqual(found.argv[:6], [
            'virsh', '--quiet', '--connect', 'qemu:///s',
            'qemu-monitor-command', '--'])


class TestErrors(unittest.TestCase):
    def test_connect(self):
        for error, text in (
                (FileNotFoundError(2, 'x'), 'no such socket'),
                (ConnectionRefusedError(111, 'x'), 'nobody listens'),
                (PermissionError(13, 'x'), 'permission denied'),
                (asyncio.TimeoutError(), 'one client at a time'),
                (asyncio.TimeoutError(), 'no QMP monitor'),
                (EOFError(), 'closed'), (ConnectionResetError(104, 'x'),
                                         'closed'),
                (OSError(113, 'No route to host'), 'No route'),
                (UnicodeError('label empty'), 'no name of a host'),
                (ValueError('x'), 'no QMP monitor')):
            for address in ('/run/qmp', ('host', 1)):
                self.assertIn(text, source.explain_connect(address, error))

    def test_no_command(self):
        self.assertIn('not built with', source.explain_refusal(
            'vm', 'CommandNotFound', 'x'))

    def test_replies(self):
        for reply in (EMPTY, info(backend())):
            self.assertIs(source.check_reply('vm', reply), reply)
        for reply in (None, [], {}, {'backends': {}}, {'backends': [1]},
                      {'backends': [{}]}, {'backends': [{'name': 1}]},
                      {'backends': [], 'modes': []},
                      {'backends': [], 'modes': {'x': [1]}},
                      info(backend('a'), backend('a'))):
            with self.assertRaises(source.SourceError):
                source.check_reply('vm', reply)


if __name__ == '__main__':
    unittest.main()
