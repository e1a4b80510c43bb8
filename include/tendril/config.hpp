// SPDX-License-Identifier: Apache-2.0
//
// Version and symbol visibility. Everything that may differ between builds of the library and
// that a public header depends on is a macro of this file, nothing else.
#pragma once

#define TENDRIL_VERSION_MAJOR 0
#define TENDRIL_VERSION_MINOR 1
#define TENDRIL_VERSION_PATCH 0
#define TENDRIL_VERSION_STRING "0.1.0"

#define TENDRIL_API __attribute__((visibility("default")))
