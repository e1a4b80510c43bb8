// SPDX-License-Identifier: Apache-2.0
//
// Calls every shape at 100 depths, 16 bytes apart, around the place where the segment ends: so the edge
// lies once at every place of a frame that it can lie at, in the caller, the arguments, and the callee.
#include "abi.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>
#include <vector>

namespace abi {

u64 depth;
u64 overall;

namespace {

constexpr int depths = 100;
constexpr int step_bytes = 16;
constexpr int deepest = 10'000;  // frames of descend(): more than any segment that a test begins on

u64 caller_limit;
long differences;
long calls;
std::array<std::pair<int, int>, 20> first_differences;  // shape, place
std::vector<int> crossings;                             // of each shape
std::vector<bool> runnable;

template <int N>
[[gnu::noinline]] void frame(void (*call)()) {
  volatile char pad[N * step_bytes + 1];
  keep(pad);
  pad[0] = 1;
  pad[N * step_bytes] = 2;
  call();
  pad[0] = pad[N * step_bytes];
}

template <int... N>
constexpr auto make_frames(std::integer_sequence<int, N...>) {
  return std::array<void (*)(void (*)()), sizeof...(N)>{frame<N>...};
}
constexpr auto frames = make_frames(std::make_integer_sequence<int, depths>());

// Far enough above the edge for what rest() calls.
constexpr int rest_frames = 60;
void (*volatile rest_at_depth)() = nullptr;

[[gnu::noinline]] void descend(int count, int last, void (*call)()) {
  volatile char pad[32];
  keep(pad);
  pad[0] = static_cast<char>(count);
  if (count == rest_frames && rest_at_depth != nullptr) rest_at_depth();
  if (count == 0) frames[static_cast<std::size_t>(last)](call);
  else descend(count - 1, last, call);
  pad[1] = pad[0];
}

u64 bottom_limit;
std::uintptr_t bottom_address;
[[gnu::noinline]] void bottom() {
  volatile char pad[8];
  keep(pad);
  pad[0] = 1;
  bottom_limit = limit_word();
  bottom_address = reinterpret_cast<std::uintptr_t>(&pad[0]);
}

// Where descend() leaves a segment: on the frame after `frames`.
struct edge {
  int frames;
  u64 near_limit;  // of the segment that is left
};

// Those of the first two segments. The first is small, and the caller of a shape with large arguments
// has no room in it.
struct edges {
  std::array<edge, 2> found;
  int count;
  int frame_bytes;  // of descend()
};

edges find_edges() {
  edges result{};
  descend(0, 0, bottom);
  u64 near_limit = bottom_limit;
  const std::uintptr_t first = bottom_address;
  descend(1, 0, bottom);
  result.frame_bytes = static_cast<int>(first - bottom_address);
  for (int n = 1; n < deepest && result.count < 2; ++n) {
    descend(n, 0, bottom);
    if (bottom_limit != near_limit) {
      result.found[static_cast<std::size_t>(result.count++)] = {n - 1, near_limit};
      near_limit = bottom_limit;
    }
  }
  return result;
}

void call_once(int index, int frames, int d) {
  const long before = calls;
  depth = static_cast<u64>(d);
  if (frames < rest_frames && rest_at_depth != nullptr) rest_at_depth();
  descend(frames, d, shapes[index].call);
  if (calls != before + 1) differs(index, 300);
}

// The last fifth of the depths leaves no room for the caller, the others none for what it calls.
void run_at_edge(int index, const edge& e, int frame_bytes) {
  int frames = e.frames;
  do call_once(index, frames, 0);
  while (caller_limit != e.near_limit && --frames > 0);
  const int before = depths * 4 / 5 * step_bytes / frame_bytes;
  frames = std::max(0, frames - before);
  for (int d = 0; d < depths; ++d) call_once(index, frames, d);
}

bool can_run(const shape& s) {
  if (s.vector_bytes == 64) return __builtin_cpu_supports("avx512f") != 0;
  if (s.vector_bytes == 32) return __builtin_cpu_supports("avx") != 0;
  return true;
}

}  // namespace

void leaving(u64 limit) { caller_limit = limit; }

void entered(int shape, u64 limit) {
  ++calls;
  if (limit != caller_limit) ++crossings[static_cast<std::size_t>(shape)];
}

void differs(int shape, int place) {
  const auto n = static_cast<std::size_t>(differences++);
  if (n < first_differences.size()) first_differences[n] = {shape, place};
}

void prepare() {
  differences = 0;
  calls = 0;
  crossings.assign(static_cast<std::size_t>(shape_count), 0);
  runnable.clear();
  for (int i = 0; i < shape_count; ++i) runnable.push_back(can_run(shapes[i]));
}

void run_all(bool crossing, void (*rest)()) {
  rest_at_depth = rest;
  const edges e = crossing ? find_edges() : edges{};
  for (int i = 0; i < shape_count; ++i) {
    if (!runnable[static_cast<std::size_t>(i)]) continue;
    if (crossing) {
      for (int n = 0; n < e.count; ++n) {
        run_at_edge(i, e.found[static_cast<std::size_t>(n)], e.frame_bytes);
      }
      if (shapes[i].crosses && crossings[static_cast<std::size_t>(i)] == 0) differs(i, 301);
    } else {
      for (int d = 0; d < depths; ++d) call_once(i, 0, d);
    }
  }
}

long report(const char* where) {
  long crossed = 0;
  int ran = 0;
  for (int i = 0; i < shape_count; ++i) {
    crossed += crossings[static_cast<std::size_t>(i)];
    ran += runnable[static_cast<std::size_t>(i)] ? 1 : 0;
  }
  std::printf(
      "%-18s %d of %d shapes, %ld calls, %ld of them into another segment, %ld differences\n",
      where, ran, shape_count, calls, crossed, differences);
  const auto listed = std::min(static_cast<std::size_t>(differences), first_differences.size());
  for (std::size_t i = 0; i < listed; ++i) {
    const auto& [shape, place] = first_differences[i];
    std::printf("  shape %d, %s: ", shape, shapes[shape].what);
    if (place < 100) std::printf("argument %d differs\n", place);
    else if (place == 100) std::printf("the result differs\n");
    else if (place < 200) std::printf("what the caller kept across the call differs (%d)\n", place);
    else if (place == 300) std::printf("was not entered, or twice\n");
    else if (place == 301) std::printf("no call crossed into another segment\n");
    else std::printf("its own frame differs (%d)\n", place);
  }
  return differences;
}

}  // namespace abi
