"""Confinement of the own process by the kernel: limits, Landlock, seccomp. Uses the standard library alone.

Sources: https://docs.kernel.org/userspace-api/landlock.html and .../seccomp_filter.html; numbers of system calls from
the kernel's arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

NOBODY = 65534

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_SET_DUMPABLE = 38, 22, 4
_SECCOMP_MODE_FILTER = 2
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_CLONE_THREAD = 0x10000
_X32_CALLS = 0x40000000

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_PATH = 1
_CAPABILITY_VERSION = 0x20080522
#: What to do about Landlock that is missing, by the error of its first system call.
_WITHOUT_LANDLOCK = {
    errno.EPERM: "the seccomp profile of the container runtime refuses it; use a newer runtime",
    errno.EOPNOTSUPP: "the kernel was started without it; add landlock to its boot parameter lsm=",
    errno.ENOSYS: "Linux has it since 5.13; on a newer kernel the container runtime's seccomp profile is too old",
}
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
#: All rights on files of the first version of Landlock, and those that later versions added: refer, truncate, ioctl.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_FILE_ONLY = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR


class ConfinementUnavailable(Exception):
    """The kernel or the machine can't confine a process."""


@dataclass(frozen=True)
class Limits:
    """Limits of a process.

    Attributes:
        cpu_seconds: processor time.
        memory_bytes: address space.
        file_bytes: size of one file.
        open_files: number of open files.
    """

    cpu_seconds: int
    memory_bytes: int = 2 << 30
    file_bytes: int = 16 << 20
    open_files: int = 64


@dataclass(frozen=True)
class _Machine:
    """System calls of a machine: the mark of its architecture, and the numbers of refused calls."""

    mark: int
    numbers: dict[str, int]


_REFUSED = (
    "socket", "connect", "bind", "listen", "accept", "accept4", "sendto", "sendmsg", "sendmmsg", "fork", "vfork",
    "execve", "execveat", "kill", "tkill", "tgkill", "pidfd_open", "pidfd_getfd", "pidfd_send_signal",
    "rt_sigqueueinfo", "rt_tgsigqueueinfo", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise",
    "kcmp", "io_uring_setup", "io_uring_enter", "io_uring_register", "mount", "umount2", "pivot_root", "chroot",
    "unshare", "setns", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
    "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "open_by_handle_at",
    "name_to_handle_at", "shmget", "semget", "msgget", "mq_open", "setpriority", "ioprio_set",
    "sched_setaffinity", "sched_setscheduler", "sched_setattr", "setuid", "setgid", "setresuid", "setresgid",
    "setgroups", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime",
    "utimes", "utimensat", "futimesat", "setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr",
    "fremovexattr",
)  # fmt: skip

_X86_64 = _Machine(
    0xC000003E,
    {
        "socket": 41, "connect": 42, "accept": 43, "sendto": 44, "sendmsg": 46, "bind": 49, "listen": 50, "clone": 56,
        "fork": 57, "vfork": 58, "execve": 59, "kill": 62, "msgget": 68, "semget": 64, "shmget": 29, "chmod": 90,
        "fchmod": 91, "chown": 92, "fchown": 93, "lchown": 94, "ptrace": 101, "setuid": 105, "setgid": 106,
        "setgroups": 116, "setresuid": 117, "setresgid": 119, "rt_sigqueueinfo": 129, "utime": 132, "setpriority": 141,
        "sched_setscheduler": 144, "pivot_root": 155, "chroot": 161, "mount": 165, "umount2": 166, "setxattr": 188,
        "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199, "tkill": 200,
        "sched_setaffinity": 203, "tgkill": 234, "utimes": 235, "mq_open": 240, "add_key": 248, "request_key": 249,
        "keyctl": 250, "ioprio_set": 251, "fchownat": 260, "futimesat": 261, "fchmodat": 268, "unshare": 272,
        "utimensat": 280, "accept4": 288, "rt_tgsigqueueinfo": 297, "perf_event_open": 298, "prlimit64": 302,
        "name_to_handle_at": 303, "open_by_handle_at": 304, "sendmmsg": 307, "setns": 308, "process_vm_readv": 310,
        "process_vm_writev": 311, "kcmp": 312, "sched_setattr": 314, "bpf": 321, "execveat": 322, "userfaultfd": 323,
    },
)  # fmt: skip
_ARM64 = _Machine(
    0xC00000B7,
    {
        "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16,
        "ioprio_set": 30, "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "fchmod": 52, "fchmodat": 53,
        "fchownat": 54, "fchown": 55, "utimensat": 88, "unshare": 97, "ptrace": 117, "sched_setscheduler": 119,
        "sched_setaffinity": 122, "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138, "setpriority": 140,
        "setgid": 144, "setuid": 146, "setresuid": 147, "setresgid": 149, "setgroups": 159, "mq_open": 180,
        "msgget": 186, "semget": 190, "shmget": 194, "socket": 198, "bind": 200, "listen": 201, "accept": 202,
        "connect": 203, "sendto": 206, "sendmsg": 211, "add_key": 217, "request_key": 218, "keyctl": 219, "clone": 220,
        "execve": 221, "rt_tgsigqueueinfo": 240, "perf_event_open": 241, "accept4": 242, "prlimit64": 261,
        "name_to_handle_at": 264, "open_by_handle_at": 265, "setns": 268, "sendmmsg": 269, "process_vm_readv": 270,
        "process_vm_writev": 271, "kcmp": 272, "sched_setattr": 274, "bpf": 280, "execveat": 281, "userfaultfd": 282,
    },
)  # fmt: skip
#: Calls with one number on all machines.
_COMMON = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_open": 434, "clone3": 435,
    "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "fchmodat2": 452,
}  # fmt: skip
_MACHINES = {"x86_64": _X86_64, "aarch64": _ARM64}


