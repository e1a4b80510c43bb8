// SPDX-License-Identifier: Apache-2.0
//
// What the rest of src/io needs of a worker's poller: registering descriptors, the libuv loop for
// requests (pool work, resolving, signals), and a mailbox for what only the owner may do to it.
//
//           io_loop            the contract, the mailbox, the uv_loop_t
//          /       \.
//   native_loop   portable_loop      one edge-triggered set; uv_poll_t kept armed
//
// Who may call what: uv() and poll() the owner, that is, the worker in its scheduler context, or a fiber
// on it in the scope of a worker_use or an owner_use (a blocked fiber's worker, and its loop, go over to
// another thread). post(), wake(), pending: any thread. attach, arm, detach: any thread that holds the
// descriptor's lock, but attach() only the owner.
#pragma once

#include <uv.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>

#include <tendril/detail/waiting.hpp>

#include "io/descriptor.hpp"
#include "sched/poller.hpp"
#include "sched/worker_thread.hpp"

namespace tendril::detail {

/// Something the owner of a loop is to do. The poster keeps the memory until run() is called.
struct loop_task {
  loop_task* next = nullptr;
  void (*run)(loop_task&) noexcept = nullptr;
};

/// What owns handles in a loop and must close them when the loop ends first. Owner only.
struct loop_client {
  loop_client* next = nullptr;
  loop_client* prev = nullptr;
  void (*loop_ends)(loop_client&) noexcept = nullptr;
};

class io_loop : public poller {
 public:
  io_loop();
  ~io_loop() override;
  io_loop(const io_loop&) = delete;
  io_loop& operator=(const io_loop&) = delete;

  /// The loop of the worker that runs the calling fiber, in the scope of a worker_use.
  static io_loop& here() noexcept { return static_cast<io_loop&>(this_poller()); }

  /// The loop, about to be given a request or handle: libuv takes note of new descriptors only inside
  /// uv_run, so the next poll() must run it.
  uv_loop_t* uv() noexcept {
    touched_ = true;
    return &uv_;
  }
  /// Requests and handles that keep the loop busy; owner only.
  void add_request() noexcept { change(requests_, 1), add_pending(); }
  void remove_request() noexcept {
    change(requests_, static_cast<std::size_t>(-1)), remove_pending();
  }

  void add_client(loop_client& c) noexcept;
  void remove_client(loop_client& c) noexcept;

  /// Has task run by the owner. Any thread.
  void post(loop_task& task) noexcept;
  /// Tells whether the caller is the loop's owner, and sees to it that it stays so for the scope.
  class owner_use {
   public:
    explicit owner_use(const io_loop& loop) noexcept
        : is_owner_(use_.events() == &loop ||
                    loop.ender_.load(std::memory_order_relaxed) == thread_id()) {}
    explicit operator bool() const noexcept { return is_owner_; }

   private:
    worker_use use_;
    bool is_owner_;
  };

  /// Owner only, each on the loop where it happens: a wait may begin on one and end on another, so a
  /// single loop's difference means nothing, and their sum is right. No locked operation.
  void add_pending() noexcept { change(pending_, 1); }
  void remove_pending() noexcept { change(pending_, static_cast<std::size_t>(-1)); }
  std::size_t pending() const noexcept final { return pending_.load(std::memory_order_relaxed); }

  bool has_sources() const noexcept override { return touched_ || in_demand(); }
  bool in_demand() const noexcept final {
    return requests_.load(std::memory_order_relaxed) != 0 ||
           registered_.load(std::memory_order_relaxed) != 0 ||
           posted_.load(std::memory_order_relaxed);
  }

  /// Registers d here. 0 or an errno.
  virtual int attach(descriptor& d) noexcept = 0;
  /// d is about to be waited for in this direction.
  virtual void arm(descriptor& d, direction) noexcept = 0;
  /// Whether a registration may be taken away by another thread, to be made again elsewhere.
  virtual bool can_move() const noexcept = 0;
  virtual void forget(descriptor& d) noexcept = 0;
  /// The end of d's registration, when nobody uses it any more. Returns the number that is now the
  /// caller's, to close or (keep) to hand out; -1 when the loop will close it.
  virtual int detach(descriptor& d, bool keep) noexcept = 0;

 protected:
  /// Runs what was posted. True when there was something.
  bool run_posted() noexcept;
  /// Before the derived class goes: no descriptor knows this loop afterwards, no request is left.
  void shut_down() noexcept;
  static const void* thread_id() noexcept;

  /// Of a counter that one thread writes.
  static void change(std::atomic<std::size_t>& counter, std::size_t by) noexcept {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }

  uv_loop_t uv_{};
  bool touched_ = true;  // the loop's own handles want a first run
  std::atomic<std::size_t> requests_{0};
  std::atomic<std::size_t> registered_{0};

 private:
  std::atomic<const void*> ender_{nullptr};  ///< the thread that ends the loop
  std::atomic<std::size_t> pending_{0};
  tiny_lock mailbox_lock_;
  loop_client* clients_ = nullptr;
  loop_task* first_ = nullptr;
  loop_task* last_ = nullptr;
  std::atomic<bool> posted_{false};
};

std::unique_ptr<poller> make_native_poller();
std::unique_ptr<poller> make_portable_poller();

/// Throws what libuv failed with.
[[noreturn]] void throw_uv(int status, const char* operation);
std::error_code uv_error(int status) noexcept;

}  // namespace tendril::detail
