// SPDX-License-Identifier: Apache-2.0
//
// One operation on a descriptor: the system call first, waiting only when it would block.
//
// The calls themselves are out of line and return the error as a value: errno belongs to the thread,
// compilers keep its address across calls, and after a wait the thread may be another.
#pragma once

#include <cerrno>
#include <cstddef>
#include <string>
#include <system_error>
#include <type_traits>

#include <tendril/fiber.hpp>

#include "io/descriptor.hpp"
#include "sched/worker_thread.hpp"

struct sockaddr;
struct iovec;

namespace tendril::detail {

/// What a system call came to: a count, or an errno negated.
struct attempt {
  long value;
  bool partial = false;  ///< moved less than asked for: on a stream, there was no more
};

// Non-blocking, whatever the descriptor's flags (but accept and connect: non-blocking descriptors).
// Never EINTR; never SIGPIPE.
attempt sys_receive(int fd, void* to, std::size_t bytes) noexcept;
attempt sys_send(int fd, const void* from, std::size_t bytes) noexcept;
attempt sys_send_vector(int fd, const iovec* parts, std::size_t count) noexcept;
attempt sys_receive_from(int fd, void* to, std::size_t bytes, sockaddr* from,
                         unsigned* length) noexcept;
attempt sys_send_to(int fd, const void* from, std::size_t bytes, const sockaddr* to,
                    unsigned length) noexcept;
attempt sys_accept(int fd, sockaddr* peer, unsigned* length) noexcept;
/// 0, or -EINPROGRESS, or another error.
long sys_connect(int fd, const sockaddr* peer, unsigned length) noexcept;
/// The outcome of a connect in progress: 0, -EAGAIN or the error.
long sys_connected(int fd) noexcept;
/// Which of `events` poll(2) reports, or an errno negated. No waiting.
long sys_poll(int fd, short events) noexcept;
long sys_read(int fd, void* to, std::size_t bytes) noexcept;
long sys_write(int fd, const void* from, std::size_t bytes) noexcept;

class operation {
 public:
  operation(descriptor_ref ref, direction d, const char* reason, std::error_code& ec) noexcept
      : use_(ref), way_(d), reason_(reason), ec_(ec) {
    ec_.clear();
    if (!use_) {
      ec_ = std::make_error_code(std::errc::bad_file_descriptor);
    } else {
      fiber_ = can_park();
      // An always ready connection never waits, and waits are where a stop request is noticed.
      if (fiber_ && use_->share_is_ending() && this_fiber::stop_requested())
        ec_ = std::make_error_code(std::errc::operation_canceled);
    }
  }
  ~operation() {
    if (!use_) return;
    bool yield = false;
    if (waited_) use_->restart_share();
    else if (fiber_) yield = use_->used_up_share();
    use_.leave();
    if (yield) this_fiber::yield();
  }
  operation(const operation&) = delete;
  operation& operator=(const operation&) = delete;

  /// False: ec tells why.
  bool ok() const noexcept { return !ec_; }
  descriptor& entry() const noexcept { return *use_; }
  std::uint32_t generation() const noexcept { return use_.generation(); }
  int fd() const noexcept { return use_->fd(); }
  bool on_fiber() const noexcept { return fiber_; }  ///< that can park
  time_point deadline() noexcept { return use_->deadline_of(way_, begun_); }

  /// Repeats call() until it says something else than EAGAIN. A negative result: ec tells why.
  ///
  /// \switch yes, when it has to wait
  template <class Call>
  long run(Call&& call) {
    bool holds_token = false;
    for (bool retried = false;; retried = true) {
      // Sends mostly succeed, so the first one is made without a token: it can only find out more than
      // a token would say, and takes nothing away from others.
      const bool unguarded = !fiber_ || (way_ == direction::write && !pressed_);
      if (unguarded || holds_token || use_->take_token(way_)) {
        const attempt a = call();
        if (a.value != -EAGAIN) {
          // See descriptor.hpp, 3 and 4: who drained it keeps the token.
          if (!unguarded && !(a.partial && use_->may_have_drained())) use_->give_token(way_);
          if (a.value < 0)
            ec_ = std::error_code(static_cast<int>(-a.value), std::system_category());
          return a.value;
        }
        if (unguarded && fiber_) {
          pressed_ = true;
          continue;
        }
      }
      const time_point deadline = use_->deadline_of(way_, begun_);
      ec_ = fiber_
                ? use_->wait(generation(), way_, {.deadline = deadline, .reason = reason_}, retried)
                : use_->block(generation(), way_, deadline);
      if (ec_) return -1;
      holds_token = fiber_;
      waited_ = true;
    }
  }

 private:
  descriptor_use use_;
  direction way_;
  bool fiber_ = false;
  bool waited_ = false;
  bool pressed_ = false;  ///< a send would have blocked
  const char* reason_;
  time_point begun_{};
  std::error_code& ec_;
};

/// Throws system_error: "read_some on 192.0.2.1:80: Connection reset by peer".
[[noreturn]] void throw_on_socket(std::error_code ec, const char* operation, descriptor_ref ref);
inline void require_on_socket(std::error_code ec, const char* operation, descriptor_ref ref) {
  if (ec) [[unlikely]]
    throw_on_socket(ec, operation, ref);
}

/// The throwing form of an operation on a socket: calls f(std::error_code&), returns what it returns.
template <class F>
auto or_throw(const char* operation, const descriptor_ref& ref, F&& f) {
  std::error_code ec;
  if constexpr (std::is_void_v<decltype(f(ec))>) {
    f(ec);
    require_on_socket(ec, operation, ref);
  } else {
    auto result = f(ec);
    require_on_socket(ec, operation, ref);
    return result;
  }
}

}  // namespace tendril::detail
