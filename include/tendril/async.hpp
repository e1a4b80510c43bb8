// SPDX-License-Identifier: Apache-2.0
//
// async(f) runs f on a fiber and gives the future of its result. Callable, arguments and result share
// one block, the future's state.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/closure.hpp>
#include <tendril/fiber.hpp>
#include <tendril/future.hpp>

#include <exception>
#include <functional>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

namespace tendril {
namespace detail {

template <class R, class F, class Tuple>
class async_state final : public fiber_future_state<R> {
 public:
  template <class G, class U>
  async_state(G&& g, U&& u) : call_(std::in_place, std::forward<G>(g), std::forward<U>(u)) {}

  /// On its fiber.
  void run() noexcept {
    try {
      // On the fiber's stack, as captures are locals there; the block then holds the result alone.
      std::pair<F, Tuple> local(std::move(*call_));
      call_.reset();
      const auto invoke = [&local]() -> R {
        return std::apply(
            [&local](auto&&... a) -> R {
              return std::invoke(std::move(local.first), std::move(a)...);
            },
            std::move(local.second));
      };
      if constexpr (std::is_void_v<R>) {
        invoke();
        this->result.emplace();
      } else {
        this->result.emplace(invoke());
      }
    } catch (...) {
      this->result.fail(std::current_exception());
    }
    this->publish();
    this->release_producer();
  }
  /// Its fiber will not run.
  void never_run() noexcept {
    this->result.fail(broken_promise_error());
    this->publish();
    this->release_producer();
  }

 private:
  void destroy() noexcept override { delete this; }

  std::optional<std::pair<F, Tuple>> call_;
};

/// The fiber's body: one pointer. Destroyed without having run, it breaks the promise.
template <class State>
class async_body {
 public:
  explicit async_body(State* s) noexcept : state_(s) {}
  async_body(async_body&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  async_body& operator=(async_body&&) = delete;
  ~async_body() {
    if (state_ != nullptr) state_->never_run();
  }
  void operator()() noexcept { std::exchange(state_, nullptr)->run(); }

 private:
  State* state_;
};

template <class R, class F, class... Args>
future<R> start_async(const fiber_options* options, F&& f, Args&&... args) {
  using tuple = std::tuple<std::decay_t<Args>...>;
  using state = async_state<R, std::decay_t<F>, tuple>;
  auto* const s = new state(std::forward<F>(f), tuple(std::forward<Args>(args)...));
  future<R> result = future_access::make<R>(s);
  fiber_core* const core = make_fiber_core(async_body<state>(s));
  if (options != nullptr) {
    try {
      apply_options(core, *options);
    } catch (...) {
      free_unstarted_core(core);
      throw;
    }
  }
  s->fiber = core;
  start_detached(core, nullptr);
  return result;
}

template <class F, class... Args>
using async_result = std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>;

}  // namespace detail

/// Starts f(args...) as a fiber of the current runtime; what it returns or throws is the future's.
/// Callable and arguments are decayed, as std::async's. Unlike it, the future's destructor neither waits
/// nor stops the fiber; future::request_stop and cancel do the latter.
///
/// \throws std::system_error  errc::no_runtime, errc::runtime_stopping; std::bad_alloc
/// \switch no
/// \cost   one allocation besides the fiber
template <class F, class... Args>
requires(!std::is_same_v<std::remove_cvref_t<F>, fiber_options>) auto async(F&& f, Args&&... args)
    -> future<detail::async_result<F, Args...>> {
  return detail::start_async<detail::async_result<F, Args...>>(nullptr, std::forward<F>(f),
                                                               std::forward<Args>(args)...);
}
template <class F, class... Args>
auto async(const fiber_options& options, F&& f, Args&&... args)
    -> future<detail::async_result<F, Args...>> {
  return detail::start_async<detail::async_result<F, Args...>>(&options, std::forward<F>(f),
                                                               std::forward<Args>(args)...);
}

}  // namespace tendril
