// SPDX-License-Identifier: Apache-2.0
#include "sched/pinned_stack.hpp"

#include "sched/scheduler.hpp"
#include "sched/slots.hpp"
#include "sched/worker.hpp"
#include "sched/worker_thread.hpp"

#include <tendril/pin.hpp>

#include <exception>
#include <new>
#include <utility>

namespace tendril::detail {
namespace {

/// In the slot, which is in place whenever the tasklet runs.
struct pinned_call {
  void (*run)(void*);
  void* argument;
  fiber_core* self;
  pinned_header* header;
  context outer{};  ///< of call_pinned()
  std::exception_ptr error{};
};

stack_slice take_stack(stack_choice what) noexcept {
  const worker_use here;
  if (worker* const w = here.get()) return w->acquire_stack(what);
  return current_scheduler()->take_stack(what);
}

void give_stack(stack_slice slice, stack_choice what) noexcept {
  const worker_use here;
  if (worker* const w = here.get()) w->release_stack(slice, what);
  else current_scheduler()->give_stack(slice, what);
}

/// The frame's slice and the flag, in the order that the head of the header demands. The worker is in use meanwhile: the
/// monitor, which looks at the slice of a fiber whose thread seems blocked, has no claim then (crew.cpp).
class elsewhere_scope {
 public:
  explicit elsewhere_scope(const pinned_call& call) noexcept
      : self_(*call.self), slot_(self_.the_frame()->slice) {
    const worker_use here;
    call.header->anchor = static_cast<std::byte*>(call.outer.sp);
    self_.the_frame()->slice = {call.header->whole.low, reinterpret_cast<std::byte*>(call.header)};
    std::atomic_signal_fence(std::memory_order_release);
    self_.flags.fetch_or(flag::elsewhere, std::memory_order_relaxed);
  }
  ~elsewhere_scope() {
    const worker_use here;
    self_.flags.fetch_and(~flag::elsewhere, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_release);
    self_.the_frame()->slice = slot_;
  }
  elsewhere_scope(const elsewhere_scope&) = delete;
  elsewhere_scope& operator=(const elsewhere_scope&) = delete;

 private:
  fiber_core& self_;
  const stack_slice slot_;
};

/// The first frame of the own stack. The tasklet may be on another thread when it comes back.
platform::next_context pinned_main(void* transfer) noexcept {
  enter_context();
  auto& call = *static_cast<pinned_call*>(transfer);
  {
    const elsewhere_scope here(call);
    try {
      call.run(call.argument);
    } catch (...) {
      call.error = std::current_exception();
    }
  }
  return return_context(call.self->ctx, call.outer);
}

}  // namespace

void call_pinned(void (*run)(void*), void* argument) {
  fiber_core* const self = current_fiber();
  if (self == nullptr || !is_tasklet(self->stack_class) || is_elsewhere(*self)) {
    run(argument);
    return;
  }
  const stack_choice what =
      own_stack_of(self->stack_class, current_scheduler()->slots().size_class());
  const stack_slice own = take_stack(what);
  if (!own) throw std::bad_alloc();
  const auto top = (reinterpret_cast<std::uintptr_t>(own.high) - sizeof(pinned_header)) &
                   ~std::uintptr_t{alignof(pinned_header) - 1};
  auto* const header = ::new (reinterpret_cast<void*>(top)) pinned_header{nullptr, own};
  pinned_call call{run, argument, self, header};
  call.outer.describe_as(self->ctx);
  call_context(call.outer, self->ctx, own.low, header, 0, &pinned_main, &call);
  self->ctx.destroy();
  self->ctx.describe_as(call.outer);
  give_stack(own, what);
  if (call.error) std::rethrow_exception(std::move(call.error));
}

}  // namespace tendril::detail
