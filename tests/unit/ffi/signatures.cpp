// SPDX-License-Identifier: Apache-2.0
//
// Shapes of arguments and results: each is called directly and by native_call, with the target known to
// be noexcept and not, given as an argument and as a template argument, and must get and give the same.
#include "places.hpp"

#include <tendril/ffi.hpp>

#include <doctest/doctest.h>

#include <complex>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

namespace {

using namespace tendril::test;
using tendril::native_call;
using tendril::native_call_noexcept;

enum class small_enum : signed char {};
enum big_enum : unsigned long long {};
struct two_ints {
  int a, b;
};
struct int_and_double {
  int a;
  double b;
};
struct two_doubles {
  double a, b;
};
struct three_floats {
  float a, b, c;
};
struct one_char {
  char a;
};
struct twelve_bytes {
  std::int32_t a[3];
};
struct five_longs {
  long a[5];
};
struct with_long_double {
  long double a;
};
struct alignas(16) aligned {
  int a;
};
/// A result only: compilers disagree about such arguments.
struct alignas(64) over_aligned {
  int a;
};
struct empty {};
#pragma pack(push, 1)
struct packed {
  char a;
  double b;
};
#pragma pack(pop)
using four_floats = float __attribute__((vector_size(16)));
using two_longs = long long __attribute__((vector_size(16)));

/// Neither copied nor moved; only ever made where it stays.
struct immovable {
  explicit immovable(std::uint64_t v) : value(v), self(this) {}
  immovable(const immovable&) = delete;
  bool stayed() const { return self == this; }
  std::uint64_t value;
  const immovable* self;
};

/// Copies and moves are counted by what they add.
struct movable {
  explicit movable(std::uint64_t v) : value(v) {}
  movable(movable&& other) noexcept : value(std::exchange(other.value, 0)) {}
  ~movable() { value = 0; }
  std::uint64_t value;
};

std::uint64_t mix(std::uint64_t h, std::uint64_t v) {
  h ^= v + 0x9E3779B97F4A7C15u + (h << 6) + (h >> 2);
  return h * 0xD6E8FEB86659FD93u;
}

/// The value of a parameter of type T, made of a seed, and what it is told apart by.
template <class T>
struct value {
  static T make(std::uint64_t seed) {
    if constexpr (std::is_same_v<T, bool>) return (seed & 1) != 0;
    else if constexpr (std::is_floating_point_v<T>)
      return static_cast<T>(static_cast<std::int64_t>(seed % 1000003)) / 8;
    else if constexpr (std::is_pointer_v<T>) return reinterpret_cast<T>(seed & ~std::uint64_t{7});
    else return static_cast<T>(seed);
  }
  static std::uint64_t digest(const T& v) {
    if constexpr (std::is_floating_point_v<T>)
      return static_cast<std::uint64_t>(static_cast<std::int64_t>(v * 8));
    else if constexpr (std::is_pointer_v<T>) return reinterpret_cast<std::uint64_t>(v);
    else return static_cast<std::uint64_t>(v);
  }
};
template <>
struct value<std::nullptr_t> {
  static std::nullptr_t make(std::uint64_t) { return nullptr; }
  static std::uint64_t digest(std::nullptr_t) { return 5; }
};
/// Types without padding, whose bytes are the value; floating-point parts stay finite.
template <class T>
struct bytes_value {
  static T make(std::uint64_t seed) {
    unsigned char bytes[sizeof(T)];
    for (std::size_t i = 0; i != sizeof(T); ++i)
      bytes[i] = static_cast<unsigned char>(mix(seed, i) >> 57);
    T v;
    std::memcpy(&v, bytes, sizeof(T));
    return v;
  }
  static std::uint64_t digest(const T& v) {
    unsigned char bytes[sizeof(T)];
    std::memcpy(bytes, &v, sizeof(T));
    std::uint64_t h = 1;
    for (const unsigned char b : bytes) h = mix(h, b);
    return h;
  }
};
template <>
struct value<two_ints> : bytes_value<two_ints> {};
template <>
struct value<two_doubles> : bytes_value<two_doubles> {};
template <>
struct value<three_floats> : bytes_value<three_floats> {};
template <>
struct value<one_char> : bytes_value<one_char> {};
template <>
struct value<twelve_bytes> : bytes_value<twelve_bytes> {};
template <>
struct value<five_longs> : bytes_value<five_longs> {};
template <>
struct value<packed> : bytes_value<packed> {};
template <>
struct value<four_floats> : bytes_value<four_floats> {};
template <>
struct value<two_longs> : bytes_value<two_longs> {};
template <>
struct value<std::complex<float>> : bytes_value<std::complex<float>> {};
template <>
struct value<std::complex<double>> : bytes_value<std::complex<double>> {};
template <>
struct value<std::complex<long double>> {
  using type = std::complex<long double>;
  static type make(std::uint64_t seed) {
    return {value<long double>::make(seed), value<long double>::make(seed + 1)};
  }
  static std::uint64_t digest(const type& v) {
    return mix(value<long double>::digest(v.real()), value<long double>::digest(v.imag()));
  }
};
template <>
struct value<int_and_double> {
  static int_and_double make(std::uint64_t seed) {
    return {value<int>::make(seed), value<double>::make(seed + 1)};
  }
  static std::uint64_t digest(const int_and_double& v) {
    return mix(value<int>::digest(v.a), value<double>::digest(v.b));
  }
};
template <>
struct value<with_long_double> {
  static with_long_double make(std::uint64_t seed) { return {value<long double>::make(seed)}; }
  static std::uint64_t digest(const with_long_double& v) { return value<long double>::digest(v.a); }
};
template <>
struct value<aligned> {
  static aligned make(std::uint64_t seed) { return {value<int>::make(seed)}; }
  static std::uint64_t digest(const aligned& v) {
    return mix(value<int>::digest(v.a), reinterpret_cast<std::uintptr_t>(&v) % 16);
  }
};
template <>
struct value<over_aligned> {
  static over_aligned make(std::uint64_t seed) { return {value<int>::make(seed)}; }
  static std::uint64_t digest(const over_aligned& v) {
    return mix(value<int>::digest(v.a), reinterpret_cast<std::uintptr_t>(&v) % 64);
  }
};
template <>
struct value<empty> {
  static empty make(std::uint64_t) { return {}; }
  static std::uint64_t digest(const empty&) { return 9; }
};
template <>
struct value<std::string> {
  static std::string make(std::uint64_t seed) {
    return std::string(seed % 60, 'x') + std::to_string(seed);
  }
  static std::uint64_t digest(const std::string& v) { return std::hash<std::string>()(v); }
};
template <>
struct value<movable> {
  static movable make(std::uint64_t seed) { return movable(seed); }
  static std::uint64_t digest(const movable& v) { return v.value; }
};
template <>
struct value<immovable> {
  static immovable make(std::uint64_t seed) { return immovable(seed); }
  static std::uint64_t digest(const immovable& v) { return mix(v.value, v.stayed() ? 1 : 2); }
};
/// References: to something that outlives the call.
template <class T>
struct value<T&> {
  static T& make(std::uint64_t seed) {
    static std::remove_const_t<T> kept = value<std::remove_const_t<T>>::make(seed);
    return kept;
  }
  static std::uint64_t digest(T& v) { return reinterpret_cast<std::uintptr_t>(&v); }
};

template <class R, bool NoThrow, class... P>
struct target {
  [[gnu::noinline]] static R call(P... p) noexcept(NoThrow) {
    note_foreign_call();
    std::uint64_t h = sizeof...(P);
    ((h = mix(h, value<P>::digest(p))), ...);
    seen = h;
    if constexpr (!std::is_void_v<R>) return value<R>::make(h);
  }
  // Of the last call. A signature is tested in one place at a time.
  static inline std::uint64_t seen = 0;
};

template <class R, bool NoThrow, class... P, class Call>
std::uint64_t outcome(Call call) {
  if constexpr (std::is_void_v<R>) {
    call();
    return target<R, NoThrow, P...>::seen;
  } else {
    R&& result = call();
    return mix(value<R>::digest(result), target<R, NoThrow, P...>::seen);
  }
}

template <class R, bool NoThrow, class... P, std::size_t... I>
int differences(std::index_sequence<I...>) {
  using t = target<R, NoThrow, P...>;
  constexpr auto f = &t::call;
  static_assert(noexcept(native_call(f, std::declval<P>()...)) ==
                std::is_nothrow_invocable_v<decltype(f), P...>);
  static_assert(std::is_same_v<decltype(native_call(f, std::declval<P>()...)), R>);
  int different = 0;
  for (std::uint64_t seed = 1; seed != 20; ++seed) {
    const auto argument = [seed]<class T>(std::type_identity<T>, std::size_t i) -> T {
      return value<T>::make(mix(seed, i));
    };
    const auto expected = outcome<R, NoThrow, P...>(
        [&]() -> R { return t::call(argument(std::type_identity<P>(), I)...); });
    const auto same = [&](auto call) {
      if (outcome<R, NoThrow, P...>(call) != expected) ++different;
    };
    auto* volatile pointer = f;
    same([&]() -> R { return native_call(pointer, argument(std::type_identity<P>(), I)...); });
    same([&]() -> R { return native_call(t::call, argument(std::type_identity<P>(), I)...); });
    same([&]() -> R { return native_call<&t::call>(argument(std::type_identity<P>(), I)...); });
    same([&]() -> R {
      return native_call_noexcept(pointer, argument(std::type_identity<P>(), I)...);
    });
    same([&]() -> R {
      return native_call_noexcept<&t::call>(argument(std::type_identity<P>(), I)...);
    });
    same([&]() -> R {
      return native_call([&]() noexcept(NoThrow) -> R {
        return t::call(argument(std::type_identity<P>(), I)...);
      });
    });
  }
  return different;
}

template <class R, class... P>
void check(const char* signature) {
  CAPTURE(signature);
  int different = 0;
  int different_noexcept = 0;
  everywhere(
      [&] {
        different = differences<R, false, P...>(std::index_sequence_for<P...>());
        different_noexcept = differences<R, true, P...>(std::index_sequence_for<P...>());
      },
      [&](const std::string& place) {
        CAPTURE(place);
        CHECK(different == 0);
        CHECK(different_noexcept == 0);
        CHECK(foreign_calls.load() == 2 * 19 * 7);
        // The calls that were made directly are where they should not be.
        CHECK(misplaced_calls ==
              (place == all_places[2].name && tendril::detail::has_native_stacks ? 2 * 19 : 0));
      });
}

#define SIGNATURE(...) check<__VA_ARGS__>(#__VA_ARGS__)

}  // namespace

