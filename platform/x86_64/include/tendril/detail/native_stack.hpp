// SPDX-License-Identifier: Apache-2.0
//
// How <tendril/ffi.hpp> reaches the native stack of a thread on x86-64. The contract is
// platform/split_stack.hpp, of which public headers know only: the limit word is at %fs:0x70, 0 where
// stacks are contiguous, and its five lowest bits are all ones on the native stack; of
// tendril_thread_stacks, +8 is the top of the native stack and +16 its header; of a header, +0 is the next
// segment and +8 the limit.
//
// Three ways, from cheap to general:
//
//  inline   the target does not throw, its arguments and result are scalars: one asm statement loads the
//           argument registers, changes the stack and calls the target. A few loads and stores in all.
//  stub     the same, but it may throw: native_call.S, with unwind information, passes all argument
//           registers on, and is told the limit in r8 and the target in r9.
//  closure  everything else: a closure on the caller's stack refers to target and arguments; a function
//           made for its type runs it over there, reached in either way. The result's type is exact, so
//           the compiler knows where it goes, also one in memory and one that cannot be moved.
//
// - The compiler believes that the asm stays on this stack. So nothing is pushed before rsp is
//   another's (below it may be a red zone); every operand is a register, since memory would be addressed by
//   rsp; and one operand is the frame's address, which makes the compiler describe the frame by rbp, so
//   that unwinders find their way while rsp is elsewhere.
// - Addresses of thread-locals are computed in asm, each time: the compiler keeps them across calls, and
//   fibers migrate.
// - A linker that meets a function without a split prologue named in a split function, called or not,
//   makes the latter ask for a large stack. So targets known when compiling are loaded from a variable
//   (ffi.hpp), as is what is called here, but for the stub, whose object is marked as split; and code for segmented stacks (TENDRIL_SPLIT_CODE) runs closures in functions of their own,
//   without a prologue, also where the call is plain.
//
// Rejected: one stub for all (1.8 times a direct call instead of 1.0 for what does not throw); copying
// arguments in memory to the other stack (a closure costs the same, and moves nothing).
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
/// native_call.S. What they are called as depends on the target.
TENDRIL_API void tendril_native_call_scalar();
TENDRIL_API void tendril_native_call_closure();
/// Whether frames on the native stack of this thread lie before the segment of this limit.
TENDRIL_API bool tendril_stack_pinned(std::uintptr_t limit) noexcept;
}

namespace tendril::detail {

/// Whether native_call can find the caller on a segmented stack at all in this build.
inline constexpr bool has_native_stacks = true;

inline bool (*const volatile stack_pinned)(std::uintptr_t) noexcept = &tendril_stack_pinned;

// --- the stacks ----------------------------------------------------------------------------------

/// The limit word of the running flow of control: 0 on threads and where the stack is contiguous.
[[gnu::always_inline]] inline std::uintptr_t limit_word() noexcept {
  std::uintptr_t limit;
  asm volatile("movq %%fs:0x70, %0" : "=r"(limit));
  return limit;
}

/// The same word, for who calls where it is known not to be 0: the compiler may read it once for a whole
/// function, which runs on one segment as long as it lasts. May be another's, see below.
[[gnu::always_inline]] inline std::uintptr_t presumed_limit() noexcept {
  std::uintptr_t limit;
  asm("movq %%fs:0x70, %0" : "=r"(limit));
  return limit;
}

struct native_stack {
  void* top;
  std::uintptr_t limit;
};

/// Where a caller goes whose limit word is not 0. False: nowhere, it calls in place.
[[gnu::always_inline]] inline bool find_native_stack(std::uintptr_t limit,
                                                     native_stack& to) noexcept {
  constexpr std::uintptr_t tag = 31;
  if (__builtin_expect((limit & tag) == tag, 0)) return false;
  void* top;
  const std::uintptr_t* header;
  asm volatile(
      "movq tendril_thread_stacks@gottpoff(%%rip), %1\n\t"
      "movq %%fs:8(%1), %0\n\t"
      "movq %%fs:16(%1), %1"
      : "=&r"(top), "=&r"(header));
  // The native stack was full and left for a segment, perhaps the caller's: then its frames are live.
  if (__builtin_expect(header[0] != 0, 0) && stack_pinned(limit)) return false;
  to = {top, header[1]};
  return true;
}

// --- registers -----------------------------------------------------------------------------------

using vector_register = float __attribute__((vector_size(16)));
using vector_register_2 = double __attribute__((vector_size(16)));

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

/// The contents of the argument registers of one call; each class in the order of the parameters.
struct argument_registers {
  std::uint64_t integers[6];
  vector_register vectors[8];
  std::size_t integer_count = 0;
  std::size_t vector_count = 0;

