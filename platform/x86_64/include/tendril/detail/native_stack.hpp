// SPDX-License-Identifier: Apache-2.0
//
// How <tendril/ffi.hpp> reaches the native stack of a thread on x86-64. The contract is
// platform/split_stack.hpp, of which public headers know only: the limit word is at %fs:0x70, 0 where
// stacks are contiguous, and its five lowest bits are 0 there and on the native stack; of
// tendril_thread_stacks, +8 is the top of the native stack and +40 its limit, or 0 when it must be asked for.
//
// A stay (native_stay) sets limit and stack pointer when it begins and puts them back when it ends. The
// call between the two is the compiler's own, of the target's own type, so that arguments, results,
// landing pads and unwind information are as in any call:
//
//  in registers  arguments that are scalars and fit in registers: the target itself is called. Off
//                segmented stacks and on them the same few loads, stores and predicted branches.
//  closure       everything else: a closure on the caller's stack refers to target and arguments; a function
//                made for its type runs it over there.
//
// - The compiler must address its frame by rbp while rsp is elsewhere. It does so in functions whose stack
//   pointer it does not know: for gcc those with an array of variable length (one in a path hardly ever
//   taken is enough), for clang those with an asm that clobbers rsp. gcc takes that clobber, too, but calls it
//   deprecated, and aligned frames with -maccumulate-outgoing-args would go by rsp all the same. Both
//   asm statements use the frame's address, so that the prologue comes before and the epilogue after.
// - Nothing is pushed during a stay: arguments in memory belong to closures. What the compiler moves into
//   it runs there, which does no harm: there is room.
// - An exception arrives in the caller's landing pad on the native stack; the first thing there is the
//   destructor of the stay. rbp says where the frame is, for it and for unwinders.
// - The limit changes before the stack pointer on the way there and after it on the way back.
// - Addresses of thread-locals are computed in asm, each time: the compiler keeps them across calls, and
//   fibers migrate. Nothing that may switch happens between finding the stack and going there.
// - A linker that meets a function without a split prologue named in a split function, called or not,
//   makes the latter ask for a large stack. So targets known when compiling are loaded from a variable
//   (ffi.hpp), as is what is called here; and code for segmented stacks (TENDRIL_SPLIT_CODE) runs closures
//   in functions of their own, without a prologue, also where the call is plain.
//
// Rejected: an out-of-line entry for targets that may throw, with unwind information of its own (1.8 times a call
// instead of 1.2: one more call and return); the call inside an asm statement (gcc knows no landing pads
// for one, and operands end at thirty); copying arguments in memory to the other stack.
#pragma once

#include <tendril/config.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>

extern "C" {
/// The limit of this thread's native stack, or 0 when frames on it lie before the segment of `limit`.
TENDRIL_API std::uintptr_t tendril_native_limit(std::uintptr_t limit) noexcept;
}

