/* A disk that refuses, under a real server: loaded with LD_PRELOAD.

   The first four bytes of the file REFUSING_BY are an errno: while it is not 0, whatever would write below the
   folder REFUSING_IN fails with it. Reading works; a file can be opened for reading alone. With EROFS this is
   a file system that was remounted read-only under the processes that have files open in it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static const volatile int *refused;
static const char *folder;
static size_t length;

__attribute__((constructor)) static void begin(void) {
    const char *by = getenv("REFUSING_BY");
    folder = getenv("REFUSING_IN");
    if (!by || !folder) return;
    length = strlen(folder);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, by, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return;
    void *page = mmap(NULL, 4, PROT_READ, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) refused = page;
    close(fd);
}

static int path_refused(const char *path) {
    int error = refused ? *refused : 0;
    if (!error || strncmp(path, folder, length)) return 0;
    errno = error;
    return 1;
}

static int fd_refused(int fd) {
    char link[64], path[4096];
    if (!refused || !*refused) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return path_refused(path);
}

/* As the kernel has it: what exists is EEXIST to who wants to make it, and opens for writing where there is
   only no room; a file system that is read-only opens it for reading alone. */
static int open_refused(const char *path, int flags) {
    if (!refused || !*refused || strncmp(path, folder, length)) return 0;
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    int exists = syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
    if (exists && (*refused != EROFS || (flags & O_EXCL) || !writes)) return 0;
    if (!exists && !(flags & O_CREAT)) return 0;
    errno = *refused;
    return 1;
}

#define OPEN(name)                                                      \
    int name(const char *path, int flags, ...) {                        \
        va_list more;                                                   \
        va_start(more, flags);                                          \
        int mode = flags & O_CREAT ? va_arg(more, int) : 0;             \
        va_end(more);                                                   \
        if (open_refused(path, flags)) return -1;                       \
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);   \
    }
OPEN(open)
OPEN(open64)

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
ssize_t write(int fd, const void *data, size_t n) {
    return fd_refused(fd) ? -1 : syscall(SYS_write, fd, data, n);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    return fd_refused(fd) ? -1 : syscall(SYS_pwrite64, fd, data, n, at);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    return fd_refused(fd) ? -1 : syscall(SYS_pwrite64, fd, data, n, at);
}
int ftruncate(int fd, off_t n) { return fd_refused(fd) ? -1 : (int)syscall(SYS_ftruncate, fd, n); }
int ftruncate64(int fd, off64_t n) { return fd_refused(fd) ? -1 : (int)syscall(SYS_ftruncate, fd, n); }
int fsync(int fd) { return fd_refused(fd) ? -1 : (int)syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return fd_refused(fd) ? -1 : (int)syscall(SYS_fdatasync, fd); }
int mkdir(const char *path, mode_t mode) { return path_refused(path) ? -1 : REAL(mkdir)(path, mode); }
int unlink(const char *path) { return path_refused(path) ? -1 : REAL(unlink)(path); }
int rename(const char *from, const char *to) { return path_refused(to) ? -1 : REAL(rename)(from, to); }
