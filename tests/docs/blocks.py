# SPDX-License-Identifier: GPL-2.0-or-later
"""The shell commands that documents show."""

import re
from dataclasses import dataclass, field

QEMU = 'qemu-system-x86_64'
SHELL = ('', 'sh', 'shell', 'bash', 'console')
RST_BLOCK = re.compile(r'^( *)(?:\.\. (parsed-literal|code-block|code)::\s*(\S*)|(?!\.\. ).*::)$')


@dataclass
class Command:
    """One command; 'typed' is what the reader types into it afterwards."""
    where: str
    text: str
    typed: list = field(default_factory=list)


def indent(line):
    return len(line) - len(line.lstrip(' '))


def block_below(lines, number, least):
    """Lines from 'number' on that are indented by 'least' or more."""
    end = number
    while end < len(lines) and (not lines[end].strip() or indent(lines[end]) >= least):
        end += 1
    return lines[number:end], end


def markdown_blocks(lines):
    number = 0
    while number < len(lines):
        fence = re.match(r'```(\S*)', lines[number])
        if fence:
            end = number + 1
            while not lines[end].startswith('```'):
                end += 1
            yield number + 2, fence[1], lines[number + 1:end]
            number = end + 1
        elif indent(lines[number]) >= 4 and number and not lines[number - 1].strip():
            block, end = block_below(lines, number, 4)
            yield number + 1, '', block
            number = end
        else:
            number += 1


def rst_blocks(lines):
    number = 0
    while number < len(lines):
        start = RST_BLOCK.match(lines[number])
        number += 1
        if not start:
            continue
        block, end = block_below(lines, number, len(start[1]) + 1)
        language = start[3] or ''
        if start[2] == 'parsed-literal':
            block = [line.replace('\\\\', '\\').replace('|qemu_system_x86|', QEMU) for line in block]
        yield number + 1, language, block
        number = end


def without_comment(line):
    return re.sub(r'(^|\s)#(\s.*)?$', '', line.strip()).rstrip()


def commands(path, name):
    """The commands of a document, in its order."""
    lines = path.read_text(encoding='utf-8').split('\n')
    blocks = markdown_blocks(lines) if path.suffix == '.md' else rst_blocks(lines)
    for first, language, block in blocks:
        if language in SHELL:
            yield from block_commands(f'{name}:', first, block)


def block_commands(prefix, first, block):
    command = None
    for number, line in enumerate(block, first):
        text = without_comment(line)
        if text.startswith('(qemu) ') and command:
            command.typed.append(text[len('(qemu) '):])
        elif command and command.text.endswith('\\'):
            command.text = command.text[:-1].rstrip() + ' ' + text
        elif text:
            if command:
                yield command
            command = Command(f'{prefix}{number}', re.sub(r'^[#$] ', '', text))
    if command:
        yield command
