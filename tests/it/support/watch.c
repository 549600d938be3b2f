/* Loaded before libc: writes down what a process forces to disk and names there, and fails one of its fsyncs.
 *
 * WATCH_LOG: the file that gets a line a call, `call ok|failed path[ -> path]`, calls that failed by themselves left out.
 * WATCH_FAIL: the number, from 1, of the fsync or fdatasync of this process that fails with EIO, without being done.
 *
 * strace counts the calls of each thread apart, so it cannot fail one call of a process with several. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static atomic_int forced;

static void note(const char *call, const char *how, const char *path, const char *to) {
    const char *log = getenv("WATCH_LOG");
    char line[3 * PATH_MAX];
    int length = snprintf(line, sizeof line, to ? "%s %s %s -> %s\n" : "%s %s %s\n", call, how, path, to);
    int file = log ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (file < 0 || write(file, line, length) != length) abort();
    close(file);
}

static int force(int (*real)(int), int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) abort();
    path[length] = 0;
    const char *fail = getenv("WATCH_FAIL");
    if (atomic_fetch_add(&forced, 1) + 1 == (fail ? atoi(fail) : 0)) {
        note("fsync", "failed", path, NULL);
        errno = EIO;
        return -1;
    }
    int result = real(file);
    if (result == 0) note("fsync", "ok", path, NULL);
    return result;
}

int fsync(int file) { return force((int (*)(int))dlsym(RTLD_NEXT, "fsync"), file); }

int fdatasync(int file) { return force((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"), file); }

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    int (*real)(int, const char *, int, const char *, int) =
        (int (*)(int, const char *, int, const char *, int))dlsym(RTLD_NEXT, "linkat");
    int result = real(from_folder, from, to_folder, to, flags);
    if (result == 0) note("link", "ok", from, to);
    return result;
}

int rename(const char *from, const char *to) {
    int result = ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename"))(from, to);
    if (result == 0) note("rename", "ok", from, to);
    return result;
}
