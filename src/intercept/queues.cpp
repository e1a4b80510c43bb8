// SPDX-License-Identifier: Apache-2.0
//
// Locks on files, message queues and semaphores of the system. None of them has a descriptor that could be waited for
// (POSIX's queues have, on this system alone): each is tried without waiting, and when that will not do the call is
// made on a thread of its own. Whom it waits for may be another fiber, so its arguments are copied.
#include <fcntl.h>
#include <mqueue.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <optional>

#include "intercept/aside.hpp"
#include "intercept/calls.hpp"
#include "intercept/install.hpp"
#include "intercept/owned_text.hpp"

namespace tendril::detail {
namespace {

/// The result of a try, unless it says that there is need to wait; errno is then as before.
template <class F>
[[gnu::noinline]] bool try_it(F f, std::initializer_list<int> would_block) noexcept {
  const int before = errno;
  if (f() >= 0) return true;
  for (const int e : would_block)
    if (errno == e) {
      errno = before;
      return false;
    }
  return true;
}

[[gnu::noinline]] int out_of_memory() noexcept {
  errno = ENOMEM;
  return -1;
}

std::optional<timespec> copy_of(const timespec* time) noexcept {
  return time != nullptr ? std::optional<timespec>(*time) : std::nullopt;
}
const timespec* pointer_to(const std::optional<timespec>& time) noexcept {
  return time ? &*time : nullptr;
}

/// Long past, so that what would wait says ETIMEDOUT instead.
constexpr timespec no_waiting{0, 0};

int operate(symbol what, int set, sembuf* operations, std::size_t count, const timespec* timeout) {
  // Together they are done or not; one of them that must not wait may have said so: then the call says it again.
  constexpr std::size_t few = 16;
  owned_text copy = detail::copy_of(operations, count <= few ? count * sizeof *operations : 0);
  if (copy == nullptr) return out_of_memory();
  if (count <= few) {
    auto* const now = reinterpret_cast<sembuf*>(copy.get());
    for (std::size_t i = 0; i != count; ++i) now[i].sem_flg |= IPC_NOWAIT;
    int result = 0;
    if (try_it([&] { return result = real().semop(set, now, count); }, {EAGAIN})) return result;
    std::memcpy(copy.get(), operations, count * sizeof *operations);
  } else if (copy = detail::copy_of(operations, count * sizeof *operations); copy == nullptr) {
    return out_of_memory();
  }
  return on_thread(
      what, interruptible::always, [set, c = std::move(copy), count, limit = copy_of(timeout)] {
        return real().semtimedop(set, reinterpret_cast<sembuf*>(c.get()), count, pointer_to(limit));
      });
}

int send_posix(symbol what, mqd_t queue, const char* message, std::size_t bytes, unsigned priority,
               const timespec* until) {
  int result = 0;
  if (try_it(
          [&] {
            return result = real().mq_timedsend(queue, message, bytes, priority, &no_waiting);
          },
          {ETIMEDOUT}))
    return result;
  owned_text copy = detail::copy_of(message, bytes);
  if (copy == nullptr) return out_of_memory();
  return on_thread(what, interruptible::unless_restarted,
                   [queue, c = std::move(copy), bytes, priority, limit = copy_of(until)] {
                     return real().mq_timedsend(queue, c.get(), bytes, priority, pointer_to(limit));
                   });
}

ssize_t receive_posix(symbol what, mqd_t queue, char* message, std::size_t bytes,
                      unsigned* priority, const timespec* until) {
  ssize_t result = 0;
  if (try_it(
          [&] {
            return result = real().mq_timedreceive(queue, message, bytes, priority, &no_waiting);
          },
          {ETIMEDOUT}))
    return result;
  struct answer {
    ssize_t size;
    unsigned priority;
    owned_text bytes;
  };
  owned_text room(static_cast<char*>(std::malloc(bytes)));
  if (room == nullptr) return out_of_memory();
  answer a = on_thread(what, interruptible::unless_restarted,
                       [queue, r = std::move(room), bytes, limit = copy_of(until)]() mutable {
                         answer got{0, 0, nullptr};
                         got.size = real().mq_timedreceive(queue, r.get(), bytes, &got.priority,
                                                           pointer_to(limit));
                         got.bytes = std::move(r);
                         return got;
                       });
  if (a.size < 0) return a.size;
  std::memcpy(message, a.bytes.get(), static_cast<std::size_t>(a.size));
  if (priority != nullptr) *priority = a.priority;
  return a.size;
}

}  // namespace

namespace calls {

int flock(int fd, int operation) {
  int result = 0;
  if (try_it([&] { return result = real().flock(fd, operation | LOCK_NB); }, {EWOULDBLOCK}))
    return result;
  return on_thread(symbol::flock, interruptible::unless_restarted,
                   [=] { return real().flock(fd, operation); });
}

int lockf(int fd, int command, off_t bytes) {
  int result = 0;
  if (try_it([&] { return result = real().lockf(fd, F_TLOCK, bytes); }, {EACCES, EAGAIN}))
    return result;
  return on_thread(symbol::lockf, interruptible::unless_restarted,
                   [=] { return real().lockf(fd, command, bytes); });
}

int msgsnd(int queue, const void* message, std::size_t bytes, int flags) {
  int result = 0;
  if (try_it([&] { return result = real().msgsnd(queue, message, bytes, flags | IPC_NOWAIT); },
             {EAGAIN}))
    return result;
  owned_text copy = detail::copy_of(message, sizeof(long) + bytes);
  if (copy == nullptr) return out_of_memory();
  return on_thread(symbol::msgsnd, interruptible::always,
                   [queue, c = std::move(copy), bytes, flags] {
                     return real().msgsnd(queue, c.get(), bytes, flags);
                   });
}

ssize_t msgrcv(int queue, void* message, std::size_t bytes, long type, int flags) {
  ssize_t result = 0;
  if (try_it(
          [&] { return result = real().msgrcv(queue, message, bytes, type, flags | IPC_NOWAIT); },
          {ENOMSG}))
    return result;
  struct answer {
    ssize_t size;
    owned_text message;
  };
  owned_text room(static_cast<char*>(std::malloc(sizeof(long) + bytes)));
  if (room == nullptr) return out_of_memory();
  answer a = on_thread(symbol::msgrcv, interruptible::always,
                       [queue, r = std::move(room), bytes, type, flags]() mutable {
                         answer got{0, nullptr};
                         got.size = real().msgrcv(queue, r.get(), bytes, type, flags);
                         got.message = std::move(r);
                         return got;
                       });
  if (a.size >= 0)
    std::memcpy(message, a.message.get(), sizeof(long) + static_cast<std::size_t>(a.size));
  return a.size;
}

int semop(int set, sembuf* operations, std::size_t count) {
  return operate(symbol::semop, set, operations, count, nullptr);
}
int semtimedop(int set, sembuf* operations, std::size_t count, const timespec* timeout) {
  return operate(symbol::semtimedop, set, operations, count, timeout);
}

int mq_send(mqd_t queue, const char* message, std::size_t bytes, unsigned priority) {
  return send_posix(symbol::mq_send, queue, message, bytes, priority, nullptr);
}
int mq_timedsend(mqd_t queue, const char* message, std::size_t bytes, unsigned priority,
                 const timespec* until) {
  return send_posix(symbol::mq_timedsend, queue, message, bytes, priority, until);
}
ssize_t mq_receive(mqd_t queue, char* message, std::size_t bytes, unsigned* priority) {
  return receive_posix(symbol::mq_receive, queue, message, bytes, priority, nullptr);
}
ssize_t mq_timedreceive(mqd_t queue, char* message, std::size_t bytes, unsigned* priority,
                        const timespec* until) {
  return receive_posix(symbol::mq_timedreceive, queue, message, bytes, priority, until);
}

}  // namespace calls
}  // namespace tendril::detail
