// SPDX-License-Identifier: Apache-2.0
//
// The portable backend of platform/switch.hpp on Boost.Context's fcontext, chosen by
// -DTENDRIL_SWITCH=boost. fcontext hands the suspended context to the side that continues, our
// contract stores it on the side that leaves: the pointer to that place travels along.
#include "platform/switch.hpp"

#include <boost/context/detail/fcontext.hpp>

#include <cfenv>
#include <cstddef>

namespace tendril::platform {
namespace {

namespace bc = boost::context::detail;

struct passage {
  void** save;
  void* transfer;
  entry_function entry = nullptr;  // of a new stack that tendril_call enters
};

entry_function entry_point = nullptr;  // one entry for all fibers, set before the first switch

void* arrive(bc::transfer_t t) noexcept {
  const passage p =
      *static_cast<passage*>(t.data);  // on the stack we came from, intact until we leave
  *p.save = t.fctx;
  return p.transfer;
}

void leave(const next_context& next) {
  void* grave;
  const bool back = next.sp == nullptr;
  passage p{&grave, back ? nullptr : next.transfer};
  bc::jump_fcontext(back ? next.transfer : next.sp, &p);
}

void start(bc::transfer_t t) {
  std::fesetenv(FE_DFL_ENV);  // make_fcontext copies its caller's
  leave(entry_point(arrive(t)));
}

void start_called(bc::transfer_t t) {
  const entry_function entry = static_cast<passage*>(t.data)->entry;
  leave(entry(arrive(t)));
}

constexpr std::size_t stack_size_hint =
    16 * 1024;  // fcontext aligns with it and reads nothing below

}  // namespace

extern "C" void* tendril_switch(void** save, void* to, void* transfer) noexcept {
  passage p{save, transfer};
  return arrive(bc::jump_fcontext(to, &p));
}

extern "C" void* tendril_switch_first(void** save, void* to, void* transfer) noexcept {
  return tendril_switch(save, to, transfer);
}

extern "C" void* tendril_call(void** save, void* top, std::uintptr_t, entry_function entry,
                              void* transfer) noexcept {
  passage p{save, transfer, entry};
  return arrive(bc::jump_fcontext(bc::make_fcontext(top, stack_size_hint, &start_called), &p));
}

void prepare_switch(control_word_cost) noexcept {}  // fcontext saves and loads all of it

void* make_context(void* top, entry_function entry, std::uintptr_t) noexcept {  // no limits
  __atomic_store_n(&entry_point, entry, __ATOMIC_RELAXED);
  return bc::make_fcontext(top, stack_size_hint, &start);
}

}  // namespace tendril::platform
