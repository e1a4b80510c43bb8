// SPDX-License-Identifier: Apache-2.0
//
// Compiled without segments: the code of somebody else.
#include "death/unsplit.hpp"

#include <cstddef>

namespace tendril::test {

[[gnu::noinline]] unsigned unsplit_depth(unsigned bytes) {
  volatile char frame[256];
  for (volatile char& c : frame) c = 1;  // every byte: what guards a segment is to be hit
  frame[0] = static_cast<char>(bytes);
  if (bytes < sizeof frame) return 1;
  const unsigned rest = unsplit_depth(bytes - static_cast<unsigned>(sizeof frame));
  return frame[0] == static_cast<char>(bytes) ? rest + 1 : 0;
}

[[gnu::noinline]] unsigned unsplit_frame() {
  volatile char frame[64 << 10];
  for (std::size_t i = sizeof frame; i >= 256; i -= 256) frame[i - 1] = 1;
  return static_cast<unsigned>(frame[255]);
}

}  // namespace tendril::test
