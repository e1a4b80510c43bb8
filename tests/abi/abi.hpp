// SPDX-License-Identifier: Apache-2.0
//
// What generated callers and callees of the ABI test share (generate.py): values that both sides
// compute from the shape, the place and the depth, comparisons, and the record of what differed.
//
// Everything is plain global state: one flow of control at a time runs shapes.
#pragma once

#include <complex>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>

namespace abi {

using u64 = std::uint64_t;
__extension__ using i128 = __int128;
__extension__ using u128 = unsigned __int128;
using v4f = float __attribute__((vector_size(16)));
using v2d = double __attribute__((vector_size(16)));
using v8f = float __attribute__((vector_size(32)));
using v16f = float __attribute__((vector_size(64)));

extern u64 depth;    // of the calls being made: part of every value
extern u64 overall;  // of the run: part of every value

/// The thread's limit word: another one in the callee means that the call crossed into a segment.
inline u64 limit_word() {
  u64 word;
  __asm__ volatile("movq %%fs:0x70, %0" : "=r"(word));
  return word;
}

void leaving(u64 limit);             // by the caller, before the call
void entered(int shape, u64 limit);  // by the callee
void differs(int shape, int place);

/// Places: 0.. arguments, 100 the result, 101.. what the caller keeps across the call, 200.. others.
inline void check(bool same, int shape, int place) {
  if (!same) [[unlikely]]
    differs(shape, place);
}

/// Compilers divide even volatile arrays into what is used of them, unless somebody else may see them.
inline void keep(volatile char* array) { __asm__ volatile("" : : "r"(array) : "memory"); }

inline u64 mix(u64 x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}
inline u64 key(int shape, int place) {
  return mix(overall + mix(static_cast<u64>(shape) * 1024 + static_cast<u64>(place)) + depth * 31);
}

/// make(seed): a value that uses every byte; same(): all of it is equal.
template <class T>
struct value {
  static T make(u64 seed) {
    const u64 bits = mix(seed);
    if constexpr (std::is_same_v<T, bool>) {
      return (bits & 1) != 0;
    } else if constexpr (std::is_pointer_v<T>) {
      return reinterpret_cast<T>(static_cast<std::uintptr_t>(bits));
    } else if constexpr (std::is_floating_point_v<T>) {
      // Exact in all of them, and the low bits of a long double differ from a double's.
      const T fine =
          std::is_same_v<T, float> ? T(0) : T(static_cast<std::int32_t>(bits >> 32)) / T(1 << 20);
      return T(static_cast<std::int16_t>(bits)) + fine / T(1 << 20);
    } else {
      return static_cast<T>(bits);
    }
  }
  static bool same(const T& a, const T& b) { return a == b; }
};

template <>
struct value<i128> {
  static i128 make(u64 seed) {
    return static_cast<i128>((static_cast<u128>(mix(seed)) << 64) | mix(seed + 1));
  }
  static bool same(i128 a, i128 b) { return a == b; }
};
template <>
struct value<u128> {
  static u128 make(u64 seed) { return (static_cast<u128>(mix(seed)) << 64) | mix(seed + 1); }
  static bool same(u128 a, u128 b) { return a == b; }
};

template <class T>
struct value<std::complex<T>> {
  static std::complex<T> make(u64 seed) { return {value<T>::make(seed), value<T>::make(seed + 1)}; }
  static bool same(const std::complex<T>& a, const std::complex<T>& b) { return a == b; }
};

template <>
struct value<std::string> {
  static std::string make(u64 seed) {
    return std::to_string(mix(seed)) + std::string(seed % 40, static_cast<char>('a' + seed % 26));
  }
  static bool same(const std::string& a, const std::string& b) { return a == b; }
};

template <>
struct value<std::unique_ptr<u64>> {
  static std::unique_ptr<u64> make(u64 seed) { return std::make_unique<u64>(mix(seed)); }
  static bool same(const std::unique_ptr<u64>& a, const std::unique_ptr<u64>& b) {
    return a && b && *a == *b;
  }
};

template <class T>
T make(u64 seed) {
  return value<T>::make(seed);
}
template <class T>
bool same(const T& a, const T& b) {
  return value<T>::same(a, b);
}

/// Vectors never pass through functions of this header: which registers they travel in depends on the
/// instruction sets that are enabled where a function is compiled.
template <class V>
inline __attribute__((always_inline)) void fill(V& v, u64 seed) {
  for (std::size_t i = 0; i < sizeof(V); i += 8) {
    const u64 bits = mix(seed + i);
    __builtin_memcpy(reinterpret_cast<char*>(&v) + i, &bits, 8);
  }
}
template <class V>
inline __attribute__((always_inline)) bool filled(const V& v, u64 seed) {
  bool equal = true;
  for (std::size_t i = 0; i < sizeof(V); i += 8) {
    u64 bits;
    __builtin_memcpy(&bits, reinterpret_cast<const char*>(&v) + i, 8);
    equal = equal && bits == mix(seed + i);
  }
  return equal;
}

enum class small : unsigned char {};
enum class wide : long long {};

/// Travels by invisible reference; knows whether its address is still its own.
class tracked {
 public:
  explicit tracked(u64 v) : self_(this), v_(v) {}
  tracked(const tracked& other) : self_(this), v_(other.v_) {}
  tracked& operator=(const tracked& other) {
    v_ = other.v_;
    return *this;
  }
  ~tracked() { self_ = nullptr; }
  bool is(u64 v) const { return self_ == this && v_ == v; }
  bool is(const tracked& other) const { return is(other.v_); }

 private:
  tracked* self_;
  u64 v_;
};
template <>
struct value<tracked> {
  static tracked make(u64 seed) { return tracked(mix(seed)); }
  static bool same(const tracked& a, const tracked& b) { return a.is(b); }
};

struct nothing {};
template <>
struct value<nothing> {
  static nothing make(u64) { return {}; }
  static bool same(nothing, nothing) { return true; }
};

struct shape {
  void (*call)();
  const char* what;
  unsigned vector_bytes;  // of the widest vector among its types
  bool crosses;           // at some depth the callee, and not the caller, begins a segment
};
extern const shape shapes[];
extern const int shape_count;

/// Calls every shape at every depth from where it is called. On a stack without segments no call
/// crosses; `crossing` demands that every shape did. Calls nothing that was compiled without split
/// stacks: linkers would move it, and all that it calls, to a large stack at once.
///
/// \param rest  called some way above each call: gives back the segments beyond, so that the call needs
///              a new one; null: they are kept, and entered again
void run_all(bool crossing, void (*rest)());
/// Before and after it, on a plain thread. The number of differences; what they are is printed.
void prepare();
long report(const char* where);

}  // namespace abi