def confine(readable: Sequence[str], writable: str, limits: Limits) -> None:
    """Confine the own process for good; threads must not have been started.

    Args:
        readable: files and folders that it may read; those that don't exist are left out.
        writable: the folder that it may read and write.
        limits: its limits.

    Raises:
        ConfinementUnavailable: the kernel or the machine can't do it; the process must not go on.
    """
    require_machine()
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        _leave_root(libc)
    _call(libc, "prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call(libc, "prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    _restrict_files(libc, readable, writable)
    for kind, value in (
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    _refuse_calls(libc)


def require_machine() -> None:
    """Check that this machine and kernel can confine a process.

    Raises:
        ConfinementUnavailable: they can't; the message says what is missing.
    """
    if platform.system() != "Linux" or platform.machine() not in _MACHINES:
        raise ConfinementUnavailable(f"{platform.system()} on {platform.machine()} is not supported")
    version = ctypes.CDLL(None, use_errno=True).syscall(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        number = ctypes.get_errno()
        why = _WITHOUT_LANDLOCK.get(number, os.strerror(number))
        raise ConfinementUnavailable(f"this node gives no Landlock: {why}")


def _leave_root(libc: ctypes.CDLL) -> None:
    """Become nobody, without capabilities; stay root without them where nobody can't read Python's own files."""
    if all(os.stat(path).st_mode & 1 for path in Path(os.__file__).parents):
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    _call(libc, "capset", header, bytes(24))


def _restrict_files(libc: ctypes.CDLL, readable: Sequence[str], writable: str) -> None:
    """Leave no rights on files but these, by Landlock."""
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    rights = _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]
    attributes = struct.pack("=Q", rights)
    if version >= 4:
        attributes += struct.pack("=Q", 3)  # binding and connecting of TCP sockets
    if version >= 6:
        attributes += struct.pack("=Q", 3)  # abstract Unix sockets, and signals to others
    ruleset = _call(libc, "syscall", _LANDLOCK_CREATE, attributes, len(attributes), 0)
    for path, allowed in [*((path, _READ) for path in readable), (writable, rights)]:
        try:
            file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        allowed &= rights if os.path.isdir(path) else _FILE_ONLY
        rule = struct.pack("=Qi", allowed & rights, file)
        _call(libc, "syscall", _LANDLOCK_ADD, ruleset, _LANDLOCK_PATH, rule, 0)
        os.close(file)
    _call(libc, "syscall", _LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _refuse_calls(libc: ctypes.CDLL) -> None:
    """Refuse system calls, by seccomp."""
    program = b"".join(_filter(_MACHINES[platform.machine()]))
    buffer = ctypes.create_string_buffer(program, len(program))
    pointer = struct.pack("@HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    _call(libc, "prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, pointer, 0, 0)


def _filter(machine: _Machine) -> Iterable[bytes]:
    """Instructions of the filter. ``seccomp_data``: number at 0, architecture at 4, arguments from 16 on."""
    numbers = machine.numbers | _COMMON
    yield _step(_LOAD, 4)
    yield _step(_JUMP_EQUAL, machine.mark, 1, 0)
    yield _step(_RETURN, _KILL)
    yield _step(_LOAD, 0)
    yield _step(_JUMP_AT_LEAST, _X32_CALLS, 0, 1)
    yield _step(_RETURN, _KILL)
    # The C library falls back from clone3, whose flags a filter can't see, to clone.
    yield from _refuse(numbers["clone3"], errno.ENOSYS)
    for name in _REFUSED:
        if name in numbers:
            yield from _refuse(numbers[name], errno.EPERM)
    # clone: threads only.
    yield _step(_JUMP_EQUAL, numbers["clone"], 0, 4)
    yield _step(_LOAD, 16)
    yield _step(_JUMP_BITS, _CLONE_THREAD, 1, 0)
    yield _step(_RETURN, _ERRNO | errno.EPERM)
    yield _step(_RETURN, _ALLOW)
    # prlimit64: limits of the own process only.
    yield _step(_JUMP_EQUAL, numbers["prlimit64"], 0, 3)
    yield _step(_LOAD, 16)
    yield _step(_JUMP_EQUAL, 0, 1, 0)
    yield _step(_RETURN, _ERRNO | errno.EPERM)
    yield _step(_RETURN, _ALLOW)


def _refuse(number: int, error: int) -> Iterable[bytes]:
    yield _step(_JUMP_EQUAL, number, 0, 1)
    yield _step(_RETURN, _ERRNO | error)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction of the filter: code, offsets of the jumps, operand."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _call(libc: ctypes.CDLL, name: str, *arguments: object) -> int:
    """Result of a function of the C library.

    Raises:
        ConfinementUnavailable: it failed.
    """
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = getattr(libc, name)(*converted)
    if result < 0:
        problem = os.strerror(ctypes.get_errno())
        raise ConfinementUnavailable(f"{name}({', '.join(map(str, arguments[:1]))}) failed: {problem}")
    return result
