// SPDX-License-Identifier: Apache-2.0
//
// Functions that must not ask for room on a segmented stack although their file is compiled so.
#pragma once

/// No prologue check, and the linker leaves the function alone: it runs where it is called, and what it
/// needs, its unsplit callees included, must fit into what is known to be there.
#define TENDRIL_NO_SPLIT __attribute__((no_split_stack))
