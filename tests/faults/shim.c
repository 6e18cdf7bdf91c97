/* Preloaded into every process of a hook call: lets one call of one function fail, or writes down which there are.
 *
 * FAULT_TRACE=FILE             append "PROGRAM FUNCTION" for each call
 * FAULT_PROGRAM, FAULT_CALL    in which program which function fails
 * FAULT_AT, FAULT_ERRNO        at its how manieth call, with what; FAULT_AT=0: at every call
 *
 * All arguments are integers or pointers, so one shape fits every function where they are passed in registers.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

extern long syscall(long number, ...);
extern int snprintf(char *to, unsigned long size, const char *format, ...);

static void trace(const char *file, const char *function)
{
    char line[128];
    int length = snprintf(line, sizeof line, "%s %s\n", program_invocation_short_name, function);
    long descriptor = syscall(SYS_openat, -100, file, 02001L /* O_WRONLY | O_APPEND */, 0);
    syscall(SYS_write, descriptor, line, length);
    syscall(SYS_close, descriptor);
}

static int fails(const char *function, int *calls)
{
    const char *file = getenv("FAULT_TRACE"), *program = getenv("FAULT_PROGRAM"), *call = getenv("FAULT_CALL");
    int at, before = errno;
    if (file)
        trace(file, function);
    errno = before;
    if (!program || !call || strcmp(call, function) || strcmp(program, program_invocation_short_name))
        return 0;
    at = atoi(getenv("FAULT_AT"));
    if (++*calls != at && at)
        return 0;
    errno = atoi(getenv("FAULT_ERRNO"));
    return 1;
}

#define WRAP(function, failed)                                                          \
    long function(long a, long b, long c, long d, long e, long f)                       \
    {                                                                                   \
        static long (*real)(long, long, long, long, long, long);                        \
        static int calls;                                                               \
        if (!real)                                                                      \
            real = (long (*)(long, long, long, long, long, long))dlsym(RTLD_NEXT, #function); \
        return fails(#function, &calls) ? (failed) : real(a, b, c, d, e, f);            \
    }

WRAP(open, -1) WRAP(open64, -1) WRAP(openat, -1) WRAP(openat64, -1) WRAP(read, -1) WRAP(write, -1)
WRAP(pread64, -1) WRAP(pwrite64, -1) WRAP(lseek64, -1) WRAP(stat64, -1) WRAP(stat, -1) WRAP(lstat64, -1)
WRAP(fstat64, -1) WRAP(fstat, -1) WRAP(fstatat64, -1) WRAP(fstatat, -1) WRAP(rename, -1) WRAP(unlink, -1) WRAP(mkdir, -1)
WRAP(ftruncate64, -1) WRAP(fsync, -1) WRAP(fdatasync, -1) WRAP(flock, -1) WRAP(opendir, 0) WRAP(readdir64, 0)
WRAP(readlink, -1) WRAP(fcntl, -1) WRAP(fcntl64, -1) WRAP(dup, -1) WRAP(dup2, -1) WRAP(pipe, -1) WRAP(pipe2, -1) WRAP(ioctl, -1)
WRAP(fork, -1) WRAP(execve, -1) WRAP(posix_spawn, errno) WRAP(wait3, -1) WRAP(waitpid, -1) WRAP(wait4, -1)
WRAP(kill, -1) WRAP(sigaction, -1) WRAP(setitimer, -1) WRAP(timer_create, -1) WRAP(pthread_create, errno)
WRAP(setsid, -1) WRAP(clock_nanosleep, errno) WRAP(sched_setaffinity, -1) WRAP(socket, -1) WRAP(connect, -1) WRAP(send, -1) WRAP(getcwd, 0) WRAP(uname, -1)
