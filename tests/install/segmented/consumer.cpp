// SPDX-License-Identifier: Apache-2.0
//
// A user's program on segmented stacks, against an installed tendril: fibers that recurse 1 MB deep
// from a first segment of 2 KiB, print from the bottom (printf was not compiled for it), and throw
// from there through every frame to the top. What it proves is that the package's flags reach the
// compiler and the linker, and that the three things above work with nothing else said.
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int fibers = 8;
constexpr int frames = 2048;  // of more than 512 bytes
constexpr std::size_t frame_bytes = 512;

struct counted {
  explicit counted(int& count) : count_(count) { ++count_; }
  ~counted() { --count_; }
  counted(const counted&) = delete;
  counted& operator=(const counted&) = delete;
  int& count_;
};

// Returns the number of frames whose bytes are still theirs when it comes back to them.
[[gnu::noinline]] int descend(int depth, int& alive, bool fail) {
  const counted guard(alive);
  volatile char bytes[frame_bytes];
  bytes[0] = static_cast<char>(depth);
  bytes[frame_bytes - 1] = static_cast<char>(depth >> 8);
  int intact = 0;
  if (depth == 0) {
    char line[64];
    std::snprintf(line, sizeof(line), "at the bottom: %d frames, %.3f", alive, 0.5 * alive);
    if (std::strlen(line) < 20) return 0;
    std::printf("%s\n", line);
    tendril::this_fiber::yield();
    if (fail) throw std::runtime_error(line);
  } else {
    intact = descend(depth - 1, alive, fail);
  }
  const bool mine = bytes[0] == static_cast<char>(depth) &&
                    bytes[frame_bytes - 1] == static_cast<char>(depth >> 8);
  return intact + (mine ? 1 : 0);
}

bool returns() {
  int alive = 0;
  return descend(frames - 1, alive, false) == frames && alive == 0;
}

bool throws() {
  int alive = 0;
  try {
    descend(frames - 1, alive, true);
  } catch (const std::runtime_error& e) {
    return alive == 0 && std::string(e.what()).starts_with("at the bottom: 2048 frames");
  }
  return false;
}

}  // namespace

int main() {
  const int passed = tendril::run([] {
    std::vector<int> ok(fibers);
    std::vector<tendril::fiber> running;
    tendril::fiber_options options;
    options.stack.kind = tendril::stack_kind::segmented;
    for (int i = 0; i < fibers; ++i) {
      running.emplace_back(options,
                           [&ok, i] { ok[i] = (i % 2 == 0 ? returns() : throws()) ? 1 : 0; });
    }
    for (auto& f : running) f.join();
    int sum = 0;
    for (const int each : ok) sum += each;
    return sum;
  });
  std::printf("%d of %d\n", passed, fibers);
  return passed == fibers ? 0 : 1;
}
