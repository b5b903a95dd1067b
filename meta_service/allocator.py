"""Keeps freed memory in the process: what a block allocates, the next block allocates again."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc


def keep_freed_memory() -> None:
    """Tells glibc not to hand big blocks back after every use; elsewhere nothing.

    Fresh pages cost more than what is computed on them: without this MiniImageNet takes half as long again. The
    process then stays at its peak size.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20)):
            libc.mallopt(option, value)