  template <class T>
  [[gnu::always_inline]] void add(std::remove_reference_t<T>& value) noexcept {
    if constexpr (std::is_reference_v<T>)
      integers[integer_count++] = reinterpret_cast<std::uint64_t>(std::addressof(value));
    else if constexpr (std::is_same_v<T, float>)
      vectors[vector_count++] = vector_register{value, 0, 0, 0};
    else if constexpr (std::is_same_v<T, double>)
      vectors[vector_count++] = reinterpret_cast<vector_register>(vector_register_2{value, 0});
    else if constexpr (std::is_null_pointer_v<T>) integers[integer_count++] = 0;
    else if constexpr (std::is_pointer_v<T>)
      integers[integer_count++] = reinterpret_cast<std::uint64_t>(value);
    else integers[integer_count++] = static_cast<std::uint64_t>(value);  // extended as the ABI asks
  }
};

template <std::size_t>
using vector_register_at = vector_register;

struct result_registers {
  std::uint64_t integer;
  vector_register vector;

  template <class R>
  [[gnu::always_inline]] R as() const noexcept {
    if constexpr (std::is_reference_v<R>)
      return static_cast<R>(*reinterpret_cast<std::remove_reference_t<R>*>(integer));
    else if constexpr (std::is_same_v<R, float>) return vector[0];
    else if constexpr (std::is_same_v<R, double>)
      return reinterpret_cast<vector_register_2>(vector)[0];
    else if constexpr (std::is_null_pointer_v<R>) return nullptr;
    else if constexpr (std::is_pointer_v<R>) return reinterpret_cast<R>(integer);
    else if constexpr (std::is_same_v<R, bool>) return (integer & 0xFF) != 0;
    else if constexpr (!std::is_void_v<R>) return static_cast<R>(integer);
  }
};

// The limit changes first on the way there, last on the way back. The compiler may keep the presumed limit
// for as long as the function lasts, which is right but where it makes two functions of one; so it is
// checked. Loading it here would tie each call to the store that ended the one before, and checking it with
// a branch that is taken costs as much: both were seen in loops, a fifth of a call.
#ifdef __AVX__
#define TENDRIL_CLEAN_VECTORS "vzeroupper\n\t"
#else
#define TENDRIL_CLEAN_VECTORS
#endif
// clang-format off
#define TENDRIL_ENTER_NATIVE_STACK                              \
  "cmpq %%fs:0x70, %[limit]\n\t"                                \
  "jne 2f\n"                                                    \
  "1:\t"                                                        \
  "movq %%rax, %%fs:0x70\n\t"                                   \
  "movq %%rsp, %[sp]\n\t"                                       \
  "movq %%r10, %%rsp\n\t"                                       \
  "movl %[count], %%eax\n\t" /* for variable arguments */       \
  TENDRIL_CLEAN_VECTORS                                         \
  "call *%%r11\n\t"                                             \
  "movq %[sp], %%rsp\n\t"                                       \
  "movq %[limit], %%fs:0x70\n\t"                                \
  ".subsection 1\n"                                             \
  "2:\t"                                                        \
  "movq %%fs:0x70, %[limit]\n\t"                                \
  "jmp 1b\n\t"                                                  \
  ".previous"
// clang-format on
#ifdef __AVX512F__
#define TENDRIL_CLOBBERED_AVX512                                                                \
  , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25",   \
      "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k0", "k1", "k2", "k3", "k4", "k5", \
      "k6", "k7"
#else
#define TENDRIL_CLOBBERED_AVX512
#endif
#define TENDRIL_CLOBBERED                                                                    \
  "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", \
      "xmm13", "xmm14", "xmm15", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", \
      "st(7)", "mm0", "mm1", "mm2", "mm3", "mm4", "mm5", "mm6", "mm7", "cc",                 \
      "memory" TENDRIL_CLOBBERED_AVX512

/// The contents of an argument register: what a register holds that carries nothing does not matter.
template <std::size_t I, std::size_t Count>
[[gnu::always_inline]] inline std::uint64_t integer_register(const argument_registers& a) noexcept {
  if constexpr (I < Count) {
    return a.integers[I];
  } else {
    std::uint64_t whatever;
    asm volatile("" : "=r"(whatever));  // volatile: else it is kept across loops, in memory
    return whatever;
  }
}
template <std::size_t I, std::size_t Count>
[[gnu::always_inline]] inline vector_register xmm_register(const argument_registers& a) noexcept {
  if constexpr (I < Count) {
    return a.vectors[I];
  } else {
    vector_register whatever;
    asm volatile("" : "=x"(whatever));
    return whatever;
  }
}

/// Calls a target that does not throw, with that many argument registers of each kind. VectorResult:
/// the result is in xmm0.
template <std::size_t Integers, std::size_t Vectors, bool VectorResult>
[[gnu::always_inline]] inline result_registers enter_native_stack(
    const native_stack& to, std::uintptr_t limit, const void* target,
    const argument_registers& arguments) noexcept {
  // Evaluated before the first register variable: what is between those and the asm may clobber them.
  const std::uint64_t i0 = integer_register<0, Integers>(arguments);
  const std::uint64_t i1 = integer_register<1, Integers>(arguments);
  const std::uint64_t i2 = integer_register<2, Integers>(arguments);
  const std::uint64_t i3 = integer_register<3, Integers>(arguments);
  const std::uint64_t i4 = integer_register<4, Integers>(arguments);
  const std::uint64_t i5 = integer_register<5, Integers>(arguments);
  void* const frame = __builtin_frame_address(0);
  void* sp;
  register std::uint64_t rax asm("rax") = to.limit;
  register const void* r10 asm("r10") = to.top;
  register const void* r11 asm("r11") = target;
  const vector_register x0 = xmm_register<0, Vectors>(arguments);
  const vector_register x1 = xmm_register<1, Vectors>(arguments);
  register std::uint64_t rdi asm("rdi") = i0;
  register std::uint64_t rsi asm("rsi") = i1;
  register std::uint64_t rdx asm("rdx") = i2;
  register std::uint64_t rcx asm("rcx") = i3;
  register std::uint64_t r8 asm("r8") = i4;
  register std::uint64_t r9 asm("r9") = i5;
  if constexpr (Vectors == 0 && !VectorResult) {
    asm volatile(TENDRIL_ENTER_NATIVE_STACK
                 : [sp] "=&r"(sp), [limit] "+r"(limit), "+r"(rax), "+r"(r10), "+r"(r11), "+r"(rdi),
                   "+r"(rsi), "+r"(rdx), "+r"(rcx), "+r"(r8), "+r"(r9)
                 : "r"(frame), [count] "i"(0)
                 : "xmm0", "xmm1", TENDRIL_CLOBBERED);
    return {rax, vector_register{}};
  } else if constexpr (Vectors <= 2) {
    register vector_register xmm0 asm("xmm0") = x0;
    register vector_register xmm1 asm("xmm1") = x1;
    asm volatile(TENDRIL_ENTER_NATIVE_STACK
                 : [sp] "=&r"(sp), [limit] "+r"(limit), "+r"(rax), "+r"(r10), "+r"(r11), "+r"(rdi),
                   "+r"(rsi), "+r"(rdx), "+r"(rcx), "+r"(r8), "+r"(r9), "+x"(xmm0), "+x"(xmm1)
                 : "r"(frame), [count] "i"(static_cast<int>(Vectors))
                 : TENDRIL_CLOBBERED);
    return {rax, xmm0};
  } else {
    // An asm statement has no more than thirty operands: the vectors come by way of memory.
    register vector_register xmm0 asm("xmm0");
    asm volatile(
        "movups (%[vectors]), %%xmm0\n\t"
        "movups 16(%[vectors]), %%xmm1\n\t"
        "movups 32(%[vectors]), %%xmm2\n\t"
        "movups 48(%[vectors]), %%xmm3\n\t"
        "movups 64(%[vectors]), %%xmm4\n\t"
        "movups 80(%[vectors]), %%xmm5\n\t"
        "movups 96(%[vectors]), %%xmm6\n\t"
        "movups 112(%[vectors]), %%xmm7\n\t" TENDRIL_ENTER_NATIVE_STACK
        : [sp] "=&r"(sp), [limit] "+r"(limit), "+r"(rax), "+r"(r10), "+r"(r11), "+r"(rdi),
          "+r"(rsi), "+r"(rdx), "+r"(rcx), "+r"(r8), "+r"(r9), "=x"(xmm0)
        : "r"(frame), [vectors] "r"(arguments.vectors), [count] "i"(static_cast<int>(Vectors))
        : "xmm1", TENDRIL_CLOBBERED);
    return {rax, xmm0};
  }
}

#undef TENDRIL_CLOBBERED
#undef TENDRIL_CLOBBERED_AVX512
#undef TENDRIL_ENTER_NATIVE_STACK
#undef TENDRIL_CLEAN_VECTORS

// --- functions whose arguments and results are scalars -------------------------------------------

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

/// A call of a function that takes P, variable arguments included, and returns R.
template <bool Variadic, class R, class... P>
struct scalar_call {
  static constexpr std::size_t vectors = (std::size_t{0} + ... + is_vector_scalar<P>);
  static constexpr std::size_t integers = sizeof...(P) - vectors;
  static constexpr bool scalars = is_scalar_result<R> && (is_scalar_argument<P> && ...);
  static constexpr bool can_inline = scalars && integers <= 6 && vectors <= 8;
  static constexpr bool has_stub = scalars && integers <= 4 && vectors <= 8 && !Variadic;

