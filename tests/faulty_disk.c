/* A disk that fails, under the real SQLite: loaded with LD_PRELOAD, armed by `disk_arm`.

   Of files whose name holds ".db", every write and every fsync is a step. A step may fail (no room, a bad
   disk), a write may be short, and at the last step the machine dies: a write may be torn, what was written
   and not synced is kept or lost piece by piece, and the process is killed with SIGKILL.
   An fsync that failed loses its pages for good, as on Linux: a second one that succeeds does not bring
   them back, unless they are written again. No sync is passed on to the real disk: nothing waits for it. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct piece {  /* what a write that is not synced has written over */
    struct piece *older;
    ino_t inode;
    off_t at;
    size_t n_bytes, n_before;
    int is_lost;
    char *path, before[];
};

static struct piece *newest;
static uint64_t chance;
static long steps_left = -1;
static int fail_per_mille, lie_per_mille;
static long syncs_to_fail;

void disk_arm(uint64_t seed, long n_steps, int fails, int lies) {
    chance = seed * 2654435761u + 88172645463325252u;
    steps_left = n_steps;
    fail_per_mille = fails;
    lie_per_mille = lies;
}

/* The next syncs fail, whatever chance says. */
void disk_fail_syncs(long n_syncs) { syncs_to_fail = n_syncs; }

static uint64_t draw(uint64_t below) {
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return chance % below;
}

static ssize_t real_pwrite(int fd, const void *data, size_t n, off_t at) {
    return syscall(SYS_pwrite64, fd, data, n, at);
}

/* The path of a database that a step is about; NULL if the disk is not armed, or it is another file. */
static char *database(int fd) {
    static __thread char path[4096];
    char link[64];
    if (steps_left < 0) return NULL;
    strcpy(link, "/proc/self/fd/");
    char digits[16];
    int n = 0, number = fd, at = (int)strlen(link);
    do digits[n++] = (char)('0' + number % 10); while (number /= 10);
    while (n) link[at++] = digits[--n];
    link[at] = 0;
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    return strstr(path, ".db") ? path : NULL;
}

/* The power goes: what was not synced is kept or lost, piece by piece. A disk that lies about its syncs
   could lose anything then, whatever a program does: there the process is killed, and the power stays. */
static void power_cut(void) {
    for (struct piece *each = lie_per_mille ? NULL : newest; each; each = each->older) {
        if (!each->is_lost && draw(2)) continue;
        int fd = (int)syscall(SYS_openat, -100, each->path, 1 /* O_WRONLY */, 0);
        if (fd < 0) continue;
        real_pwrite(fd, each->before, each->n_before, each->at);
        for (size_t n = each->n_before; n < each->n_bytes; n++) real_pwrite(fd, "", 1, each->at + (off_t)n);
        close(fd);
    }
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* One step; whether it is the last. */
static int step(void) {
    return --steps_left <= 0;
}

static void remember(int fd, const char *path, size_t n, off_t at) {
    struct stat found;
    if (fstat(fd, &found)) return;
    for (struct piece *each = newest; each; each = each->older)  /* a page that is dirty again */
        if (each->inode == found.st_ino && each->at < at + (off_t)n && at < each->at + (off_t)each->n_bytes)
            each->is_lost = 0;
    struct piece *piece = malloc(sizeof *piece + n);
    piece->older = newest;
    piece->inode = found.st_ino;
    piece->at = at;
    piece->n_bytes = n;
    piece->is_lost = 0;
    piece->path = strdup(path);
    ssize_t before = syscall(SYS_pread64, fd, piece->before, n, at);
    piece->n_before = before < 0 ? 0 : (size_t)before;
    newest = piece;
}

static ssize_t written(int fd, const void *data, size_t n, off_t at) {
    char *path = database(fd);
    if (!path) return real_pwrite(fd, data, n, at);
    if (step()) {
        size_t torn = draw(n + 1);
        remember(fd, path, n, at);
        if (torn) real_pwrite(fd, data, torn, at);
        power_cut();
    }
    if (draw(1000) < (uint64_t)fail_per_mille) {
        errno = draw(2) ? ENOSPC : EIO;
        return -1;
    }
    if (n > 1 && draw(1000) < (uint64_t)fail_per_mille) n = 1 + draw(n - 1);
    remember(fd, path, n, at);
    return real_pwrite(fd, data, n, at);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return written(fd, data, n, at); }
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) { return written(fd, data, n, at); }

static int synced(int fd, long number) {
    char *path = database(fd);
    struct stat found;
    if (!path) return (int)syscall(number, fd);
    if (step()) power_cut();
    if (fstat(fd, &found)) return -1;
    if (draw(1000) < (uint64_t)lie_per_mille) return 0;
    int fails = draw(1000) < (uint64_t)fail_per_mille * 3;
    if (syncs_to_fail > 0) fails = (int)syncs_to_fail--;
    for (struct piece **each = &newest; *each;) {
        struct piece *piece = *each;
        if (piece->inode != found.st_ino || piece->is_lost) {
            each = &piece->older;
        } else if (fails) {
            piece->is_lost = 1;
            each = &piece->older;
        } else {
            *each = piece->older;
            free(piece->path);
            free(piece);
        }
    }
    if (fails) errno = EIO;
    return fails ? -1 : 0;
}

/* What is cut off a file, or deleted with it, is gone at once: no power cut brings it into a file after it. */
static void forget(ino_t inode, off_t length) {
    for (struct piece **each = &newest; *each;) {
        struct piece *piece = *each;
        if (piece->inode == inode && piece->at >= length) {
            *each = piece->older;
            free(piece->path);
            free(piece);
        } else {
            each = &piece->older;
        }
    }
}

static int cut_off(int fd, off_t length) {
    struct stat found;
    if (database(fd) && !fstat(fd, &found)) forget(found.st_ino, length);
    return (int)syscall(SYS_ftruncate, fd, length);
}

int ftruncate(int fd, off_t length) { return cut_off(fd, length); }
int ftruncate64(int fd, off64_t length) { return cut_off(fd, length); }

int unlink(const char *path) {
    struct stat found;
    if (steps_left >= 0 && strstr(path, ".db") && !stat(path, &found)) forget(found.st_ino, 0);
    return (int)syscall(SYS_unlinkat, -100, path, 0);
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }
