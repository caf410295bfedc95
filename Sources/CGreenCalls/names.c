// Evergreen: names and addresses of hosts.
// SPDX-License-Identifier: MIT
//
// libc asks its servers with calls of its own that nobody can take over, so each function runs, as
// it is, on another thread. What it needs is copied, for whoever asks may be gone before the answer
// comes.

#ifdef __linux__

#include "green.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static bool is_left_to_libc(void) { return evg_is_alone() || !evg_is_here(); }

static char *copy_of(const char *text) { return text ? strdup(text) : NULL; }

/// Runs a job, or fails. False: it is dropped by whoever runs it, and errno is set.
static bool has_run(evg_patch_job *job) {
  const int error = evg_hub->run(job);
  if (error) errno = error;
  return error == 0;
}

// MARK: getaddrinfo

typedef struct look_up {
  evg_patch_job job;
  char *node, *service;
  struct addrinfo hints;
  bool has_hints;
  struct addrinfo *result;
  int code, error;
} look_up;

static void run_look_up(evg_patch_job *job) {
  look_up *up = (look_up *)job;
  errno = up->error;
  up->code = real(getaddrinfo)(
    up->node, up->service, up->has_hints ? &up->hints : NULL, &up->result);
  up->error = errno;
}

static void free_look_up(look_up *up) {
  free(up->node);
  free(up->service);
  free(up);
}

static void drop_look_up(evg_patch_job *job) {
  look_up *up = (look_up *)job;
  if (up->code == 0 && up->result) freeaddrinfo(up->result);
  free_look_up(up);
}

/// Asks a resolver of the hub's own, and dresses its answers as libc does: by having libc read each
/// as a number. libc frees the entries of a list one by one.
static int ask_resolver(
    const char *node, const char *service, const struct addrinfo *hints,
    struct addrinfo **result) {
  enum { MOST = 64 };
  char *texts = calloc(MOST, EVG_ADDRESS_TEXT);
  if (!texts) return EAI_MEMORY;
  const int count = evg_hub->resolve(node, hints ? hints->ai_family : AF_UNSPEC, texts, MOST);
  int code = count < 0 ? count : EAI_NONAME;
  struct addrinfo numeric = {.ai_flags = AI_V4MAPPED | AI_ADDRCONFIG};
  if (hints) numeric = *hints;
  numeric.ai_flags = (numeric.ai_flags | AI_NUMERICHOST) & ~AI_CANONNAME;
  struct addrinfo *first = NULL, **end = &first;
  for (int i = 0; i < count; i++) {
    struct addrinfo *some = NULL;
    const int one = real(getaddrinfo)(texts + i * EVG_ADDRESS_TEXT, service, &numeric, &some);
    if (one != 0) {
      if (!first) code = one;
      continue;
    }
    code = 0;
    *end = some;
    for (; *end; end = &(*end)->ai_next) (*end)->ai_flags &= ~AI_NUMERICHOST;
  }
  if (first) {
    code = 0;
    if (hints && hints->ai_flags & AI_CANONNAME && !first->ai_canonname) {
      first->ai_canonname = strdup(node);
    }
    *result = first;
  }
  free(texts);
  return code;
}

int evg_green_getaddrinfo(
    const char *restrict node, const char *restrict service,
    const struct addrinfo *restrict hints, struct addrinfo **restrict result) {
  const int flags = hints ? hints->ai_flags : AI_V4MAPPED | AI_ADDRCONFIG;
  if (!node || flags & AI_NUMERICHOST || is_left_to_libc()) {
    return EVG_PLAINLY(real(getaddrinfo)(node, service, hints, result));
  }
  if (evg_is_refused()) return EAI_SYSTEM;
  struct addrinfo numeric = {0};
  if (hints) numeric = *hints;
  numeric.ai_flags = flags | AI_NUMERICHOST;
  const int errno_before = errno;
  const int at_once = real(getaddrinfo)(node, service, &numeric, result);
  if (at_once != EAI_NONAME) {
    struct addrinfo *one = at_once == 0 ? *result : NULL;
    for (; one; one = one->ai_next) one->ai_flags &= ~AI_NUMERICHOST;  // which nobody asked for
    return at_once;
  }
  errno = errno_before;
  if (evg_hub->has_resolver()) return ask_resolver(node, service, hints, result);

  look_up *up = calloc(1, sizeof *up);
  if (!up) return EAI_MEMORY;
  up->job = (evg_patch_job){run_look_up, drop_look_up, true};
  up->node = copy_of(node);
  up->service = copy_of(service);
  up->has_hints = hints != NULL;
  if (hints) up->hints = *hints;
  if (!up->node || (service && !up->service)) {
    free_look_up(up);
    return EAI_MEMORY;
  }
  up->code = EAI_SYSTEM;
  up->error = errno_before;
  if (!has_run(&up->job)) return EAI_SYSTEM;
  const int code = up->code;
  if (code == 0) *result = up->result;
  errno = up->error;
  free_look_up(up);
  return code;
}

// MARK: getnameinfo

typedef struct look_back {
  evg_patch_job job;
  struct sockaddr_storage address;
  socklen_t length, host_size, service_size;
  bool wants_host, wants_service;
  char host[NI_MAXHOST], service[NI_MAXSERV];
  int flags, code, error;
} look_back;

static void run_look_back(evg_patch_job *job) {
  look_back *back = (look_back *)job;
  errno = back->error;
  back->code = real(getnameinfo)(
    (struct sockaddr *)&back->address, back->length, back->wants_host ? back->host : NULL,
    back->host_size, back->wants_service ? back->service : NULL, back->service_size, back->flags);
  back->error = errno;
}

static void drop_look_back(evg_patch_job *job) { free(job); }

static socklen_t smaller(socklen_t one, size_t other) {
  return one < other ? one : (socklen_t)other;
}

int evg_green_getnameinfo(
    const struct sockaddr *restrict address, socklen_t length, char *restrict host,
    socklen_t host_size, char *restrict service, socklen_t service_size, int flags) {
  if (flags & NI_NUMERICHOST || !host || host_size == 0
      || length > sizeof(struct sockaddr_storage) || is_left_to_libc()) {
    return EVG_PLAINLY(real(getnameinfo)(address, length, host, host_size, service, service_size, flags));
  }
  if (evg_is_refused()) return EAI_SYSTEM;
  look_back *back = calloc(1, sizeof *back);
  if (!back) return EAI_MEMORY;
  back->job = (evg_patch_job){run_look_back, drop_look_back, true};
  memcpy(&back->address, address, length);
  back->length = length;
  back->wants_host = true;
  back->wants_service = service != NULL;
  back->host_size = smaller(host_size, sizeof back->host);
  back->service_size = smaller(service_size, sizeof back->service);
  back->flags = flags;
  back->error = errno;
  if (!has_run(&back->job)) return EAI_SYSTEM;
  const int code = back->code;
  if (code == 0) {
    memcpy(host, back->host, strlen(back->host) + 1);
    if (service && service_size > 0) memcpy(service, back->service, strlen(back->service) + 1);
  }
  errno = back->error;
  free(back);
  return code;
}

// MARK: gethostbyname and its relatives

enum question { BY_NAME, BY_NAME_AND_FAMILY, BY_ADDRESS };

typedef struct inquiry {
  evg_patch_job job;
  enum question question;
  char *subject;  // a name, or the bytes of an address
  socklen_t length;
  int family;
  struct hostent entry;
  size_t size;
  size_t offset;  // so that the buffer is aligned as the caller's
  char *buffer;
  bool grows;
  bool is_found;
  int result, problem, error;
} inquiry;

