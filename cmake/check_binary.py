#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# ./dev check-binary FILE...: which calls of a program, and of the libraries it is linked with, could block a worker
# because tendril::intercept does not define them.
#
# What a file calls of another is among its imports: undefined symbols of its dynamic symbol table. So this is
# exact about calls by name. It does not see: libraries that are loaded at run time (name them as further files),
# functions found by dlsym, calls that libc makes of its own (they bypass every front), and the kernel
# called directly: such instructions are counted, as a hint.
#
# ELF is read here and not by binutils: a program is checked where it runs, with python3 alone.
"""Lists blocking functions of libc that a program imports and interception does not cover."""

import argparse
import os
import re
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import intercept_symbols  # noqa: E402

# Functions of libc that may wait: for whom, or for what. Names that are covered may be here, too.
WAITS = {
    "another thread or fiber": """
        pthread_mutex_lock pthread_mutex_timedlock pthread_mutex_clocklock pthread_cond_wait
        pthread_cond_timedwait pthread_cond_clockwait pthread_rwlock_rdlock pthread_rwlock_wrlock
        pthread_rwlock_timedrdlock pthread_rwlock_timedwrlock pthread_rwlock_clockrdlock
        pthread_rwlock_clockwrlock pthread_barrier_wait pthread_join pthread_timedjoin_np
        pthread_clockjoin_np pthread_once call_once sem_wait sem_timedwait sem_clockwait mtx_lock
        mtx_timedlock cnd_wait cnd_timedwait thrd_join
    """,
    "time": "sleep usleep nanosleep clock_nanosleep thrd_sleep",
    "a signal": "pause sigsuspend sigwait sigwaitinfo sigtimedwait sigpause __sigsuspend",
    "a child": "wait wait3 wait4 waitid waitpid __wait __waitpid system pclose wordexp",
    "a descriptor": """
        read readv write writev preadv2 preadv64v2 pwritev2 pwritev64v2 __read_chk recv recvfrom recvmsg recvmmsg
        send sendto sendmsg sendmmsg __recv_chk __recvfrom_chk accept accept4 connect poll ppoll
        __poll_chk __ppoll_chk select pselect epoll_wait epoll_pwait epoll_pwait2 sendfile sendfile64 splice tee
        vmsplice tcdrain tcsendbreak tcsetattr eventfd_read eventfd_write dprintf vdprintf __dprintf_chk
        __vdprintf_chk getpass
    """,
    "what a stream is connected with": """
        fread fread_unlocked __fread_chk __fread_unlocked_chk fgets fgets_unlocked __fgets_chk
        __fgets_unlocked_chk fgetc getc getchar fgetc_unlocked getc_unlocked getchar_unlocked _IO_getc
        getw gets __gets_chk getline getdelim __getdelim __uflow __underflow fwrite fwrite_unlocked fputs
        fputs_unlocked fputc putc putchar fputc_unlocked putc_unlocked putchar_unlocked _IO_putc
        putw puts __overflow printf fprintf vprintf vfprintf __printf_chk __fprintf_chk __vprintf_chk
        __vfprintf_chk scanf fscanf vscanf vfscanf __isoc99_scanf __isoc99_fscanf __isoc99_vscanf
        __isoc99_vfscanf fflush fflush_unlocked fclose fcloseall freopen freopen64 flockfile perror
        fgetwc getwc getwchar fgetws fgetwc_unlocked getwc_unlocked fgetws_unlocked fputwc putwc
        putwchar fputws fputwc_unlocked fputws_unlocked fwprintf wprintf vfwprintf vwprintf
        __fwprintf_chk __wprintf_chk __vfwprintf_chk __vwprintf_chk fwscanf wscanf vfwscanf vwscanf
        __isoc99_fwscanf __isoc99_wscanf __wuflow __woverflow
    """,
    "who holds a lock or opens the other end": """
        flock lockf lockf64 fcntl fcntl64 open open64 __open __open64 __open_2 __open64_2 openat openat64
        __openat_2 __openat64_2 creat creat64 fopen fopen64
    """,
    "a message or semaphore": """
        msgrcv msgsnd semop semtimedop mq_receive mq_send mq_timedreceive mq_timedsend
    """,
    "a server": """
        getaddrinfo getnameinfo gai_suspend gethostbyname gethostbyname2 gethostbyaddr gethostbyname_r
        gethostbyname2_r gethostbyaddr_r gethostent res_query res_search res_querydomain res_send
        res_nquery res_nsearch res_nquerydomain res_nsend __res_query __res_search __res_querydomain
        __res_send __res_nquery __res_nsearch __res_nquerydomain __res_nsend getpwnam getpwnam_r
        getpwuid getpwuid_r getpwent getgrnam getgrnam_r getgrgid getgrgid_r getgrent getgrouplist
        initgroups getnetgrent innetgr getspnam getspnam_r getpwent_r getgrent_r getaddrinfo_a rcmd rcmd_af rexec
        ruserok syslog vsyslog __syslog_chk __vsyslog_chk
    """,
    "the system's own waits by number": "syscall futex",
    "asynchronous I/O": "aio_suspend aio_suspend64 lio_listio lio_listio64",
}
DISK = {
    "a disk": """
        fsync fdatasync sync syncfs sync_file_range msync fallocate fallocate64 posix_fallocate
        posix_fallocate64 stat stat64 lstat lstat64 fstatat fstatat64 statx __xstat __xstat64 __lxstat
        __lxstat64 __fxstatat __fxstatat64 access faccessat rename renameat renameat2 unlink unlinkat
        remove rmdir mkdir mkdirat truncate truncate64 ftruncate ftruncate64 link linkat symlink
        symlinkat readlink readlinkat chmod fchmodat chown lchown fchownat statfs statfs64 statvfs
        statvfs64 opendir readdir readdir64 scandir scandir64 glob glob64 ftw nftw fts_read realpath
        copy_file_range readahead pread pread64 preadv preadv64 pwrite pwrite64 pwritev pwritev64 tmpfile
        tmpfile64 mkstemp mkstemp64 mkostemp mkostemp64 mkdtemp fchmod fchown utimes utimensat futimens mkfifo
        fstatfs fstatvfs euidaccess eaccess __readlink_chk __realpath_chk
    """,
}

