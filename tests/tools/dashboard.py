# SPDX-License-Identifier: GPL-2.0-or-later
"""The Grafana dashboard: its panels, and what they ask Prometheus."""

import json
from dataclasses import dataclass

import programs

FILE = programs.ROOT / 'contrib/grafana/qemu-gmem.json'
WIDTH = 24              # Grafana's grid


@dataclass
class Target:
    expression: str
    legend: str


@dataclass
class Panel:
    title: str
    kind: str
    unit: str
    log: bool
    stacked: bool
    position: dict
    targets: list

    def overlaps(self, other):
        a, b = self.position, other.position
        return (a['x'] < b['x'] + b['w'] and b['x'] < a['x'] + a['w'] and
                a['y'] < b['y'] + b['h'] and b['y'] < a['y'] + a['h'])


def load():
    return json.loads(FILE.read_text(encoding='utf-8'))


def fill_in(expression, interval, whole):
    """What Grafana does with its variables, all VMs chosen."""
    for name, value in (('$__rate_interval', interval), ('$vm', '.*'),
                        ('$__range', whole)):
        expression = expression.replace(name, value)
    return expression


def panels(interval, whole):
    found = []
    for said in load()['panels']:
        defaults = said['fieldConfig']['defaults']
        custom = defaults.get('custom', {})
        found.append(Panel(
            said['title'], said['type'], defaults.get('unit', ''),
            custom.get('scaleDistribution', {}).get('type') == 'log',
            custom.get('stacking', {}).get('mode') == 'normal',
            said['gridPos'],
            [Target(fill_in(t['expr'], interval, whole), t['legendFormat'])
             for t in said['targets']]))
    return found
