// SPDX-License-Identifier: Apache-2.0
//
// A function that the linker cannot protect when it is called through a pointer.
#pragma once

namespace tendril::test {

/// Uses about so many bytes of stack, and says in how many frames.
unsigned unsplit_depth(unsigned bytes);

}  // namespace tendril::test