TEST_SUITE("ffi.signatures") {
  TEST_CASE("integers and pointers") {
    SIGNATURE(void);
    SIGNATURE(int);
    SIGNATURE(int, int);
    SIGNATURE(bool, bool, char, signed char, unsigned char);
    SIGNATURE(signed char, short, unsigned short, char16_t);
    SIGNATURE(short, long long, int, unsigned, long);
    SIGNATURE(unsigned char, small_enum, big_enum);
    SIGNATURE(small_enum, int);
    SIGNATURE(big_enum, void*, const char*, std::nullptr_t);
    SIGNATURE(void*, int, int, int, int, int);
    SIGNATURE(long, long, long, long, long, long, long);
    SIGNATURE(long, long, long, long, long, long, long, long);
    SIGNATURE(void, char, long, char, long, char, long, char, long, char, long, char, long);
    SIGNATURE(std::int64_t, int, const int&, int);
    SIGNATURE(int&, int&);
    SIGNATURE(const std::string&, const std::string&, std::string&);
  }

  TEST_CASE("floating point") {
    SIGNATURE(float, float);
    SIGNATURE(double, double);
    SIGNATURE(double, int, double, const void*);
    SIGNATURE(float, double, float, double, float, int, float);
    SIGNATURE(void, double, double, double, double, double, double, double, double);
    SIGNATURE(double, double, double, double, double, double, double, double, double, double);
    SIGNATURE(double, long, double, long, double, long, double, long, double, long, double, long,
              double);
    SIGNATURE(int, float, float, float, float, float, float, float, float, float);
    SIGNATURE(long double, long double, int, long double);
    SIGNATURE(std::complex<float>, std::complex<float>, float);
    SIGNATURE(std::complex<double>, std::complex<double>);
    SIGNATURE(std::complex<long double>, std::complex<long double>, int);
    SIGNATURE(four_floats, four_floats, double, four_floats);
    SIGNATURE(two_longs, int, two_longs);
  }

  TEST_CASE("classes by value") {
    SIGNATURE(empty, empty, int);
    SIGNATURE(one_char, one_char, one_char);
    SIGNATURE(two_ints, two_ints, int, two_ints);
    SIGNATURE(int_and_double, int_and_double, int_and_double);
    SIGNATURE(two_doubles, two_doubles, double);
    SIGNATURE(three_floats, three_floats, float, three_floats);
    SIGNATURE(twelve_bytes, twelve_bytes, char, twelve_bytes);
    SIGNATURE(five_longs, five_longs, int, five_longs);
    SIGNATURE(with_long_double, with_long_double, long double);
    SIGNATURE(aligned, aligned, char, aligned);
    SIGNATURE(over_aligned, int, const over_aligned&);
    SIGNATURE(packed, packed, char, packed);
    SIGNATURE(std::string, std::string, int, std::string);
    SIGNATURE(movable, movable, long, movable);
    SIGNATURE(immovable, int);
    SIGNATURE(immovable, five_longs, double, std::string, movable);
    SIGNATURE(int, two_ints, two_doubles, int_and_double, five_longs, std::string, movable,
              aligned);
  }
}
