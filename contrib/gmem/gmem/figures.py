# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers for people: none is wider than eight columns."""

NONE = '-'
UNITS = ('', 'k', 'M', 'G', 'T', 'P', 'E')
BINARY_UNITS = ('', 'K', 'M', 'G', 'T', 'P', 'E')
TIME_UNITS = (' ns', ' us', ' ms', ' s')
EXACT_BELOW = 100000


def scaled(number, step, units):
    """One digit after the point, and a unit that keeps it short."""
    unit = 0
    while number >= 999.95 and unit < len(units) - 1:
        number /= step
        unit += 1
    return f'{number:.1f}{units[unit]}'


def count(number):
    """12345; 123456 is 123.5k."""
    if number is None:
        return NONE
    if number < EXACT_BELOW:
        return f'{number:.0f}'
    return scaled(number, 1000, UNITS)


def size(number):
    """Bytes, in powers of 1024."""
    if number is None:
        return NONE
    if number < 1000:
        return f'{number:.0f}'
    return scaled(number, 1024, BINARY_UNITS)


def rate(number):
    """Something a second; what is not 0 does not look like 0."""
    if number is None:
        return NONE
    if number == 0:
        return '0'
    return '<0.1' if number < 0.05 else scaled(number, 1000, UNITS)


def time(nanoseconds):
    if nanoseconds is None:
        return NONE
    return scaled(nanoseconds, 1000, TIME_UNITS)


def age(seconds):
    """How long ago, in whole units."""
    for unit, length in (('d', 86400), ('h', 3600), ('m', 60)):
        if seconds >= length:
            return f'{seconds // length:.0f} {unit} ago'
    return f'{seconds:.0f} s ago'


def share(part, whole):
    """Per cent; 0 and 100 are exact."""
    if not whole:
        return NONE
    if 0 < part < whole / 100:
        return '<1%'
    return f'{100 * part // whole}%'


def bar_cells(part, whole, width):
    """
    How many cells of a bar of @width stand for @part.

    Only nothing is empty, and only everything is full.
    """
    if width <= 0 or whole <= 0 or part <= 0:
        return 0
    if part >= whole:
        return width
    cells = round(width * part / whole)
    return min(max(cells, 1), max(width - 1, 0))