namespace tendril::detail {

/// Whether native_call can find the caller on a segmented stack at all in this build.
inline constexpr bool has_native_stacks = true;

inline std::uintptr_t (*const volatile limit_if_not_pinned)(std::uintptr_t) noexcept =
    &tendril_native_limit;

/// Which way the code is laid out: a branch that is taken is a fifth of a call.
#ifdef TENDRIL_SPLIT_CODE
inline constexpr long likely_segmented = 1;
#else
inline constexpr long likely_segmented = 0;
#endif

// --- the stacks ----------------------------------------------------------------------------------

/// The limit word of the running flow of control. The compiler may keep it for as long as a function lasts,
/// which is right but where it makes two functions of one, so what it has kept is compared. To read the
/// word anew would tie each native call to the store that ended the one before.
[[gnu::always_inline]] inline std::uintptr_t limit_word() noexcept {
  std::uintptr_t limit;
  asm("movq %%fs:0x70, %0" : "=r"(limit));
  asm volatile(
      "cmpq %%fs:0x70, %0\n\t"
      "jne 2f\n"
      "1:\n\t"
      ".subsection 1\n"
      "2:\t"
      "movq %%fs:0x70, %0\n\t"
      "jmp 1b\n\t"
      ".previous"
      : "+r"(limit)
      :
      : "cc");
  return limit;
}

#ifdef __clang__
#define TENDRIL_STACK_POINTER , "rsp"
/// Makes the function that contains it one whose stack pointer varies, see the head.
[[gnu::always_inline]] inline void mark_stack_pointer_variable() noexcept {}
#else
#define TENDRIL_STACK_POINTER
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wvla"
[[gnu::always_inline]] inline void mark_stack_pointer_variable() noexcept {
  std::size_t bytes = 1;
  asm volatile("" : "+r"(bytes));
  __extension__ char array[bytes];
  asm volatile("" : : "r"(array) : "memory");
}
#pragma GCC diagnostic pop
#endif

struct native_stack {
  void* top;
  std::uintptr_t limit;
};

/// Where a caller with this limit word goes. False: nowhere, it calls in place.
[[gnu::always_inline]] inline bool find_native_stack(std::uintptr_t limit,
                                                     native_stack& to) noexcept {
  if (!__builtin_expect((limit & 31) != 0, likely_segmented)) return false;
  std::uintptr_t stacks;
  asm("movq tendril_thread_stacks@gottpoff(%%rip), %0" : "=r"(stacks));  // the same in all threads
  asm volatile("movq %%fs:8(%1), %0" : "=r"(to.top) : "r"(stacks));
  asm volatile("movq %%fs:40(%1), %0" : "=r"(to.limit) : "r"(stacks));
  if (__builtin_expect(to.limit == 0, 0)) {
    mark_stack_pointer_variable();
    to.limit = limit_if_not_pinned(limit);
    if (to.limit == 0) return false;
  }
  return true;
}

/// Whether the calling fiber, which is on a segmented stack, surely has no frames on its thread's native stack.
/// Without a look at a segment, which would be a miss each time a fiber parks; false says nothing.
[[gnu::always_inline]] inline bool surely_off_native_stack() noexcept {
  std::uintptr_t limit;
  std::uintptr_t stacks;
  std::uintptr_t native;
  asm volatile("movq %%fs:0x70, %0" : "=r"(limit));
  asm("movq tendril_thread_stacks@gottpoff(%%rip), %0" : "=r"(stacks));
  asm volatile("movq %%fs:40(%1), %0" : "=r"(native) : "r"(stacks));
  return (limit & 31) != 0 && native != 0;
}

// --- being there ---------------------------------------------------------------------------------

/// While it lives, the calling function runs on the native stack: what is called meanwhile does.
class native_stay {
 public:
  [[gnu::always_inline]] native_stay(const native_stack& to, std::uintptr_t limit) noexcept {
    void* sp;
    asm volatile(
        "movq %[there], %%fs:0x70\n\t"
        "movq %%rsp, %[sp]\n\t"
        "movq %[top], %%rsp"
        : [sp] "=&r"(sp)
        : [there] "r"(to.limit), [top] "r"(to.top), "r"(__builtin_frame_address(0))
        : "memory" TENDRIL_STACK_POINTER);
    sp_ = sp;
    limit_ = limit;
  }
  [[gnu::always_inline]] ~native_stay() {
    asm volatile(
        "movq %[sp], %%rsp\n\t"
        "movq %[limit], %%fs:0x70"
        :
        : [sp] "r"(sp_), [limit] "r"(limit_), "r"(__builtin_frame_address(0))
        : "memory" TENDRIL_STACK_POINTER);
  }
  native_stay(const native_stay&) = delete;
  native_stay& operator=(const native_stay&) = delete;

 private:
  void* sp_;
  std::uintptr_t limit_;
};

// --- functions whose arguments and results are scalars -------------------------------------------

template <class T>
inline constexpr bool is_vector_scalar = std::is_same_v<T, float> || std::is_same_v<T, double>;
template <class T>
inline constexpr bool is_scalar_argument = is_vector_scalar<T> || std::is_lvalue_reference_v<T> ||
                                           std::is_rvalue_reference_v<T> || std::is_pointer_v<T> ||
                                           std::is_null_pointer_v<T> || std::is_enum_v<T> ||
                                           (std::is_integral_v<T> &&
                                            std::numeric_limits<T>::digits <= 64);
template <class T>
inline constexpr bool is_scalar_result = is_scalar_argument<T> || std::is_void_v<T>;

/// What the ellipsis of a function makes of an argument of type A.
template <class A>
constexpr auto promotion() noexcept {
  using D = std::decay_t<A>;
  if constexpr (std::is_same_v<D, float>) return std::type_identity<double>();
  else if constexpr (std::is_null_pointer_v<D>) return std::type_identity<void*>();
  else if constexpr (std::is_integral_v<D> ||
                     (std::is_enum_v<D> && std::is_convertible_v<D, long long>))
    return std::type_identity<decltype(+std::declval<D>())>();
  else return std::type_identity<D>();
}
template <class A>
using promoted = typename decltype(promotion<A>())::type;

/// A call of a function that takes P, variable arguments included.
template <class R, class... P>
struct call_in_registers {
  static constexpr std::size_t vectors = (std::size_t{0} + ... + is_vector_scalar<P>);
  // A result that may be in memory takes a register for its address.
  static constexpr std::size_t integers = sizeof...(P) - vectors + !is_scalar_result<R>;
  static constexpr bool possible = (is_scalar_argument<P> && ...) && integers <= 6 && vectors <= 8;

