# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU refuses on real KVM, by name and with a remedy."""

QUIT = '{"execute":"qmp_capabilities"}{"execute":"quit"}'
GUEST = ('-object sw-protected-guest,id=cgs0 '
         '-machine confidential-guest-support=cgs0')


async def start(l1, options, commands=QUIT, before=''):
    """A QEMU that quits at once: its exit status, and all that it says."""
    await l1.type(f"echo '{commands}' | "
                  f'{{ {before} timeout 120 /bin/qemu -accel kvm '
                  f'-L /firmware -nodefaults -display none -qmp stdio '
                  f'{GUEST} {options}; }}; echo "@@exit $?"')
    lines = []
    while not (lines and '@@exit' in lines[-1]):
        lines.append(await l1.line())
    return int(lines[-1].split()[-1]), '\n'.join(lines[:-1])


async def refused(l1, tap, name, options, *texts):
    status, said = await start(l1, options)
    tap.result(status == 1 and all(text in said for text in texts),
               f'{name} is refused by name', f'exit status {status}: {said}')


async def starts(l1, tap, name, options):
    status, said = await start(l1, options)
    tap.result(status == 0, f'{name} starts', f'exit status {status}: {said}')


async def smm_row(l1, tap, setting):
    await refused(l1, tap, f'{setting}: smm=on',
                  '-m 64M -machine q35,smm=on',
                  'sw-protected-guest does not support smm=on with KVM',
                  'Use -machine smm=off.')


async def no_machine_row(l1, tap, setting):
    """It has no SMM that could be switched off."""
    await starts(l1, tap, f'{setting}: -machine none', '-machine none')


# Commands refused only where memory is converted in place, and the remedy.
IN_PLACE = (
    ('memory-backend-file', '-machine q35,memory-backend=ram0 -m 64M '
     '-object memory-backend-file,id=ram0,size=64M,mem-path=/ram0',
     "memory backend 'ram0' keeps guest RAM in a file, which cannot be "
     'converted in place', 'memory-backend-memfd'),
    ('-incoming', '-machine q35 -m 64M -incoming defer',
     '-incoming does not work with guest memory that is converted in place',
     'Start the guest without -incoming'),
)


HUGE_PAGES = ('-machine q35,smm=off,memory-backend=ram0 -m 64M -object '
              'memory-backend-memfd-private,id=ram0,size=64M,huge-pages=on')


async def huge_pages_row(l1, tap, setting):
    await refused(l1, tap, f'{setting}: huge-pages=on', HUGE_PAGES,
                  "'huge-pages=on' is not supported by "
                  'memory-backend-memfd-private',
                  'memory is not converted in place'
                  if setting == 'two-backings' else
                  'this provider does not offer them',
                  'parameter kvm.gmem_huge_pages')


# Written by every libvirt.
MEMFD = ('-machine q35,memory-backend=ram0 -m 64M '
         '-object memory-backend-memfd,id=ram0,size=64M,share=on')


async def in_place_row(l1, tap, setting):
    await starts(l1, tap, f'{setting}: memory-backend-memfd', MEMFD)
    for name, options, *texts in IN_PLACE:
        if setting == 'two-backings':
            await starts(l1, tap, f'{setting}: {name}', options)
        else:
            await refused(l1, tap, f'{setting}: {name}', options, *texts)