# libc and what belongs to it: no front stands between its parts.
OF_LIBC = re.compile(
    r"^(ld-linux|ld64|ld-musl|libc\.|libm\.|libmvec\.|libpthread\.|librt\.|libdl\.|libresolv\.|libnss_|libanl\.|"
    r"libutil\.|libtendril_intercept\.|linux-vdso)")


class Unreadable(Exception):
    pass


class Elf:
    """The dynamic part of one 64-bit little-endian file."""

    def __init__(self, path):
        self.path = path
        try:
            with open(path, "rb") as file:
                self.data = file.read()
        except OSError as error:
            raise Unreadable(f"{path}: {error.strerror}") from error
        d = self.data
        if len(d) < 64 or d[:4] != b"\x7fELF":
            raise Unreadable(f"{path}: not an ELF file: name a program or a shared library")
        if d[4] != 2 or d[5] != 1:
            raise Unreadable(f"{path}: not a 64-bit little-endian file, as all that tendril runs on are")
        try:
            self._read()
        except struct.error as error:
            raise Unreadable(f"{path}: is cut off") from error

    def _read(self):
        d = self.data
        self.machine = struct.unpack_from("<H", d, 18)[0]
        offset, = struct.unpack_from("<Q", d, 32)
        size, count = struct.unpack_from("<HH", d, 54)
        self.loads, dynamic = [], None
        for i in range(count):
            kind, flags, at, address, _, in_file, _, _ = struct.unpack_from("<IIQQQQQQ", d, offset + i * size)
            if kind == 1:
                self.loads.append((address, at, in_file, flags))
            elif kind == 2:
                dynamic = (at, in_file)
        self.needed, self.paths, self.imports = [], [], set()
        self.is_static = dynamic is None
        if self.is_static:
            return
        tags = {}
        needed = []
        for at in range(dynamic[0], dynamic[0] + dynamic[1], 16):
            tag, value = struct.unpack_from("<QQ", d, at)
            if tag == 0:
                break
            if tag == 1:
                needed.append(value)
            tags[tag] = value
        if 5 not in tags:  # a static executable that relocates itself
            self.is_static = not needed
            return
        strings = self._offset(tags[5])

        def text(value):
            end = d.index(b"\0", strings + value)
            return d[strings + value:end].decode("utf-8", "replace")

        self.needed = [text(value) for value in needed]
        for tag in (29, 15):  # RUNPATH, RPATH
            if tag in tags:
                self.paths += [p for p in text(tags[tag]).split(":") if p]
                break
        if 6 not in tags:
            return
        symbols = self._offset(tags[6])
        # The undefined ones come first where there is a GNU hash table, which leaves them out.
        for i in range(1, self._symbol_count(tags)):
            name, info, _, section = struct.unpack_from("<IBBH", d, symbols + i * 24)
            if section == 0 and name != 0 and (info & 15) in (0, 2, 10):
                self.imports.add(text(name))

    def _offset(self, address):
        for start, at, in_file, _ in self.loads:
            if start <= address < start + in_file:
                return address - start + at
        raise Unreadable(f"{self.path}: its dynamic section points outside of it")

    def _symbol_count(self, tags):
        d = self.data
        if 4 in tags:  # HASH
            return struct.unpack_from("<II", d, self._offset(tags[4]))[1]
        if 0x6ffffef5 not in tags:
            return 0
        table = self._offset(tags[0x6ffffef5])
        buckets, first, bloom, _ = struct.unpack_from("<IIII", d, table)
        starts = struct.unpack_from(f"<{buckets}I", d, table + 16 + bloom * 8)
        last = max(starts, default=0)
        if last < first:
            return first
        chain = table + 16 + bloom * 8 + buckets * 4
        while not struct.unpack_from("<I", d, chain + (last - first) * 4)[0] & 1:
            last += 1
        return last + 1

    def direct_system_calls(self):
        """Instructions that look like calls of the kernel: how many."""
        count = 0
        for _, at, in_file, flags in self.loads:
            if not flags & 1:
                continue
            code = self.data[at:at + in_file]
            if self.machine == 62:  # x86-64: mov $number, %eax; a little later, syscall
                count += len(re.findall(rb"\xb8[\x00-\xff][\x00-\x03]\x00\x00.{0,12}?\x0f\x05", code, re.DOTALL))
            elif self.machine == 183:  # AArch64: svc #0
                count += sum(code[i:i + 4] == b"\x01\x00\x00\xd4" for i in range(0, len(code) - 3, 4))
        return count


