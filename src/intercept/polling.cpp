// SPDX-License-Identifier: Apache-2.0
//
// Waiting for several descriptors: a node in the list of each (descriptor, direction) that is asked for.
//
//   look:    poll(2) without waiting; it answers, checks the arguments, and finds out what no event tells
//   enlist:  a node in each list; tokens that lie there are taken: what they promise may have come after the
//            look, so where there were any, look again
//   park:    until a node is completed (with a token), or time is over
//   collect: the tokens of nodes that are completed by now
//   look:    again, and put down the collected tokens of what is ready: whoever reads next wants them
//
// Only what was collected before the look may be dropped after it: a token that came in between is news.
//
// A token that turns out to promise nothing is dropped, as after a read that found nothing: the direction is
// drained. That is so if what was asked for is all that the token is about (POLLIN, POLLOUT). Who waits for POLLPRI
// or for hangups alone could neither drop it nor pass it on (two of them would pass it to each other
// for ever), and watches the file by a duplicate of its own, whose tokens are nobody else's.
//
// The nodes are on the heap: a fiber's stack may be copied away while it is parked. Nobody is inside a
// descriptor while parked, so close() need not wait for us: it completes the nodes, and the next look says
// POLLNVAL.
#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <new>

#include "intercept/calls.hpp"
#include "intercept/cancel.hpp"
#include "intercept/file_facts.hpp"
#include "intercept/install.hpp"
#include "intercept/interruptions.hpp"
#include "intercept/polling.hpp"
#include "io/io_loop.hpp"
#include "sched/thread_stay.hpp"

namespace tendril::detail {
namespace {

constexpr short read_events = POLLIN | POLLRDNORM | POLLRDBAND | POLLPRI | POLLRDHUP;
constexpr short write_events = POLLOUT | POLLWRNORM | POLLWRBAND;
/// All that a token of the direction is about.
constexpr short token_events(direction d) noexcept {
  return d == direction::read ? POLLIN | POLLRDNORM : POLLOUT | POLLWRNORM;
}

struct watched {
  wait_node node;
  descriptor* entry = nullptr;
  std::uint32_t generation = 0;
  std::uint32_t place = 0;  ///< in the set
  direction way = direction::read;
  int duplicate = -1;  ///< to be closed
  bool holds_token = false;
  bool listed = false;
};

/// Says that somebody waits for descriptors, so that nobody calls this a deadlock.
class pending_io {
 public:
  pending_io() {
    const worker_use here{worker_use::may_move{}};
    io_loop::here().add_pending();
  }
  ~pending_io() {
    const worker_use here{worker_use::may_move{}};
    io_loop::here().remove_pending();
  }
  pending_io(const pending_io&) = delete;
  pending_io& operator=(const pending_io&) = delete;
};

class watch_list {
 public:
  watch_list(pollfd* set, nfds_t count) noexcept : set_(set), count_(count) {}
  ~watch_list() {
    for (std::size_t i = 0; i != size_; ++i) end(nodes_[i]);
    delete[] nodes_;
  }
  watch_list(const watch_list&) = delete;
  watch_list& operator=(const watch_list&) = delete;

  /// 0 or an errno.
  int fill() noexcept {
    std::size_t wanted = 0;
    for (nfds_t i = 0; i != count_; ++i)
      if (set_[i].fd >= 0) wanted += ways(set_[i].events);
    if (wanted == 0) return 0;
    nodes_ = new (std::nothrow) watched[wanted];
    if (nodes_ == nullptr) return ENOMEM;
    waiter* const self = current_waiter();
    for (nfds_t i = 0; i != count_; ++i) {
      if (set_[i].fd < 0) continue;
      file_use use;
      if (const int error = look_at_file(set_[i].fd, use); error != 0) return error;
      const bool writes = (set_[i].events & write_events) != 0;
      int error = 0;
      if (!writes || (set_[i].events & read_events) != 0)
        error = add(self, use, i, direction::read);
      if (error == 0 && writes) error = add(self, use, i, direction::write);
      if (error != 0) return error;
    }
    return 0;
  }

  /// Every node into its list that is in none. `again`: look again before parking. 0 or an errno.
  int enlist(bool& again) noexcept {
    again = false;
    for (std::size_t i = 0; i != size_; ++i) {
      watched& w = nodes_[i];
      if (w.listed) continue;
      w.node.result.store(outcome::waiting, std::memory_order_relaxed);
      bool token = false;
      const int error = w.entry->enlist(w.generation, w.way, w.node, token);
      if (error == EBADF) {
        again = true;  // closed just now: the look will say so
        return 0;
      }
      if (error != 0) return error;
      w.listed = true;
      w.holds_token = token;
      again = again || token;
    }
    return 0;
  }

  /// Before a look: nodes that were completed are out of their lists, and their tokens ours.
  void collect() noexcept {
    for (std::size_t i = 0; i != size_; ++i) {
      watched& w = nodes_[i];
      if (!w.listed || !is_complete(w)) continue;
      w.listed = false;
      if (w.node.result.load(std::memory_order_relaxed) == outcome::signalled) w.holds_token = true;
    }
  }

  /// After the look: what was collected is put down, or dropped.
  void put_down() noexcept {
    for (std::size_t i = 0; i != size_; ++i) put_down(nodes_[i]);
  }

  outcome park(time_point deadline, const char* reason,
               const std::atomic<std::uint64_t>* interruption) {
    const pending_io counted;
    return wait_until_done(
        [](const void* list) noexcept { return static_cast<const watch_list*>(list)->any(); }, this,
        foreign_wait(deadline, reason, interruption));
  }

