# SPDX-License-Identifier: GPL-2.0-or-later
"""The texts of a C program's errors, as a reader meets them: '...' stands for what varies."""

import re

# Which argument is the text.
CALLS = {
    'error_setg': 1, 'error_setg_errno': 2, 'error_prepend': 1,
    'error_report': 0, 'error_report_once': 0, 'warn_report': 0,
    'warn_report_once': 0, 'error_report_once_cond': 1,
    'warn_report_once_cond': 1,
}
CALL = re.compile(r'\b(' + '|'.join(CALLS) + r')\s*\(')
TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[A-Za-z_]\w*|.', re.S)
LITERAL = re.compile(r'"((?:\\.|[^"\\])*)"')
CONVERSION = re.compile(r'%[-+ #0]*[\d*]*(?:\.[\d*]+)?(?:hh|h|ll|l|z|j|t)?[a-zA-Z]?')
COMMENT = re.compile(r'/\*.*?\*/|//[^\n]*', re.S)


def arguments(text, start):
    """The arguments of a call, from the character behind its parenthesis."""
    found, depth, current = [], 0, ''
    for token in TOKEN.findall(text[start:]):
        if token in '([{':
            depth += 1
        elif token in ')]}':
            if depth == 0:
                return found + [current]
            depth -= 1
        if token == ',' and depth == 0:
            found.append(current)
            current = ''
        else:
            current += token
    raise ValueError('a call without an end')


def readable(argument):
    """String literals and PRI macros between them become one text."""
    parts = LITERAL.split(argument)
    # A macro ends the conversion that the text before it begins.
    text = ''.join(part if i % 2 else 'd' * ('PRI' in part) for i, part in enumerate(parts))
    text = text.replace('\\"', '"').replace('\\n', ' ')
    text = CONVERSION.sub('...', text.replace('%%', '%'))
    return ' '.join(text.split())


def alternatives(argument):
    """The texts of 'condition ? "one" : "two"', or just the one."""
    parts = ['']
    for token in TOKEN.findall(argument):
        if token in '?:':
            parts.append('')
        else:
            parts[-1] += token
    return [readable(part) for part in parts if '"' in part]


def messages(source):
    """(line, text) of each error and warning in C source."""
    source = COMMENT.sub(lambda m: re.sub(r'[^\n]', ' ', m[0]), source)
    for call in CALL.finditer(source):
        values = arguments(source, call.end())
        number = CALLS[call[1]]
        if len(values) <= number or '"' not in values[number]:
            continue
        after = ': ...' if call[1] == 'error_setg_errno' else ''
        for text in alternatives(values[number]):
            yield source.count('\n', 0, call.start()) + 1, text + after