class Libraries:
    """Where the loader would find them."""

    def __init__(self):
        self.cache = {}
        for ldconfig in ("ldconfig", "/sbin/ldconfig", "/usr/sbin/ldconfig"):
            try:
                text = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout
            except (OSError, subprocess.CalledProcessError):
                continue
            for name, path in re.findall(r"^\s*(\S+) \(.*?\) => (\S+)$", text, re.MULTILINE):
                self.cache.setdefault(name, []).append(path)
            break

    def find(self, name, of, inherited):
        if "/" in name:
            return name if os.path.exists(name) else None
        origin = os.path.dirname(os.path.abspath(of.path))
        places = [p.replace("$ORIGIN", origin).replace("${ORIGIN}", origin) for p in of.paths]
        places += inherited + [p for p in os.environ.get("LD_LIBRARY_PATH", "").split(":") if p]
        candidates = [os.path.join(p, name) for p in places] + self.cache.get(name, [])
        candidates += [os.path.join(p, name) for p in ("/lib64", "/usr/lib64", "/lib", "/usr/lib")]
        for path in candidates:
            try:
                if Elf(path).machine == of.machine:
                    return path
            except Unreadable:
                continue
        return None


def blocking(with_disk):
    result = {}
    for group in (WAITS, DISK) if with_disk else (WAITS,):
        for what, names in group.items():
            for name in names.split():
                result[name] = what
    return result


def closure(path, libraries):
    """The file and all that it needs: (label, Elf), and the names of what was not found."""
    first = Elf(path)
    found, missing, queue = {os.path.realpath(path): first}, [], [(first, [])]
    labels = {os.path.realpath(path): os.path.basename(path)}
    while queue:
        elf, inherited = queue.pop(0)
        here = inherited + elf.paths
        for name in elf.needed:
            if OF_LIBC.match(name):
                continue
            where = libraries.find(name, elf, inherited)
            if where is None:
                if name not in missing:
                    missing.append(name)
                continue
            real = os.path.realpath(where)
            if real in found:
                continue
            found[real], labels[real] = Elf(where), name
            queue.append((found[real], here))
    return [(labels[real], elf) for real, elf in found.items()], missing


def check(path, libraries, covered, functions, out):
    """True: nothing that blocks is left."""
    files, missing = closure(path, libraries)
    print(f"{path}: {len(files) - 1} libraries besides libc's", file=out)
    if files[0][1].is_static:
        print("  statically linked: its calls cannot be intercepted", file=out)
        return False
    users = {}
    for label, elf in files:
        for name in elf.imports & functions.keys():
            users.setdefault(name, []).append(label)
    left = sorted(name for name in users if name not in covered)
    seen = sorted(name for name in users if name in covered)
    print(f"  covered: {len(seen)} functions that may wait" + (": " + " ".join(seen) if seen else ""), file=out)
    if left:
        print(f"  not covered: {len(left)}", file=out)
        width = max(map(len, left))
        for name in left:
            print(f"    {name:{width}}  waits for {functions[name]}; used by {', '.join(users[name])}", file=out)
    else:
        print("  not covered: none", file=out)
    for label, elf in files:
        if count := elf.direct_system_calls():
            print(f"  note: {label} has about {count} instructions that call the kernel directly", file=out)
    loading = [label for label, elf in files if elf.imports & {"dlopen", "dlmopen"}]
    if loading:
        print(f"  note: {', '.join(loading)} may load further libraries at run time: name those, too", file=out)
    for name in missing:
        print(f"  note: {name} was not found, and not looked into", file=out)
    return not left


def main():
    parser = argparse.ArgumentParser(
        prog="dev check-binary",
        description="Lists functions of libc that may wait, that a program or its libraries use, and that "
        "tendril::intercept does not define. Status: 0: none; 1: some; 2: a file could not be read.")
    parser.add_argument("--disk", action="store_true",
                        help="also functions that wait for a disk only, mostly for microseconds")
    parser.add_argument("files", nargs="+", metavar="FILE", help="a program or a shared library")
    arguments = parser.parse_args()
    functions, covered, libraries = blocking(arguments.disk), intercept_symbols.covered(), Libraries()
    status = 0
    for path in arguments.files:
        try:
            if not check(path, libraries, covered, functions, sys.stdout):
                status = max(status, 1)
        except Unreadable as error:
            print(f"check-binary: {error}", file=sys.stderr)
            status = 2
    return status


if __name__ == "__main__":
    sys.exit(main())
