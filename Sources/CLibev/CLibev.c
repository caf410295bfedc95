// Evergreen: the trampolines of the raw watchers, and what a loop needs once
// SPDX-License-Identifier: MIT

#include "CLibev.h"

#include <CDescriptors.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/epoll.h>
#endif

// The open loops; the lock guards the list.
static evg_lock loops_lock;
static evg_loop *loops;

void evg_io_fired(struct ev_loop *raw, ev_io *watcher, int revents) {
  (void)raw;
  evg_io *io = (evg_io *)watcher;
  if (io->rests) {
    evg_io_stop(watcher->data, io);
    return;
  }
  if (!ev_is_active(watcher)) {
    io->has_failed = true;
    io->is_forgotten = revents & EV_CUSTOM;
    evg_io_stop(watcher->data, io);
  }
  io->fire(io, revents);
}

void evg_forget_descriptor(evg_loop *loop, int32_t fd) {
  if (fd < 0 || !loop->raw) return;
  ev_io probe;
  ev_io_init(&probe, evg_io_fired, fd, EV_READ);
  ev_io_start(loop->raw, &probe);
  // What it watches is gone, and libev's assertion would find out. This is what libev does itself
  // where a backend says so.
  ev_watcher_list *other = ((ev_watcher_list *)&probe)->next;
  // The event is pending, but libev would first wait for others.
  if (other) evg_interrupt(loop);
  while (other) {
    ev_watcher_list *next = other->next;
    ev_io_stop(loop->raw, (ev_io *)other);
    ev_feed_event(loop->raw, other, (int)EV_ERROR | EV_CUSTOM | EV_READ | EV_WRITE);
    other = next;
  }
  ev_io_stop(loop->raw, &probe);
}

int32_t evg_poll_set_open(void) {
#ifdef __linux__
  return evg_keep_apart(epoll_create1(EPOLL_CLOEXEC));
#else
  errno = ENOSYS;
  return -1;
#endif
}

void evg_poll_set_close(int32_t set) {
  evg_close_own(set);
}

int32_t evg_poll_set_put(int32_t set, int32_t fd, int16_t events, bool is_there) {
#ifdef __linux__
  // The bits are poll's. That of POLLNVAL has no meaning here.
  struct epoll_event event = {.events = (uint16_t)events & ~POLLNVAL};
  if (epoll_ctl(set, is_there ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) == 0) return 0;
  return errno == EPERM ? 0 : errno;  // a file: always ready, or never
#else
  (void)set, (void)fd, (void)events, (void)is_there;
  return ENOSYS;
#endif
}

static void (*_Atomic when_woken)(void);

void evg_when_interrupted(void (*call)(void)) { when_woken = call; }

static void woken(struct ev_loop *raw, ev_async *watcher, int revents) {
  (void)raw, (void)watcher, (void)revents;
  void (*call)(void) = when_woken;
  if (call) call();
}

struct ev_loop *evg_loop_new(uint32_t flags) {
  evg_own_work_begins();
  struct ev_loop *raw = ev_loop_new(flags);
  evg_own_work_ends();
  return raw;
}

// A thread of the program's may be a greenlet (EvergreenPreload), and pthread_self says so then.
static __thread char place;

static bool is_of_this_thread(const evg_loop *loop) { return loop->place == &place; }

void evg_loop_open(evg_loop *loop, struct ev_loop *raw) {
  memset(loop, 0, sizeof *loop);
  loop->raw = raw;
  loop->forks = evg_forks();
  loop->thread = pthread_self();
  loop->place = &place;
  evg_timers_open(&loop->timers);
  ev_set_userdata(raw, loop);
  ev_async_init(&loop->wakeup, woken);
  evg_own_work_begins();
  ev_async_start(raw, &loop->wakeup);
  evg_own_work_ends();
  ev_unref(raw);
  evg_lock_take(&loops_lock);
  loop->next = loops;
  if (loops) loops->previous = loop;
  loops = loop;
  evg_lock_give(&loops_lock);
}

void evg_loop_close(evg_loop *loop) {
  struct ev_loop *raw = loop->raw;
  if (!raw) return;
  evg_lock_take(&loops_lock);
  if (loop->previous) loop->previous->next = loop->next;
  else loops = loop->next;
  if (loop->next) loop->next->previous = loop->previous;
  evg_lock_give(&loops_lock);
  evg_hold(loop, false);
  evg_timers_close(&loop->timers);
  ev_ref(raw);
  ev_async_stop(raw, &loop->wakeup);
  loop->raw = NULL;
  loop->references = 0;
  evg_own_work_begins();
  ev_loop_destroy(raw);
  evg_own_work_ends();
}

void evg_loop_forked(evg_loop *loop) {
  loop->forks = evg_forks();
  ev_loop_fork(loop->raw);
}

static _Atomic int cancellations;

void evg_loop_cancel(pthread_t thread) {
  evg_lock_take(&loops_lock);
  for (evg_loop *loop = loops; loop; loop = loop->next) {
    if (!pthread_equal(loop->thread, thread) || !evg_loop_is_here(loop)) continue;
    loop->is_canceled = true;
    cancellations = 1;
    evg_interrupt(loop);
  }
  evg_lock_give(&loops_lock);
}

bool evg_loop_was_canceled(void) {
  if (cancellations == 0) return false;
  bool was = false;
  evg_lock_take(&loops_lock);
  for (evg_loop *loop = loops; loop; loop = loop->next) {
    if (!is_of_this_thread(loop)) continue;
    was |= loop->is_canceled;
    loop->is_canceled = false;
  }
  evg_lock_give(&loops_lock);
  return was;
}

/// In the child: the loops of the thread that forked go on, and are known at once to be here.
static void forked(void) {
  for (evg_loop *loop = loops; loop; loop = loop->next) {
    if (is_of_this_thread(loop)) evg_loop_forked(loop);
  }
}

bool evg_loops_make_anew(void) {
  bool is_any = false;
  evg_lock_take(&loops_lock);
  for (evg_loop *loop = loops; loop; loop = loop->next) {
    if (!is_of_this_thread(loop)) continue;
    ev_loop_fork(loop->raw);
    is_any = true;
  }
  evg_lock_give(&loops_lock);
  return is_any;
}

// libev calls this where it can only try again (epoll_wait on a closed descriptor, for ever).
static void system_error(const char *message) {
  int error = errno;
  if (evg_keeps_apart && error == EBADF && evg_loops_make_anew()) return;
  fprintf(stderr, "evergreen: fatal: the event loop: %s: %s.%s\n", message,
          strerror(error),
          error == EBADF ? " Something closed a file descriptor that it did not own, and it was"
                           " the loop's." : "");
  abort();
}

static void prepare(void) {
  evg_lock_init(&loops_lock);
  evg_on_fork(forked);
  ev_set_syserr_cb(system_error);
}

void evg_prepare_process(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, prepare);
}
