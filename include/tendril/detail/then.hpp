// SPDX-License-Identifier: Apache-2.0
//
// What then() leaves behind: one block that is the continuation, the state of the future returned, and
// the keeper of the future waited for.
//
//   attached --(source ready)--> [posted] --> f(source) --> done
//                                                '-- returned a pending future: attached to that --> done
//
// A stop request for the future returned goes on to whichever future is waited for just then; while f
// runs the word is closed, and a request is noted for what f returns.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/flow.hpp>
#include <tendril/future.hpp>
#include <tendril/synchronization_context.hpp>

#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

namespace tendril::detail {

/// What of the flow that attached a continuation goes with it: the ambient values, and the context that its
/// work is posted to.
struct posted_link : chain_link {
  explicit posted_link(synchronization_context* context)
      : where(context), ambient(ambient_for_child(this_flow())) {
    if (context != nullptr) run = &post;
  }
  ~posted_link() { release_ambient(ambient); }
  posted_link(const posted_link&) = delete;
  posted_link& operator=(const posted_link&) = delete;

  synchronization_context* where;
  std::uintptr_t ambient;         ///< an owned word
  std::exception_ptr not_posted;  ///< why the context did not take it

 private:
  TENDRIL_API static void post(continuation* self) noexcept;
};

/// While it lives, the calling flow has the link's ambient values; what is changed in them is forgotten.
class ambient_of_link {
 public:
  explicit ambient_of_link(posted_link& link)
      : flow_(this_flow()), outer_(std::exchange(flow_.ambient, std::exchange(link.ambient, 0))) {}
  ~ambient_of_link() { replace_ambient(flow_, outer_); }
  ambient_of_link(const ambient_of_link&) = delete;
  ambient_of_link& operator=(const ambient_of_link&) = delete;

 private:
  flow_locals& flow_;
  const std::uintptr_t outer_;
};

template <class Source, class F>
class then_state final : public future_state<then_result<F, Source>>, public posted_link {
  using traits = unwrapped<std::invoke_result_t<F, Source>>;
  using value = typename traits::type;

 public:
  /// Takes the source only after all that may throw.
  template <class G>
  then_state(synchronization_context* context, G&& f, Source& source)
      : posted_link(context), call_(std::forward<G>(f)), source_(std::move(source)) {
    step = [](chain_link* self) noexcept { return static_cast<then_state*>(self)->source_ready(); };
  }

  /// Whoever completes the source destroys this, perhaps before it returns.
  ///
  /// \throws std::future_error  future_already_retrieved; the source is given back, this is gone
  void start(Source& source) {
    bool attached;
    try {
      attached = future_access::on_ready(source_, *this, node_);
    } catch (...) {
      source = std::move(source_);
      this->release_producer();
      throw;
    }
    if (!attached) run(this);
  }

  future_state_base* source(std::size_t index, source_use use) noexcept override {
    if (index != 0 || !this->life.lock_if_open()) return nullptr;
    future_state_base* const s = waiting_for(use);
    if (s != nullptr) s->life.add_reader();
    this->life.unlock();
    return s;
  }

 private:
  using inner_future = std::conditional_t<traits::unwraps, future<value>, std::monostate>;

  continuation* source_ready() noexcept {
    this->life.close();
    if (this->not_posted != nullptr) {
      call_.reset();
      this->result.fail(std::move(this->not_posted));
      return finish();
    }
    try {
      const ambient_of_link here(*this);
      F local(std::move(*call_));  // gone, with what it holds, before the result is seen
      call_.reset();
      if constexpr (traits::unwraps) {
        inner_ = std::invoke(std::move(local), Source(std::move(source_)));
      } else if constexpr (std::is_void_v<value>) {
        std::invoke(std::move(local), Source(std::move(source_)));
        this->result.emplace();
      } else {
        this->result.emplace(std::invoke(std::move(local), Source(std::move(source_))));
      }
    } catch (...) {
      this->result.fail(std::current_exception());
      return finish();
    }
    if constexpr (traits::unwraps) return wait_for_inner();
    else return finish();
  }

  continuation* wait_for_inner() noexcept {
    try {
      future_access::require_valid(inner_);
      if (!inner_.is_ready()) {
        run = &run_chain;  // no context for what only passes a result on
        step = [](chain_link* self) noexcept {
          return static_cast<then_state*>(self)->inner_ready();
        };
        inner_waits_ = true;
        if (this->life.open()) inner_.request_stop();
        if (future_access::on_ready(inner_, *this)) return nullptr;
        this->life.close();
      }
    } catch (...) {
      this->result.fail(std::current_exception());
      return finish();
    }
    return take_inner();
  }
  continuation* inner_ready() noexcept {
    this->life.close();
    return take_inner();
  }
  continuation* take_inner() noexcept {
    try {
      this->result.move_from(future_access::result(inner_));
    } catch (...) {
      this->result.fail(std::current_exception());
    }
    inner_ = {};
    return finish();
  }

  continuation* finish() noexcept {
    continuation* const next = this->ready.complete_and_take();
    this->release_producer();
    return next;
  }
  future_state_base* waiting_for(source_use use) noexcept {
    if constexpr (traits::unwraps)
      if (inner_waits_) return future_access::state(inner_);
    return future_access::state(source_, use);
  }
  void destroy() noexcept override { delete this; }

  std::optional<F> call_;
  Source source_;
  [[no_unique_address]] source_node<Source> node_;
  [[no_unique_address]] inner_future inner_;
  bool inner_waits_ = false;
};

/// then() on what is ready: f runs here and now.
template <class Source, class F>
future<then_result<F, Source>> continue_now(Source& source, F&& f) {
  using traits = unwrapped<std::invoke_result_t<std::decay_t<F>, Source>>;
  using value = typename traits::type;
  std::decay_t<F> local(std::forward<F>(f));  // what this throws is the caller's
  future<value> out;
  try {
    if constexpr (traits::unwraps) {
      out = std::invoke(std::move(local), std::move(source));
      future_access::require_valid(out);
    } else if constexpr (std::is_void_v<value>) {
      std::invoke(std::move(local), std::move(source));
      future_access::result(out).emplace();
    } else {
      future_access::result(out).emplace(std::invoke(std::move(local), std::move(source)));
    }
  } catch (...) {
    out = {};
    future_access::result(out).fail(std::current_exception());
  }
  return out;
}

template <class Source, class F>
future<then_result<F, Source>> continue_later(synchronization_context* where, Source& source,
                                              F&& f) {
  auto* const s = new then_state<Source, std::decay_t<F>>(where, std::forward<F>(f), source);
  auto out = future_access::make<then_result<F, Source>>(s);
  s->start(source);
  return out;
}

}  // namespace tendril::detail

namespace tendril {

template <class T>
template <class F>
future<detail::then_result<F, future<T>>> future<T>::then(F&& f) {
  if (ready_or_throw()) return detail::continue_now(*this, std::forward<F>(f));
  return detail::continue_later(detail::resume_context(), *this, std::forward<F>(f));
}

template <class T>
template <class F>
future<detail::then_result<F, future<T>>> future<T>::then(configure_await how, F&& f) {
  if (ready_or_throw()) return detail::continue_now(*this, std::forward<F>(f));
  return detail::continue_later(detail::resume_context(how), *this, std::forward<F>(f));
}

template <class T>
template <class F>
future<detail::then_result<F, future<T>>> future<T>::then(synchronization_context& where, F&& f) {
  if (ready_or_throw() && detail::this_flow().sync == &where)
    return detail::continue_now(*this, std::forward<F>(f));
  return detail::continue_later(&where, *this, std::forward<F>(f));
}

}  // namespace tendril
