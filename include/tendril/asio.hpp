// SPDX-License-Identifier: Apache-2.0
//
// use_fiber: a completion token with which Asio's asynchronous operations park the calling fiber and return
// their result.
//
//     boost::asio::ip::tcp::socket s = ...;                    // its io_context is run by a thread of its own
//     const std::size_t n = s.async_read_some(boost::asio::buffer(data), tendril::use_fiber);
//
// An optional header, the only one that includes what is not the standard library: link tendril::asio (the
// component `asio` of the package), which finds Boost's headers; or define TENDRIL_ASIO_STANDALONE for Asio
// without Boost. <tendril/tendril.hpp> does not include it.
//
// Results are those of use_awaitable: a first argument error_code or exception_ptr is thrown when it is one
// (as system_error of Asio's own kind) and not returned; of what remains, nothing gives void, one argument its
// value, several a tuple. use_fiber[ec] puts an error_code into ec instead of throwing, and returns the rest.
// as_tuple(use_fiber) and redirect_error(use_fiber, ec) do as they say, too, but in Boost 1.81 they hide the
// executor: such an operation is not interrupted.
//
// Stopping. A stop request of the fiber, or the deadline of a deadline_scope, emits a terminal cancellation to
// the operation, on the executor of its I/O object; the operation then completes, usually with
// operation_aborted, and is always waited for, since it uses the caller's buffers. As everywhere in Asio, an
// io_context that several threads run needs a strand for that.
//
// Buffers, and I/O objects that others use, must not be variables of a tasklet: they are used while it waits, when
// others run at the addresses of its stack. Keep them on the heap.
//
// The handler runs on a thread of the io_context and only unparks the fiber. A thread may wait as well, and
// blocks; if it is the only one that runs the io_context, for ever.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/waiting.hpp>
#include <tendril/future.hpp>

#ifdef TENDRIL_ASIO_STANDALONE
#include <asio/async_result.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/error_code.hpp>
#include <asio/post.hpp>
#include <asio/system_error.hpp>
#else
#include <boost/asio/async_result.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/post.hpp>
#include <boost/system/error_code.hpp>
#include <boost/system/system_error.hpp>
#endif

#include <atomic>
#include <cstdint>
#include <exception>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

namespace tendril {

namespace detail {

#ifdef TENDRIL_ASIO_STANDALONE
namespace net = ::asio;
using net_error_code = ::asio::error_code;
using net_system_error = ::asio::system_error;
#else
namespace net = ::boost::asio;
using net_error_code = ::boost::system::error_code;
using net_system_error = ::boost::system::system_error;
#endif

}  // namespace detail

/// The token that puts an error_code into ec.
struct use_fiber_with_error {
  detail::net_error_code* ec;
};
/// The token's type.
struct use_fiber_t {
  constexpr use_fiber_with_error operator[](detail::net_error_code& ec) const noexcept {
    return {&ec};
  }
};
inline constexpr use_fiber_t use_fiber{};

namespace detail {

/// What an operation and the fiber that waits for it share.
template <class... Args>
struct fiber_operation {
  completion ready;
  std::atomic<std::uint32_t> references{1};
  net::cancellation_signal signal;  ///< used on the executor of the operation once that has begun
  result_slot<std::tuple<Args...>> result;

