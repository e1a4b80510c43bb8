// SPDX-License-Identifier: Apache-2.0
//
// Chains of coroutines: entering and leaving flows, suspension, resumption, cancellation. The protocol is
// described in chain.hpp.
#include <tendril/context.hpp>
#include <tendril/detail/closure.hpp>
#include <tendril/detail/flow.hpp>
#include <tendril/task.hpp>

#include <string>
#include <system_error>
#include <utility>

namespace tendril::detail {

void coroutine_chain::enter(flow_locals& flow) noexcept {
  outer_ = std::exchange(flow.chain, this);
  std::swap(flow.ambient, ambient_);
}

flow_locals& coroutine_chain::leave() noexcept {
  flow_locals& flow = this_flow();
  ++turn_;
  flow.chain = outer_;
  std::swap(flow.ambient, ambient_);
  // What it has from the flow in which it began is the flow's, and others may continue it.
  if ((ambient_ & borrowed_bit) != 0) [[unlikely]]
    ambient_ = share_ambient(ambient_);
  return flow;
}

void coroutine_chain::enter() noexcept { enter(this_flow()); }

void coroutine_chain::enter_first() noexcept {
  flow_locals& flow = this_flow();
  ambient_ = borrowed(flow.ambient);
  enter(flow);
}

void coroutine_chain::start() noexcept {
  enter_first();
  root_->self.resume();
}

std::coroutine_handle<> coroutine_chain::end() noexcept {
  leave();
  release_ambient(std::exchange(ambient_, 0));
  close_blocks();
  return at_end_(this);
}

bool coroutine_chain::suspend_slow(chain_leaf& leaf, std::uint32_t found) {
  for (;;) {
    if ((found & done_early) != 0) {  // the completer has been here and gone
      state_.fetch_and(~done_early, std::memory_order_acq_rel);
      go_on();
      return false;
    }
    if ((found & (canceled | expired)) != 0 && leaf.withdraw(&leaf)) {
      leaf.result = why(found);
      go_on();
      return false;
    }
    // Asked to stop, but completed: the completer comes or has come.
    if (state_.compare_exchange_weak(found, found | suspended, std::memory_order_acq_rel))
      return true;
  }
}

void coroutine_chain::completed(continuation* self) noexcept {
  coroutine_chain* const chain = static_cast<chain_leaf*>(self)->chain;
  std::uint32_t found = suspended;
  // Acquire: what the suspending code wrote. Release: what was done before completing, if others resume.
  if (!chain->state_.compare_exchange_strong(found, running, std::memory_order_acq_rel)) {
    for (;;) {
      const bool mine = (found & suspended) != 0 && (found & busy) == 0;
      const std::uint32_t next = mine ? found & ~suspended : found | done_early;
      if (!chain->state_.compare_exchange_weak(found, next, std::memory_order_acq_rel)) continue;
      if (!mine) return;  // the suspending code or the canceler goes on
      break;
    }
  }
  chain->resume();
}

void coroutine_chain::request_stop(outcome reason) noexcept {
  const std::uint32_t bit = reason == outcome::expired ? expired : canceled;
  std::uint32_t found = state_.load(std::memory_order_relaxed);
  bool claimed;
  do {
    if ((found & (canceled | expired)) != 0) return;
    claimed = (found & suspended) != 0;
  } while (!state_.compare_exchange_weak(found, found | bit | (claimed ? busy : 0),
                                         std::memory_order_seq_cst));
  // seq_cst, as in stop_token(): either we see its source or it sees our request.
  if (extras* const e = extras_.load(std::memory_order_seq_cst)) e->source.request_stop();
  if (!claimed) return;
  // Nobody resumes while it is busy: the leaf stays.
  chain_leaf& leaf = *leaf_;
  if (leaf.withdraw(&leaf)) {
    leaf.result = why(bit);
    state_.fetch_and(~(busy | suspended), std::memory_order_acq_rel);
    resume();
    return;
  }
  // It was completed: the completer has been here, then it is for us to resume; or comes.
  if ((state_.fetch_and(~busy, std::memory_order_acq_rel) & done_early) == 0) return;
  state_.fetch_and(~(done_early | suspended), std::memory_order_acq_rel);
  resume();
}

std::stop_token coroutine_chain::stop_token() {
  extras* e = extras_.load(std::memory_order_relaxed);
  if (e == nullptr) {
    e = new extras;
    extras_.store(e, std::memory_order_seq_cst);
    if ((state_.load(std::memory_order_seq_cst) & (canceled | expired)) != 0)
      e->source.request_stop();
  }
  return e->source.get_token();
}

void coroutine_chain::stop_with(const std::stop_token& token) {
  if (!token.stop_possible()) return;
  (void)stop_token();
  extras_.load(std::memory_order_relaxed)->callback.emplace(token, relay{this});
}

void coroutine_chain::resume() noexcept {
  if (context_ == nullptr) {
    resume_here();
    return;
  }
  try {
    context_->post(
        {[](void* chain) noexcept { static_cast<coroutine_chain*>(chain)->resume_here(); }, this});
  } catch (...) {
    resume_here();  // late in the wrong place is better than never
  }
}

void coroutine_chain::resume_here() noexcept {
  flow_locals& flow = this_flow();
  if (flow.resumed == max_nested) {
    try {
      start_detached(make_fiber_core([this]() noexcept { resume_here(); }), nullptr);
    } catch (...) {  // no runtime: when the outermost has returned
      next_ = std::exchange(flow.resumable, this);
    }
    return;
  }
  ++flow.resumed;
  const std::coroutine_handle<> who = leaf_->who;
  enter(flow);
  who.resume();
  --flow.resumed;
  while (flow.resumed == 0 && flow.resumable != nullptr) {
    coroutine_chain* const next = flow.resumable;
    flow.resumable = next->next_;
    next->resume_here();
  }
}

std::coroutine_handle<> promise_core::end() noexcept {
  if (awaited_by == nullptr) return chain->end();
  promise_core* dying = this;
  if (error != nullptr && awaited_by->passes) {
    // Frames are destroyed from the innermost, each while the one that awaits it still has its locals; the last
    // of them carries the exception to who handles it.
    std::exception_ptr carried = std::move(error);
    promise_core* next = awaited_by;
    while (next->passes && next->awaited_by != nullptr) {
      task_access::release(dying->site->callee);
      dying->self.destroy();
      dying = next;
      next = dying->awaited_by;
    }
    dying->error = std::move(carried);
  }
  return dying->back();
}

std::coroutine_handle<> promise_core::back() noexcept {
  if (!called_here || turn != chain->turn()) return awaited_by->self;
  *static_cast<call_site_here*>(site)->returned = true;
  return std::noop_coroutine();
}

void throw_empty_task(const char* what) {
  throw std::system_error(std::make_error_code(std::errc::invalid_argument),
                          std::string(what) + ": the task is empty: moved from, or awaited before");
}

void throw_awaits_itself() {
  throw std::system_error(make_error_code(errc::would_deadlock),
                          "co_await future: a coroutine cannot wait for its own result");
}

void run_chain(promise_core& root) {
  coroutine_chain& chain = coroutine_chain::create(root, [](coroutine_chain* c) noexcept {
    c->done().complete();  // the last use of the chain: it goes when the waiter has seen this
    return std::coroutine_handle<>(std::noop_coroutine());
  });
  root.chain = &chain;
  chain.awaiting = current_waiter();
  chain.start();
  outcome why =
      chain.done().is_set() ? outcome::signalled : chain.done().wait({.reason = "await(task)"});
  if (why != outcome::signalled) {
    chain.request_stop(why);
    chain.done().wait({.cancelable = false, .reason = "await(task)"});
  }
  chain.destroy();
}

}  // namespace tendril::detail
