# SPDX-License-Identifier: GPL-2.0-or-later
"""
What query-guest-memfd said at one time, as plain numbers.

A number's key is the path to it: ('requests',), ('origins', 'device'),
('failures', 'EAGAIN').  Fields that QEMU adds become keys by themselves,
fields that it leaves out are not there.
"""

from dataclasses import dataclass, field

# The longest so far: neither to be added up nor to make a rate of.
PEAKS = {('time-max-ns',)}


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def flatten(value, path=()):
    """{path: number} of nested objects and of lists of error counts."""
    numbers = {}
    if is_number(value):
        numbers[path] = value
    elif isinstance(value, dict):
        for name, member in value.items():
            numbers.update(flatten(member, (*path, name)))
    elif isinstance(value, list):
        for member in value:
            if isinstance(member, dict) and is_number(member.get('count')):
                key = (*path, str(member.get('error', 'other')))
                numbers[key] = numbers.get(key, 0) + member['count']
    return numbers


def nest(numbers):
    """The other way, for JSON: {('a', 'b'): 1} is {'a': {'b': 1}}."""
    tree = {}
    for path, number in numbers.items():
        at = tree
        for name in path[:-1]:
            at = at.setdefault(name, {})
        at[path[-1]] = number
    return tree


def add_up(parts):
    """The sum of several {path: number}; of peaks, the highest."""
    total = {}
    for numbers in parts:
        for key, number in numbers.items():
            if key in PEAKS:
                total[key] = max(total.get(key, 0), number)
            else:
                total[key] = total.get(key, 0) + number
    return total


@dataclass(frozen=True)
class Busy:
    """A page that was in use when it was to be converted."""
    offset: int
    user: str
    device: str
    age: float          # in seconds

    def who(self):
        return f'{self.user} of {self.device}' if self.device else self.user


@dataclass(frozen=True)
class Backend:
    """A block of guest memory; None is what QEMU did not say."""
    name: str
    size: int
    private: int
    shared: int
    counters: dict
    setup: int = 0
    mappings: int = None
    mapped: int = None
    assigned: int = None
    busy: Busy = None


@dataclass(frozen=True)
class Sample:
    """@time: of a clock that no one sets; @wall: for people."""
    time: float
    wall: float
    info: dict
    backends: list = field(default_factory=list)
    rejected: dict = field(default_factory=dict)

    def counters(self):
        return add_up(backend.counters for backend in self.backends)


def busy_of(said):
    if not isinstance(said, dict) or not all(
            is_number(said.get(name)) for name in ('offset', 'age-ms')):
        return None
    return Busy(said['offset'], str(said.get('user', '')),
                str(said.get('device', '')), said['age-ms'] / 1000)


def backend_of(said):
    def whole(name, default=0):
        value = said.get(name, default)
        return value if is_number(value) else default

    return Backend(said['name'], whole('size'), whole('private-bytes'),
                   whole('shared-bytes'), flatten(said.get('stats', {})),
                   whole('setup-bytes'), whole('mappings', None), whole('mapped-bytes', None),
                   whole('assigned-bytes', None),
                   busy_of(said.get('last-busy')))


def sample_of(info, time, wall):
    backends = [backend_of(said) for said in info.get('backends', [])]
    rejected = flatten(info.get('rejected', []), ('rejected',))
    return Sample(time, wall, info, backends, rejected)
