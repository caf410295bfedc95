// Evergreen: waiting for other processes.
// SPDX-License-Identifier: MIT
//
// The end of one process is seen by a descriptor of its own. For any of several, and for stops, the
// kernel has none: another thread waits there, and leaves the news for whoever asked.

#ifdef __linux__

#include "green.h"

#include <CDescriptors.h>
#include <CLocks.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

typedef struct vigil {
  evg_patch_job job;
  idtype_t type;
  id_t id;
  int options;
} vigil;

static void run_vigil(evg_patch_job *job) {
  const vigil *vigil = (struct vigil *)job;
  siginfo_t unused;
  real(waitid)(vigil->type, vigil->id, &unused, vigil->options | WNOWAIT);
}

static void drop_vigil(evg_patch_job *job) { free(job); }

/// Waits until there may be news of the children. Returns 0 or an errno.
static int await_news(idtype_t type, id_t id, int options) {
  const int news = options & (WEXITED | WSTOPPED | WCONTINUED);
  if (type == P_PID && news == WEXITED) {
    const int process = evg_keep_apart((int)syscall(SYS_pidfd_open, (pid_t)id, 0));
    if (process != -1) {
      const int error = evg_wait_for(process, POLLIN, EVG_NEVER, true);
      evg_close_own(process);
      return error;
    }
  }
  vigil *new = calloc(1, sizeof *new);
  if (!new) return ENOMEM;
  *new = (vigil){{run_vigil, drop_vigil, false}, type, id, options};
  const int error = evg_run(&new->job, true);
  if (error == 0) free(new);
  return error;
}

pid_t evg_green_wait4(pid_t pid, int *status, int options, struct rusage *usage) {
  if (!evg_is_here() || options & WNOHANG) return real(wait4)(pid, status, options, usage);
  if (evg_is_alone()) return EVG_PLAINLY(real(wait4)(pid, status, options, usage));
  if (evg_is_refused()) return -1;
  const int errno_before = errno;
  const idtype_t type = pid > 0 ? P_PID : pid == -1 ? P_ALL : P_PGID;
  const id_t id = pid == 0 ? (id_t)getpgrp() : (id_t)(pid > 0 ? pid : -pid);
  const int news = WEXITED | (options & WUNTRACED ? WSTOPPED : 0) | (options & WCONTINUED);
  while (true) {
    const pid_t found = real(wait4)(pid, status, options | WNOHANG, usage);
    if (found > 0) errno = errno_before;
    if (found != 0) return found;
    const int error =
      await_news(type, id, news | (options & (__WALL | __WCLONE | __WNOTHREAD)));
    if (error) {
      errno = error;
      return -1;
    }
  }
}

pid_t evg_green_waitpid(pid_t pid, int *status, int options) {
  if (!evg_is_here()) return real(waitpid)(pid, status, options);
  return evg_green_wait4(pid, status, options, NULL);
}

pid_t evg_green_wait(int *status) {
  if (!evg_is_here()) return real(wait)(status);
  return evg_green_wait4(-1, status, 0, NULL);
}

pid_t evg_green_wait3(int *status, int options, struct rusage *usage) {
  if (!evg_is_here()) return real(wait3)(status, options, usage);
  return evg_green_wait4(-1, status, options, usage);
}

int evg_green_waitid(idtype_t type, id_t id, siginfo_t *info, int options) {
  if (!evg_is_here() || options & WNOHANG) return real(waitid)(type, id, info, options);
  if (evg_is_alone()) return EVG_PLAINLY(real(waitid)(type, id, info, options));
  if (evg_is_refused()) return -1;
  const int errno_before = errno;
  siginfo_t own;
  if (!info) info = &own;
  while (true) {
    info->si_pid = 0;
    const int result = real(waitid)(type, id, info, options | WNOHANG);
    if (result != 0 || info->si_pid != 0) {
      if (result == 0) errno = errno_before;
      return result;
    }
    const int error = await_news(type, id, options);
    if (error) {
      errno = error;
      return -1;
    }
  }
}

// MARK: Commands

// SIGINT and SIGQUIT are for the command as long as any runs. And SIGCHLD comes when none of this
// thread's runs any more: a handler that waits for any child would take the news away.
static evg_lock commands_lock;
static unsigned commands;
static struct sigaction interrupt_before, quit_before;
static __thread unsigned own_commands;
static __thread bool blocked_children;