static void run_inquiry(evg_patch_job *job) {
  inquiry *inquiry = (struct inquiry *)job;
  const int errno_before = inquiry->error;
  while (true) {
    struct hostent *found = NULL;
    errno = errno_before;
    char *room = inquiry->buffer + inquiry->offset;
    switch (inquiry->question) {
      case BY_NAME:
        inquiry->result = real(gethostbyname_r)(
          inquiry->subject, &inquiry->entry, room, inquiry->size, &found, &inquiry->problem);
        break;
      case BY_NAME_AND_FAMILY:
        inquiry->result = real(gethostbyname2_r)(
          inquiry->subject, inquiry->family, &inquiry->entry, room, inquiry->size, &found,
          &inquiry->problem);
        break;
      case BY_ADDRESS:
        inquiry->result = real(gethostbyaddr_r)(
          inquiry->subject, inquiry->length, inquiry->family, &inquiry->entry, room,
          inquiry->size, &found, &inquiry->problem);
        break;
    }
    inquiry->error = errno;
    inquiry->is_found = found != NULL;
    if (inquiry->result != ERANGE || !inquiry->grows) return;
    char *larger = realloc(inquiry->buffer, inquiry->size * 2);
    if (!larger) return;
    inquiry->buffer = larger;
    inquiry->size *= 2;
  }
}

static void free_inquiry(inquiry *inquiry) {
  free(inquiry->subject);
  free(inquiry->buffer);
  free(inquiry);
}

static void drop_inquiry(evg_patch_job *job) { free_inquiry((inquiry *)job); }

/// The answered inquiry; NULL if it was refused or could not be made, with errno set.
static inquiry *inquire(
    enum question question, const void *subject, socklen_t length, int family, size_t size,
    size_t offset, bool grows) {
  if (evg_is_refused()) return NULL;
  inquiry *new = calloc(1, sizeof *new);
  if (!new) return NULL;
  *new = (inquiry){
    .job = {run_inquiry, drop_inquiry, true}, .question = question, .length = length, .family = family,
    .size = size, .offset = offset, .grows = grows, .problem = NETDB_INTERNAL, .error = errno};
  new->subject = malloc(length > 0 ? length : 1);
  new->buffer = malloc(size + offset + 1);
  if (!new->subject || !new->buffer) {
    free_inquiry(new);
    errno = ENOMEM;
    return NULL;
  }
  memcpy(new->subject, subject, length);
  return has_run(&new->job) ? new : NULL;
}

static __thread inquiry *last_by_name, *last_by_address;

static void forget_answers(void *unused) {
  (void)unused;
  if (last_by_name) free_inquiry(last_by_name);
  if (last_by_address) free_inquiry(last_by_address);
  last_by_name = last_by_address = NULL;
}

static pthread_key_t end_of_thread;
static void make_key(void) { pthread_key_create(&end_of_thread, forget_answers); }

/// For those that answer with memory of their own: it is good until the thread's next question of
/// this kind, or its end.
static struct hostent *answer_with_own_memory(inquiry **last, inquiry *inquiry) {
  if (!inquiry) {
    h_errno = errno == ENOMEM ? NETDB_INTERNAL : TRY_AGAIN;
    return NULL;
  }
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, make_key);
  pthread_setspecific(end_of_thread, &last_by_name);
  if (*last) free_inquiry(*last);
  *last = inquiry;
  if (!inquiry->is_found) h_errno = inquiry->problem;
  errno = inquiry->error;
  return inquiry->is_found ? &inquiry->entry : NULL;
}

enum { FIRST_SIZE = 2048 };

struct hostent *evg_green_gethostbyname(const char *name) {
  if (is_left_to_libc()) return EVG_PLAINLY(real(gethostbyname)(name));
  return answer_with_own_memory(
    &last_by_name,
    inquire(BY_NAME, name, (socklen_t)strlen(name) + 1, 0, FIRST_SIZE, 0, true));
}