 private:
  static std::size_t ways(short events) noexcept {
    const bool writes = (events & write_events) != 0;
    return writes && (events & read_events) != 0 ? 2 : 1;
  }
  static bool is_complete(const watched& w) noexcept {
    return w.node.result.load(std::memory_order_acquire) != outcome::waiting;
  }
  int add(waiter* self, const file_use& use, nfds_t place, direction way) noexcept {
    watched& w = nodes_[size_];
    w.node.who = self;
    w.entry = use.entry;
    w.generation = use.generation;
    w.place = static_cast<std::uint32_t>(place);
    w.way = way;
    if ((set_[place].events & token_events(way)) == 0)
      if (const int error = watch_duplicate(w, set_[place].fd); error != 0) return error;
    ++size_;
    return 0;
  }
  [[gnu::noinline]] static int watch_duplicate(watched& w, int fd) noexcept {
    const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) return errno;
    try {
      const descriptor_ref ref = adopt_descriptor(copy, descriptor_kind::other);
      w.duplicate = copy;
      w.entry = find_descriptor(copy);
      w.generation = ref.generation;
      return 0;
    } catch (...) {
      real().close(copy);
      return ENOMEM;
    }
  }
  bool any() const noexcept {
    for (std::size_t i = 0; i != size_; ++i)
      if (nodes_[i].listed && is_complete(nodes_[i])) return true;
    return false;
  }
  void put_down(watched& w) noexcept {
    if (!w.holds_token) return;
    w.holds_token = false;
    if (set_[w.place].revents != 0) w.entry->give_token(w.way);
  }
  void end(watched& w) noexcept {
    if (w.listed && w.entry->delist(w.way, w.node) &&
        w.node.result.load(std::memory_order_relaxed) == outcome::signalled)
      w.holds_token = true;
    w.listed = false;
    // What came after the last look: whether it promises anything is for others to find out.
    if (w.holds_token) w.entry->give_token(w.way);
    w.holds_token = false;
    if (w.duplicate < 0) return;
    // Released, not closed: the open file lives on, and so would what watches it.
    if (const int number = release_descriptor({w.duplicate, w.generation}); number >= 0)
      real().close(number);
  }

  pollfd* set_;
  nfds_t count_;
  watched* nodes_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace

long wait_for_any(pollfd* set, nfds_t count, time_point deadline, const char* reason, looker& look,
                  std::optional<interruptible> breaks) {
  if (const long n = look(0); n != 0) return n;
  bool watchable = !in_other_process();
  if (watchable) {
    const thread_stay stay;  // as in transfer.hpp
    std::optional<interruptible_call> call;
    if (breaks) call.emplace(*breaks);
    watch_list list(set, count);
    watchable = list.fill() == 0;
    while (watchable) {
      bool again = false;
      watchable = list.enlist(again) == 0;
      if (!watchable) break;
      const time_point end = look.limit(deadline);
      const outcome woken =
          again ? outcome::signalled : list.park(end, reason, call ? call->call() : nullptr);
      if (const int error = errno_of(woken); error != 0) return -error;
      const bool over = woken == outcome::timed_out && end == deadline;
      list.collect();
      const long n = look(0);
      list.put_down();
      if (n != 0 || over) return n;
    }
  }
  // Descriptors that cannot be watched, or no memory to do so: the thread blocks.
  for (;;) {
    const long n = look(milliseconds_until(look.limit(deadline)));
    if (n != 0 || (deadline != no_deadline && clock::now() >= deadline)) return n;
  }
}

int milliseconds_until(time_point deadline) noexcept {
  if (deadline == no_deadline) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, INT_MAX));
}

namespace {

class poll_looker final : public looker {
 public:
  poll_looker(pollfd* set, nfds_t count, const sigset_t* mask) noexcept
      : looker(mask), set_(set), count_(count) {}

 private:
  [[gnu::noinline]] long once(int timeout) noexcept override {
    int n;
    if (mask() == nullptr) {
      n = real().poll(set_, count_, timeout);
    } else {
      const timespec limit{timeout / 1000, timeout % 1000 * 1'000'000L};
      n = real().ppoll(set_, count_, timeout < 0 ? nullptr : &limit, mask());
    }
    return n >= 0 ? n : -errno;
  }

  pollfd* set_;
  nfds_t count_;
};

}  // namespace

long wait_for_one(int fd, short events, time_point deadline, const char* reason,
                  std::optional<interruptible> breaks) {
  pollfd one{fd, events, 0};
  poll_looker look(&one, 1, nullptr);
  const long n = wait_for_any(&one, 1, deadline, reason, look, breaks);
  return n > 0 ? one.revents : n;
}

namespace calls {

int poll(pollfd* set, nfds_t count, int timeout) {
  const int before = errno_now();
  const time_point deadline =
      timeout < 0 ? no_deadline : deadline_after(std::chrono::milliseconds(timeout));
  poll_looker look(set, count, nullptr);
  return static_cast<int>(finish(wait_for_any(set, count, deadline, "poll", look), before));
}

int ppoll(pollfd* set, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  const int before = errno_now();
  time_point deadline = no_deadline;
  if (timeout != nullptr && !deadline_of(*timeout, deadline))
    return real().ppoll(set, count, timeout, mask);  // EINVAL
  poll_looker look(set, count, mask);
  return static_cast<int>(finish(wait_for_any(set, count, deadline, "ppoll", look), before));
}

}  // namespace calls
}  // namespace tendril::detail