__attribute__((constructor)) static void prepare(void) { evg_lock_init(&commands_lock); }

static const sigset_t *only_children(void) {
  static __thread sigset_t only;
  sigaddset(&only, SIGCHLD);
  return &only;
}

static void command_begins(void) {
  evg_lock_take(&commands_lock);
  if (commands++ == 0) {
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    real(sigaction)(SIGINT, &ignore, &interrupt_before);
    real(sigaction)(SIGQUIT, &ignore, &quit_before);
  }
  evg_lock_give(&commands_lock);
  if (own_commands++ > 0) return;
  sigset_t before;
  pthread_sigmask(SIG_BLOCK, only_children(), &before);
  blocked_children = sigismember(&before, SIGCHLD) == 1;
}

static void command_ends(void) {
  evg_lock_take(&commands_lock);
  if (--commands == 0) {
    real(sigaction)(SIGINT, &interrupt_before, NULL);
    real(sigaction)(SIGQUIT, &quit_before, NULL);
  }
  evg_lock_give(&commands_lock);
  if (--own_commands == 0 && !blocked_children) {
    pthread_sigmask(SIG_UNBLOCK, only_children(), NULL);
  }
}

static int start_shell(const char *command, pid_t *process) {
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t mask, defaults;
  pthread_sigmask(SIG_BLOCK, NULL, &mask);
  if (!blocked_children) sigdelset(&mask, SIGCHLD);
  sigemptyset(&defaults);
  if (interrupt_before.sa_handler != SIG_IGN) sigaddset(&defaults, SIGINT);
  if (quit_before.sa_handler != SIG_IGN) sigaddset(&defaults, SIGQUIT);
  posix_spawnattr_setsigmask(&attributes, &mask);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  char *const arguments[] = {"sh", "-c", (char *)command, NULL};
  const int error = posix_spawn(process, "/bin/sh", NULL, &attributes, arguments, environ);
  posix_spawnattr_destroy(&attributes);
  return error;
}

int evg_green_system(const char *command) {
  if (!command || !evg_is_here()) return real(system)(command);
  if (evg_is_alone()) return EVG_PLAINLY(real(system)(command));
  if (evg_is_refused()) return -1;
  const int errno_before = errno;
  command_begins();
  pid_t process;
  int status = -1;
  const int error = start_shell(command, &process);
  if (error == 0) {
    while (evg_green_wait4(process, &status, 0, NULL) == -1) {
      if (errno == EINTR) continue;
      const int problem = errno;
      if (problem == ECANCELED || problem == ETIMEDOUT) {
        // As when a thread is cancelled: nobody is left to wait for it.
        kill(process, SIGKILL);
        real(wait4)(process, NULL, 0, NULL);
      }
      command_ends();
      errno = problem;
      return -1;
    }
  } else if (error == ENOEXEC || error == EACCES || error == ENOENT) {
    status = 127 << 8;  // as if the shell had said so
  }
  command_ends();
  errno = status == -1 ? error : errno_before;
  return status;
}

typedef struct closing {
  evg_patch_job job;
  FILE *stream;
  int result, error;
} closing;

static void run_closing(evg_patch_job *job) {
  closing *closing = (struct closing *)job;
  closing->result = real(pclose)(closing->stream);
  closing->error = errno;
}

static void drop_closing(evg_patch_job *job) { free(job); }

/// Only libc knows the process, so another thread waits for it. Whoever is struck meanwhile leaves
/// it to that thread.
int evg_green_pclose(FILE *stream) {
  if (evg_is_alone()) return EVG_PLAINLY(real(pclose)(stream));
  if (!evg_is_here() || evg_self.current->is_due) return real(pclose)(stream);
  const int errno_before = errno;
  closing *new = calloc(1, sizeof *new);
  if (!new) return real(pclose)(stream);
  *new = (closing){{run_closing, drop_closing, false}, stream, -1, 0};
  const int error = evg_hub->run(&new->job);
  if (error) {
    errno = error;
    return -1;
  }
  const int result = new->result;
  errno = result == -1 ? new->error : errno_before;
  free(new);
  return result;
}

#endif