  [[gnu::always_inline]] static R inlined(const native_stack& to, std::uintptr_t limit,
                                          const void* target, P... p) noexcept {
    argument_registers arguments;
    (arguments.add<P>(p), ...);
    return enter_native_stack<integers, vectors, is_vector_scalar<R>>(to, limit, target, arguments)
        .template as<R>();
  }

  [[gnu::always_inline]] static R by_stub(const void* target, P... p) {
    argument_registers arguments;
    (arguments.add<P>(p), ...);
    return [&]<std::size_t... V>(std::index_sequence<V...>) __attribute__((always_inline))->R {
      using stub = R (*)(std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t, std::uintptr_t,
                         const void*, vector_register_at<V>...);
      return reinterpret_cast<stub>(&tendril_native_call_scalar)(
          integer_register<0, integers>(arguments), integer_register<1, integers>(arguments),
          integer_register<2, integers>(arguments), integer_register<3, integers>(arguments),
          presumed_limit(), target, arguments.vectors[V]...);
    }
    (std::make_index_sequence<vectors>());
  }
};

/// For anything but pointers to functions.
struct no_scalar_call {
  static constexpr bool can_inline = false;
  static constexpr bool has_stub = false;
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
struct variadic_call<0, R, types<P...>, Args...> : scalar_call<true, R, P..., promoted<Args>...> {};
template <class R, class... P, class A, class... Args>
struct variadic_call<0, R, types<P...>, A, Args...>
    : scalar_call<true, R, P..., promoted<A>, promoted<Args>...> {};

template <class F, class... Args>
struct scalar_call_of : no_scalar_call {};
template <class R, class... P, class... Args>
struct scalar_call_of<R (*)(P...), Args...> : scalar_call<false, R, P...> {};
template <class R, class... P, class... Args>
struct scalar_call_of<R (*)(P...) noexcept, Args...> : scalar_call<false, R, P...> {};
template <class R, class... P, class... Args>
struct scalar_call_of<R (*)(P..., ...), Args...>
    : variadic_call<sizeof...(P), R, types<P...>, Args...> {};
template <class R, class... P, class... Args>
struct scalar_call_of<R (*)(P..., ...) noexcept, Args...>
    : variadic_call<sizeof...(P), R, types<P...>, Args...> {};

// --- everything else -----------------------------------------------------------------------------

/// Runs a closure, as a function that asks for no room. The stub hands the closure on twice: whether the
/// address of the result comes before its arguments or not, it is the second of all.
template <class R, class Body>
struct closure_call {
  [[gnu::noinline, gnu::no_split_stack]] static R run(Body* first, Body* body);
  [[gnu::noinline, gnu::no_split_stack]] static R run_noexcept(Body* body) noexcept;
};
template <class R, class Body>
R closure_call<R, Body>::run(Body* /*first*/, Body* body) {
  return (*body)();
}
template <class R, class Body>
R closure_call<R, Body>::run_noexcept(Body* body) noexcept {
  return (*body)();
}

/// Which way the code is laid out: a branch that is taken is a fifth of a call.
#ifdef TENDRIL_SPLIT_CODE
inline constexpr long likely_segmented = 1;
#else
inline constexpr long likely_segmented = 0;
#endif

/// NoThrow: f does not throw, or the program ends.
template <bool NoThrow, class F, class... Args>
[[gnu::always_inline]] inline std::invoke_result_t<F, Args...> call_on_native_stack(
    F&& f, Args&&... args) noexcept(NoThrow) {
  using result = std::invoke_result_t<F, Args...>;
  using scalar = scalar_call_of<std::decay_t<F>, Args...>;
  const std::uintptr_t limit = limit_word();
  if constexpr (NoThrow ? scalar::can_inline : scalar::has_stub) {
    if (__builtin_expect(limit != 0, likely_segmented))
      if (native_stack to; find_native_stack(limit, to)) {
        const auto target = reinterpret_cast<const void*>(static_cast<std::decay_t<F>>(f));
        if constexpr (NoThrow)
          return scalar::inlined(to, presumed_limit(), target, std::forward<Args>(args)...);
        else return scalar::by_stub(target, std::forward<Args>(args)...);
      }
    return std::invoke(std::forward<F>(f), std::forward<Args>(args)...);
  } else {
    const auto body = [&]() __attribute__((always_inline))->result {
      return std::invoke(std::forward<F>(f), std::forward<Args>(args)...);
    };
    using closure = closure_call<result, std::remove_reference_t<decltype(body)>>;
    if (__builtin_expect(limit != 0, likely_segmented))
      if (native_stack to; find_native_stack(limit, to)) {
        if constexpr (NoThrow && is_scalar_result<result>) {
          return scalar_call<false, result, decltype(&body)>::inlined(
              to, presumed_limit(), reinterpret_cast<const void*>(&closure::run_noexcept), &body);
        } else {
          using entry = decltype(&closure::run);
          using stub = result (*)(decltype(&body), decltype(&body), entry, entry);
          return reinterpret_cast<stub>(&tendril_native_call_closure)(&body, &body, &closure::run,
                                                                      &closure::run);
        }
      }
#ifdef TENDRIL_SPLIT_CODE
    return closure::run(&body, &body);
#else
    return body();
#endif
  }
}

}  // namespace tendril::detail
