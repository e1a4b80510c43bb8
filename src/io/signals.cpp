// SPDX-License-Identifier: Apache-2.0
//
// Signals as something to wait for, by libuv's uv_signal_t on the loop of the constructing fiber's worker.
//
// The state is shared by the set and, while its handles are open, by the loop. The handles are the
// owner's: the destructor closes them if it happens to run there, else posts their closing. Should the
// loop end first, it closes them and forgets itself (under the lock, where the destructor looks).
#include <array>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include <tendril/error.hpp>
#include <tendril/fiber.hpp>
#include <tendril/io.hpp>

#include "io/io_loop.hpp"

namespace tendril {

using namespace detail;

struct signal_set::state : loop_client, loop_task {
  struct watched {
    uv_signal_t handle{};
    int number = 0;
    bool arrived = false;  // under the lock
  };

  explicit state(std::initializer_list<int> signals) : watched_(signals.size()) {
    std::size_t i = 0;
    for (const int number : signals) watched_[i++].number = number;
  }

  /// On the owner. 0 or libuv's error; then the handles are on their way to being closed.
  int open(const std::shared_ptr<state>& self, int& culprit) noexcept {
    io_loop& loop = io_loop::here();
    for (watched& w : watched_) {
      culprit = w.number;
      if (const int status = uv_signal_init(loop.uv(), &w.handle); status != 0) return fail(status);
      w.handle.data = this;
      ++open_;
      if (self_ == nullptr) {
        self_ = self;
        loop_ = &loop;
        loop_client::loop_ends = [](loop_client& c) noexcept {
          static_cast<state&>(c).end_of_loop();
        };
        loop.add_client(*this);
        loop.add_request();
      }
      const int status = uv_signal_start(
          &w.handle, [](uv_signal_t* h, int) { static_cast<state*>(h->data)->arrive(*h); },
          w.number);
      if (status != 0) return fail(status);
    }
    return 0;
  }

  void abandon() noexcept {
    std::unique_lock hold(lock_);
    if (loop_ == nullptr) return;
    if (const io_loop::owner_use owner(*loop_); owner) {
      io_loop& loop = *loop_;
      loop_ = nullptr;
      hold.unlock();
      loop.remove_client(*this);
      close_handles(loop);
      return;
    }
    loop_task::run = [](loop_task& t) noexcept {
      auto& self = static_cast<state&>(t);
      io_loop* loop;
      {
        std::lock_guard again(self.lock_);
        loop = std::exchange(self.loop_, nullptr);
      }
      if (loop == nullptr) return;
      loop->remove_client(self);
      self.close_handles(*loop);
    };
    loop_->post(*this);
  }

  int wait(std::error_code& ec, time_point deadline) {
    ec.clear();
    waiter* const self = current_waiter();
    for (;;) {
      lock_.lock();
      for (watched& w : watched_) {
        if (!w.arrived) continue;
        w.arrived = false;
        lock_.unlock();
        return w.number;
      }
      if (loop_ == nullptr) {
        lock_.unlock();
        ec = make_error_code(errc::no_runtime);
        return 0;
      }
      wait_node& node = own_node(self);
      waiters_.push_back(node);
      const outcome result =
          wait_locked(lock_, waiters_, node, {.deadline = deadline, .reason = "signal_set::wait"});
      if (result == outcome::signalled || result == outcome::closed) continue;
      ec = to_error(result);
      return 0;
    }
  }

 private:
  int fail(int status) noexcept {
    abandon();
    return status;
  }

  void arrive(uv_signal_t& handle) noexcept {
    waiter* who = nullptr;
    {
      std::lock_guard hold(lock_);
      for (watched& w : watched_)
        if (&w.handle == &handle) w.arrived = true;
      if (wait_node* node = waiters_.pop_front()) who = complete(*node);
    }
    if (who != nullptr) unpark(who);
  }

  void close_handles(io_loop& loop) noexcept {
    loop.uv();
    loop.remove_request();
    for (std::size_t i = 0, n = open_; i < n; ++i)
      uv_close(reinterpret_cast<uv_handle_t*>(&watched_[i].handle), [](uv_handle_t* h) {
        auto& self = *static_cast<state*>(h->data);
        if (--self.open_ == 0) self.self_.reset();  // may free it
      });
  }

  void end_of_loop() noexcept {
    io_loop* loop;
    {
      std::lock_guard hold(lock_);
      loop = std::exchange(loop_, nullptr);
    }
    close_handles(*loop);
    // Threads may wait, too; they learn that nothing will come any more.
    for (;;) {
      waiter* who;
      {
        std::lock_guard hold(lock_);
        wait_node* node = waiters_.pop_front();
        if (node == nullptr) return;
        who = complete(*node, outcome::closed);
      }
      unpark(who);
    }
  }

  std::vector<watched> watched_;  // never resized: libuv keeps the addresses
  std::shared_ptr<state> self_;   // while handles are open
  std::size_t open_ = 0;          // the owner's
  tiny_lock lock_;
  wait_list waiters_;
  io_loop* loop_ = nullptr;  // under the lock
};

signal_set::signal_set(std::initializer_list<int> signals) {
  if (!this_fiber::is_fiber())
    throw std::system_error(make_error_code(errc::no_runtime), "signal_set outside a fiber");
  state_ = std::make_shared<state>(signals);
  int culprit = 0;
  int status;
  {
    const worker_use here{worker_use::may_move{}};
    if (here.get() == nullptr)
      throw std::system_error(make_error_code(errc::no_runtime),
                              "signal_set inside a native call that has blocked before");
    status = state_->open(state_, culprit);
  }
  if (status != 0)
    throw std::system_error(uv_error(status), "signal_set: signal " + std::to_string(culprit));
}

signal_set::~signal_set() {
  if (state_) state_->abandon();
}

int signal_set::wait(std::error_code& ec, std::chrono::steady_clock::time_point deadline) {
  return state_->wait(ec, deadline);
}

int signal_set::wait() {
  std::error_code ec;
  const int number = wait(ec);
  if (ec) throw std::system_error(ec, "signal_set::wait");
  return number;
}

}  // namespace tendril
