// SPDX-License-Identifier: Apache-2.0
//
// epoll_wait(2) and its kin: a set is readable when it has an event to tell, so who waits for events waits for that.
// The worker's own set then has the program's as a member.
#include <signal.h>
#include <time.h>

#include <cerrno>
#include <chrono>

#include "intercept/calls.hpp"
#include "intercept/clocks.hpp"
#include "intercept/file_facts.hpp"
#include "intercept/install.hpp"
#include "intercept/polling.hpp"
#include "intercept/transfer.hpp"

struct epoll_event;

namespace tendril::detail {
namespace {

class event_looker final : public looker {
 public:
  event_looker(int set, epoll_event* events, int room, const sigset_t* mask) noexcept
      : looker(mask), set_(set), events_(events), room_(room) {}

 private:
  [[gnu::noinline]] long once(int timeout) noexcept override {
    const int n = real().epoll_pwait(set_, events_, room_, timeout, mask());
    return n >= 0 ? n : -errno;
  }

  int set_;
  epoll_event* events_;
  int room_;
};

long wait_for_events(int set, time_point deadline, const char* reason, looker& look) {
  if (const long n = look(0); n != 0) return n;
  file_use use;
  if (look_at_file(set, use) == 0) {
    for (;;) {
      const time_point end = look.limit(deadline);
      const long n = park_until_done(
          use, direction::read, reason,
          [&](const file_use&) -> attempt {
            const long found = look(0);
            return {found != 0 ? found : -EAGAIN};
          },
          end, interruptible::always);
      if (n == cannot_wait) break;
      if (n != -EAGAIN) return n;
      if (end == deadline) return 0;
    }
  }
  for (;;) {
    const long n = look(milliseconds_until(look.limit(deadline)));
    if (n != 0 || (deadline != no_deadline && clock::now() >= deadline)) return n;
  }
}

}  // namespace

namespace calls {

int epoll_pwait(int set, epoll_event* events, int room, int timeout, const sigset_t* mask) {
  const int before = errno_now();
  const time_point deadline =
      timeout < 0 ? no_deadline : deadline_after(std::chrono::milliseconds(timeout));
  event_looker look(set, events, room, mask);
  return static_cast<int>(finish(wait_for_events(set, deadline, "epoll_wait", look), before));
}

int epoll_wait(int set, epoll_event* events, int room, int timeout) {
  return epoll_pwait(set, events, room, timeout, nullptr);
}

int epoll_pwait2(int set, epoll_event* events, int room, const timespec* timeout,
                 const sigset_t* mask) {
  const int before = errno_now();
  time_point deadline = no_deadline;
  if (timespec length;
      timeout != nullptr && (!fetch_time(length, timeout) || !deadline_of(length, deadline)))
    return real().epoll_pwait2(set, events, room, timeout, mask);  // EFAULT, EINVAL
  event_looker look(set, events, room, mask);
  return static_cast<int>(finish(wait_for_events(set, deadline, "epoll_pwait2", look), before));
}

}  // namespace calls
}  // namespace tendril::detail