  void release() noexcept {
    // Acquire and release: all uses of it come before its end.
    if (references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
};

template <class... Args>
class fiber_operation_ref {
 public:
  using operation = fiber_operation<Args...>;
  explicit fiber_operation_ref(operation& o) noexcept : operation_(&o) {
    o.references.fetch_add(1, std::memory_order_relaxed);
  }
  fiber_operation_ref(fiber_operation_ref&& other) noexcept
      : operation_(std::exchange(other.operation_, nullptr)) {}
  fiber_operation_ref(const fiber_operation_ref& other) noexcept
      : fiber_operation_ref(*other.operation_) {}
  fiber_operation_ref& operator=(fiber_operation_ref) = delete;
  ~fiber_operation_ref() {
    if (operation_ != nullptr) operation_->release();
  }
  operation* operator->() const noexcept { return operation_; }
  explicit operator bool() const noexcept { return operation_ != nullptr; }

 private:
  operation* operation_;
};

/// The handler. Destroyed without having been called, as when an io_context ends: a broken promise.
template <class... Args>
class fiber_handler {
 public:
  using cancellation_slot_type = net::cancellation_slot;

  explicit fiber_handler(fiber_operation<Args...>& o) noexcept : operation_(o) {}
  fiber_handler(fiber_handler&& other) noexcept = default;
  fiber_handler& operator=(fiber_handler&&) = delete;
  ~fiber_handler() {
    if (!operation_) return;
    operation_->result.fail(broken_promise_error());
    operation_->ready.complete();
  }

  cancellation_slot_type get_cancellation_slot() const noexcept {
    return operation_->signal.slot();
  }

  template <class... Given>
  void operator()(Given&&... given) {
    const auto operation = std::move(operation_);
    operation->signal.slot()
        .clear();  // the object it refers to may go as soon as the fiber goes on
    try {
      operation->result.emplace(std::forward<Given>(given)...);
    } catch (...) {
      operation->result.fail(std::current_exception());
    }
    operation->ready.complete();
  }

 private:
  fiber_operation_ref<Args...> operation_;
};

template <class First>
inline constexpr bool is_net_error =
    std::is_same_v<First, net_error_code> || std::is_same_v<First, std::exception_ptr>;

inline void throw_if_failed(const net_error_code& ec) {
  if (ec) throw net_system_error(ec);
}
inline void throw_if_failed(const std::exception_ptr& e) {
  if (e) std::rethrow_exception(e);
}

/// Nothing, the value, or a tuple.
inline void unpack(std::tuple<>&&) noexcept {}
template <class T>
T unpack(std::tuple<T>&& all) {
  return std::get<0>(std::move(all));
}
template <class A, class B, class... Rest>
std::tuple<A, B, Rest...> unpack(std::tuple<A, B, Rest...>&& all) {
  return std::move(all);
}

template <class... Args>
using unpacked = decltype(unpack(std::declval<std::tuple<Args...>>()));

/// ec == null: an error is thrown. The types of results are said, not deduced from a body: Asio asks for them
/// while it looks for the overload that is meant, for results, too, that could not be made.
template <class... Args>
struct fiber_result {
  static unpacked<Args...> give(std::tuple<Args...>&& all, net_error_code*) {
    return unpack(std::move(all));
  }
};
template <class First, class... Rest>
requires is_net_error<First>
struct fiber_result<First, Rest...> {
  static unpacked<Rest...> give(std::tuple<First, Rest...>&& all, net_error_code* ec) {
    if constexpr (std::is_same_v<First, net_error_code>) {
      if (ec != nullptr) *ec = std::get<0>(all);
    }
    if (ec == nullptr || !std::is_same_v<First, net_error_code>) throw_if_failed(std::get<0>(all));
    return std::apply(
        [](First&, Rest&... rest) { return unpack(std::tuple<Rest...>(std::move(rest)...)); }, all);
  }
};
template <class... Args>
using fiber_result_type =
    decltype(fiber_result<Args...>::give(std::declval<std::tuple<Args...>>(), nullptr));

/// Starts the operation, parks until its handler has run, gives or throws its result.
template <class... Args, class Initiation, class... InitArgs>
fiber_result_type<Args...> run_on_fiber(net_error_code* ec, Initiation&& initiation,
                                        InitArgs&&... args) {
  using operation = fiber_operation<Args...>;
  struct owner {
    operation* o;
    ~owner() { o->release(); }
  };
  constexpr const char* what = "asio operation";
  const owner mine{new operation};
  // Asked for before the initiation is given away.
  constexpr bool has_executor = requires { initiation.get_executor(); };
  auto executor = [&] {
    if constexpr (has_executor) return std::optional(initiation.get_executor());
    else return std::optional<int>();
  }();
  std::forward<Initiation>(initiation)(fiber_handler<Args...>(*mine.o),
                                       std::forward<InitArgs>(args)...);
  if (mine.o->ready.wait({.cancelable = has_executor, .reason = what}) != outcome::signalled) {
    if constexpr (has_executor)
      net::post(*executor, [operation = fiber_operation_ref<Args...>(*mine.o)] {
        operation->signal.emit(net::cancellation_type::terminal);
      });
    mine.o->ready.wait({.cancelable = false, .reason = what});
  }
  return fiber_result<Args...>::give(mine.o->result.take(), ec);
}

}  // namespace detail
}  // namespace tendril

#ifdef TENDRIL_ASIO_STANDALONE
namespace asio {
#else
namespace boost::asio {
#endif

template <class R, class... Args>
class async_result<tendril::use_fiber_t, R(Args...)> {
 public:
  using return_type = tendril::detail::fiber_result_type<std::decay_t<Args>...>;

  template <class Initiation, class... InitArgs>
  static return_type initiate(Initiation&& initiation, tendril::use_fiber_t, InitArgs&&... args) {
    return tendril::detail::run_on_fiber<std::decay_t<Args>...>(
        nullptr, std::forward<Initiation>(initiation), std::forward<InitArgs>(args)...);
  }
};

template <class R, class... Args>
class async_result<tendril::use_fiber_with_error, R(Args...)> {
 public:
  using return_type = tendril::detail::fiber_result_type<std::decay_t<Args>...>;

  template <class Initiation, class... InitArgs>
  static return_type initiate(Initiation&& initiation, tendril::use_fiber_with_error token,
                              InitArgs&&... args) {
    return tendril::detail::run_on_fiber<std::decay_t<Args>...>(
        token.ec, std::forward<Initiation>(initiation), std::forward<InitArgs>(args)...);
  }
};

#ifdef TENDRIL_ASIO_STANDALONE
}
#else
}
#endif
