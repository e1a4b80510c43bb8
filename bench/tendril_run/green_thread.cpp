// SPDX-License-Identifier: Apache-2.0
#include "bench/tendril_run/green_thread.hpp"

#include "bench/tendril_run/program_locals.hpp"
#include "intercept/install.hpp"
#include "sched/fiber_core.hpp"
#include "sched/thread_stay.hpp"
#include "sched/worker_thread.hpp"

#include <tendril/fiber.hpp>
#include <tendril/fiber_local.hpp>
#include <tendril/runtime.hpp>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

namespace bench::tendril_run {
namespace {

/// Real handles are addresses, and even.
constexpr std::uintptr_t mark = 1;

std::atomic<bool> child{false};
std::atomic<int> alive{0};
std::atomic<bool> main_ended{false};

struct key {
  std::atomic<void (*)(void*)> destroy{nullptr};
};
std::array<key, PTHREAD_KEYS_MAX> keys;

tendril::fiber_local<green_thread*>* current_green = nullptr;
bool copies = false;

/// Never destroyed: fibers may run until the process is gone.
tendril::runtime& runtime() {
  static tendril::runtime* const made = [] {
    ::pthread_atfork(nullptr, nullptr, [] { child = true; });
    const char* const mode = std::getenv("TENDRIL_RUN_LOCALS");
    copies = (mode == nullptr || std::strcmp(mode, "shared") != 0) && find_program_locals();
    current_green =
        new tendril::fiber_local<green_thread*>([]() -> green_thread* { return nullptr; });
    tendril::runtime_options o;
    if (const char* const text = std::getenv("TENDRIL_RUN_WORKERS"))
      o.workers = static_cast<unsigned>(std::strtoul(text, nullptr, 10));
    o.deadlock_grace = std::chrono::hours(24 * 365);  // its own threads may wake what waits
    o.on_blocked_worker = [](std::string_view) {};
    auto* const r = new tendril::runtime(o);
    install_hooks();
    return r;
  }();
  return *made;
}

void thread_has_ended() noexcept {
  if (alive.fetch_sub(1) == 1 && main_ended) std::exit(0);
}

}  // namespace

bool in_child() noexcept { return child.load(std::memory_order_relaxed); }

void main_thread_has_ended() noexcept {
  main_ended = true;
  if (alive == 0) std::exit(0);
}

void remember_key(pthread_key_t k, void (*destroy)(void*)) noexcept {
  if (k < keys.size()) keys[k].destroy = destroy;
}

green_thread* green_thread::named(pthread_t handle) noexcept {
  return (handle & mark) != 0 ? reinterpret_cast<green_thread*>(handle & ~mark) : nullptr;
}
pthread_t green_thread::handle() const noexcept {
  return reinterpret_cast<std::uintptr_t>(this) | mark;
}

[[gnu::noinline]] green_thread* green_thread::self() noexcept {
  // The runtime, too, calls libc, in the fiber's name and before the fiber has begun.
  if (current_green == nullptr || in_child() || !tendril::detail::caller_parks()) return nullptr;
  return **current_green;
}

green_thread* green_thread::start(function f, void* argument, std::size_t stack_bytes,
                                  bool detached) {
  tendril::runtime& r = runtime();
  auto* const g = new green_thread;
  g->function_ = f;
  g->argument_ = argument;
  if (detached) g->owners_ = 1;
  if (copies) g->locals = make_program_locals();
  alive.fetch_add(1);
  r.spawn(
      [g,
       stack_bytes] {  // spawn() with options starts on the caller's runtime, and a thread has none
        tendril::fiber_options o;
        o.stack = {tendril::stack_kind::reserved, stack_bytes};
        tendril::spawn(o, [g] { g->run(); });
      });
  return g;
}

void green_thread::run() noexcept {
  **current_green = this;
  const tendril::detail::thread_stay here;
  {
    const auto& slice = tendril::detail::current_fiber()->the_frame()->slice;
    stack_low = slice.low;
    stack_bytes = static_cast<std::size_t>(slice.high - slice.low);
  }
  if (locals != nullptr) enter_program_locals(locals);
  if (setjmp(end_) == 0) result_ = function_(argument_);
  destroy_values();
  // Forgotten first: what follows calls hooks, which would put them back.
  if (locals != nullptr) free_program_locals(std::exchange(locals, nullptr));
  {
    const std::lock_guard hold(mutex_);
    over_ = true;
    is_over_.notify_all();
  }
  **current_green = nullptr;
  release();
  thread_has_ended();
}

/// As libc does: at most four rounds, since destructors may set values.
void green_thread::destroy_values() noexcept {
  for (int round = 0; round != PTHREAD_DESTRUCTOR_ITERATIONS; ++round) {
    bool any = false;
    for (std::size_t k = 0; k != values_.size(); ++k) {
      void (*const destroy)(void*) = keys[k].destroy.load();
      if (values_[k] == nullptr || destroy == nullptr) continue;
      any = true;
      void* const value = values_[k];
      values_[k] = nullptr;
      destroy(value);
    }
    if (!any) return;
  }
}

void* green_thread::value_of(pthread_key_t k) const noexcept {
  return k < values_.size() ? values_[k] : nullptr;
}

int green_thread::set_value(pthread_key_t k, const void* value) noexcept {
  if (k >= keys.size()) return EINVAL;
  if (k >= values_.size()) try {
      values_.resize(k + 1);
    } catch (...) {
      return ENOMEM;
    }
  values_[k] = const_cast<void*>(value);
  return 0;
}

void* green_thread::join() {
  {
    std::unique_lock hold(mutex_);
    is_over_.wait(hold, [this] { return over_; });
  }
  void* const result = result_;
  release();
  return result;
}

bool green_thread::has_ended() noexcept {
  const std::lock_guard hold(mutex_);
  return over_;
}

void green_thread::detach() noexcept { release(); }

void green_thread::release() noexcept {
  bool last;
  {
    const std::lock_guard hold(mutex_);
    last = --owners_ == 0;
  }
  if (last) delete this;
}

void green_thread::exit(void* result) noexcept {
  result_ = result;
  resume_exit();
}

void green_thread::resume_exit() noexcept {
  if (cleanup != nullptr) std::longjmp(*static_cast<std::jmp_buf*>(cleanup), 1);
  std::longjmp(end_, 1);
}

}  // namespace bench::tendril_run
