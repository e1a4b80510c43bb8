// SPDX-License-Identifier: Apache-2.0
//
// thunk(f): the way from code that wants futures into code that runs on fibers.
//
//     auto lookup = tendril::thunk([&](std::string key) { return cache.get(key); });  // may wait
//     tendril::future<entry> e = lookup("x");                          // from anywhere, at once
//
// f begins as a call, on the thread that calls, whatever that is: a fiber's, a plain thread, the thread
// of another event loop. It runs on a fiber of its own, so it may use everything that a fiber may. If it
// never has to wait, the call has been a call: the future is ready and nothing was allocated. At its first
// wait the caller gets a pending future and goes on; f continues on the workers of the runtime.
//
// What is where: f and its arguments are copied (or moved) onto the fiber's stack first of all, and are
// destroyed there before the future gets ready. The result is put into the future that is returned, or,
// once f has waited, into a state on the heap that is made at that moment; so a result is moved once.
//
// How a fiber starts as a call: src/sched/hot_start.hpp.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/future_state.hpp>
#include <tendril/detail/hot_start.hpp>
#include <tendril/fiber.hpp>
#include <tendril/future.hpp>
#include <tendril/runtime.hpp>
#include <tendril/stack.hpp>

#include <concepts>
#include <exception>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

namespace tendril {

namespace detail {

/// Made when the fiber suspends.
template <class R>
class hot_state final : public fiber_future_state<R> {
  void destroy() noexcept override { delete this; }
};

/// The result of a hot fiber as a future's: what its hot_ops do with it.
template <class R>
struct hot_future {
  /// Where the result belongs at this moment; null: there was no memory for it.
  static result_slot<R>* place(hot_sink& sink) noexcept {
    if (sink.result != nullptr) [[likely]]
      return &future_access::own_result(*static_cast<future<R>*>(sink.result));
    return sink.state != nullptr ? &static_cast<hot_state<R>*>(sink.state)->result : nullptr;
  }

  static void suspended(hot_body& body, hot_sink& sink) noexcept {
    auto& f = *static_cast<future<R>*>(std::exchange(sink.result, nullptr));
    auto& here = future_access::own_result(f);
    hot_state<R>* state;
    try {
      state = new hot_state<R>;
    } catch (...) {
      here.reset();
      here.fail(std::current_exception());  // what f returns is dropped
      return;
    }
    state->fiber = body.fiber;
    sink.state = state;
    if (!here.empty()) take_over(here, *state);  // what waits is the end of the fiber's locals
    f = future_access::make<R>(state);
  }

 private:
  static void take_over(result_slot<R>& from, hot_state<R>& to) noexcept {
    try {
      to.result.move_from(from);
    } catch (...) {
      to.result.fail(std::current_exception());
    }
  }
};

/// One call: refers to the caller's callable and arguments.
template <class R, class F, class... Args>
struct hot_invocation final : hot_body {
  hot_invocation(future<R>& to, F&& callable, Args&&... arguments) noexcept
      : hot_body{&ops, &to}, f(std::forward<F>(callable)), args(std::forward<Args>(arguments)...) {}

  /// The parameters are the copies.
  static R invoke(std::decay_t<F> own, std::unwrap_ref_decay_t<Args>... bound) {
    return std::invoke(std::move(own), std::forward<std::unwrap_ref_decay_t<Args>>(bound)...);
  }
  R copy_and_invoke() {
    return std::apply(
        [this](Args&&... a) -> R { return invoke(std::forward<F>(f), std::forward<Args>(a)...); },
        std::move(args));
  }

  static hot_sink run(hot_body& body) noexcept {
    hot_sink& sink = *body.sink;
    try {
      put_result(static_cast<hot_invocation&>(body), sink);
    } catch (...) {
      if (auto* const slot = hot_future<R>::place(sink)) slot->fail(std::current_exception());
    }
    return sink;
  }
  [[gnu::always_inline]] static void put_result(hot_invocation& self, hot_sink& sink) {
    if constexpr (std::is_void_v<R>) {
      self.copy_and_invoke();
      if (auto* const slot = hot_future<R>::place(sink)) slot->emplace();
    } else {
      R&& r =
          self.copy_and_invoke();  // not moved: a reference stays one, a value lives on to the end of the scope
      if (auto* const slot = hot_future<R>::place(sink)) slot->emplace(std::forward<R>(r));
    }
  }

