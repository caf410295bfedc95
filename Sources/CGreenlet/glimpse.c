// Evergreen: looks at a thread from another one, for reports about blocked hubs.
// SPDX-License-Identifier: MIT

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unwind.h>

#include "internal.h"

// SIGURG, as Go uses it: ignored unless somebody asks for it. Most system calls are restarted; a
// sleep or a poll of the blocked code ends early.
enum { QUESTION_SIGNAL = SIGURG };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static sem_t answered;
static evg_glimpse answer;  // the handler writes here, also when it is late
static uint32_t wanted, given;
static pthread_t asked;

static _Unwind_Reason_Code note_frame(struct _Unwind_Context *context, void *argument) {
  int *skipped = argument;
  if (*skipped < 2) {  // the handler and the kernel's frame
    ++*skipped;
    return _URC_NO_REASON;
  }
  if (answer.count >= EVG_FRAMES) return _URC_END_OF_STACK;
  answer.frames[answer.count++] = (void *)_Unwind_GetIP(context);
  return _URC_NO_REASON;
}

static void on_question(int signal) {
  (void)signal;
  int error = errno;
  uint32_t number = __atomic_load_n(&wanted, __ATOMIC_ACQUIRE);
  // One that was asked before, and comes to it only now, has nothing to say to this question.
  bool is_asked = pthread_equal(asked, pthread_self());
  if (is_asked && number != __atomic_load_n(&given, __ATOMIC_RELAXED)) {
    const evg_thread *self = &evg_self;
    memset(&answer, 0, sizeof answer);
    if (self->current) {
      answer.id = self->current->id;
      answer.origin = self->current->origin;
      answer.origin_line = self->current->origin_line;
      if (self->current->name) strncpy(answer.name, self->current->name, EVG_NAME - 1);
    }
    answer.others = self->live;
    answer.switches = self->switches;
    int skipped = 0;
    _Unwind_Backtrace(note_frame, &skipped);
    __atomic_store_n(&given, number, __ATOMIC_RELEASE);
    sem_post(&answered);
  }
  errno = error;
}

/// In the child of a fork nobody asks any more.
static void forget_questions(void) {
  pthread_mutex_init(&lock, NULL);
  sem_init(&answered, 0, 0);
  given = wanted;
}

static void prepare(void) {
  sem_init(&answered, 0, 0);
  pthread_atfork(NULL, NULL, forget_questions);
  struct sigaction action = {0}, old;
  action.sa_handler = on_question;
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  if (sigaction(QUESTION_SIGNAL, NULL, &old) == 0 && old.sa_handler == SIG_DFL) {
    sigaction(QUESTION_SIGNAL, &action, NULL);
  }
}

static bool wait_for_answer(void) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 1;
  while (sem_timedwait(&answered, &until) != 0) {
    if (errno != EINTR) return false;
  }
  return true;
}

bool evg_look_at(uintptr_t thread, evg_glimpse *glimpse) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, prepare);
  struct sigaction installed;
  if (sigaction(QUESTION_SIGNAL, NULL, &installed) != 0 || installed.sa_handler != on_question) {
    return false;
  }
  pthread_mutex_lock(&lock);
  while (sem_trywait(&answered) == 0) {  // what came too late for an earlier question
  }
  asked = (pthread_t)thread;
  __atomic_add_fetch(&wanted, 1, __ATOMIC_RELEASE);
  bool seen = pthread_kill((pthread_t)thread, QUESTION_SIGNAL) == 0 && wait_for_answer();
  if (seen) *glimpse = answer;
  pthread_mutex_unlock(&lock);
  return seen;
}
