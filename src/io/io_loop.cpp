// SPDX-License-Identifier: Apache-2.0
#include "io/io_loop.hpp"

#include <mutex>
#include <string>
#include <system_error>

#include "base/check.hpp"

namespace tendril::detail {

std::error_code uv_error(int status) noexcept {
  // On Unix libuv's codes are negated errnos, but for its own, which resolving returns.
  return {-status, std::system_category()};
}

void throw_uv(int status, const char* operation) {
  throw std::system_error(uv_error(status), operation);
}

io_loop::io_loop() {
  if (const int status = uv_loop_init(&uv_); status != 0) throw_uv(status, "uv_loop_init");
}

io_loop::~io_loop() {
  const int status = uv_loop_close(&uv_);
  TENDRIL_CHECK(status == 0, "an I/O loop ends without handles");
}

[[gnu::noinline]] const void* io_loop::thread_id() noexcept {
  // Out of line, and the address hidden from the optimizer: a fiber's next call may be made on another
  // thread, and compilers keep a thread_local's address across calls.
  static thread_local char mark;
  const void* id = &mark;
  asm volatile("" : "+r"(id) : : "memory");
  return id;
}

void io_loop::add_client(loop_client& c) noexcept {
  c.prev = nullptr;
  c.next = clients_;
  if (clients_ != nullptr) clients_->prev = &c;
  clients_ = &c;
}

void io_loop::remove_client(loop_client& c) noexcept {
  (c.prev != nullptr ? c.prev->next : clients_) = c.next;
  if (c.next != nullptr) c.next->prev = c.prev;
  c.next = c.prev = nullptr;
}

void io_loop::post(loop_task& task) noexcept {
  task.next = nullptr;
  {
    std::lock_guard hold(mailbox_lock_);
    (last_ != nullptr ? last_->next : first_) = &task;
    last_ = &task;
    posted_.store(true, std::memory_order_relaxed);
  }
  wake();
}

bool io_loop::run_posted() noexcept {
  // Relaxed: whoever posts wakes us afterwards, and then the lock orders.
  if (!posted_.load(std::memory_order_relaxed)) return false;
  loop_task* task;
  {
    std::lock_guard hold(mailbox_lock_);
    task = first_;
    first_ = last_ = nullptr;
    posted_.store(false, std::memory_order_relaxed);
  }
  while (task != nullptr) {
    loop_task* next = task->next;  // run() may free it
    task->run(*task);
    task = next;
  }
  return true;
}

void io_loop::shut_down() noexcept {
  ender_.store(thread_id(), std::memory_order_relaxed);  // the worker's threads have ended
  for_each_descriptor([](descriptor& d, void* loop) { d.abandon(*static_cast<io_loop*>(loop)); },
                      this);
  run_posted();
  while (clients_ != nullptr) {
    loop_client& c = *clients_;
    remove_client(c);
    c.loop_ends(c);
  }
  // Requests whose fibers gave them up free themselves.
  while (uv_run(&uv_, UV_RUN_DEFAULT) != 0 || run_posted()) {
  }
}

std::unique_ptr<poller> make_poller(poller_kind kind) {
  return kind == poller_kind::native ? make_native_poller() : make_portable_poller();
}

}  // namespace tendril::detail