struct hostent *evg_green_gethostbyname2(const char *name, int family) {
  if (is_left_to_libc()) return EVG_PLAINLY(real(gethostbyname2)(name, family));
  return answer_with_own_memory(
    &last_by_name,
    inquire(
      BY_NAME_AND_FAMILY, name, (socklen_t)strlen(name) + 1, family, FIRST_SIZE, 0, true));
}

struct hostent *evg_green_gethostbyaddr(const void *address, socklen_t length, int family) {
  if (is_left_to_libc()) return EVG_PLAINLY(real(gethostbyaddr)(address, length, family));
  return answer_with_own_memory(
    &last_by_address, inquire(BY_ADDRESS, address, length, family, FIRST_SIZE, 0, true));
}

/// Moves what lies in `from` to the same place in `to`, with all that points there.
static void move_entry(struct hostent *entry, char *from, char *to, size_t size) {
  memcpy(to, from, size);
  const ptrdiff_t way = to - from;
#define MOVED(pointer) ((pointer) ? (__typeof__(pointer))((char *)(pointer) + way) : NULL)
  entry->h_name = MOVED(entry->h_name);
  entry->h_aliases = MOVED(entry->h_aliases);
  entry->h_addr_list = MOVED(entry->h_addr_list);
  for (char **alias = entry->h_aliases; alias && *alias; alias++) *alias = MOVED(*alias);
  for (char **one = entry->h_addr_list; one && *one; one++) *one = MOVED(*one);
#undef MOVED
}

static int answer_with_callers_memory(
    inquiry *inquiry, struct hostent *entry, char *buffer, size_t size, struct hostent **result,
    int *problem) {
  *result = NULL;
  if (!inquiry) {
    *problem = errno == ENOMEM ? NETDB_INTERNAL : TRY_AGAIN;
    return errno;
  }
  const int answer = inquiry->result;
  *problem = inquiry->problem;
  if (inquiry->is_found) {
    *entry = inquiry->entry;
    move_entry(entry, inquiry->buffer + inquiry->offset, buffer, size);
    *result = entry;
  }
  errno = inquiry->error;
  free_inquiry(inquiry);
  return answer;
}

/// Where a pointer stands between two that anything may be aligned to.
static size_t misalignment(const char *buffer) { return (uintptr_t)buffer & 15; }

int evg_green_gethostbyname_r(
    const char *restrict name, struct hostent *restrict entry, char *restrict buffer, size_t size,
    struct hostent **restrict result, int *restrict problem) {
  if (is_left_to_libc()) return EVG_PLAINLY(real(gethostbyname_r)(name, entry, buffer, size, result, problem));
  return answer_with_callers_memory(
    inquire(
      BY_NAME, name, (socklen_t)strlen(name) + 1, 0, size, misalignment(buffer), false),
    entry, buffer, size, result, problem);
}

int evg_green_gethostbyname2_r(
    const char *restrict name, int family, struct hostent *restrict entry, char *restrict buffer,
    size_t size, struct hostent **restrict result, int *restrict problem) {
  if (is_left_to_libc()) {
    return EVG_PLAINLY(real(gethostbyname2_r)(name, family, entry, buffer, size, result, problem));
  }
  return answer_with_callers_memory(
    inquire(
      BY_NAME_AND_FAMILY, name, (socklen_t)strlen(name) + 1, family, size, misalignment(buffer),
      false),
    entry, buffer, size, result, problem);
}

int evg_green_gethostbyaddr_r(
    const void *restrict address, socklen_t length, int family, struct hostent *restrict entry,
    char *restrict buffer, size_t size, struct hostent **restrict result, int *restrict problem) {
  if (is_left_to_libc()) {
    return EVG_PLAINLY(real(gethostbyaddr_r)(address, length, family, entry, buffer, size, result, problem));
  }
  return answer_with_callers_memory(
    inquire(BY_ADDRESS, address, length, family, size, misalignment(buffer), false), entry, buffer,
    size, result, problem);
}

#endif
