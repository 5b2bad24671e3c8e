# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Prometheus, on this machine's loopback, with its data in /tmp."""

import asyncio
import json
import os
import shutil
import socket
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import programs

PATIENCE = 30
SCRAPE = '''
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: gmem
    static_configs: [{{targets: ['{target}']}}]
'''
RULES = programs.ROOT / 'contrib/prometheus/gmem-rules.yml'


class Failure(Exception):
    """Prometheus does not run, or does not like a question."""


def program(name):
    """The one unpacked by make check-tools, or the machine's own."""
    unpacked = programs.ROOT / 'build/prometheus/usr/bin' / name
    return str(unpacked) if unpacked.exists() else shutil.which(name)


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


class Prometheus:
    """Use it with 'async with': it does not outlive the block."""

    def __init__(self, target):
        self.directory = tempfile.mkdtemp(prefix='gmem-prometheus-')
        self.target = target
        self.url = f'http://127.0.0.1:{free_port()}'
        self.process = None

    def path(self, name):
        return os.path.join(self.directory, name)

    async def __aenter__(self):
        with open(self.path('config.yml'), 'w', encoding='utf-8') as config:
            config.write(SCRAPE.format(rules=RULES, target=self.target))
        with open(self.path('log'), 'wb') as log:
            self.process = await asyncio.create_subprocess_exec(
                program('prometheus'),
                f'--config.file={self.path("config.yml")}',
                f'--storage.tsdb.path={self.path("data")}',
                f'--web.listen-address={self.url[7:]}',
                '--log.level=warn', stdin=asyncio.subprocess.DEVNULL,
                stdout=log, stderr=log)
        try:
            await self.until(self._is_ready, 'it does not start')
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_):
        if self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), PATIENCE)
            except asyncio.TimeoutError:
                self.process.kill()
                await self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    async def until(self, condition, what):
        """Ask again and again; returns the first answer that is not empty."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            answer = await condition()
            if answer:
                return answer
            await asyncio.sleep(0.3)
        with open(self.path('log'), encoding='utf-8') as log:
            raise Failure(f'{what}\n{log.read()[-2000:]}')

    async def _is_ready(self):
        try:
            return await asyncio.to_thread(fetch, f'{self.url}/-/ready')
        except (OSError, urllib.error.URLError):
            return None

    async def api(self, name, **parameters):
        """The data of an answer of the HTTP API."""
        query = urllib.parse.urlencode(parameters)
        try:
            text = await asyncio.to_thread(
                fetch, f'{self.url}/api/v1/{name}?{query}')
        except urllib.error.HTTPError as error:
            raise Failure(f'{parameters}: {error.read().decode()}') from error
        return json.loads(text)['data']

    async def query(self, expression):
        """The series that @expression has now."""
        return (await self.api('query', query=expression))['result']

    async def value(self, expression):
        """The number that @expression is now; None without one."""
        found = await self.query(expression)
        return float(found[0]['value'][1]) if found else None

    async def until_value(self, expression, condition):
        async def holds():
            value = await self.value(expression)
            return value is not None and condition(value)
        await self.until(holds, f'{expression} is '
                         f'{await self.value(expression)}')


def fetch(url):
    # Loopback needs no proxy, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        return answer.read().decode()