  static constexpr hot_ops ops{&run, &hot_future<R>::suspended};

  F&& f;
  std::tuple<Args&&...> args;
};

struct no_hot_options {
  static bool start(hot_body& body) { return start_hot(body); }
};
struct some_hot_options {
  bool start(hot_body& body) const { return start_hot(body, chosen); }

  hot_options chosen;
};

}  // namespace detail

/// What thunk() returns: calls F as a fiber that starts at once. As copyable as F.
///
/// \threads any number of calls at a time, as each has its copy of F
template <class F, class Options = detail::no_hot_options>
class thunked {
  template <class... Args>
  using result = std::invoke_result_t<F, std::unwrap_ref_decay_t<Args>...>;

 public:
  template <class G>
  requires std::constructible_from<F, G> thunked(Options options, G&& f)
      : f_(std::forward<G>(f)), options_(options) {}

  /// Calls a copy of F with copies of the arguments; std::ref(x) is passed as x itself.
  ///
  /// \return  ready, if F did not wait; what left F as an exception is the future's
  /// \throws  std::system_error  errc::no_runtime: on a plain thread while there is no runtime;
  ///          errc::runtime_stopping: the runtime has ended or is about to; errc::invalid_option: it has no
  ///          worker of the index fiber_options::affinity. std::bad_alloc. F has not run then
  /// \switch  no. The caller goes on, on the same thread, when F waits or ends
  /// \threads any
  /// \cost    when F does not wait: about ten nanoseconds and no allocation, on any thread; when F waits, what a
  ///          spawn costs. A thread's first call of a runtime allocates; in a catch block or of a moved kind
  ///          of stack it costs a little more
  template <class... Args>
  requires(std::copy_constructible<F>&& std::invocable<F, std::unwrap_ref_decay_t<Args>...>)
      future<result<Args...>>
  operator()(Args&&... args) const& {
    future<result<Args...>> to;
    detail::hot_invocation<result<Args...>, const F&, Args...> call(to, f_,
                                                                    std::forward<Args>(args)...);
    options_.start(call);
    return to;
  }
  /// The same with F itself, moved: for callables that cannot be copied.
  template <class... Args>
  requires std::invocable<F, std::unwrap_ref_decay_t<Args>...> future<result<Args...>>
  operator()(Args&&... args) && {
    future<result<Args...>> to;
    detail::hot_invocation<result<Args...>, F, Args...> call(to, std::move(f_),
                                                             std::forward<Args>(args)...);
    options_.start(call);
    return to;
  }

 private:
  F f_;
  [[no_unique_address]] Options options_;
};

/// A callable that runs f as a fiber which starts at once on the caller's thread, and returns the future of what
/// f returns or throws. f: whatever std::invoke takes, members and virtual functions included, whose object
/// is the first argument: a pointer, or std::ref(object), or a copy.
///
/// The fiber belongs to the calling fiber's runtime; on a plain thread to the one that was started last.
template <class F>
auto thunk(F&& f) {
  return thunked<std::decay_t<F>>({}, std::forward<F>(f));
}

/// The same on a stack of that kind.
///
/// \throws std::system_error  std::errc::not_supported for a kind that this build has not
template <class F>
auto thunk(F&& f, stack_kind kind) {
  fiber_options options;
  options.stack.kind = kind;
  return thunk(std::forward<F>(f), options);
}

/// The same with a name, a stack, an affinity: to a worker from the first wait on.
///
/// \throws std::system_error  errc::invalid_option naming the option and its value
template <class F>
auto thunk(F&& f, const fiber_options& options) {
  return thunked<std::decay_t<F>, detail::some_hot_options>({detail::make_hot_options(options)},
                                                            std::forward<F>(f));
}

/// The same for fibers of that runtime, wherever it is called. The thunk may outlive the runtime: calls then
/// throw errc::runtime_stopping.
template <class F>
auto thunk(const runtime& r, F&& f, const fiber_options& options = {}) {
  detail::hot_options chosen = detail::make_hot_options(options);
  chosen.runtime = detail::serial_of(r);
  return thunked<std::decay_t<F>, detail::some_hot_options>({chosen}, std::forward<F>(f));
}

}  // namespace tendril