  /// The arguments are what they are before it is looked where to go: to convert one may switch.
  template <class F>
  [[gnu::always_inline]] static R make(F f, P... p) {
    const std::uintptr_t limit = limit_word();
    if (native_stack to; find_native_stack(limit, to)) {
      const native_stay stay(to, limit);
      return f(static_cast<P>(p)...);
    }
    return f(static_cast<P>(p)...);
  }
};

/// For anything but pointers to functions.
struct no_call_in_registers {
  static constexpr bool possible = false;
};

template <class... T>
struct types {};

/// Appends to the parameters what is passed for the ellipsis: all but the first Skip arguments.
template <std::size_t Skip, class R, class P, class... Args>
struct variadic_call;
template <std::size_t Skip, class R, class... P, class A, class... Args>
struct variadic_call<Skip, R, types<P...>, A, Args...>
    : variadic_call<Skip - 1, R, types<P...>, Args...> {};
template <class R, class... P, class... Args>
struct variadic_call<0, R, types<P...>, Args...> : call_in_registers<R, P..., promoted<Args>...> {};
template <class R, class... P, class A, class... Args>
struct variadic_call<0, R, types<P...>, A, Args...>
    : call_in_registers<R, P..., promoted<A>, promoted<Args>...> {};

template <class F, class... Args>
struct call_in_registers_of : no_call_in_registers {};
template <class R, class... P, class... Args>
struct call_in_registers_of<R (*)(P...), Args...> : call_in_registers<R, P...> {};
template <class R, class... P, class... Args>
struct call_in_registers_of<R (*)(P...) noexcept, Args...> : call_in_registers<R, P...> {};
template <class R, class... P, class... Args>
struct call_in_registers_of<R (*)(P..., ...), Args...>
    : variadic_call<sizeof...(P), R, types<P...>, Args...> {};
template <class R, class... P, class... Args>
struct call_in_registers_of<R (*)(P..., ...) noexcept, Args...>
    : variadic_call<sizeof...(P), R, types<P...>, Args...> {};

// --- everything else -----------------------------------------------------------------------------

/// Runs a closure, as a function that asks for no room.
template <class R, class Body>
struct closure_call {
  [[gnu::noinline, gnu::no_split_stack]] static R run(Body* body);
};
template <class R, class Body>
R closure_call<R, Body>::run(Body* body) {
  return (*body)();
}

/// The same pointer, called without a landing pad: clang's names a function that no linker takes for split.
template <class F>
[[gnu::always_inline]] inline F promised(F f) noexcept {
  return f;
}
template <class R, class... P>
[[gnu::always_inline]] inline auto promised(R (*f)(P...)) noexcept {
  return reinterpret_cast<R (*)(P...) noexcept>(f);
}
template <class R, class... P>
[[gnu::always_inline]] inline auto promised(R (*f)(P..., ...)) noexcept {
  return reinterpret_cast<R (*)(P..., ...) noexcept>(f);
}

/// NoThrow: f does not throw.
template <bool NoThrow, class F, class... Args>
[[gnu::always_inline]] inline std::invoke_result_t<F, Args...> call_on_native_stack(
    F&& f, Args&&... args) noexcept(NoThrow) {
  using result = std::invoke_result_t<F, Args...>;
  using in_registers = call_in_registers_of<std::decay_t<F>, Args...>;
  if constexpr (in_registers::possible) {
    if constexpr (NoThrow)
      return in_registers::make(promised(static_cast<std::decay_t<F>>(f)),
                                std::forward<Args>(args)...);
    else return in_registers::make(static_cast<std::decay_t<F>>(f), std::forward<Args>(args)...);
  } else {
    const auto body = [&]() __attribute__((always_inline))->result {
      return std::invoke(std::forward<F>(f), std::forward<Args>(args)...);
    };
    using closure = closure_call<result, std::remove_reference_t<decltype(body)>>;
    const std::uintptr_t limit = limit_word();
    if (native_stack to; find_native_stack(limit, to)) {
      const native_stay stay(to, limit);
      return closure::run(&body);
    }
#ifdef TENDRIL_SPLIT_CODE
    return closure::run(&body);
#else
    return body();
#endif
  }
}

#undef TENDRIL_STACK_POINTER

}  // namespace tendril::detail
