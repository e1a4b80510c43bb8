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
  entry_function entry = nullptr;     // of a new stack that tendril_call enters
  const std::fenv_t* left = nullptr;  // by an entry function that returns to tendril_call
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
  if (next.sp != nullptr) {
    passage p{&grave, next.transfer};
    bc::jump_fcontext(next.sp, &p);
  } else {
    std::fenv_t now;
    std::fegetenv(&now);
    passage p{&grave, nullptr};
    p.left = &now;
    bc::jump_fcontext(next.transfer, &p);
  }
}

void start(bc::transfer_t t) {
  std::fesetenv(FE_DFL_ENV);  // make_fcontext copies its caller's
  leave(entry_point(arrive(t)));
}

void start_called(bc::transfer_t t) {
  const entry_function entry = static_cast<passage*>(t.data)->entry;
  leave(entry(arrive(t)));
}

struct body_passage : passage {
  body_function run;
  entry_function ended;
};

void start_body(bc::transfer_t t) {
  const auto p = *static_cast<const body_passage*>(static_cast<const passage*>(t.data));
  const body_end end = p.run(arrive(t));
  leave(end.stays != nullptr ? next_context{nullptr, t.fctx} : p.ended(end.rest));
}

void* called(bc::transfer_t t) noexcept {
  if (const auto* const left = static_cast<passage*>(t.data)->left)
    std::fesetenv(left);  // the jump has loaded ours
  return arrive(t);
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
  return called(bc::jump_fcontext(bc::make_fcontext(top, stack_size_hint, &start_called), &p));
}

extern "C" void* tendril_call_body(void** save, void* top, body_function run, void* body,
                                   entry_function ended) noexcept {
  body_passage p{{save, body}, run, ended};
  // As a passage, which arrive() takes it for.
  return called(bc::jump_fcontext(bc::make_fcontext(top, stack_size_hint, &start_body),
                                  static_cast<passage*>(&p)));
}

void prepare_switch(control_word_cost) noexcept {}  // fcontext saves and loads all of it

void* make_context(void* top, entry_function entry, std::uintptr_t) noexcept {  // no limits
  __atomic_store_n(&entry_point, entry, __ATOMIC_RELAXED);
  return bc::make_fcontext(top, stack_size_hint, &start);
}

void reset_control_words() noexcept { std::fesetenv(FE_DFL_ENV); }

}  // namespace tendril::platform
