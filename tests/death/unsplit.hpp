// SPDX-License-Identifier: Apache-2.0
//
// Functions that the linker cannot protect when they are called through pointers.
#pragma once

namespace tendril::test {

/// Uses about so many bytes of stack, and says in how many frames.
unsigned unsplit_depth(unsigned bytes);

/// Has one frame of 64 KiB, which it uses from the top.
unsigned unsplit_frame();

}  // namespace tendril::test
