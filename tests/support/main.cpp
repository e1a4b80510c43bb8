// SPDX-License-Identifier: Apache-2.0
//
// The main function of every test program. doctest's, unchanged: a case that needs a runtime starts
// its own, so that each begins from nothing and ends with nothing left.

#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
