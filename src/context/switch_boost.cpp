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
};

entry_function entry_point = nullptr;  // one entry for all fibers, set before the first switch

void* arrive(bc::transfer_t t) noexcept {
  const passage p =
      *static_cast<passage*>(t.data);  // on the stack we came from, intact until we leave
  *p.save = t.fctx;
  return p.transfer;
}

void start(bc::transfer_t t) {
  std::fesetenv(FE_DFL_ENV);  // make_fcontext copies its caller's
  const next_context next = entry_point(arrive(t));
  void* grave;
  passage p{&grave, next.transfer};
  bc::jump_fcontext(next.sp, &p);
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

void prepare_switch(control_word_cost) noexcept {}  // fcontext saves and loads all of it

void* make_context(void* top, entry_function entry, std::uintptr_t) noexcept {  // no limits
  __atomic_store_n(&entry_point, entry, __ATOMIC_RELAXED);
  return bc::make_fcontext(top, stack_size_hint, &start);
}

}  // namespace tendril::platform
