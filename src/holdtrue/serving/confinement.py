"""Take from this process what a model needs none of, before code of a model runs in it; it cannot be given back.

What goes: the files of the machine but those of Python and its libraries, which stay readable (Landlock); writing any
file at all; network, other programs, other processes' memory and signals (seccomp); memory beyond a limit; where the
server runs as root and Python is readable to others, the user too. Sources: landlock(7), seccomp(2), and the system
call numbers of x86_64 in Linux' `syscall_64.tbl`.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

NEEDED: Final = ("resource limits", "no new privileges", "files: Landlock", "system calls: seccomp")
"""The measures without which no code of a model runs."""
OWN_USER: Final = "own user"
_NOBODY: Final = 65534
_FILES: Final = 256
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_FILTER: Final = 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
# Access rights to files, and what else can be handled, by the version of Landlock's interface.
_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NETWORK_FROM, _SCOPES_FROM = 4, 6
_BIND_AND_CONNECT, _SOCKETS_AND_SIGNALS = 3, 3
_READABLE: Final = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/self",
    "/proc/stat",
    "/sys/devices/system",
    "/dev/urandom",
    "/dev/null",
)
_AUDIT_ARCH: Final = 0xC000003E
_X32: Final = 0x40000000
_CLONE, _CLONE3, _CLONE_THREAD = 56, 435, 0x00010000
_PRLIMIT: Final = 302
# fork, vfork, execve, execveat; socket, connect, accept, bind, listen, accept4; ptrace, process_vm_readv and _writev;
# kill, tkill, tgkill, rt_sigqueueinfo, pidfd_send_signal, pidfd_open, pidfd_getfd; setrlimit; chmod, fchmod, chown,
# fchown, lchown, fchownat, fchmodat, fchmodat2, setxattr and its kin, utime, utimes, utimensat, futimesat; unshare,
# setns, mount and umount, pivot_root, chroot; keys; bpf, perf, userfaultfd, io_uring; handles; modules, kexec, reboot,
# swap, clocks, ports.
_DENIED: Final = (
    *(57, 58, 59, 322),
    *(41, 42, 43, 49, 50, 288),
    *(101, 310, 311),
    *(62, 200, 234, 129, 424, 434, 438),
    160,
    *(90, 91, 92, 93, 94, 260, 268, 452, 188, 189, 190, 197, 198, 199, 132, 235, 280, 261),
    *(272, 308, 165, 166, 428, 429, 430, 431, 432, 155, 161),
    *(248, 249, 250),
    *(321, 298, 323, 425, 426, 427),
    *(303, 304),
    *(175, 176, 313, 246, 320, 169, 167, 168, 164, 227, 172, 173, 163, 179),
)
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def confine(memory: int, readable: Iterable[str]) -> tuple[str, ...]:
    """Confine this process for good and return the measures that hold.

    `memory` bounds in bytes what it may map beyond what it has mapped now; `readable` are folders that stay readable
    beside the system's libraries.
    """
    held: list[str] = []
    libc = ctypes.CDLL(None, use_errno=True)
    if _become_nobody([*readable]):
        held.append(OWN_USER)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _limit(memory)
    held.append(NEEDED[0])
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return tuple(held)
    held.append(NEEDED[1])
    if _hide_files(libc, [*_READABLE, *readable]):
        held.append(NEEDED[2])
    if _forbid_calls(libc):
        held.append(NEEDED[3])
    return tuple(held)


def python_folders() -> list[str]:
    """Return the folders that Python and its libraries are in."""
    found = {sys.prefix, sys.base_prefix, sys.exec_prefix, *(each for each in sys.path if os.path.isdir(each))}
    return sorted(found)


def _become_nobody(readable: list[str]) -> bool:
    """Become a user who owns nothing, if this is root and that user can still read Python."""
    if os.geteuid() != 0:
        return False
    os.setgroups([])
    os.setegid(_NOBODY)
    os.seteuid(_NOBODY)
    can = all(os.access(each, os.R_OK | os.X_OK, effective_ids=True) for each in readable)
    os.seteuid(0)
    os.setegid(0)
    if can:
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    return can


def _limit(memory: int) -> None:
    with open("/proc/self/statm", encoding="ascii") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    bounds = {
        resource.RLIMIT_AS: mapped + memory,
        resource.RLIMIT_NOFILE: _FILES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in bounds.items():
        _, hard = resource.getrlimit(kind)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))


def _hide_files(libc: ctypes.CDLL, readable: list[str]) -> bool:
    """Leave only `readable` to be read; tell whether the kernel can do that."""
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    handled = (1 << _RIGHTS[min(version, max(_RIGHTS))]) - 1
    network = _BIND_AND_CONNECT if version >= _NETWORK_FROM else 0
    scopes = _SOCKETS_AND_SIGNALS if version >= _SCOPES_FROM else 0
    asked = struct.pack("<QQQ", handled, network, scopes)[: 24 if scopes else 16 if network else 8]
    rules = libc.syscall(_CREATE_RULESET, asked, len(asked), 0)
    if rules < 0:
        return False
    for path in dict.fromkeys(readable):
        with suppress(OSError):
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            folder = os.path.isdir(path)
            allowed = _READ_FILE | (_READ_DIR | _EXECUTE if folder else _EXECUTE)
            if path == "/dev/null":
                allowed = _READ_FILE | _WRITE_FILE
            libc.syscall(_ADD_RULE, rules, 1, struct.pack("<Qi", allowed & handled, opened), 0)
            os.close(opened)
    done = libc.syscall(_RESTRICT_SELF, rules, 0)
    os.close(rules)
    return done == 0


def _forbid_calls(libc: ctypes.CDLL) -> bool:
    """Have the kernel refuse the calls that no model needs; tell whether it does."""
    if platform.machine() != "x86_64":
        return False
    refuse = _ERRNO | _EPERM
    program = [
        _step(_LOAD, 4),
        _step(_EQUAL, _AUDIT_ARCH, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, 0),
        _step(_AT_LEAST, _X32, 0, 1),
        _step(_RETURN, _KILL),
    ]
    for number in _DENIED:
        program += [_step(_EQUAL, number, 0, 1), _step(_RETURN, refuse)]
    # Libraries that are refused clone3 so take clone, whose flags can be seen: threads may be made, processes not.
    program += [_step(_EQUAL, _CLONE3, 0, 1), _step(_RETURN, _ERRNO | _ENOSYS)]
    program += [
        _step(_EQUAL, _CLONE, 0, 4),
        _step(_LOAD, 16),
        _step(_ANY_BIT, _CLONE_THREAD, 1, 0),
        _step(_RETURN, refuse),
        _step(_RETURN, _ALLOW),
    ]
    # Limits may be asked for, not set: the third argument is the new limit.
    program += [
        _step(_EQUAL, _PRLIMIT, 0, 5),
        _step(_LOAD, 32),
        _step(_EQUAL, 0, 0, 2),
        _step(_LOAD, 36),
        _step(_EQUAL, 0, 1, 0),
        _step(_RETURN, refuse),
        _step(_RETURN, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(program))
    filters = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(code)))
    return libc.prctl(_PR_SET_SECCOMP, _FILTER, filters, 0, 0) == 0


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    """Return one instruction of a filter: struct sock_filter."""
    return struct.pack("<HBBI", code, then, otherwise, value)
